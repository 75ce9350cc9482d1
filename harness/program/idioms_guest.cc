// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/idioms.h"
#include "oracle/xstate/layout.h"

namespace fpswap::program {
namespace {

using xstate::Component;

constexpr uint64_t kEverything = ~uint64_t{0};

// Registers survive whatever happens between two looks.
void KeepRegisters(Builder& b) {
  b.LoadSome();
  b.Between();
  b.Look();
}

// What a context switch in the guest does: save, lose, restore.
void SaveLoseRestore(Builder& b) {
  if (b.rng().OneIn(2)) b.LoadSome();
  const uint64_t to = b.AnySlot();
  const auto slot = b.Save(to, b.rng().OneIn(3) ? b.draw().Rfbm() : kEverything);
  b.Between();
  b.rng().OneIn(2) ? b.ClearSome() : b.LoadSome();
  if (b.rng().OneIn(3)) b.Exit();
  const uint64_t from = slot.value_or(b.SavedSlot());
  b.Restore(from, b.rng().OneIn(2) ? kEverything : b.draw().Rfbm());
  b.Look();
}

// Two tasks that take turns, with what differs between them left over from the other.
void TwoTasks(Builder& b) {
  const uint64_t one = b.AnySlot();
  const uint64_t two = (one + 1) % kSlotCount;
  const uint64_t rfbm = b.rng().OneIn(2) ? kEverything : b.draw().Rfbm();
  b.LoadSome();
  b.Save(one, rfbm);
  b.rng().OneIn(2) ? b.ClearSome() : b.LoadSome();
  b.Save(two, rfbm);
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) {
    b.Restore(one, rfbm);
    if (b.rng().OneIn(2)) b.Exit();
    if (b.rng().OneIn(2)) b.Load(b.Focus());
    if (b.rng().OneIn(2)) b.Save(one, rfbm);
    b.Restore(two, rfbm);
  }
  b.Look();
}

// The modified optimisation: XSAVEOPT and XSAVES may leave out what XRSTOR loaded from the same
// place and nobody wrote since. An exit between makes the kernel's own XRSTOR the last one.
void ModifiedOptimisation(Builder& b) {
  const uint64_t slot = b.SavedSlot();
  const uint64_t rfbm = b.draw().Rfbm();
  const uint64_t wide = b.rng().Below(2);
  const bool supervisor = ((b.scene().supervisor >> slot) & 1) != 0 && b.Has(Op::kXsaves);
  if (b.scene().saved() == 0) b.Add(Op::kXsave, {slot, 0, kEverything, wide});
  b.Add(supervisor ? Op::kXrstors : Op::kXrstor, {slot, 0, rfbm, wide});
  if (b.rng().OneIn(2)) b.Load(b.Focus());
  if (b.rng().OneIn(3)) b.Exit();
  if (b.rng().OneIn(3)) b.Clear(b.Focus());
  b.Add(supervisor ? Op::kXsaves : Op::kXsaveopt, {slot, 0, rfbm, wide});
}

// A saved area, its header changed, restored: components left out become initial.
void EditHeader(Builder& b) {
  const uint64_t slot = b.Save(b.AnySlot(), kEverything).value_or(b.SavedSlot());
  const bool compacted = ((b.scene().compacted >> slot) & 1) != 0;
  uint64_t bv = b.draw().Subset(b.features());
  if (b.rng().OneIn(16)) bv = b.draw().XstateBv();
  if (b.rng().OneIn(6)) {
    b.Add(Op::kMemHeader, {slot, bv, compacted ? 0 : b.draw().XcompBv(bv)});  // the other format
  } else if (compacted && b.rng().OneIn(2)) {
    b.Add(Op::kMemHeader, {slot, bv, b.draw().XcompBv(bv)});
  } else {
    b.Add(Op::kMemWrite, {slot, xstate::kHeaderOffset, bv});  // keeps XCOMP_BV
  }
  if (b.rng().OneIn(2)) b.LoadSome();
  b.Restore(slot, b.draw().Rfbm());
  b.Look();
}

// A saved area with a few bytes changed: another FCW, MXCSR, register, or a byte that is no state.
void EditBytes(Builder& b) {
  const uint64_t slot = b.scene().saved() != 0 && b.rng().OneIn(2)
                            ? b.SavedSlot()
                            : b.Save(b.AnySlot(), kEverything).value_or(b.SavedSlot());
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) {
    const uint64_t offset = b.draw().Offset();
    if (offset != 512 && offset != 520 && b.rng().OneIn(3)) {
      b.Add(Op::kMemFill, {slot, offset, 1 + b.rng().Below(64), b.draw().Pattern()});
    } else {
      b.Add(Op::kMemWrite, {slot, offset, b.draw().AreaValue(offset)});
    }
  }
  b.Restore(slot, b.draw().Rfbm());
  b.Look();
}

// An area built from nothing: header, then one component's bytes.
void BuildArea(Builder& b) {
  const uint64_t slot = b.AnySlot();
  const uint64_t bv = b.draw().Subset(b.features());
  const auto& row = xstate::RowOf(b.Focus());
  const bool compacted = b.rng().OneIn(2);
  b.Add(Op::kMemFill, {slot, 32, 128 + b.rng().Below(256), b.draw().Pattern()});
  b.Add(Op::kMemWrite, {slot, 0, b.draw().Fcw()});
  b.Add(Op::kMemWrite, {slot, 24, b.draw().Mxcsr()});
  // 576 is where the first extended component of a compacted area lies.
  const uint64_t offset = compacted || row.standard_offset == 0 ? 576 : row.standard_offset;
  if (row.id == Component::kPkru) {
    b.Add(Op::kMemWrite, {slot, offset, b.draw().Pkru()});
  } else {
    b.Add(Op::kMemFill, {slot, offset, row.size == 0 ? 256 : row.size, b.draw().Pattern()});
  }
  b.Add(Op::kMemHeader, {slot, bv, compacted ? b.draw().XcompBv(bv) : 0});
  b.Restore(slot, b.draw().Rfbm());
  b.Look();
}

// XCR0 hides a component that is in use, things happen, and it comes back with its contents.
void HideAndShow(Builder& b) {
  const uint64_t all = b.scene().xcr0;
  const uint64_t part = b.draw().LegalMask(b.features());
  const bool by_vmm = b.Has(Op::kSetXcrs) && b.rng().OneIn(3);
  const auto set = [&](uint64_t value) {
    if (!by_vmm || !b.Add(Op::kSetXcrs, {1, 0, value, 0})) b.Add(Op::kXsetbv, {0, value});
  };
  b.LoadSome();
  set(part);
  b.Between();
  if (b.rng().OneIn(3)) b.Look();
  if (b.rng().OneIn(3)) b.Load(b.Focus());  // faults where the component is hidden
  if (b.rng().OneIn(4)) b.Restore();
  set(b.rng().OneIn(3) ? b.draw().LegalMask(b.features()) : all);
  b.Look();
}

// In use, then initial again by value: XINUSE may be sticky, the contents not.
void UseAndClear(Builder& b) {
  const Component c = b.Focus();
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) b.Load(c);
  if (b.rng().OneIn(2)) b.Exit();
  b.Clear(c);
  b.Between();
  if (b.rng().OneIn(2)) b.Add(Op::kXgetbv, {1});
  const uint64_t to = b.AnySlot();
  b.Save(to, b.rng().OneIn(2) ? kEverything : Bit(c));
}

// The same thing several times: the third exit is not the first.
void ManyExits(Builder& b) {
  b.Load(b.Focus());
  for (uint64_t n = 2 + b.rng().Below(4); n != 0; --n) {
    b.Exit();
    if (b.rng().OneIn(3)) b.Disturb();
  }
  b.Look();
}

void X87Stack(Builder& b) {
  for (uint64_t n = 1 + b.rng().Below(4); n != 0; --n) b.AddDrawn(Op::kFldTbyte);
  for (uint64_t n = b.rng().Below(4); n != 0; --n) {
    b.AddOneOf({Op::kFxch, Op::kFchs, Op::kFfree, Op::kFincstp, Op::kFdecstp, Op::kFldcw,
                Op::kMmxMovq, Op::kEmms});
  }
  if (b.rng().OneIn(2)) b.Exit();
  b.AddOneOf({Op::kFstpTbyte, Op::kFnstsw, Op::kFxsave, Op::kXsave, Op::kMmxStore});
}

void Mmx(Builder& b) {
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) b.AddDrawn(Op::kMmxMovq);
  b.AddOneOf({Op::kMmxPxor, Op::kExitOut, Op::kFldTbyte, Op::kHostDirty});
  b.AddOneOf({Op::kMmxStore, Op::kFxsave, Op::kEmms, Op::kFstpTbyte});
}

// FXSAVE areas are XSAVE areas without a header; either reads what the other wrote.
void Fx(Builder& b) {
  const uint64_t slot = b.AnySlot();
  const uint64_t wide = b.rng().Below(2);
  b.LoadSome();
  b.Add(Op::kFxsave, {slot, 0, wide});
  if (b.rng().OneIn(3)) b.Add(Op::kMemWrite, {slot, 24, b.draw().AreaValue(24)});
  if (b.rng().OneIn(4)) b.Add(Op::kMemFill, {slot, 464, 48, b.draw().Pattern()});
  b.rng().OneIn(2) ? b.ClearSome() : b.Between();
  if (b.rng().OneIn(3)) {
    b.Add(Op::kMemHeader, {slot, b.draw().Subset(3), 0});
    b.Restore(slot, b.draw().Rfbm());
  } else {
    b.Add(Op::kFxrstor, {slot, 0, wide});
  }
  b.Look();
}

void Misaligned(Builder& b) {
  const uint64_t slot = b.SavedSlot();
  const uint64_t at = b.rng().OneIn(2) ? 16 * (1 + b.rng().Below(3)) : 1 + b.rng().Below(63);
  constexpr Op kOps[] = {Op::kXsave,  Op::kXsavec,  Op::kXsaveopt,
                         Op::kXrstor, Op::kXrstors, Op::kXsaves};
  const Op op = kOps[b.rng().Below(std::size(kOps))];
  b.Add(op, {slot, at, b.draw().Rfbm(), b.rng().Below(2)});
  if (b.rng().OneIn(3)) b.Add(b.rng().OneIn(2) ? Op::kFxsave : Op::kFxrstor, {slot, at, 0});
  b.Look();
}

// CR0.TS: everything faults, nothing changes.
void TaskSwitched(Builder& b) {
  b.Load(b.Focus());
  b.Add(Op::kCr0Ts, {1});
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) {
    switch (b.rng().Below(4)) {
      case 0:
        b.Restore();
        break;
      case 1:
        b.Exit();
        break;
      case 2:
        b.Save();
        break;
      default:
        b.Load(b.Focus());
    }
  }
  b.Add(Op::kCr0Ts, {0});
  b.Look();
}

// CR4.OSXSAVE clear: KVM does not load the guest's XCR0 and XSS.
void Cr4Window(Builder& b) {
  const uint64_t bit =
      b.rng().OneIn(2) ? static_cast<uint64_t>(Cr4Bit::kOsxsave) : b.rng().Below(3);
  b.LoadSome();
  b.Add(Op::kCr4Bit, {bit, 0});
  b.Between();
  if (b.rng().OneIn(2)) b.Look();
  if (b.rng().OneIn(3)) b.AddAny();
  b.Add(Op::kCr4Bit, {bit, 1});
  b.Look();
}

void Supervisor(Builder& b) {
  const uint64_t slot = b.AnySlot();
  b.Add(Op::kWrmsr, {static_cast<uint64_t>(Msr::kXss), b.draw().Supervisor()});
  b.LoadSome();
  b.Add(Op::kXsaves, {slot, 0, b.draw().Rfbm(), b.rng().Below(2)});
  b.Between();
  if (b.rng().OneIn(3)) b.Add(Op::kMemWrite, {slot, 512, b.draw().Subset(b.features())});
  b.rng().OneIn(2) ? b.ClearSome() : b.LoadSome();
  b.Add(Op::kXrstors, {slot, 0, b.draw().Rfbm(), b.rng().Below(2)});
  b.Look();
}

// IA32_XFD disables the tiles and enables them again: as an operating system does, which clears
// IA32_XFD_ERR in its #NM handler, or one that forgets to.
void Xfd(Builder& b) {
  const auto xfd = static_cast<uint64_t>(Msr::kXfd), err = static_cast<uint64_t>(Msr::kXfdErr);
  // A guest without tiles refuses the write, which once in a while is enough.
  if ((b.features() & xstate::kAmx) != xstate::kAmx && !b.rng().OneIn(4)) return;
  if (!b.rng().OneIn(4)) b.Load(Component::kTiledata);
  b.Add(Op::kWrmsr, {xfd, Bit(Component::kTiledata)});
  if (b.rng().OneIn(2)) b.Between();
  if (b.rng().OneIn(8)) b.AddDrawn(Op::kMigrate);
  for (uint64_t n = b.rng().Below(4); n != 0; --n) {
    switch (b.rng().Below(4)) {
      case 0:
        b.Save();
        break;
      case 1:
        b.Restore();
        break;
      case 2:
        b.AddOneOf({Op::kLdtilecfg, Op::kSttilecfg, Op::kTilerelease, Op::kSetXsave});
        break;
      default:
        b.rng().OneIn(2) ? b.Load(Component::kTiledata) : b.Store(Component::kTiledata);
    }
  }
  b.rng().OneIn(2) ? b.Exit() : b.Between();
  if (b.rng().OneIn(2))
    b.Add(b.Has(Op::kGetMsr) && b.rng().OneIn(4) ? Op::kGetMsr : Op::kRdmsr, {err});
  if (b.rng().OneIn(3)) b.Add(Op::kWrmsr, {err, 0});
  b.Add(Op::kWrmsr, {xfd, 0});
  // KVM stops to intercept the write once the guest has set the MSR, and reads it at each exit: the
  // value that no exit came for has to outlive the next one.
  if (b.rng().OneIn(2)) {
    b.Exit();
    if (b.rng().OneIn(2)) {
      b.Add(Op::kRdmsr, {xfd});
    } else {
      b.Load(Component::kTiledata);
    }
  }
  b.Look();
}

// What AMX is for: tiles loaded, multiplied, stored, with something in between.
void Tiles(Builder& b) {
  b.Add(Op::kLdtilecfg, {1, b.draw().Tiles()});
  for (uint64_t n = 1 + b.rng().Below(4); n != 0; --n) b.Load(Component::kTiledata);
  if (b.rng().OneIn(2)) b.Between();
  if (b.rng().OneIn(2)) {
    const uint64_t dst = b.AnyTile();
    constexpr Op kDots[] = {Op::kTdpbssd, Op::kTdpbsud, Op::kTdpbusd, Op::kTdpbuud};
    const Op dot = kDots[b.rng().Below(4)];
    b.Add(dot, {dst, dst + 1 + b.rng().Below(3), dst + 4 + b.rng().Below(4)});
  }
  if (b.rng().OneIn(3)) b.Add(Op::kTilezero, {b.AnyTile()});
  if (b.rng().OneIn(3)) b.Exit();
  if (b.rng().OneIn(4)) b.Add(Op::kSttilecfg);
  for (uint64_t n = b.rng().Below(3); n != 0; --n) b.Add(Op::kTilestored, {b.AnyTile()});
  if (b.rng().OneIn(4)) b.Add(Op::kTilerelease);
  b.Look();
}

// The MSRs of CET are state like any other: kept across swaps, saved by XSAVES, moved by a VMM.
void Cet(Builder& b) {
  if (!b.draw().HasCet()) return;
  const auto first = static_cast<uint64_t>(Msr::kUCet);
  const auto msr = [&] { return first + b.rng().Below(6); };
  const auto set = [&](uint64_t name) {
    const bool by_vmm = b.Has(Op::kSetMsr) && b.rng().OneIn(4);
    b.Add(by_vmm ? Op::kSetMsr : Op::kWrmsr, {name, b.draw().MsrValue(static_cast<Msr>(name))});
  };
  const uint64_t one = msr(), two = msr();
  set(one);
  set(two);
  if (b.rng().OneIn(2))
    b.Add(Op::kWrmsr, {static_cast<uint64_t>(Msr::kXss), b.draw().Supervisor()});
  b.Between();
  if (b.rng().OneIn(3)) {
    const uint64_t slot = b.AnySlot();
    b.Add(Op::kXsaves, {slot, 0, kEverything, 0});
    set(one);
    if (b.rng().OneIn(3)) b.Exit();
    b.Add(Op::kXrstors, {slot, 0, kEverything, 0});
  }
  if (b.rng().OneIn(4)) b.AddOneOf({Op::kMigrate, Op::kInit});
  for (const uint64_t name : {one, two}) {
    b.Add(b.Has(Op::kGetMsr) && b.rng().OneIn(3) ? Op::kGetMsr : Op::kRdmsr, {name});
  }
}

void Pkru(Builder& b) {
  b.Add(Op::kWrpkru, {b.draw().Pkru()});
  b.Between();
  if (b.rng().OneIn(3)) b.AddDrawn(Op::kHostPkru);
  if (b.rng().OneIn(3)) b.Save(b.AnySlot(), Bit(Component::kPkru));
  if (b.rng().OneIn(4)) b.Restore(b.SavedSlot(), Bit(Component::kPkru));
  if (b.rng().OneIn(2)) b.Exit();
  b.Add(Op::kRdpkru);
}

// The emulator reads and writes vector registers behind the guest's back.
void VectorMmio(Builder& b) {
  b.LoadSome();
  const uint64_t reg = b.rng().Below(16);
  b.Add(Op::kExitMmioVector, {b.rng().Below(2), reg, b.draw().Pattern()});
  if (b.rng().OneIn(3)) b.Disturb();
  if (!b.Add(Op::kEvexStore512, {reg}) && !b.Add(Op::kVexStore256, {reg})) {
    b.Add(Op::kSseStore, {reg});
  }
}

constexpr Idiom kIdioms[] = {
    {"keep_registers", 24, Op{}, KeepRegisters},
    {"save_lose_restore", 36, Op::kXrstor, SaveLoseRestore},
    {"two_tasks", 14, Op::kXrstor, TwoTasks},
    {"modified_optimisation", 14, Op::kXsaveopt, ModifiedOptimisation},
    {"edit_header", 24, Op::kXrstor, EditHeader},
    {"edit_bytes", 20, Op::kXrstor, EditBytes},
    {"build_area", 14, Op::kXrstor, BuildArea},
    {"hide_and_show", 28, Op::kXsetbv, HideAndShow},
    {"use_and_clear", 24, Op{}, UseAndClear},
    {"many_exits", 14, Op::kExitOut, ManyExits},
    {"x87_stack", 12, Op::kFldTbyte, X87Stack},
    {"mmx", 8, Op::kMmxMovq, Mmx},
    {"fx", 12, Op::kFxsave, Fx},
    {"misaligned", 3, Op::kXsave, Misaligned},
    {"task_switched", 8, Op::kCr0Ts, TaskSwitched},
    {"cr4_window", 10, Op::kCr4Bit, Cr4Window},
    {"supervisor", 10, Op::kXsaves, Supervisor},
    {"xfd", 12, Op::kWrmsr, Xfd},
    {"tiles", 24, Op::kTileloadd, Tiles},
    {"cet", 6, Op::kXsaves, Cet},
    {"pkru", 12, Op::kWrpkru, Pkru},
    {"vector_mmio", 10, Op::kExitMmioVector, VectorMmio},
};

}  // namespace

std::span<const Idiom> GuestIdioms() { return kIdioms; }

}  // namespace fpswap::program
