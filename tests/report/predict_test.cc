// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/predict.h"

#include <cstring>

#include "harness/judge/simulator.h"
#include "harness/judge/step_records.h"
#include "oracle/xstate/image.h"
#include "tests/report/export_testing.h"

namespace fpswap::report {
namespace {

Prediction Foresee(const std::string& steps, ExportFormat format = ExportFormat::kC) {
  return Predict(ProgramOf(steps), campaign::EverythingPlatform(), format);
}

uint64_t At(const std::vector<uint8_t>& bytes, size_t offset) {
  return xstate::ReadAt<uint64_t>(bytes, offset);
}

TEST(PredictTest, ARegisterComesBackAsItWasLoaded) {
  const Prediction p = Foresee("sse.load xmm=3 pattern=0x21\nexit.out\nsse.store xmm=3\n");
  ASSERT_TRUE(p.steps[2].journal.IsFixed(0, 16));
  std::vector<uint8_t> loaded(16);
  program::FillPattern(0x21, loaded);
  EXPECT_EQ(p.steps[2].journal.value, loaded);
}

// FCW 0: the stack fault is not masked, and nothing is stored.
TEST(PredictTest, WhatAnInstructionDoesNotStoreIsNoneOfThePrediction) {
  const Prediction p =
      Foresee("sse.load xmm=1 pattern=1\nsse.store xmm=1\nfxrstor slot=3\nx87.fstp\n");
  EXPECT_EQ(p.steps[3].faults, 0u);
  for (size_t i = 0; i < 10; ++i) EXPECT_FALSE(p.steps[3].journal.IsFixed(i, 1)) << i;
}

TEST(PredictTest, XinuseOfAnInitialComponentIsOpenAndOfOneInUseIsNot) {
  const Prediction p = Foresee("k.load k=1 pattern=0x21\nxgetbv ecx=1\n");
  EXPECT_EQ(At(p.steps[1].journal.fixed, 0) & 0xe7, 0x20u) << "others may read as in use or not";
  EXPECT_EQ(At(p.steps[1].journal.value, 0) & 0x20, 0x20u);
}

TEST(PredictTest, ThePointersOfX87AreTheCodesOwn) {
  const Prediction p = Foresee("x87.fld pattern=0x21\nvmm.get_xsave image=0\n");
  const Foretold& image = p.steps[1].data;
  EXPECT_FALSE(image.IsFixed(8, 4)) << "FIP is where the code lies";
  EXPECT_TRUE(image.IsFixed(32, 10)) << "ST0 is not open";
}

TEST(PredictTest, TilesAreOpenWhenXfdHasLetThemGo) {
  const std::string load = "amx.ldtilecfg\namx.tileloadd tile=0 pattern=0x21\n";
  const std::string off_on = "msr.write msr=xfd value=tiledata\nmsr.write msr=xfd value=0\n";
  const Prediction kept = Foresee(load + "amx.tilestored tile=0\n");
  EXPECT_TRUE(kept.steps[2].journal.IsFixed(0, 1024));
  const Prediction open = Foresee(load + off_on + "amx.tilestored tile=0\n");
  EXPECT_FALSE(open.steps[4].journal.IsFixed(0, 1024));
}

TEST(PredictTest, WhatTheMachineDecidesIsOpen) {
  const Prediction p = Foresee("exit.cpuid\nvex.load256 ymm=1 pattern=3\nvmm.get_xsave2 image=0\n");
  EXPECT_FALSE(p.steps[0].journal.IsFixed(0, 4)) << "EAX of CPUID.(0DH,0)";
  EXPECT_FALSE(p.steps[2].data.IsFixed(464, 4)) << "bytes that are the kernel's own";
}

TEST(PredictTest, OnlyWhatTheProgramNamesIsNeeded) {
  EXPECT_EQ(Foresee("x87.fninit\n").components, 3u);
  EXPECT_EQ(Foresee("xsave rfbm=all\n").components, 3u);
  EXPECT_EQ(Foresee("xsave rfbm=avx\n").components, 7u);
  EXPECT_EQ(Foresee("k.load k=1\n").components, 0xe7u);
  EXPECT_EQ(Foresee("vmm.image_write offset=2688 value=1\n").components, 0x203u) << "PKRU's place";
  EXPECT_EQ(Foresee("msr.write msr=xfd value=0\n").components, 0x60003u);
  EXPECT_EQ(Foresee("xsaves rfbm=cet_u\n").supervisor, 0x800u);
}

TEST(PredictTest, WhatARecordedMachineLackedMustBeAbsent) {
  trace::Platform avx = campaign::EverythingPlatform();
  avx.host.xsave.xcr0 = avx.guest.xsave.xcr0 = 7;
  const Prediction p = Predict(ProgramOf("vmm.image_write offset=512 value=0x200\n"
                                         "vmm.set_xsave image=0\n"),
                               avx, ExportFormat::kC);
  EXPECT_EQ(p.absent, 0x200u);
  EXPECT_TRUE(p.steps[1].one_result);
  EXPECT_EQ(p.steps[1].error, EINVAL);
}

TEST(PredictTest, NothingIsForetoldBehindRawCode) {
  const Prediction p = Foresee("sse.store xmm=0\nraw bytes=90\nsse.store xmm=0\n");
  EXPECT_EQ(p.known_until, 1u);
  EXPECT_EQ(p.steps[2].seen, 0u);
}

// Where the code lies is the plan's affair, and no test asserts pointers.
void ExpectKept(const Foretold& told, std::span<const uint8_t> seen, bool area,
                unsigned& compared) {
  for (size_t b = 0; b < std::min(told.value.size(), seen.size()); ++b) {
    if (area && told.value.size() >= 512 && b >= 6 && b < 24 + 64) continue;
    ASSERT_EQ((seen[b] ^ told.value[b]) & told.fixed[b], 0) << "byte " << b;
    ++compared;
  }
}

// What was foretold holds in simulations that had no part in it, on a machine of another kind.
void ExpectForetold(ExportFormat format, trace::Platform platform, unsigned programs,
                    unsigned& compared) {
  program::Rng rng(99);
  platform.can.reset(static_cast<uint8_t>(program::Op::kRaw));
  program::Profile profile = campaign::ProfileFor(platform);
  profile.vcpus = 1;
  for (unsigned n = 0; n < programs; ++n) {
    const program::Program program = program::Generate(rng, profile);
    const Prediction p = Predict(program, platform, format);
    if (p.plan.effective.steps.size() != program.steps.size()) continue;
    trace::Platform machine = p.platform;
    machine.compacted = n % 2 == 0;
    judge::Simulator simulator(machine);
    const plan::Plan plan = plan::MakePlan(p.plan.effective, machine);
    for (int run = 0; run < 10; ++run) {
      const auto records = simulator.Run(plan, rng);
      judge::SortedRecords sorted;
      sorted.Sort(plan, records);
      for (size_t i = 0; i < p.steps.size(); ++i) {
        const judge::StepRecords& seen = sorted.Of(static_cast<unsigned>(i));
        SCOPED_TRACE(program::PrintText(program) + "step " + std::to_string(i));
        const bool area = program::RowOf(program.steps[i]).journal != program::Journal::kNone;
        if (seen.has_journal) ExpectKept(p.steps[i].journal, seen.journal, area, compared);
        const bool image = program.steps[i].op == program::Op::kOsGetRegset;
        if (seen.has_ioctl && image) {
          ExpectKept(p.steps[i].data, seen.ioctl.subspan(sizeof(trace::IoctlRecord)), true,
                     compared);
        }
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(PredictTest, OtherSimulationsNeverContradictAPrediction) {
  trace::Platform platform = campaign::EverythingPlatform();
  platform.target = "kvm";
  unsigned compared = 0;
  ExpectForetold(ExportFormat::kC, platform, 150, compared);
  EXPECT_GT(compared, 100'000u);
}

TEST(PredictTest, NorOneAboutAThread) {
  trace::Platform platform = campaign::EverythingPlatform();
  platform.target = "native";
  platform.vcpus = 1;
  for (const program::StepRow& row : program::StepTable()) {
    const bool image = row.op == program::Op::kImageInit || row.op == program::Op::kImageWrite ||
                       row.op == program::Op::kImageFill;
    const bool exit = row.op >= program::Op::kExitOut && row.op <= program::Op::kExitPageFault;
    if ((row.actor == program::Actor::kVmm && !image) || exit || row.cpl0) {
      platform.can.reset(static_cast<uint8_t>(row.op));
    }
  }
  unsigned compared = 0;
  ExpectForetold(ExportFormat::kThread, platform, 150, compared);
  EXPECT_GT(compared, 100'000u);
}

TEST(PredictTest, AThreadHasTheKernelsXcr0WhateverTheProgramSays) {
  const std::string steps =
      "features x87+sse\nxcr0 x87+sse\nvex.load256 ymm=1 pattern=0x21\n"
      "os.getregset image=0\nxgetbv ecx=0\n";
  const Prediction p = Foresee(steps, ExportFormat::kThread);
  EXPECT_EQ(p.components, 7u);
  EXPECT_EQ(p.steps[0].faults, 0u);
  EXPECT_TRUE(p.steps[1].data.IsFixed(160 + 16, 16));
  EXPECT_FALSE(p.steps[2].journal.IsFixed(0, 8)) << "other machines have more";
}

}  // namespace
}  // namespace fpswap::report
