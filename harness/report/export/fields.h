// SPDX-License-Identifier: GPL-2.0-or-later
//
// The registers and other fields of an XSAVE image, each a piece that a test asserts by its name.
//
// Private to harness/report/export.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "oracle/xstate/layout.h"

namespace fpswap::report {

struct Field {
  std::string name;  // "XMM5", "XSTATE_BV"
  uint32_t offset;   // in the bytes at hand
  uint32_t home;     // in a standard-format image
  uint32_t size;
  bool scalar;    // told as a number, not as bytes
  bool extended;  // of a component that CPUID places
  xstate::Component component;
  uint32_t within;  // offset in the component
};

// Of a standard-format area, ascending; without what is no state. `components`: those listed.
std::vector<Field> StandardFields(const xstate::XsaveCpuid& cpuid, uint64_t components);
// Of a compacted area with this XCOMP_BV.
std::vector<Field> CompactedFields(const xstate::XsaveCpuid& cpuid, uint64_t components,
                                   uint64_t xcomp_bv);
// Of struct kvm_fpu; `home` is where an image has them.
std::vector<Field> FpuFields();

// "XFEATURE_MASK_YMM | XFEATURE_MASK_PKRU | 0x400000", "0" for none.
std::string MaskText(uint64_t mask);
// One component: "XFEATURE_MASK_YMM".
std::string MaskName(xstate::Component component);

}  // namespace fpswap::report
