// SPDX-License-Identifier: GPL-2.0-or-later
//
// The name of a differing byte: which register of which component, in whatever the bytes are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "harness/judge/explain.h"

namespace fpswap::judge {

inline constexpr size_t kNoHome = SIZE_MAX;

struct PlaceName {
  std::string where;  // "YMM5[255:128] of the image"
  bool has_component = false;
  xstate::Component component = xstate::Component::kX87;
  // Offset of Mismatch::window in a standard-format image, where the bytes have a place there.
  size_t home = kNoHome;
  // The same of the differing byte itself; of a value that was stored, in the register it is of.
  size_t exact = kNoHome;
  bool is_bitmap = false;  // the bytes are bits of components: XSTATE_BV, XGETBV(1)
  bool bit_lost = false;   // the first differing bit was due and was clear
};

PlaceName NamePlace(const Explained& what, const Mismatch& mismatch);

}  // namespace fpswap::judge
