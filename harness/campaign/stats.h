// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a worker tells its supervisor while it runs: counters in a file that both map. It outlives
// the worker, so a restarted worker goes on counting where the killed one stopped.
//
// Thread safety: every field is atomic; `error` is written once, before `failed` is set.
#pragma once

#include <atomic>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <string>
#include <string_view>

namespace fpswap::campaign {

struct Stats {
  std::atomic<uint64_t> made;         // programs made and handed over
  std::atomic<uint64_t> programs;     // programs run and judged
  std::atomic<uint64_t> hash;         // over the byte forms of all programs made, in order
  std::atomic<uint64_t> reached;      // feedback counters ever set
  std::atomic<uint64_t> edges;        // of the kernel, ever reached; 0 where nobody counts
  std::atomic<uint64_t> corpus;       // programs that set one first
  std::atomic<uint64_t> new_found;    // distinct, those included that could not be written
  std::atomic<uint64_t> known_found;  // distinct
  std::atomic<uint64_t> trimmed;      // steps
  std::atomic<uint64_t> unsaved;      // findings that could not be written
  std::atomic<uint32_t> ready;        // the target is open
  std::atomic<uint32_t> looking;      // what was found is being looked into
  std::atomic<uint32_t> stop;         // set by the supervisor: come to an end
  std::atomic<uint32_t> failed;       // `error` says why the worker can't go on
  char error[512];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// A mapped Stats. Movable, owns the mapping.
class SharedStats {
 public:
  // Creates the file (all zeros) if it is not there.
  static std::expected<SharedStats, std::string> Map(const std::filesystem::path& path);
  SharedStats(SharedStats&& other) noexcept : stats_(other.stats_) { other.stats_ = nullptr; }
  SharedStats& operator=(SharedStats&&) = delete;
  ~SharedStats();

  Stats& operator*() const { return *stats_; }
  Stats* operator->() const { return stats_; }
  void Fail(std::string_view sentence) const;

 private:
  explicit SharedStats(Stats* stats) : stats_(stats) {}
  Stats* stats_;
};

}  // namespace fpswap::campaign
