// SPDX-License-Identifier: GPL-2.0-or-later
//
// Several vCPUs, by records written by hand: each has its own state, what is one's must not show in
// another, and what they share is what they share.
#include <cerrno>

#include "tests/judge/judge_testing.h"

namespace fpswap::judge {
namespace {

using xstate::Component;

class VcpusTest : public JudgeTest {
 protected:
  // An image with ZMM17 holding `pattern`.
  std::vector<uint8_t> Zmm17(uint16_t pattern) {
    std::vector<uint8_t> image = FreshImage(platform_);
    const auto zmm = PatternBytes(pattern, 64);
    std::memcpy(&image[platform_.host.xsave.sub[7].offset + 64], zmm.data(), 64);
    Put<uint64_t>(image, 512, 0x80);
    return image;
  }
};

TEST_F(VcpusTest, EachHasItsOwnState) {
  const auto plan = PlanOf(
      "vcpus 2\nevex.load512 reg=17 pattern=0x1234\n1: evex.load512 reg=17 pattern=0x4321\n"
      "vmm.get_xsave image=0\n1: vmm.get_xsave image=1\n",
      platform_);
  const auto verdict =
      Check(plan, Records(plan).Ioctl(2, 0, 0, Zmm17(0x1234)).Ioctl(3, 0, 0, Zmm17(0x4321)).End());
  EXPECT_TRUE(verdict.ok()) << Told(verdict);
}

TEST_F(VcpusTest, AnothersRegisterBreaksIsolation) {
  for (const char* placement : {"", "own_vm 1\n", "own_thread 1\n"}) {
    const auto plan = PlanOf(std::string("vcpus 2\n") + placement +
                                 "evex.load512 reg=17 pattern=0x1234\n"
                                 "1: evex.load512 reg=17 pattern=0x4321\nvmm.get_xsave image=0\n",
                             platform_);
    const auto verdict = Check(plan, Records(plan).Ioctl(2, 0, 0, Zmm17(0x4321)).End());
    const Divergence& d = First(verdict);
    EXPECT_EQ(d.law, Law::kIsolation) << Told(verdict);
    EXPECT_EQ(d.relation, Relation::kAnothers);
    EXPECT_EQ(d.component, Component::kHi16Zmm);
    EXPECT_NE(d.words.find("of another vCPU"), std::string::npos) << d.words;
  }
}

// Too few bytes to prove a leak: they are told by their place, and the law stays.
TEST_F(VcpusTest, AnothersMxcsrIsAnothers) {
  const auto plan = PlanOf(
      "vcpus 2\nsse.load xmm=1 pattern=7\n1: sse.ldmxcsr value=0x1fa0\nvmm.get_xsave image=0\n",
      platform_);
  auto image = FreshImage(platform_);
  const auto xmm = PatternBytes(7, 16);
  std::memcpy(&image[160 + 16], xmm.data(), 16);
  Put<uint64_t>(image, 512, 2);
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(2, 0, 0, image).End()).ok());
  Put<uint32_t>(image, 24, 0x1fa0);
  const auto verdict = Check(plan, Records(plan).Ioctl(2, 0, 0, image).End());
  EXPECT_EQ(First(verdict).law, Law::kCoherence) << Told(verdict);
  EXPECT_EQ(First(verdict).relation, Relation::kAnothers);
}

// What the VMM itself has brought over is no leak, whatever else is wrong about it.
TEST_F(VcpusTest, AnothersBytesThatAnImageHoldsKeepTheirLaw) {
  const auto plan = PlanOf(
      "vcpus 2\n1: evex.load512 reg=17 pattern=0x4321\n1: vmm.get_xsave image=2\n"
      "evex.load512 reg=17 pattern=0x1234\nvmm.get_xsave image=0\n",
      platform_);
  const auto verdict =
      Check(plan, Records(plan).Ioctl(1, 0, 0, Zmm17(0x4321)).Ioctl(3, 0, 0, Zmm17(0x4321)).End());
  EXPECT_EQ(First(verdict).law, Law::kCoherence) << Told(verdict);
  EXPECT_EQ(First(verdict).relation, Relation::kAnothers);
}

TEST_F(VcpusTest, AnOldValueOfItsOwnIsStaleThoughAnotherHasItToo) {
  const auto plan = PlanOf(
      "vcpus 2\nevex.load512 reg=17 pattern=0x1234\nevex.load512 reg=17 pattern=0x77\n"
      "1: evex.load512 reg=17 pattern=0x1234\nvmm.get_xsave image=0\n",
      platform_);
  const auto verdict = Check(plan, Records(plan).Ioctl(3, 0, 0, Zmm17(0x1234)).End());
  EXPECT_EQ(First(verdict).relation, Relation::kStale) << Told(verdict);
  EXPECT_EQ(First(verdict).law, Law::kCoherence);
}

TEST_F(VcpusTest, ARefusedSetOfOneChangesNoOther) {
  const auto plan = PlanOf(
      "vcpus 2\n1: evex.load512 reg=17 pattern=0x4321\n1: vmm.get_xsave image=0\n"
      "vmm.image_write image=0 offset=520 value=1\nvmm.set_xsave image=0\nvmm.get_xsave image=1\n",
      platform_);
  const auto with = [&](const std::vector<uint8_t>& after) {
    return Check(plan, Records(plan)
                           .Ioctl(1, 0, 0, Zmm17(0x4321))
                           .Ioctl(2, 0)
                           .Ioctl(3, -1, EINVAL)
                           .Ioctl(4, 0, 0, after)
                           .End());
  };
  EXPECT_TRUE(with(FreshImage(platform_)).ok()) << Told(with(FreshImage(platform_)));
  EXPECT_FALSE(with(Zmm17(0x4321)).ok());
}

TEST_F(VcpusTest, TheVmsHostThreadMustNotHoldAnothersBytes) {
  const auto plan = PlanOf("vcpus 2\nsse.load xmm=7 pattern=0x999\n1: exit.out\n", platform_);
  const trace::ExitRecord out{.reason = 2, .where = 0xe1, .data = 1, .size = 4, .is_write = 1};
  auto before = FreshImage(platform_), after = before;
  const auto xmm = PatternBytes(0x999, 16);
  std::memcpy(&after[160], xmm.data(), 16);
  const auto verdict = Check(plan, Records(plan).Exit(1, out).Canary(1, 2, before, after).End());
  EXPECT_EQ(First(verdict).law, Law::kIsolation) << Told(verdict);
  EXPECT_EQ(First(verdict).relation, Relation::kAnothers);
}

// Bytes 464-511 of an area are no instruction's to write: what one vCPU puts there, another finds.
TEST_F(VcpusTest, SlotsAreSharedInOneVmAndApartInTwo) {
  const std::string steps =
      "mem.fill slot=1 offset=464 length=8 pattern=9\n1: xsave slot=1 rfbm=0\n";
  const auto shared = PlanOf("vcpus 2\n" + steps, platform_);
  const auto apart = PlanOf("vcpus 2\nown_vm 1\n" + steps, platform_);
  std::vector<uint8_t> zeros(shared.rows[1].journal_bytes), filled = zeros;
  const auto bytes = PatternBytes(9, 8);
  std::memcpy(&filled[464], bytes.data(), 8);
  EXPECT_TRUE(Check(shared, Records(shared).Journal(1, filled).End()).ok());
  EXPECT_FALSE(Check(shared, Records(shared).Journal(1, zeros).End()).ok());
  EXPECT_TRUE(Check(apart, Records(apart).Journal(1, zeros).End()).ok());
  EXPECT_FALSE(Check(apart, Records(apart).Journal(1, filled).End()).ok());
}

// With two VMs the same judge, a program later, must find no slot of the first one's.
TEST_F(VcpusTest, NoProgramFindsSlotsOfAnEarlierOne) {
  const auto first =
      PlanOf("vcpus 2\nown_vm 1\n1: mem.fill slot=1 offset=464 length=8 pattern=9\n", platform_);
  EXPECT_TRUE(Check(first, Records(first).End()).ok());
  const auto second = PlanOf("vcpus 2\nown_vm 1\n1: xsave slot=1 rfbm=0\n", platform_);
  const std::vector<uint8_t> zeros(second.rows[0].journal_bytes);
  EXPECT_TRUE(Check(second, Records(second).Journal(0, zeros).End()).ok());
}

TEST_F(VcpusTest, AMigrationMovesTheVmAndNoOther) {
  const std::string steps =
      "vcpus 2\nevex.load512 reg=17 pattern=0x1234\n1: vmm.migrate order=0\n"
      "vmm.get_xsave image=0\n";
  const auto law = [&](const std::string& placement) {
    const auto plan = PlanOf(placement + steps, platform_);
    return First(Check(plan, Records(plan).Ioctl(1, 0).Ioctl(2, 0, 0, FreshImage(platform_)).End()))
        .law;
  };
  EXPECT_EQ(law(""), Law::kRoundTrip);
  EXPECT_EQ(law("own_vm 1\n"), Law::kCoherence);
}

TEST_F(VcpusTest, AForkedChildIsRefusedTheVcpu) {
  const auto plan = PlanOf("host.fork\n", platform_);
  EXPECT_TRUE(Check(plan, Records(plan).Host(0, EIO).End()).ok());
  const auto accepted = Check(plan, Records(plan).Host(0, 0).End());
  EXPECT_EQ(First(accepted).law, Law::kIsolation);
  EXPECT_EQ(First(accepted).relation, Relation::kAccepted);
  const auto wrong = Check(plan, Records(plan).Host(0, EINTR).End());
  EXPECT_EQ(First(wrong).relation, Relation::kWrongError);
}

}  // namespace
}  // namespace fpswap::judge
