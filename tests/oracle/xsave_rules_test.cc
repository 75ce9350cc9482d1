// SPDX-License-Identifier: GPL-2.0-or-later
//
// Rules of the save instructions that depend on choices, CPL 0 or parts that are not at hand.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

using xstate::ImageView;
using xstate::ReadAt;

constexpr SaveForm kForms[] = {SaveForm::kXsave, SaveForm::kXsaveopt, SaveForm::kXsavec,
                               SaveForm::kXsaves};

TEST(XsaveRules, FaultInTheManualsOrderAndChangeNothing) {
  const Features features = Everything();
  FixedChoices choices;
  for (const SaveForm form : kForms) {
    std::vector<uint8_t> area = Area();
    Cpu cpu = Supervisor(features);
    cpu.cr4_osxsave = false;
    cpu.cr0_ts = true;
    EXPECT_EQ(cpu.Xsave(form, area, kArea + 1, ~0ull, true, choices), (Fault{kUD, 0}));
    cpu.cr4_osxsave = true;
    EXPECT_EQ(cpu.Xsave(form, area, kArea + 1, ~0ull, true, choices), (Fault{kNM, 0}));
    cpu.cr0_ts = false;
    EXPECT_EQ(cpu.Xsave(form, area, kArea + 1, ~0ull, true, choices), (Fault{kGP, 0}));
    EXPECT_EQ(cpu.Xsave(form, area, kArea + 32, ~0ull, true, choices), (Fault{kGP, 0}));
    EXPECT_EQ(area, Area());
    EXPECT_EQ(cpu.Xsave(form, area, kArea, ~0ull, true, choices), std::nullopt);
    cpu.cpl = 3;
    EXPECT_EQ(cpu.Xsave(form, area, kArea, ~0ull, true, choices).has_value(),
              form == SaveForm::kXsaves);
  }
}

TEST(XsaveRules, AreUndefinedWhereTheFormIsNotEnumerated) {
  Features features = Everything();
  features.xsave.xsaveopt = features.xsave.xsavec = features.xsave.xsaves = false;
  Cpu cpu = Supervisor(features);
  cpu.cr0_ts = true;
  FixedChoices choices;
  std::vector<uint8_t> area = Area();
  for (const SaveForm form : {SaveForm::kXsaveopt, SaveForm::kXsavec, SaveForm::kXsaves}) {
    EXPECT_EQ(cpu.Xsave(form, area, kArea, ~0ull, true, choices), (Fault{kUD, 0}));
  }
}

TEST(XsaveRules, XsavecMarksAndStoresSseForMxcsrAlone) {
  const Features features = Everything();
  for (const uint32_t mxcsr : {0x1f80u, 0x1f81u, 0x0000u}) {
    Cpu cpu = Supervisor(features);
    cpu.SetMxcsr(mxcsr);
    FixedChoices choices(/*in_use=*/false);
    std::vector<uint8_t> area = Area();
    ASSERT_EQ(cpu.Xsave(SaveForm::kXsavec, area, kArea, 7, true, choices), std::nullopt);
    const bool stored = mxcsr != 0x1f80;
    EXPECT_EQ(ImageView(area).xstate_bv(), stored ? 2u : 0u);
    EXPECT_EQ(ImageView(area).xcomp_bv(), xstate::kXcompBvCompacted | 7);
    EXPECT_EQ(ImageView(area).mxcsr(), stored ? mxcsr : 0xcccccccc);
    EXPECT_EQ(ImageView(area).xmm(15)[15], stored ? 0 : 0xcc);
    // AVX alone doesn't bring MXCSR with it.
    area = Area();
    ASSERT_EQ(cpu.Xsave(SaveForm::kXsavec, area, kArea, 4, true, choices), std::nullopt);
    EXPECT_EQ(ImageView(area).xstate_bv(), 0u);
    EXPECT_EQ(ImageView(area).mxcsr(), 0xccccccccu);
  }
}

TEST(XsaveRules, XsavesTakesSupervisorComponentsAndXsavecDoesNot) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  cpu.regs.cet_u = {1, 0x1000};
  FixedChoices choices;
  std::vector<uint8_t> area = Area();
  const uint64_t rfbm = Component::kCetU | Component::kPkru;
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaves, area, kArea, rfbm, true, choices), std::nullopt);
  EXPECT_EQ(ImageView(area).xcomp_bv(), xstate::kXcompBvCompacted | rfbm);
  EXPECT_EQ(ImageView(area).xstate_bv(), Bit(Component::kCetU));
  EXPECT_EQ(ReadAt<uint64_t>(area, 576 + 8), 1u);
  EXPECT_EQ(ReadAt<uint64_t>(area, 576 + 16), 0x1000u);
  EXPECT_EQ(area[576], 0xcc);  // PKRU is initial: its place is left alone
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsavec, area, kArea, rfbm, true, choices), std::nullopt);
  EXPECT_EQ(ImageView(area).xcomp_bv(), xstate::kXcompBvCompacted | Component::kPkru);
}

// 13.14.
TEST(XsaveRules, ActAsIfDisabledTilesWereInitial) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  const std::vector<uint8_t> tiles(8192, 0x77);
  cpu.LoadComponent(Component::kTiledata, tiles);
  const uint64_t tiledata = Bit(Component::kTiledata);
  FixedChoices choices(/*in_use=*/true);
  for (const SaveForm form : kForms) {
    const bool compacted = form == SaveForm::kXsavec || form == SaveForm::kXsaves;
    const uint32_t at = compacted ? 576 : 2816;
    cpu.xfd = 0;
    std::vector<uint8_t> area = Area();
    ASSERT_EQ(cpu.Xsave(form, area, kArea, tiledata, true, choices), std::nullopt);
    EXPECT_EQ(area[at + 8191], 0x77);
    cpu.xfd = tiledata;
    area = Area();
    ASSERT_EQ(cpu.Xsave(form, area, kArea, tiledata, true, choices), std::nullopt);
    EXPECT_EQ(ImageView(area).xstate_bv() & tiledata, 0u);
    EXPECT_EQ(area[at + 8191], form == SaveForm::kXsave ? 0x00 : 0xcc);
    EXPECT_EQ(cpu.xfd_err, 0u);
  }
  uint64_t xinuse = 0;
  ASSERT_EQ(cpu.Xgetbv(1, &xinuse, choices), std::nullopt);
  EXPECT_EQ(xinuse & tiledata, tiledata);  // XGETBV(1) still tells of them
}

TEST(XsaveRules, OfferToOmitOnlyWhatIsUnmodifiedSinceAnXrstorOfTheSameArea) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  std::vector<uint8_t> image = EmptyImage();
  std::fill(image.begin() + 160, image.begin() + 416, uint8_t{1});
  std::fill(image.begin() + 576, image.begin() + 832, uint8_t{2});
  xstate::MutableImage(image).set_xstate_bv(6);
  ASSERT_EQ(cpu.Xrstor(image, kArea, 6, true), std::nullopt);
  const auto offered = [&](SaveForm form, uint64_t address, uint64_t rfbm) {
    FixedChoices choices;
    std::vector<uint8_t> area = Area();
    EXPECT_EQ(cpu.Xsave(form, area, address, rfbm, true, choices), std::nullopt);
    return choices.omittable;
  };
  EXPECT_EQ(offered(SaveForm::kXsaveopt, kArea, 7), 6u);
  EXPECT_EQ(offered(SaveForm::kXsaveopt, kArea + 64, 7), 0u);
  EXPECT_EQ(offered(SaveForm::kXsave, kArea, 7), 0u);
  EXPECT_EQ(offered(SaveForm::kXsaves, kArea, 7), 0u);  // the XRSTOR was standard
  cpu.cpl = 3;
  EXPECT_EQ(offered(SaveForm::kXsaveopt, kArea, 7), 0u);
  cpu.cpl = 0;
  ASSERT_EQ(cpu.WriteVector(Cpu::Encoding::kVex256, 3, std::vector<uint8_t>(32, 9)), std::nullopt);
  EXPECT_EQ(offered(SaveForm::kXsaveopt, kArea, 7), 0u);
  ASSERT_EQ(cpu.Xrstor(image, kArea, 4, true), std::nullopt);  // SSE keeps what it holds
  EXPECT_EQ(offered(SaveForm::kXsaveopt, kArea, 7), 4u);
}

TEST(XsaveRules, XsavesKeepsMxcsrTogetherWithXmmWhenItOmits) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  std::vector<uint8_t> image = EmptyImage(7);
  std::fill(image.begin() + 160, image.begin() + 416, uint8_t{1});
  xstate::MutableImage(image).set_xstate_bv(2);
  ASSERT_EQ(cpu.Xrstors(image, kArea, 7, true), std::nullopt);
  FixedChoices choices(false, /*omit=*/true);
  std::vector<uint8_t> area = Area();
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaves, area, kArea, 7, true, choices), std::nullopt);
  EXPECT_EQ(choices.omittable, 2u);
  EXPECT_EQ(ImageView(area).mxcsr(), 0xccccccccu);
  EXPECT_EQ(ImageView(area).xstate_bv(), 2u);
  // Written back to 1F80H it is modified all the same.
  ASSERT_EQ(cpu.Ldmxcsr(0x1f80), std::nullopt);
  choices.omittable = 0;
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaves, area, kArea, 7, true, choices), std::nullopt);
  EXPECT_EQ(choices.omittable, 0u);
  EXPECT_EQ(ImageView(area).mxcsr(), 0x1f80u);
  // And where it isn't 1F80H, SSE is always stored.
  area = Area();
  xstate::MutableImage(image).set_mxcsr(0x1f81);
  ASSERT_EQ(cpu.Xrstors(image, kArea, 7, true), std::nullopt);
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaves, area, kArea, 7, true, choices), std::nullopt);
  EXPECT_EQ(ImageView(area).mxcsr(), 0x1f81u);
  EXPECT_EQ(ImageView(area).xmm(0)[0], 1);
}

TEST(FxsaveRules, MaySkipSseStateWithoutOsfxsr) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  cpu.cr4_osfxsr = false;
  for (const bool omit : {false, true}) {
    FixedChoices choices(false, omit);
    std::vector<uint8_t> area = Area();
    ASSERT_EQ(cpu.Fxsave(area, kArea, true, choices), std::nullopt);
    EXPECT_EQ(ImageView(area).mxcsr(), omit ? 0xccccccccu : 0x1f80u);
    EXPECT_EQ(ImageView(area).fcw(), 0x37f);
  }
  FixedChoices choices;
  std::vector<uint8_t> area = Area();
  EXPECT_EQ(cpu.Fxsave(area, kArea + 8, true, choices), (Fault{kGP, 0}));
  cpu.cr0_ts = true;
  EXPECT_EQ(cpu.Fxsave(area, kArea + 8, true, choices), (Fault{kNM, 0}));
  EXPECT_EQ(area, Area());
}

// FXRSTOR too may pass over XMM and MXCSR there, and is then no #GP for what it does not load.
TEST(FxrstorRules, MayPassOverABadMxcsrWithoutOsfxsrAndNowhereElse) {
  const Features features = Everything();
  std::vector<uint8_t> image = EmptyImage();
  xstate::MutableImage(image).set_mxcsr(0x80000000);
  for (const bool osfxsr : {false, true}) {
    for (const bool skips : {false, true}) {
      Cpu cpu = Supervisor(features);
      cpu.cr4_osfxsr = osfxsr;
      const bool loads = osfxsr || !skips;
      const Result due = loads ? Result(Fault{kGP, 0}) : std::nullopt;
      EXPECT_EQ(cpu.Fxrstor(image, kArea, true, skips), due);
      EXPECT_EQ(cpu.regs.mxcsr, kInitialMxcsr);
      EXPECT_EQ(cpu.unknown, loads ? 0 : Bit(Component::kSse));
      EXPECT_EQ(cpu.Fxrstor(image, kArea + 8, true, skips), (Fault{kGP, 0}));
    }
  }
}

// What XRSTOR initialised is not what the area holds. A CPU that declares it in use and leaves it
// out all the same corrupts it: corpus/known/amd-avx-initial-under-zmm.
TEST(XsaveRules, OfferNotToOmitWhatXrstorInitialised) {
  const Features f = Everything();
  Cpu cpu = Supervisor(f);
  std::vector<uint8_t> area = Area(0);
  xstate::MutableImage(area).set_xstate_bv(Component::kSse | Component::kZmmHi256);
  for (size_t i = 160; i < 416; ++i) area[i] = 1;
  ASSERT_EQ(cpu.Xrstor(area, kArea, kAllUser, false), std::nullopt);
  FixedChoices choices(/*in_use=*/true, /*omit=*/true);
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaveopt, area, kArea, kAllUser, false, choices), std::nullopt);
  EXPECT_EQ(choices.omittable & xstate::Bit(Component::kAvx), 0u);
  EXPECT_NE(choices.omittable & xstate::Bit(Component::kSse), 0u);
}

// SDM 13.5.7; recorded on Sapphire Rapids.
TEST(XsaveRules, LeaveTheUnusedBytesOfPkruAlone) {
  const Features f = Everything();
  Cpu cpu = Supervisor(f);
  cpu.regs.pkru = 0x54;
  std::vector<uint8_t> area = Area();
  FixedChoices choices;
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsave, area, kArea, kAllUser, false, choices), std::nullopt);
  EXPECT_EQ(xstate::ReadAt<uint64_t>(area, f.xsave.sub[9].offset), 0xcccccccc00000054u);
}

}  // namespace
}  // namespace fpswap::cpu::testing
