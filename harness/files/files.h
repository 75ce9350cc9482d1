// SPDX-License-Identifier: GPL-2.0-or-later
//
// Files as the harness reads and writes them: bounded reads, writes that are either whole or not
// there, and the lists of programs and traces that a user names. Errors are sentences.
//
// Thread safety: no shared state.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/program/program.h"

namespace fpswap::files {

std::span<const uint8_t> AsBytes(std::string_view text);
std::string_view AsText(std::span<const uint8_t> bytes);

// "corpus/" and "./corpus" are "corpus".
std::filesystem::path WithoutSlash(const std::filesystem::path& path);

// The whole of `path`, refused if it is larger than `limit` bytes or not a regular file.
std::expected<std::string, std::string> ReadFile(const std::filesystem::path& path, size_t limit);

// Writes `bytes` to a temporary file beside `path`, syncs it and renames it there. kLater: the
// caller syncs the file system once many files are written.
enum class Sync { kNow, kLater };
std::expected<void, std::string> WriteFile(const std::filesystem::path& path,
                                           std::span<const uint8_t> bytes, Sync sync = Sync::kNow);
std::expected<void, std::string> WriteFile(const std::filesystem::path& path,
                                           std::string_view text);

struct Listed {
  std::vector<std::filesystem::path> programs;  // .fps
  std::vector<std::filesystem::path> traces;    // .fpt
  // Byte-form programs of a corpus, named by a hash, or of a queue of AFL++: "id:000000,...".
  std::vector<std::filesystem::path> encoded;
};

// Lists what the files and folders in `paths` hold, folders searched throughout, in the order of
// their names. A path that is not there is an error; hidden folders and other files are passed
// over.
std::expected<Listed, std::string> List(std::span<const std::filesystem::path> paths);

// Reads a .fps file; the error begins with FILE:LINE:COLUMN.
std::expected<program::Program, std::string> ReadProgram(const std::filesystem::path& path);

// Reads a byte-form program as a corpus holds it.
std::expected<program::Program, std::string> ReadEncoded(const std::filesystem::path& path);

}  // namespace fpswap::files
