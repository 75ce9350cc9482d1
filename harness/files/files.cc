// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/files/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "harness/program/codec.h"
#include "harness/program/text.h"

namespace fpswap::files {
namespace fs = std::filesystem;
namespace {

using Error = std::unexpected<std::string>;

Error Failed(const fs::path& path, int error) {
  return Error(fmt::format("{}: {}", path.string(), std::strerror(error)));
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// libFuzzer names a corpus file by the SHA-1 of its bytes; our own engine does the same with 16 hex
// digits; AFL++ numbers its queue.
bool IsEncoded(const std::string& name) {
  if (name.starts_with("id:")) return true;
  return (name.size() == 40 || name.size() == 16) &&
         name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void Sort(Listed& listed) {
  for (auto* list : {&listed.programs, &listed.traces, &listed.encoded}) {
    std::sort(list->begin(), list->end());
  }
}

void Take(const fs::path& path, Listed& listed) {
  if (path.extension() == ".fps") listed.programs.push_back(path);
  if (path.extension() == ".fpt") listed.traces.push_back(path);
  if (IsEncoded(path.filename().string())) listed.encoded.push_back(path);
}

std::expected<void, std::string> TakeFolder(const fs::path& folder, Listed& listed) {
  std::error_code status;
  fs::recursive_directory_iterator it(folder, status);
  for (; !status && it != fs::recursive_directory_iterator(); it.increment(status)) {
    if (it->path().filename().string().starts_with('.')) {
      it.disable_recursion_pending();
      continue;
    }
    std::error_code ignored;
    if (it->is_regular_file(ignored)) Take(it->path(), listed);
  }
  if (status) return Error(fmt::format("{}: {}", folder.string(), status.message()));
  return {};
}

}  // namespace

fs::path WithoutSlash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::expected<std::string, std::string> ReadFile(const fs::path& path, size_t limit) {
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return Failed(path, errno);
  struct stat status{};
  if (fstat(file.get(), &status) != 0) return Failed(path, errno);
  if (!S_ISREG(status.st_mode)) return Error(fmt::format("{}: not a file", path.string()));
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t got = read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed(path, errno);
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > limit) {
      return Error(
          fmt::format("{}: larger than {} bytes, the most that is read", path.string(), limit));
    }
  }
}

std::expected<void, std::string> WriteFile(const fs::path& path, std::span<const uint8_t> bytes,
                                           Sync sync) {
  const fs::path temporary = path.string() + fmt::format(".tmp{}", getpid());
  int error = 0;
  {
    const Fd file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0) return Failed(path, errno);
    while (!bytes.empty() && error == 0) {
      const ssize_t put = write(file.get(), bytes.data(), bytes.size());
      if (put >= 0) bytes = bytes.subspan(static_cast<size_t>(put));
      if (put < 0 && errno != EINTR) error = errno;
    }
    if (error == 0 && sync == Sync::kNow && fdatasync(file.get()) != 0) error = errno;
  }
  if (error == 0 && rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return {};
  unlink(temporary.c_str());
  return Failed(path, error);
}

std::expected<void, std::string> WriteFile(const fs::path& path, std::string_view text) {
  return WriteFile(path, AsBytes(text));
}

std::expected<Listed, std::string> List(std::span<const fs::path> paths) {
  Listed listed;
  for (const fs::path& path : paths) {
    std::error_code status;
    if (fs::is_directory(path, status)) {
      if (auto taken = TakeFolder(path, listed); !taken) return Error(taken.error());
    } else if (!fs::exists(path, status)) {
      return Error(fmt::format("{}: no such file or folder", path.string()));
    } else if (path.extension() == ".fpt") {
      listed.traces.push_back(path);
    } else if (IsEncoded(path.filename().string())) {
      listed.encoded.push_back(path);
    } else {
      listed.programs.push_back(path);  // named outright: read as text whatever its name
    }
  }
  Sort(listed);
  return listed;
}

std::expected<program::Program, std::string> ReadProgram(const fs::path& path) {
  auto text = ReadFile(path, program::kMaxTextSize);
  if (!text) return Error(text.error());
  auto parsed = program::ParseText(*text);
  if (!parsed) return Error(parsed.error().ToString(path.string()));
  return std::move(*parsed);
}

std::expected<program::Program, std::string> ReadEncoded(const fs::path& path) {
  auto bytes = ReadFile(path, program::kMaxEncodedSize);
  if (!bytes) return Error(bytes.error());
  return program::Decode(AsBytes(*bytes));
}

}  // namespace fpswap::files
