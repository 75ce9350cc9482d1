// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the CPU and the KVM under test really offer, as read back. Part of every trace.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

#include "oracle/cpu/cpu.h"

namespace fpswap::trace {

struct Platform {
  std::string target;         // what runs: "kvm", "native", "unicorn"
  std::string lab;            // "lab:NAME" of the machine it runs on, "" for this one
  std::string cpu;            // brand string
  uint32_t cpu_family = 0;    // display family (CPUID.1:EAX); 0: not recorded
  std::string kernel;         // uname -r
  std::string vendor_module;  // kvm_intel, kvm_amd, kvm_pvm, "" for none
  cpu::Features host;         // what the host's CPUID says
  cpu::Features guest;        // as KVM_GET_CPUID2 shows it to the guest; native: the host's
  // The guest has all of `guest` whatever features a program asks for: KVM shows it the host's leaf
  // 0DH all the same (kvm_pvm).
  bool guest_fixed = false;
  // The guest's instructions run under the guest's own XCR0. False: under host_xcr0 whatever XCR0
  // the vCPU was given, though KVM_GET_XCRS shows that (kvm_pvm).
  bool xcr0_loaded = true;
  uint64_t host_xcr0 = 0;      // the kernel's XCR0
  uint64_t guest_supp = 0;     // KVM_X86_XCOMP_GUEST_SUPP, or host_xcr0 where there is none
  uint64_t guest_perm = 0;     // ARCH_GET_XCOMP_GUEST_PERM
  uint32_t xsave_size = 4096;  // bytes of KVM_GET_XSAVE2 (KVM_CAP_XSAVE2), native: CPUID's
  bool compacted = true;       // the host kernel keeps fpstates compacted (XSAVES or XSAVEC)
  uint32_t cpus = 1;           // CPUs allowed
  uint32_t vcpus = 1;          // vCPUs that a program may have
  bool kernel_log = false;     // the agent reads the kernel's log
  // The agent tells what of the kernel a program reaches (KCOV): fuzzing is guided by it too.
  bool kernel_coverage = false;
  // What is known to take the machine down is trimmed (plan/trim.h). Of the run, not of the
  // machine: in no trace, for what did run is judged.
  bool spare_host = false;
  // By op number: 1 where the target can run the step, and why not where it can't.
  std::bitset<256> can;
  std::vector<std::pair<uint8_t, std::string>> cannot;

  // As --target takes it.
  const std::string& name() const { return lab.empty() ? target : lab; }
  // Whether the guest's code runs in a vCPU, which a VMM's thread enters and leaves. Else a run of
  // steps has no exit to end with, and there is no VMM's state to keep from the guest.
  bool HasVmm() const { return target != "native" && target != "unicorn"; }
};

}  // namespace fpswap::trace
