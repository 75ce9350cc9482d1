// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/draw.h"

#include <bit>

#include "harness/program/arg.h"
#include "oracle/xstate/layout.h"

namespace fpswap::program {
namespace {

using xstate::Component;

template <size_t kSize>
uint64_t OneOf(Rng& rng, const uint64_t (&values)[kSize]) {
  return values[rng.Below(kSize)];
}

// What goes together in XCR0, and what each needs (SDM 13.3).
struct Group {
  uint64_t bits, needs;
};
constexpr uint64_t kSse = Bit(Component::kSse), kAvx = Bit(Component::kAvx);
constexpr Group kGroups[] = {
    {kSse, 0},
    {kAvx, kSse},
    {xstate::kMpx, 0},
    {xstate::kAvx512, kSse | kAvx},
    {Bit(Component::kPkru), 0},
    {xstate::kAmx, 0},
    {Bit(Component::kApx), 0},
};
constexpr uint64_t kFirstReserved = uint64_t{1} << xstate::kComponentCount;

// Places in an XSAVE area where something begins, ends or is looked at.
constexpr uint64_t kOffsets[] = {
    0,  // FCW, FSW, FTW, FOP
    2,   4,   8,   16,
    24,  // MXCSR, MXCSR_MASK
    28,  32,  42,  48,  152,
    160,  // XMM0
    176, 400, 408,
    416,  // reserved
    456, 464, 504,
    512,  // XSTATE_BV
    520,  // XCOMP_BV
    528,  // header bytes that must be zero
    536, 568,
    576,  // the first extended component, in either format
    584, 592, 824, 832,
};

// Machine code worth a try, besides anything at all: instructions that touch the FPU state in ways
// for which there is no step.
constexpr struct {
  uint8_t size;
  uint64_t bytes;
} kRawCode[] = {
    {1, 0x9b},          // FWAIT
    {2, 0x0b0f},        // UD2
    {2, 0xe8d9},        // FLD1
    {2, 0xebd9},        // FLDPI
    {2, 0xc1de},        // FADDP ST(1), ST
    {2, 0xf9d8},        // FDIVR ST, ST(1)
    {2, 0xfad9},        // FSQRT
    {3, 0xc1580f},      // ADDPS XMM0, XMM1
    {3, 0xca5e0f},      // DIVPS XMM1, XMM2
    {4, 0xcbd60ff3},    // MOVQ2DQ XMM1, MM3
    {4, 0xd1d60ff2},    // MOVDQ2Q MM2, XMM1
    {5, 0xc0137de2c4},  // VCVTPH2PS YMM0, XMM0
    {4, 0xc158fcc5},    // VADDPS YMM0, YMM0, YMM1
    {1, 0x90},          // NOP
};

constexpr uint64_t kCommonFcw[] = {0x37f, 0x27f, 0x7f, 0xf7f, 0x1f7f, 0x1f3f | 0x40, 0xb7f};
constexpr uint64_t kCommonMxcsr[] = {0x1f80, 0x1f80, 0, 0x9fc0, 0xffff, 0x1fbf, 0x7f80, 0xdfc0};
constexpr uint64_t kCommonPkru[] = {0, 0x55555554, 0xfffffffc, 4, 8, 0xc, 0xc0000000};

}  // namespace

uint64_t Draw::Pattern() {
  switch (rng_.Below(16)) {
    case 0:
      return 0;
    case 1:
      return 1;
    case 2:
      return 2 + rng_.Below(4);  // a few that come again: equal contents in different registers
    default:
      return rng_.Below(0x10000);
  }
}

uint64_t Draw::LegalMask(uint64_t within) {
  within |= 1;
  uint64_t mask = within;
  const uint64_t mode = rng_.Below(4);
  for (const Group& group : kGroups) {
    if (mode >= 2 && rng_.OneIn(3)) mask &= ~group.bits;
  }
  if (mode == 1) mask &= ~kGroups[rng_.Below(std::size(kGroups))].bits;
  for (const Group& group : kGroups) {
    const bool whole = (mask & group.bits) == group.bits && (mask & group.needs) == group.needs;
    if (!whole) mask &= ~group.bits;
  }
  return mask;
}

uint64_t Draw::Xcr0(uint64_t within) {
  const uint64_t mask = LegalMask(within);
  switch (rng_.Below(24)) {
    case 0:
      return mask ^ (uint64_t{1} << rng_.Below(xstate::kComponentCount));
    case 1:
      return OneOf(rng_, {0, mask & ~uint64_t{1}, mask | kFirstReserved, ~uint64_t{0},
                          mask | xstate::kXcompBvCompacted, 2, 4, 5});
    default:
      return mask;
  }
}

uint64_t Draw::Subset(uint64_t mask) {
  const uint64_t bit = uint64_t{1} << rng_.Below(64);
  switch (rng_.Below(8)) {
    case 0:
      return 0;
    case 1:
      return mask;
    case 2:
    case 3: {  // one bit
      if (mask == 0) return 0;
      uint64_t skip = rng_.Below(static_cast<uint64_t>(std::popcount(mask)));
      while (skip-- != 0) mask &= mask - 1;
      return mask & (~mask + 1);
    }
    case 4:
      return mask & ~(bit % kFirstReserved);
    default:
      return mask & rng_.Next();
  }
}

uint64_t Draw::Rfbm() {
  switch (rng_.Below(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
      return ~uint64_t{0};
    case 5:
    case 6:
      return features();
    case 7:
      return features() ^ (uint64_t{1} << rng_.Below(xstate::kComponentCount));
    case 8:
      return rng_.Next();
    default:
      return Subset(features());
  }
}

uint64_t Draw::XstateBv() {
  switch (rng_.Below(24)) {
    case 0:
      return features() ^ (uint64_t{1} << rng_.Below(xstate::kComponentCount + 1));
    case 1:
      return OneOf(rng_, {~uint64_t{0}, xstate::kXcompBvCompacted, kFirstReserved,
                          Bit(Component::kPt), Bit(Component::kTiledata)});
    default:
      return Subset(features());
  }
}

uint64_t Draw::XcompBv(uint64_t xstate_bv) {
  const uint64_t covering = (xstate_bv & features()) | Subset(features());
  switch (rng_.Below(24)) {
    case 0:
      return covering;  // bit 63 forgotten
    case 1:
      return xstate::kXcompBvCompacted | Subset(features());
    case 2:
      return xstate::kXcompBvCompacted | covering | kFirstReserved;
    default:
      return xstate::kXcompBvCompacted | covering;
  }
}

uint64_t Draw::Mxcsr() {
  switch (rng_.Below(24)) {
    case 0:
      return OneOf(rng_, {0x10000, 0x11f80, 0xffffffff, 0x80001f80, 0x20000});  // reserved bits
    case 1:
    case 2:
    case 3:
      return rng_.Next() & 0xffff;
    case 4:
      return 0x1f80 ^ (uint64_t{1} << rng_.Below(16));
    default:
      return OneOf(rng_, kCommonMxcsr);
  }
}

uint64_t Draw::Fcw() {
  switch (rng_.Below(16)) {
    case 0:
      return rng_.Next() & 0xffff;
    case 1:
      if (rng_.OneIn(4)) return rng_.OneIn(2) ? 0 : 0xffff;
      return 0x37f & ~(uint64_t{1} << rng_.Below(6));  // one exception unmasked
    case 2:
    case 3:
      return (rng_.Next() & 0xffff) | 0x3f;
    default:
      return OneOf(rng_, kCommonFcw);
  }
}

uint64_t Draw::Pkru() {
  if (rng_.OneIn(64)) return OneOf(rng_, {1, 2, 3, 0xffffffff, 0x55555555});
  if (rng_.OneIn(3)) return rng_.Next() & 0xfffffffc;
  return OneOf(rng_, kCommonPkru);
}

uint64_t Draw::MsrName() {
  constexpr uint64_t kFirstOfCet = static_cast<uint64_t>(Msr::kUCet);
  constexpr uint64_t kAll = static_cast<uint64_t>(Msr::kPl3Ssp) + 1;
  return rng_.Below(HasCet() || rng_.OneIn(16) ? kAll : kFirstOfCet);
}

uint64_t Draw::MsrValue(Msr msr) {
  if (rng_.OneIn(12)) return rng_.OneIn(2) ? Rfbm() : AnyNumber();
  switch (msr) {
    case Msr::kXss:
      return Supervisor();
    case Msr::kXfd:
    case Msr::kXfdErr:
      return rng_.OneIn(3) ? 0 : Bit(Component::kTiledata);
    case Msr::kUCet:
    case Msr::kSCet: {
      // Shadow stack flags, tracking flags, SUPPRESS or TRACKER, a legacy bitmap's base.
      uint64_t value = rng_.Next() & 0x3f;
      value |= OneOf(rng_, {0, 0, 0x400, 0x800, 0xc00, 0x40});
      if (rng_.OneIn(2)) value |= rng_.Below(uint64_t{1} << 35) << 12;
      return value;
    }
    default: {  // canonical and aligned to 4, or nearly
      uint64_t value = rng_.Below(uint64_t{1} << 47) & ~uint64_t{3};
      if (rng_.OneIn(12)) value |= 2;
      if (rng_.OneIn(8)) value |= uint64_t{0xffff8} << 44;
      return value;
    }
  }
}

uint64_t Draw::Tiles() {
  switch (rng_.Below(6)) {
    case 0:
      return ~uint64_t{0};  // eight times 16 rows of 64 bytes
    case 1:                 // all alike, and square in dwords: any three can be multiplied
    case 2:
      return 0x0101010101010101 * (0x11 * (1 + rng_.Below(15)));
    case 3: {  // a few
      const uint64_t tiles = rng_.Next();
      return tiles & OneOf(rng_, {0xff, 0xffffff, 0xff00000000000000, 0xff00ff00ff00ff00});
    }
    default:
      return rng_.Next();
  }
}

uint64_t Draw::Offset() {
  switch (rng_.Below(8)) {
    case 0:
      return rng_.Below(xstate::kMaxAreaSize);
    case 1:
    case 2: {  // in or at the edge of an extended component
      const auto& row = xstate::Rows()[2 + rng_.Below(xstate::kComponentCount - 2)];
      if (row.standard_offset == 0) return 512;
      const uint64_t edge = rng_.OneIn(4) ? row.size - 8 : rng_.Below(row.size) & ~uint64_t{7};
      return row.standard_offset + edge;
    }
    case 3:
      return rng_.Below(xstate::kMaxAreaSize / 8) * 8;
    default:
      return OneOf(rng_, kOffsets);
  }
}

uint64_t Draw::Length() {
  switch (rng_.Below(8)) {
    case 0:
      return 1 + rng_.Below(xstate::kMaxAreaSize);
    case 1:
      return 1 + rng_.Below(16);
    default:
      return OneOf(rng_, {1, 8, 10, 16, 32, 64, 128, 256, 512, 1024, 8192});
  }
}

uint64_t Draw::AreaValue(uint64_t offset) {
  switch (offset) {
    case 0: {
      const uint64_t fcw = Fcw();
      return rng_.OneIn(2) ? fcw : fcw | rng_.Next() << 16;
    }
    case 24: {
      const uint64_t mxcsr = Mxcsr();
      return mxcsr | (rng_.OneIn(2) ? 0xffff : rng_.Next()) << 32;
    }
    case 512:
      return XstateBv();
    case 520:
      return rng_.OneIn(2) ? 0 : XcompBv(XstateBv());
    default:
      return AnyNumber();
  }
}

uint64_t Draw::AnyNumber() {
  switch (rng_.Below(4)) {
    case 0:
      return OneOf(rng_, {0, 1, ~uint64_t{0}, uint64_t{1} << 63, 0x8000, 0xffffffff});
    case 1:
      return uint64_t{1} << rng_.Below(64);
    default:
      return rng_.Next();
  }
}

// Below `usual` mostly, at times up to `max`.
uint64_t Draw::Small(uint64_t usual, uint64_t max) {
  if (rng_.OneIn(16)) return rng_.OneIn(2) ? max : rng_.Below(max) + 1;
  return rng_.Below(usual);
}

uint64_t Draw::ByKind(ArgKind kind) {
  const KindRow& row = RowOf(kind);
  // Boundaries of every kind.
  if (rng_.OneIn(32)) return rng_.OneIn(2) ? row.min : row.max;
  switch (kind) {
    case ArgKind::kPattern:
      return Pattern();
    case ArgKind::kAlign:
      return rng_.OneIn(12) ? OneOf(rng_, {1, 4, 8, 16, 32, 48}) : 0;
    case ArgKind::kMask:
      return Rfbm();
    case ArgKind::kU8:
      return Small(8, 0xff);
    case ArgKind::kOffset:
      return Offset();
    case ArgKind::kLength:
      return Length();
    case ArgKind::kU16:
    case ArgKind::kU32:
    case ArgKind::kU64:
      return Wrap(kind, AnyNumber());
    default:  // short ranges
      return row.min + rng_.Below(row.max - row.min + 1);
  }
}

uint64_t Draw::Arg(const StepRow& row, unsigned i) {
  switch (row.op) {
    case Op::kFldcw:
      return Fcw();
    case Op::kLdmxcsr:
      return Mxcsr();
    case Op::kSetFpu:
      if (i != 0) return i == 1 ? Fcw() : Mxcsr();
      break;
    case Op::kWrpkru:
      return Pkru();
    case Op::kHostPkru:
      return Pkru() & ~uint64_t{3};  // the VMM would lose its own data
    case Op::kSsePshufd:
      if (i == 2) return rng_.Below(256);
      break;
    case Op::kXsetbv:
      return i == 0 ? Small(1, 2) : Xcr0(features());
    case Op::kXgetbv:
      return Small(2, 0xffffffff);
    case Op::kRdmsr:
    case Op::kWrmsr:
    case Op::kGetMsr:
    case Op::kSetMsr:
    case Op::kGetMsrList:
    case Op::kSetMsrList:
      // To go with the name: see StepOf.
      if (row.args[i].kind == ArgKind::kMsrName) return MsrName();
      return MsrValue(static_cast<Msr>(MsrName()));
    case Op::kLdtilecfg:
      if (i == 0) return rng_.OneIn(6) ? OneOf(rng_, {0, 0, 2, 255}) : 1;
      if (i == 1) return Tiles();
      return rng_.OneIn(6) ? rng_.Below(i == 2 ? 64 : 256) : 0;
    case Op::kTileloadd:
      if (i == 2) return rng_.OneIn(3) ? OneOf(rng_, {0, 1, 4, 63, 65, 128, 255}) : 64;
      break;
    case Op::kSetXcrs:
      if (i == 0) return rng_.OneIn(8) ? OneOf(rng_, {0, 2, 16, 17, 255}) : 1;
      if (i == 1) return Small(1, 2);
      return i == 2 ? Xcr0(features()) : Small(1, 0xffffffff);
    case Op::kSetXcrsList:
      if (row.args[i].kind != ArgKind::kMask) return Small(1, 2);
      // One of two that is refused is what makes it a list; a mask alone is seldom.
      return rng_.OneIn(3) ? features() & ~uint64_t{1} : Xcr0(features());
    case Op::kSetCpuid:
      return Xcr0(features());
    case Op::kMemHeader:
      return i == 0 ? ByKind(ArgKind::kSlot) : XstateBv();
    case Op::kHostCpu:
      return Small(4, 0xff);
    default:
      break;
  }
  return ByKind(row.args[i].kind);
}

void Draw::Raw(Step& step) {
  if (!rng_.OneIn(3)) {
    const auto& code = kRawCode[rng_.Below(std::size(kRawCode))];
    step.arg = {code.size, code.bytes};
    return;
  }
  step.arg = {rng_.OneIn(4) ? kMaxRaw : 1 + rng_.Below(kMaxRaw)};
  for (unsigned n = 0; n < step.arg[0]; ++n) {
    SetRawByte(step, n, static_cast<uint8_t>(rng_.Next()));
  }
}

Step Draw::StepOf(const StepRow& row) {
  Step step{.op = row.op};
  if (row.op == Op::kRaw) {
    Raw(step);
    return step;
  }
  for (unsigned i = 0; i < ArgCount(row); ++i) step.arg[i] = Wrap(row.args[i].kind, Arg(row, i));
  // Numbers that belong together.
  if (row.needs == Needs::kAmxInt8 && !rng_.OneIn(16)) {  // three tiles, for else it is #UD
    step.arg[1] = (step.arg[0] + 1 + rng_.Below(3)) % 8;
    step.arg[2] = (step.arg[0] + 4 + rng_.Below(4)) % 8;
  }
  if (row.op == Op::kWrmsr || row.op == Op::kSetMsr) {
    step.arg[1] = MsrValue(static_cast<Msr>(step.arg[0]));
  }
  if (row.op == Op::kSetMsrList) {
    step.arg[1] = MsrValue(static_cast<Msr>(step.arg[0]));
    step.arg[3] = MsrValue(static_cast<Msr>(step.arg[2]));
    // Refused: bit 62 is of no MSR's value, nor canonical.
    if (rng_.OneIn(3)) step.arg[1] |= uint64_t{1} << 62;
  }
  if (row.op == Op::kMemHeader) step.arg[2] = rng_.OneIn(2) ? 0 : XcompBv(step.arg[1]);
  if (row.op == Op::kMemWrite || row.op == Op::kImageWrite) step.arg[2] = AreaValue(step.arg[1]);
  return step;
}

}  // namespace fpswap::program
