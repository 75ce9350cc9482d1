// SPDX-License-Identifier: GPL-2.0-or-later
//
// x87 and MMX instructions (SDM vol. 1, 8; vol. 3, 12 for MMX and the x87 state it aliases).
//
// FSW's C0, C2 and C3 are "undefined" after most of them in the manual and unchanged on CPUs.
#include <algorithm>
#include <cstring>
#include <utility>

#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {
namespace {

using St = std::array<uint8_t, 10>;

constexpr uint16_t kC1 = 0x200, kInvalid = 0x01, kStackFault = 0x40, kEsB = 0x8080;
constexpr uint16_t kTopMask = 0x3800;

// The real indefinite QNaN (SDM vol. 1, 4.8.3.7), the masked response to a stack fault.
constexpr St kIndefinite = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff};

// The tag bit of ST(i).
uint8_t TagBit(const X87& x, unsigned i) { return static_cast<uint8_t>(1u << ((x.Top() + i) & 7)); }
bool IsEmpty(const X87& x, unsigned i) { return (x.ftw & TagBit(x, i)) == 0; }
void SetValid(X87& x, unsigned i) { x.ftw |= TagBit(x, i); }
void SetEmpty(X87& x, unsigned i) { x.ftw = static_cast<uint8_t>(x.ftw & ~TagBit(x, i)); }

void ClearC1(X87& x) { x.fsw = static_cast<uint16_t>(x.fsw & ~kC1); }

void UpdateErrorSummary(X87& x) {
  x.fsw = static_cast<uint16_t>((x.fsw & ~kEsB) | (x.ErrorSummary() ? kEsB : 0));
}

}  // namespace

// The registers stay where they are and get new names: ST(i) is R((TOP + i) mod 8).
void Cpu::SetTop(unsigned top) {
  X87& x = regs.x87;
  const unsigned by = (top - x.Top()) & 7;
  std::rotate(x.st.begin(), x.st.begin() + by, x.st.end());
  x.fsw = static_cast<uint16_t>((x.fsw & ~kTopMask) | (top & 7) << 11);
}

// #IS (SDM vol. 1, 8.5.1.1); C1 tells overflow from underflow. Returns whether it is masked, so
// that the instruction goes on with the indefinite value.
bool Cpu::StackFault(bool overflow) {
  X87& x = regs.x87;
  x.fsw = static_cast<uint16_t>((x.fsw & ~kC1) | kInvalid | kStackFault | (overflow ? kC1 : 0));
  UpdateErrorSummary(x);
  return (x.fcw & kInvalid) != 0;
}

// CR0.EM is 0 and CR0.NE is 1 in every guest here.
Result Cpu::CheckX87(bool waits_for_exceptions) {
  if (cr0_ts) return Fault{kNM, 0};
  if (waits_for_exceptions && regs.x87.ErrorSummary()) return Fault{kMF, 0};
  return std::nullopt;
}

Result Cpu::Fninit() {
  if (Result fault = CheckX87(false)) return fault;
  Touch(Component::kX87);
  SetTop(0);
  X87 fresh;
  fresh.st = regs.x87.st;  // not changed by FNINIT, only tagged empty
  regs.x87 = fresh;
  return std::nullopt;
}

Result Cpu::Fnclex() {
  if (Result fault = CheckX87(false)) return fault;
  Touch(Component::kX87);
  regs.x87.fsw &= 0x7f00;
  SettlePointers();
  return std::nullopt;
}

Result Cpu::Fldcw(uint16_t value) {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  X87& x = regs.x87;
  x.fcw = static_cast<uint16_t>((value & 0x1f7f) | 0x40);
  UpdateErrorSummary(x);
  // AMD: pointers of the instruction that raised the exception, hidden while it was masked.
  if (x.ErrorSummary() && features->amd) ForgetPointers();
  return std::nullopt;
}

Result Cpu::FldTbyte(std::span<const uint8_t, 10> value, uint64_t /*rip*/) {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  X87& x = regs.x87;
  St loaded;
  std::ranges::copy(value, loaded.begin());
  if (!IsEmpty(x, 7)) {  // ST(7) is what the push makes ST(0)
    const bool masked = StackFault(/*overflow=*/true);
    ForgetPointers();
    if (!masked) return std::nullopt;
    loaded = kIndefinite;
  } else {
    ClearC1(x);
  }
  SetTop(x.Top() - 1);
  x.st[0] = loaded;
  SetValid(x, 0);
  ForgetPointers();
  return std::nullopt;
}

Result Cpu::FstpTbyte(std::span<uint8_t, 10> value, uint64_t /*rip*/) {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  X87& x = regs.x87;
  St stored = x.st[0];
  if (IsEmpty(x, 0)) {
    const bool masked = StackFault(/*overflow=*/false);
    ForgetPointers();
    if (!masked) return std::nullopt;
    stored = kIndefinite;
  } else {
    ClearC1(x);
  }
  std::ranges::copy(stored, value.begin());
  SetEmpty(x, 0);
  SetTop(x.Top() + 1);
  ForgetPointers();
  return std::nullopt;
}

Result Cpu::Fxch(unsigned i, uint64_t /*rip*/) {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  X87& x = regs.x87;
  i &= 7;
  ClearC1(x);
  if (IsEmpty(x, 0) || IsEmpty(x, i)) {
    const bool masked = StackFault(/*overflow=*/false);
    ForgetPointers();
    if (!masked) return std::nullopt;
    for (unsigned r : {0u, i}) {
      if (!IsEmpty(x, r)) continue;
      x.st[r] = kIndefinite;
      SetValid(x, r);
    }
  }
  std::swap(x.st[0], x.st[i]);
  ForgetPointers();
  return std::nullopt;
}

Result Cpu::Fchs(uint64_t /*rip*/) {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  X87& x = regs.x87;
  ClearC1(x);
  if (!IsEmpty(x, 0)) {
    x.st[0][9] ^= 0x80;
  } else if (StackFault(/*overflow=*/false)) {
    x.st[0] = kIndefinite;
    SetValid(x, 0);
  }
  ForgetPointers();
  return std::nullopt;
}

Result Cpu::Ffree(unsigned i) {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  ClearC1(regs.x87);  // "undefined" in the manual; cleared on Zen 4
  SetEmpty(regs.x87, i & 7);
  ForgetPointers();
  return std::nullopt;
}

Result Cpu::Fincstp() {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  ClearC1(regs.x87);
  SetTop(regs.x87.Top() + 1);
  ForgetPointers();
  return std::nullopt;
}

Result Cpu::Fdecstp() {
  if (Result fault = CheckX87(true)) return fault;
  Touch(Component::kX87);
  ClearC1(regs.x87);
  SetTop(regs.x87.Top() - 1);
  ForgetPointers();
  return std::nullopt;
}

// SDM vol. 3, 12.2: every MMX instruction but EMMS makes TOP 0 and all tags valid.
void Cpu::EnterMmx() {
  Touch(Component::kX87);
  SetTop(0);
  regs.x87.ftw = 0xff;
}

// A write also sets the sign and exponent, bits 79:64, to ones.
Result Cpu::MmxMovq(unsigned mm, uint64_t value) {
  if (Result fault = CheckVector(Encoding::kMmx)) return fault;
  EnterMmx();
  St& st = regs.x87.st[mm & 7];
  std::memcpy(st.data(), &value, 8);
  st[8] = st[9] = 0xff;
  return std::nullopt;
}

Result Cpu::MmxRead(unsigned mm, uint64_t* value) {
  if (Result fault = CheckVector(Encoding::kMmx)) return fault;
  EnterMmx();
  std::memcpy(value, regs.x87.st[mm & 7].data(), 8);
  return std::nullopt;
}

Result Cpu::MmxPxor(unsigned dst, unsigned src) {
  uint64_t a = 0, b = 0;
  if (Result fault = MmxRead(dst, &a)) return fault;
  if (Result fault = MmxRead(src, &b)) return fault;
  return MmxMovq(dst, a ^ b);
}

Result Cpu::Emms() {
  if (Result fault = CheckVector(Encoding::kMmx)) return fault;
  Touch(Component::kX87);
  SetTop(0);
  regs.x87.ftw = 0;
  return std::nullopt;
}

}  // namespace fpswap::cpu
