// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/pending.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "harness/files/files.h"
#include "harness/plan/wire.h"
#include "harness/program/codec.h"
#include "harness/program/text.h"

namespace fpswap::campaign {
namespace {

constexpr std::string_view kMagic = "FPSWPEND";
constexpr size_t kMaxPendingSize = 4u << 20;

void Put32(std::vector<uint8_t>& out, uint32_t value) {
  for (unsigned i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// Takes a number from the front of `bytes`; false if there is none.
bool Take32(std::span<const uint8_t>& bytes, uint32_t& value) {
  if (bytes.size() < 4) return false;
  value = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t{bytes[3]} << 24;
  bytes = bytes.subspan(4);
  return true;
}

}  // namespace

PendingFile::PendingFile(const std::filesystem::path& folder, unsigned job, bool sync)
    : sync_(sync) {
  for (unsigned slot = 0; slot < 2; ++slot) {
    paths_[slot] = folder / fmt::format("pending-{}-{}.bin", job, slot);
  }
}

PendingFile::~PendingFile() {
  for (int fd : fds_) {
    if (fd >= 0) close(fd);
  }
}

std::expected<void, std::string> PendingFile::Open(unsigned slot) {
  if (fds_[slot] >= 0) return {};
  fds_[slot] = open(paths_[slot].c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fds_[slot] >= 0) return {};
  return std::unexpected(fmt::format("{}: {}", paths_[slot].string(), std::strerror(errno)));
}

std::expected<void, std::string> PendingFile::Write(std::span<const program::Program> programs) {
  const unsigned slot = batch_ % 2;
  if (auto opened = Open(slot); !opened) return opened;
  buffer_.assign(kMagic.begin(), kMagic.end());
  Put32(buffer_, batch_++);
  Put32(buffer_, static_cast<uint32_t>(programs.size()));
  for (const program::Program& program : programs) {
    const std::vector<uint8_t> bytes = program::Encode(program);
    Put32(buffer_, static_cast<uint32_t>(bytes.size()));
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  Put32(buffer_, wire::Crc32c(buffer_));
  // The file never shrinks: fdatasync of bytes written in place need not touch the file system's
  // metadata, which makes it several times cheaper. What follows the crc is of no meaning.
  sizes_[slot] = std::max(sizes_[slot], (buffer_.size() + 4095) & ~size_t{4095});
  buffer_.resize(sizes_[slot]);
  const ssize_t put = pwrite(fds_[slot], buffer_.data(), buffer_.size(), 0);
  const bool whole = put == static_cast<ssize_t>(buffer_.size());
  if (whole && (!sync_ || fdatasync(fds_[slot]) == 0)) return {};
  const std::string why = put >= 0 && !whole ? "no space left" : std::strerror(errno);
  return std::unexpected(
      fmt::format("{}: {}; nothing runs without being on disk first, so free "
                  "some space there or give another --findings folder",
                  paths_[slot].string(), why));
}

void PendingFile::Remove() {
  for (const auto& path : paths_) unlink(path.c_str());
}

std::expected<std::vector<program::Program>, std::string> ReadPending(
    const std::filesystem::path& path) {
  auto text = files::ReadFile(path, kMaxPendingSize);
  if (!text) return std::unexpected(text.error());
  const auto bad = [&] {
    return std::unexpected(
        fmt::format("{}: not whole (the machine went down while it was written)", path.string()));
  };
  std::span<const uint8_t> rest = files::AsBytes(*text);
  if (!files::AsText(rest).starts_with(kMagic)) return bad();
  rest = rest.subspan(kMagic.size());
  uint32_t batch = 0, count = 0, crc = 0;
  if (!Take32(rest, batch) || !Take32(rest, count)) return bad();
  std::vector<program::Program> programs;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t length = 0;
    if (!Take32(rest, length) || length > rest.size()) return bad();
    programs.push_back(program::Decode(rest.first(length)));
    rest = rest.subspan(length);
  }
  const size_t covered = text->size() - rest.size();
  if (!Take32(rest, crc) || crc != wire::Crc32c(files::AsBytes(*text).first(covered))) return bad();
  return programs;
}

std::expected<PendingBeside, std::string> PendingBeside::Open(const std::filesystem::path& given,
                                                              bool sync) {
  namespace fs = std::filesystem;
  const fs::path place = files::WithoutSlash(given);
  const fs::path folder = place.string() + ".running", rescue = place.string() + ".interrupted";
  std::error_code status;
  std::vector<fs::path> saved;
  unsigned number = 0;
  for (unsigned slot = 0; slot < 2; ++slot) {
    const fs::path file = folder / fmt::format("pending-0-{}.bin", slot);
    const auto programs =
        fs::exists(file, status) ? ReadPending(file) : std::vector<program::Program>{};
    if (!programs) return std::unexpected(programs.error() + "; look at it and remove it");
    for (const program::Program& program : *programs) {
      fs::create_directories(rescue, status);
      fs::path to;
      do to = rescue / fmt::format("{:04}.fps", number++);
      while (fs::exists(to, status));
      auto written = files::WriteFile(to, program::PrintText(program));
      if (!written) return std::unexpected(written.error());
      saved.push_back(to);
    }
  }
  fs::remove_all(folder, status);
  fs::create_directory(folder, status);
  if (status) return std::unexpected(fmt::format("{}: {}", folder.string(), status.message()));
  return PendingBeside(folder, sync, std::move(saved));
}

PendingBeside::~PendingBeside() {
  std::error_code ignored;
  if (file_) std::filesystem::remove_all(folder_, ignored);
}

}  // namespace fpswap::campaign
