// SPDX-License-Identifier: GPL-2.0-or-later
//
// The CPUID a guest is given: what KVM supports, less the components a program does without.
//
// Some KVMs (kvm_pvm) leave XSAVE and what hangs on it out of KVM_GET_SUPPORTED_CPUID and yet take
// it in KVM_SET_CPUID2 and run it; so those bits come from the host's CPUID where KVM reports the
// components (leaf 0DH or KVM_X86_XCOMP_GUEST_SUPP) but not the instructions. What the guest then
// really has is read back by KVM_GET_CPUID2, and whether it runs is tried out by the probe.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>

#include "harness/trace/host_features.h"

namespace fpswap::kvm {

// struct kvm_cpuid2 with room.
struct CpuidTable {
  static constexpr uint32_t kRoom = 256;
  uint32_t nent = 0;
  uint32_t padding = 0;
  std::array<kvm_cpuid_entry2, kRoom> entries{};

  kvm_cpuid_entry2* Find(uint32_t leaf, uint32_t subleaf);
  trace::CpuidLeaf Get(uint32_t leaf, uint32_t subleaf) const;
};

// All that KVM can give a guest here. False if KVM does not say.
bool ReadSupportedCpuid(int kvm, uint64_t guest_supp, CpuidTable& out);

// `all` for a guest with the user components `features` alone.
CpuidTable LimitCpuid(const CpuidTable& all, uint64_t features);

}  // namespace fpswap::kvm
