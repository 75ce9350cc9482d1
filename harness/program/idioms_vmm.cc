// SPDX-License-Identifier: GPL-2.0-or-later
#include <array>

#include "harness/program/idioms.h"
#include "oracle/xstate/layout.h"

namespace fpswap::program {
namespace {

using xstate::Component;

// SET of a GET changes nothing, however much happened between.
void RoundTrip(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.LoadSome();
  b.Get(image);
  b.Between();
  if (b.rng().OneIn(2)) b.rng().OneIn(2) ? b.LoadSome() : b.ClearSome();
  b.Add(Op::kSetXsave, {image});
  if (b.rng().OneIn(2)) b.Exit();
  b.Look();
}

// A GET whose XSTATE_BV loses bits, set again: the components left out become initial.
void SetSubset(Builder& b) {
  const uint64_t image = b.rng().OneIn(2) ? b.GotImage() : b.AnyImage();
  if (((b.scene().images >> image) & 1) == 0) {
    b.LoadSome();
    b.Get(image);
  }
  uint64_t bv = b.draw().Subset(b.features());
  if (b.rng().OneIn(16)) bv = b.draw().XstateBv();
  b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset, bv});
  if (b.rng().OneIn(3)) b.LoadSome();
  b.Add(Op::kSetXsave, {image});
  if (b.rng().OneIn(3)) b.Between();
  b.rng().OneIn(2) ? b.Look() : static_cast<void>(b.Get(b.AnyImage()));
}

// A GET with a few bytes of its contents changed.
void SetEdited(Builder& b) {
  const uint64_t image = b.GotImage();
  if (b.scene().images == 0) b.Get(image);
  b.EditImage(image);
  b.Add(Op::kSetXsave, {image});
  b.Between();
  b.Look();
}

// An image from nothing: the initial one, one or two components filled, their bits set.
void SetImage(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.Add(Op::kImageInit, {image});
  uint64_t bv = b.draw().Subset(b.features());
  for (uint64_t n = b.rng().Below(3); n != 0; --n) {
    const auto& row = xstate::RowOf(b.Focus());
    bv |= Bit(row.id);
    // Of x87 and SSE only registers: control words have bits that must be zero.
    const uint64_t offset = row.size != 0               ? row.standard_offset
                            : row.id == Component::kX87 ? 32
                                                        : 160;
    // PKRU as drawn: a pattern's low bits take the guest's data away.
    if (row.id == Component::kPkru) {
      b.Add(Op::kImageWrite, {image, offset, b.draw().Pkru()});
    } else {
      b.Add(Op::kImageFill, {image, offset, row.size == 0 ? 128 : row.size, b.draw().Pattern()});
    }
  }
  if (b.rng().OneIn(3)) b.Add(Op::kImageWrite, {image, 24, b.draw().AreaValue(24)});
  if (b.rng().OneIn(3)) b.Add(Op::kImageWrite, {image, 0, b.draw().AreaValue(0)});
  b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset, bv});
  b.Add(Op::kSetXsave, {image});
}

void SetBuilt(Builder& b) {
  SetImage(b);
  if (b.rng().OneIn(2)) b.Exit();
  b.Look();
}

// An image that must be refused, and then nothing may have changed.
void SetRefused(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.LoadSome();
  b.Get(image);
  struct Edit {
    uint64_t offset, value;
  };
  const std::array<Edit, 6> edits = {{
      {520, b.draw().XcompBv(b.features())},                           // XCOMP_BV != 0
      {528 + 8 * b.rng().Below(6), uint64_t{1} << b.rng().Below(64)},  // reserved header bytes
      {512, uint64_t{1} << b.rng().Below(64)},                         // a component KVM lacks
      {512, ~uint64_t{0}},
      {24, 0xffff00000000 | (uint64_t{0x10000} << b.rng().Below(16))},  // reserved MXCSR bits
      {520, 1},
  }};
  const Edit& edit = edits[b.rng().Below(edits.size())];
  b.Add(Op::kImageWrite, {image, edit.offset, edit.value});
  if (b.rng().OneIn(3)) b.LoadSome();
  b.Add(Op::kSetXsave, {image});
  b.rng().OneIn(2) ? b.Look() : static_cast<void>(b.Get(b.AnyImage()));
}

// An x87 exception that waits, unmasked, with the pointers of the instruction that raised it: AMD
// parts save the pointers in no other state.
void PendingX87(Builder& b) {
  const uint64_t image = b.AnyImage();
  const uint64_t exception = uint64_t{1} << b.rng().Below(6);
  const uint64_t fcw = 0x37f & ~exception;
  const uint64_t fsw = 0x8080 | exception | b.rng().Below(8) << 11;
  const uint64_t ftw = b.rng().Below(256);
  const uint64_t fop = b.rng().Below(0x800);
  b.Add(Op::kImageInit, {image});
  b.Add(Op::kImageWrite, {image, 0, fcw | fsw << 16 | ftw << 32 | fop << 48});
  b.Add(Op::kImageWrite, {image, 8, b.rng().Below(uint64_t{1} << 47)});   // FIP
  b.Add(Op::kImageWrite, {image, 16, b.rng().Below(uint64_t{1} << 47)});  // FDP
  b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset, Bit(Component::kX87)});
  b.Add(Op::kSetXsave, {image});
  b.AddOneOf({Op::kExitOut, Op::kMigrate, Op::kHostCpu, Op::kHostDirty, Op::kRunImmediate});
  b.Between();
  if (b.rng().OneIn(2)) b.Get(image);
  b.Save(b.AnySlot(), Bit(Component::kX87));
}

// Older ioctls are another door to x87 and SSE: the upper parts stay.
void Fpu(Builder& b) {
  b.LoadSome();
  if (b.rng().OneIn(2)) b.Add(Op::kGetFpu);
  b.AddDrawn(Op::kSetFpu);
  if (b.rng().OneIn(2)) b.Between();
  b.AddOneOf({Op::kGetFpu, Op::kGetXsave, Op::kXsave, Op::kSseStore, Op::kVexStore256});
}

// A list that is refused as a whole, or of which one entry counts.
void Xcrs(Builder& b) {
  b.LoadSome();
  b.AddOneOf({Op::kSetXcrs, Op::kSetXcrsList});
  if (b.rng().OneIn(2)) b.Add(Op::kGetXcrs);
  if (b.rng().OneIn(2)) b.Add(Op::kXgetbv, {0});
  b.Between();
  b.Add(Op::kSetXcrs, {1, 0, b.draw().LegalMask(b.features()), 0});
  b.Look();
}

// A live migration in the middle of the guest's work.
void Migrate(Builder& b) {
  b.LoadSome();
  if (b.rng().OneIn(3)) b.Add(Op::kXsetbv, {0, b.draw().LegalMask(b.features())});
  if (b.rng().OneIn(3)) b.Exit();
  b.AddDrawn(Op::kMigrate);
  if (b.rng().OneIn(3)) b.Disturb();
  if (b.rng().OneIn(4)) b.AddDrawn(Op::kMigrate);
  b.Look();
}

// Another CPU, with other registers in it: what was left in the old CPU must come along.
void MoveCpu(Builder& b) {
  b.LoadSome();
  if (b.rng().OneIn(2)) b.Exit();
  b.AddDrawn(Op::kHostCpu);
  if (b.rng().OneIn(2)) b.AddDrawn(Op::kHostDirty);
  b.AddOneOf({Op::kExitOut, Op::kRunImmediate, Op::kGetXsave, Op::kExitCpuid});
  if (b.rng().OneIn(2)) b.AddDrawn(Op::kHostCpu);
  b.Look();
}

// The vCPU's CPU leaves the machine, with KVM's part of it and whatever the CPU still held; what
// comes back has been set up anew.
void Hotplug(Builder& b) {
  b.LoadSome();
  b.Add(Op::kHostCpu, {255});  // the last, where CPUs are a power of two
  if (b.rng().OneIn(2)) b.Exit();
  b.Add(Op::kHostOnline, {0});
  if (b.rng().OneIn(2)) b.Disturb();
  if (b.rng().OneIn(2)) b.Look();
  b.Add(Op::kHostOnline, {1});
  b.Add(Op::kHostCpu, {255});
  b.Look();
}

// A competitor: nothing of it may show in components the guest never used.
void Competitor(Builder& b) {
  const uint64_t slot = b.AnySlot();
  b.rng().OneIn(2) ? b.Load(b.Focus()) : b.ClearSome();
  b.AddDrawn(Op::kHostDirty);
  b.AddOneOf({Op::kExitOut, Op::kRunImmediate, Op::kHostSignal, Op::kGetMpState, Op::kExitCpuid});
  b.Save(slot, ~uint64_t{0});
  if (b.rng().OneIn(3)) b.Get(b.AnyImage());
}

void Signal(Builder& b) {
  b.LoadSome();
  b.Add(Op::kHostSignal);
  b.Exit();
  if (b.rng().OneIn(2)) b.Load(b.Focus());
  b.Look();
}

// INIT clears MPX and CET state and keeps the rest.
void Init(Builder& b) {
  if (b.rng().OneIn(2)) b.Load(Component::kBndregs);
  b.LoadSome();
  if (b.rng().OneIn(2)) b.Exit();
  b.Add(Op::kInit);
  if (b.rng().OneIn(3)) b.Between();
  b.rng().OneIn(2) ? b.Look() : static_cast<void>(b.Get(b.AnyImage()));
}

// Calls that load and put the guest's state without running it.
void QuietSwaps(Builder& b) {
  b.LoadSome();
  for (uint64_t n = 1 + b.rng().Below(4); n != 0; --n) {
    b.AddOneOf({Op::kRunImmediate, Op::kRunImmediate, Op::kGetMpState, Op::kGetXcrs, Op::kGetFpu,
                Op::kGetMsr, Op::kHostDirty});
  }
  b.Look();
}

// The VMM's thread is switched out where it is at its most delicate: the guest's state loaded, or
// its own registers in use.
void Interrupted(Builder& b) {
  b.LoadSome();
  if (b.rng().OneIn(2)) b.Exit();
  b.AddOneOf(
      {Op::kHostPreempt, Op::kHostPreempt, Op::kHostPreempt, Op::kHostFork, Op::kHostThread});
  b.AddOneOf({Op::kExitOut, Op::kExitOut, Op::kExitMmioVector, Op::kXsave, Op::kRunImmediate});
  if (b.rng().OneIn(3)) b.AddOneOf({Op::kHostFork, Op::kHostThread, Op::kHostPreempt});
  b.Look();
}

void Msrs(Builder& b) {
  b.AddOneOf({Op::kSetMsr, Op::kSetMsrList});
  b.Between();
  if (b.rng().OneIn(2)) b.AddOneOf({Op::kGetMsr, Op::kGetMsrList});
  b.AddOneOf({Op::kRdmsr, Op::kXsaves, Op::kGetXsave2, Op::kSetXsave});
}

// The same image into the vCPU before and after its XCR0 changes: SET does not look at XCR0.
void SetAcrossXcr0(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.LoadSome();
  b.Get(image);
  b.Add(Op::kXsetbv, {0, b.draw().LegalMask(b.features())});
  b.Add(Op::kSetXsave, {image});
  if (b.rng().OneIn(2)) b.Exit();
  if (b.rng().OneIn(2)) b.Get((image + 1) % kImageCount);
  b.Add(Op::kXsetbv, {0, b.features()});
  b.Look();
}

constexpr Idiom kIdioms[] = {
    {"round_trip", 28, Op::kSetXsave, RoundTrip},
    {"set_subset", 24, Op::kSetXsave, SetSubset},
    {"set_edited", 20, Op::kSetXsave, SetEdited},
    {"set_built", 20, Op::kSetXsave, SetBuilt},
    {"pending_x87", 6, Op::kSetXsave, PendingX87},
    {"set_refused", 8, Op::kSetXsave, SetRefused},
    {"set_across_xcr0", 10, Op::kSetXsave, SetAcrossXcr0},
    {"fpu", 10, Op::kSetFpu, Fpu},
    {"xcrs", 10, Op::kSetXcrs, Xcrs},
    {"migrate", 12, Op::kMigrate, Migrate},
    {"move_cpu", 16, Op::kHostCpu, MoveCpu},
    {"hotplug", 2, Op::kHostOnline, Hotplug},
    {"competitor", 20, Op::kHostDirty, Competitor},
    {"signal", 6, Op::kHostSignal, Signal},
    {"interrupted", 6, Op::kHostPreempt, Interrupted},
    {"init", 8, Op::kInit, Init},
    {"quiet_swaps", 12, Op::kRunImmediate, QuietSwaps},
    {"msrs", 5, Op::kSetMsr, Msrs},
    {"new_cpuid", 2, Op::kSetCpuid, NewCpuid},
};

}  // namespace

void NewCpuid(Builder& b) {
  SetImage(b);
  if (b.rng().OneIn(4)) b.AddOneOf({Op::kSetFpu, Op::kSetMsr});
  if (b.rng().OneIn(4)) b.Add(Op::kRunImmediate);
  b.Add(Op::kSetCpuid, {b.rng().OneIn(4) ? b.draw().LegalMask(b.features()) : b.features()});
  b.rng().OneIn(2) ? b.Look() : static_cast<void>(b.Get(b.AnyImage()));
}

std::span<const Idiom> VmmIdioms() { return kIdioms; }

}  // namespace fpswap::program
