// SPDX-License-Identifier: GPL-2.0-or-later
//
// A KVM virtual machine and its vCPUs, with what is known of a vCPU's state so that it can be
// brought back to the start with as few ioctls as is sound.
//
// Not thread safe.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "kvm-runner/cpuid.h"
#include "kvm-runner/guest_memory.h"
#include "kvm-runner/posix.h"

namespace fpswap::kvm {

// What is known of /dev/kvm; filled once, by the probe.
struct Host {
  Fd kvm;
  int run_size = 0;  // bytes to map of a vCPU
  uint32_t xsave_size = 4096;
  bool sync_regs = false;  // registers through the kvm_run page
  bool xsave2 = false;
  bool xcrs = false;
  bool msr_exits = false;  // KVM_CAP_X86_USER_SPACE_MSR and filters
  bool compacted = true;
  bool guest_pku = false;
  uint64_t guest_components = 0;  // user components a guest may have
  bool guest_fixed = false;
  uint32_t mxcsr_mask = 0;
  CpuidTable cpuid;
  std::vector<uint32_t> reset_msrs;  // XSS, XFD, XFD_ERR, CET's, as far as the guest has them
};

// State that a program may have left behind, each with one way to bring it back (start.cc).
enum Stale : unsigned {
  kStaleFpu = 1 << 0,  // any component
  kStaleXcr0 = 1 << 1,
  kStaleMsrs = 1 << 2,
  kStaleSregs = 1 << 3,
  kStaleEvents = 1 << 4,
  kStaleMpState = 1 << 5,
  kStaleAll = 0x3f,
};

struct Vcpu {
  Fd fd;
  Mapping run_page;
  unsigned number = 0;    // in the program
  uint64_t features = 0;  // user components its CPUID was made for
  unsigned stale = kStaleAll;
  kvm_sregs sregs{};         // as last set or read; CS and SS by `cpl`
  bool sregs_known = false;  // CR0, CR4 and the segments are still those of `sregs`
  // KVM has something left to do for the exit it came back with (an OUT's RIP to move on, the data
  // of a read to take), and does it at the next KVM_RUN, whatever the registers are by then.
  bool pending = false;
  int cpl = -1;       // -1: not known (in an exception stub, or never set)
  uint64_t xcr0 = 0;  // the start value last set, while not kStaleXcr0

  kvm_run& run() const { return *reinterpret_cast<kvm_run*>(run_page.data()); }
};

// What a VM is made with and keeps.
struct VmKind {
  uint64_t features = 0;    // user components its vCPUs' CPUID is made for
  bool apic = false;        // an in-kernel local APIC, which INIT needs (and with which HLT waits)
  bool msr_filter = false;  // kExitMsrIndex exits; installing it waits for an SRCU grace period,
                            // milliseconds, so only VMs whose programs need it have it
  // Number in the program of its first vCPU, and of the guest memory it has.
  unsigned first = 0;
  // Its vCPUs are run by threads of their own: a vCPU stays with its thread, for where the thread
  // is another than the last time, KVM_RUN of some kernels waits for an RCU grace period
  // (kvm_vcpu_ioctl).
  bool threads = false;
  bool operator==(const VmKind&) const = default;
};

struct Vm {
  Fd fd;
  VmKind kind;
  std::vector<Vcpu> vcpus;
};

// Errors are sentences that name the ioctl and errno.
std::expected<Vm, std::string> CreateVm(const Host& host, const GuestMemory& memory,
                                        const VmKind& kind);
// Creates vCPUs until the VM has `count`, and tells them their CPUID if `tell`.
std::expected<void, std::string> AddVcpus(const Host& host, Vm& vm, unsigned count,
                                          bool tell = true);

std::string Failure(const char* call);  // "KVM_CREATE_VM: Operation not permitted"

}  // namespace fpswap::kvm
