// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest steps on slots: the XSAVE and XRSTOR families, FXSAVE, FXRSTOR, integer stores.
//
// Save instructions leave choices to the CPU (XINUSE of initial components, what XSAVEOPT and
// XSAVES leave out). The area is journaled right behind them, so the choice made is read off the
// journal, and used where it is possible; then the whole area is compared, bytes left alone
// included.
#include <cstring>

#include "harness/judge/context.h"
#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using cpu::SaveForm;
using xstate::Bit;
using xstate::Component;

constexpr char kXsaveRule[] = "SDM vol. 1, 13.7-13.11: XSAVE and its forms";
constexpr char kXrstorRule[] = "SDM vol. 1, 13.8 and 13.12: XRSTOR and XRSTORS";
constexpr char kFxRule[] = "SDM vol. 1, 10.5: FXSAVE and FXRSTOR";
constexpr char kPkruRule[] = "SDM vol. 3, 4.6.2: protection keys";
constexpr char kStoreRule[] = "an integer store";

struct Range {
  uint64_t begin = 0, size = 0;
};

// Answers a save's choices from the area as it was seen afterwards.
class SeenArea final : public cpu::Choices {
 public:
  // `before` and `after` begin where the area does; `after` may be empty.
  SeenArea(const cpu::Cpu& cpu, bool compacted, uint64_t xcomp_bv, std::span<const uint8_t> before,
           std::span<const uint8_t> after)
      : cpu_(cpu), compacted_(compacted), xcomp_bv_(xcomp_bv), before_(before), after_(after) {}

  bool InitialIsInUse(Component c) override {
    return (xstate::ImageView(after_).xstate_bv() & Bit(c)) != 0;
  }

  // Left out if its places still hold what was there. If that is the register's value as well, both
  // answers give the same bytes.
  bool OmitUnmodified(Component c) override {
    if (c == Component::kX87) return Unchanged({0, 24}) && Unchanged({32, 128});
    // Only XSAVEOPT stores MXCSR by a rule of its own, and FXSAVE by a choice of its own.
    if (c == Component::kSse) return Unchanged({160, 256}) && (!compacted_ || Unchanged({24, 8}));
    const auto& sub = cpu_.features->xsave.sub[static_cast<unsigned>(c)];
    return Unchanged(
        {compacted_ ? xstate::CompactedOffset(cpu_.features->xsave, xcomp_bv_, c) : sub.offset,
         sub.size});
  }

  bool OmitMxcsr() override { return Unchanged({24, 8}); }

  void ResolvePointers(cpu::X87& x87) override {
    if (after_.size() < 24) return;
    x87.fop = xstate::ReadAt<uint16_t>(after_, 6);
    const auto ip = xstate::ReadAt<uint64_t>(after_, 8), dp = xstate::ReadAt<uint64_t>(after_, 16);
    if (wide) {
      x87.fip = ip;
      x87.fdp = dp;
      return;
    }
    // The upper half of the pointers is not shown by this form.
    x87.fip = Low(x87.fip, ip);
    x87.fdp = Low(x87.fdp, dp);
    x87.fcs = static_cast<uint16_t>(ip >> 32);
    x87.fds = static_cast<uint16_t>(dp >> 32);
  }

  bool wide = false;

 private:
  static uint64_t Low(uint64_t old, uint64_t seen) {
    return (old & ~uint64_t{0xffffffff}) | (seen & 0xffffffff);
  }

  bool Unchanged(const Range& r) const {
    const auto was = xstate::Slice(before_, r.begin, r.size);
    const auto is = xstate::Slice(after_, r.begin, r.size);
    return !is.empty() && was.size() == is.size() &&
           std::memcmp(was.data(), is.data(), is.size()) == 0;
  }

  const cpu::Cpu& cpu_;
  bool compacted_;
  uint64_t xcomp_bv_;
  std::span<const uint8_t> before_, after_;
};

class NoChoice final : public cpu::Choices {
 public:
  bool InitialIsInUse(Component) override { return false; }
  bool OmitUnmodified(Component) override { return false; }
  void ResolvePointers(cpu::X87&) override {}
};

// Bytes 7:4 of PKRU's eight are not used (SDM vol. 1, 13.5.7): the model leaves them alone, a CPU
// that clears them is as right.
void AdoptUnusedOfPkru(const cpu::Cpu& cpu, bool compacted, uint64_t saved,
                       std::span<const uint8_t> seen, std::span<uint8_t> area) {
  if ((saved & Bit(Component::kPkru)) == 0) return;
  const auto& xsave = cpu.features->xsave;
  const uint32_t at = 4 + (compacted ? xstate::CompactedOffset(xsave, saved, Component::kPkru)
                                     : xsave.sub[static_cast<unsigned>(Component::kPkru)].offset);
  const auto unused = xstate::Slice(seen, at, 4);
  if (!unused.empty() && xstate::ReadAt<uint32_t>(unused, 0) == 0) {
    xstate::WriteAt(area, at, uint32_t{0});
  }
}

unsigned SlotOf(const Context& c) {
  return static_cast<unsigned>(c.step.arg[0]) % program::kSlotCount;
}
// Of the step's VM.
Memory<plan::kSlotSize>& SlotBytes(const Context& c) {
  return c.world.Slot(c.step.vcpu, SlotOf(c));
}
uint64_t AtOf(const Context& c) { return c.step.arg[1] % 64; }
uint64_t AddressOf(const Context& c) {
  return plan::kSlotBase + SlotOf(c) * plan::kSlotSize + AtOf(c);
}

PageFault SlotFault(const Context& c, bool reads, bool writes) {
  const uint64_t base = plan::kSlotBase + SlotOf(c) * plan::kSlotSize;
  return PkruFault(c, reads, writes, base, base + plan::kSlotSize);
}

Outcome Faulting(const PageFault& page) {
  Outcome o;
  o.page = page;
  o.rule = kPkruRule;
  return o;
}

// What the instruction does before it touches memory: tried on a copy, with an area that raises
// nothing. Only for areas that PKRU denies.
template <typename Try>
Outcome FaultBefore(const Context& c, const PageFault& page, const char* rule, Try&& attempt) {
  cpu::Cpu copy = c.cpu;
  std::array<uint8_t, xstate::kMaxAreaSize> area{};
  if (const cpu::Result fault = attempt(copy, std::span(area)))
    return Outcome::Faults(*fault, rule);
  return Faulting(page);
}

}  // namespace

Outcome StepXsave(Context& c, SaveForm form) {
  const uint64_t rfbm = c.step.arg[2];
  const bool wide = c.step.arg[3] != 0;
  if (const PageFault page = SlotFault(c, false, true); page.errors != 0) {
    NoChoice choices;
    return FaultBefore(c, page, kXsaveRule, [&](cpu::Cpu& cpu, std::span<uint8_t> area) {
      return cpu.Xsave(form, area, AddressOf(c), rfbm, wide, choices);
    });
  }
  auto& slot = SlotBytes(c);
  const uint64_t at = AtOf(c);
  const auto journal = c.journal();
  const bool compacted = form == SaveForm::kXsavec || form == SaveForm::kXsaves;
  const uint64_t enabled = form == SaveForm::kXsaves ? c.cpu.xcr0 | c.cpu.xss : c.cpu.xcr0;
  SeenArea choices(c.cpu, compacted, rfbm & enabled, slot.Bytes().subspan(at),
                   journal.size() > at ? journal.subspan(at) : std::span<const uint8_t>{});
  choices.wide = wide;
  Outcome o;
  o.fault = c.cpu.Xsave(form, slot.Write(at, c.area_bytes), AddressOf(c), rfbm, wide, choices);
  if (!o.fault && journal.size() > at) {
    AdoptUnusedOfPkru(c.cpu, compacted, rfbm & enabled, journal.subspan(at),
                      slot.Write(at, c.area_bytes));
  }
  o.journal = slot.Bytes().first(std::min<size_t>(c.row().journal_bytes, plan::kSlotSize));
  o.place = Place::kArea;
  o.rule = kXsaveRule;
  return o;
}

Outcome StepXrstor(Context& c, bool supervisor) {
  const uint64_t rfbm = c.step.arg[2];
  const bool wide = c.step.arg[3] != 0;
  const auto restore = [&](cpu::Cpu& cpu, std::span<const uint8_t> area) {
    return supervisor ? cpu.Xrstors(area, AddressOf(c), rfbm, wide)
                      : cpu.Xrstor(area, AddressOf(c), rfbm, wide);
  };
  if (const PageFault page = SlotFault(c, true, false); page.errors != 0) {
    return FaultBefore(c, page, kXrstorRule, [&](cpu::Cpu& cpu, std::span<uint8_t> area) {
      // XRSTORS takes compacted areas only.
      if (supervisor) xstate::MutableImage(area).set_xcomp_bv(xstate::kXcompBvCompacted);
      return restore(cpu, area);
    });
  }
  Outcome o;
  o.fault = restore(c.cpu, SlotBytes(c).Bytes().subspan(AtOf(c)));
  o.rule = kXrstorRule;
  return o;
}

Outcome StepFxsave(Context& c) {
  const bool wide = c.step.arg[2] != 0;
  if (const PageFault page = SlotFault(c, false, true); page.errors != 0) {
    NoChoice choices;
    return FaultBefore(c, page, kFxRule, [&](cpu::Cpu& cpu, std::span<uint8_t> area) {
      return cpu.Fxsave(area, AddressOf(c), wide, choices);
    });
  }
  auto& slot = SlotBytes(c);
  SeenArea choices(c.cpu, false, 0, slot.Bytes().subspan(AtOf(c)), c.journal());
  choices.wide = wide;
  Outcome o;
  o.fault = c.cpu.Fxsave(slot.Write(AtOf(c), xstate::kLegacySize), AddressOf(c), wide, choices);
  o.journal = slot.Bytes().subspan(AtOf(c), xstate::kLegacySize);
  o.place = Place::kFxArea;
  o.rule = kFxRule;
  return o;
}

Outcome StepFxrstor(Context& c) {
  const bool wide = c.step.arg[2] != 0;
  if (const PageFault page = SlotFault(c, true, false); page.errors != 0) {
    return FaultBefore(c, page, kFxRule, [&](cpu::Cpu& cpu, std::span<uint8_t> area) {
      return cpu.Fxrstor(area, AddressOf(c), wide);
    });
  }
  const bool skips_mxcsr = c.seen != nullptr && !c.seen->has_fault;
  Outcome o;
  o.fault = c.cpu.Fxrstor(SlotBytes(c).Bytes().subspan(AtOf(c)), AddressOf(c), wide, skips_mxcsr);
  o.rule = kFxRule;
  return o;
}

// Integer stores to a slot. With several of them the first one faults, so nothing is written then.
Outcome StepMemory(Context& c) {
  using program::Op;
  PageFault page = SlotFault(c, false, true);
  if (page.errors != 0 && c.step.op == Op::kMemFill && c.cpu.PkruDenies(false)) {
    // REP MOVSB from a literal: which of its two accesses faults first is not said.
    page = PkruFault(c, true, true, plan::kLiteralBase, plan::kJournalBase);
  }
  if (page.errors != 0) return Faulting(page);
  auto& slot = SlotBytes(c);
  const uint64_t offset = c.step.arg[1] % xstate::kMaxAreaSize;
  if (c.step.op == Op::kMemWrite) {
    xstate::WriteAt(slot.Write(offset, 8), 0, c.step.arg[2]);
  } else if (c.step.op == Op::kMemFill) {
    const size_t length = std::min<size_t>(c.step.arg[2], plan::kSlotSize - offset);
    program::FillPattern(static_cast<uint16_t>(c.step.arg[3]),
                         slot.Write(offset, length).first(length));
  } else {
    const auto header = slot.Write(xstate::kHeaderOffset, xstate::kHeaderSize);
    std::memset(header.data(), 0, xstate::kHeaderSize);
    xstate::WriteAt(header, 0, c.step.arg[1]);
    xstate::WriteAt(header, 8, c.step.arg[2]);
  }
  Outcome o;
  o.rule = kStoreRule;
  return o;
}

}  // namespace fpswap::judge
