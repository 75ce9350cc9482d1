// SPDX-License-Identifier: GPL-2.0-or-later
//
// XCR0: XSETBV and XGETBV (SDM vol. 1, 13.3; vol. 2).
#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {
namespace {

using xstate::Bit;

// Where XCR0 has any bit of `any`, it must have all of `needs` (13.3).
struct XcrRule {
  uint64_t any, needs;
};
constexpr XcrRule kXcrRules[] = {
    {~uint64_t{0}, Bit(Component::kX87)},
    {Bit(Component::kAvx), Bit(Component::kSse)},
    {xstate::kMpx, xstate::kMpx},
    {xstate::kAvx512, xstate::kAvx512 | xstate::kX87Sse | Bit(Component::kAvx)},
    {xstate::kAmx, xstate::kAmx},
};

}  // namespace

bool Cpu::XcrValueValid(const Features& f, uint64_t value) {
  if (value == 0 || (value & ~f.xsave.xcr0) != 0) return false;
  for (const XcrRule& rule : kXcrRules) {
    if ((value & rule.any) != 0 && (value & rule.needs) != rule.needs) return false;
  }
  return true;
}

// Clearing a bit leaves the component's registers as they are.
Result Cpu::Xsetbv(uint32_t ecx, uint64_t value) {
  if (!cr4_osxsave) return Fault{kUD, 0};
  if (cpl != 0 || ecx != 0 || !XcrValueValid(*features, value)) return Fault{kGP, 0};
  xcr0 = value;
  return std::nullopt;
}

Result Cpu::Xgetbv(uint32_t ecx, uint64_t* value, Choices& choices) {
  if (!cr4_osxsave) return Fault{kUD, 0};
  if (ecx == 0) {
    *value = xcr0;
    return std::nullopt;
  }
  if (ecx != 1 || !features->xsave.xgetbv1) return Fault{kGP, 0};
  *value = Xinuse(xcr0, /*for_save=*/false, choices);
  // 13.6: here, and only here, XINUSE[1] also tells of MXCSR.
  if (regs.mxcsr != kInitialMxcsr) *value |= xcr0 & Bit(Component::kSse);
  return std::nullopt;
}

}  // namespace fpswap::cpu
