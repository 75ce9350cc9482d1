// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/minimise.h"

#include <gtest/gtest.h>

#include <algorithm>

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
  const Program smallest = Minimise(Long(), shows, {.budget = 1000}).program;
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
  const Program smallest = Minimise(program, shows, {.budget = 1000}).program;
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
  const Program smallest = Minimise(program, shows, {.budget = 1000}).program;
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
  Minimise(Long(), shows, {.budget = 7});
  EXPECT_LE(tried, 7u);
  EXPECT_GT(tried, 0u);
}

TEST(Minimise, GivesBackTheProgramWhereNothingCanGo) {
  const Program program = Long();
  EXPECT_EQ(Minimise(program, [](const Program&) { return false; }, {.budget = 1000}).program,
            program);
}

// Each pass alone: what it is for, and that it leaves alone what matters.

Program Alone(std::string_view pass, const Program& program, const Shows& shows) {
  return Minimise(program, shows, {.budget = 1000, .only = pass}).program;
}

bool Anything(const Program&) { return true; }

TEST(MinimisePasses, AreAllTestedHere) {
  std::vector<std::string_view> names;
  for (const MinimisePass& pass : MinimisePasses()) {
    names.push_back(pass.name);
    EXPECT_FALSE(pass.what.empty());
  }
  EXPECT_EQ(names,
            (std::vector<std::string_view>{"drop-steps", "fewer-vcpus", "weaker-steps",
                                           "default-arguments", "fewer-features", "fewer-bytes",
                                           "fewer-bits", "renumber", "drop-pairs", "one-exit"}));
}

TEST(MinimisePasses, DropSteps) {
  const Program program = ProgramOf({Op::kFninit, Op::kEmms, Op::kVzeroall, Op::kXsave});
  EXPECT_TRUE(Alone("drop-steps", program, Anything).steps.empty());
  const Program two = Alone("drop-steps", program, [](const Program& p) {
    return Contains(p, Op::kFninit) && Contains(p, Op::kXsave);
  });
  EXPECT_EQ(two, ProgramOf({Op::kFninit, Op::kXsave}));
}

TEST(MinimisePasses, DropPairs) {
  // Either both are there or none.
  const Program program = ProgramOf({Op::kFninit, Op::kEmms, Op::kVzeroall, Op::kXsave});
  const auto shows = [](const Program& p) {
    return Contains(p, Op::kFninit) == Contains(p, Op::kVzeroall) && Contains(p, Op::kXsave) &&
           Contains(p, Op::kEmms);
  };
  EXPECT_EQ(Alone("drop-steps", program, shows).steps.size(), 4u) << "one alone can't go";
  EXPECT_EQ(Alone("drop-pairs", program, shows), ProgramOf({Op::kEmms, Op::kXsave}));
}

TEST(MinimisePasses, OneExit) {
  // Turns of the guest end at exits and at steps of the VMM; two must end before XSAVE.
  const Program program =
      ProgramOf({Op::kFninit, Op::kGetXsave, Op::kFninit, Op::kGetXsave, Op::kXsave});
  const auto shows = [](const Program& p) {
    const auto exits = std::ranges::count(p.steps, Op::kExitOut, &program::Step::op);
    const auto looks = std::ranges::count(p.steps, Op::kGetXsave, &program::Step::op);
    const auto turns = std::ranges::count(p.steps, Op::kFninit, &program::Step::op);
    return exits + std::min(looks, turns) == 2 && Contains(p, Op::kXsave);
  };
  EXPECT_EQ(Alone("drop-steps", program, shows).steps.size(), 5u);
  EXPECT_EQ(Alone("one-exit", program, shows), ProgramOf({Op::kExitOut, Op::kExitOut, Op::kXsave}));
}

TEST(MinimisePasses, FewerVcpus) {
  Program program = Long();
  program.vcpus = 4;
  program.own_vm = true;
  EXPECT_EQ(Alone("fewer-vcpus", program, Anything).vcpus, 1);
  program.steps[0].vcpu = 3;
  program.steps[1].vcpu = 2;
  const Program two = Alone("fewer-vcpus", program,
                            [](const Program& p) { return p.steps[0].vcpu != p.steps[3].vcpu; });
  EXPECT_EQ(two.vcpus, 2);
  EXPECT_FALSE(two.own_vm);
}

TEST(MinimisePasses, WeakerSteps) {
  const Program program = ProgramOf({Op::kExitMsr, Op::kExitPageFault, Op::kGetXsave2, Op::kXsaves,
                                     Op::kXrstors, Op::kHostPreempt});
  EXPECT_EQ(Alone("weaker-steps", program, Anything),
            ProgramOf({Op::kExitOut, Op::kExitOut, Op::kGetXsave, Op::kXsave, Op::kXrstor,
                       Op::kHostDirty}));
  EXPECT_EQ(
      Alone("weaker-steps", program,
            [](const Program& p) { return Contains(p, Op::kXsaves) && Contains(p, Op::kExitMsr); })
          .steps[0]
          .op,
      Op::kExitMsr);
  Program slot = ProgramOf({Op::kXsavec});
  slot.steps[0].arg[0] = 3;
  EXPECT_EQ(Alone("weaker-steps", slot, Anything).steps[0].arg[0], 3u) << "its arguments stay";
  Program xcr0 = ProgramOf({Op::kSetXcrs, Op::kSetXcrsList});
  xcr0.steps[0].arg = {1, 0, 7, 0};
  xcr0.steps[1].arg = {0, 3, 0, 1};
  const Program own = Alone("weaker-steps", xcr0, Anything);
  for (const auto& [step, value] : {std::pair(own.steps[0], 7u), {own.steps[1], 3u}}) {
    EXPECT_EQ(step.op, Op::kXsetbv);
    EXPECT_EQ(step.arg[1], value) << "the value stays";
  }
}

TEST(MinimisePasses, DefaultArguments) {
  Program program = ProgramOf({Op::kSseLoad, Op::kXsave});
  program.steps[0].arg = {7, 999};
  program.steps[1].arg = {2, 5, 3, 1};
  const Program plain = Alone("default-arguments", program, Anything);
  for (const program::Step& step : plain.steps) {
    for (unsigned arg = 0; arg < program::kArgCount; ++arg) {
      EXPECT_EQ(step.arg[arg], program::RowOf(step).args[arg].fallback);
    }
  }
  const Program kept = Alone("default-arguments", program, [](const Program& p) {
    return p.steps[1].arg[1] == 5 && p.steps[0].arg[1] == 999;
  });
  EXPECT_EQ(kept.steps[1].arg[1], 5u);
  EXPECT_EQ(kept.steps[1].arg[0], 0u);
  EXPECT_EQ(kept.steps[0].arg[1], 999u);
}

TEST(MinimisePasses, FewerFeatures) {
  Program program = ProgramOf({Op::kFninit});
  program.pke = false;
  const Program all = Alone("fewer-features", program, Anything);
  EXPECT_EQ(all.features, 3u);
  EXPECT_EQ(all.xcr0, 3u);
  EXPECT_TRUE(all.pke);
  const Program avx =
      Alone("fewer-features", program, [](const Program& p) { return (p.features & 4) != 0; });
  EXPECT_EQ(avx.features, 7u);
}

TEST(MinimisePasses, FewerBytes) {
  Program program = ProgramOf({Op::kImageFill, Op::kMemFill});
  program.steps[0].arg = {0, 100, 1000, 5};
  program.steps[1].arg = {0, 0, 512, 5};
  // Byte 512 of the image has to be written.
  const Program small = Alone("fewer-bytes", program, [](const Program& p) {
    const auto& a = p.steps[0].arg;
    return a[1] <= 512 && a[1] + a[2] > 512;
  });
  EXPECT_EQ(small.steps[0].arg[1], 512u);
  EXPECT_EQ(small.steps[0].arg[2], 1u);
  EXPECT_EQ(small.steps[1].arg[2], 1u);
}

TEST(MinimisePasses, FewerBits) {
  Program program = ProgramOf({Op::kXsave, Op::kLdmxcsr});
  program.steps[0].arg[2] = 0x602e7;
  program.steps[1].arg[0] = 0xff80;
  const Program small = Alone("fewer-bits", program, [](const Program& p) {
    return (p.steps[0].arg[2] & 0x20004) == 0x20004 && (p.steps[1].arg[0] & 0x8000) != 0;
  });
  EXPECT_EQ(small.steps[0].arg[2], 0x20004u);
  EXPECT_EQ(small.steps[1].arg[0], 0x8000u);
}

TEST(MinimisePasses, Renumber) {
  Program program = ProgramOf({Op::kSseLoad, Op::kSsePxor, Op::kXsave, Op::kXrstor});
  program.steps[0].arg[0] = 9;
  program.steps[1].arg = {9, 12};
  program.steps[2].arg[0] = 3;
  program.steps[3].arg[0] = 3;
  // The registers have to stay the same one, and the other another.
  const Program small = Alone("renumber", program, [](const Program& p) {
    return p.steps[0].arg[0] == p.steps[1].arg[0] && p.steps[1].arg[0] != p.steps[1].arg[1] &&
           p.steps[2].arg[0] == p.steps[3].arg[0];
  });
  EXPECT_EQ(std::max(small.steps[1].arg[0], small.steps[1].arg[1]), 1u);
  EXPECT_EQ(small.steps[2].arg[0], 0u);
  EXPECT_EQ(small.steps[3].arg[0], 0u);
}

TEST(MinimisePasses, TellHowTheyGoOn) {
  unsigned calls = 0, better = 0;
  const Minimised result = Minimise(
      Long(), [](const Program& p) { return Contains(p, Op::kVzeroall); },
      {.budget = 1000,
       .progress = [&](const MinimisePass& pass, unsigned tried, const Program& best, bool helped) {
         ++calls;
         better += helped;
         EXPECT_EQ(tried, calls);
         EXPECT_FALSE(pass.name.empty());
         EXPECT_TRUE(Contains(best, Op::kVzeroall));
       }});
  EXPECT_EQ(result.tried, calls);
  EXPECT_TRUE(result.done);
  EXPECT_GT(better, 0u);
  EXPECT_EQ(result.program.steps.size(), 1u);
  const Minimised cut = Minimise(Long(), Anything, {.budget = 1});
  EXPECT_FALSE(cut.done) << "the budget ended it";
}

}  // namespace
}  // namespace fpswap::campaign
