// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/minimise.h"

#include <gtest/gtest.h>

#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

using fpswap::testing::Contains;
using fpswap::testing::ProgramOf;
using program::Op;
using program::Program;

Program Long() {
  Program program = ProgramOf({Op::kFninit, Op::kEmms, Op::kVzeroall, Op::kXsave, Op::kFchs,
                               Op::kFxch, Op::kKxor, Op::kGetXsave, Op::kFnclex, Op::kHostDirty});
  program.vcpus = 2;
  program.steps[3].arg[0] = 2;  // slot
  program.steps[3].vcpu = 1;
  return program;
}

TEST(Minimise, KeepsOnlyTheStepsThatMatterInTheirOrder) {
  const auto shows = [](const Program& p) {
    return Contains(p, Op::kVzeroall) && Contains(p, Op::kGetXsave);
  };
  const Program smallest = Minimise(Long(), shows, 1000);
  ASSERT_EQ(smallest.steps.size(), 2u);
  EXPECT_EQ(smallest.steps[0].op, Op::kVzeroall);
  EXPECT_EQ(smallest.steps[1].op, Op::kGetXsave);
  EXPECT_EQ(smallest.vcpus, 1);
  EXPECT_LT(smallest.features, program::kAllFeatures);
}

TEST(Minimise, KeepsTheVcpusAndThePlacementThatMatter) {
  const auto shows = [](const Program& p) {
    return p.own_thread && p.steps.size() > 1 && p.steps[0].vcpu != p.steps.back().vcpu;
  };
  Program program = Long();
  program.vcpus = 4;
  program.own_vm = program.own_thread = true;
  program.steps[0].vcpu = 2;
  const Program smallest = Minimise(program, shows, 1000);
  EXPECT_EQ(smallest.steps.size(), 2u);
  EXPECT_EQ(smallest.vcpus, 2);
  EXPECT_FALSE(smallest.own_vm);
  EXPECT_TRUE(smallest.own_thread);
}

TEST(Minimise, KeepsAnArgumentThatMattersAndResetsOneThatDoesNot) {
  const auto shows = [](const Program& p) {
    for (const program::Step& step : p.steps) {
      if (step.op == Op::kXsave && step.arg[0] == 2) return true;
    }
    return false;
  };
  Program program = Long();
  program.steps[3].arg[3] = 1;  // wide
  const Program smallest = Minimise(program, shows, 1000);
  ASSERT_EQ(smallest.steps.size(), 1u);
  EXPECT_EQ(smallest.steps[0].arg[0], 2u);
  EXPECT_EQ(smallest.steps[0].arg[3], program::RowOf(smallest.steps[0]).args[3].fallback);
}

TEST(Minimise, TriesNoMoreThanItsBudgetAndOnlyValidPrograms) {
  unsigned tried = 0;
  const auto shows = [&](const Program& p) {
    ++tried;
    EXPECT_TRUE(program::IsValid(p));
    return Contains(p, Op::kVzeroall);
  };
  Minimise(Long(), shows, 7);
  EXPECT_LE(tried, 7u);
  EXPECT_GT(tried, 0u);
}

TEST(Minimise, GivesBackTheProgramWhereNothingCanGo) {
  const Program program = Long();
  EXPECT_EQ(Minimise(program, [](const Program&) { return false; }, 1000), program);
}

}  // namespace
}  // namespace fpswap::campaign
