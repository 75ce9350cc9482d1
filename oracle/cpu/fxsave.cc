// SPDX-License-Identifier: GPL-2.0-or-later
//
// FXSAVE and FXRSTOR (SDM vol. 1, 10.5; vol. 2). They know nothing of XCR0 and XINUSE. EFER.FFXSR
// (AMD: no XMM at CPL 0) is never set here.
#include "oracle/cpu/cpu.h"
#include "oracle/xstate/image.h"

namespace fpswap::cpu {
namespace {

Result CheckFxArea(const Cpu& cpu, uint64_t address) {
  if (cpu.cr0_ts) return Fault{kNM, 0};
  if (address % 16 != 0) return Fault{kGP, 0};
  return std::nullopt;
}

}  // namespace

Result Cpu::Fxsave(std::span<uint8_t> area, uint64_t address, bool wide, Choices& choices) {
  if (Result fault = CheckFxArea(*this, address)) return fault;
  ResolvePointers(wide, choices);
  StoreX87(area, wide);
  if (cr4_osfxsr || !choices.OmitUnmodified(Component::kSse)) StoreXmm(area);
  if (!cr4_osfxsr && choices.OmitMxcsr()) return std::nullopt;
  xstate::WriteAt(area, 24, regs.mxcsr);
  xstate::WriteAt(area, 28, features->mxcsr_mask);
  return std::nullopt;
}

Result Cpu::Fxrstor(std::span<const uint8_t> area, uint64_t address, bool wide, bool skips_mxcsr) {
  if (Result fault = CheckFxArea(*this, address)) return fault;
  const uint32_t mxcsr = xstate::ImageView(area).mxcsr();
  const bool loads_mxcsr = cr4_osfxsr || !skips_mxcsr;
  if (loads_mxcsr && !MxcsrValid(mxcsr)) return Fault{kGP, 0};
  LoadX87(area, wide);
  LoadXmm(area);
  if (loads_mxcsr) SetMxcsr(mxcsr);
  // SDM vol. 2, FXRSTOR: without CR4.OSFXSR, XMM and MXCSR may or may not be restored.
  if (!cr4_osfxsr) unknown |= xstate::Bit(Component::kSse);
  return std::nullopt;
}

}  // namespace fpswap::cpu
