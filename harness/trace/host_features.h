// SPDX-License-Identifier: GPL-2.0-or-later
//
// CPUID read as cpu::Features. For agents, which probe the host and a guest alike: the guest's
// CPUID is what KVM_GET_CPUID2 gives back.
//
// Sources: SDM vol. 2 (CPUID) and vol. 1, 13.2; AMD APM vol. 3, appendix E.
// Depends on the standard library and the CPUID instruction only. Thread safety: pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "oracle/cpu/cpu.h"

namespace fpswap::trace {

struct CpuidLeaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Answers CPUID for (leaf, subleaf). What a table does not list is all zeros.
using CpuidSource = std::function<CpuidLeaf(uint32_t leaf, uint32_t subleaf)>;

// The CPUID instruction on this CPU.
CpuidLeaf HostCpuid(uint32_t leaf, uint32_t subleaf);

// `mxcsr_mask` is no matter of CPUID (SDM vol. 1, 11.6.6): see HostMxcsrMask.
cpu::Features FeaturesFromCpuid(const CpuidSource& cpuid, uint32_t mxcsr_mask);

// MXCSR_MASK as FXSAVE stores it on this CPU.
uint32_t HostMxcsrMask();

// What this CPU says of itself. The components that the kernel really enabled are HostXcr0.
cpu::Features HostFeatures();

// XGETBV(0), or 0 where CPUID.1:ECX.OSXSAVE is clear.
uint64_t HostXcr0();

// The brand string without the padding; the vendor string where there is none.
std::string BrandString(const CpuidSource& cpuid);
// Family and extended family, as CPUID.1:EAX has them (SDM vol. 2, CPUID; AMD's manual agrees).
uint32_t DisplayFamily(const CpuidSource& cpuid);

}  // namespace fpswap::trace
