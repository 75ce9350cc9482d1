// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/cause.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/campaign/fakes.h"

namespace fpswap::triage {
namespace {

using fpswap::testing::ProgramOf;
using program::Op;

TEST(Cause, TriggersAreWhatDisturbsEachOnceAndSorted) {
  EXPECT_EQ(Triggers(ProgramOf({Op::kSseLoad, Op::kHostDirty, Op::kExitHlt, Op::kHostDirty,
                                Op::kSetXsave, Op::kGetXsave})),
            "exit.hlt+host.dirty");
}

TEST(Cause, WhatSetsAWholeStateCountsOnlyAlone) {
  EXPECT_EQ(Triggers(ProgramOf({Op::kSetXsave, Op::kXsave})), "vmm.set_xsave");
  EXPECT_EQ(Triggers(ProgramOf({Op::kSetXsave, Op::kMigrate, Op::kXsave})), "vmm.migrate");
  EXPECT_EQ(Triggers(ProgramOf({Op::kSseLoad, Op::kXsave})), "");
}

TEST(Cause, EachRelationHasAFamily) {
  for (unsigned i = 0; i <= static_cast<unsigned>(judge::Relation::kComplained); ++i) {
    EXPECT_NE(RelationFamily(static_cast<judge::Relation>(i)), "") << i;
  }
}

TEST(Cause, TheSmallestFindingLeadsThoseThatNeedItsStepsAndMore) {
  const auto titles = GroupByCause({{"large", "avx lost", "exit.out+host.cpu", "", 12},
                                    {"small", "avx lost", "host.cpu", "", 4},
                                    {"other", "avx lost", "vmm.migrate", "", 3},
                                    {"both", "avx lost", "host.cpu+vmm.migrate", "", 9}});
  EXPECT_EQ(titles.at("small"), "avx lost after host.cpu");
  EXPECT_EQ(titles.at("large"), titles.at("small"));
  EXPECT_EQ(titles.at("other"), "avx lost after vmm.migrate");
  EXPECT_EQ(titles.at("both"), titles.at("other")) << "the smaller program of the two that could";
}

TEST(Cause, EffectsAndPlantsStayApart) {
  const auto titles = GroupByCause({{"a", "avx lost", "host.cpu", "", 4},
                                    {"b", "sse lost", "host.cpu", "", 4},
                                    {"c", "avx lost", "host.cpu", "p", 4},
                                    {"d", "avx lost", "", "", 2}});
  EXPECT_EQ(titles.at("a"), "avx lost after host.cpu");
  EXPECT_EQ(titles.at("b"), "sse lost after host.cpu");
  EXPECT_EQ(titles.at("c"), "avx lost after host.cpu (plant p)");
  EXPECT_EQ(titles.at("d"), "avx lost") << "needs nothing, and leads only those that need nothing";
}

// Whatever order they come in.
TEST(Cause, DoesNotDependOnTheOrderOfFindings) {
  std::vector<Evidence> findings = {{"a", "e", "x+y", "", 4},
                                    {"b", "e", "y", "", 7},
                                    {"c", "e", "x", "", 7},
                                    {"d", "e", "x+z", "", 1}};
  const auto titles = GroupByCause(findings);
  std::ranges::reverse(findings);
  EXPECT_EQ(GroupByCause(findings), titles);
}

}  // namespace
}  // namespace fpswap::triage
