// SPDX-License-Identifier: GPL-2.0-or-later
//
// oracle/kvm and oracle/worlds: the rules by themselves.
#include <gtest/gtest.h>

#include <cstring>

#include "oracle/kvm/uabi.h"
#include "oracle/worlds/worlds.h"
#include "oracle/xstate/image.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::kvm {
namespace {

using judge::Put;
using xstate::Component;

class VcpuTest : public testing::Test {
 protected:
  VcpuTest() : features_(judge::TestFeatures(0x602e7)), vcpu_(features_, host_) {
    host_.xsave = features_.xsave;
    host_.supported = host_.user_features = 0x602e7;
    host_.image_size = 11008;
    vcpu_.cpu.xcr0 = 0x602e7;
    image_.resize(host_.image_size);
    Put<uint16_t>(image_, 0, 0x37f);
    Put<uint32_t>(image_, 24, 0x1f80);
  }
  Status Set(uint64_t xstate_bv) {
    Put<uint64_t>(image_, 512, xstate_bv);
    return vcpu_.SetXsave(image_);
  }
  std::vector<uint8_t> Get() {
    std::vector<uint8_t> out(host_.image_size);
    ExpectXsave(vcpu_, {}, out);
    return out;
  }

  cpu::Features features_;
  Host host_;
  Vcpu vcpu_;
  std::vector<uint8_t> image_;
};

TEST_F(VcpuTest, GetXsaveCantHoldALargeImage) {
  EXPECT_EQ(vcpu_.GetXsaveStatus().error, EINVAL);
  host_.image_size = 4096;
  EXPECT_TRUE(vcpu_.GetXsaveStatus().ok());
}

TEST_F(VcpuTest, SetXsaveRefusesWhatTheHostLacksBeforeItChangesAnything) {
  vcpu_.cpu.regs.mxcsr = 0x3f80;
  vcpu_.cpu.regs.x87.fcw = 0x27f;
  struct {
    size_t offset;
    uint64_t value;
    uint64_t bv;
  } const kBad[] = {{0, 0x37f, 8}, {0, 0x37f, 1ull << 62}, {520, 1, 1},        {528, 1, 1},
                    {568, 1, 1},   {24, 0xffffffff, 1},    {24, 0xffffffff, 4}};
  for (const auto& bad : kBad) {
    const auto good = image_;
    Put<uint64_t>(image_, bad.offset, bad.value);
    EXPECT_EQ(Set(bad.bv).error, EINVAL) << bad.offset;
    EXPECT_EQ(vcpu_.cpu.regs.mxcsr, 0x3f80u);
    EXPECT_EQ(vcpu_.cpu.regs.x87.fcw, 0x27f);
    image_ = good;
  }
}

TEST_F(VcpuTest, ABadMxcsrIsNoMatterWithoutX87SseAndAvx) {
  Put<uint32_t>(image_, 24, 0xffffffff);
  EXPECT_TRUE(Set(0x20).ok());
  EXPECT_EQ(vcpu_.cpu.regs.mxcsr, 0x1f80u);  // compacted: XRSTORS initialises it
}

TEST_F(VcpuTest, ComponentsThatXfdDisablesAreDroppedNotRefused) {
  vcpu_.cpu.xfd = Bit(Component::kTiledata);
  image_[2816] = 7;
  EXPECT_TRUE(Set(0x40000).ok());
  EXPECT_TRUE(vcpu_.cpu.IsInitial(Component::kTiledata));
  vcpu_.cpu.xfd = 0;
  EXPECT_TRUE(Set(0x40000).ok());
  EXPECT_FALSE(vcpu_.cpu.IsInitial(Component::kTiledata));
}

TEST_F(VcpuTest, AnImageWithoutPkruLeavesPkruAlone) {
  vcpu_.cpu.regs.pkru = 0x55;
  EXPECT_TRUE(Set(0).ok());
  EXPECT_EQ(vcpu_.cpu.regs.pkru, 0x55u);
  EXPECT_TRUE(Set(0x200).ok());
  EXPECT_EQ(vcpu_.cpu.regs.pkru, 0u);
}

TEST_F(VcpuTest, AbsentComponentsBecomeInitial) {
  vcpu_.cpu.regs.zmm[3][20] = 1;
  vcpu_.cpu.regs.k[2] = 5;
  EXPECT_TRUE(Set(0).ok());
  EXPECT_TRUE(vcpu_.cpu.IsInitial(Component::kAvx));
  EXPECT_TRUE(vcpu_.cpu.IsInitial(Component::kOpmask));
}

TEST_F(VcpuTest, AnImageMayComeBackAsItWasGivenUntilItChanges) {
  Put<uint16_t>(image_, 0, 0);        // FCW: reads as 0040H
  std::memset(&image_[42], 0xaa, 6);  // pad of ST0
  ASSERT_TRUE(Set(1).ok());
  std::vector<uint8_t> raw = Get();
  EXPECT_EQ(raw[0], 0x40);
  std::vector<uint8_t> out(raw.size());
  Put<uint16_t>(raw, 0, 0);
  std::memset(&raw[42], 0xaa, 6);
  ExpectXsave(vcpu_, raw, out);
  EXPECT_EQ(out, raw);
  vcpu_.cpu.regs.x87.fsw = 0x100;
  ExpectXsave(vcpu_, raw, out);
  EXPECT_NE(out, raw);
}

TEST_F(VcpuTest, ComponentsThatTheGuestLacksAreTakenAndNotShown) {
  const cpu::Features fewer = judge::TestFeatures(0x207);
  vcpu_.cpu.features = &fewer;
  EXPECT_TRUE(Set(0x20).ok());
  EXPECT_EQ(xstate::ImageView(Get()).xstate_bv() & 0x20, 0u);
}

TEST_F(VcpuTest, SetXcrsChecksCountAndFlagsFirstAndPassesOverOtherXcrs) {
  EXPECT_EQ(vcpu_.SetXcrs(17, 0, 1, 0).error, EINVAL);
  EXPECT_EQ(vcpu_.SetXcrs(1, 0, 1, 1).error, EINVAL);
  EXPECT_TRUE(vcpu_.SetXcrs(1, 5, 0, 0).ok());
  EXPECT_TRUE(vcpu_.SetXcrs(0, 0, 0, 0).ok());
  EXPECT_EQ(vcpu_.cpu.xcr0, 0x602e7u);
  EXPECT_EQ(vcpu_.SetXcrs(1, 0, 5, 0).error, EINVAL);
  EXPECT_TRUE(vcpu_.SetXcrs(2, 0, 7, 0).ok());
  EXPECT_EQ(vcpu_.cpu.xcr0, 7u);
}

TEST_F(VcpuTest, SetXcrsTakesTheFirstEntryForXcr0Alone) {
  const auto set = [&](Xcr first, Xcr second) {
    vcpu_.cpu.xcr0 = 1;
    return vcpu_.SetXcrs(2, std::array{first, second}, 0).error;
  };
  EXPECT_EQ(set({0, 3}, {0, 7}), 0);
  EXPECT_EQ(vcpu_.cpu.xcr0, 3u);
  EXPECT_EQ(set({0, 3}, {0, 5}), 0);  // nobody looks at the second
  EXPECT_EQ(vcpu_.cpu.xcr0, 3u);
  EXPECT_EQ(set({0, 5}, {0, 3}), EINVAL);
  EXPECT_EQ(vcpu_.cpu.xcr0, 1u);
  EXPECT_EQ(set({1, 5}, {0, 7}), 0);
  EXPECT_EQ(vcpu_.cpu.xcr0, 7u);
  EXPECT_EQ(set({1, 5}, {0, 5}), EINVAL);
  EXPECT_EQ(vcpu_.cpu.xcr0, 1u);
}

TEST_F(VcpuTest, MsrsTakeTheGuestsBitsAlone) {
  EXPECT_EQ(vcpu_.SetMsr(cpu::Cpu::kMsrXfd, 0x20000).result, 0);
  EXPECT_EQ(vcpu_.SetMsr(cpu::Cpu::kMsrXfd, 0x40000).result, 1);
  EXPECT_EQ(vcpu_.SetMsr(cpu::Cpu::kMsrXss, 1).result, 0);
  uint64_t value = 0;
  EXPECT_EQ(vcpu_.GetMsr(cpu::Cpu::kMsrXfd, &value).result, 1);
  EXPECT_EQ(value, 0x40000u);
}

TEST_F(VcpuTest, InitClearsMpxAlone) {
  vcpu_.cpu.regs.bnd[1][0] = 9;
  vcpu_.cpu.regs.zmm[0][0] = 9;
  vcpu_.Init();
  EXPECT_EQ(vcpu_.cpu.regs.bnd[1][0], 9u);  // a host without MPX
  host_.supported |= xstate::kMpx;
  vcpu_.cpu.regs.bndcfgu = 1;
  vcpu_.cpu.regs.zmm[3][20] = vcpu_.cpu.regs.zmm[3][40] = vcpu_.cpu.regs.zmm[20][0] = 9;
  vcpu_.cpu.regs.k[2] = vcpu_.cpu.regs.pkru = 4;
  vcpu_.cpu.regs.mxcsr = 0x3f80;
  vcpu_.cpu.regs.x87.fcw = 0x27f;
  vcpu_.Init();
  for (const xstate::ComponentRow& row : xstate::Rows()) {
    const bool kept = ((xstate::kX87Sse | 0x2e4) & Bit(row.id)) != 0;
    EXPECT_EQ(vcpu_.cpu.IsInitial(row.id), !kept) << row.name;
  }
  EXPECT_EQ(vcpu_.cpu.regs.mxcsr, 0x3f80u);
}

// fpu_copy_guest_fpstate_to_uabi gives the REX.W form, which has no selectors.
TEST_F(VcpuTest, AMigrationLosesTheSelectorsAlone) {
  cpu::X87& x87 = vcpu_.cpu.regs.x87;
  x87.fcs = 0x33;
  x87.fds = 0x2b;
  x87.fip = x87.fdp = 0x401000;
  x87.fop = 0x123;
  vcpu_.cpu.regs.zmm[3][40] = 9;
  vcpu_.Migrate();
  EXPECT_EQ(x87.fcs | x87.fds, 0);
  EXPECT_EQ(x87.fip & x87.fdp, 0x401000u);
  EXPECT_EQ(x87.fop, 0x123);
  EXPECT_EQ(vcpu_.cpu.regs.zmm[3][40], 9);
}

TEST_F(VcpuTest, CpuidIsFixedOnceTheVcpuHasRun) {
  EXPECT_TRUE(vcpu_.SetCpuid(true).ok());
  vcpu_.has_run = true;
  EXPECT_EQ(vcpu_.SetCpuid(true).error, EINVAL);
  EXPECT_TRUE(vcpu_.SetCpuid(false).ok());
}

TEST(Worlds, BranchesArePrunedByWhatIsSeen) {
  worlds::Worlds<int> worlds;
  worlds[0] = 7;
  const size_t copy = worlds.Branch(0);
  ASSERT_EQ(copy, 1u);
  worlds[copy] = 8;
  EXPECT_TRUE(worlds.Prune([&](size_t i) { return worlds[i] == 8; }));
  ASSERT_EQ(worlds.size(), 1u);
  EXPECT_EQ(worlds[0], 8);
  EXPECT_FALSE(worlds.Prune([](size_t) { return false; }));
  EXPECT_EQ(worlds.size(), 1u);
}

TEST(Worlds, ASetThatIsFullGrowsNoMore) {
  worlds::Worlds<int> worlds;
  while (worlds.size() < worlds::Worlds<int>::kMax) worlds.Branch(0);
  EXPECT_EQ(worlds.Branch(0), worlds::Worlds<int>::kMax);
}

// States count how many of them there are.
TEST(Worlds, AResetGivesBackWhatARareProgramTook) {
  static size_t alive;
  alive = 0;
  struct State {
    State() { ++alive; }
    State(const State&) { ++alive; }
    State& operator=(const State&) = default;
    ~State() { --alive; }
  };
  worlds::Worlds<State> worlds;
  while (worlds.size() < worlds::Worlds<State>::kMax) worlds.Branch(0);
  EXPECT_EQ(alive, worlds::Worlds<State>::kMax);
  worlds.Reset();
  EXPECT_EQ(alive, worlds::Worlds<State>::kKept);
  EXPECT_EQ(worlds.Branch(0), 1u);
}

TEST(Worlds, BlameIsCopiedAndCleared) {
  worlds::Worlds<int> worlds;
  const size_t copy = worlds.Branch(0);
  worlds.set_blame(copy, 3);
  EXPECT_TRUE(worlds.AnyBlameless());
  worlds.Prune([&](size_t i) { return worlds.blame(i) != 0; });
  EXPECT_FALSE(worlds.AnyBlameless());
  worlds.Reset();
  EXPECT_TRUE(worlds.AnyBlameless());
  const int distance[] = {4, 2, 2};
  EXPECT_EQ(worlds::Nearest(3, [&](size_t i) { return distance[i]; }), 1u);
}

}  // namespace
}  // namespace fpswap::kvm
