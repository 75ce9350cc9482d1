// SPDX-License-Identifier: GPL-2.0-or-later
//
// Traces recorded on real machines, judged by today's oracle (corpus/traces/README.md).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "harness/judge/judge.h"

namespace fpswap::judge {
namespace {

namespace fs = std::filesystem;

std::vector<uint8_t> ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Each of these was called a divergence once, because the model did not know what Sapphire Rapids
// does: #GP for MXCSR after other components have changed, PKRU's unused bytes left alone.
TEST(RecordedTraces, ProgramsOnSapphireRapidsAgreeWithTheModel) {
  unsigned judged = 0;
  for (const auto& entry :
       fs::directory_iterator(FPSWAP_SOURCE_DIR "/corpus/traces/sapphire-rapids-native")) {
    const auto trace = trace::ReadTrace(ReadAll(entry.path()));
    ASSERT_TRUE(trace) << entry.path() << ": " << trace.error();
    EXPECT_TRUE(trace->platform.host.amx_tile) << entry.path();
    const Verdict verdict = JudgeTrace(*trace);
    EXPECT_TRUE(verdict.ok()) << entry.path() << ": " << verdict.divergences[0].words;
    EXPECT_GT(verdict.checks, 0u) << entry.path();
    ++judged;
  }
  EXPECT_GE(judged, 100u);
}

}  // namespace
}  // namespace fpswap::judge
