// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/campaign/feedback.h"
#include "harness/campaign/reach_table.h"
#include "harness/report/reach_text.h"
#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

judge::ReachEvent Event() {
  return {.op = static_cast<uint8_t>(program::Op::kXsave),
          .component = 2,
          .state = 1,
          .exit = static_cast<uint8_t>(program::Op::kExitOut),
          .outcome = 0,
          .xcr0 = 7};
}

ReachTable Filled() {
  ReachTable table;
  table.Reach(Event());
  table.Reach(Event());
  judge::ReachEvent fault = Event();
  fault.outcome = 1 + cpu::kGP;
  table.Reach(fault);
  program::Program given = fpswap::testing::ProgramOf({program::Op::kXsaves});
  plan::Plan plan;
  plan.trims = {{.step = 0, .reason = "no CPL 0 here"}};
  table.Count(given, plan);
  judge::Verdict verdict;
  verdict.laws = 1 << 1 | 1 << 4;
  verdict.checks = 12;
  verdict.unknown = true;
  table.Count(verdict);
  return table;
}

TEST(ReachTable, CountsEventsTrimsAndLaws) {
  const ReachTable table = Filled();
  EXPECT_EQ(table.Rows().size(), 2u);
  EXPECT_EQ(table.Rows().begin()->second, 2u);
  EXPECT_EQ(table.trimmed(), 1u);
  EXPECT_EQ(table.laws()[1], 1u);
  EXPECT_EQ(table.laws()[2], 0u);
  EXPECT_EQ(table.laws()[4], 1u);
  EXPECT_EQ(table.checks(), 12u);
  EXPECT_EQ(table.unknown(), 1u);
}

TEST(ReachTable, ComesBackFromJsonAsItWas) {
  const ReachTable table = Filled();
  const auto back = ReachTable::FromJson(table.ToJson());
  ASSERT_TRUE(back) << back.error();
  EXPECT_EQ(back->ToJson(), table.ToJson());
}

TEST(ReachTable, TellsProgramsOfSeveralVcpusApart) {
  ReachTable table = Filled();
  judge::ReachEvent event = Event();
  event.vcpus = 3;
  table.Reach(event);
  EXPECT_EQ(table.Rows().size(), 3u);
  const auto back = ReachTable::FromJson(table.ToJson());
  ASSERT_TRUE(back) << back.error();
  EXPECT_EQ(back->Rows(), table.Rows());
  EXPECT_THAT(report::ReachText(table, nullptr), HasSubstr("Step x number of vCPUs"));
}

TEST(ReachTable, MergingAddsEveryCount) {
  ReachTable sum = Filled();
  sum.Merge(Filled());
  EXPECT_EQ(sum.Rows().begin()->second, 4u);
  EXPECT_EQ(sum.programs(), 2u);
  EXPECT_EQ(sum.trims().begin()->second, 2u);
  EXPECT_EQ(sum.laws()[4], 2u);
}

TEST(ReachTable, RefusesWhatIsNoTable) {
  for (const char* text : {"", "{", "[]", "{}", "{\"rows\":1}", "{\"rows\":[1]}",
                           "{\"rows\":[{\"op\":-1}]}", "{\"rows\":[[]]}", "{\"rows\":{\"a\":{}}}",
                           "[{\"rows\":[]}]", "{\"rows\":[],\"trims\":[{}]}"}) {
    EXPECT_FALSE(ReachTable::FromJson(text)) << text;
  }
}

TEST(ReachTable, KeepsABoundedNumberOfReasons) {
  ReachTable table;
  const program::Program given = fpswap::testing::ProgramOf({program::Op::kXsaves});
  for (size_t i = 0; i < 2 * ReachTable::kMaxReasons; ++i) {
    plan::Plan plan;
    plan.trims = {{.step = 0, .reason = std::to_string(i)}};
    table.Count(given, plan);
  }
  EXPECT_LE(table.trims().size(), ReachTable::kMaxReasons + 1);
  EXPECT_EQ(table.trimmed(), 2 * ReachTable::kMaxReasons);
}

TEST(ReachText, ShowsTheStepItsOutcomesTheTrimsAndWhatNeverRan) {
  const trace::Platform platform = EverythingPlatform();
  const std::string text = report::ReachText(Filled(), &platform);
  EXPECT_THAT(text, HasSubstr("avx"));
  EXPECT_THAT(text, HasSubstr("#GP"));
  EXPECT_THAT(text, HasSubstr("no CPL 0 here"));
  EXPECT_THAT(text, HasSubstr("never ran:\n  x87.fninit\n"));
  EXPECT_THAT(text, HasSubstr("\n  xsave with x87 sse "));
  EXPECT_THAT(report::ReachText(Filled(), nullptr), Not(HasSubstr("never ran")));
}

TEST(Feedback, TellsStatesApartAndIsTheSameEachTime) {
  std::vector<uint8_t> a(kCounters), b(kCounters);
  Feedback(a).Reach(Event());
  Feedback(b).Reach(Event());
  EXPECT_EQ(a, b);
  auto seen = std::make_unique<Seen>();
  EXPECT_EQ(seen->Add(a), 2u);
  EXPECT_EQ(seen->Add(b), 0u);
  judge::ReachEvent other = Event();
  other.state = 2;
  Feedback(b).Reach(other);
  EXPECT_EQ(seen->Add(b), 2u);
  other.xcr0 = 3;  // not part of the pair with the way of exit
  Feedback(b).Reach(other);
  EXPECT_EQ(seen->Add(b), 1u);
  EXPECT_EQ(seen->count(), 5u);
}

TEST(Feedback, EdgesOfTheKernelAreCountersOfTheirOwn) {
  std::vector<uint8_t> model(kCounters), kernel(kCounters);
  Feedback(model).Reach(Event());
  const uint16_t edges[] = {0, 0, 1, 0xffff};
  Feedback(kernel).KernelEdges(edges);
  auto seen = std::make_unique<Seen>();
  EXPECT_EQ(seen->Add(kernel), 3u);
  EXPECT_EQ(seen->Add(model), 2u);
}

TEST(Feedback, OrderOfNeighbouringStepsCounts) {
  using program::Op;
  std::vector<uint8_t> a(kCounters), b(kCounters);
  Feedback(a).Steps(fpswap::testing::ProgramOf({Op::kXsave, Op::kXrstor}));
  Feedback(b).Steps(fpswap::testing::ProgramOf({Op::kXrstor, Op::kXsave}));
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace fpswap::campaign
