// SPDX-License-Identifier: GPL-2.0-or-later
//
// A thread's state through the system's doors: regsets and signal frames.
#include <array>

#include "harness/program/idioms.h"
#include "oracle/xstate/layout.h"

namespace fpswap::program {
namespace {

// struct _fpx_sw_bytes of a frame's image (oracle/os/thread.h).
constexpr uint64_t kSwMagics = 464, kSwXfeatures = 472, kSwXstateSize = 480;
constexpr uint64_t kMagic1 = 0x46505853, kMagic2 = 0x46505845;

// What is put into the thread, by either door.
void Set(Builder& b, uint64_t image) {
  if (b.rng().OneIn(2) && b.Add(Op::kOsSigreturn, {image})) return;
  b.Add(Op::kOsSetRegset, {image});
}

// An image to set, from the thread by the door that `Set` does not mind: a frame's, as sigreturn
// takes nothing else whole.
uint64_t Frame(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.LoadSome();
  b.Add(Op::kOsSigframe, {image});
  return image;
}

// Something that makes the kernel take the registers away, and a look.
void Swap(Builder& b) {
  b.LoadSome();
  if (b.rng().OneIn(2)) b.ClearSome();
  b.AddOneOf({Op::kHostDirty, Op::kHostCpu, Op::kHostSignal, Op::kExitPageFault});
  if (b.rng().OneIn(3)) b.LoadSome();
  b.AddOneOf({Op::kOsGetRegset, Op::kOsSigframe});
  b.Between();
  b.Look();
}

void RoundTrip(Builder& b) {
  const uint64_t image = Frame(b);
  b.Between();
  if (b.rng().OneIn(2)) b.rng().OneIn(2) ? b.LoadSome() : b.ClearSome();
  Set(b, image);
  if (b.rng().OneIn(2)) b.Between();
  b.Look();
}

// XSTATE_BV with bits lost: these components become initial. At times with bits nobody has.
void Subset(Builder& b) {
  const uint64_t image = Frame(b);
  const uint64_t bv = b.rng().OneIn(16) ? b.draw().XstateBv() : b.draw().Subset(b.features());
  b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset, bv});
  if (b.rng().OneIn(2)) b.LoadSome();
  Set(b, image);
  if (b.rng().OneIn(3)) b.Between();
  b.Look();
}

// A few bytes of the contents changed.
void Edited(Builder& b) {
  const uint64_t image = b.rng().OneIn(3) ? b.GotImage() : Frame(b);
  b.EditImage(image);
  Set(b, image);
  b.Between();
  b.Look();
}

// What check_xstate_in_sigframe reads: which components to restore, or that there is only FXSAVE's.
void SwBytes(Builder& b) {
  const uint64_t image = Frame(b);
  const uint64_t size = 576 + b.rng().Below(3000);
  switch (b.rng().Below(6)) {
    case 0:
    case 1:
    case 2:
      b.Add(Op::kImageWrite, {image, kSwXfeatures, b.draw().Subset(b.features())});
      break;
    case 3:  // no XSAVE image, or one that says it is cut off
      b.Add(Op::kImageWrite, {image, kSwMagics, b.rng().OneIn(2) ? 0 : kMagic1});
      break;
    case 4:
      b.Add(Op::kImageWrite, {image, kSwXstateSize, b.rng().OneIn(4) ? 575 : size});
      break;
    default:  // a shorter one, with its end where it says
      b.Add(Op::kImageWrite, {image, kSwXstateSize, size});
      b.Add(Op::kImageWrite, {image, size, kMagic2});
  }
  b.rng().OneIn(2) ? b.LoadSome() : b.ClearSome();
  b.Add(Op::kOsSigreturn, {image});
  b.Look();
}

// sigreturn hands the header to the CPU as it is: a compacted one is taken, if its bits agree.
void Compacted(Builder& b) {
  const uint64_t image = Frame(b);
  const uint64_t bv = b.draw().Subset(b.features());
  b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset, bv});
  b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset + 8, b.draw().XcompBv(bv)});
  if (b.rng().OneIn(3)) {
    b.Add(Op::kImageWrite, {image, kSwXfeatures, b.draw().Subset(b.features())});
  }
  Set(b, image);
  b.Look();
}

// Images that must be refused. SETREGSET then changes nothing; sigreturn leaves initial state.
void Refused(Builder& b) {
  const uint64_t image = Frame(b);
  struct Edit {
    uint64_t offset, value;
  };
  const std::array<Edit, 5> edits = {{
      {520, b.draw().XcompBv(b.features())},
      {528 + 8 * b.rng().Below(6), uint64_t{1} << b.rng().Below(64)},
      {512, uint64_t{1} << b.rng().Below(64)},
      {512, ~uint64_t{0}},
      {24, 0xffff00000000 | (uint64_t{0x10000} << b.rng().Below(16))},
  }};
  const Edit& edit = edits[b.rng().Below(edits.size())];
  b.Add(Op::kImageWrite, {image, edit.offset, edit.value});
  if (b.rng().OneIn(2)) b.LoadSome();
  Set(b, image);
  b.rng().OneIn(2) ? b.Look() : static_cast<void>(b.Get(b.AnyImage()));
}

constexpr Idiom kIdioms[] = {
    {"os_swap", 20, Op::kOsGetRegset, Swap},
    {"os_round_trip", 14, Op::kOsSigframe, RoundTrip},
    {"os_subset", 14, Op::kOsSigframe, Subset},
    {"os_edited", 14, Op::kOsSigframe, Edited},
    {"os_sw_bytes", 12, Op::kOsSigreturn, SwBytes},
    {"os_compacted", 8, Op::kOsSigreturn, Compacted},
    {"os_refused", 10, Op::kOsSigframe, Refused},
};

}  // namespace

std::span<const Idiom> OsIdioms() { return kIdioms; }

}  // namespace fpswap::program
