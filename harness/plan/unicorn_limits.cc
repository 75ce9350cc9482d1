// SPDX-License-Identifier: GPL-2.0-or-later
//
// Measured on Unicorn 2.0.1, and found again in the source of the QEMU 5.0.1 that it is made of
// (target/i386: fpu_helper.c, excp_helper.c).
#include "harness/plan/unicorn_limits.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "oracle/xstate/image.h"

namespace fpswap::plan {
namespace {

using cpu::Cpu;
using program::Op;
using program::Step;
using Encoding = Cpu::Encoding;

enum Defect : uint8_t {
  kStackFault,
  kPending,
  kControlBits,
  kStatusBits,
  kConditionCodes,
  kMmxExponent,
  kEmmsTop,
  kFxsaveHoles,
  kMxcsrBits,
  kSecondGp,
  kNmBeforeUd,
  kProtectionKeys,
};

// By Defect.
constexpr UnicornDefect kDefects[] = {
    {"stack-fault", "Unicorn does not notice x87 stack overflow and underflow"},
    {"pending", "Unicorn does not report x87 exceptions that wait"},
    {"control-bits", "Unicorn keeps FCW's reserved bits as they were loaded"},
    {"status-bits", "Unicorn keeps FSW.ES as it was loaded"},
    {"condition-codes",
     "Unicorn leaves C1 alone where CPUs clear it, and clears C0, C2 and C3 with FINCSTP and "
     "FDECSTP"},
    {"mmx-exponent", "in Unicorn a write of an MMX register leaves bits 79:64 of ST as they were"},
    {"emms-top", "Unicorn's EMMS leaves TOP as it was"},
    {"fxsave-holes",
     "Unicorn's FXSAVE leaves FOP and the upper 48 bits of the ST slots as they were in memory"},
    {"mxcsr-bits", "Unicorn takes reserved bits of MXCSR without #GP"},
    {"second-gp",
     "Unicorn never ends the delivery of an exception, so that a second #GP would be #DF"},
    {"nm-before-ud",
     "Unicorn raises #NM by CR0.TS before #UD by CR4.OSFXSR for SSE instructions on registers"},
    {"protection-keys",
     "Unicorn runs without paging here, and so denies nothing by protection keys; with paging it "
     "would not tell the error code"},
};

const UnicornDefect* Row(Defect defect) { return &kDefects[defect]; }

constexpr uint16_t kC1 = 0x200, kC0C2C3 = 0x4500, kStackFaultFlag = 0x40;

// Of FXSAVE only: with CR4.OSFXSR=0 it leaves out XMM and MXCSR, as Unicorn does.
class UnicornChoices final : public cpu::Choices {
 public:
  bool InitialIsInUse(cpu::Component) override { return false; }
  bool OmitUnmodified(cpu::Component) override { return true; }
  void ResolvePointers(cpu::X87&) override {}
};

unsigned Arg(const Step& step, unsigned i) { return static_cast<unsigned>(step.arg[i]); }

bool OnSlot(Op op) {
  return op == Op::kFxsave || op == Op::kFxrstor || op == Op::kMemWrite || op == Op::kMemFill ||
         op == Op::kMemHeader;
}

bool OnXmm(Op op) {
  return op == Op::kSseLoad || op == Op::kSseStore || op == Op::kSsePxor || op == Op::kSsePaddq ||
         op == Op::kSsePshufd;
}

bool WritesMmx(Op op) { return op == Op::kMmxMovq || op == Op::kMmxPxor; }

uint16_t ExponentOf(const cpu::X87& x87, unsigned physical) {
  uint16_t exponent;
  std::memcpy(&exponent, &x87.st[(physical - x87.Top()) & 7][8], sizeof(exponent));
  return exponent;
}

// Pattern `number`, as long as any register.
std::array<uint8_t, 16> PatternOf(uint64_t number) {
  std::array<uint8_t, 16> bytes;
  program::FillPattern(static_cast<uint16_t>(number), bytes);
  return bytes;
}

template <typename T>
T As(const std::array<uint8_t, 16>& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

// A step on a slot, as the judge has it too (area_steps.cc).
void WriteSlot(const Step& step, std::span<uint8_t> slot) {
  const size_t offset = std::min<size_t>(step.arg[1], slot.size());
  const auto place = slot.subspan(offset);
  if (step.op == Op::kMemWrite) {
    std::memcpy(place.data(), &step.arg[2], std::min<size_t>(place.size(), 8));
  } else if (step.op == Op::kMemFill) {
    program::FillPattern(static_cast<uint16_t>(step.arg[3]),
                         place.first(std::min<size_t>(place.size(), step.arg[2])));
  } else {
    const auto header = slot.subspan(xstate::kHeaderOffset, xstate::kHeaderSize);
    std::ranges::fill(header, 0);
    std::memcpy(header.data(), &step.arg[1], 16);
  }
}

}  // namespace

std::span<const UnicornDefect> UnicornDefects() { return kDefects; }

UnicornLimits::UnicornLimits(const cpu::Features& features, bool pke) : cpu_(features) {
  cpu_.cr4_pke = pke;
}

cpu::Result UnicornLimits::ApplyVector(const Step& step, Cpu& cpu) {
  const auto word = [&](unsigned reg, unsigned i) {
    uint64_t value;
    std::memcpy(&value, &cpu.regs.zmm[reg][8 * i], sizeof(value));
    return value;
  };
  const unsigned dst = Arg(step, 0), src = Arg(step, 1);
  std::array<uint64_t, 2> result{word(dst, 0), word(dst, 1)};
  if (step.op == Op::kSseLoad) {
    result = As<decltype(result)>(PatternOf(step.arg[1]));
  } else if (step.op == Op::kSsePshufd) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned from = (Arg(step, 2) >> (2 * i)) & 3;
      std::memcpy(reinterpret_cast<uint8_t*>(result.data()) + 4 * i, &cpu.regs.zmm[src][4 * from],
                  4);
    }
  } else {
    for (unsigned i = 0; i < 2; ++i) {
      result[i] = step.op == Op::kSsePxor ? result[i] ^ word(src, i) : result[i] + word(src, i);
    }
  }
  return cpu.WriteVector(Encoding::kSse, dst,
                         {reinterpret_cast<const uint8_t*>(result.data()), sizeof(result)});
}

// What the oracle says that `step` does. Steps that change nothing it looks at are left out.
cpu::Result UnicornLimits::Apply(const Step& step, Cpu& cpu, Slot& slot) {
  const auto pattern = PatternOf(step.arg[step.op == Op::kFldTbyte ? 0 : 1]);
  std::array<uint8_t, 10> tbyte{};
  uint64_t quad = 0;
  const bool wide = step.arg[2] != 0;
  const uint64_t address = step.arg[1];  // slots are aligned: only the offset counts
  switch (step.op) {
    case Op::kFninit:
      return cpu.Fninit();
    case Op::kFnclex:
      return cpu.Fnclex();
    case Op::kFldcw:
      return cpu.Fldcw(static_cast<uint16_t>(step.arg[0]));
    case Op::kFldTbyte:
      return cpu.FldTbyte(std::span(pattern).first<10>(), 0);
    case Op::kFstpTbyte:
      return cpu.FstpTbyte(tbyte, 0);
    case Op::kFxch:
      return cpu.Fxch(Arg(step, 0), 0);
    case Op::kFchs:
      return cpu.Fchs(0);
    case Op::kFfree:
      return cpu.Ffree(Arg(step, 0));
    case Op::kFincstp:
      return cpu.Fincstp();
    case Op::kFdecstp:
      return cpu.Fdecstp();
    case Op::kMmxMovq:
      return cpu.MmxMovq(Arg(step, 0), As<uint64_t>(pattern));
    case Op::kMmxStore:
      return cpu.MmxRead(Arg(step, 0), &quad);
    case Op::kMmxPxor:
      return cpu.MmxPxor(Arg(step, 0), Arg(step, 1));
    case Op::kEmms:
      return cpu.Emms();
    case Op::kSseLoad:
    case Op::kSsePxor:
    case Op::kSsePaddq:
    case Op::kSsePshufd:
      return ApplyVector(step, cpu);
    case Op::kLdmxcsr:
      return cpu.Ldmxcsr(static_cast<uint32_t>(step.arg[0]));
    case Op::kFxsave: {
      UnicornChoices choices;
      return cpu.Fxsave(std::span(slot).subspan(address), address, wide, choices);
    }
    case Op::kFxrstor:
      return cpu.Fxrstor(std::span(slot).subspan(address), address, wide);
    case Op::kCr0Ts:
      cpu.cr0_ts = step.arg[0] != 0;
      return std::nullopt;
    case Op::kCr4Bit:
      if (static_cast<program::Cr4Bit>(step.arg[0]) == program::Cr4Bit::kOsfxsr) {
        cpu.cr4_osfxsr = step.arg[1] != 0;
      }
      return std::nullopt;
    case Op::kMemWrite:
    case Op::kMemFill:
    case Op::kMemHeader:
      WriteSlot(step, slot);
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

const UnicornDefect* UnicornLimits::Meets(const Step& step) {
  constexpr uint64_t kKey0 = 3;
  if (step.op == Op::kWrpkru && (step.arg[0] & kKey0) != 0) return Row(kProtectionKeys);
  if (OnXmm(step.op) && cpu_.cr0_ts && !cpu_.cr4_osfxsr) return Row(kNmBeforeUd);
  Slot& slot = slots_[OnSlot(step.op) ? Arg(step, 0) % program::kSlotCount : 0];
  const UnicornDefect* defect = step.op == Op::kFxsave ? CheckFxsave(step) : nullptr;
  if (defect != nullptr) return defect;
  Cpu after = cpu_;
  const cpu::Result fault = Apply(step, after, slot);
  defect = Check(step, after, fault);
  if (defect != nullptr) return defect;
  if (fault) {
    had_gp_ = had_gp_ || fault->vector == cpu::kGP;
    return nullptr;
  }
  NoteExponents(step, after);
  cpu_ = after;
  return nullptr;
}

const UnicornDefect* UnicornLimits::Check(const Step& step, const Cpu& after,
                                          const cpu::Result& fault) const {
  if (fault) {
    // A #GP that is not alignment's (FXSAVE, FXRSTOR) is MXCSR's.
    const bool misaligned = step.op != Op::kLdmxcsr && step.arg[1] % 16 != 0;
    if (fault->vector == cpu::kGP && !misaligned) return Row(kMxcsrBits);
    if (fault->vector == cpu::kGP && had_gp_) return Row(kSecondGp);
    return nullptr;
  }
  if (step.op == Op::kFxrstor) return CheckFxrstor(step, after);
  return CheckX87(step, after);
}

const UnicornDefect* UnicornLimits::CheckX87(const Step& step, const Cpu& after) const {
  const cpu::X87 &was = cpu_.regs.x87, &is = after.regs.x87;
  if (step.op < Op::kFninit || step.op > Op::kEmms) return nullptr;
  if ((is.fsw & ~was.fsw & kStackFaultFlag) != 0) return Row(kStackFault);
  if (is.ErrorSummary()) return Row(kPending);
  switch (step.op) {
    case Op::kFldcw:
      return is.fcw != static_cast<uint16_t>(step.arg[0]) ? Row(kControlBits) : nullptr;
    case Op::kFldTbyte:
    case Op::kFstpTbyte:
    case Op::kFxch:
    case Op::kFchs:
    case Op::kFfree:
      if ((was.fsw & kC1) != 0) return Row(kConditionCodes);
      break;
    case Op::kFincstp:
    case Op::kFdecstp:
      if ((was.fsw & kC0C2C3) != 0) return Row(kConditionCodes);
      break;
    case Op::kEmms:
      if (was.Top() != 0) return Row(kEmmsTop);
      break;
    default:
      break;
  }
  if (step.op == Op::kFstpTbyte && ((old_exponent_ >> was.Top()) & 1) != 0) {
    return Row(kMmxExponent);
  }
  return nullptr;
}

// Looked at before the save, for it is about what lies in memory.
const UnicornDefect* UnicornLimits::CheckFxsave(const Step& step) const {
  if (cpu_.cr0_ts || step.arg[1] % 16 != 0) return nullptr;  // it faults
  if (old_exponent_ != 0) return Row(kMmxExponent);
  const auto area = std::span(slots_[Arg(step, 0) % program::kSlotCount]).subspan(step.arg[1]);
  bool clean = area[6] == 0 && area[7] == 0;
  for (size_t at = 32; at < 160; at += 16) {
    clean = clean && std::ranges::all_of(area.subspan(at + 10, 6), [](auto b) { return b == 0; });
  }
  return clean ? nullptr : Row(kFxsaveHoles);
}

const UnicornDefect* UnicornLimits::CheckFxrstor(const Step& step, const Cpu& after) const {
  const auto area = std::span(slots_[Arg(step, 0) % program::kSlotCount]).subspan(step.arg[1]);
  const cpu::X87& is = after.regs.x87;
  if (is.ErrorSummary()) return Row(kPending);
  if (is.fcw != xstate::ReadAt<uint16_t>(area, 0)) return Row(kControlBits);
  constexpr uint16_t kErrorSummary = 0x80;
  if (((is.fsw ^ xstate::ReadAt<uint16_t>(area, 2)) & kErrorSummary) != 0) return Row(kStatusBits);
  return nullptr;
}

void UnicornLimits::NoteExponents(const Step& step, const Cpu& after) {
  const unsigned top = cpu_.regs.x87.Top();
  const auto bit = [](unsigned physical) { return static_cast<uint8_t>(1u << (physical & 7)); };
  if (WritesMmx(step.op)) {
    constexpr uint16_t kMmx = 0xffff;
    const unsigned mm = Arg(step, 0) & 7;
    if (ExponentOf(cpu_.regs.x87, mm) != kMmx) old_exponent_ |= bit(mm);
  } else if (step.op == Op::kFldTbyte) {
    old_exponent_ = static_cast<uint8_t>(old_exponent_ & ~bit(after.regs.x87.Top()));
  } else if (step.op == Op::kFxch) {
    const uint8_t a = bit(top), b = bit(top + Arg(step, 0));
    const bool was_a = (old_exponent_ & a) != 0, was_b = (old_exponent_ & b) != 0;
    if (was_a != was_b) old_exponent_ ^= static_cast<uint8_t>(a | b);
  } else if (step.op == Op::kFxrstor) {
    old_exponent_ = 0;
  }
}

static_assert(std::size(kDefects) == kProtectionKeys + 1);

}  // namespace fpswap::plan
