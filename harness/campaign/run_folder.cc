// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace fpswap::campaign {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPrefix = ".run-";

std::unexpected<std::string> Failed(const fs::path& path, int error) {
  return std::unexpected(fmt::format("{}: {}", path.string(), std::strerror(error)));
}

}  // namespace

RunLock::~RunLock() {
  if (fd_ >= 0) close(fd_);
}

std::expected<RunLock, std::string> RunLock::Share(const fs::path& run) {
  // The lock appears under its name only when it is held: who clears up can't come in between.
  const fs::path name = run / "lock", temporary = run / fmt::format("lock.{}", getpid());
  int fd = open(name.c_str(), O_RDWR | O_CLOEXEC);
  const bool make = fd < 0 && errno == ENOENT;
  if (make) fd = open(temporary.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Failed(name, errno);
  RunLock lock(fd);
  if (flock(fd, LOCK_SH | LOCK_NB) != 0) return Failed(name, errno);
  if (make && rename(temporary.c_str(), name.c_str()) != 0) return Failed(name, errno);
  return lock;
}

std::optional<RunLock> RunLock::TakeOver(const fs::path& run) {
  const int fd = open((run / "lock").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return {};
  RunLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) return {};
  return lock;
}

std::expected<RunFolder, std::string> MakeRunFolder(const fs::path& findings) {
  std::error_code status;
  fs::create_directories(findings, status);
  if (status) {
    return std::unexpected(fmt::format("{}: {}", findings.string(), status.message()));
  }
  std::string path = (findings / (std::string(kPrefix) + "XXXXXX")).string();
  if (mkdtemp(path.data()) == nullptr) return Failed(findings, errno);
  auto lock = RunLock::Share(path);
  if (!lock) return std::unexpected(lock.error());
  return RunFolder{path, std::move(*lock)};
}

std::vector<RunFolder> AbandonedRuns(const fs::path& findings) {
  std::vector<RunFolder> abandoned;
  std::error_code status;
  for (fs::directory_iterator it(findings, status), end; !status && it != end;
       it.increment(status)) {
    if (!it->path().filename().string().starts_with(kPrefix)) continue;
    if (auto lock = RunLock::TakeOver(it->path())) {
      abandoned.push_back({it->path(), std::move(*lock)});
    }
  }
  return abandoned;
}

}  // namespace fpswap::campaign
