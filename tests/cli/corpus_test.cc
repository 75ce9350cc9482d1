// SPDX-License-Identifier: GPL-2.0-or-later
//
// `fpswap corpus` as a user sees it, and the corpora of this repository: all that is in
// corpus/seeds and corpus/regressions parses, is judged clean on each target there is, and on a
// machine that has everything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "harness/campaign/platforms.h"
#include "harness/cli/cli.h"
#include "harness/files/files.h"
#include "harness/judge/simulator.h"
#include "harness/program/text.h"
#include "tests/campaign/fakes.h"
#include "tests/cli/command.h"

namespace fpswap::cli {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::TemporaryFolder;
using nlohmann::json;
using ::testing::HasSubstr;

const fs::path kSeeds = fs::path(FPSWAP_SOURCE_DIR) / "corpus" / "seeds";
const fs::path kRegressions = fs::path(FPSWAP_SOURCE_DIR) / "corpus" / "regressions";

json Json(const std::vector<std::string>& arguments) {
  const Result result = Command(arguments);
  EXPECT_EQ(result.exit, kAgrees) << result.err;
  return json::parse(result.out, nullptr, false);
}

class CorpusCli : public ::testing::Test {
 protected:
  std::string At(const char* name) const { return (folder_.path() / name).string(); }
  const TemporaryFolder folder_;
};

TEST_F(CorpusCli, TextBecomesBytesAndTextAgain) {
  const json in = Json({"corpus", "import", At("c"), kSeeds.string(), "--json"});
  EXPECT_GE(in["added"], 50);
  EXPECT_EQ(in["added"], in["read"]);
  EXPECT_EQ(Json({"corpus", "export", At("c"), "-o", At("t"), "--json"})["programs"], in["added"]);
  EXPECT_EQ(
      Json({"corpus", "export", At("c"), "-o", At("b"), "--format", "bytes", "--json"})["programs"],
      in["added"]);
  // Both forms are the same programs: nothing is new.
  const json again = Json({"corpus", "import", At("c"), At("t"), At("b"), "--json"});
  EXPECT_EQ(again["added"], 0);
  EXPECT_EQ(again["read"], 2 * in["read"].get<int>());
}

TEST_F(CorpusCli, MinimizeStatsAndMergeAgreeOnWhatIsNeeded) {
  Json({"corpus", "import", At("c"), kSeeds.string(), "--json"});
  const json before = Json({"corpus", "stats", At("c"), "--json"});
  const json smaller = Json({"corpus", "minimize", At("c"), "--json"});
  const json after = Json({"corpus", "stats", At("c"), "--json"});
  EXPECT_EQ(before["states"], after["states"]);
  EXPECT_EQ(before["needed"], after["programs"]);
  EXPECT_EQ(after["programs"], smaller["programs"]);
  EXPECT_EQ(after["not_in_manifest"], 0);
  EXPECT_EQ(Json({"corpus", "merge", At("c"), kSeeds.string(), "--json"})["added"], 0);
  EXPECT_THAT(Command({"corpus", "stats", At("c")}).out, HasSubstr("interesting on simulated"));
}

TEST_F(CorpusCli, WhatReachesMoreOfTheKernelIsKeptWhereItRunsAndByTheManifest) {
  if (Command({"run", (kSeeds / "x87.fps").string(), "--target", "native"}).exit == kUnavailable) {
    GTEST_SKIP() << "the native target is not available here";
  }
  // The longer one reaches no state that the shorter does not.
  fs::create_directories(At("p"));
  const std::string line = "fxsave slot=0 wide=0\n", two = "fpswap 1\n" + line + line;
  ASSERT_TRUE(files::WriteFile(At("p/two.fps"), two));
  ASSERT_TRUE(files::WriteFile(At("p/six.fps"), two + line + line + line + line));
  fs::create_directories(At("cache/labs/counts"));
  const json lab = {{"about", "a kernel that counts"},
                    {"connect",
                     {"python3", FPSWAP_SOURCE_DIR "/tests/cli/counting_agent.py",
                      FPSWAP_BINARY_DIR "/native-runner"}}};
  ASSERT_TRUE(files::WriteFile(At("cache/labs/counts/lab.json"), lab.dump()));
  setenv("FPSWAP_CACHE", At("cache").c_str(), 1);
  for (const char* corpus : {"c", "d", "e"}) {
    Json({"corpus", "import", At(corpus), At("p"), "--json"});
  }
  const auto kernel_edges = [](const json& said) {
    EXPECT_LE(said["kernel_edges"].size(), 1u) << said;
    for (const auto& [label, by] : said["kernel_edges"].items()) {
      EXPECT_THAT(label, HasSubstr("lab:counts: "));
      return by;
    }
    return json();
  };
  json said = Json({"corpus", "minimize", At("d"), "--target", "lab:counts", "--json"});
  EXPECT_EQ(said["programs"], 1) << said;
  EXPECT_EQ(kernel_edges(said), json());
  said = Json({"corpus", "minimize", At("c"), "--run", "--target", "lab:counts", "--json"});
  EXPECT_EQ(said["programs"], 2) << said;
  // Edge 1, and one of each program's own.
  const json both = {{"programs", 2}, {"edges", 3}, {"alone", 1}};
  EXPECT_EQ(kernel_edges(said), both) << said;
  // Then on a machine without a kernel.
  said = Json({"corpus", "minimize", At("c"), "--json"});
  EXPECT_EQ(said["removed"], 0) << said;
  EXPECT_EQ(kernel_edges(said), both) << said;
  said = Json({"corpus", "stats", At("c"), "--json"});
  EXPECT_EQ(kernel_edges(said), both) << said;
  EXPECT_EQ(said["needed"], 1) << said;
  EXPECT_THAT(
      Command({"corpus", "stats", At("c")}).out,
      ::testing::ContainsRegex("3 edges of the kernel on \"lab:counts: .*\" \\(2 programs, 1 of "
                               "them for these alone\\)"));
  // A merge takes it, by what its manifest says or by running it.
  EXPECT_EQ(Json({"corpus", "merge", At("d"), At("c"), "--json"})["added"], 1);
  Json({"corpus", "minimize", At("e"), "--json"});
  EXPECT_EQ(Json({"corpus", "merge", At("e"), At("p"), "--json"})["added"], 0);
  said = Json({"corpus", "merge", At("e"), At("p"), "--run", "--target", "lab:counts", "--json"});
  EXPECT_EQ(said["added"], 1) << said;
  EXPECT_EQ(kernel_edges(said), both) << said;
  Json({"corpus", "export", At("e"), "-o", At("text"), "--json"});
  unsetenv("FPSWAP_CACHE");
  std::string texts;
  for (const auto& file : fs::directory_iterator(At("text"))) {
    texts += files::ReadFile(file.path(), 1u << 16).value_or("");
  }
  EXPECT_THAT(texts, HasSubstr("# 1 edges of the kernel first reached on lab:counts: "));
}

TEST_F(CorpusCli, AManifestThatIsWrongIsNamedAndNothingIsTouched) {
  Json({"corpus", "import", At("c"), kSeeds.string(), "--json"});
  const std::string manifest =
      R"({"format": 1, "entries": {"a": {"platforms": {}, "signatures": [], "kernel_edges": [1]}}})";
  ASSERT_TRUE(files::WriteFile(At("c/manifest.json"), manifest));
  for (const char* verb : {"minimize", "stats"}) {
    const Result result = Command({"corpus", verb, At("c"), "--json"});
    EXPECT_EQ(result.exit, kBadInput);
    EXPECT_THAT(result.err, HasSubstr("manifest.json: entry \"a\": \"kernel_edges\" is to be"));
    EXPECT_EQ(json::parse(result.out, nullptr, false)["exit"], 2) << result.out;
  }
  EXPECT_EQ(files::ReadFile(At("c/manifest.json"), 1u << 16), manifest);
}

TEST_F(CorpusCli, BadInputIsExitCode2AndSaysWhat) {
  Result result = Command({"corpus", "stats", At("none")});
  EXPECT_EQ(result.exit, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("none: No such file"));
  EXPECT_EQ(Command({"corpus"}).exit, kBadInput);
  result = Command({"corpus", "merge", At("c"), kSeeds.string(), "--run"});
  EXPECT_EQ(result.exit, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("--run needs --target"));
  // A program that does not parse is named, and the others are taken.
  fs::create_directories(At("f"));
  ASSERT_TRUE(files::WriteFile(At("f/a.fps"), "fpswap 1\nx87.fninit\n"));
  ASSERT_TRUE(files::WriteFile(At("f/b.fps"), "fpswap 1\nslto\n"));
  result = Command({"corpus", "import", At("c"), At("f")});
  EXPECT_EQ(result.exit, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("b.fps:2:1"));
  EXPECT_THAT(result.out, HasSubstr("1 of 1 programs added"));
}

class OwnCorpora : public ::testing::TestWithParam<fs::path> {
 protected:
  std::vector<fs::path> Programs() const {
    const fs::path folders[] = {GetParam()};
    return files::List(folders).value_or(files::Listed{}).programs;
  }
  void ExpectNothingNewOn(const std::string& target) const {
    const Result result = Command({"run", GetParam().string(), "--target", target, "--json"});
    if (result.exit == kUnavailable) GTEST_SKIP() << result.err;
    EXPECT_EQ(result.exit, kAgrees) << result.err << result.out;
  }
};

TEST_P(OwnCorpora, EachProgramParsesAndSaysWhatItIsFor) {
  EXPECT_FALSE(Programs().empty());
  for (const fs::path& path : Programs()) {
    const auto program = files::ReadProgram(path);
    ASSERT_TRUE(program) << program.error();
    EXPECT_FALSE(program->steps.empty()) << path;
    const std::string text = files::ReadFile(path, program::kMaxTextSize).value_or("");
    EXPECT_THAT(text, HasSubstr("fpswap 1\n# ")) << path << " has no comment on top";
  }
}

TEST_P(OwnCorpora, AreJudgedCleanOnASimulatedMachineThatHasEverything) {
  const trace::Platform platform = campaign::EverythingPlatform();
  judge::Simulator simulator(platform);
  judge::Judge judge(platform);
  program::Rng rng(1);
  unsigned judged = 0;
  for (const fs::path& path : Programs()) {
    program::Program program = files::ReadProgram(path).value_or(program::Program{});
    // The simulator knows no raw code.
    std::erase_if(program.steps, [](const auto& step) { return step.op == program::Op::kRaw; });
    const plan::Plan plan = plan::MakePlan(program, platform);
    for (int times = 0; times < 5; ++times) {
      const judge::Verdict verdict = judge.Check(plan, simulator.Run(plan, rng));
      EXPECT_TRUE(verdict.ok()) << path << ": " << verdict.divergences[0].words;
      judged += verdict.checks > 0;
    }
  }
  EXPECT_GT(judged, 0u);
}

TEST_P(OwnCorpora, ShowNothingNewOnKvm) { ExpectNothingNewOn("kvm"); }
TEST_P(OwnCorpora, ShowNothingNewOnNative) { ExpectNothingNewOn("native"); }

INSTANTIATE_TEST_SUITE_P(, OwnCorpora, ::testing::Values(kSeeds, kRegressions),
                         [](const auto& tested) { return tested.param.filename().string(); });

}  // namespace
}  // namespace fpswap::cli
