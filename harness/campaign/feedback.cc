// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/feedback.h"

#include <bit>
#include <cstring>

namespace fpswap::campaign {

void Feedback::Set(uint64_t salt, uint64_t what) {
  uint64_t hash = (what + salt) * 0x9e3779b97f4a7c15u;
  hash = (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9u;
  counters_[hash >> 48] = 1;
}

void Feedback::Reach(const judge::ReachEvent& event) {
  const uint64_t meeting =
      uint64_t{event.op} | uint64_t{event.component} << 8 | uint64_t{event.state} << 16;
  Set(0x51, meeting | uint64_t{event.outcome} << 24 | uint64_t{event.xcr0} << 32);
  Set(0x7a0000000000, meeting | uint64_t{event.exit} << 24);
}

void Feedback::Steps(const program::Program& effective) {
  Set(0x13, 0);
  uint64_t previous = 0;
  uint8_t vcpu = 0;
  for (const program::Step& step : effective.steps) {
    const auto op = static_cast<uint64_t>(step.op);
    // Another vCPU's step behind one of this vCPU's is another thing, by where the two live.
    const uint64_t crossing =
        step.vcpu == vcpu ? 0 : 1 + (effective.own_vm ? 1 : 0) + (effective.own_thread ? 2 : 0);
    Set(0x390000000000, crossing << 16 | previous << 8 | op);
    previous = op;
    vcpu = step.vcpu;
  }
}

void Feedback::KernelEdges(std::span<const uint16_t> edges) {
  for (const uint16_t edge : edges) Set(0x6c0000000000, edge);
}

unsigned Seen::Add(std::span<const uint8_t> counters) {
  unsigned added = 0;
  for (size_t i = 0; i < bytes_.size(); ++i) {
    uint64_t word;
    std::memcpy(&word, counters.data() + 8 * i, 8);
    const uint64_t fresh = word & ~bytes_[i];
    if (fresh == 0) continue;
    bytes_[i] |= fresh;
    added += static_cast<unsigned>(std::popcount(fresh));
  }
  count_ += added;
  return added;
}

}  // namespace fpswap::campaign
