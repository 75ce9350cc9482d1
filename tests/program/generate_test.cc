// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/generate.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>

#include "harness/program/arg.h"
#include "harness/program/idioms.h"
#include "harness/program/text.h"
#include "oracle/cpu/cpu.h"
#include "tests/program/samples.h"

namespace fpswap::program {
namespace {

constexpr uint64_t kSeeds = 20000;

Profile Full() { return Profile{.supervisor = 0x1800}; }

Program Generated(uint64_t seed, const Profile& profile) {
  Rng rng(seed);
  return Generate(rng, profile);
}

Profile Several() {
  Profile profile = Full();
  profile.vcpus = kMaxVcpus;
  return profile;
}

bool Unprivileged(const StepRow& row) { return row.actor == Actor::kGuest && !row.cpl0; }

std::vector<Profile> Profiles() {
  return {
      Full(),
      Several(),
      Profile{.features = 0xe7, .supervisor = 0},
      Profile{.features = 3, .vmm = false},
      Profile{.features = 0x207, .host = false},
      Profile{.cpl0 = false},
      Profile{.features = 0, .vmm = false, .host = false, .cpl0 = false},
      Profile{.allowed = [](const StepRow& row, const void*) { return row.op == Op::kSetXsave; }},
      Profile{.allowed = [](const StepRow& row, const void*) { return Unprivileged(row); }},
  };
}

TEST(Rng, IsTheSameEverywhereAndForEver) {
  Rng rng(0);
  EXPECT_EQ(rng.Next(), 0xe220a8397b1dcdafu);  // SplitMix64's published first outputs for seed 0
  EXPECT_EQ(rng.Next(), 0x6e789e6aa1b965f4u);
  EXPECT_EQ(rng.Next(), 0x06c45d188009454fu);
}

TEST(Rng, BelowStaysBelowAndReachesEveryValue) {
  Rng rng(7);
  EXPECT_EQ(rng.Below(0), 0u);
  EXPECT_EQ(rng.Below(1), 0u);
  std::map<uint64_t, int> seen;
  for (int n = 0; n < 10000; ++n) ++seen[rng.Below(10)];
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(seen.rbegin()->first, 9u);
  for (const auto& [value, count] : seen) EXPECT_NEAR(count, 1000, 200) << value;
}

TEST(Generate, IsValidForEverySeedAndProfile) {
  for (const Profile& profile : Profiles()) {
    for (uint64_t seed = 0; seed < kSeeds / 4; ++seed) {
      const Program p = Generated(seed, profile);
      ASSERT_TRUE(IsValid(p)) << PrintText(p);
      ASSERT_GE(p.steps.size(), 1u) << seed;
    }
  }
}

TEST(Generate, TheSameSeedGivesTheSameProgram) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    EXPECT_EQ(Generated(seed, Full()), Generated(seed, Full()));
  }
}

// One number for all that 4000 seeds draw, mutate and cross: it is the same with every compiler,
// and changes with any change of the generator (then the new one belongs here).
TEST(Generate, SeedsGiveTheSameProgramsWithEveryCompiler) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    Rng rng(seed);
    Program p = Generate(rng, Full());
    Mutate(p, rng, Full());
    const std::string text = PrintText(Crossover(p, Generate(rng, Full()), rng));
    for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  EXPECT_EQ(hash, 0xde3e76dd8ca13803u);
}

TEST(Generate, SeedsGiveDifferentPrograms) {
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 2000; ++seed) seen.insert(PrintText(Generated(seed, Full())));
  EXPECT_GT(seen.size(), 1980u);
}

TEST(Generate, DrawsNothingThatTheProfileRulesOut) {
  for (const Profile& profile : Profiles()) {
    for (uint64_t seed = 0; seed < kSeeds / 10; ++seed) {
      for (const Step& step : Generated(seed, profile).steps) {
        const StepRow& row = RowOf(step);
        ASSERT_TRUE(profile.vmm || (row.actor != Actor::kVmm && row.actor != Actor::kSystem))
            << row.name;
        ASSERT_TRUE(profile.host || row.actor != Actor::kHost) << row.name;
        ASSERT_TRUE(profile.cpl0 || !row.cpl0) << row.name;
        ASSERT_TRUE(profile.allowed == nullptr || profile.allowed(row, nullptr)) << row.name;
        if (row.needs == Needs::kMpx) {
          ASSERT_EQ(profile.features & 0x18, 0x18u);
        }
        if (row.needs == Needs::kAvx512f) {
          ASSERT_EQ(profile.features & 0xe0, 0xe0u);
        }
        if (row.needs == Needs::kPku) {
          ASSERT_EQ(profile.features & 0x200, 0x200u);
        }
      }
    }
  }
}

TEST(Generate, WithNothingAllowedGivesAnEmptyProgram) {
  const Profile none{.allowed = [](const StepRow&, const void*) { return false; }};
  const Program p = Generated(1, none);
  EXPECT_TRUE(IsValid(p));
  EXPECT_TRUE(p.steps.empty());
}

TEST(Generate, PassesTheContextToTheFilter) {
  const Op only = Op::kVzeroupper;
  const Profile profile{
      .allowed = [](const StepRow& row,
                    const void* context) { return row.op == *static_cast<const Op*>(context); },
      .allowed_context = &only};
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const Program p = Generated(seed, profile);
    EXPECT_FALSE(p.steps.empty());
    for (const Step& step : p.steps) EXPECT_EQ(step.op, only);
  }
}

TEST(Generate, ReachesEveryStep) {
  std::map<Op, unsigned> seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (const Step& step : Generated(seed, Full()).steps) ++seen[step.op];
  }
  for (const StepRow& row : StepTable()) EXPECT_GT(seen[row.op], 20u) << row.name;
}

TEST(Generate, ReachesTheBoundariesOfEveryKindOfArgument) {
  std::map<ArgKind, std::set<uint64_t>> seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (const Step& step : Generated(seed, Full()).steps) {
      const StepRow& row = RowOf(step);
      for (unsigned i = 0; i < ArgCount(row); ++i) seen[row.args[i].kind].insert(step.arg[i]);
    }
  }
  for (unsigned k = 1; k <= static_cast<unsigned>(ArgKind::kBytes); ++k) {
    const KindRow& kind = RowOf(static_cast<ArgKind>(k));
    EXPECT_TRUE(seen[kind.kind].contains(kind.min)) << kind.what;
    EXPECT_TRUE(seen[kind.kind].contains(kind.max)) << kind.what;
  }
}

TEST(Generate, LengthsAreMostly4To24AndReachBothEnds) {
  std::map<size_t, unsigned> lengths;
  unsigned usual = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const size_t length = Generated(seed, Full()).steps.size();
    ++lengths[length];
    usual += length >= 4 && length <= 24;
  }
  EXPECT_EQ(lengths.begin()->first, 1u);
  EXPECT_EQ(lengths.rbegin()->first, kMaxSteps);
  EXPECT_GT(usual, kSeeds * 6 / 10);
}

TEST(Generate, LooksSeldomInSomeProgramsAndOftenInOthers) {
  unsigned blind = 0, watched = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Program p = Generated(seed, Full());
    if (p.steps.size() < 6) continue;
    size_t looks = 0;
    for (const Step& step : p.steps) {
      const StepRow& row = RowOf(step);
      looks += row.journal != Journal::kNone || row.op == Op::kGetXsave ||
               row.op == Op::kGetXsave2 || row.op == Op::kGetFpu || row.op == Op::kGetXcrs;
    }
    blind += looks <= 1;
    watched += looks * 3 >= p.steps.size();
  }
  EXPECT_GT(blind, kSeeds / 30);
  EXPECT_GT(watched, kSeeds / 30);
}

// Values that make a program stop early have to be rare, or nothing deep is ever reached.
TEST(Generate, MostValuesAreLegalAndSomeAreNot) {
  unsigned xsetbv = 0, bad_xsetbv = 0, mxcsr = 0, bad_mxcsr = 0, pkru = 0, bad_pkru = 0;
  cpu::Features features;
  features.xsave = xstate::XsaveCpuid::Typical(kAllFeatures, 0x1800);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (const Step& step : Generated(seed, Full()).steps) {
      if (step.op == Op::kXsetbv) {
        ++xsetbv;
        bad_xsetbv += step.arg[0] != 0 || !cpu::Cpu::XcrValueValid(features, step.arg[1]);
      } else if (step.op == Op::kLdmxcsr) {
        ++mxcsr;
        bad_mxcsr += (step.arg[0] >> 16) != 0;
      } else if (step.op == Op::kWrpkru) {
        ++pkru;
        bad_pkru += (step.arg[0] & 3) != 0;
      }
    }
  }
  const auto share = [](unsigned bad, unsigned all) { return bad * 100.0 / all; };
  EXPECT_GT(share(bad_xsetbv, xsetbv), 1);
  EXPECT_LT(share(bad_xsetbv, xsetbv), 20);
  EXPECT_GT(share(bad_mxcsr, mxcsr), 1);
  EXPECT_LT(share(bad_mxcsr, mxcsr), 10);
  EXPECT_GT(share(bad_pkru, pkru), 0.2);
  EXPECT_LT(share(bad_pkru, pkru), 5);
}

// Shapes of several steps that only structure brings about: each of them many times in 20,000.
TEST(Generate, ReachesDeepShapes) {
  struct Shape {
    const char* name;
    std::vector<Op> ops;  // in this order, other steps may lie between
    bool same_place;      // all with the same first argument
  };
  const std::vector<Shape> shapes = {
      {"save, edit the header, restore", {Op::kXsave, Op::kMemWrite, Op::kXrstor}, true},
      {"compacted save, exit, restore", {Op::kXsavec, Op::kExitOut, Op::kXrstor}, false},
      {"get, edit, set", {Op::kGetXsave, Op::kImageWrite, Op::kSetXsave}, true},
      {"built image", {Op::kImageInit, Op::kImageFill, Op::kImageWrite, Op::kSetXsave}, true},
      {"XCR0 down, exit, XCR0 up", {Op::kXsetbv, Op::kExitOut, Op::kXsetbv}, false},
      {"modified optimisation", {Op::kXrstor, Op::kXsaveopt}, true},
      {"supervisor round trip", {Op::kWrmsr, Op::kXsaves, Op::kXrstors}, false},
      {"dirty host, other CPU", {Op::kEvexLoad512, Op::kHostCpu, Op::kHostDirty}, false},
      {"TS window", {Op::kCr0Ts, Op::kXrstor, Op::kCr0Ts}, false},
      {"PKRU across an exit", {Op::kWrpkru, Op::kExitOut, Op::kRdpkru}, false},
      {"zeroed ZMM", {Op::kEvexLoad512, Op::kEvexPxor512, Op::kXgetbv}, false},
      {"migration twice", {Op::kMigrate, Op::kMigrate}, false},
  };
  std::vector<unsigned> seen(shapes.size());
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Program p = Generated(seed, Full());
    for (size_t n = 0; n < shapes.size(); ++n) {
      size_t at = 0;
      uint64_t place = 0;
      for (const Step& step : p.steps) {
        if (at == shapes[n].ops.size()) break;
        if (step.op != shapes[n].ops[at]) continue;
        if (at == 0) place = step.arg[0];
        if (!shapes[n].same_place || step.arg[0] == place) ++at;
      }
      seen[n] += at == shapes[n].ops.size();
    }
  }
  for (size_t n = 0; n < shapes.size(); ++n) EXPECT_GT(seen[n], 20u) << shapes[n].name;
}

TEST(Generate, OneProgramInFourHasSeveralVcpusInEveryPlacement) {
  std::map<std::array<int, 3>, unsigned> seen;
  unsigned several = 0, used = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Program p = Generated(seed, Several());
    if (p.vcpus == 1) {
      ASSERT_FALSE(p.own_vm || p.own_thread);
      continue;
    }
    ++several;
    ++seen[{p.vcpus, p.own_vm, p.own_thread}];
    std::set<uint8_t> vcpus;
    for (const Step& step : p.steps) vcpus.insert(step.vcpu);
    used += vcpus.size() > 1;
  }
  EXPECT_NEAR(several, kSeeds / 4, kSeeds / 40);
  EXPECT_GT(used, several * 2 / 3) << "most of them do something on more than one";
  EXPECT_EQ(seen.size(), 3u * 2 * 2);
}

// One vCPU loads a register, another one comes to be run, and the first one's is looked at.
TEST(Generate, InterleavesVcpusBetweenALoadAndALook) {
  unsigned seen = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Program p = Generated(seed, Several());
    unsigned stage = 0;
    uint8_t vcpu = 0;
    for (const Step& step : p.steps) {
      const bool load = step.op == Op::kEvexLoad512 || step.op == Op::kVexLoad256;
      const bool look = step.op == Op::kEvexStore512 || step.op == Op::kVexStore256 ||
                        step.op == Op::kXsave || step.op == Op::kGetXsave;
      const bool other_runs = step.vcpu != vcpu && RowOf(step).actor == Actor::kGuest;
      if (stage == 0 && load) {
        vcpu = step.vcpu;
        stage = 1;
      } else if (stage == 1 && other_runs) {
        stage = 2;
      } else if (stage == 2 && look && step.vcpu == vcpu) {
        stage = 3;
      }
    }
    seen += stage == 3;
  }
  EXPECT_GT(seen, kSeeds / 50);
}

TEST(Idioms, EachForSeveralVcpusUsesMoreThanOne) {
  const Profile profile = Several();
  const Palette palette(profile);
  for (const Idiom& idiom : VcpuIdioms()) {
    Rng rng(1);
    unsigned both = 0;
    for (int n = 0; n < 200; ++n) {
      Builder b(rng, profile, palette, Program{.vcpus = 2}, {});
      b.OnAnyVcpu();
      idiom.run(b);
      std::set<uint8_t> vcpus;
      for (const Step& step : b.steps()) vcpus.insert(step.vcpu);
      both += vcpus.size() == 2;
    }
    EXPECT_GE(both, 180u) << idiom.name;  // at times the other one only looks, and does not
  }
}

TEST(Idioms, EachAddsStepsWithEverythingAllowed) {
  const Profile profile = Full();
  const Palette palette(profile);
  for (const auto table : {GuestIdioms(), VmmIdioms(), OsIdioms()}) {
    for (const Idiom& idiom : table) {
      Rng rng(1);
      size_t longest = 0, empty = 0;
      for (int n = 0; n < 500; ++n) {
        Builder b(rng, profile, palette, Program{}, {});
        idiom.run(b);
        longest = std::max(longest, b.steps().size());
        empty += b.steps().empty();
      }
      EXPECT_GE(longest, 2u) << idiom.name;
      EXPECT_LE(longest, kMaxSteps) << idiom.name;
      EXPECT_LT(empty, 50u) << idiom.name;
      EXPECT_GT(idiom.weight, 0) << idiom.name;
    }
  }
}

TEST(Idioms, NoneAddsWhatIsNotAllowed) {
  const Profile profile{.allowed = [](const StepRow&, const void*) { return false; }};
  const Palette palette(profile);
  Rng rng(1);
  for (const auto table : {GuestIdioms(), VmmIdioms(), VcpuIdioms(), OsIdioms()}) {
    for (const Idiom& idiom : table) {
      for (int n = 0; n < 50; ++n) {
        Builder b(rng, profile, palette, Program{.vcpus = 2}, {});
        idiom.run(b);
        EXPECT_TRUE(b.steps().empty()) << idiom.name;
      }
    }
  }
}

}  // namespace
}  // namespace fpswap::program
