// SPDX-License-Identifier: GPL-2.0-or-later
//
// The folder of one fuzzing run, and who lives in it. Supervisor and workers each hold a shared
// flock on RUN/lock as long as they live; the kernel drops it with the process, whatever ended
// that. A process id would not do: in a container or a lab VM the next run has the same one, and
// from another PID namespace a live one looks dead.
//
// Thread safety: no shared state.
#pragma once

#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fpswap::campaign {

// A lock held until it is destroyed. Owns its descriptor, which is closed on exec.
class RunLock {
 public:
  // For those who live in `run`. The file is made if it is not there.
  static std::expected<RunLock, std::string> Share(const std::filesystem::path& run);
  // For who clears up after it: nothing while anybody lives there, or before anybody did.
  static std::optional<RunLock> TakeOver(const std::filesystem::path& run);

  RunLock(RunLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  RunLock& operator=(RunLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~RunLock();

 private:
  explicit RunLock(int fd) : fd_(fd) {}
  int fd_;
};

struct RunFolder {
  std::filesystem::path path;
  RunLock lock;
};

// Makes FINDINGS/.run-XXXXXX, which no other run has or had, and FINDINGS where need be.
std::expected<RunFolder, std::string> MakeRunFolder(const std::filesystem::path& findings);

// Folders that runs have left which are gone: they were killed, or the machine went down.
std::vector<RunFolder> AbandonedRuns(const std::filesystem::path& findings);

}  // namespace fpswap::campaign
