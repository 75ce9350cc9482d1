// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "harness/plan/emit.h"
#include "harness/plan/plan.h"
#include "tests/plan/plan_testing.h"

namespace fpswap::plan {
namespace {

using plan_testing::Do;
using plan_testing::DrawProgram;
using plan_testing::Of;
using plan_testing::RichKvm;
using plan_testing::RichNative;
using program::Op;
using program::Program;
using program::Step;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

void ExpectSame(const Plan& a, const Plan& b) {
  std::vector<uint8_t> x, y;
  AppendPlan(a, x);
  AppendPlan(b, y);
  EXPECT_EQ(x, y);
}

TEST(MakePlan, SaysWhereTheSetUpIsNotAsGiven) {
  const auto platform = RichKvm();
  Program program = Of({Do(Op::kFninit)});
  EXPECT_THAT(MakePlan(program, platform).trims, IsEmpty());
  program.xcr0 = Bit(xstate::Component::kSse) | Bit(xstate::Component::kHi16Zmm);
  const Plan plan = MakePlan(program, platform);
  ASSERT_EQ(plan.trims.size(), 1u);
  EXPECT_EQ(plan.trims[0].step, kSetUp);
  EXPECT_THAT(plan.trims[0].reason, HasSubstr("XCR0 begins as x87+sse: x87+sse+hi16_zmm is no"));
  program.features = Bit(xstate::Component::kBndregs) | 3;
  EXPECT_THAT(MakePlan(program, platform).trims[0].reason, HasSubstr("features become x87+sse:"));
}

TEST(MakePlan, OfAnEffectiveProgramTrimsNothingAndGivesTheSameBytes) {
  std::mt19937_64 random(2);
  auto poor = RichKvm();
  poor.guest.avx512f = false;
  poor.guest.xsave = xstate::XsaveCpuid::Typical(0x207, 0);
  poor.can.reset(static_cast<size_t>(Op::kMigrate));
  poor.vcpus = 1;
  for (const auto& platform : {RichKvm(), RichNative(), poor}) {
    for (int round = 0; round < 300; ++round) {
      const Plan once = MakePlan(DrawProgram(round % 65, random), platform);
      const Plan twice = MakePlan(once.effective, platform);
      EXPECT_THAT(twice.trims, IsEmpty());
      EXPECT_EQ(twice.effective, once.effective);
      EXPECT_EQ(twice.spoils_vcpu, once.spoils_vcpu);
      ExpectSame(once, twice);
    }
  }
}

// corpus/known/kvm-set-msr-xfd-host-nm: outside of a lab it ends the machine that the fuzzer is on.
TEST(MakePlan, SparesTheHostAnXfdThatIsSetWhereTilesMayBeInUse) {
  auto sparing = RichKvm();
  sparing.host.xsave.xfd = sparing.guest.xsave.xfd = true;
  sparing.spare_host = true;
  constexpr uint64_t kXfd = static_cast<uint64_t>(program::Msr::kXfd),
                     kXss = static_cast<uint64_t>(program::Msr::kXss),
                     kTiles = Bit(xstate::Component::kTiledata);
  const Step set = Do(Op::kSetMsr, kXfd, kTiles), list = Do(Op::kSetMsrList, kXss, 0, kXfd, kTiles);
  const Step loads[] = {Do(Op::kLdtilecfg, 1, 0xff),
                        Do(Op::kTileloadd),
                        Do(Op::kTilezero),
                        Do(Op::kTdpbssd, 0, 1, 2),
                        Do(Op::kTdpbuud, 0, 1, 2),
                        Do(Op::kSetXsave),
                        Do(Op::kMigrate),
                        Do(Op::kRaw, 1, 0x90),
                        Do(Op::kXrstor, 0, 0, kTiles | 3),
                        Do(Op::kXrstors, 0, 0, ~uint64_t{0})};
  for (const Step& load : loads) {
    const Plan plan = MakePlan(Of({load, set, list, Do(Op::kExitOut)}), sparing);
    const std::string op(program::RowOf(load).name);
    ASSERT_EQ(plan.trims.size(), 2u) << op;
    EXPECT_EQ(plan.trims[0].step, 1u) << op;
    EXPECT_THAT(plan.trims[0].reason,
                HasSubstr("would take this host down: corpus/known/kvm-set-msr-xfd-host-nm"));
    EXPECT_EQ(plan.trims[1].step, 2u) << op;
    const Plan again = MakePlan(plan.effective, sparing);
    EXPECT_THAT(again.trims, IsEmpty()) << op;
    ExpectSame(plan, again);
  }
  const Step tiles = Do(Op::kTileloadd);
  auto other = tiles;
  other.vcpu = 1;
  const std::vector<Step> near_misses[] = {
      {set, tiles},                                        // there were no tiles yet
      {other, set},                                        // another vCPU's
      {tiles, Do(Op::kSetMsr, kXfd, 0)},                   // it disables nothing
      {tiles, Do(Op::kSetMsr, kXss, kTiles)},              // another MSR
      {tiles, Do(Op::kWrmsr, kXfd, kTiles)},               // the guest's own, within KVM_RUN
      {Do(Op::kXrstor, 0, 0, 7), set},                     // no tiles in RFBM
      {tiles, Do(Op::kSetMsrList, kXfd, 0, kXss, kTiles)}  // neither entry
  };
  for (const auto& steps : near_misses) {
    auto program = Of(steps);
    program.vcpus = 2;
    EXPECT_THAT(MakePlan(program, sparing).trims, IsEmpty()) << program::RowOf(steps[1]).name;
  }
  // A lab, --endanger-host, a recorded trace; and a CPU that has no XFD.
  auto lab = sparing, without = sparing;
  lab.spare_host = false;
  without.host.xsave.xfd = false;
  for (const auto& platform : {lab, without}) {
    EXPECT_THAT(MakePlan(Of({tiles, set, list}), platform).trims, IsEmpty());
  }
}

TEST(MakePlan, SaysWhyEachTrimmedStepCannotRunAndRenumbersTheRest) {
  auto platform = RichKvm();
  platform.guest.avx512f = false;
  platform.can.reset(static_cast<size_t>(Op::kMigrate));
  platform.cannot = {{static_cast<uint8_t>(Op::kMigrate), "there is one VM only"}};
  platform.can.reset(static_cast<size_t>(Op::kInit));
  platform.vcpus = 1;
  Program p = Of({Do(Op::kFninit), Do(Op::kEvexLoad512, 17, 9), Do(Op::kMigrate), Do(Op::kInit),
                  Do(Op::kStmxcsr), Do(Op::kEmms)});
  p.vcpus = 2;
  p.steps.back().vcpu = 1;
  const Plan plan = MakePlan(p, platform);
  EXPECT_THAT(plan.effective.steps, ElementsAre(Do(Op::kFninit), Do(Op::kStmxcsr)));
  EXPECT_EQ(plan.effective.vcpus, 1);
  ASSERT_EQ(plan.trims.size(), 4u);
  EXPECT_EQ(plan.trims[0].step, 1);
  EXPECT_EQ(plan.trims[0].reason, "the guest's CPU has no AVX512F");
  EXPECT_EQ(plan.trims[1].step, 2);
  EXPECT_EQ(plan.trims[1].reason, "there is one VM only");
  EXPECT_EQ(plan.trims[2].step, 3);
  EXPECT_THAT(plan.trims[2].reason, HasSubstr("does not run vmm.init"));
  EXPECT_EQ(plan.trims[3].step, 5);
  EXPECT_THAT(plan.trims[3].reason, HasSubstr("no vCPU 1"));
}

TEST(MakePlan, WhereVcpusLiveMeansNothingForOne) {
  auto platform = RichKvm();
  Program p = Of({Do(Op::kFninit)});
  p.vcpus = 2;
  p.own_vm = p.own_thread = true;
  EXPECT_TRUE(MakePlan(p, platform).effective.own_vm);
  EXPECT_TRUE(MakePlan(p, platform).effective.own_thread);
  platform.vcpus = 1;
  EXPECT_FALSE(MakePlan(p, platform).effective.own_vm);
  EXPECT_FALSE(MakePlan(p, platform).effective.own_thread);
}

TEST(MakePlan, SaysWhoseFaultItIsThatAGuestHasNoTiles) {
  const Program p = Of({Do(Op::kLdtilecfg, 1), Do(Op::kTdpbssd, 0, 1, 2), Do(Op::kFninit)});
  auto platform = RichKvm();
  EXPECT_TRUE(MakePlan(p, platform).trims.empty());
  platform.guest.amx_int8 = false;
  ASSERT_EQ(MakePlan(p, platform).trims.size(), 1u);
  EXPECT_EQ(MakePlan(p, platform).trims[0].step, 1);
  platform.guest.xsave = xstate::XsaveCpuid::Typical(0x2e7, 0);
  platform.guest_perm = 0x2e7;
  const Plan plan = MakePlan(p, platform);
  EXPECT_THAT(plan.effective.steps, ElementsAre(Do(Op::kFninit)));
  EXPECT_EQ(plan.trims.at(0).reason,
            "the guest's CPU has no AMX-TILE: no permission for tiles "
            "(ARCH_REQ_XCOMP_GUEST_PERM)");
  EXPECT_THAT(plan.trims.at(1).reason, HasSubstr("AMX-INT8: no permission"));
  platform.guest_supp = 0x2e7;
  EXPECT_THAT(MakePlan(p, platform).trims.at(0).reason, HasSubstr("this KVM has no tiles"));
  platform.host.amx_tile = false;
  EXPECT_EQ(MakePlan(p, platform).trims.at(0).reason, "the guest's CPU has no AMX-TILE");
}

TEST(MakePlan, GivesALoadOfATileAllTheRowsItMayTake) {
  const Plan plan = MakePlan(
      Of({Do(Op::kTileloadd, 0, 5, 255), Do(Op::kTileloadd, 1, 6, 0), Do(Op::kTilestored, 1)}),
      RichKvm());
  ASSERT_TRUE(plan.trims.empty());
  // 15 strides and a row of 64 bytes; the next literal begins behind it, at a multiple of 64.
  std::vector<uint8_t> rows(15 * 255 + 64), one(64);
  program::FillPattern(5, rows);
  program::FillPattern(6, one);
  ASSERT_EQ(plan.literals.size(), 3904u + 64u);
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), plan.literals.begin()));
  EXPECT_TRUE(std::equal(one.begin(), one.end(), plan.literals.begin() + 3904));
  EXPECT_EQ(plan.rows[2].journal_bytes, 1024u);
}

TEST(MakePlan, SplitsRunsByVcpuCplAndWhatIsDoneInBetween) {
  Program p = Of({Do(Op::kFninit), Do(Op::kEmms), Do(Op::kXsetbv, 0, 3), Do(Op::kGetXcrs),
                  Do(Op::kHostCpu, 1), Do(Op::kEmms), Do(Op::kEmms)});
  p.vcpus = 2;
  p.steps[6].vcpu = 1;
  const Plan plan = MakePlan(p, RichKvm());
  std::vector<std::array<int, 5>> actions;
  for (const Action& a : plan.actions) {
    actions.push_back({static_cast<int>(a.kind), a.vcpu, a.cpl, a.first, a.last});
  }
  EXPECT_THAT(actions, ElementsAre(std::array{1, 0, 3, 0, 1}, std::array{1, 0, 0, 2, 2},
                                   std::array{2, 0, 3, 3, 3}, std::array{2, 0, 3, 4, 4},
                                   std::array{1, 0, 3, 5, 5}, std::array{1, 1, 3, 6, 6}));
}

TEST(MakePlan, LimitsFeaturesAndXcr0ToWhatXsetbvWouldAccept) {
  auto platform = RichKvm();
  platform.guest.xsave = xstate::XsaveCpuid::Typical(0x2e7, 0);
  Program p;
  p.features = 0x602ff & ~uint64_t{0x40};  // ZMM_Hi256 missing: no AVX-512 at all
  p.xcr0 = 0x602ff & ~uint64_t{0x2};       // SSE missing: no AVX either
  const Plan plan = MakePlan(p, platform);
  EXPECT_EQ(plan.effective.features, 0x207u);
  EXPECT_EQ(plan.xcr0, 0x201u);
  EXPECT_TRUE(plan.effective.pke);
  p.features = 7;
  EXPECT_FALSE(MakePlan(p, platform).effective.pke);
}

TEST(MakePlan, GivesAFixedGuestAllItHas) {
  auto platform = RichKvm();
  platform.guest_fixed = true;
  Program p;
  p.features = 1;
  p.xcr0 = 7;
  const Plan plan = MakePlan(p, platform);
  EXPECT_EQ(plan.effective.features, program::kAllFeatures);
  EXPECT_EQ(plan.xcr0, 7u);
}

TEST(MakePlan, OnNativeNeverTakesTheRunnersMemoryAway) {
  const Plan plan = MakePlan(
      Of({Do(Op::kWrpkru, 0x55555550), Do(Op::kWrpkru, 1), Do(Op::kXrstor, 0, 0, ~uint64_t{0}, 1)}),
      RichNative());
  ASSERT_EQ(plan.effective.steps.size(), 2u);
  EXPECT_EQ(plan.effective.steps[0], Do(Op::kWrpkru, 0x55555550));
  EXPECT_EQ(plan.effective.steps[1].arg[2], ~uint64_t{0x200});
  ASSERT_EQ(plan.trims.size(), 1u);
  EXPECT_THAT(plan.trims[0].reason, HasSubstr("key 0"));
  EXPECT_EQ(plan.xcr0, program::kAllFeatures);
}

TEST(MakePlan, CutsFillsAtTheEndOfTheirSlotOrImage) {
  const Plan plan =
      MakePlan(Of({Do(Op::kMemFill, 1, 12000, 12288, 7), Do(Op::kImageFill, 1, 12000, 12288, 7),
                   Do(Op::kImageWrite, 0, 12287, 5)}),
               RichKvm());
  EXPECT_EQ(plan.effective.steps[0].arg[2], 16384u - 12000);
  EXPECT_EQ(plan.effective.steps[1].arg[2], 12288u - 12000);
  EXPECT_EQ(plan.effective.steps[2].arg[1], 12280u);
}

TEST(MakePlan, TrimsWhatHasNoRoom) {
  std::vector<Step> steps(program::kMaxSteps, Do(Op::kMemFill, 0, 0, 12288, 7));
  const Plan plan = MakePlan(Of(steps), RichKvm());
  EXPECT_EQ(plan.effective.steps.size(), kLiteralSize / 12288);
  EXPECT_LE(plan.literals.size(), kLiteralSize);
  ASSERT_FALSE(plan.trims.empty());
  EXPECT_THAT(plan.trims[0].reason, HasSubstr("literals"));
}

// The journal of an area must hold whatever XSAVE or XSAVES can write there.
TEST(MakePlan, JournalsAreasWholeOnEveryLayout) {
  auto platform = RichKvm();
  EXPECT_EQ(MakePlan(Program{}, platform).area_size, 11008u + 64);
  platform.guest.xsave = xstate::XsaveCpuid::Typical(3, 0x1800);
  // No user component beyond the legacy region: CET's 16 + 24 bytes need the compacted format.
  EXPECT_EQ(MakePlan(Program{}, platform).area_size, 576u + 16 + 24 + 64);
}

TEST(MakePlan, MarksWhatAVcpuDoesNotForget) {
  const auto spoils = [](const Step& step) { return MakePlan(Of({step}), RichKvm()).spoils_vcpu; };
  constexpr auto kXss = static_cast<uint64_t>(program::Msr::kXss);
  constexpr auto kXfd = static_cast<uint64_t>(program::Msr::kXfd);
  EXPECT_TRUE(spoils(Do(Op::kWrmsr, kXfd, 1 << 18)));
  EXPECT_TRUE(spoils(Do(Op::kSetMsr, kXfd, 1 << 18)));
  EXPECT_FALSE(spoils(Do(Op::kWrmsr, kXss, 0x800)));
  EXPECT_FALSE(spoils(Do(Op::kXsetbv, 0, 7)));
  EXPECT_FALSE(spoils(Do(Op::kEvexLoad512, 31, 9)));
}

// Each operation in turn 64 times, with its largest arguments.
TEST(MakePlan, StaysInBoundsFor64OfAnyStep) {
  std::mt19937_64 random(4);
  for (const program::StepRow& row : program::StepTable()) {
    for (const auto& platform : {RichKvm(), RichNative()}) {
      std::vector<Step> steps;
      for (unsigned i = 0; i < program::kMaxSteps; ++i) {
        steps.push_back(plan_testing::DrawStep(row, random));
        if (row.op == Op::kRaw) steps.back().arg[0] = 15;
        // Every second step at the other CPL ends a run.
        if (i % 2 != 0) steps.back() = Do(row.cpl0 ? Op::kMemHeader : Op::kExitHlt);
      }
      const Plan plan = MakePlan(Of(steps), platform);
      EXPECT_LE(plan.code.size(), kCodeSize) << row.name;
      EXPECT_LE(plan.code.size(), kMaxStepCode * plan.rows.size()) << row.name;
      for (const CodeRow& code : plan.rows) {
        EXPECT_LE(code.journal + code.journal_bytes, kJournalSize) << row.name;
      }
    }
  }
}

TEST(MakePlan, JournalAndLiteralPlacesDoNotOverlap) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 100; ++round) {
    const Plan plan = MakePlan(DrawProgram(64, random), RichKvm());
    uint32_t end = 0;
    for (const CodeRow& row : plan.rows) {
      if (row.journal_bytes == 0) continue;
      EXPECT_GE(row.journal, end);
      end = row.journal + row.journal_bytes;
    }
  }
}

// Not a limit, for machines differ: a figure to look at.
TEST(MakePlan, PrintsProgramsPerSecond) {
  std::mt19937_64 random(6);
  std::vector<Program> programs;
  for (int i = 0; i < 2000; ++i) {
    Program p = DrawProgram(8, random);
    std::erase_if(p.steps, [](const Step& s) { return s.op == Op::kMemFill; });
    programs.push_back(p);
  }
  const auto platform = RichKvm();
  std::vector<uint8_t> bytes;
  for (const bool with_bytes : {false, true}) {
    for (const Program& p : programs) MakePlan(p, platform);
    const auto begin = std::chrono::steady_clock::now();
    constexpr int kRounds = 10;
    for (int round = 0; round < kRounds; ++round) {
      for (const Program& p : programs) {
        const Plan plan = MakePlan(p, platform);
        bytes.clear();
        if (with_bytes) AppendPlan(plan, bytes);
      }
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::printf("MakePlan%s: %.0f 8-step programs/s\n", with_bytes ? " and AppendPlan" : "",
                kRounds * static_cast<double>(programs.size()) / seconds.count());
  }
}

}  // namespace
}  // namespace fpswap::plan
