// SPDX-License-Identifier: GPL-2.0-or-later
//
// The bytes of a comparison as a map of components: which part of them is whose, and where what was
// seen differs from what was possible, down to the bit. Pure functions; total, for the bytes and
// the layout come from a trace.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/judge/verdict.h"
#include "harness/trace/platform.h"

namespace fpswap::report {

// Bytes [begin, end) belong to a component, or to none (`component` < 0: header, reserved, no
// state).
struct Region {
  uint32_t begin = 0, end = 0;
  int component = -1;
  // Where they lie in a standard-format image, by which registers are named; -1: in none.
  int64_t standard = -1;
};

// In order, without gaps, all of `size` bytes.
std::vector<Region> RegionsOf(judge::Place place, std::span<const uint8_t> bytes,
                              const trace::Platform& platform);

// A run of bytes that differ, within one register.
struct DifferingRegister {
  std::string name;    // "YMM5[255:128]"
  uint32_t begin = 0;  // offset of the first byte given
  std::vector<uint8_t> possible, seen;
};

struct ImageMap {
  judge::Place place = judge::Place::kNone;
  std::vector<Region> regions;
  std::vector<uint8_t> possible, seen;
  std::vector<DifferingRegister> differing;   // the first kMaxRegisters
  size_t registers = 0, bytes = 0, bits = 0;  // that differ, in all
};
inline constexpr size_t kMaxRegisters = 24;

// Nothing where there is nothing to show (no bytes were compared).
ImageMap MapOf(const judge::Compared& compared, const trace::Platform& platform);

std::string_view PlaceTitle(judge::Place place);  // "XSAVE image (standard format)"

// Two maps, possible and seen, the legend and the table of differing registers. "" for an empty
// map.
std::string ImageMapHtml(const ImageMap& map);

}  // namespace fpswap::report
