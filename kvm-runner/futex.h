// SPDX-License-Identifier: GPL-2.0-or-later
//
// How the agent's threads hand over: one word in memory says whose turn it is, and who waits sleeps
// in the kernel.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace fpswap::kvm {

inline long Futex(std::atomic<uint32_t>& word, int op, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, &word, op | FUTEX_PRIVATE_FLAG, value, timeout, nullptr, 0);
}

// Sleeps until `word` is not `value`.
inline void WaitWhile(std::atomic<uint32_t>& word, uint32_t value) {
  while (word.load(std::memory_order_acquire) == value) Futex(word, FUTEX_WAIT, value, nullptr);
}

// Stores `value` and wakes who waits.
inline void Wake(std::atomic<uint32_t>& word, uint32_t value) {
  word.store(value, std::memory_order_release);
  Futex(word, FUTEX_WAKE, 1, nullptr);
}

}  // namespace fpswap::kvm
