// SPDX-License-Identifier: GPL-2.0-or-later
//
// Why one world does not allow what was seen. Made for every world that is dropped, so it allocates
// nothing (the bytes go into buffers that are kept); the words for people are made of it later
// (explain.h),
// if no world is left.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "harness/judge/verdict.h"

namespace fpswap::judge {

// Mismatch::what of the instruction's own fault: another than it had to be, one too many, none.
inline constexpr const char* kFault = "fault";

struct Mismatch {
  Law law = Law::kModel;
  Relation relation = Relation::kOther;  // kOther where bytes differ: to be classified
  Place place = Place::kNone;
  const char* what = "";  // place kNone: what differs, "KVM_SET_XSAVE errno"
  const char* rule = "";
  uint64_t expected = 0, actual = 0;  // place kNone: the two values, where `values` is set
  bool values = false;
  uint32_t offset = 0;     // first differing byte
  uint32_t window = 0;     // offset of possible[0] and seen[0]
  uint32_t phase = 0;      // registers begin here and every 16 bytes from here
  uint32_t size = 0;       // bytes in both
  uint32_t differing = 0;  // bytes that differ in all: how far this world is
  std::array<uint8_t, 64> possible, seen;
  // Where all bytes compared are kept, which are told register by register; null: nowhere, and only
  // the first is told. Outlives this.
  Compared* all = nullptr;
};

// Compares; on difference fills the byte fields of `m` and returns false. The sizes must be equal.
// Registers begin at `phase` and every 16 bytes from there.
inline bool SameBytes(std::span<const uint8_t> possible, std::span<const uint8_t> seen, Mismatch& m,
                      uint32_t phase = 0) {
  if (std::memcmp(possible.data(), seen.data(), possible.size()) == 0) return true;
  const auto size = static_cast<uint32_t>(possible.size());
  m.differing = 0;
  bool first = true;
  for (uint32_t i = 0; i < size; ++i) {
    if (possible[i] == seen[i]) continue;
    if (first) m.offset = i;
    first = false;
    ++m.differing;
  }
  m.phase = phase;
  m.window = ((m.offset - phase) & ~15u) + phase;
  m.size = std::min<uint32_t>(size - m.window, sizeof(m.seen));
  std::memcpy(m.possible.data(), possible.data() + m.window, m.size);
  std::memcpy(m.seen.data(), seen.data() + m.window, m.size);
  if (m.all != nullptr) {
    m.all->possible.assign(possible.begin(), possible.end());
    m.all->seen.assign(seen.begin(), seen.end());
  }
  return false;
}

}  // namespace fpswap::judge
