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

// Real kvm_intel of Linux 6.12 on an emulated CPU with AMX and XFD (docs/lab-amx.md), each program
// beside its trace: KVM's rules for XFD, tiles, images over 4096 bytes, MSRs, INIT and migration.
TEST(RecordedTraces, ProgramsInLabAmxAgreeWithTheModel) {
  unsigned judged = 0;
  for (const auto& entry : fs::directory_iterator(FPSWAP_SOURCE_DIR "/corpus/traces/lab-amx")) {
    if (entry.path().extension() != ".fpt") continue;
    const auto trace = trace::ReadTrace(ReadAll(entry.path()));
    ASSERT_TRUE(trace) << entry.path() << ": " << trace.error();
    EXPECT_EQ(trace->platform.vendor_module, "kvm_intel") << entry.path();
    EXPECT_TRUE(trace->platform.host.xsave.xfd) << entry.path();
    const Verdict verdict = JudgeTrace(*trace);
    EXPECT_TRUE(verdict.ok()) << entry.path() << ": " << verdict.divergences[0].words;
    EXPECT_FALSE(verdict.unknown) << entry.path();
    EXPECT_GT(verdict.checks, 2u) << entry.path();
    ++judged;
  }
  EXPECT_GE(judged, 20u);
}

// FCS and FDS, which this CPU keeps while an exception is pending, are gone behind a migration.
TEST(RecordedTraces, AMigrationLosesTheSelectorsInKvmPvm) {
  const fs::path path =
      FPSWAP_SOURCE_DIR "/corpus/traces/amd-family-19h-kvm_pvm/migration-loses-selectors.fpt";
  const auto trace = trace::ReadTrace(ReadAll(path));
  ASSERT_TRUE(trace) << trace.error();
  const Verdict verdict = JudgeTrace(*trace);
  EXPECT_TRUE(verdict.ok()) << verdict.divergences[0].words;
  EXPECT_GT(verdict.checks, 2u);
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
