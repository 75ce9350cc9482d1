// SPDX-License-Identifier: GPL-2.0-or-later
//
// Random bytes and random XSAVE images that a CPU accepts.
#pragma once

#include <cstdint>
#include <span>

#include "oracle/cpu/cpu.h"

namespace fpswap::cpu::testing {

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t n) { return Next() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  void Fill(std::span<uint8_t> out);
  // A feature mask as programs use them: all, one bit, a few, any.
  uint64_t Mask();

 private:
  uint64_t state_;
};

// Fills `image` (any size >= 576) with a valid standard-format image for `mask`: XSTATE_BV a subset
// of it, components random, sparse or all zero, fields with reserved bits valid where bad ones
// fault, and random where they are masked. PKRU never denies key 0.
void FillStandardImage(Random& random, const Features& features, uint64_t mask,
                       std::span<uint8_t> image);
// The same in the compacted format: XCOMP_BV a subset of `mask`.
void FillCompactedImage(Random& random, const Features& features, uint64_t mask,
                        std::span<uint8_t> image);

// Bytes for TILECFG, of 64 at least: mostly a legal configuration of palette 1, with tiles that fit
// together now and then; else random bytes, which are hardly ever legal.
void FillTilecfg(Random& random, std::span<uint8_t> out);

}  // namespace fpswap::cpu::testing
