// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/targets/agent_target.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/targets/batch.h"
#include "tests/targets/fake_agent.h"

namespace fpswap::targets {
namespace {

using testing::HasSubstr;
using trace::EndReason;

std::unique_ptr<AgentTarget> OpenFake() {
  auto target = AgentTarget::Open(FakeAgent());
  EXPECT_TRUE(target) << target.error().reason;
  return target ? std::move(*target) : nullptr;
}

// Programs that end well with one of `what` in their midst, at `place`.
std::vector<program::Program> Among(Mischief what, size_t place, size_t count) {
  std::vector<program::Program> programs(count, MischiefProgram(Mischief::kNone));
  programs[place] = MischiefProgram(what);
  return programs;
}

class MischiefTest : public testing::TestWithParam<Mischief> {};

TEST_P(MischiefTest, CostsThatProgramAndNoOther) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  constexpr size_t kPlace = 5, kCount = 12;
  const auto records = RunAll(*target, Among(GetParam(), kPlace, kCount));
  ASSERT_EQ(records.size(), kCount);
  for (size_t i = 0; i < kCount; ++i) {
    const auto expected = i == kPlace ? EndReason::kAgentDied : EndReason::kDone;
    EXPECT_EQ(EndOf(records[i]).reason, expected)
        << "program " << i << ": " << EndOf(records[i]).text;
  }
  EXPECT_FALSE(EndOf(records[kPlace]).text.empty()) << "it says why";
  // What breaks the stream may have overtaken what the agent has said and not sent (unsent.h). Then
  // a second start, with nothing kept back, tells which program it was.
  const bool dies = GetParam() == Mischief::kExit || GetParam() == Mischief::kKill ||
                    GetParam() == Mischief::kSilence;
  EXPECT_EQ(target->restarts(), dies ? 1u : 2u);
}

INSTANTIATE_TEST_SUITE_P(Each, MischiefTest,
                         testing::Values(Mischief::kExit, Mischief::kKill, Mischief::kGarbage,
                                         Mischief::kHalfFrame, Mischief::kHugeFrame,
                                         Mischief::kSilence, Mischief::kBadRecords,
                                         Mischief::kNoEnd, Mischief::kWrongNumber,
                                         Mischief::kDoneTooEarly, Mischief::kHalfEdge,
                                         Mischief::kManyEdges, Mischief::kOthersEdges));

TEST(AgentTargetTest, TellsWhichEdgesOfTheKernelAProgramReachedAndOfNoOther) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  RunAll(*target, Among(Mischief::kEdges, 1, 3), [&](size_t i) {
    const auto edges = target->kernel_edges();
    const auto expected = i == 1 ? std::span(kFakeEdges) : std::span<const uint16_t>{};
    EXPECT_TRUE(std::ranges::equal(edges, expected)) << "program " << i << ": " << edges.size();
  });
}

TEST(AgentTargetTest, RecordsSentTwiceBlameTheNextProgramAtMost) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  const auto records = RunAll(*target, Among(Mischief::kTwice, 2, 6));
  ASSERT_EQ(records.size(), 6u);
  for (size_t i = 0; i < records.size(); ++i) {
    if (i == 2 || i == 3) continue;
    EXPECT_EQ(EndOf(records[i]).reason, EndReason::kDone) << i;
  }
}

TEST(AgentTargetTest, WhatAKilledAgentSaidAndDidNotSendIsNotLost) {
  const std::filesystem::path runs =
      std::filesystem::path(testing::TempDir()) / fmt::format("fpswap-runs-{}", getpid());
  std::ofstream(runs).close();
  auto target = AgentTarget::Open(FakeAgent(std::string(kCountsRuns) + runs.string()));
  ASSERT_TRUE(target) << target.error().reason;
  const auto records = RunAll(**target, Among(Mischief::kKill, 5, 12));
  ASSERT_EQ(records.size(), 12u);
  EXPECT_EQ(EndOf(records[4]).reason, EndReason::kDone);
  EXPECT_EQ(EndOf(records[5]).reason, EndReason::kAgentDied);
  // Records that were lost would have been fetched by running the programs again.
  EXPECT_EQ(std::filesystem::file_size(runs), 12u);
  std::filesystem::remove(runs);
}

TEST(AgentTargetTest, AnAgentThatDiesAtEveryProgramIsStartedEachTime) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  const std::vector<program::Program> programs(5, MischiefProgram(Mischief::kKill));
  for (const auto& records : RunAll(*target, programs)) {
    EXPECT_EQ(EndOf(records).reason, EndReason::kAgentDied);
    EXPECT_THAT(EndOf(records).text, HasSubstr("signal 9"));
  }
}

TEST(AgentTargetTest, BatchesLargerThanEverySocketBufferGoThrough) {
  // Both sides have megabytes to say at once.
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  auto program = MischiefProgram(Mischief::kBigRecords);
  program.steps.resize(program::kMaxSteps,
                       {.op = program::Op::kMemFill, .vcpu = 0, .arg = {0, 0, 4096, 7}});
  const std::vector<program::Program> programs(40, program);
  for (const auto& records : RunAll(*target, programs)) {
    EXPECT_EQ(EndOf(records).reason, EndReason::kDone);
    EXPECT_GT(records.size(), size_t{1} << 20);
  }
  EXPECT_EQ(target->restarts(), 0u);
}

TEST(AgentTargetTest, AHangCountsIfItComesAgainWithMoreTime) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  const auto records =
      RunAll(*target, {MischiefProgram(Mischief::kHang), MischiefProgram(Mischief::kHangOnce),
                       MischiefProgram(Mischief::kHangOnce), MischiefProgram(Mischief::kNone)});
  ASSERT_EQ(records.size(), 4u);
  const EndReason reasons[] = {EndReason::kHang, EndReason::kDone, EndReason::kDone,
                               EndReason::kDone};
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(EndOf(records[i]).reason, reasons[i]) << i;
    EXPECT_EQ(EndOf(records[i]).hangs, i < 3 ? 1u : 0u) << "the first hang leaves its trace: " << i;
  }
  EXPECT_EQ(target->restarts(), 0u);
}

TEST(AgentTargetTest, APlanThatIsRefusedCostsNeitherTheAgentNorTheRestOfTheBatch) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  std::vector<plan::Plan> plans(
      5, plan::MakePlan(MischiefProgram(Mischief::kNone), target->platform()));
  plans[1].effective.steps[0].vcpu = program::kMaxVcpus;
  plans[3].effective.steps[0].vcpu = program::kMaxVcpus;
  std::vector<const plan::Plan*> pointers;
  for (const auto& plan : plans) pointers.push_back(&plan);
  std::vector<End> ends;
  const auto ran = target->Run(pointers, [&](size_t, std::span<const uint8_t> records) {
    ends.push_back(EndOf({records.begin(), records.end()}));
  });
  ASSERT_TRUE(ran) << ran.error();
  ASSERT_EQ(ends.size(), plans.size());
  for (size_t i = 0; i < ends.size(); ++i) {
    const bool refused = i == 1 || i == 3;
    EXPECT_EQ(ends[i].reason, refused ? EndReason::kSetupFailed : EndReason::kDone)
        << i << ": " << ends[i].text;
    if (refused) {
      EXPECT_THAT(ends[i].text, HasSubstr("vCPU"));
    }
  }
  EXPECT_EQ(target->restarts(), 0u);
}

// What another process traces can't be reaped, even dead, before that one has seen it: to us it is
// as if it hung in the kernel.
TEST(AgentTargetTest, AnAgentThatDoesNotEndWhenKilledIsAbandonedAndTheRestGoesOn) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  const pid_t agent = target->agent_pid();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t tracer = fork();
  ASSERT_GE(tracer, 0);
  if (tracer == 0) {
    const char traces = ptrace(PTRACE_SEIZE, agent, nullptr, nullptr) == 0 ? 'y' : 'n';
    // Longer than anybody waits for the agent; without end, a test that fails would hang.
    if (write(ready[1], &traces, 1) == 1 && traces == 'y') sleep(60);
    _exit(0);
  }
  char traces = 0;
  ASSERT_EQ(read(ready[0], &traces, 1), 1);
  close(ready[0]);
  close(ready[1]);
  if (traces == 'y') {
    const auto records = RunAll(*target, Among(Mischief::kKill, 1, 4));
    ASSERT_EQ(records.size(), 4u);
    EXPECT_EQ(EndOf(records[1]).reason, EndReason::kAgentDied);
    EXPECT_THAT(EndOf(records[1]).text, HasSubstr("stuck in the kernel, and was abandoned"));
    for (const size_t i : {0, 2, 3}) EXPECT_EQ(EndOf(records[i]).reason, EndReason::kDone) << i;
  }
  kill(tracer, SIGKILL);
  waitpid(tracer, nullptr, 0);
  waitpid(agent, nullptr, traces == 'y' ? 0 : WNOHANG);
  if (traces != 'y') GTEST_SKIP() << "processes can't be traced here";
}

TEST(AgentTargetTest, AnEmptyBatchIsDoneAtOnce) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  EXPECT_TRUE(RunAll(*target, {}).empty());
}

TEST(AgentTargetTest, AnAgentKilledBetweenBatchesIsStartedAgain) {
  auto target = OpenFake();
  ASSERT_NE(target, nullptr);
  kill(target->agent_pid(), SIGKILL);
  const auto records = RunAll(*target, std::vector(3, MischiefProgram(Mischief::kNone)));
  for (const auto& each : records) EXPECT_EQ(EndOf(each).reason, EndReason::kDone);
}

TEST(AgentTargetTest, WhatCannotBeOpenedSaysWhyAndWhatToDo) {
  const auto refused = AgentTarget::Open(FakeAgent("refuses"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "nothing to run on");
  EXPECT_EQ(refused.error().remedy, "buy a computer");

  const auto absent = AgentTarget::Open({.path = "/nonexistent/agent", .arguments = {}});
  ASSERT_FALSE(absent);
  EXPECT_THAT(absent.error().reason, HasSubstr("/nonexistent/agent"));
  EXPECT_THAT(absent.error().remedy, HasSubstr("build"));

  const auto dead = AgentTarget::Open(FakeAgent("dies"));
  ASSERT_FALSE(dead);
  EXPECT_THAT(dead.error().reason, HasSubstr("status 5"));

  const auto mad = AgentTarget::Open(FakeAgent("bad-platform"));
  ASSERT_FALSE(mad);
  EXPECT_THAT(mad.error().reason, HasSubstr("target"));
}

TEST(OpenTargetTest, UnknownNamesAreRefused) {
  const auto target = OpenTarget("vax", {});
  ASSERT_FALSE(target);
  EXPECT_THAT(target.error().reason, HasSubstr("vax"));
}

}  // namespace
}  // namespace fpswap::targets
