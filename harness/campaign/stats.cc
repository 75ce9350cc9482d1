// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/stats.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fpswap::campaign {

std::expected<SharedStats, std::string> SharedStats::Map(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  // posix_fallocate and not ftruncate: a write to a hole on a full disk would be a SIGBUS.
  int error = fd < 0 ? errno : posix_fallocate(fd, 0, sizeof(Stats));
  void* mapping = MAP_FAILED;
  if (error == 0) {
    mapping = mmap(nullptr, sizeof(Stats), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) error = errno;
  }
  if (fd >= 0) close(fd);
  if (error != 0) {
    return std::unexpected(fmt::format("{}: {}", path.string(), std::strerror(error)));
  }
  return SharedStats(static_cast<Stats*>(mapping));
}

SharedStats::~SharedStats() {
  if (stats_ != nullptr) munmap(stats_, sizeof(Stats));
}

void SharedStats::Fail(std::string_view sentence) const {
  const size_t length = std::min(sentence.size(), sizeof(stats_->error) - 1);
  std::memcpy(stats_->error, sentence.data(), length);
  stats_->error[length] = '\0';
  stats_->failed.store(1, std::memory_order_release);
}

}  // namespace fpswap::campaign
