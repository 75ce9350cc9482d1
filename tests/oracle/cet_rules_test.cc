// SPDX-License-Identifier: GPL-2.0-or-later
//
// The MSRs of CET, by the manual (SDM vol. 1, 17.2; vol. 4, table 2-2): who has them, what they
// take, and that XSAVES and XRSTORS hold the same registers.
#include <gtest/gtest.h>

#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

constexpr Fault kProtection{kGP, 0};
constexpr uint32_t kFlagMsrs[] = {0x6a0, 0x6a2};               // IA32_U_CET, IA32_S_CET
constexpr uint32_t kSspMsrs[] = {0x6a4, 0x6a5, 0x6a6, 0x6a7};  // IA32_PL0_SSP to IA32_PL3_SSP

Result Write(const Features& features, uint32_t msr, uint64_t value) {
  Cpu cpu = Supervisor(features);
  const Result result = cpu.Wrmsr(msr, value);
  uint64_t now = 0x5555;
  EXPECT_EQ(cpu.Rdmsr(msr, &now), std::nullopt) << std::hex << msr;
  EXPECT_EQ(now, result ? 0 : value) << std::hex << msr;
  return result;
}

TEST(CetMsrs, FlagsTakeTheBitsOfTheFeaturesThatAreThere) {
  struct Case {
    bool ss, ibt;
    uint64_t bits;  // below 12, each by itself
  };
  for (const Case& c :
       {Case{true, true, 0xc3f}, Case{true, false, 0x3}, Case{false, true, 0xc3c}}) {
    Features features = Everything();
    features.cet_ss = c.ss;
    features.cet_ibt = c.ibt;
    for (const uint32_t msr : kFlagMsrs) {
      for (unsigned bit = 0; bit < 12; ++bit) {
        const bool legal = ((c.bits >> bit) & 1) != 0;
        EXPECT_EQ(Write(features, msr, uint64_t{1} << bit), legal ? Result() : kProtection)
            << std::hex << msr << " bit " << bit;
      }
      // A legacy bitmap's base needs tracking.
      EXPECT_EQ(Write(features, msr, 0x7fff12345000), c.ibt ? Result() : kProtection);
    }
  }
}

TEST(CetMsrs, FlagsRefuseSuppressWithTrackerAndABaseThatIsNotCanonical) {
  Features features = Everything();
  for (const uint32_t msr : kFlagMsrs) {
    EXPECT_EQ(Write(features, msr, 0xc00), kProtection);
    EXPECT_EQ(Write(features, msr, 0x0000800000000000), kProtection);
    EXPECT_EQ(Write(features, msr, 0xffff800000000000), std::nullopt);
  }
}

TEST(CetMsrs, PointersAreCanonicalAndAlignedToFour) {
  Features features = Everything();
  for (const uint32_t msr : kSspMsrs) {
    for (const uint64_t low : {1, 2, 3}) EXPECT_EQ(Write(features, msr, 0x1000 + low), kProtection);
    EXPECT_EQ(Write(features, msr, 0x1004), std::nullopt);
    EXPECT_EQ(Write(features, msr, 0x00007ffffffffffc), std::nullopt);
    EXPECT_EQ(Write(features, msr, 0x0000800000000000), kProtection);
    EXPECT_EQ(Write(features, msr, 0xffff7ffffffffffc), kProtection);
    EXPECT_EQ(Write(features, msr, 0xfffffffffffffffc), std::nullopt);
    features.la57 = true;
    EXPECT_EQ(Write(features, msr, 0x0000800000000000), std::nullopt);
    EXPECT_EQ(Write(features, msr, 0x0100000000000000), kProtection);
    features.la57 = false;
  }
}

TEST(CetMsrs, AreThereAtCpl0WithTheirFeatureOnly) {
  Features features = Everything();
  uint64_t value = 0;
  for (const uint32_t msr : {0x6a0u, 0x6a2u, 0x6a4u, 0x6a5u, 0x6a6u, 0x6a7u}) {
    Cpu cpu = Supervisor(features);
    cpu.cpl = 3;
    EXPECT_EQ(cpu.Rdmsr(msr, &value), kProtection);
    EXPECT_EQ(cpu.Wrmsr(msr, 0), kProtection);
  }
  features.cet_ss = false;
  for (const uint32_t msr : kSspMsrs) {
    EXPECT_EQ(Supervisor(features).Rdmsr(msr, &value), kProtection);
  }
  features.cet_ibt = false;
  for (const uint32_t msr : kFlagMsrs) {
    EXPECT_EQ(Supervisor(features).Rdmsr(msr, &value), kProtection);
  }
}

TEST(CetMsrs, AreWhatXsavesSavesAndXrstorsLoads) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  uint64_t expected = 0x1000;
  for (const uint32_t msr : {0x6a0u, 0x6a7u, 0x6a4u, 0x6a5u, 0x6a6u, 0x6a2u}) {
    ASSERT_EQ(cpu.Wrmsr(msr, expected), std::nullopt) << std::hex << msr;
    expected += 0x1000;
  }
  FixedChoices choices;
  std::vector<uint8_t> area = Area(0);
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaves, area, kArea, kAllSupervisor, true, choices), std::nullopt);
  const xstate::ImageView image(area);
  EXPECT_EQ(image.xstate_bv(), kAllSupervisor);
  // CET_U at 576: IA32_U_CET, IA32_PL3_SSP; CET_S behind it: IA32_PL0_SSP, PL1, PL2 (13.5.9).
  for (uint64_t n = 0; n < 5; ++n) {
    EXPECT_EQ(xstate::ReadAt<uint64_t>(area, 576 + 8 * n), 0x1000 * (n + 1)) << n;
  }
  Cpu other = Supervisor(features);
  ASSERT_EQ(other.Xrstors(area, kArea, kAllSupervisor, true), std::nullopt);
  uint64_t value = 0;
  ASSERT_EQ(other.Rdmsr(0x6a7, &value), std::nullopt);
  EXPECT_EQ(value, 0x2000u);
  ASSERT_EQ(other.Rdmsr(0x6a2, &value), std::nullopt);
  EXPECT_EQ(value, 0u) << "IA32_S_CET is in no area";
  // What WRMSR refuses XRSTORS refuses.
  xstate::WriteAt(std::span(area), 576 + 8, uint64_t{0x2001});
  EXPECT_EQ(other.Xrstors(area, kArea, kAllSupervisor, true), kProtection);
}

TEST(CetMsrs, WritesEndTheModifiedOptimisation) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  std::vector<uint8_t> area = EmptyImage(kAllSupervisor);
  xstate::MutableImage(area).set_xstate_bv(kAllSupervisor);
  ASSERT_EQ(cpu.Xrstors(area, kArea, kAllSupervisor, true), std::nullopt);
  ASSERT_EQ(cpu.Wrmsr(Cpu::kMsrPl1Ssp, 0x1000), std::nullopt);
  FixedChoices choices(/*in_use=*/true, /*omit=*/true);
  ASSERT_EQ(cpu.Xsave(SaveForm::kXsaves, area, kArea, kAllSupervisor, true, choices), std::nullopt);
  EXPECT_EQ(choices.omittable, Bit(Component::kCetU));
}

}  // namespace
}  // namespace fpswap::cpu::testing
