// SPDX-License-Identifier: GPL-2.0-or-later
//
// XRSTOR, standard (SDM vol. 1, 13.8.1) and compacted (13.8.2), and XRSTORS (13.12).
#include <bit>

#include "oracle/cpu/cpu.h"
#include "oracle/xstate/image.h"

namespace fpswap::cpu {
namespace {

using xstate::Bit;
using xstate::ImageView;
using xstate::Slice;

constexpr Fault kGeneralProtection{kGP, 0};

// The MSRs whose values make up the component, in its order (SDM vol. 1, 13.5.9).
std::span<const uint32_t> CetMsrs(Component c) {
  static constexpr uint32_t kU[] = {Cpu::kMsrUCet, Cpu::kMsrPl3Ssp};
  static constexpr uint32_t kS[] = {Cpu::kMsrPl0Ssp, Cpu::kMsrPl1Ssp, Cpu::kMsrPl2Ssp};
  return c == Component::kCetU ? std::span<const uint32_t>(kU) : std::span<const uint32_t>(kS);
}

// SDM vol. 1, 13.12: XRSTORS of CET state is #GP for what WRMSR refuses.
bool CetIsValid(const Features& features, Component c, std::span<const uint8_t> bytes) {
  size_t at = 0;
  for (const uint32_t msr : CetMsrs(c)) {
    if (at + 8 > bytes.size()) break;
    if (!Cpu::CetMsrValid(features, msr, xstate::ReadAt<uint64_t>(bytes, at))) return false;
    at += 8;
  }
  return true;
}

// 13.8.1: XSTATE_BV within XCR0, bytes 23:8 zero. 13.8.2, 13.12: XCOMP_BV within what is enabled,
// XSTATE_BV within XCOMP_BV, bytes 63:16 zero.
bool StandardHeaderIsValid(ImageView image, uint64_t xcr0) {
  return (image.xstate_bv() & ~xcr0) == 0 && image.HeaderIsZero(8, 23);
}

bool CompactedHeaderIsValid(ImageView image, uint64_t allowed) {
  const uint64_t components = image.xcomp_bv() & ~xstate::kXcompBvCompacted;
  return (components & ~allowed) == 0 && (image.xstate_bv() & ~components) == 0 &&
         image.HeaderIsZero(16, 63);
}

}  // namespace

// 13.14: an instruction that needs what IA32_XFD disables is #NM and says so in IA32_XFD_ERR.
Result Cpu::NeedXfd(uint64_t components) {
  const uint64_t disabled = components & xfd & xcr0;
  if (disabled == 0) return std::nullopt;
  xfd_err = disabled;
  return Fault{kNM, 0};
}

Result Cpu::Xrstor(std::span<const uint8_t> area, uint64_t address, uint64_t rfbm, bool wide) {
  if (Result fault = CheckXsaveArea(/*enumerated=*/true, /*cpl0=*/false, address)) return fault;
  const ImageView image(area);
  rfbm &= xcr0;
  // Without XSAVEC, XCOMP_BV[63] is one more bit that must be zero.
  const bool compacted = image.compacted() && features->xsave.xsavec;
  const Result fault =
      compacted ? RestoreCompacted(area, rfbm, xcr0, wide) : RestoreStandard(area, rfbm, wide);
  if (fault) return fault;
  NoteXrstor(area, address, rfbm, compacted ? image.xcomp_bv() : 0);
  return std::nullopt;
}

Result Cpu::Xrstors(std::span<const uint8_t> area, uint64_t address, uint64_t rfbm, bool wide) {
  if (Result fault = CheckXsaveArea(features->xsave.xsaves, /*cpl0=*/true, address)) return fault;
  const ImageView image(area);
  if (!image.compacted()) return kGeneralProtection;  // 13.12
  rfbm &= xcr0 | xss;
  if (Result fault = RestoreCompacted(area, rfbm, xcr0 | xss, wide)) return fault;
  NoteXrstor(area, address, rfbm, image.xcomp_bv());
  return std::nullopt;
}

// XRSTOR_INFO. A component that was initialised, not loaded, is none that a later XSAVEOPT or
// XSAVES may leave out as unmodified: the area's bytes never were its value. (If XINUSE reads 1 all
// the same, XSTATE_BV would declare stale bytes to be the component: the guest's AVX state came
// back like that on a part of AMD family 19h, see corpus/known/.)
void Cpu::NoteXrstor(std::span<const uint8_t> area, uint64_t address, uint64_t rfbm,
                     uint64_t xcomp_bv) {
  const uint64_t mxcsr = (rfbm & Bit(Component::kSse)) != 0 ? kMxcsrUnmodified : 0;
  xrstor_info = {true, address, cpl, xcomp_bv, (rfbm & ImageView(area).xstate_bv()) | mxcsr};
}

// #GP for CET state that WRMSR refuses. That component may then hold its old, its new or its
// initial value, and those before it may have been loaded (13.12).
Result Cpu::BadCet(uint64_t rfbm) {
  unknown |= rfbm;
  return kGeneralProtection;
}

// #GP for reserved MXCSR bits. AMD parts change nothing before it (family 19h, measured). Sapphire
// Rapids has by then loaded or initialised some of the other components, and the manual's
// pseudocode does not say in which order, so there they are not known any more.
Result Cpu::BadMxcsr(uint64_t rfbm) {
  if (!features->amd) unknown |= rfbm;
  return kGeneralProtection;
}

// 13.8.1. MXCSR is loaded whenever RFBM[1] or RFBM[2], whatever XSTATE_BV says.
Result Cpu::RestoreStandard(std::span<const uint8_t> area, uint64_t rfbm, bool wide) {
  const ImageView image(area);
  if (!StandardHeaderIsValid(image, xcr0)) return kGeneralProtection;
  const uint64_t loaded = rfbm & image.xstate_bv();
  if (Result fault = NeedXfd(loaded)) return fault;
  const bool load_mxcsr = (rfbm & (Component::kSse | Component::kAvx)) != 0;
  if (load_mxcsr && !MxcsrValid(image.mxcsr())) return BadMxcsr(rfbm);

  InitialiseAll(rfbm & ~loaded);
  if (load_mxcsr) SetMxcsr(image.mxcsr());
  LoadLegacy(area, loaded, wide);
  xstate::ForEachStandard(features->xsave, loaded, [&](Component c, uint64_t at, uint64_t size) {
    LoadComponent(c, Slice(area, at, size));
  });
  return std::nullopt;
}

// 13.8.2, 13.12. MXCSR goes with RFBM[1] alone, and is 1F80H where XSTATE_BV[1]=0. A component with
// RFBM=1 and XSTATE_BV=0 is initialised even where XCOMP_BV lacks it.
Result Cpu::RestoreCompacted(std::span<const uint8_t> area, uint64_t rfbm, uint64_t allowed,
                             bool wide) {
  const ImageView image(area);
  if (!CompactedHeaderIsValid(image, allowed)) return kGeneralProtection;
  const uint64_t loaded = rfbm & image.xstate_bv();
  if (Result fault = NeedXfd(loaded)) return fault;
  const bool load_mxcsr = (loaded & Bit(Component::kSse)) != 0;
  if (load_mxcsr && !MxcsrValid(image.mxcsr())) return BadMxcsr(rfbm);
  for (Component c : {Component::kCetU, Component::kCetS}) {
    if ((loaded & Bit(c)) != 0 && !CetIsValid(*features, c, image.component(features->xsave, c))) {
      return BadCet(rfbm);
    }
  }

  InitialiseAll(rfbm & ~loaded);
  if ((rfbm & Bit(Component::kSse)) != 0) SetMxcsr(load_mxcsr ? image.mxcsr() : kInitialMxcsr);
  LoadLegacy(area, loaded, wide);
  xstate::ForEachCompacted(
      features->xsave, image.xcomp_bv(), loaded,
      [&](Component c, uint64_t at, uint64_t size) { LoadComponent(c, Slice(area, at, size)); });
  return std::nullopt;
}

void Cpu::InitialiseAll(uint64_t components) {
  components &= (uint64_t{1} << xstate::kComponentCount) - 1;
  for (; components != 0; components &= components - 1) {
    Initialise(Component(std::countr_zero(components)));
  }
}

void Cpu::LoadLegacy(std::span<const uint8_t> area, uint64_t components, bool wide) {
  if ((components & Bit(Component::kX87)) != 0) LoadX87(area, wide);
  if ((components & Bit(Component::kSse)) != 0) LoadXmm(area);
}

}  // namespace fpswap::cpu
