// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which steps a profile allows, with the table's weights: what all drawing goes through, so that no
// step is drawn that the profile rules out.
//
// Thread safety: a value; const members only read.
#pragma once

#include <bitset>
#include <span>

#include "harness/program/generate.h"

namespace fpswap::program {

class Palette {
 public:
  explicit Palette(const Profile& profile);

  bool Has(Op op) const { return allowed_[static_cast<uint8_t>(op)]; }
  bool Empty() const { return allowed_.none(); }
  // A row by weight; null where the palette is empty.
  const StepRow* Pick(Rng& rng) const;
  // One of `ops` that is allowed, evenly (an op listed twice counts twice); kNoOp where none is.
  static constexpr Op kNoOp{0};
  Op PickOf(std::span<const Op> ops, Rng& rng) const;

  // A part of this palette for one program: families of steps left out by draw. What is not in the
  // way of the rest lets it go deeper ("swarm testing").
  Palette Thinned(Rng& rng) const;

 private:
  std::bitset<256> allowed_;
};

}  // namespace fpswap::program
