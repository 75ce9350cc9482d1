// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the tests of exported files share: programs from text or from tests/report/programs
// and programs-native, and their exports.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/campaign/platforms.h"
#include "harness/files/files.h"
#include "harness/program/text.h"
#include "harness/report/export/export.h"

namespace fpswap::report {

inline program::Program ProgramOf(const std::string& steps) {
  auto program = program::ParseText("fpswap 1\n" + steps);
  EXPECT_TRUE(program.has_value()) << (program ? "" : program.error().ToString("test"));
  return program.value_or(program::Program{});
}

inline ExportRequest RequestOf(const std::string& steps,
                               ExportFormat format = ExportFormat::kSelftest) {
  ExportRequest request;
  request.program = ProgramOf(steps);
  request.platform = campaign::EverythingPlatform();
  request.title = "Test of the exporter";
  request.format = format;
  return request;
}

// The text, or the error.
inline std::string Exported(const ExportRequest& request) {
  const auto text = ExportC(request);
  return text ? *text : "error: " + text.error();
}

inline size_t Count(const std::string& text, const std::string& word) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size()) ++count;
  return count;
}

inline std::vector<std::filesystem::path> FilesOf(const char* folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& each : std::filesystem::directory_iterator(folder)) paths.push_back(each.path());
  std::ranges::sort(paths);
  return paths;
}

// The programs that are varied on purpose: each component, each kind of step.
inline std::vector<std::filesystem::path> Programs() {
  return FilesOf(FPSWAP_SOURCE_DIR "/tests/report/programs");
}
// The same about a thread (os.*).
inline std::vector<std::filesystem::path> ThreadPrograms() {
  return FilesOf(FPSWAP_SOURCE_DIR "/tests/report/programs-native");
}

}  // namespace fpswap::report
