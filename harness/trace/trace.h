// SPDX-License-Identifier: GPL-2.0-or-later
//
// A trace: what was observed when a program ran, with all that is needed to judge it elsewhere and
// later. The file form (".fpt") holds the platform as JSON, the effective program as text, the
// trims and the records; it is read totally (bounded, every error a sentence).
#pragma once

#include <expected>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/trace/platform.h"
#include "harness/trace/record.h"

namespace fpswap::trace {

struct Trace {
  Platform platform;
  program::Program program;  // effective
  std::vector<plan::Trim> trims;
  std::vector<uint8_t> records;
};

inline constexpr size_t kMaxTraceSize = 16u << 20;

std::vector<uint8_t> WriteTrace(const Trace& trace);
std::expected<Trace, std::string> ReadTrace(std::span<const uint8_t> bytes);

// The platform as JSON text, and back. Used in traces, by agents' hello, and by `fpswap doctor`.
std::string PlatformToJson(const Platform& platform);
std::expected<Platform, std::string> PlatformFromJson(std::string_view json);

}  // namespace fpswap::trace
