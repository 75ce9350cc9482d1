// SPDX-License-Identifier: GPL-2.0-or-later
//
// XSAVE (SDM vol. 1, 13.7), XSAVEOPT (13.9), XSAVEC (13.10), XSAVES (13.11).
#include <bit>
#include <cstring>

#include "oracle/cpu/cpu.h"
#include "oracle/xstate/image.h"

namespace fpswap::cpu {
namespace {

using xstate::Bit;
using xstate::Slice;
using xstate::WriteAt;

struct FormRow {
  bool xstate::XsaveCpuid::* enumerated;  // null: wherever there is XSAVE
  bool compacted, supervisor, leaves_out_unmodified;
};

// By SaveForm.
constexpr FormRow kForms[] = {
    {nullptr, false, false, false},
    {&xstate::XsaveCpuid::xsaveopt, false, false, true},
    {&xstate::XsaveCpuid::xsavec, true, false, false},
    {&xstate::XsaveCpuid::xsaves, true, true, true},
};

const FormRow& RowOf(SaveForm form) { return kForms[static_cast<unsigned>(form)]; }

// x87 as XSAVE writes it where XINUSE[0]=0 (13.6).
void StoreInitialX87(std::span<uint8_t> area) {
  std::memset(area.data(), 0, 24);
  std::memset(area.data() + 32, 0, 128);
  WriteAt(area, 0, uint16_t{0x37f});
}

// Bytes 24-31: MXCSR and MXCSR_MASK (13.5.2).
void StoreMxcsr(const Cpu& cpu, std::span<uint8_t> area) {
  WriteAt(area, 24, cpu.regs.mxcsr);
  WriteAt(area, 28, cpu.features->mxcsr_mask);
}

}  // namespace

// What XSAVE* and XRSTOR* check before they touch memory, in the manual's order: #UD, #NM, #GP.
// XSAVES and XRSTORS are #GP outside CPL 0. Alignment may give #AC instead at CPL 3 with alignment
// checking on; nobody turns it on here.
Result Cpu::CheckXsaveArea(bool enumerated, bool cpl0, uint64_t address) const {
  if (!cr4_osxsave || !enumerated) return Fault{kUD, 0};
  if (cr0_ts) return Fault{kNM, 0};
  if (cpl0 && cpl != 0) return Fault{kGP, 0};
  if (address % 64 != 0) return Fault{kGP, 0};
  return std::nullopt;
}

// The modified optimization (13.9, 13.11): allowed where this save matches the last XRSTOR* as
// XRSTOR_INFO has it, for what was not written since.
uint64_t Cpu::Omitted(SaveForm form, uint64_t address, uint64_t rfbm, uint64_t xinuse,
                      Choices& choices) const {
  const XrstorInfo& info = xrstor_info;
  if (!RowOf(form).leaves_out_unmodified || !info.valid) return 0;
  if (info.address != address || info.cpl != cpl) return 0;
  // XSAVEOPT: the XRSTOR was standard; XSAVES: its XCOMP_BV was what is now written.
  const uint64_t xcomp_bv = RowOf(form).compacted ? rfbm | xstate::kXcompBvCompacted : 0;
  if (info.xcomp_bv != xcomp_bv) return 0;
  uint64_t candidates = rfbm & xinuse & info.unmodified;
  // XSAVES stores MXCSR with XMM or not at all, and always where it isn't 1F80H (13.11).
  const bool mxcsr_must = regs.mxcsr != kInitialMxcsr || (info.unmodified & kMxcsrUnmodified) == 0;
  if (RowOf(form).compacted && mxcsr_must) candidates &= ~Bit(Component::kSse);
  uint64_t omitted = 0;
  for (; candidates != 0; candidates &= candidates - 1) {
    const auto c = Component(std::countr_zero(candidates));
    if (choices.OmitUnmodified(c)) omitted |= Bit(c);
  }
  return omitted;
}

Result Cpu::Xsave(SaveForm form, std::span<uint8_t> area, uint64_t address, uint64_t rfbm,
                  bool wide, Choices& choices) {
  const FormRow& row = RowOf(form);
  const bool enumerated = row.enumerated == nullptr || features->xsave.*row.enumerated;
  if (Result fault = CheckXsaveArea(enumerated, row.supervisor, address)) return fault;
  if (area.size() < xstate::kExtendedOffset) return std::nullopt;  // REQUIRES of the header
  rfbm &= row.supervisor ? xcr0 | xss : xcr0;

  const uint64_t xinuse = Xinuse(rfbm, /*for_save=*/true, choices);
  if ((rfbm & Bit(Component::kX87)) != 0) {
    if ((xinuse & Bit(Component::kX87)) != 0) {
      ResolvePointers(wide, choices);
    } else {
      regs.x87 = X87{};  // initial, so pointers that were not known are 0
    }
  }
  const uint64_t omitted = Omitted(form, address, rfbm, xinuse, choices);
  if (row.compacted) {
    SaveCompacted(area, rfbm, xinuse, omitted, wide);
  } else {
    SaveStandard(form, area, rfbm, xinuse, omitted, wide);
  }
  return std::nullopt;
}

// 13.7, 13.9. XSAVE writes initial values where XINUSE=0, XSAVEOPT leaves such components out.
// MXCSR goes with RFBM[1] or RFBM[2] in any case. Of the header only XSTATE_BV is written, and of
// that only the bits of RFBM.
void Cpu::SaveStandard(SaveForm form, std::span<uint8_t> area, uint64_t rfbm, uint64_t xinuse,
                       uint64_t omitted, bool wide) {
  const bool all = form == SaveForm::kXsave;
  const uint64_t stored = (all ? rfbm : xinuse) & ~omitted;
  if ((stored & xinuse & Bit(Component::kX87)) != 0) {
    StoreX87(area, wide);
  } else if ((stored & Bit(Component::kX87)) != 0) {
    StoreInitialX87(area);
  }
  if ((stored & Bit(Component::kSse)) != 0) StoreXmm(area);
  if ((rfbm & (Component::kSse | Component::kAvx)) != 0) StoreMxcsr(*this, area);
  xstate::ForEachStandard(features->xsave, stored, [&](Component c, uint64_t at, uint64_t size) {
    const std::span<uint8_t> out = Slice(area, at, size);
    if (out.empty()) return;
    if ((xinuse & Bit(c)) != 0) {
      StoreComponent(c, out);
    } else {
      // Also what IA32_XFD hides (13.14). Of PKRU only what a store of it writes.
      std::memset(out.data(), 0, c == Component::kPkru ? sizeof(regs.pkru) : out.size());
    }
  });
  const xstate::MutableImage image(area);
  image.set_xstate_bv((image.view().xstate_bv() & ~rfbm) | xinuse);
}

// 13.10, 13.11. The old header is not read. SSE counts as in use, and is stored whole, where MXCSR
// is not 1F80H; RFBM[2] alone doesn't save MXCSR.
void Cpu::SaveCompacted(std::span<uint8_t> area, uint64_t rfbm, uint64_t xinuse, uint64_t omitted,
                        bool wide) {
  if (regs.mxcsr != kInitialMxcsr) xinuse |= rfbm & ~(xfd & xcr0) & Bit(Component::kSse);
  const uint64_t stored = xinuse & ~omitted;
  if ((stored & Bit(Component::kX87)) != 0) StoreX87(area, wide);
  if ((stored & Bit(Component::kSse)) != 0) {
    StoreXmm(area);
    StoreMxcsr(*this, area);
  }
  xstate::ForEachCompacted(
      features->xsave, rfbm, stored,
      [&](Component c, uint64_t at, uint64_t size) { StoreComponent(c, Slice(area, at, size)); });
  const xstate::MutableImage image(area);
  image.set_xstate_bv(xinuse);
  image.set_xcomp_bv(rfbm | xstate::kXcompBvCompacted);
}

}  // namespace fpswap::cpu
