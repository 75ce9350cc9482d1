// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kvm target on the real /dev/kvm. Where there is none these tests are skipped and say why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <set>

#include "harness/judge/judge.h"
#include "harness/program/generate.h"
#include "harness/program/text.h"
#include "harness/targets/agent_target.h"
#include "oracle/xstate/layout.h"
#include "tests/targets/batch.h"

namespace fpswap::targets {
namespace {

using program::Op;
using trace::EndReason;
using trace::RecordKind;

// Whether a component that holds its initial value counts as in use is the CPU's choice, which a
// context switch may change: two runs of a program may differ in XSTATE_BV, and in what is stored
// by it. So steps that store XINUSE are left out where records are compared; KVM_GET_FPU and
// KVM_SET_FPU as well, which go past XSTATE_BV to the kernel's buffer,
program::Program WithoutXinuse(program::Program p) {
  std::erase_if(p.steps, [](const program::Step& step) {
    return (step.op >= Op::kXsave && step.op <= Op::kXsaves) ||
           (step.op == Op::kXgetbv && step.arg[0] != 0) || step.op == Op::kGetFpu ||
           step.op == Op::kSetFpu || step.op == Op::kRaw;
  });
  // Bytes that are changed in an image that KVM_GET_XSAVE has filled count only if its XSTATE_BV,
  // which is XINUSE, says so.
  std::set<uint64_t> shown;
  std::erase_if(p.steps, [&](const program::Step& step) {
    if (step.op == Op::kGetXsave || step.op == Op::kGetXsave2) shown.insert(step.arg[0]);
    if (step.op == Op::kImageInit) shown.erase(step.arg[0]);
    return (step.op == Op::kImageFill || step.op == Op::kImageWrite) && shown.contains(step.arg[0]);
  });
  return p;
}

// and images are compared without it: a component that is really another shows in its bytes.
Records Comparable(const Records& records, const program::Program& effective) {
  constexpr size_t kXstateBv = sizeof(trace::IoctlRecord) + xstate::kHeaderOffset;
  constexpr size_t kMxcsrMask = sizeof(trace::IoctlRecord) + 28;  // no state either
  Records out = WithoutTime(records);
  for (size_t at = 0; at + 8 <= out.size();) {
    uint32_t length;
    std::memcpy(&length, &out[at + 4], sizeof(length));
    const bool image = out[at] == static_cast<uint8_t>(RecordKind::kIoctl) && length > 4096;
    if (image) std::memset(&out[at + 8 + kXstateBv], 0, 8);
    if (image) std::memset(&out[at + 8 + kMxcsrMask], 0, 4);
    // Whether a competitor that comes by itself comes in time is the machine's affair.
    uint16_t step;
    std::memcpy(&step, &out[at + 2], sizeof(step));
    const bool timing = out[at] == static_cast<uint8_t>(RecordKind::kHost) &&
                        effective.steps.at(step).op == Op::kHostPreempt;
    if (timing) std::memset(&out[at + 8], 0, sizeof(trace::HostRecord));
    at += 8 + length;
  }
  return out;
}

// From which step on `records` show the CPU's defect of corpus/known/amd-avx-initial-under-zmm,
// which comes and goes with context switches; UINT_MAX for none.
unsigned AvxDefectFrom(const Records& records, const program::Program& program,
                       const trace::Platform& platform) {
  const auto verdict = judge::Judge(platform).Check(plan::MakePlan(program, platform), records);
  const auto found = std::ranges::find(verdict.divergences, "avx-initial-under-zmm",
                                       [](const judge::Divergence& d) { return d.cause; });
  return found != verdict.divergences.end() ? found->step : UINT_MAX;
}

// Which records differ, in words.
void ExpectSame(const Records& first, const Records& second, const program::Program& program,
                const trace::Platform& platform) {
  const program::Program effective = plan::MakePlan(program, platform).effective;
  const Records a = Comparable(first, effective), b = Comparable(second, effective);
  if (a == b) return;
  const unsigned defect =
      std::min(AvxDefectFrom(first, program, platform), AvxDefectFrom(second, program, platform));
  trace::RecordReader left(a), right(b);
  trace::RecordView x{}, y{};
  while (left.Next(x) && right.Next(y)) {
    if (x.kind == RecordKind::kEnd) continue;
    const bool same = x.kind == y.kind && x.step == y.step && std::ranges::equal(x.bytes, y.bytes);
    if (same) continue;
    if (std::min(x.step, y.step) >= defect) return;
    const auto at = std::ranges::mismatch(x.bytes, y.bytes).in1 - x.bytes.begin();
    ADD_FAILURE() << "records of kind " << static_cast<int>(x.kind) << " step " << x.step
                  << " and kind " << static_cast<int>(y.kind) << " step " << y.step
                  << " differ at byte " << at << " of\n"
                  << PrintText(program);
    return;
  }
  ADD_FAILURE() << "they end otherwise (reasons " << static_cast<int>(EndOf(first).reason)
                << " and " << static_cast<int>(EndOf(second).reason) << "):\n"
                << PrintText(program);
}

class KvmTest : public testing::Test {
 protected:
  // Runs a program and judges it: nothing may diverge, and this many steps must fault.
  void ExpectClean(const program::Program& program, unsigned faults) {
    const auto records = RunAll(*target_, {program});
    const plan::Plan plan = plan::MakePlan(program, target_->platform());
    EXPECT_GE(plan.effective.steps.size(), program.steps.size() / 2) << "most of it was trimmed";
    const auto verdict = judge::Judge(target_->platform()).Check(plan, records[0]);
    EXPECT_TRUE(verdict.ok()) << verdict.divergences[0].words << "\n" << PrintText(plan.effective);
    trace::RecordReader reader(records[0]);
    trace::RecordView view{};
    unsigned seen = 0;
    while (reader.Next(view)) seen += view.kind == RecordKind::kFault;
    EXPECT_EQ(seen, faults);
  }

  void SetUp() override {
    target_ = Open({});
    if (target_ == nullptr) GTEST_SKIP() << reason_;
  }

  std::unique_ptr<AgentTarget> Open(std::vector<std::string> arguments) {
    AgentCommand command{.path = std::string(FPSWAP_BINARY_DIR) + "/kvm-runner",
                         .arguments = std::move(arguments)};
    auto target = AgentTarget::Open(std::move(command));
    if (target) return std::move(*target);
    reason_ = target.error().reason + ": " + target.error().remedy;
    return nullptr;
  }

  std::vector<program::Program> GeneratedWithoutXinuse(uint64_t seed, size_t count,
                                                       bool several = false) const {
    auto programs = Generated(seed, count, several);
    for (auto& program : programs) program = WithoutXinuse(std::move(program));
    return programs;
  }

  // `several`: with several vCPUs each, in all placements; else with one.
  std::vector<program::Program> Generated(uint64_t seed, size_t count, bool several = false) const {
    program::Rng rng(seed);
    program::Profile profile;
    profile.features = target_->platform().guest.xsave.xcr0;
    profile.vcpus = several ? program::kMaxVcpus : uint8_t{1};
    std::vector<program::Program> programs;
    while (programs.size() < count) {
      program::Program program = program::Generate(rng, profile);
      if (several == (program.vcpus > 1)) programs.push_back(std::move(program));
    }
    return programs;
  }

  void ExpectSameInBothOrders(const std::vector<program::Program>& programs) {
    const auto forward = RunAll(*target_, programs);
    const std::vector<program::Program> reversed(programs.rbegin(), programs.rend());
    auto backward = RunAll(*target_, reversed);
    std::ranges::reverse(backward);
    for (size_t i = 0; i < programs.size() && !HasFailure(); ++i) {
      ExpectSame(forward[i], backward[i], programs[i], target_->platform());
    }
  }

  void ExpectSameOnFreshVms(const std::vector<program::Program>& programs) {
    const auto reused = RunAll(*target_, programs);
    auto fresh_target = Open({"--no-reuse"});
    ASSERT_NE(fresh_target, nullptr) << reason_;
    const auto fresh = RunAll(*fresh_target, programs);
    for (size_t i = 0; i < programs.size() && !HasFailure(); ++i) {
      ExpectSame(reused[i], fresh[i], programs[i], target_->platform());
    }
  }

  void ExpectHealthy(const std::vector<program::Program>& programs) {
    const auto records = RunAll(*target_, programs);
    for (size_t i = 0; i < programs.size(); ++i) {
      EXPECT_EQ(EndOf(records[i]).reason, EndReason::kDone) << EndOf(records[i]).text << "\n"
                                                            << PrintText(programs[i]);
      trace::RecordReader reader(records[i]);
      trace::RecordView view{};
      while (reader.Next(view)) EXPECT_NE(view.kind, RecordKind::kCanary) << PrintText(programs[i]);
    }
  }

  // Judges each; gives the words of the divergences.
  std::vector<std::string> Judged(const std::vector<program::Program>& programs) {
    const auto records = RunAll(*target_, programs);
    judge::Judge judge(target_->platform());
    std::vector<std::string> words;
    for (size_t i = 0; i < programs.size(); ++i) {
      const auto plan = plan::MakePlan(programs[i], target_->platform());
      for (const auto& d : judge.Check(plan, records[i]).divergences) words.push_back(d.words);
    }
    return words;
  }

  static program::Program Parse(std::string_view text) {
    auto program = program::ParseText(text);
    EXPECT_TRUE(program) << program.error().ToString("test");
    return program.value_or(program::Program{});
  }

  bool Can(Op op) const { return target_->platform().can[static_cast<uint8_t>(op)]; }

  std::unique_ptr<AgentTarget> target_;
  std::string reason_;
};

TEST_F(KvmTest, RegistersAndImagesComeBackAsTheyWereSet) {
  const auto records = RunAll(*target_, {Parse("fpswap 1\n"
                                               "sse.load xmm=3 pattern=5\n"
                                               "exit.out\n"
                                               "sse.store xmm=3\n"
                                               "vmm.get_xsave image=0\n")});
  uint8_t expected[16];
  program::FillPattern(5, expected);
  trace::RecordReader reader(records[0]);
  trace::RecordView view{};
  std::vector<RecordKind> kinds;
  while (reader.Next(view)) {
    kinds.push_back(view.kind);
    if (view.kind == RecordKind::kJournal) {
      EXPECT_TRUE(std::ranges::equal(view.bytes, expected)) << "XMM3 stored by the guest";
    } else if (view.kind == RecordKind::kIoctl) {
      ASSERT_GE(view.bytes.size(), sizeof(trace::IoctlRecord) + 4096);
      const auto xmm3 = view.bytes.subspan(sizeof(trace::IoctlRecord) + 160 + 3 * 16, 16);
      EXPECT_TRUE(std::ranges::equal(xmm3, expected)) << "XMM3 in the image";
    }
  }
  EXPECT_THAT(kinds, testing::ElementsAre(RecordKind::kExit, RecordKind::kJournal,
                                          RecordKind::kIoctl, RecordKind::kEnd));
}

// The guest's own XSETBV, as in the kernel's xcr0_cpuid_test (docs/other-tests.md).
TEST_F(KvmTest, XsetbvTakesWhatTheGuestHasAndNoOtherBit) {
  if (!Can(Op::kXsetbv)) GTEST_SKIP() << "this KVM runs no XSETBV";
  const uint64_t all = target_->platform().guest.xsave.xcr0;
  for (unsigned first = 0; first < 64; first += 16) {
    program::Program program = Parse("fpswap 1\n");
    unsigned faults = 0;
    for (unsigned bit = first; bit < first + 16; ++bit) {
      const uint64_t more = all | uint64_t{1} << bit;
      program.steps.push_back({.op = Op::kXsetbv, .arg = {0, more == all ? 1 : more}});
      faults += more != all;
    }
    program.steps.push_back({.op = Op::kXsetbv, .arg = {0, all}});
    ExpectClean(program, faults);
  }
}

TEST_F(KvmTest, XsetbvOfOtherXcrsAndOfBadValuesFaults) {
  if (!Can(Op::kXsetbv)) GTEST_SKIP() << "this KVM runs no XSETBV";
  ExpectClean(Parse("fpswap 1\n"
                    "xsetbv ecx=1 value=x87\n"
                    "xsetbv ecx=0x80000000 value=x87\n"
                    "xsetbv value=0\n"
                    "xsetbv value=sse\n"
                    "xsetbv value=x87+avx\n"),
              5);
}

// As in state_test: every component in use, and into a new VM in every order there is.
TEST_F(KvmTest, EveryComponentSurvivesMigrations) {
  ExpectClean(Parse("fpswap 1\n"
                    "x87.fld pattern=1\n"
                    "sse.load xmm=3 pattern=2\n"
                    "vex.load256 ymm=9 pattern=3\n"
                    "evex.load512 reg=2 pattern=4\n"
                    "evex.load512 reg=17 pattern=5\n"
                    "k.load k=2 pattern=6\n"
                    "exit.out\n"
                    "vmm.get_xsave2 image=0\n"
                    "vmm.migrate order=0\n"
                    "vmm.get_xsave2 image=1\n"
                    "sse.store xmm=3\n"
                    "vex.store256 ymm=9\n"
                    "vmm.migrate order=1\n"
                    "evex.store512 reg=2\n"
                    "evex.store512 reg=17\n"
                    "k.store k=2\n"
                    "x87.fstp\n"
                    "vmm.get_xsave2 image=0\n"),
              0);
}

TEST_F(KvmTest, AFaultIsRecordedAndTheNextStepRuns) {
  const auto records = RunAll(*target_, {Parse("fpswap 1\n"
                                               "raw bytes=0f0b\n"
                                               "exit.page_fault write=1\n"
                                               "x87.fnstcw\n")});
  trace::RecordReader reader(records[0]);
  trace::RecordView view{};
  trace::FaultRecord fault{};
  ASSERT_TRUE(reader.Next(view));
  ASSERT_TRUE(view.kind == RecordKind::kFault && trace::ReadHead(view.bytes, fault));
  EXPECT_EQ(view.step, 0);
  EXPECT_EQ(fault.vector, 6);
  ASSERT_TRUE(reader.Next(view));
  ASSERT_TRUE(view.kind == RecordKind::kFault && trace::ReadHead(view.bytes, fault));
  EXPECT_EQ(view.step, 1);
  EXPECT_EQ(fault.vector, 14);
  EXPECT_EQ(fault.error_code, 6u) << "a write from CPL 3 to an absent page";
  EXPECT_EQ(fault.address & ~uint64_t{0xfff}, plan::kAbsentBase);
  ASSERT_TRUE(reader.Next(view));
  EXPECT_EQ(view.kind, RecordKind::kJournal);
  EXPECT_EQ(view.step, 2);
  EXPECT_THAT(view.bytes, testing::ElementsAre(0x7f, 0x03));
}

TEST_F(KvmTest, AProgramThatHangsIsStoppedAndTheNextRuns) {
  target_ = Open({"--hang-ms", "200"});
  ASSERT_NE(target_, nullptr) << reason_;
  const auto hang = Parse("fpswap 1\nraw bytes=ebfe\nx87.fnstcw\n");
  const auto good = Parse("fpswap 1\nx87.fnstcw\n");
  const auto records = RunAll(*target_, {good, hang, good});
  EXPECT_EQ(EndOf(records[0]).reason, EndReason::kDone);
  EXPECT_EQ(EndOf(records[1]).reason, EndReason::kHang);
  EXPECT_EQ(EndOf(records[2]).reason, EndReason::kDone);
  EXPECT_EQ(target_->restarts(), 0u);
  ExpectSame(records[0], records[2], good, target_->platform());
}

TEST_F(KvmTest, AShortTimeLimitTakesNoSteps) {
  const auto hurried = Open({"--hang-ms", "1"});
  ASSERT_NE(hurried, nullptr) << reason_;
  EXPECT_EQ(hurried->platform().can, target_->platform().can);
}

// The limit is an action's. It comes here between two KVM_RUNs, the first one's VM long gone.
TEST_F(KvmTest, ALongProgramIsNoHang) {
  if (!Can(Op::kMigrate)) GTEST_SKIP() << "no live migration here";
  target_ = Open({"--hang-ms", "100"});
  ASSERT_NE(target_, nullptr) << reason_;
  program::Program program = Parse("fpswap 1\nexit.out\n");
  program.steps.resize(program::kMaxSteps, {.op = Op::kMigrate});
  for (const auto& records : RunAll(*target_, {program, program, program})) {
    EXPECT_EQ(EndOf(records).reason, EndReason::kDone) << EndOf(records).text;
  }
}

TEST_F(KvmTest, AnAgentKilledInTheMiddleOfABatchLosesNothing) {
  const auto programs = Generated(1, 300);
  unsigned kills = 0;
  const auto records = RunAll(*target_, programs, [&](size_t i) {
    if (i % 100 != 50) return;
    kill(target_->agent_pid(), SIGKILL);
    ++kills;
  });
  const auto died = std::ranges::count_if(
      records, [](const Records& each) { return EndOf(each).reason == EndReason::kAgentDied; });
  EXPECT_EQ(kills, 3u);
  EXPECT_LE(died, kills) << "only a program in flight may be lost";
  EXPECT_EQ(target_->restarts(), kills);
}

TEST_F(KvmTest, TheOrderOfProgramsDoesNotMatter) {
  ExpectSameInBothOrders(GeneratedWithoutXinuse(2, 400));
}

TEST_F(KvmTest, TheOrderOfProgramsWithSeveralVcpusDoesNotMatter) {
  ExpectSameInBothOrders(GeneratedWithoutXinuse(12, 200, true));
}

TEST_F(KvmTest, AReusedVcpuIsAsGoodAsAFreshOne) {
  ExpectSameOnFreshVms(GeneratedWithoutXinuse(3, 400));
}

TEST_F(KvmTest, SeveralReusedVcpusAreAsGoodAsFreshOnes) {
  ExpectSameOnFreshVms(GeneratedWithoutXinuse(13, 200, true));
}

// A KVM_RUN that came back with an OUT has still to move RIP on, and does it at the next KVM_RUN if
// RIP is where the OUT was: so where a program's first run on a vCPU begins just there, it would be
// entered two bytes late.
TEST_F(KvmTest, AnExitThatIsNotCompletedDoesNotMeetTheNextProgram) {
  const auto& platform = target_->platform();
  if (platform.vcpus < 2) GTEST_SKIP() << "one vCPU: its first run begins where no OUT can be";
  const auto plan_of = [&](const std::string& steps) {
    return plan::MakePlan(Parse("fpswap 1\nvcpus 2\n" + steps), platform);
  };
  const std::vector<std::string> steps = {
      "x87.fninit",       "x87.fld",       "mmx.emms",   "sse.load xmm=1", "sse.load xmm=9",
      "sse.pshufd dst=1", "x87.fnstcw",    "x87.fchs",   "sse.stmxcsr",    "mmx.movq mm=1",
      "mem.write slot=0", "sse.ldmxcsr",   "x87.fldcw",  "sse.store",      "sse.store xmm=9",
      "sse.pxor dst=9",   "fxsave slot=0", "exit.cpuid", "exit.out",       "mmx.pxor dst=1"};
  std::vector<program::Program> pair;
  for (const std::string& a : steps) {
    const auto first = plan_of("1: " + a + "\n");
    constexpr uint8_t kOut[] = {0xe7, 0xe0};
    const auto out = std::ranges::find_end(first.code, kOut);
    ASSERT_FALSE(out.empty());
    for (const std::string& b : steps) {
      const auto second = plan_of(b + "\n1: sse.store xmm=2\n1: sse.store xmm=3\n");
      if (second.rows.size() < 2 || second.rows[1].code != out.begin() - first.code.begin())
        continue;
      if (pair.empty()) pair = {first.effective, second.effective};
    }
  }
  ASSERT_EQ(pair.size(), 2u) << "no two programs meet so: give more steps";
  for (const auto& records : RunAll(*target_, {pair[0], pair[1], pair[0], pair[1]})) {
    trace::RecordReader reader(records);
    trace::RecordView view{};
    while (reader.Next(view)) EXPECT_NE(view.kind, RecordKind::kFault) << "step " << view.step;
    EXPECT_EQ(EndOf(records).reason, EndReason::kDone);
  }
}

TEST_F(KvmTest, NoProgramKillsTheVcpuOrChangesTheHostsRegisters) {
  ExpectHealthy(Generated(4, 400));
}

TEST_F(KvmTest, NoProgramOfSeveralVcpusKillsThemOrChangesTheHostsRegisters) {
  ExpectHealthy(Generated(14, 200, true));
}

constexpr std::string_view kPlacements[] = {"", "own_vm 1\n", "own_thread 1\n",
                                            "own_vm 1\nown_thread 1\n"};

TEST_F(KvmTest, VcpusTakeTurnsInTheProgramsOrderAndKeepTheirRegisters) {
  for (const std::string_view placement : kPlacements) {
    const auto program = Parse("fpswap 1\nvcpus 4\n" + std::string(placement) +
                               "sse.load xmm=3 pattern=5\n1: sse.load xmm=3 pattern=6\n"
                               "2: sse.load xmm=3 pattern=7\n3: sse.load xmm=3 pattern=8\n"
                               "exit.out\n3: exit.out\n1: exit.out\n2: exit.out\n"
                               "3: sse.store xmm=3\n2: sse.store xmm=3\n1: sse.store xmm=3\n"
                               "sse.store xmm=3\n1: vmm.get_xsave image=0\n");
    const auto records = RunAll(*target_, {program});
    EXPECT_EQ(EndOf(records[0]).reason, EndReason::kDone) << EndOf(records[0]).text;
    trace::RecordReader reader(records[0]);
    trace::RecordView view{};
    std::vector<std::pair<int, int>> order;
    while (reader.Next(view)) {
      order.emplace_back(view.vcpu, view.step);
      if (view.kind != RecordKind::kJournal) continue;
      uint8_t expected[16];
      program::FillPattern(static_cast<uint16_t>(5 + view.vcpu), expected);
      EXPECT_TRUE(std::ranges::equal(view.bytes, expected)) << "XMM3 of vCPU " << int{view.vcpu};
    }
    using P = std::pair<int, int>;
    EXPECT_THAT(order, testing::ElementsAre(P{0, 4}, P{3, 5}, P{1, 6}, P{2, 7}, P{3, 8}, P{2, 9},
                                            P{1, 10}, P{0, 11}, P{1, 12}, testing::_));
    EXPECT_THAT(Judged({program}), testing::IsEmpty()) << placement;
  }
}

TEST_F(KvmTest, VcpusOfOneVmShareSlotsAndOthersDoNot) {
  const std::string steps = "mem.fill slot=1 offset=464 length=8 pattern=9\n1: fxsave slot=1\n";
  uint8_t pattern[8];
  program::FillPattern(9, pattern);
  for (const std::string_view placement : kPlacements) {
    const auto records =
        RunAll(*target_, {Parse("fpswap 1\nvcpus 2\n" + std::string(placement) + steps)});
    trace::RecordReader reader(records[0]);
    trace::RecordView view{};
    ASSERT_TRUE(reader.Next(view));
    ASSERT_EQ(view.kind, RecordKind::kJournal);
    ASSERT_EQ(view.bytes.size(), 512u);
    const bool shared = std::ranges::equal(view.bytes.subspan(464, 8), pattern);
    EXPECT_EQ(shared, !placement.starts_with("own_vm")) << placement;
  }
}

// Each step of the host acts on the vCPU's own thread, and nothing of it shows in the guest.
TEST_F(KvmTest, HostStepsOnOneOfSeveralThreadsAreDone) {
  const auto program = Parse(
      "fpswap 1\nvcpus 2\nown_thread 1\nsse.load xmm=3 pattern=5\n1: sse.load xmm=3 pattern=6\n"
      "1: host.cpu cpu=1\n1: exit.out\n1: host.dirty pattern=7\n1: exit.out\n"
      "1: host.signal\n1: exit.out\n1: host.thread thread=3\n1: exit.out\n"
      "host.thread thread=1\nexit.out\n1: host.fork pattern=9\n1: exit.out\n"
      "host.preempt delay=10\nexit.out\nsse.store xmm=3\n1: sse.store xmm=3\n");
  EXPECT_THAT(Judged({program}), testing::IsEmpty());
  const auto records = RunAll(*target_, {program});
  trace::RecordReader reader(records[0]);
  trace::RecordView view{};
  std::map<int, int> results;
  while (reader.Next(view)) {
    trace::HostRecord host{};
    if (view.kind == RecordKind::kHost && trace::ReadHead(view.bytes, host)) {
      results[view.step] = host.result;
    }
  }
  EXPECT_EQ(results.size(), 7u);
  EXPECT_EQ(results[6], 1) << "the signal is seen by the vCPU's own thread";
  EXPECT_EQ(results[8], 3);
  EXPECT_EQ(results[10], 1);
  EXPECT_EQ(results[12], EIO) << "a child may not use the vCPU";
}

// Best effort: some of many delays must fall into KVM_RUN.
TEST_F(KvmTest, ACompetitorTakesTheCpuDuringKvmRun) {
  std::vector<program::Program> programs;
  std::string work;  // a run that is longer than the way to it
  for (int i = 0; i < 30; ++i) work += "mem.fill slot=0 offset=0 length=4096 pattern=1\n";
  for (int delay = 0; delay < 200; ++delay) {
    programs.push_back(Parse("fpswap 1\nsse.load xmm=3 pattern=5\nhost.preempt pattern=7 delay=" +
                             std::to_string(delay) + "\n" + work + "sse.store xmm=3\n"));
  }
  EXPECT_THAT(Judged(programs), testing::IsEmpty());
  // When a timer fires is the machine's affair: a busy one may need several rounds.
  unsigned preempted = 0;
  for (int round = 0; round < 20 && preempted == 0; ++round) {
    for (const Records& each : RunAll(*target_, programs)) {
      trace::RecordReader reader(each);
      trace::RecordView view{};
      trace::HostRecord host{};
      while (reader.Next(view)) {
        if (view.kind == RecordKind::kHost && trace::ReadHead(view.bytes, host)) {
          preempted += host.result == 1;
        }
      }
    }
  }
  if (preempted == 0) GTEST_SKIP() << "no competitor came during KVM_RUN in 4000 tries";
}

TEST_F(KvmTest, AHangOnAnyThreadIsStopped) {
  target_ = Open({"--hang-ms", "200"});
  ASSERT_NE(target_, nullptr) << reason_;
  const auto hang =
      Parse("fpswap 1\nvcpus 2\nown_thread 1\nx87.fnstcw\n1: raw bytes=ebfe\nx87.fnstcw\n");
  const auto good = Parse("fpswap 1\nvcpus 2\nown_thread 1\nx87.fnstcw\n1: x87.fnstcw\n");
  const auto records = RunAll(*target_, {good, hang, good});
  EXPECT_EQ(EndOf(records[0]).reason, EndReason::kDone);
  EXPECT_EQ(EndOf(records[1]).reason, EndReason::kHang);
  EXPECT_EQ(EndOf(records[2]).reason, EndReason::kDone);
  EXPECT_EQ(target_->restarts(), 0u);
}

}  // namespace
}  // namespace fpswap::targets
