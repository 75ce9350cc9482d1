// SPDX-License-Identifier: GPL-2.0-or-later
//
// x87 state in the legacy region (SDM vol. 1, 10.5.1 and 13.5.1), and its pointers FOP, FIP, FDP,
// FCS and FDS, of which each vendor and each form shows another part.
#include <cstring>

#include "oracle/cpu/cpu.h"
#include "oracle/xstate/image.h"

namespace fpswap::cpu {
namespace {

using xstate::ReadAt;
using xstate::WriteAt;

// Bits that loads keep. FCW bit 6 reads as 1; FSW.ES and FSW.B are recomputed (measured, the same
// on Intel and AMD).
constexpr uint16_t kFcwKept = 0x1f7f, kFcwOnes = 0x40, kFswKept = 0x7f7f, kFswEsB = 0x8080;
constexpr uint16_t kFopKept = 0x7ff;

uint64_t SignExtend(uint64_t value, unsigned bits) {
  const unsigned shift = 64 - bits;
  return static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
}

}  // namespace

bool PointerMayRead(uint64_t value, uint64_t seen) {
  return seen == value || seen == SignExtend(value, 48) || seen == SignExtend(value, 57);
}

// Parts without "xsave_err_ptr" neither save nor restore pointers without a pending exception.
void Cpu::StoreX87Pointers(std::span<uint8_t> legacy, bool wide) const {
  const X87& x = regs.x87;
  if (!features->xsave_err_ptr && !x.ErrorSummary()) return;
  WriteAt(legacy, 6, x.fop);
  if (wide) {
    WriteAt(legacy, 8, x.fip);
    WriteAt(legacy, 16, x.fdp);
    return;
  }
  const uint16_t fcs = features->fcs_fds_zero ? 0 : x.fcs;
  const uint16_t fds = features->fcs_fds_zero ? 0 : x.fds;
  WriteAt(legacy, 8, (x.fip & 0xffffffff) | uint64_t{fcs} << 32);
  WriteAt(legacy, 16, (x.fdp & 0xffffffff) | uint64_t{fds} << 32);
}

void Cpu::StoreX87(std::span<uint8_t> legacy, bool wide) const {
  if (legacy.size() < 160) return;
  const X87& x = regs.x87;
  const uint16_t es = x.ErrorSummary() ? kFswEsB : 0;
  WriteAt(legacy, 0, x.fcw);
  WriteAt(legacy, 2, static_cast<uint16_t>((x.fsw & kFswKept) | es));
  WriteAt(legacy, 4, uint16_t{x.ftw});
  StoreX87Pointers(legacy, wide);
  for (unsigned i = 0; i < 8; ++i) {
    // The upper 48 bits of a slot are no state; they are written as zeros.
    uint8_t slot[16] = {};
    std::memcpy(slot, x.st[i].data(), 10);
    std::memcpy(legacy.data() + 32 + 16 * i, slot, 16);
  }
}

void Cpu::LoadX87(std::span<const uint8_t> legacy, bool wide) {
  if (legacy.size() < 160) return;
  Touch(Component::kX87);
  X87& x = regs.x87;
  x.fcw = static_cast<uint16_t>((ReadAt<uint16_t>(legacy, 0) & kFcwKept) | kFcwOnes);
  x.fsw = ReadAt<uint16_t>(legacy, 2) & kFswKept;
  x.ftw = ReadAt<uint8_t>(legacy, 4);
  for (unsigned i = 0; i < 8; ++i) std::memcpy(x.st[i].data(), legacy.data() + 32 + 16 * i, 10);
  const bool es = x.ErrorSummary();
  if (es) x.fsw |= kFswEsB;
  if (!features->xsave_err_ptr && !es) return;
  const uint64_t ip = ReadAt<uint64_t>(legacy, 8), dp = ReadAt<uint64_t>(legacy, 16);
  x.fop = ReadAt<uint16_t>(legacy, 6) & kFopKept;
  x.fip = wide ? ip : ip & 0xffffffff;
  x.fdp = wide ? dp : dp & 0xffffffff;
  x.fcs = wide ? 0 : static_cast<uint16_t>(ip >> 32);
  x.fds = wide ? 0 : static_cast<uint16_t>(dp >> 32);
  x.pointers_known = true;
  // The REX.W forms load no selectors: 0 on AMD (measured) and where they always are; elsewhere the
  // manual doesn't say what FCS and FDS hold after them.
  x.selectors_known = !wide || features->amd || features->fcs_fds_zero;
  SettlePointers();
}

// Called after an x87 instruction that may have updated the pointers.
void Cpu::ForgetPointers() {
  regs.x87.pointers_known = regs.x87.selectors_known = false;
  SettlePointers();
}

// AMD: without a pending exception software sees zeros (see X87).
void Cpu::SettlePointers() {
  X87& x = regs.x87;
  if (!features->amd || !features->xsave_err_ptr || x.ErrorSummary()) return;
  x.fop = x.fcs = x.fds = 0;
  x.fip = x.fdp = 0;
  x.pointers_known = x.selectors_known = true;
}

void Cpu::ResolvePointers(bool wide, Choices& choices) {
  X87& x = regs.x87;
  if (!features->xsave_err_ptr && !x.ErrorSummary()) return;  // nothing will be stored
  X87 seen = x;
  choices.ResolvePointers(seen);
  if (!x.selectors_known || seen.fcs == 0) x.fcs = seen.fcs;
  if (!x.selectors_known || seen.fds == 0) x.fds = seen.fds;
  if (!x.pointers_known || PointerMayRead(x.fip, seen.fip)) x.fip = seen.fip;
  if (!x.pointers_known || PointerMayRead(x.fdp, seen.fdp)) x.fdp = seen.fdp;
  if (!x.pointers_known) x.fop = seen.fop & kFopKept;
  // Known from now on is what this form shows in full.
  (wide ? x.pointers_known : x.selectors_known) = true;
}

}  // namespace fpswap::cpu
