// SPDX-License-Identifier: GPL-2.0-or-later
//
// Traces recorded on real machines, judged by today's oracle (corpus/traces/README.md).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include "harness/judge/judge.h"

namespace fpswap::judge {
namespace {

namespace fs = std::filesystem;

std::vector<uint8_t> ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Judged {
  trace::Trace trace;
  Verdict verdict;
};

// Judges one, which must agree; nothing if it can't be read.
std::optional<Judged> JudgeFile(const fs::path& path) {
  auto trace = trace::ReadTrace(ReadAll(path));
  if (!trace) {
    ADD_FAILURE() << path << ": " << trace.error();
    return {};
  }
  Verdict verdict = JudgeTrace(*trace);
  EXPECT_TRUE(verdict.ok()) << path << ": " << verdict.divergences[0].words;
  return Judged{std::move(*trace), std::move(verdict)};
}

// Real kvm_intel of Linux 6.12 on an emulated CPU with AMX and XFD (docs/lab-amx.md), each program
// beside its trace: KVM's rules for XFD, tiles, images over 4096 bytes, MSRs, INIT and migration.
TEST(RecordedTraces, ProgramsInLabAmxAgreeWithTheModel) {
  unsigned judged = 0;
  for (const auto& entry : fs::directory_iterator(FPSWAP_SOURCE_DIR "/corpus/traces/lab-amx")) {
    if (entry.path().extension() != ".fpt") continue;
    const auto file = JudgeFile(entry.path());
    ASSERT_TRUE(file);
    EXPECT_EQ(file->trace.platform.vendor_module, "kvm_intel") << entry.path();
    EXPECT_TRUE(file->trace.platform.host.xsave.xfd) << entry.path();
    EXPECT_FALSE(file->verdict.unknown) << entry.path();
    EXPECT_GT(file->verdict.checks, 2u) << entry.path();
    ++judged;
  }
  EXPECT_GE(judged, 20u);
}

// The same machine, with a CPUID that brings tiles to a vCPU that has a state: of that PKRU alone
// is left, as the guest reads it, and every difference is of a cause that is known.
TEST(RecordedTraces, WhatIsLeftWhereTheFpstateGrows) {
  const auto trace = trace::ReadTrace(
      ReadAll(FPSWAP_SOURCE_DIR "/corpus/traces/labs-known/amx-cpuid-grows-for-tiles.fpt"));
  ASSERT_TRUE(trace);
  std::set<std::string> causes;
  for (const Divergence& d : JudgeTrace(*trace).divergences) causes.insert(d.cause);
  const std::set<std::string> known = {"grown-without-copy", "pkru-left-out", "fpu-of-old",
                                       "fpu-mxcsr-zero"};
  EXPECT_EQ(causes, known);
}

// Real kvm_amd of Linux 6.12 on an emulated CPU without XSAVES, where the kernel keeps fpstates in
// the standard format (docs/labs.md): MXCSR behind images that lack SSE, as the guest sees it.
TEST(RecordedTraces, ProgramsInLabAmdAgreeWithTheModel) {
  const auto file =
      JudgeFile(FPSWAP_SOURCE_DIR "/corpus/traces/lab-amd/mxcsr-of-images-without-sse.fpt");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->trace.platform.vendor_module, "kvm_amd");
  EXPECT_FALSE(file->trace.platform.compacted);
  EXPECT_FALSE(file->verdict.unknown);
  EXPECT_GT(file->verdict.checks, 20u);
  // The same would be wrong of a kernel that keeps the compacted format.
  trace::Trace compacted = file->trace;
  compacted.platform.compacted = true;
  EXPECT_FALSE(JudgeTrace(compacted).ok());
}

// FCS and FDS, which this CPU keeps while an exception is pending, are gone behind a migration.
TEST(RecordedTraces, AMigrationLosesTheSelectorsInKvmPvm) {
  const auto file = JudgeFile(
      FPSWAP_SOURCE_DIR "/corpus/traces/amd-family-19h-kvm_pvm/migration-loses-selectors.fpt");
  ASSERT_TRUE(file);
  EXPECT_GT(file->verdict.checks, 2u);
}

// Each of these was called a divergence once, because the model did not know what Sapphire Rapids
// does: #GP for MXCSR after other components have changed, PKRU's unused bytes left alone.
TEST(RecordedTraces, ProgramsOnSapphireRapidsAgreeWithTheModel) {
  unsigned judged = 0;
  for (const auto& entry :
       fs::directory_iterator(FPSWAP_SOURCE_DIR "/corpus/traces/sapphire-rapids-native")) {
    const auto file = JudgeFile(entry.path());
    ASSERT_TRUE(file);
    EXPECT_TRUE(file->trace.platform.host.amx_tile) << entry.path();
    EXPECT_GT(file->verdict.checks, 0u) << entry.path();
    ++judged;
  }
  EXPECT_GE(judged, 100u);
}

}  // namespace
}  // namespace fpswap::judge
