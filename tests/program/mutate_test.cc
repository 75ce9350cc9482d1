// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "harness/program/generate.h"
#include "harness/program/text.h"
#include "tests/program/samples.h"

namespace fpswap::program {
namespace {

const Profile kFull{.supervisor = 0x1800};

TEST(Mutate, KeepsAnyProgramValid) {
  Rng rng(1);
  for (int n = 0; n < 20000; ++n) {
    Program p = AnyProgram(rng);
    Mutate(p, rng, kFull);
    ASSERT_TRUE(IsValid(p)) << PrintText(p);
  }
}

TEST(Mutate, KeepsLongChainsValid) {
  Rng rng(2);
  Program p;
  for (int n = 0; n < 20000; ++n) {
    Mutate(p, rng, kFull);
    ASSERT_TRUE(IsValid(p)) << PrintText(p);
  }
}

TEST(Mutate, TheSameSeedGivesTheSameMutant) {
  Rng any(3);
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Program a = AnyProgram(any);
    Program b = a;
    Rng one(seed), two(seed);
    Mutate(a, one, kFull);
    Mutate(b, two, kFull);
    EXPECT_EQ(a, b);
  }
}

TEST(Mutate, NearlyAlwaysChangesSomething) {
  Rng rng(4);
  unsigned same = 0;
  for (int n = 0; n < 5000; ++n) {
    Program p = Generate(rng, kFull);
    const Program before = p;
    Mutate(p, rng, kFull);
    same += p == before;
  }
  EXPECT_LT(same, 5u);
}

TEST(Mutate, ReachesEveryStepFromAnEmptyProgram) {
  Rng rng(5);
  std::map<Op, unsigned> seen;
  for (int n = 0; n < 20000; ++n) {
    Program p;
    for (int k = 0; k < 3; ++k) Mutate(p, rng, kFull);
    for (const Step& step : p.steps) ++seen[step.op];
  }
  for (const StepRow& row : StepTable()) EXPECT_GT(seen[row.op], 5u) << row.name;
}

// From one step of each kind, one mutation at a time: every argument takes values it did not have,
// to both ends of its range.
TEST(Mutate, ReachesBothEndsOfEveryKindOfArgument) {
  Rng rng(6);
  std::map<ArgKind, std::set<uint64_t>> seen;
  for (const StepRow& row : StepTable()) {
    for (int n = 0; n < 3000; ++n) {
      Step step{.op = row.op};
      for (unsigned i = 0; i < kArgCount; ++i) {
        const KindRow& kind = RowOf(row.args[i].kind);
        step.arg[i] = n % 2 == 0 ? kind.min : kind.max;
      }
      Program p{.steps = {step}};
      MakeValid(p);
      Mutate(p, rng, kFull);
      if (p.steps.empty() || p.steps[0].op != row.op) continue;
      for (unsigned i = 0; i < ArgCount(row); ++i) {
        if (p.steps[0].arg[i] != step.arg[i]) seen[row.args[i].kind].insert(p.steps[0].arg[i]);
      }
    }
  }
  for (unsigned k = 1; k <= static_cast<unsigned>(ArgKind::kBytes); ++k) {
    const KindRow& kind = RowOf(static_cast<ArgKind>(k));
    EXPECT_TRUE(seen[kind.kind].contains(kind.min)) << kind.what;
    EXPECT_TRUE(seen[kind.kind].contains(kind.max)) << kind.what;
  }
}

TEST(Mutate, DrawsNothingThatTheProfileRulesOut) {
  const Profile guest_only{.features = 7, .vmm = false, .host = false, .cpl0 = false};
  Rng rng(7);
  for (int n = 0; n < 5000; ++n) {
    Program p = Generate(rng, guest_only);
    for (int k = 0; k < 5; ++k) Mutate(p, rng, guest_only);
    for (const Step& step : p.steps) {
      const StepRow& row = RowOf(step);
      ASSERT_EQ(row.actor, Actor::kGuest) << row.name;
      ASSERT_FALSE(row.cpl0) << row.name;
      ASSERT_NE(row.needs, Needs::kAvx512f) << row.name;
    }
  }
}

TEST(Mutate, WithNothingAllowedStillEnds) {
  const Profile none{.allowed = [](const StepRow&, const void*) { return false; }};
  Rng rng(8);
  for (int n = 0; n < 1000; ++n) {
    Program p = AnyProgram(rng);
    const size_t size = p.steps.size();
    Mutate(p, rng, none);
    EXPECT_TRUE(IsValid(p));
    EXPECT_LE(p.steps.size(), std::min<size_t>(kMaxSteps, 16 * size));
  }
}

TEST(Mutate, ShortensAndLengthensAboutAsOften) {
  Rng rng(9);
  int shorter = 0, longer = 0;
  for (int n = 0; n < 5000; ++n) {
    Program p = Generate(rng, kFull);
    if (p.steps.size() < 8 || p.steps.size() > 30) continue;
    const size_t before = p.steps.size();
    Mutate(p, rng, kFull);
    shorter += p.steps.size() < before;
    longer += p.steps.size() > before;
  }
  EXPECT_GT(shorter * 5, longer);
  EXPECT_GT(longer * 2, shorter);
}

TEST(Crossover, ChildrenAreValidAndMadeOfTheirParents) {
  Rng rng(10);
  for (int n = 0; n < 10000; ++n) {
    const Program a = AnyProgram(rng), b = AnyProgram(rng);
    const Program child = Crossover(a, b, rng);
    ASSERT_TRUE(IsValid(child)) << PrintText(child);
    ASSERT_TRUE(child.features == a.features || child.features == b.features);
    for (const Step& step : child.steps) {
      ASSERT_TRUE((std::ranges::find(a.steps, step) != a.steps.end()) ||
                  (std::ranges::find(b.steps, step) != b.steps.end()));
    }
  }
}

TEST(Crossover, MixesBothParentsInOneAndTwoPoints) {
  Rng rng(11);
  Program a, b;
  for (uint64_t n = 0; n < 10; ++n) {
    a.steps.push_back(Step{.op = Op::kFldcw, .arg = {n}});
    b.steps.push_back(Step{.op = Op::kLdmxcsr, .arg = {n}});
  }
  unsigned one = 0, two = 0;
  for (int n = 0; n < 1000; ++n) {
    const Program child = Crossover(a, b, rng);
    std::string shape;
    for (const Step& step : child.steps) {
      const char c = step.op == Op::kFldcw ? 'a' : 'b';
      if (!shape.ends_with(c)) shape += c;
    }
    one += shape == "ab";
    two += shape == "aba";
  }
  EXPECT_GT(one, 100u);
  EXPECT_GT(two, 100u);
}

TEST(Crossover, WithEmptyParentsIsValid) {
  Rng rng(12);
  const Program empty;
  Program full = Generate(rng, kFull);
  for (int n = 0; n < 100; ++n) {
    EXPECT_TRUE(IsValid(Crossover(empty, empty, rng)));
    EXPECT_TRUE(IsValid(Crossover(empty, full, rng)));
    EXPECT_TRUE(IsValid(Crossover(full, empty, rng)));
  }
}

}  // namespace
}  // namespace fpswap::program
