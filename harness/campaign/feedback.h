// SPDX-License-Identifier: GPL-2.0-or-later
//
// The fuzzer's feedback: the oracle's states that a program reaches, as 64 Ki one-byte counters. It
// depends on the program and the platform alone, never on what the system under test did, so a seed
// gives the same programs on every run. Only a kernel that counts what is reached of it adds that
// (docs/decisions/0006).
//
// Counters are presence bits: how often a state is met in one program says little, and counts would
// fill the corpus with variations of one idea.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "harness/judge/judge.h"

namespace fpswap::campaign {

inline constexpr size_t kCounters = 1 << 16;

class Feedback : public judge::ReachSink {
 public:
  // `counters` has kCounters bytes and outlives this; it is only ever set, never cleared.
  explicit Feedback(std::span<uint8_t> counters) : counters_(counters) {}

  // (op, state of component, XCR0, outcome) and (op, state of component, way of exit).
  void Reach(const judge::ReachEvent& event) override;
  // Pairs of neighbouring steps, and a counter that every program sets.
  void Steps(const program::Program& effective);
  // What of the kernel the program reached (targets::Target::kernel_edges).
  void KernelEdges(std::span<const uint16_t> edges);

 private:
  void Set(uint64_t salt, uint64_t what);
  std::span<uint8_t> counters_;
};

// Counters that were ever set.
class Seen {
 public:
  // Takes over what `counters` has; the number of counters that are new.
  unsigned Add(std::span<const uint8_t> counters);
  unsigned count() const { return count_; }

 private:
  std::array<uint64_t, kCounters / 8> bytes_{};  // a byte a counter, as in the counters
  unsigned count_ = 0;
};

}  // namespace fpswap::campaign
