// SPDX-License-Identifier: GPL-2.0-or-later
//
// AMX, IA32_XFD and CET: records written by hand, of what is right, of what is right as well, and
// of what is wrong.
#include <cerrno>

#include "harness/plan/vmm.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::judge {
namespace {

using cpu::kGP;
using cpu::kNM;
using cpu::kUD;

constexpr uint64_t kTiledata = 0x40000;

class AmxVerdict : public testing::Test {
 protected:
  // What is told of a program and its records; "ok" if nothing is.
  std::string Told(const plan::Plan& plan, const std::vector<uint8_t>& records) {
    const Verdict verdict = judge_.Check(plan, records);
    return verdict.ok() ? "ok" : verdict.divergences[0].where;
  }
  // 16 rows of 64 bytes of a pattern, as TILESTORED journals them.
  static std::vector<uint8_t> Tile(uint16_t pattern) { return PatternBytes(pattern, 1024); }
  static std::vector<uint8_t> Number(uint64_t value) {
    std::vector<uint8_t> bytes(8);
    Put(bytes, 0, value);
    return bytes;
  }

  trace::Platform platform_ = TestPlatform(0x602e7);
  Judge judge_{platform_};
};

TEST_F(AmxVerdict, ATileIsStoredAsItWasLoaded) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\namx.tileloadd tile=3 pattern=7\namx.tilestored tile=3\namx.sttilecfg\n",
      platform_);
  std::vector<uint8_t> config(64);
  program::FillTilecfg(plan.effective.steps[0], std::span(config).first<64>());
  EXPECT_EQ(Told(plan, Records(plan).Journal(2, Tile(7)).Journal(3, config).End()), "ok");
  auto wrong = Tile(7);
  wrong[7 * 64] ^= 1;
  EXPECT_EQ(Told(plan, Records(plan).Journal(2, wrong).Journal(3, config).End()),
            "value stored by amx.tilestored");
  config[48] = 15;
  EXPECT_EQ(Told(plan, Records(plan).Journal(2, Tile(7)).Journal(3, config).End()),
            "value stored by amx.sttilecfg");
}

TEST_F(AmxVerdict, AHostsNmUnderAnXfdThatTheVmmSetOverTilesHasItsCause) {
  const std::string oops =
      "the agent ended with status 3\n"
      "Oops: unexpected #NM exception: 0000 [#1] PREEMPT SMP NOPTI\n"
      "RIP: 0010:restore_fpregs_from_fpstate+0x49/0xa0\n";
  const auto cause_of = [&](const std::string& steps, const std::string& text) {
    const auto plan = PlanOf(steps.c_str(), platform_);
    return judge_.Check(plan, Records(plan).End(trace::EndReason::kAgentDied, 0, text))
        .divergences.at(0)
        .cause;
  };
  const auto cause = [&](const std::string& steps) { return cause_of(steps, oops); };
  const std::string tiles = "amx.ldtilecfg\namx.tileloadd tile=0\n",
                    set = "vmm.set_msr msr=xfd value=tiledata\n";
  EXPECT_EQ(cause(tiles + set + "exit.out\n"), "xfd-set-over-tiles");
  EXPECT_EQ(cause("vmm.image_write image=0 offset=512 value=0x60000\nvmm.set_xsave image=0\n" +
                  set + "vmm.run_immediate\n"),
            "xfd-set-over-tiles");
  EXPECT_EQ(cause("mem.header slot=0 xstate_bv=tiledata xcomp_bv=0\nxrstor slot=0\n" + set +
                  "exit.out\n"),
            "xfd-set-over-tiles")
      << "tiles of zeros";
  EXPECT_EQ(cause("raw bytes=90\n" + set + "exit.out\n"), "xfd-set-over-tiles")
      << "code of any bytes may have loaded some";
  EXPECT_EQ(cause(tiles + set), "xfd-set-over-tiles") << "the agent completes its last exit";
  // Near misses stay as they are.
  EXPECT_EQ(
      cause("vmm.image_write image=0 offset=512 value=0x60000\nvmm.set_xsave image=0\n" + set), "")
      << "it is never run";
  EXPECT_EQ(cause(tiles + "vmm.run_immediate\n" + set), "") << "no exit is left to complete";
  EXPECT_EQ(cause(set + tiles), "") << "there were no tiles when it was set";
  EXPECT_EQ(cause(tiles + "vmm.set_msr msr=xfd value=0\nexit.out\n"), "");
  EXPECT_EQ(cause(tiles + "vmm.set_msr msr=xfd_err value=tiledata\nexit.out\n"), "");
  EXPECT_EQ(cause(tiles + set + "vmm.set_msr msr=xfd value=0\nexit.out\n"), "");
  EXPECT_EQ(cause("xrstor slot=0\n" + set + "exit.out\n"), "") << "it made them initial";
  EXPECT_EQ(cause("vmm.set_xsave image=0\n" + set + "exit.out\n"), "");
  EXPECT_EQ(cause("amx.tileloadd tile=0\n" + set + "exit.out\n"), "") << "#UD: not configured";
  EXPECT_EQ(cause(tiles + "amx.tilerelease\n" + set + "exit.out\n"), "");
  EXPECT_EQ(cause(tiles + "xrstor slot=0\n" + set + "exit.out\n"), "");
  EXPECT_EQ(cause(tiles + "vmm.set_xsave image=0\n" + set + "exit.out\n"), "");
  EXPECT_EQ(cause_of(tiles + set + "exit.out\n",
                     "the agent ended with status 3\n"
                     "Oops: unexpected #NM exception: 0000 [#1]\nRIP: 0010:other+0x1/0x2\n"),
            "");
  EXPECT_EQ(cause_of(tiles + set + "exit.out\n",
                     "the agent ended with status 3\nOops: 0000 [#1]\n"
                     "RIP: 0010:restore_fpregs_from_fpstate+0x49/0xa0\n"),
            "");
}

TEST_F(AmxVerdict, FaultsOfAmxHaveTheirVectors) {
  const auto plan = PlanOf(
      "amx.tilezero tile=0\namx.ldtilecfg palette=2\nmsr.write msr=xfd value=tiledata\n"
      "amx.ldtilecfg\namx.tilezero tile=0\nmsr.read msr=xfd_err\n",
      platform_);
  const auto with = [&](uint8_t first, uint8_t second, uint8_t third, uint64_t err) {
    return Told(plan, Records(plan)
                          .Fault(0, first)
                          .Fault(1, second)
                          .Fault(4, third)
                          .Journal(5, Number(err))
                          .End());
  };
  EXPECT_EQ(with(kUD, kGP, kNM, kTiledata), "ok");
  EXPECT_EQ(with(kNM, kGP, kNM, kTiledata), "fault");
  EXPECT_EQ(with(kUD, kUD, kNM, kTiledata), "fault");
  EXPECT_EQ(with(kUD, kGP, kUD, kTiledata), "fault");
  EXPECT_EQ(with(kUD, kGP, kNM, 0), "value stored by msr.read");
}

// SDM vol. 1, 13.14; fpu_sync_guest_vmexit_xfd_state.
TEST_F(AmxVerdict, TilesThatWereDisabledAreAllKeptOrAllInitial) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\namx.tileloadd tile=0 pattern=2\namx.tileloadd tile=1 pattern=3\n"
      "msr.write msr=xfd value=tiledata\nmsr.write msr=xfd value=0\n"
      "amx.tilestored tile=0\namx.tilestored tile=1\namx.tilestored tile=0\n",
      platform_);
  const auto with = [&](uint16_t first, uint16_t second, uint16_t third) {
    return Told(plan, Records(plan)
                          .Journal(5, Tile(first))
                          .Journal(6, Tile(second))
                          .Journal(7, Tile(third))
                          .End());
  };
  EXPECT_EQ(with(2, 3, 2), "ok");
  EXPECT_EQ(with(0, 0, 0), "ok");
  EXPECT_NE(with(2, 0, 2), "ok") << "a mixture";
  EXPECT_NE(with(0, 3, 0), "ok") << "a mixture";
  EXPECT_NE(with(2, 3, 0), "ok") << "gone later";
  EXPECT_NE(with(4, 4, 4), "ok");
}

TEST_F(AmxVerdict, TilesThatAreDisabledMayBeGoneAndThenAreGone) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\namx.tileloadd tile=0 pattern=2\nmsr.write msr=xfd value=tiledata\n"
      "xgetbv ecx=1\nmsr.write msr=xfd value=0\namx.tilestored tile=0\n",
      platform_);
  const auto with = [&](uint64_t xinuse, uint16_t tile) {
    return Told(plan, Records(plan).Journal(3, Number(xinuse)).Journal(5, Tile(tile)).End());
  };
  EXPECT_EQ(with(0x60000, 2), "ok");
  EXPECT_EQ(with(0x60000, 0), "ok") << "they may go later";
  EXPECT_EQ(with(0x20000, 0), "ok");
  EXPECT_NE(with(0x20000, 2), "ok") << "gone, and back";
  EXPECT_NE(with(0x40000, 2), "ok") << "TILECFG can't be disabled";
  const auto enabled =
      PlanOf("amx.ldtilecfg\namx.tileloadd tile=0 pattern=2\nxgetbv ecx=1\n", platform_);
  EXPECT_NE(Told(enabled, Records(enabled).Journal(2, Number(0x20000)).End()), "ok");
}

// The same seen by the VMM: an image without them is what the guest gets back.
TEST_F(AmxVerdict, TilesThatAnImageLacksUnderXfdAreGone) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\namx.tileloadd tile=0 pattern=2\nmsr.write msr=xfd value=tiledata\n"
      "vmm.get_xsave2 image=0\nmsr.write msr=xfd value=0\namx.tilestored tile=0\n",
      platform_);
  const auto with = [&](bool shown, uint16_t tile) {
    std::vector<uint8_t> image = FreshImage(platform_);
    program::FillTilecfg(plan.effective.steps[0], std::span(image).subspan(2752).first<64>());
    if (shown) std::ranges::copy(Tile(2), image.begin() + 2816);
    Put<uint64_t>(image, 512, shown ? 0x60000 : 0x20000);
    return Told(plan, Records(plan).Ioctl(3, 0, 0, image).Journal(5, Tile(tile)).End());
  };
  EXPECT_EQ(with(true, 2), "ok");
  EXPECT_EQ(with(true, 0), "ok") << "they may go later";
  EXPECT_EQ(with(false, 0), "ok");
  EXPECT_NE(with(false, 2), "ok") << "gone, and back";
}

TEST_F(AmxVerdict, TilesThatWereNeverDisabledAreKept) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\namx.tileloadd tile=0 pattern=2\nmsr.write msr=xfd value=0\n"
      "amx.tilestored tile=0\n",
      platform_);
  EXPECT_EQ(Told(plan, Records(plan).Journal(3, Tile(2)).End()), "ok");
  EXPECT_NE(Told(plan, Records(plan).Journal(3, Tile(0)).End()), "ok");
}

// The VMM's write of IA32_XFD leaves the same two answers, in worlds that a blamed KVM_SET_FPU
// multiplies and merges.
TEST_F(AmxVerdict, TheTwoAnswersSurviveOtherBranches) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\namx.tileloadd tile=0 pattern=2\nvmm.set_msr msr=xfd value=tiledata\n"
      "vmm.set_msr msr=xfd value=0\nvmm.set_msr msr=xfd value=tiledata\nvmm.set_fpu pattern=5\n"
      "vmm.set_msr msr=xfd value=0\namx.tilestored tile=0\n",
      platform_);
  for (const uint16_t pattern : std::array<uint16_t, 3>{2, 0, 3}) {
    const auto records = Records(plan)
                             .Ioctl(2, 1)
                             .Ioctl(3, 1)
                             .Ioctl(4, 1)
                             .Ioctl(5, 0)
                             .Ioctl(6, 1)
                             .Journal(7, Tile(pattern))
                             .End();
    EXPECT_EQ(Told(plan, records) == "ok", pattern != 3) << pattern;
  }
}

TEST_F(AmxVerdict, WhetherAmxHeedsTsIsSettledByTheFirstSightOfIt) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\ncr0.ts ts=1\namx.tilezero tile=0\namx.tilezero tile=1\namx.sttilecfg\n",
      platform_);
  std::vector<uint8_t> config(64);
  program::FillTilecfg(plan.effective.steps[0], std::span(config).first<64>());
  EXPECT_EQ(Told(plan, Records(plan).Journal(4, config).End()), "ok");
  EXPECT_EQ(Told(plan, Records(plan).Fault(2, kNM).Fault(3, kNM).Fault(4, kNM).End()), "ok");
  EXPECT_EQ(Told(plan, Records(plan).Fault(2, kNM).Journal(4, config).End()), "fault");
  EXPECT_EQ(Told(plan, Records(plan).Fault(3, kNM).Fault(4, kNM).End()), "fault");
  EXPECT_EQ(Told(plan, Records(plan).Fault(2, kUD).Fault(3, kUD).Fault(4, kUD).End()), "fault");
}

// Both raise #NM, and IA32_XFD_ERR tells which did.
TEST_F(AmxVerdict, WithTsAndXfdTheErrorMsrTellsWhichFaultItWas) {
  const auto plan = PlanOf(
      "amx.ldtilecfg\nmsr.write msr=xfd value=tiledata\ncr0.ts ts=1\namx.tilezero tile=0\n"
      "msr.read msr=xfd_err\namx.tilerelease\n",
      platform_);
  const auto with = [&](uint64_t err, bool release_faults) {
    Records records(plan);
    records.Fault(3, kNM).Journal(4, Number(err));
    if (release_faults) records.Fault(5, kNM);
    return Told(plan, records.End());
  };
  EXPECT_EQ(with(0, true), "ok");
  EXPECT_EQ(with(kTiledata, false), "ok");
  EXPECT_EQ(with(0, false), "fault") << "heeded, and then not";
  EXPECT_EQ(with(kTiledata, true), "fault");
  EXPECT_EQ(with(1, true), "value stored by msr.read");
}

// guest_fpu.uabi_size: it grows when KVM_SET_CPUID2 gives the guest XTILE_DATA.
TEST_F(AmxVerdict, AnImageIsAsLargeAsTheGuestsOwnFeaturesMakeIt) {
  ASSERT_EQ(platform_.xsave_size, 11008u);
  const auto with = PlanOf("vmm.get_xsave image=0\nvmm.get_xsave2 image=0\n", platform_);
  const auto image = FreshImage(platform_);
  const std::span<const uint8_t> small = std::span(image).first(4096);
  EXPECT_EQ(Told(with, Records(with).Ioctl(0, -1, EINVAL).Ioctl(1, 0, 0, image).End()), "ok");
  EXPECT_EQ(Told(with, Records(with).Ioctl(0, 0, 0, small).Ioctl(1, 0, 0, image).End()),
            "KVM_GET_XSAVE errno");
  // Without tiles KVM writes 4096 bytes; the rest of the VMM's buffer is as it was.
  const auto without = PlanOf(
      "features x87+sse+avx\nvmm.get_xsave image=0\n"
      "vmm.image_fill image=1 offset=4096 length=8 pattern=9\nvmm.get_xsave2 image=1\n"
      "vmm.set_xsave image=1\n",
      platform_);
  auto filled = image;
  program::FillPattern(9, std::span(filled).subspan(4096, 8));
  const auto told = [&](std::span<const uint8_t> second) {
    return Told(without, Records(without)
                             .Ioctl(0, 0, 0, small)
                             .Ioctl(1, 0)
                             .Ioctl(2, 0, 0, second)
                             .Ioctl(3, 0)
                             .End());
  };
  EXPECT_EQ(told(filled), "ok");
  EXPECT_NE(told(image), "ok") << "more was written than the vCPU's image has";
}

// user_xfeatures has the dynamic features only where the guest's CPUID does.
TEST_F(AmxVerdict, AnImageWithTilesIsRefusedByAVcpuWithoutThem) {
  const std::string set =
      "vmm.image_write image=0 offset=512 value=0x40000\nvmm.set_xsave image=0\n";
  const auto with = PlanOf(set, platform_);
  EXPECT_EQ(Told(with, Records(with).Ioctl(0, 0).Ioctl(1, 0).End()), "ok");
  const auto without = PlanOf("features x87+sse+avx\n" + set, platform_);
  EXPECT_EQ(Told(without, Records(without).Ioctl(0, 0).Ioctl(1, -1, EINVAL).End()), "ok");
  EXPECT_EQ(Told(without, Records(without).Ioctl(0, 0).Ioctl(1, 0).End()), "KVM_SET_XSAVE errno");
}

TEST_F(AmxVerdict, CetMsrsAreOneStateForTheGuestAndTheVmm) {
  const auto plan = PlanOf(
      "msr.write msr=pl0_ssp value=0x7000\nvmm.get_msr msr=pl0_ssp\nvmm.set_msr msr=pl1_ssp "
      "value=4\n"
      "msr.read msr=pl1_ssp\nvmm.set_msr msr=pl1_ssp value=6\nmsr.write msr=s_cet value=0x40\n"
      "vmm.init\nmsr.read msr=pl0_ssp\n",
      platform_);
  const auto with = [&](uint64_t got, uint64_t read, int count, uint64_t after_init) {
    return Told(plan, Records(plan)
                          .Ioctl(1, 1, 0, Number(got))
                          .Ioctl(2, 1)
                          .Journal(3, Number(read))
                          .Ioctl(4, count)
                          .Fault(5, kGP)
                          .Ioctl(6, 0)
                          .Journal(7, Number(after_init))
                          .End());
  };
  EXPECT_EQ(with(0x7000, 4, 0, 0), "ok");
  EXPECT_NE(with(0x7004, 4, 0, 0), "ok");
  EXPECT_NE(with(0x7000, 0, 0, 0), "ok");
  EXPECT_EQ(with(0x7000, 4, 1, 0), "KVM_SET_MSRS count") << "not aligned to 4";
  EXPECT_NE(with(0x7000, 4, 0, 0x7000), "ok") << "INIT clears it";
}

// From 6.18 on KVM knows the MSRs also where the guest hasn't them; nothing is in them then.
TEST_F(AmxVerdict, WithoutCetTheVmmReadsZeroOrNothing) {
  platform_.guest.cet_ss = platform_.guest.cet_ibt = false;
  Judge judge(platform_);
  const auto plan = PlanOf(
      "msr.read msr=u_cet\nvmm.get_msr msr=u_cet\nvmm.set_msr msr=u_cet value=0\n"
      "vmm.set_msr msr=u_cet value=1\n",
      platform_);
  const auto with = [&](int get, uint64_t got, int zero, int one) {
    Records records(plan);
    records.Fault(0, kGP);
    if (get == 1) {
      records.Ioctl(1, 1, 0, Number(got));
    } else {
      records.Ioctl(1, 0);
    }
    return judge.Check(plan, records.Ioctl(2, zero).Ioctl(3, one).End()).ok();
  };
  EXPECT_TRUE(with(0, 0, 0, 0));
  EXPECT_TRUE(with(1, 0, 1, 0));
  EXPECT_FALSE(with(1, 1, 1, 0));
  EXPECT_FALSE(with(0, 0, 0, 1));
}

TEST_F(AmxVerdict, ABitmapBaseThatKvmRefusesHasItsCause) {
  const auto set = [&](const std::string& arguments) {
    const auto plan = PlanOf(("vmm.set_msr " + arguments + "\n").c_str(), platform_);
    return First(Judge(platform_).Check(plan, Records(plan).Ioctl(0, 0).End())).cause;
  };
  EXPECT_EQ(set("msr=u_cet value=0x1000"), "cet-bitmap-base-refused");
  EXPECT_EQ(set("msr=s_cet value=0x2004"), "cet-bitmap-base-refused");
  EXPECT_EQ(set("msr=u_cet value=0x4000"), "");
  EXPECT_EQ(set("msr=pl1_ssp value=0x1000"), "");
  const auto migrated = [&](const std::string& value,
                            const std::vector<plan::MigrateFailure>& failures) {
    const auto plan = PlanOf(
        ("msr.write msr=u_cet value=" + value + "\nvmm.migrate order=0\n").c_str(), platform_);
    const std::span<const uint8_t> bytes{reinterpret_cast<const uint8_t*>(failures.data()),
                                         failures.size() * sizeof(plan::MigrateFailure)};
    return First(Judge(platform_).Check(plan, Records(plan).Ioctl(1, -1, 0, bytes).End())).cause;
  };
  const auto failure = [](plan::MigrateCall call, uint8_t saving = 0, uint8_t vcpu = 0) {
    return plan::MigrateFailure{static_cast<uint8_t>(call), saving, vcpu, 0, 0};
  };
  const auto msrs = failure(plan::MigrateCall::kMsrs), xsave = failure(plan::MigrateCall::kXsave);
  EXPECT_EQ(migrated("0x1000", {msrs}), "cet-bitmap-base-refused");
  EXPECT_EQ(migrated("0x4000", {msrs}), "") << "KVM takes it";
  EXPECT_EQ(migrated("0x1000", {xsave}), "");
  EXPECT_EQ(migrated("0x1000", {msrs, xsave}), "");
  EXPECT_EQ(migrated("0x1000", {failure(plan::MigrateCall::kMsrs, 1)}), "") << "a GET";
  EXPECT_EQ(migrated("0x1000", {failure(plan::MigrateCall::kMsrs, 0, 3)}), "") << "no such vCPU";
  EXPECT_EQ(migrated("0x1000", {}), "");
}

}  // namespace
}  // namespace fpswap::judge
