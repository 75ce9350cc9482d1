// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/cpuid.h"

#include "kvm-runner/kvm_api.h"
#include "oracle/xstate/component.h"

namespace fpswap::kvm {
namespace {

using xstate::Component;

// The four output registers of CPUID, as columns of the tables below.
using Output = __u32 kvm_cpuid_entry2::*;
constexpr Output kEax = &kvm_cpuid_entry2::eax, kEbx = &kvm_cpuid_entry2::ebx,
                 kEcx = &kvm_cpuid_entry2::ecx, kEdx = &kvm_cpuid_entry2::edx;

// CPUID bits that make no sense without a component: given with it and taken away with it.
struct FeatureBits {
  uint64_t needs;  // every component of these
  uint32_t leaf, subleaf;
  Output output;
  uint32_t bits;
};
constexpr uint64_t kAvx = xstate::kX87Sse | Bit(Component::kAvx);
constexpr uint64_t kAvx512 = kAvx | xstate::kAvx512;
constexpr FeatureBits kFeatureBits[] = {
    {xstate::kX87Sse, 1, 0, kEcx, 1u << 26},             // XSAVE
    {kAvx, 1, 0, kEcx, 1u << 28 | 1u << 29 | 1u << 12},  // AVX, F16C, FMA
    {kAvx, 7, 0, kEbx, 1u << 5},                         // AVX2
    {kAvx, 7, 0, kEcx, 1u << 9 | 1u << 10},              // VAES, VPCLMULQDQ
    {kAvx, 7, 1, kEax, 1u << 4},                         // AVX-VNNI
    {kAvx512, 7, 0, kEbx,
     1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31},  // F DQ IFMA CD BW VL
    {kAvx512, 7, 0, kEcx, 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14},
    {kAvx512, 7, 0, kEdx, 1u << 23},                             // FP16
    {kAvx512, 7, 1, kEax, 1u << 5},                              // BF16
    {xstate::kMpx, 7, 0, kEbx, 1u << 14},                        // MPX
    {1u << 9, 7, 0, kEcx, 1u << 3},                              // PKU
    {xstate::kAmx, 7, 0, kEdx, 1u << 22 | 1u << 24 | 1u << 25},  // AMX BF16, TILE, INT8
};
// OSXSAVE and OSPKE follow CR4: KVM keeps them.
constexpr uint32_t kOsxsave = 1u << 27;

void Add(CpuidTable& table, uint32_t leaf, uint32_t subleaf, const trace::CpuidLeaf& value) {
  if (table.nent == CpuidTable::kRoom) return;
  table.entries[table.nent++] = {.function = leaf,
                                 .index = subleaf,
                                 .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                 .eax = value.eax,
                                 .ebx = value.ebx,
                                 .ecx = value.ecx,
                                 .edx = value.edx};
}

void SetComponents(kvm_cpuid_entry2& entry, uint64_t mask) {
  entry.eax = static_cast<uint32_t>(mask);
  entry.edx = static_cast<uint32_t>(mask >> 32);
}

// XSAVE is hidden: adds it, with the instructions and components the host has.
void AddHiddenXsave(uint64_t components, CpuidTable& table) {
  for (const FeatureBits& row : kFeatureBits) {
    if ((components & row.needs) != row.needs) continue;
    const auto host = trace::HostCpuid(row.leaf, row.subleaf);
    const kvm_cpuid_entry2 as_entry{
        .eax = host.eax, .ebx = host.ebx, .ecx = host.ecx, .edx = host.edx};
    kvm_cpuid_entry2* entry = table.Find(row.leaf, row.subleaf);
    if (entry != nullptr) entry->*row.output |= as_entry.*row.output & row.bits;
  }
  for (uint32_t i = 0; i < xstate::kComponentCount; ++i) {
    if (i >= 2 && (components >> i & 1) == 0) continue;
    const auto host = trace::HostCpuid(0xd, i);
    kvm_cpuid_entry2* entry = table.Find(0xd, i);
    if (entry == nullptr) {
      Add(table, 0xd, i, host);
    } else if (i == 1) {
      entry->eax = host.eax & 0x1f;  // XSAVEOPT, XSAVEC, XGETBV(1), XSAVES, XFD
    }
  }
}

}  // namespace

kvm_cpuid_entry2* CpuidTable::Find(uint32_t leaf, uint32_t subleaf) {
  for (uint32_t i = 0; i < nent && i < kRoom; ++i) {
    kvm_cpuid_entry2& e = entries[i];
    const bool indexed = (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
    if (e.function == leaf && (!indexed || e.index == subleaf)) return &e;
  }
  return nullptr;
}

trace::CpuidLeaf CpuidTable::Get(uint32_t leaf, uint32_t subleaf) const {
  const auto* e = const_cast<CpuidTable*>(this)->Find(leaf, subleaf);
  if (e == nullptr) return {};
  return {.eax = e->eax, .ebx = e->ebx, .ecx = e->ecx, .edx = e->edx};
}

bool ReadSupportedCpuid(int kvm, uint64_t guest_supp, CpuidTable& out) {
  out.nent = CpuidTable::kRoom;
  if (kvm_get_supported_cpuid(kvm, &out) != 0) return false;
  const kvm_cpuid_entry2* one = out.Find(1, 0);
  if (one == nullptr) return false;
  const trace::CpuidLeaf xsave = out.Get(0xd, 0);
  const uint64_t components = (xsave.eax | uint64_t{xsave.edx} << 32) & guest_supp;
  if ((one->ecx & 1u << 26) == 0 && (trace::HostCpuid(1, 0).ecx & kOsxsave) != 0) {
    AddHiddenXsave(components != 0 ? components : guest_supp, out);
  }
  if (auto* e = out.Find(0, 0); e != nullptr && e->eax < 0xd) e->eax = 0xd;
  return true;
}

CpuidTable LimitCpuid(const CpuidTable& all, uint64_t features) {
  CpuidTable out = all;
  features |= xstate::kX87Sse;
  kvm_cpuid_entry2* xsave = out.Find(0xd, 0);
  const uint64_t have = xsave == nullptr ? 0 : (xsave->eax | uint64_t{xsave->edx} << 32) & features;
  for (const FeatureBits& row : kFeatureBits) {
    if ((have & row.needs) == row.needs) continue;
    if (auto* e = out.Find(row.leaf, row.subleaf)) e->*row.output &= ~row.bits;
  }
  if (xsave == nullptr) return out;
  SetComponents(*xsave, have);
  uint32_t size = 576;
  for (uint32_t i = 2; i < xstate::kComponentCount; ++i) {
    kvm_cpuid_entry2* e = out.Find(0xd, i);
    if (e == nullptr) continue;
    const bool supervisor = (e->ecx & 1) != 0;
    if (supervisor) continue;
    if ((have >> i & 1) == 0) {
      e->eax = e->ebx = e->ecx = e->edx = 0;
    } else if (e->ebx + e->eax > size) {
      size = e->ebx + e->eax;
    }
  }
  xsave->ebx = xsave->ecx = size;  // KVM keeps EBX in step with XCR0
  return out;
}

}  // namespace fpswap::kvm
