// SPDX-License-Identifier: GPL-2.0-or-later
//
// Records written by hand, right and wrong: each law broken at least once, and told in the right
// words.
#include <algorithm>
#include <cerrno>

#include "harness/judge/simulator.h"
#include "harness/judge/step_records.h"
#include "harness/plan/vmm.h"
#include "oracle/kvm/uabi.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::judge {
namespace {

using trace::EndReason;
using xstate::Component;

constexpr uint32_t kAvxAt = 576;  // of the standard format

class VerdictTest : public JudgeTest {
 protected:
  // An image with AVX in use, YMM3 holding `pattern`.
  std::vector<uint8_t> AvxImage(uint16_t pattern) {
    std::vector<uint8_t> image = FreshImage(platform_);
    const auto ymm = PatternBytes(pattern, 32);
    std::memcpy(&image[160 + 3 * 16], ymm.data(), 16);
    std::memcpy(&image[kAvxAt + 3 * 16], ymm.data() + 16, 16);
    Put<uint64_t>(image, 512, 6);
    return image;
  }
};

TEST_F(VerdictTest, AFreshVcpuShowsTheInitialImage) {
  const auto plan = PlanOf("vmm.get_xsave image=0\n", platform_);
  const auto verdict = Check(plan, Records(plan).Ioctl(0, 0, 0, FreshImage(platform_)).End());
  EXPECT_TRUE(verdict.ok()) << Told(verdict);
  EXPECT_EQ(verdict.checks, 2u);
}

// An exit that leaves in YMM3[255:128] what a host that has kPattern in all registers has there.
template <uint16_t kPattern>
void PutIntoYmm3(const program::Step& step, World& world) {
  if (step.op != program::Op::kExitOut) return;
  std::array<uint8_t, 4096> image{};
  program::FillPattern(kPattern, image);
  std::copy_n(image.begin() + kAvxAt + 3 * 16, 16, world.vcpu[0].cpu.regs.zmm[3].begin() + 16);
}

// An exit that brings back what the first step of the program below loads.
void PutOldYmm3(const program::Step& step, World& world) {
  if (step.op != program::Op::kExitOut) return;
  const auto old = PatternBytes(0x1111, 32);
  std::copy_n(old.begin() + 16, 16, world.vcpu[0].cpu.regs.zmm[3].begin() + 16);
}

// AMD family 19h declares stale AVX bytes to be in use where AVX is initial under ZMM_Hi256
// (corpus/known/amd-avx-initial-under-zmm). What the host or another process had in that register
// is no such bytes: law 4, and no cause excuses it.
TEST_F(VerdictTest, BytesOfTheHostAreALeakWhereStaleOnesHaveACause) {
  platform_.host.amd = platform_.guest.amd = true;
  const auto plan = PlanOf(
      "vex.load256 ymm=3 pattern=0x1111\n"
      "evex.load512 reg=3 pattern=0x2222\n"
      "mem.header slot=0 xstate_bv=0 xcomp_bv=0\n"
      "xrstor slot=0 rfbm=avx\n"
      "host.dirty pattern=0x77\n"
      "exit.out\n"
      "vex.store256 ymm=3\n",
      platform_);
  const auto told = [&](void (*after)(const program::Step&, World&)) {
    const Plant plant{"", "", nullptr, after};
    Simulator simulator(platform_, &plant);
    program::Rng rng(1);
    return Judge(platform_).Check(plan, simulator.Run(plan, rng));
  };
  // Of the competitor, and of the VMM's own thread.
  for (const auto& verdict : {told(PutIntoYmm3<0x77>), told(PutIntoYmm3<0x4341>)}) {
    EXPECT_EQ(First(verdict).law, Law::kIsolation) << Told(verdict);
    EXPECT_EQ(First(verdict).relation, Relation::kAnothers);
    EXPECT_EQ(First(verdict).cause, "");
  }
  // What the register held before it became initial.
  const auto stale = told(PutOldYmm3);
  EXPECT_EQ(First(stale).law, Law::kModel) << Told(stale);
  EXPECT_EQ(First(stale).relation, Relation::kStale);
  EXPECT_EQ(First(stale).cause, "avx-initial-under-zmm");
  // Nobody's that is known.
  const auto strange = told(PutIntoYmm3<0x5678>);
  EXPECT_EQ(First(strange).relation, Relation::kInvented) << Told(strange);
  EXPECT_EQ(First(strange).cause, "");
  // But a thread's buffer may have an earlier program's.
  platform_.target = "native";
  EXPECT_EQ(First(told(PutIntoYmm3<0x5678>)).cause, "avx-initial-under-zmm");
}

TEST_F(VerdictTest, AnInitialComponentMayBeInUse) {
  const auto plan = PlanOf("vmm.get_xsave image=0\n", platform_);
  auto image = FreshImage(platform_);
  Put<uint64_t>(image, 512, 0x2ff);
  const auto verdict = Check(plan, Records(plan).Ioctl(0, 0, 0, image).End());
  EXPECT_TRUE(verdict.ok()) << Told(verdict);
}

TEST_F(VerdictTest, ALostComponentIsInitialWhereItMustBeInUse) {
  const auto plan = PlanOf("vex.load256 ymm=3 pattern=0x1234\nvmm.get_xsave image=0\n", platform_);
  auto image = AvxImage(0x1234);
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(1, 0, 0, image).End()).ok());
  std::fill_n(&image[kAvxAt], 256, uint8_t{0});
  Put<uint64_t>(image, 512, 2);
  const auto verdict = Check(plan, Records(plan).Ioctl(1, 0, 0, image).End());
  const Divergence& d = First(verdict);
  EXPECT_EQ(d.law, Law::kCoherence);
  EXPECT_EQ(d.relation, Relation::kInitial);
  EXPECT_EQ(d.component, Component::kAvx);
  EXPECT_EQ(d.where, "header XSTATE_BV of the image");
  EXPECT_EQ(d.bits, 4u);
  EXPECT_EQ(d.step, 1);
}

TEST_F(VerdictTest, AnOldValueIsStale) {
  const auto plan = PlanOf(
      "vex.load256 ymm=3 pattern=0x1234\nvex.load256 ymm=3 pattern=0x4321\n"
      "vmm.get_xsave image=0\n",
      platform_);
  auto image = AvxImage(0x4321);
  const auto old = PatternBytes(0x1234, 32);
  std::memcpy(&image[kAvxAt + 3 * 16], old.data() + 16, 16);
  const auto verdict = Check(plan, Records(plan).Ioctl(2, 0, 0, image).End());
  const Divergence& d = First(verdict);
  EXPECT_EQ(d.relation, Relation::kStale) << Told(verdict);
  EXPECT_EQ(d.where, "YMM3[255:128] of the image");
  EXPECT_EQ(d.offset, kAvxAt + 3 * 16);
  EXPECT_EQ(d.component, Component::kAvx);
  EXPECT_NE(d.words.find("vmm.get_xsave image=0"), std::string::npos);
  EXPECT_NE(d.words.find("YMM3[255:128] of the image must hold"), std::string::npos);
}

TEST_F(VerdictTest, AnotherRegistersValueIsAnothers) {
  const auto plan = PlanOf(
      "vex.load256 ymm=3 pattern=0x1234\nvex.load256 ymm=5 pattern=0x777\nvmm.get_xsave image=0\n",
      platform_);
  auto image = AvxImage(0x1234);
  const auto five = PatternBytes(0x777, 32);
  std::memcpy(&image[160 + 5 * 16], five.data(), 16);
  std::memcpy(&image[kAvxAt + 5 * 16], five.data() + 16, 16);
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(2, 0, 0, image).End()).ok());
  std::memcpy(&image[kAvxAt + 3 * 16], five.data() + 16, 16);
  const auto verdict = Check(plan, Records(plan).Ioctl(2, 0, 0, image).End());
  EXPECT_EQ(First(verdict).relation, Relation::kAnothers) << Told(verdict);
}

TEST_F(VerdictTest, TheRightBytesElsewhereAreShifted) {
  const auto plan =
      PlanOf("evex.load512 reg=17 pattern=0x1234\nvmm.get_xsave image=0\n", platform_);
  const uint32_t at = platform_.host.xsave.sub[7].offset + 64;
  auto image = FreshImage(platform_);
  Put<uint64_t>(image, 512, 0x80);
  const auto zmm = PatternBytes(0x1234, 64);
  std::memcpy(&image[at], zmm.data(), 64);
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(1, 0, 0, image).End()).ok());
  std::memcpy(&image[at], zmm.data() + 4, 60);
  const auto verdict = Check(plan, Records(plan).Ioctl(1, 0, 0, image).End());
  EXPECT_EQ(First(verdict).relation, Relation::kShifted) << Told(verdict);
  EXPECT_EQ(First(verdict).where, "ZMM17 of the image");
}

TEST_F(VerdictTest, AValueFromNowhereIsInvented) {
  const auto plan = PlanOf("vmm.get_xsave image=0\n", platform_);
  auto image = AvxImage(0x999);
  std::fill_n(&image[160], 256, uint8_t{0});
  Put<uint64_t>(image, 512, 4);
  const auto verdict = Check(plan, Records(plan).Ioctl(0, 0, 0, image).End());
  EXPECT_EQ(First(verdict).relation, Relation::kInvented) << Told(verdict);
}

// XSAVE writes the standard format and leaves XCOMP_BV alone, whatever was there before.
TEST_F(VerdictTest, AnAreaIsNamedInTheFormatThatTheInstructionWrites) {
  for (const bool compacted : {false, true}) {
    const auto plan = PlanOf("mem.header slot=0 xstate_bv=0 xcomp_bv=opmask+compacted\n" +
                                 std::string(compacted ? "xsavec" : "xsave") + " slot=0 rfbm=all\n",
                             platform_);
    // AVX is 0; in the compacted format nothing is stored, and AVX comes first as well.
    std::vector<uint8_t> area(plan.rows[1].journal_bytes);
    Put<uint64_t>(area, 520, uint64_t{1} << 63 | (compacted ? kTestComponents : 0x20));
    if (!compacted) {
      Put<uint16_t>(area, 0, 0x37f);
      Put<uint32_t>(area, 24, 0x1f80);
      Put<uint32_t>(area, 28, platform_.host.mxcsr_mask);
    }
    EXPECT_TRUE(Check(plan, Records(plan).Journal(1, area).End()).ok());
    area[kAvxAt + 16] = 7;
    const Divergence d = First(Check(plan, Records(plan).Journal(1, area).End()));
    EXPECT_EQ(d.where, "YMM1[255:128] of the area");
    EXPECT_EQ(d.component, Component::kAvx);
  }
}

TEST_F(VerdictTest, AStoreMustStoreTheRegister) {
  const auto plan = PlanOf("sse.load xmm=2 pattern=0x321\nsse.store xmm=2\n", platform_);
  auto bytes = PatternBytes(0x321, 16);
  EXPECT_TRUE(Check(plan, Records(plan).Journal(1, bytes).End()).ok());
  bytes[9] ^= 0x10;
  const Divergence d = First(Check(plan, Records(plan).Journal(1, bytes).End()));
  EXPECT_EQ(d.law, Law::kModel);
  EXPECT_EQ(d.component, Component::kSse);
  EXPECT_EQ(d.offset, 9u);
  EXPECT_EQ(d.bits, 0x10u);
  EXPECT_EQ(d.where, "value stored by sse.store");
}

TEST_F(VerdictTest, AFaultThatIsDueMustCome) {
  const auto plan = PlanOf("xcr0 x87\nvex.load256 ymm=3 pattern=0x1234\nxgetbv ecx=0\n", platform_);
  std::vector<uint8_t> xcr0 = {1, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_TRUE(Check(plan, Records(plan).Fault(0, cpu::kUD).Journal(1, xcr0).End()).ok());
  const Divergence missing = First(Check(plan, Records(plan).Journal(1, xcr0).End()));
  EXPECT_EQ(missing.relation, Relation::kAccepted);
  EXPECT_EQ(missing.where, "fault");
  EXPECT_NE(missing.words.find("fault must be #UD, and was no fault"), std::string::npos);
  const Divergence wrong =
      First(Check(plan, Records(plan).Fault(0, cpu::kNM).Journal(1, xcr0).End()));
  EXPECT_EQ(wrong.relation, Relation::kWrongError);
  const uint64_t next = plan::kCodeBase + plan.rows[0].instruction + 1;
  const Divergence elsewhere =
      First(Check(plan, Records(plan).FaultAt(0, cpu::kUD, next).Journal(1, xcr0).End()));
  EXPECT_EQ(elsewhere.where, "RIP of the fault");
}

TEST_F(VerdictTest, AFaultThatIsNotDueMustNotCome) {
  const auto plan = PlanOf("x87.fninit\n", platform_);
  const Divergence d = First(Check(plan, Records(plan).Fault(0, cpu::kNM).End()));
  EXPECT_EQ(d.relation, Relation::kRefused);
  EXPECT_NE(d.words.find("must be no fault, and was #NM"), std::string::npos);
}

TEST_F(VerdictTest, PkruDeniesTheGuestItsData) {
  const auto plan = PlanOf("pkru.write value=1\nsse.load xmm=0 pattern=7\npkru.read\n", platform_);
  const auto rip = plan::kCodeBase + plan.rows[2].instruction + 5;
  Records right(plan);
  right.Fault(1, cpu::kPF, 0x25, plan::kLiteralBase);
  right.FaultAt(2, cpu::kPF, rip, 0x27, plan::kJournalBase);
  const auto verdict = Check(plan, right.End());
  EXPECT_TRUE(verdict.ok()) << Told(verdict);
  Records user(plan);
  user.Fault(1, cpu::kPF, 0x5, plan::kLiteralBase);
  EXPECT_EQ(First(Check(plan, user.End())).where, "fault");
}

TEST_F(VerdictTest, GuestInstructionsAtCpl0MayNotSetABadXcr0) {
  const auto plan = PlanOf("xsetbv ecx=0 value=x87+avx\n", platform_);
  EXPECT_TRUE(Check(plan, Records(plan).Fault(0, cpu::kGP).End()).ok());
  EXPECT_EQ(First(Check(plan, Records(plan).End())).relation, Relation::kAccepted);
}

// By the manual it doesn't; a CPU that clears what XCR0 disables does so always (SDM vol.
// 2, 3.1.1.9).
TEST_F(VerdictTest, WhetherVexReachesWhatXcr0DisablesIsOneAnswerForAllRegisters) {
  const auto plan = PlanOf(
      "evex.load512 reg=3 pattern=7\nevex.load512 reg=4 pattern=7\nxsetbv ecx=0 value=x87+sse+avx\n"
      "vex.load128 xmm=3 pattern=9\nvex.load128 xmm=4 pattern=9\n"
      "xsetbv ecx=0 value=x87+sse+avx+opmask+zmm_hi256+hi16_zmm\n"
      "evex.store512 reg=3\nevex.store512 reg=4\n",
      platform_);
  const auto bytes = [](bool kept) {
    std::vector<uint8_t> zmm = PatternBytes(kept ? 7 : 0, 64);
    std::ranges::fill(std::span(zmm).first(32), uint8_t{0});
    std::ranges::copy(PatternBytes(9, 16), zmm.begin());
    return zmm;
  };
  const auto ok = [&](const std::vector<uint8_t>& first, const std::vector<uint8_t>& second) {
    return Check(plan, Records(plan).Journal(6, first).Journal(7, second).End()).ok();
  };
  EXPECT_TRUE(ok(bytes(true), bytes(true)));
  EXPECT_TRUE(ok(bytes(false), bytes(false)));
  EXPECT_FALSE(ok(bytes(true), bytes(false)));
  EXPECT_FALSE(ok(bytes(false), bytes(true)));
  auto wrong = bytes(true);
  wrong[20] = 1;
  EXPECT_FALSE(ok(wrong, bytes(true))) << "AVX is enabled";
}

TEST_F(VerdictTest, ABadMxcsrIsNoMatterToFxrstorOnlyWithoutOsfxsr) {
  for (const bool osfxsr : {false, true}) {
    const auto plan = PlanOf("mem.write slot=0 offset=24 value=0xffffffff\ncr4 bit=osfxsr value=" +
                                 std::string(osfxsr ? "1" : "0") + "\nfxrstor slot=0\n",
                             platform_);
    EXPECT_TRUE(Check(plan, Records(plan).Fault(2, cpu::kGP).End()).ok());
    EXPECT_EQ(Check(plan, Records(plan).End()).ok(), !osfxsr);
  }
}

TEST_F(VerdictTest, ARefusalThatIsDueIsLaw5) {
  const auto plan = PlanOf("vmm.set_xcrs count=1 xcr=0 value=x87+avx\n", platform_);
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(0, -1, EINVAL).End()).ok());
  const Divergence d = First(Check(plan, Records(plan).Ioctl(0, 0).End()));
  EXPECT_EQ(d.law, Law::kRefusal);
  EXPECT_EQ(d.relation, Relation::kAccepted);
  EXPECT_EQ(d.where, "KVM_SET_XCRS errno");
  const Divergence other = First(Check(plan, Records(plan).Ioctl(0, -1, EFAULT).End()));
  EXPECT_EQ(other.relation, Relation::kWrongError);
}

TEST_F(VerdictTest, ARefusedCallThatChangesSomethingBreaksLaw5) {
  const auto plan = PlanOf(
      "vmm.image_fill image=1 offset=576 length=256 pattern=0x55\n"
      "vmm.image_write image=1 offset=512 value=4\n"
      "vmm.image_write image=1 offset=520 value=1\nvmm.set_xsave image=1\n"
      "vmm.get_xsave image=0\n",
      platform_);
  auto image = FreshImage(platform_);
  const auto records = [&] {
    return Records(plan)
        .Ioctl(0, 0)
        .Ioctl(1, 0)
        .Ioctl(2, 0)
        .Ioctl(3, -1, EINVAL)
        .Ioctl(4, 0, 0, image);
  };
  const auto clean = Check(plan, records().End());
  EXPECT_TRUE(clean.ok()) << Told(clean);
  EXPECT_NE(clean.laws & (1u << unsigned(Law::kRefusal)), 0);
  const auto pattern = PatternBytes(0x55, 256);
  std::memcpy(&image[kAvxAt], pattern.data(), 256);
  Put<uint64_t>(image, 512, 4);
  EXPECT_EQ(First(Check(plan, records().End())).law, Law::kRefusal);
}

// __msr_io: an entry that is refused ends the list. What is before it is done, what is behind it is
// not, and the count says so.
TEST_F(VerdictTest, AListOfMsrsEndsAtTheRefusedEntry) {
  const trace::Platform amx = TestPlatform(0x602e7);
  Judge judge(amx);
  const auto told = [&](const char* steps, int count, uint64_t xfd, uint64_t xfd_err) {
    const auto plan = PlanOf(steps + std::string("vmm.get_msr_list msr=xfd next=xfd_err\n"), amx);
    const std::array<uint64_t, 2> values = {xfd, xfd_err};
    const std::span bytes(reinterpret_cast<const uint8_t*>(values.data()), sizeof(values));
    return judge.Check(plan, Records(plan).Ioctl(0, count).Ioctl(1, 2, 0, bytes).End());
  };
  constexpr uint64_t kTiles = 1 << 18;
  constexpr auto kBoth =
      "vmm.set_msr_list msr=xfd value=tiledata next=xfd_err next_value=tiledata\n";
  EXPECT_TRUE(told(kBoth, 2, kTiles, kTiles).ok()) << Told(told(kBoth, 2, kTiles, kTiles));
  EXPECT_EQ(First(told(kBoth, 1, kTiles, 0)).relation, Relation::kRefused);
  EXPECT_EQ(First(told(kBoth, 2, kTiles, 0)).law, Law::kCoherence);

  constexpr auto kSecond = "vmm.set_msr_list msr=xfd value=tiledata next=xfd_err next_value=avx\n";
  EXPECT_TRUE(told(kSecond, 1, kTiles, 0).ok());
  EXPECT_EQ(First(told(kSecond, 2, kTiles, 0)).relation, Relation::kAccepted);
  EXPECT_EQ(First(told(kSecond, 2, kTiles, 0)).law, Law::kRefusal);
  EXPECT_EQ(First(told(kSecond, 1, 0, 0)).law, Law::kRefusal);  // taken back
  EXPECT_EQ(First(told(kSecond, 1, kTiles, 4)).law, Law::kRefusal);

  constexpr auto kFirst = "vmm.set_msr_list msr=xfd value=avx next=xfd_err next_value=tiledata\n";
  EXPECT_TRUE(told(kFirst, 0, 0, 0).ok());
  EXPECT_EQ(First(told(kFirst, 1, 0, kTiles)).relation, Relation::kAccepted);  // gone on
  const Verdict silently = told(kFirst, 0, 0, kTiles);
  EXPECT_EQ(First(silently).law, Law::kRefusal) << Told(silently);
  EXPECT_EQ(First(silently).step, 1);
}

// Of MSRs that a kernel may or may not know, the count says which it was, wherever they stand.
TEST_F(VerdictTest, AListOfMsrsMayEndAtAnMsrThatTheGuestLacks) {
  platform_.guest.cet_ss = platform_.guest.cet_ibt = false;
  Judge judge(platform_);
  const auto plan =
      PlanOf("vmm.set_msr_list msr=xss value=0 next=pl0_ssp next_value=0\n", platform_);
  for (const int count : {1, 2}) {
    EXPECT_TRUE(judge.Check(plan, Records(plan).Ioctl(0, count).End()).ok()) << count;
  }
  EXPECT_EQ(First(judge.Check(plan, Records(plan).Ioctl(0, 0).End())).relation, Relation::kRefused);
}

TEST_F(VerdictTest, OnlyTheFirstEntryForXcr0Counts) {
  const auto check = [&](const char* step, int error, uint64_t xcr0) {
    const auto plan = PlanOf(step + std::string("vmm.get_xcrs\n"), platform_);
    std::vector<uint8_t> xcrs(kvm::kXcrsSize);
    Put<uint32_t>(xcrs, 0, 1);
    Put<uint64_t>(xcrs, 16, xcr0);
    return Check(plan,
                 Records(plan).Ioctl(0, error != 0 ? -1 : 0, error).Ioctl(1, 0, 0, xcrs).End());
  };
  constexpr auto kTwo = "vmm.set_xcrs_list value=x87+sse next_value=x87+sse+avx\n";
  EXPECT_TRUE(check(kTwo, 0, 3).ok());
  EXPECT_FALSE(check(kTwo, 0, 7).ok());
  constexpr auto kBehind = "vmm.set_xcrs_list xcr=1 value=avx next_value=x87+sse\n";
  EXPECT_TRUE(check(kBehind, 0, 3).ok());
  constexpr auto kRefused = "vmm.set_xcrs_list value=avx next_value=x87+sse\n";
  EXPECT_TRUE(check(kRefused, EINVAL, 0x2ff).ok());
  EXPECT_EQ(First(check(kRefused, EINVAL, 3)).law, Law::kRefusal);
}

TEST_F(VerdictTest, SetOfAGetMustChangeNothing) {
  const auto plan = PlanOf(
      "vex.load256 ymm=3 pattern=0x1234\nvmm.get_xsave image=0\nvmm.set_xsave image=0\n"
      "vmm.get_xsave image=1\n",
      platform_);
  const auto image = AvxImage(0x1234);
  auto after = image;
  const auto records = [&] {
    return Records(plan).Ioctl(1, 0, 0, image).Ioctl(2, 0).Ioctl(3, 0, 0, after);
  };
  const auto clean = Check(plan, records().End());
  EXPECT_TRUE(clean.ok()) << Told(clean);
  EXPECT_NE(clean.laws & (1u << unsigned(Law::kRoundTrip)), 0);
  std::fill_n(&after[160], 256, uint8_t{0});
  EXPECT_EQ(First(Check(plan, records().End())).law, Law::kRoundTrip);
}

TEST_F(VerdictTest, AMigrationMustKeepPkru) {
  const auto plan =
      PlanOf("pkru.write value=0x55555554\nvmm.migrate order=1\npkru.read\n", platform_);
  const std::vector<uint8_t> kept = {0x54, 0x55, 0x55, 0x55}, lost = {0, 0, 0, 0};
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(1, 0).Journal(2, kept).End()).ok());
  const Divergence d = First(Check(plan, Records(plan).Ioctl(1, 0).Journal(2, lost).End()));
  EXPECT_EQ(d.law, Law::kRoundTrip);
  EXPECT_EQ(d.component, Component::kPkru);
  EXPECT_EQ(d.relation, Relation::kInitial);
  const plan::MigrateFailure failure{1, 0, 0, 0, EINVAL};
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(&failure), sizeof(failure));
  const auto refused = Check(plan, Records(plan).Ioctl(1, -1, 0, bytes).Journal(2, kept).End());
  EXPECT_EQ(First(refused).law, Law::kRoundTrip);
}

TEST_F(VerdictTest, AHangIsTheProgramsOwnOnlyInRawCode) {
  const auto plan = PlanOf("x87.fninit\nraw bytes=ebfe\nx87.fnclex\n", platform_);
  EXPECT_TRUE(Check(plan, Records(plan).End(EndReason::kHang, 1)).ok());
  for (const uint16_t step : std::initializer_list<uint16_t>{0, 2}) {
    EXPECT_EQ(First(Check(plan, Records(plan).End(EndReason::kHang, step))).relation,
              Relation::kHang);
  }
}

TEST_F(VerdictTest, RawCodeMayExitAndFaultAsOftenAsItLikes) {
  const auto often = [&](uint16_t step) {
    const auto plan = PlanOf("x87.fninit\nraw bytes=e237\n", platform_);
    Records records(plan);
    for (int i = 0; i < 9; ++i) records.Exit(step, {2, 0, plan::kExitPort, 0, 4, 1, {}});
    return Check(plan, records.Fault(step, cpu::kUD).Fault(step, cpu::kUD).End());
  };
  EXPECT_TRUE(often(1).ok()) << Told(often(1));
  EXPECT_FALSE(often(0).ok());
}

TEST_F(VerdictTest, WhatCameBeforeRawCodeIsJudged) {
  const auto plan = PlanOf("x87.fnstcw\nraw bytes=90\nx87.fnstcw\n", platform_);
  ASSERT_EQ(plan.actions.size(), 3u);
  const std::vector<uint8_t> right = {0x7f, 3}, wrong = {0x7f, 2};
  EXPECT_TRUE(Check(plan, Records(plan).Journal(0, right).Journal(2, wrong).End()).ok());
  EXPECT_FALSE(Check(plan, Records(plan).Journal(0, wrong).Journal(2, right).End()).ok());
}

TEST_F(VerdictTest, AChangedCanaryIsLaw4EvenWhereTheStateIsUnknown) {
  const auto plan = PlanOf("raw bytes=90\n", platform_);
  EXPECT_TRUE(Check(plan, Records(plan).End()).ok());
  auto before = FreshImage(platform_), after = before;
  for (size_t i = 0; i < 16; ++i) after[160 + 16 + i] = static_cast<uint8_t>(i + 1);
  const auto verdict = Check(plan, Records(plan).Canary(0, 2, before, after).End());
  const Divergence& d = First(verdict);
  EXPECT_TRUE(verdict.unknown);
  EXPECT_EQ(d.law, Law::kIsolation);
  EXPECT_EQ(d.component, Component::kSse);
  EXPECT_EQ(d.where, "XMM1 of the VMM thread");
}

TEST_F(VerdictTest, TheGuestsValueInTheHostsRegisterIsAnothers) {
  const auto plan = PlanOf("sse.load xmm=7 pattern=0x999\n", platform_);
  auto before = FreshImage(platform_), after = before;
  const auto xmm = PatternBytes(0x999, 16);
  std::memcpy(&after[160], xmm.data(), 16);
  const auto verdict = Check(plan, Records(plan).Canary(0, 2, before, after).End());
  EXPECT_EQ(First(verdict).relation, Relation::kAnothers);
}

TEST_F(VerdictTest, HangsAndDeathsAreLaw6) {
  const auto plan = PlanOf("x87.fninit\nexit.out\n", platform_);
  const Divergence hang = First(Check(plan, Records(plan).End(EndReason::kHang, 1)));
  EXPECT_EQ(hang.law, Law::kHealth);
  EXPECT_EQ(hang.relation, Relation::kHang);
  EXPECT_NE(hang.words.find("step 1 (exit.out)"), std::string::npos);
  const trace::ExitRecord internal{.reason = 17, .suberror = 1};
  const auto dead = Check(plan, Records(plan).Exit(1, internal).End(EndReason::kVcpuDead, 1));
  EXPECT_EQ(dead.divergences.size(), 1u);
  EXPECT_EQ(First(dead).relation, Relation::kDied);
  EXPECT_NE(First(dead).words.find("suberror 1"), std::string::npos);
  const auto setup = Check(plan, Records(plan).End(EndReason::kSetupFailed, 0, "no such vCPU"));
  EXPECT_NE(First(setup).words.find("no such vCPU"), std::string::npos);
  const Verdict died = Check(plan, Records(plan).End(EndReason::kAgentDied, 0));
  EXPECT_EQ(First(died).where, "agent");
  EXPECT_EQ(died.laws & 1u << static_cast<unsigned>(Law::kIsolation), 0u) << "nothing ran";
}

TEST_F(VerdictTest, AStepWithoutRecordsHasNoneOfTheProgramBefore) {
  const auto plan = PlanOf("vmm.get_xcrs\n", platform_);
  const std::vector<uint8_t> ioctl(64);
  std::vector<uint8_t> records;
  trace::AppendRecord(records, trace::RecordKind::kIoctl, 0, 0, ioctl);
  SortedRecords sorted;
  sorted.Sort(plan, records);
  EXPECT_EQ(sorted.Of(0).ioctl.size(), ioctl.size());
  sorted.Sort(plan, {});
  EXPECT_FALSE(sorted.Of(0).has_ioctl);
  EXPECT_TRUE(sorted.Of(0).ioctl.empty()) << "bytes that may be gone by now";
}

TEST_F(VerdictTest, RawCodeMayEndItsVcpuAsKvmsEmulatorOrATripleFaultDoes) {
  const auto plan = PlanOf("x87.fninit\nraw bytes=c5fe6f042500000020\n", platform_);
  const trace::ExitRecord out{2, 0, plan::kExitPort, 0, 4, 1, {}};
  const auto ends = [&](uint16_t step, const trace::ExitRecord& exit, unsigned exits_before = 0) {
    Records records(plan);
    for (unsigned i = 0; i < exits_before; ++i) records.Exit(step, out);
    return Check(plan, records.Exit(step, exit).End(EndReason::kVcpuDead, step));
  };
  constexpr uint32_t kShutdown = 8, kInternalError = 17, kFailEntry = 9;
  EXPECT_TRUE(ends(1, {.reason = kInternalError, .suberror = 1}).ok());
  EXPECT_TRUE(ends(1, {.reason = kShutdown}).ok());
  EXPECT_TRUE(ends(1, {.reason = kShutdown}, 9).ok()) << "the last exit counts";
  EXPECT_FALSE(ends(1, {.reason = kInternalError, .suberror = 3}).ok());
  EXPECT_FALSE(ends(1, {.reason = kFailEntry}).ok());
  EXPECT_FALSE(ends(0, {.reason = kInternalError, .suberror = 1}).ok()) << "not raw";
  EXPECT_FALSE(Check(plan, Records(plan).End(EndReason::kVcpuDead, 1)).ok()) << "errno alone";
}

TEST_F(VerdictTest, AnAgentsDeathSaysHowAndNamesNoStep) {
  const auto plan = PlanOf("x87.fninit\nexit.out\n", platform_);
  const auto verdict = Check(
      plan, Records(plan).End(EndReason::kAgentDied, 0, "the agent was ended by signal 11 (...)"));
  EXPECT_NE(First(verdict).words.find("signal 11"), std::string::npos);
  EXPECT_EQ(First(verdict).op, 0) << "the program's first step is not to blame";
}

TEST_F(VerdictTest, AMachinesDeathIsNamedByTheLastFatalThingItsConsoleSays) {
  const auto plan = PlanOf("x87.fninit\nexit.out\n", platform_);
  const auto divergence = First(Check(
      plan, Records(plan).End(EndReason::kAgentDied, 0,
                              "the agent ended with status 0\n"
                              "[ 1.0] WARNING: CPU: 0 PID: 1 at kernel/a.c:1 boot_one+0x1/0x2\n"
                              "[ 1.0] ---[ end trace 0 ]---\n"
                              "[ 9.0] BUG: unable to handle page fault for address: 0x1\n"
                              "[ 9.0] RIP: 0010:fpu_swap_kvm_fpstate+0x5/0x9\n")));
  EXPECT_EQ(divergence.relation, Relation::kDied);
  EXPECT_EQ(divergence.where, "BUG in fpu_swap_kvm_fpstate");
  EXPECT_NE(divergence.words.find("unable to handle page fault"), std::string::npos);
  EXPECT_EQ(divergence.words.find("boot_one"), std::string::npos);
}

TEST_F(VerdictTest, APkruThatAMigrationLosesBehindASetWithoutItHasItsCause) {
  // Reads 0 at its last step, where 80000000H is due.
  const auto told = [&](const std::string& between, std::vector<uint8_t> seen = {0, 0, 0, 0}) {
    const auto plan =
        PlanOf(("pkru.write value=0x80000000\n" + between + "pkru.read\n").c_str(), platform_);
    Records records(plan);
    const auto& steps = plan.effective.steps;
    for (uint16_t i = 1; i + 1u < steps.size(); ++i) {
      if (steps[i].op == program::Op::kExitOut) {
        records.Exit(i, {2, 0, plan::kExitPort, i, 4, 1, {}});
      } else if (steps[i].op == program::Op::kHostPkru) {
        records.Host(i);
      } else {
        records.Ioctl(i, 0);
      }
    }
    records.Journal(static_cast<uint16_t>(steps.size() - 1), seen);
    const Divergence d = First(Check(plan, records.End()));
    EXPECT_EQ(d.component, xstate::Component::kPkru) << d.words;
    return d.cause;
  };
  const std::string set = "vmm.set_xsave image=0\n", migrate = "vmm.migrate order=0\n";
  EXPECT_EQ(told(set + migrate), "pkru-lost-by-migration");
  EXPECT_EQ(told("host.pkru value=0\nexit.out\n" + migrate), "pkru-lost-by-migration");
  // Near misses stay as they are.
  EXPECT_EQ(told("host.pkru value=4\nexit.out\n" + migrate), "") << "the VMM's own is not 0";
  EXPECT_EQ(told("host.pkru value=0\n" + migrate), "") << "it has not run since";
  EXPECT_EQ(told(migrate), "") << "the bit was there";
  EXPECT_EQ(told(set), "") << "nothing was migrated";
  EXPECT_EQ(told(migrate + set), "");
  EXPECT_EQ(told(set + "exit.out\n" + migrate), "") << "it ran in between";
  const unsigned pkru = platform_.host.xsave.sub[9].offset;
  EXPECT_EQ(told("vmm.image_write image=0 offset=512 value=0x200\n"
                 "vmm.image_write image=0 value=0x80000000 offset=" +
                 std::to_string(pkru) + "\n" + set + migrate),
            "")
      << "the image has PKRU";
  EXPECT_EQ(told(set + migrate, {4, 0, 0, 0}), "") << "another value, not none";
  EXPECT_EQ(told(set + migrate + "pkru.write value=0x40000000\n"), "") << "another than was lost";
}

TEST_F(VerdictTest, AnMxcsrThatAnImageWithoutSseAndAvxLeavesOutHasItsCause) {
  // What is said of the last step, an ioctl that gives `image` or an instruction that stores MXCSR.
  const auto told = [&](bool compacted, const std::string& steps,
                        const std::vector<uint8_t>& seen) {
    const auto platform = TestPlatform(kTestComponents, compacted);
    const auto plan = PlanOf(steps.c_str(), platform);
    Records records(plan);
    const auto& all = plan.effective.steps;
    const auto last = static_cast<uint16_t>(all.size() - 1);
    for (uint16_t i = 0; i < last; ++i) {
      const bool vmm = program::RowOf(all[i]).actor == program::Actor::kVmm;
      if (vmm) records.Ioctl(i, 0);
    }
    const bool image = program::RowOf(all[last]).actor == program::Actor::kVmm;
    image ? records.Ioctl(last, 0, 0, seen) : records.Journal(last, seen);
    const Divergence d = First(Judge(platform).Check(plan, records.End()));
    EXPECT_EQ(d.component, Component::kSse) << d.words;
    return d.cause;
  };
  const std::string load = "sse.ldmxcsr value=0\n", set = "vmm.set_xsave image=0\n";
  const std::string get = "vmm.get_xsave image=0\n", look = "sse.stmxcsr\n";
  const std::string migrate = "vmm.migrate order=0\n";
  const std::vector<uint8_t> left_out = FreshImage(platform_), initial = {0x80, 0x1f, 0, 0};
  EXPECT_EQ(told(false, load + set + get, left_out), "mxcsr-left-out");
  EXPECT_EQ(told(false, load + get, left_out), "mxcsr-left-out") << "XSAVE leaves XINUSE[1] clear";
  EXPECT_EQ(told(false, load + set + migrate + look, initial), "mxcsr-left-out");
  EXPECT_EQ(told(false, load + migrate + look, initial), "mxcsr-left-out");
  // Near misses stay as they are.
  EXPECT_EQ(told(true, load + get, left_out), "") << "XSAVES sets the bit for MXCSR";
  EXPECT_EQ(told(true, load + migrate + look, initial), "");
  EXPECT_EQ(told(false, load + look, initial), "") << "nothing was migrated";
  EXPECT_EQ(told(false, load + migrate + look, {0x80, 0x3f, 0, 0}), "") << "not the initial value";
  EXPECT_EQ(told(false, "sse.load xmm=0 pattern=0x77\n" + load + migrate + look, initial), "")
      << "XMM was in use";
  EXPECT_EQ(told(false, load + migrate + "sse.ldmxcsr value=0x3f80\n" + look, initial), "")
      << "another value than was lost";
  EXPECT_EQ(
      told(false, load + set + load + "sse.load xmm=0 pattern=0x77\n" + migrate + look, initial),
      "")
      << "it ran since";
  std::vector<uint8_t> with_sse = left_out;
  Put<uint64_t>(with_sse, 512, 2);
  EXPECT_EQ(told(false, load + get, with_sse), "") << "the image has SSE";
  // What else differs is told beside it.
  {
    const auto platform = TestPlatform(kTestComponents, /*compacted=*/false);
    const auto plan = PlanOf((load + get).c_str(), platform);
    std::vector<uint8_t> garbled = left_out;
    garbled[700] = 0x11;
    const auto both =
        Judge(platform).Check(plan, Records(plan).Ioctl(1, 0, 0, garbled).End()).divergences;
    ASSERT_EQ(both.size(), 2u);
    EXPECT_EQ(both[0].cause, "mxcsr-left-out");
    EXPECT_EQ(both[1].offset, 700u);
    EXPECT_EQ(both[1].cause, "");
  }
  std::vector<uint8_t> other = left_out;
  other[25] = 0x3f;
  EXPECT_EQ(told(false, load + get, other), "");
}

// Seen in lab:amx: the buffer of a fresh VM's vCPU that may use tiles was zeros.
TEST_F(VerdictTest, AGuestWithTilesBeganWithABufferOfZeros) {
  const auto told = [](const char* features, uint16_t fcw) {
    const auto platform = TestPlatform(kTestComponents | xstate::kAmx);
    const auto plan = PlanOf(
        (std::string("features ") + features + "\nvmm.migrate order=0\n" + "vmm.get_fpu\n").c_str(),
        platform);
    std::vector<uint8_t> fpu(plan::kFpuSize);
    Put<uint16_t>(fpu, 128, fcw);
    Put<uint32_t>(fpu, 408, 0x1f80);
    return First(Judge(platform).Check(plan, Records(plan).Ioctl(0, 0).Ioctl(1, 0, 0, fpu).End()));
  };
  EXPECT_EQ(told("x87+sse+tilecfg+tiledata", 0).relation, Relation::kStale);
  EXPECT_EQ(told("x87+sse+tilecfg+tiledata", 0).cause, "fpu-of-old");
  EXPECT_EQ(told("x87+sse+tilecfg+tiledata", 1).relation, Relation::kInvented);
  EXPECT_EQ(told("x87+sse+avx", 0).relation, Relation::kInvented);
}

// Seen in lab:amx: fpstate_realloc brings nothing over.
TEST_F(VerdictTest, AStateThatIsLostWhereTheFpstateGrowsIsBlamedOnTheCall) {
  const auto platform = TestPlatform(kTestComponents | xstate::kAmx);
  const auto judged = [&](const std::string& before, const std::string& features, uint64_t xmm0) {
    const auto plan = PlanOf(("features " + before +
                              "\nxcr0 x87+sse\n"
                              "vmm.image_write image=0 offset=512 value=2\n"
                              "vmm.image_write image=0 offset=160 value=0x77\n"
                              "vmm.image_write image=0 offset=176 value=0x99\n"
                              "vmm.set_xsave image=0\n"
                              "vmm.set_cpuid features=" +
                              features + "\nsse.store xmm=0\nsse.store xmm=1\n")
                                 .c_str(),
                             platform);
    const auto& step = plan.effective.steps[4];
    std::vector<uint8_t> components(8), store(16), other(16);
    Put<uint64_t>(components, 0, step.arg[0]);
    Put<uint64_t>(store, 0, xmm0);
    Records records(plan);
    for (uint16_t i = 0; i < 4; ++i) records.Ioctl(i, 0);
    records.Ioctl(4, 0, 0, components).Journal(5, store).Journal(6, other);
    return Judge(platform).Check(plan, records.End());
  };
  const Verdict lost = judged("x87+sse", "x87+sse+tilecfg+tiledata", 0);
  ASSERT_EQ(lost.divergences.size(), 1u) << Told(lost);
  EXPECT_EQ(lost.divergences[0].step, 4u);
  EXPECT_EQ(lost.divergences[0].cause, "grown-without-copy");
  // In part it is another fault.
  const Verdict part = judged("x87+sse", "x87+sse+tilecfg+tiledata", 0x77);
  ASSERT_FALSE(part.ok());
  EXPECT_EQ(First(part).step, 6u) << Told(part);
  // Nothing has grown.
  EXPECT_EQ(First(judged("x87+sse", "x87+sse+avx", 0)).step, 5u);
  EXPECT_EQ(First(judged("x87+sse+tilecfg+tiledata", "x87+sse+tilecfg+tiledata", 0)).step, 5u);
}

// What one look tells of a call that lost the state and of another fault is so from then on.
TEST_F(VerdictTest, AStateThatWasToldLostIsNotBackLater) {
  const auto platform = TestPlatform(kTestComponents | xstate::kAmx);
  const auto plan = PlanOf(
      "features x87+sse+pkru\nxcr0 x87+sse\n"
      "vmm.image_write image=0 offset=512 value=2\n"
      "vmm.image_write image=0 offset=160 value=0x77\n"
      "vmm.set_xsave image=0\n"
      "vmm.set_cpuid features=x87+sse+pkru+tilecfg+tiledata\n"
      "vmm.get_xsave2 image=1\n"
      "sse.store xmm=0\n",
      platform);
  std::vector<uint8_t> image = FreshImage(platform), components(8), old(16);
  Put<uint64_t>(image, 512, 4);  // and AVX from nowhere
  image[576] = 0x11;
  Put<uint64_t>(components, 0, plan.effective.steps[3].arg[0]);
  Put<uint64_t>(old, 0, 0x77);
  Records records(plan);
  for (uint16_t i = 0; i < 3; ++i) records.Ioctl(i, 0);
  records.Ioctl(3, 0, 0, components).Ioctl(4, 0, 0, image).Journal(5, old);
  const Verdict verdict = Judge(platform).Check(plan, records.End());
  const auto at = [&](unsigned step) {
    return std::ranges::count(verdict.divergences, step, &Divergence::step);
  };
  EXPECT_EQ(at(3), 1) << Told(verdict);
  EXPECT_GE(at(4), 1) << Told(verdict);
  EXPECT_EQ(at(5), 1) << Told(verdict);
}

// Seen in lab:amd: KVM_SET_SREGS refused the CR4 that the guest had, and the program could not go
// on.
TEST_F(VerdictTest, ACpuidWithoutPkuTakesPkeAway) {
  const auto plan = PlanOf(
      "xcr0 x87+sse\nvmm.migrate order=0\nvmm.set_cpuid features=x87+sse\npkru.read\n", platform_);
  const std::vector<uint8_t> components = {3, 0, 0, 0, 0, 0, 0, 0}, pkru = {0, 0, 0, 0};
  const auto judged = [&](Records records) { return Check(plan, records.End()).ok(); };
  Records until(plan);
  until.Ioctl(0, 0).Ioctl(1, 0, 0, components);
  EXPECT_TRUE(judged(Records(until).Fault(2, cpu::kUD)));
  EXPECT_FALSE(judged(Records(until).Journal(2, pkru)));
}

TEST_F(VerdictTest, WhatTheKernelLogsMeanwhileIsLaw6IfItIsOurs) {
  const auto plan = PlanOf("host.cpu\n", platform_);
  const auto check = [&](std::string_view log) {
    return Check(plan, Records(plan).Host(0).KernelLog(log).End());
  };
  EXPECT_TRUE(check("debugfs: duplicate directory\n").ok());
  EXPECT_TRUE(check("WARNING: CPU: 0 PID: 9 at fs/inode.c:1 iput+0x1/0x2\n").ok())
      << "another's warning";
  const auto divergence = First(
      check("WARNING: CPU: 0 PID: 9 at arch/x86/kernel/fpu/core.c:9 fpu_swap_kvm_fpstate+0x1/0x2\n"
            "CPU: 0 PID: 9 Comm: kvm-runner Not tainted\n"));
  EXPECT_EQ(divergence.law, Law::kHealth);
  EXPECT_EQ(divergence.relation, Relation::kComplained);
  EXPECT_EQ(divergence.where, "WARNING in fpu_swap_kvm_fpstate");
  EXPECT_NE(divergence.words.find("it is this program's"), std::string::npos);
}

TEST_F(VerdictTest, BrokenRecordsAreTheAgentsDeath) {
  const auto plan = PlanOf("vmm.get_xcrs\n", platform_);
  EXPECT_EQ(First(Check(plan, {})).relation, Relation::kDied);
  EXPECT_EQ(First(Check(plan, {1, 2, 3})).where, "records");
  EXPECT_FALSE(Check(plan, Records(plan).End()).ok());              // the call is missing
  EXPECT_FALSE(Check(plan, Records(plan).Ioctl(9, 0).End()).ok());  // no such step
  EXPECT_FALSE(Check(plan, Records(plan).Ioctl(0, 0).End()).ok());  // no struct
}

TEST_F(VerdictTest, ExitsAreJudgedByWhatTheGuestDid) {
  const auto plan = PlanOf(
      "exit.mmio_write width=2 value=0x11223344\nsse.load xmm=1 pattern=0x77\n"
      "exit.mmio_vector write=1 reg=1\nexit.out\n",
      platform_);
  const auto xmm = PatternBytes(0x77, 16);
  uint64_t low, high;
  std::memcpy(&low, xmm.data(), 8);
  std::memcpy(&high, xmm.data() + 8, 8);
  const auto records = [&](uint32_t value, uint64_t second) {
    return Records(plan)
        .Exit(0, {6, 0, plan::kMmioBase, value, 4, 1, {}})
        .Exit(2, {6, 0, plan::kMmioBase + 32, low, 8, 1, {}})
        .Exit(2, {6, 0, plan::kMmioBase + 40, second, 8, 1, {}})
        .Exit(3, {2, 0, plan::kExitPort, 3, 4, 1, {}});
  };
  const auto clean = Check(plan, records(0x11223344, high).End());
  EXPECT_TRUE(clean.ok()) << Told(clean);
  EXPECT_EQ(First(Check(plan, records(0x11223345, high).End())).where, "data of the exit");
  const Divergence vector = First(Check(plan, records(0x11223344, ~high).End()));
  EXPECT_EQ(vector.component, Component::kSse);
}

TEST_F(VerdictTest, MxcsrOfAnImageWithoutSseDependsOnTheHostsFormat) {
  const std::string steps =
      "vmm.image_write image=0 offset=24 value=0x3f80\n"
      "vmm.image_write image=0 offset=512 value=1\nvmm.set_xsave image=0\nsse.stmxcsr\n";
  const std::vector<uint8_t> initial = {0x80, 0x1f, 0, 0}, given = {0x80, 0x3f, 0, 0};
  for (const bool compacted : {true, false}) {
    const auto platform = TestPlatform(kTestComponents, compacted);
    const auto plan = PlanOf(steps, platform);
    Judge judge(platform);
    const auto records = [&](const std::vector<uint8_t>& mxcsr) {
      return Records(plan).Ioctl(0, 0).Ioctl(1, 0).Ioctl(2, 0).Journal(3, mxcsr).End();
    };
    EXPECT_TRUE(judge.Check(plan, records(compacted ? initial : given)).ok()) << compacted;
    EXPECT_FALSE(judge.Check(plan, records(compacted ? given : initial)).ok()) << compacted;
  }
}

TEST_F(VerdictTest, WhatSetFpuLosesIsToldAtSetFpu) {
  const auto plan = PlanOf("vmm.set_fpu pattern=0 fcw=0x27f mxcsr=0x1f80\nx87.fnstcw\n", platform_);
  const std::vector<uint8_t> taken = {0x7f, 2}, lost = {0x7f, 3}, neither = {0x7f, 0};
  EXPECT_TRUE(Check(plan, Records(plan).Ioctl(0, 0).Journal(1, taken).End()).ok());
  const Divergence d = First(Check(plan, Records(plan).Ioctl(0, 0).Journal(1, lost).End()));
  EXPECT_EQ(d.step, 0);
  EXPECT_EQ(d.where, "x87 state of kvm_fpu");
  EXPECT_EQ(d.relation, Relation::kInitial);
  EXPECT_EQ(First(Check(plan, Records(plan).Ioctl(0, 0).Journal(1, neither).End())).step, 1);
}

TEST_F(VerdictTest, WhatSetFpuLosesAndAnotherFailureInOneLookAreBothTold) {
  const auto platform = TestPlatform(kTestComponents, /*compacted=*/false);
  const auto plan = PlanOf(
      "sse.ldmxcsr value=0\nvmm.set_xsave image=0\nvmm.set_fpu pattern=2 fcw=0x27f mxcsr=0\n"
      "vmm.get_xsave image=0\n",
      platform);
  Judge judge(platform);
  const auto told = [&](const std::vector<uint8_t>& image) {
    return judge.Check(plan, Records(plan).Ioctl(1, 0).Ioctl(2, 0).Ioctl(3, 0, 0, image).End());
  };
  // Nothing of the call is there, and MXCSR is left out of the image.
  std::vector<uint8_t> image = FreshImage(platform);
  const auto both = told(image);
  ASSERT_EQ(both.divergences.size(), 3u) << Told(both);
  EXPECT_EQ(both.divergences[0].where, "x87 state of kvm_fpu");
  EXPECT_EQ(both.divergences[1].where, "XMM of kvm_fpu");
  EXPECT_EQ(both.divergences[2].cause, "mxcsr-left-out");
  // Registers that hold neither what the call gave nor what was there are no loss of its.
  std::fill_n(&image[32], 16 * 8, uint8_t{0x5a});
  const auto garbled = told(image);
  for (const Divergence& d : garbled.divergences) EXPECT_EQ(d.step, 3) << Told(garbled);
}

TEST_F(VerdictTest, AGuestUnderTheHostsXcr0IsOneDivergence) {
  platform_.xcr0_loaded = false;  // as the probe has found
  Judge judge(platform_);
  const auto plan = PlanOf(
      "xcr0 x87+sse\nvex.load256 ymm=3 pattern=0x1234\nxgetbv ecx=0\n"
      "vex.store256 ymm=3\nx87.fnstcw\n",
      platform_);
  const std::vector<uint8_t> xcr0 = {0xff, 2, 0, 0, 0, 0, 0, 0}, fcw = {0x7f, 3};
  const auto verdict = judge.Check(
      plan,
      Records(plan).Journal(1, xcr0).Journal(2, PatternBytes(0x1234, 32)).Journal(3, fcw).End());
  ASSERT_EQ(verdict.divergences.size(), 1u) << Told(verdict);
  EXPECT_EQ(verdict.divergences[0].where, "XCR0 in force");
  EXPECT_EQ(verdict.divergences[0].op, 0);
}

TEST_F(VerdictTest, PkruEnforcedWithoutPkeIsToldAsThatOnlyWhereTheHostsRegistersRule) {
  const std::string steps =
      "pke 0\nvmm.image_write image=1 offset=2688 value=1\n"
      "vmm.image_write image=1 offset=512 value=0x200\nvmm.set_xsave image=1\n"
      "sse.ldmxcsr value=0x1f80\n";
  ASSERT_EQ(platform_.host.xsave.sub[9].offset, 2688u);
  const auto where = [&](uint32_t error) {
    const auto plan = PlanOf(steps, platform_);
    Judge judge(platform_);
    const auto verdict = judge.Check(plan, Records(plan)
                                               .Ioctl(0, 0)
                                               .Ioctl(1, 0)
                                               .Ioctl(2, 0)
                                               .Fault(3, cpu::kPF, error, plan::kLiteralBase)
                                               .End());
    return First(verdict).where;
  };
  EXPECT_EQ(where(0x25), "fault");  // a KVM that gives the guest its own CR4
  platform_.xcr0_loaded = false;
  EXPECT_EQ(where(0x25), "CR4.PKE in force");
  EXPECT_EQ(where(5), "fault") << "no protection key in it";
}

TEST_F(VerdictTest, KvmGetFpuCanShowTheHostsXcr0) {
  platform_.xcr0_loaded = false;
  // The area declares everything initial; with XCR0 = 1 only x87 is restored from it.
  const auto plan =
      PlanOf("xcr0 x87\nsse.load xmm=0 pattern=0x77\nxrstor slot=0 rfbm=all wide=0\nvmm.get_fpu\n",
             platform_);
  std::vector<uint8_t> fpu(plan::kFpuSize);
  Put<uint16_t>(fpu, 128, 0x37f);
  std::vector<uint8_t> kept = fpu;
  Put<uint32_t>(kept, 408, 0x1f80);
  std::ranges::copy(PatternBytes(0x77, 16), &kept[152]);
  Judge judge(platform_);
  const auto with = [&](const std::vector<uint8_t>& seen) {
    return judge.Check(plan, Records(plan).Ioctl(2, 0, 0, seen).End());
  };
  EXPECT_TRUE(with(kept).ok()) << Told(with(kept));
  EXPECT_EQ(First(with(fpu)).where, "XCR0 in force");
  fpu[152 + 16] = 1;  // XMM1, which neither XCR0 explains
  ASSERT_EQ(with(fpu).divergences.size(), 2u) << Told(with(fpu));
  EXPECT_EQ(with(fpu).divergences[1].where, "XMM1 of kvm_fpu");
}

TEST_F(VerdictTest, ASaveKeepsTheBytesItDoesNotWrite) {
  const auto plan = PlanOf(
      "mem.fill slot=1 offset=0 length=512 pattern=0x42\nxsave slot=1 rfbm=sse\n", platform_);
  std::vector<uint8_t> area(plan.rows[1].journal_bytes);
  const auto pattern = PatternBytes(0x42, 512);
  std::memcpy(area.data(), pattern.data(), 512);
  Put<uint32_t>(area, 24, 0x1f80);
  Put<uint32_t>(area, 28, platform_.guest.mxcsr_mask);
  std::fill_n(&area[160], 256, uint8_t{0});
  EXPECT_TRUE(Check(plan, Records(plan).Journal(1, area).End()).ok());
  area[470] ^= 1;  // "available to software"
  const Divergence d = First(Check(plan, Records(plan).Journal(1, area).End()));
  EXPECT_EQ(d.where, "available to software of the area");
}

TEST_F(VerdictTest, ManyKnownThingsDoNotCrowdOutALaterOne) {
  std::string steps;
  for (int i = 0; i < 40; ++i) steps += "vmm.get_fpu\n";
  const auto plan = PlanOf(steps + "x87.fnstcw\nx87.fninit\n", platform_);
  std::vector<uint8_t> fpu(plan::kFpuSize);  // FCW and MXCSR are wrong each time
  Records records(plan);
  for (uint16_t i = 0; i < 40; ++i) records.Ioctl(i, 0, 0, fpu);
  const std::vector<uint8_t> wrong = {0x7f, 2};
  const auto verdict = Check(plan, records.Journal(40, wrong).End(EndReason::kHang, 41));
  ASSERT_EQ(verdict.divergences.size(), 4u) << Told(verdict);  // FCW, MXCSR, FNSTCW, the hang
  EXPECT_EQ(verdict.divergences[2].step, 40);
  EXPECT_EQ(verdict.divergences[3].relation, Relation::kHang);
}

TEST_F(VerdictTest, JudgingGoesOnBehindAWrongImageAndBehindAnotherFault) {
  const auto plan =
      PlanOf("vmm.get_xsave image=0\nsse.ldmxcsr value=0x10000\nx87.fnstcw\n", platform_);
  auto image = FreshImage(platform_);
  image.resize(4096);
  image[24] ^= 0x40;  // MXCSR
  const std::vector<uint8_t> wrong = {0x7f, 2};
  const auto verdict =
      Check(plan, Records(plan).Ioctl(0, 0, 0, image).Fault(1, cpu::kUD).Journal(2, wrong).End());
  ASSERT_EQ(verdict.divergences.size(), 3u) << Told(verdict);
  EXPECT_EQ(verdict.divergences[2].step, 2);
  EXPECT_STREQ(verdict.cut, "the divergence");
  EXPECT_EQ(verdict.cut_at, 2);
}

TEST_F(VerdictTest, TenSetFpuAreNotTooMuch) {
  std::string steps;
  for (int i = 0; i < 10; ++i)
    steps += "vmm.set_fpu pattern=" + std::to_string(7 * i) + " fcw=0x27f mxcsr=0x1f" +
             std::to_string(i) + "0\n";
  const auto plan = PlanOf(steps + "x87.fnstcw\n", platform_);
  Records records(plan);
  for (uint16_t i = 0; i < 10; ++i) records.Ioctl(i, 0);
  const std::vector<uint8_t> wrong = {0x7f, 1};
  const auto verdict = Check(plan, records.Journal(10, wrong).End());
  EXPECT_FALSE(verdict.unknown);
  EXPECT_EQ(First(verdict).step, 10) << Told(verdict);
}

TEST_F(VerdictTest, ReachCountsOnlyTheComponentsThatAStepConcerns) {
  struct Sink final : ReachSink {
    void Reach(const ReachEvent& e) override {
      seen[e.op] |= e.component < 64 ? uint64_t{1} << e.component : 0;
    }
    std::map<uint8_t, uint64_t> seen;
  } sink;
  const auto plan = PlanOf(
      "evex.load512 reg=3 pattern=5\nevex.store512 reg=20\nevex.pxor512 dst=1 a=2 b=17\n"
      "xsave slot=0 rfbm=x87+avx\nvmm.image_write image=0 offset=512 value=0x20\n"
      "vmm.set_xsave image=0\nxsetbv ecx=0 value=x87+sse+avx\nxsave slot=0 rfbm=all\n",
      platform_);
  Judge judge(platform_);
  judge.Simulate(plan, sink);
  using program::Op;
  const auto of = [&](Op op) { return sink.seen[static_cast<uint8_t>(op)]; };
  EXPECT_EQ(of(Op::kEvexLoad512), Component::kSse | Component::kAvx | Component::kZmmHi256);
  EXPECT_EQ(of(Op::kEvexStore512), Bit(Component::kHi16Zmm));
  EXPECT_EQ(of(Op::kEvexPxor512),
            Component::kSse | Component::kAvx | Component::kZmmHi256 | Component::kHi16Zmm);
  EXPECT_EQ(of(Op::kSetXsave), Bit(Component::kOpmask));
  EXPECT_EQ(of(Op::kXsave), Component::kX87 | Component::kSse | Component::kAvx) << "both together";
}

TEST_F(VerdictTest, TheJsonHasWhatTheVerdictHas) {
  const auto plan = PlanOf("x87.fninit\n", platform_);
  const std::string json = VerdictToJson(Check(plan, Records(plan).Fault(0, cpu::kNM).End()));
  for (const char* part : {"\"ok\": false", "\"law\": \"model\"", "\"relation\": \"refused\"",
                           "\"op\": \"x87.fninit\"", "\"laws\"", "\"checks\""}) {
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
  }
}

}  // namespace
}  // namespace fpswap::judge
