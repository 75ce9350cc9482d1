// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/targets/lab.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/targets/agent_target.h"
#include "tests/targets/batch.h"
#include "tests/targets/fake_agent.h"

namespace fpswap::targets {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using trace::EndReason;

// Labs of its own in a folder of its own.
class LabTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / fmt::format("fpswap-labs-{}", getpid());
    fs::create_directories(folder_);
    setenv("FPSWAP_CACHE", folder_.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("FPSWAP_CACHE");
    fs::remove_all(folder_);
  }

  static void Write(const std::string& name, const std::string& text) {
    fs::create_directories(LabsFolder() / name);
    std::ofstream(LabsFolder() / name / "lab.json") << text;
  }
  static void WriteConnect(const std::string& name, const std::vector<std::string>& words) {
    Write(name, nlohmann::json{{"about", "a test"}, {"connect", words}}.dump());
  }

  fs::path folder_;
};

TEST_F(LabTest, ALabIsAFolderThatSaysHowToConnect) {
  WriteConnect("b", {"ssh", "host", "kvm-runner"});
  Write("a", R"({"connect": ["./run"], "start_s": 5, "silence_s": 7})");
  Write("broken", "{");
  fs::create_directory_symlink("b", LabsFolder() / "c");
  EXPECT_TRUE(ReadLab(LabsFolder() / "c")) << "another name";
  const auto labs = Labs();
  ASSERT_EQ(labs.size(), 2u);
  EXPECT_EQ(labs[0].name(), "a");
  EXPECT_EQ(labs[0].start, std::chrono::seconds(5));
  EXPECT_EQ(labs[0].silence, std::chrono::seconds(7));
  EXPECT_EQ(labs[1].connect, (std::vector<std::string>{"ssh", "host", "kvm-runner"}));
  EXPECT_EQ(labs[1].about, "a test");
}

TEST_F(LabTest, WhatIsWrongWithALabIsSaid) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "JSON"},
      {"[]", "JSON"},
      {"{}", "connect"},
      {R"({"connect": []})", "connect"},
      {R"({"connect": [""]})", "connect"},
      {R"({"connect": "ssh"})", "connect"},
      {R"({"connect": [3]})", "connect"},
      {R"({"connect": ["x"], "about": 1})", "about"},
      {R"({"connect": ["x"], "start_s": -1})", "start_s"},
      {R"({"connect": ["x"], "silence_s": 1e9})", "silence_s"},
      {R"({"conect": ["x"]})", "connect"},
      {R"({"connect": ["x"], "debug": "KASAN"})", "debug"},
  };
  for (const auto& [text, word] : cases) {
    Write("x", text);
    const auto lab = ReadLab(LabsFolder() / "x");
    ASSERT_FALSE(lab) << text;
    EXPECT_THAT(lab.error(), AllOf(HasSubstr("lab.json"), HasSubstr(word))) << text;
  }
  Write("x", std::string(100'000, ' '));
  EXPECT_THAT(ReadLab(LabsFolder() / "x").error(), HasSubstr("64 KiB"));
  const auto none = OpenTarget("lab:none", {});
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().reason, HasSubstr("none"));
  EXPECT_THAT(none.error().remedy, HasSubstr("ci/lab"));
}

TEST_F(LabTest, AnAgentBehindACommandIsATarget) {
  // A shell between the two, as ssh would be. It finds the lab's own files where it starts.
  WriteConnect(
      "pipe", {"sh", "-c", "test -f lab.json && exec \"$0\" ", FPSWAP_BINARY_DIR "/native-runner"});
  const auto target = OpenTarget("lab:pipe", {});
  ASSERT_TRUE(target) << target.error().reason;
  EXPECT_EQ((*target)->platform().target, "native");
  program::Program program;
  program.steps.push_back({.op = program::Op::kFninit, .vcpu = 0, .arg = {}});
  for (const auto& records : RunAll(**target, std::vector(20, program))) {
    EXPECT_EQ(EndOf(records).reason, EndReason::kDone) << EndOf(records).text;
  }
}

TEST_F(LabTest, OptionsReachAnAgentThatOthersStarted) {
  WriteConnect("pipe", {FPSWAP_BINARY_DIR "/native-runner"});
  const auto bad = OpenTarget("lab:pipe", {.runner_dir = "", .plant = "no-such-bug"});
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().reason, HasSubstr("no-such-bug"));
  const auto plants = Plants({.runner_dir = FPSWAP_BINARY_DIR});
  ASSERT_TRUE(plants) << plants.error();
  const auto good = OpenTarget("lab:pipe", {.runner_dir = "", .plant = "tags-lost-on-page-fault"});
  EXPECT_TRUE(good) << good.error().reason;
}

TEST_F(LabTest, ItsOwnOptionsReachTheAgentToo) {
  const nlohmann::json agent = {FPSWAP_BINARY_DIR "/native-runner"};
  Write("told", nlohmann::json{{"connect", agent}, {"options", {"--no-such-option"}}}.dump());
  const auto bad = OpenTarget("lab:told", {.runner_dir = "", .plant = ""});
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().reason, HasSubstr("--no-such-option"));
  Write("told", nlohmann::json{{"connect", agent}, {"options", {"--hang-ms", "500"}}}.dump());
  const auto good = OpenTarget("lab:told", {.runner_dir = "", .plant = ""});
  EXPECT_TRUE(good) << good.error().reason;
}

AgentCommand Elsewhere(std::string_view mode = "") {
  AgentCommand command = FakeAgent(mode);
  command.lab = "lab:test";
  return command;
}

std::vector<program::Program> Among(Mischief what) {
  std::vector<program::Program> programs(6, MischiefProgram(Mischief::kNone));
  programs[2] = MischiefProgram(what);
  return programs;
}

TEST_F(LabTest, GarbageInTheStreamCostsNothing) {
  auto target = AgentTarget::Open(Elsewhere());
  ASSERT_TRUE(target) << target.error().reason;
  for (const auto& records : RunAll(**target, Among(Mischief::kGarbage))) {
    EXPECT_EQ(EndOf(records).reason, EndReason::kDone) << EndOf(records).text;
  }
  EXPECT_EQ((*target)->restarts(), 0u);
}

TEST_F(LabTest, AFrameCutInItsMiddleIsNoProgramsFault) {
  const fs::path runs = folder_ / "runs";
  std::ofstream(runs).close();
  auto programs = Among(Mischief::kHalfOnce);
  std::rotate(programs.begin(), programs.begin() + 2, programs.end());  // the first that runs
  auto target = AgentTarget::Open(Elsewhere(std::string(kCountsRuns) + runs.string()));
  ASSERT_TRUE(target) << target.error().reason;
  const auto records = RunAll(**target, programs);
  ASSERT_EQ(records.size(), programs.size());
  for (const auto& each : records) {
    EXPECT_EQ(EndOf(each).reason, EndReason::kDone) << EndOf(each).text;
  }
  EXPECT_EQ((*target)->restarts(), 1u);
  EXPECT_EQ(fs::file_size(runs), programs.size() + 1) << "one of them ran twice";
}

TEST_F(LabTest, AProgramAtWhichTheStreamAlwaysBreaksIsReported) {
  auto target = AgentTarget::Open(Elsewhere());
  ASSERT_TRUE(target) << target.error().reason;
  const auto records = RunAll(**target, Among(Mischief::kHalfFrame));
  ASSERT_EQ(records.size(), 6u);
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(EndOf(records[i]).reason, i == 2 ? EndReason::kAgentDied : EndReason::kDone) << i;
  }
}

TEST_F(LabTest, AMachineThatDiesLeavesItsLastWords) {
  auto target = AgentTarget::Open(Elsewhere());
  ASSERT_TRUE(target) << target.error().reason;
  const auto records = RunAll(**target, Among(Mischief::kPanic));
  ASSERT_EQ(records.size(), 6u);
  EXPECT_EQ(EndOf(records[2]).reason, EndReason::kAgentDied);
  EXPECT_EQ(EndOf(records[2]).text,
            "the agent ended with status 8\nKernel panic - not syncing: Fatal exception\n");
  EXPECT_EQ(EndOf(records[3]).reason, EndReason::kDone);
}

// What a machine was about to say when it died is no damage of the stream, after which the program
// would run again and might not kill it a second time.
TEST_F(LabTest, APanicInTheMiddleOfAFrameIsNotLost) {
  const fs::path runs = folder_ / "runs";
  std::ofstream(runs).close();
  auto target = AgentTarget::Open(Elsewhere(std::string(kCountsRuns) + runs.string()));
  ASSERT_TRUE(target) << target.error().reason;
  const auto programs = Among(Mischief::kPanicHalf);
  const auto records = RunAll(**target, programs);
  ASSERT_EQ(records.size(), programs.size());
  EXPECT_EQ(EndOf(records[2]).reason, EndReason::kAgentDied);
  EXPECT_THAT(EndOf(records[2]).text, HasSubstr("Kernel panic"));
  EXPECT_EQ(EndOf(records[3]).reason, EndReason::kDone);
  EXPECT_EQ(fs::file_size(runs), programs.size()) << "each ran once";
}

}  // namespace
}  // namespace fpswap::targets
