// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kvm target on the real /dev/kvm. Where there is none these tests are skipped and say why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstring>

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
  return p;
}

// and images are compared without it: a component that is really another shows in its bytes.
Records Comparable(const Records& records) {
  constexpr size_t kXstateBv = sizeof(trace::IoctlRecord) + xstate::kHeaderOffset;
  constexpr size_t kMxcsrMask = sizeof(trace::IoctlRecord) + 28;  // no state either
  Records out = WithoutTime(records);
  for (size_t at = 0; at + 8 <= out.size();) {
    uint32_t length;
    std::memcpy(&length, &out[at + 4], sizeof(length));
    const bool image = out[at] == static_cast<uint8_t>(RecordKind::kIoctl) && length > 4096;
    if (image) std::memset(&out[at + 8 + kXstateBv], 0, 8);
    if (image) std::memset(&out[at + 8 + kMxcsrMask], 0, 4);
    at += 8 + length;
  }
  return out;
}

class KvmTest : public testing::Test {
 protected:
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

  std::vector<program::Program> GeneratedWithoutXinuse(uint64_t seed, size_t count) const {
    auto programs = Generated(seed, count);
    for (auto& program : programs) program = WithoutXinuse(std::move(program));
    return programs;
  }

  std::vector<program::Program> Generated(uint64_t seed, size_t count) const {
    program::Rng rng(seed);
    program::Profile profile;
    profile.features = target_->platform().guest.xsave.xcr0;
    std::vector<program::Program> programs;
    for (size_t i = 0; i < count; ++i) programs.push_back(program::Generate(rng, profile));
    return programs;
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

// Whether the judge finds in `records` the CPU's defect of corpus/known/amd-avx-initial-under-zmm,
// which comes and goes with context switches.
bool ShowsAvxDefect(const Records& records, const program::Program& program,
                    const trace::Platform& platform) {
  const auto verdict = judge::Judge(platform).Check(plan::MakePlan(program, platform), records);
  return std::ranges::any_of(verdict.divergences, [](const judge::Divergence& d) {
    return d.cause == "avx-initial-under-zmm";
  });
}

// Which records differ, in words.
void ExpectSame(const Records& first, const Records& second, const program::Program& program,
                const trace::Platform& platform) {
  const Records a = Comparable(first), b = Comparable(second);
  if (a == b) return;
  if (ShowsAvxDefect(first, program, platform) || ShowsAvxDefect(second, program, platform)) return;
  trace::RecordReader left(a), right(b);
  trace::RecordView x{}, y{};
  while (left.Next(x) && right.Next(y)) {
    if (x.kind == RecordKind::kEnd) continue;
    const bool same = x.kind == y.kind && x.step == y.step && std::ranges::equal(x.bytes, y.bytes);
    if (same) continue;
    const auto at = std::ranges::mismatch(x.bytes, y.bytes).in1 - x.bytes.begin();
    ADD_FAILURE() << "records of kind " << static_cast<int>(x.kind) << " step " << x.step
                  << " and kind " << static_cast<int>(y.kind) << " step " << y.step
                  << " differ at byte " << at << " of\n"
                  << PrintText(program);
    return;
  }
  ADD_FAILURE() << "one has more records than the other:\n" << PrintText(program);
}

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
  const auto programs = GeneratedWithoutXinuse(2, 400);
  const auto forward = RunAll(*target_, programs);
  const std::vector<program::Program> reversed(programs.rbegin(), programs.rend());
  auto backward = RunAll(*target_, reversed);
  std::ranges::reverse(backward);
  for (size_t i = 0; i < programs.size(); ++i) {
    ExpectSame(forward[i], backward[i], programs[i], target_->platform());
    if (HasFailure()) return;
  }
}

TEST_F(KvmTest, AReusedVcpuIsAsGoodAsAFreshOne) {
  const auto programs = GeneratedWithoutXinuse(3, 400);
  const auto reused = RunAll(*target_, programs);
  auto fresh_target = Open({"--no-reuse"});
  ASSERT_NE(fresh_target, nullptr) << reason_;
  const auto fresh = RunAll(*fresh_target, programs);
  for (size_t i = 0; i < programs.size(); ++i) {
    ExpectSame(reused[i], fresh[i], programs[i], target_->platform());
    if (HasFailure()) return;
  }
}

TEST_F(KvmTest, NoProgramKillsTheVcpuOrChangesTheHostsRegisters) {
  const auto programs = Generated(4, 400);
  const auto records = RunAll(*target_, programs);
  for (size_t i = 0; i < programs.size(); ++i) {
    EXPECT_EQ(EndOf(records[i]).reason, EndReason::kDone) << EndOf(records[i]).text << "\n"
                                                          << PrintText(programs[i]);
    trace::RecordReader reader(records[i]);
    trace::RecordView view{};
    while (reader.Next(view)) EXPECT_NE(view.kind, RecordKind::kCanary) << PrintText(programs[i]);
  }
}

}  // namespace
}  // namespace fpswap::targets
