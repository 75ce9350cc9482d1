// SPDX-License-Identifier: GPL-2.0-or-later
//
// Programs that are about to run, on disk before they run: what took a machine down is found in
// this file after the reboot. Two slots alternate, for a batch may be written while the one before
// it still runs.
//
//   file: "FPSWPEND", u32 number of the batch, u32 count, then count times u32 length and the
//         program's byte form; u32 crc32c of all before it
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "harness/program/program.h"

namespace fpswap::campaign {

class PendingFile {
 public:
  // Files are FOLDER/pending-JOB-0.bin and -1.bin. `sync`: wait until the disk has them; needed
  // where a program can take the machine down, not only the process.
  PendingFile(const std::filesystem::path& folder, unsigned job, bool sync);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  // An error says that the programs must not run: they would not be on disk.
  std::expected<void, std::string> Write(std::span<const program::Program> programs);
  // Nothing is about to run any more: removes the files.
  void Remove();

 private:
  std::expected<void, std::string> Open(unsigned slot);

  std::filesystem::path paths_[2];
  int fds_[2] = {-1, -1};
  size_t sizes_[2] = {0, 0};
  bool sync_;
  uint32_t batch_ = 0;
  std::vector<uint8_t> buffer_;
};

// The same for a command that writes PLACE: its pending files are in the folder PLACE.running,
// which goes when the command ends. Programs that are found there, since a command or the machine
// went down, are first saved as PLACE.interrupted/NNNN.fps.
class PendingBeside {
 public:
  // The error says that nothing may run.
  static std::expected<PendingBeside, std::string> Open(const std::filesystem::path& place,
                                                        bool sync);
  PendingBeside(PendingBeside&&) noexcept = default;
  PendingBeside& operator=(PendingBeside&&) = delete;
  ~PendingBeside();

  std::expected<void, std::string> Write(std::span<const program::Program> programs) {
    return file_->Write(programs);
  }
  // Those that were saved by Open.
  const std::vector<std::filesystem::path>& saved() const { return saved_; }

 private:
  PendingBeside(std::filesystem::path folder, bool sync, std::vector<std::filesystem::path> saved)
      : folder_(std::move(folder)),
        saved_(std::move(saved)),
        file_(std::make_unique<PendingFile>(folder_, 0, sync)) {}

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> saved_;
  std::unique_ptr<PendingFile> file_;
};

// The programs of one pending file, in order.
std::expected<std::vector<program::Program>, std::string> ReadPending(
    const std::filesystem::path& path);

}  // namespace fpswap::campaign
