// SPDX-License-Identifier: GPL-2.0-or-later
//
// What an agent has said and not sent yet, in memory that it shares with a harness on the same
// machine.
//
// An agent says which program it begins before it runs it. Were that a write to the stream each
// time, with the harness woken by it, it would cost more than many a program. Said here it is as
// good as sent: the memory outlives the agent, and the harness reads it when the stream has ended.
// (What a crash of the machine leaves is another matter: campaign/pending.h.)
//
// The agent writes, the harness reads when the agent is dead.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fpswap::wire {

// In a hello: the word behind it is the path of this memory.
inline constexpr std::string_view kUnsent = "--unsent";

struct Unsent {
  static constexpr size_t kRoom = 256 << 10;
  std::atomic<uint64_t> sent;  // bytes of the stream that were sent
  std::atomic<uint64_t> size;  // bytes said since: those in `bytes`
  uint8_t bytes[kRoom];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace fpswap::wire
