// SPDX-License-Identifier: GPL-2.0-or-later
//
// The unicorn target, on the Unicorn library. Where it was built without it these tests are
// skipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "harness/judge/judge.h"
#include "harness/plan/unicorn_limits.h"
#include "harness/program/generate.h"
#include "harness/program/text.h"
#include "harness/targets/target.h"
#include "tests/targets/batch.h"

namespace fpswap::targets {
namespace {

using program::Needs;
using program::Op;
using trace::EndReason;
using trace::RecordKind;

const std::string kRunners = FPSWAP_BINARY_DIR;

program::Program Parse(std::string_view text) {
  auto program = program::ParseText("fpswap 1\n" + std::string(text));
  EXPECT_TRUE(program) << program.error().ToString("test");
  return program.value_or(program::Program{});
}

class UnicornTest : public testing::Test {
 protected:
  void SetUp() override {
    target_ = Open("");
    if (target_ == nullptr) GTEST_SKIP() << reason_;
  }

  std::unique_ptr<Target> Open(std::string plant) {
    auto target = OpenTarget("unicorn", {.runner_dir = kRunners, .plant = std::move(plant)});
    if (target) return std::move(*target);
    reason_ = target.error().reason + ": " + target.error().remedy;
    return nullptr;
  }

  std::vector<program::Program> Generated(uint64_t seed, size_t count) const {
    program::Rng rng(seed);
    program::Profile profile;
    profile.features = target_->platform().guest.xsave.xcr0;
    profile.allowed = [](const program::StepRow& row, const void* platform) {
      return static_cast<const trace::Platform*>(platform)->can.test(static_cast<uint8_t>(row.op));
    };
    profile.allowed_context = &target_->platform();
    std::vector<program::Program> programs;
    for (size_t i = 0; i < count; ++i) programs.push_back(program::Generate(rng, profile));
    return programs;
  }

  // What the judge says of `program` as it runs on `platform`, which may deny what Unicorn is.
  judge::Verdict VerdictOf(const program::Program& program, const trace::Platform& platform) {
    const plan::Plan plan = plan::MakePlan(program, platform);
    const plan::Plan* const plans[] = {&plan};
    judge::Verdict verdict;
    const auto ran = target_->Run(plans, [&](size_t, std::span<const uint8_t> records) {
      verdict = judge::Judge(platform).Check(plan, records);
    });
    EXPECT_TRUE(ran) << ran.error();
    return verdict;
  }

  std::unique_ptr<Target> target_;
  std::string reason_;
};

std::vector<trace::RecordView> ViewsOf(const Records& records) {
  std::vector<trace::RecordView> views;
  trace::RecordReader reader(records);
  trace::RecordView view{};
  while (reader.Next(view)) views.push_back(view);
  return views;
}

TEST_F(UnicornTest, OffersWhatItIsAWitnessForAndSaysWhyNotTheRest) {
  const trace::Platform& platform = target_->platform();
  EXPECT_EQ(platform.target, "unicorn");
  for (const Op op : {Op::kFldTbyte, Op::kFxch, Op::kMmxMovq, Op::kSseLoad, Op::kLdmxcsr,
                      Op::kFxsave, Op::kFxrstor, Op::kWrpkru, Op::kCr0Ts, Op::kExitPageFault}) {
    EXPECT_TRUE(platform.can.test(static_cast<uint8_t>(op)));
  }
  for (const program::StepRow& row : program::StepTable()) {
    const auto op = static_cast<uint8_t>(row.op);
    const bool reason =
        std::ranges::any_of(platform.cannot, [&](const auto& c) { return c.first == op; });
    EXPECT_NE(platform.can.test(op), reason) << row.name;
  }
}

TEST_F(UnicornTest, VexEvexAndXsaveNeverReachIt) {
  for (const program::StepRow& row : program::StepTable()) {
    if (row.needs == Needs::kBase || row.needs == Needs::kPku) continue;
    program::Program program;
    program.steps = {{.op = row.op, .vcpu = 0, .arg = {}}};
    const auto plan = plan::MakePlan(program, target_->platform());
    EXPECT_TRUE(plan.effective.steps.empty()) << row.name;
    ASSERT_EQ(plan.trims.size(), 1u) << row.name;
    EXPECT_THAT(plan.trims[0].reason, testing::HasSubstr("Unicorn"));
  }
}

TEST_F(UnicornTest, RegistersComeBackAsTheyWereLoaded) {
  const auto records = RunAll(*target_, {Parse("sse.load xmm=3 pattern=5\n"
                                               "x87.fld pattern=7\n"
                                               "sse.ldmxcsr value=0x3f80\n"
                                               "sse.store xmm=3\n"
                                               "x87.fstp\n"
                                               "sse.stmxcsr\n")});
  const auto views = ViewsOf(records[0]);
  ASSERT_EQ(views.size(), 4u);
  uint8_t pattern[16];
  program::FillPattern(5, pattern);
  EXPECT_THAT(views[0].bytes, testing::ElementsAreArray(pattern));
  program::FillPattern(7, pattern);
  EXPECT_THAT(views[1].bytes, testing::ElementsAreArray(std::span(pattern).first(10)));
  EXPECT_THAT(views[2].bytes, testing::ElementsAre(0x80, 0x3f, 0, 0));
}

struct FaultCase {
  const char* text;  // its second step faults, its last one journals
  uint8_t vector;
  uint32_t error_code;
  uint64_t address;
};

TEST_F(UnicornTest, FaultsAreRecordedAndTheNextStepRuns) {
  const FaultCase cases[] = {
      {"cr4 bit=osfxsr value=0\nsse.load xmm=1 pattern=9\nx87.fnstcw\n", cpu::kUD, 0, 0},
      {"cr0.ts ts=1\nmmx.emms\nsse.stmxcsr\ncr0.ts ts=0\nx87.fnstcw\n", cpu::kNM, 0, 0},
      {"x87.fninit\nfxsave slot=0 at=8\nx87.fnstcw\n", cpu::kGP, 0, 0},
      {"x87.fninit\nexit.page_fault write=0\nx87.fnstcw\n", cpu::kPF, 4, plan::kAbsentBase + 16},
      {"x87.fninit\nexit.page_fault write=1\nx87.fnstcw\n", cpu::kPF, 6, plan::kAbsentBase + 16},
      {"cr4 bit=pke value=0\npkru.read\nx87.fnstcw\n", cpu::kUD, 0, 0},
  };
  for (const FaultCase& c : cases) {
    const auto program = Parse(c.text);
    const auto plan = plan::MakePlan(program, target_->platform());
    EXPECT_TRUE(plan.trims.empty()) << c.text;
    const auto records = RunAll(*target_, {program});
    const auto views = ViewsOf(records[0]);
    ASSERT_GE(views.size(), 3u) << c.text;
    trace::FaultRecord fault{};
    ASSERT_EQ(views[0].kind, RecordKind::kFault) << c.text;
    ASSERT_TRUE(trace::ReadHead(views[0].bytes, fault));
    EXPECT_EQ(views[0].step, 1) << c.text;
    EXPECT_EQ(fault.vector, c.vector) << c.text;
    EXPECT_EQ(fault.error_code, c.error_code) << c.text;
    EXPECT_EQ(fault.address, c.address) << c.text;
    EXPECT_EQ(fault.rip, plan::kCodeBase + plan.rows[1].instruction) << c.text;
    EXPECT_THAT(views[views.size() - 2].bytes, testing::ElementsAre(0x7f, 0x03)) << c.text;
    EXPECT_EQ(EndOf(records[0]).reason, EndReason::kDone) << c.text;
  }
}

TEST_F(UnicornTest, AgreesWithTheOracleOnGeneratedPrograms) {
  unsigned compared = 0;
  for (const auto& program : Generated(1, 1500)) {
    const judge::Verdict verdict = VerdictOf(program, target_->platform());
    compared += static_cast<unsigned>(verdict.checks);
    ASSERT_TRUE(verdict.ok()) << verdict.divergences[0].words << "\n" << PrintText(program);
  }
  EXPECT_GT(compared, 3000u) << "most programs look at something";
}

TEST_F(UnicornTest, TheOrderOfProgramsDoesNotMatter) {
  const auto programs = Generated(2, 600);
  const auto forward = RunAll(*target_, programs);
  auto backward = RunAll(*target_, {programs.rbegin(), programs.rend()});
  std::ranges::reverse(backward);
  for (size_t i = 0; i < programs.size(); ++i) {
    ASSERT_EQ(WithoutTime(forward[i]), WithoutTime(backward[i])) << PrintText(programs[i]);
  }
}

TEST_F(UnicornTest, WhatWasTrimmedOnceIsNotTrimmedAgain) {
  for (const auto& program : Generated(3, 2000)) {
    const auto plan = plan::MakePlan(program, target_->platform());
    const auto again = plan::MakePlan(plan.effective, target_->platform());
    ASSERT_TRUE(again.trims.empty()) << again.trims[0].reason << "\n" << PrintText(program);
    ASSERT_EQ(again.code, plan.code) << PrintText(program);
  }
}

// A program whose last but one step meets the defect, which its last step shows; and one that comes
// close to it, of which nothing may be trimmed.
struct DefectCase {
  const char* name;
  const char* meets;
  const char* near_miss;
};
// FCW and FSW, MXCSR of slot 0.
#define IMAGE(fcw_fsw) \
  "mem.write slot=0 offset=0 value=" fcw_fsw "\nmem.write slot=0 offset=24 value=0x1f80\n"
constexpr DefectCase kDefectCases[] = {
    {"stack-fault", "x87.fstp\nx87.fnstsw\n", "x87.fld pattern=9\nx87.fstp\nx87.fnstsw\n"},
    {"pending", IMAGE("0x8081037e") "fxrstor slot=0\nmmx.emms\n",
     IMAGE("0x0001037f") "fxrstor slot=0\nx87.fnstsw\n"},
    {"control-bits", "x87.fldcw value=0xffff\nx87.fnstcw\n",
     "x87.fldcw value=0x1f7f\nx87.fnstcw\n"},
    {"status-bits", IMAGE("0x0080037f") "fxrstor slot=0\nx87.fnstsw\n",
     IMAGE("0xff3f037f") "fxrstor slot=0\nx87.fnstsw\n"},
    {"condition-codes", IMAGE("0x0200037f") "fxrstor slot=0\nx87.fld pattern=9\nx87.fnstsw\n",
     IMAGE("0x4500037f") "fxrstor slot=0\nx87.fld pattern=9\nx87.fnstsw\n"},
    {"mmx-exponent", "mmx.movq mm=2 pattern=9\nfxsave slot=0\nx87.fninit\n",
     "x87.fld pattern=1\nmmx.movq mm=7 pattern=9\nfxsave slot=0\n"},
    {"emms-top", "x87.fincstp\nmmx.emms\nx87.fnstsw\n",
     "x87.fincstp\nmmx.store mm=0\nmmx.emms\nx87.fnstsw\n"},
    {"fxsave-holes", "mem.fill slot=0 offset=42 length=6 pattern=1\nfxsave slot=0\nx87.fninit\n",
     "mem.fill slot=0 offset=32 length=10 pattern=1\nfxsave slot=0\n"},
    {"mxcsr-bits", "sse.ldmxcsr value=0x11f80\nsse.stmxcsr\n",
     "sse.ldmxcsr value=0xffff\nsse.stmxcsr\n"},
    {"second-gp", "fxsave slot=0 at=8\nfxsave slot=0 at=8\nx87.fnstcw\n",
     "fxsave slot=0 at=8\nfxsave slot=0 at=16\n"},
    {"nm-before-ud", "cr0.ts ts=1\ncr4 bit=osfxsr value=0\nsse.store xmm=1\ncr0.ts ts=0\n",
     "cr0.ts ts=1\ncr4 bit=osfxsr value=0\nsse.stmxcsr\ncr0.ts ts=0\nsse.store xmm=1\n"},
};
#undef IMAGE

TEST_F(UnicornTest, EachKnownDefectIsThereAndIsTrimmed) {
  // The same machine without its limits: nothing is trimmed but what it can't run.
  trace::Platform unlimited = target_->platform();
  unlimited.target = "native";
  for (const DefectCase& c : kDefectCases) {
    const auto defects = plan::UnicornDefects();
    const auto row = std::ranges::find(defects, c.name, &plan::UnicornDefect::name);
    ASSERT_NE(row, defects.end()) << c.name;
    const auto program = Parse(c.meets);
    EXPECT_FALSE(VerdictOf(program, unlimited).ok()) << c.name << " is not there";
    const auto plan = plan::MakePlan(program, target_->platform());
    ASSERT_EQ(plan.trims.size(), 1u) << c.name;
    EXPECT_EQ(plan.trims[0].reason, row->reason) << c.name;
    EXPECT_TRUE(VerdictOf(program, target_->platform()).ok()) << c.name;

    const auto close = Parse(c.near_miss);
    EXPECT_TRUE(plan::MakePlan(close, target_->platform()).trims.empty()) << c.name;
    const auto verdict = VerdictOf(close, target_->platform());
    EXPECT_TRUE(verdict.ok()) << c.name << ": " << verdict.divergences[0].words;
  }
}

// All defects are in the test above, but for the one that lies in how the target runs Unicorn.
TEST_F(UnicornTest, EachKnownDefectHasItsCase) {
  for (const plan::UnicornDefect& defect : plan::UnicornDefects()) {
    const bool shown = std::ranges::any_of(
        kDefectCases, [&](const DefectCase& c) { return defect.name == c.name; });
    EXPECT_NE(shown, defect.name == "protection-keys") << defect.name;
  }
  const auto plan = plan::MakePlan(Parse("pkru.write value=2\n"), target_->platform());
  ASSERT_EQ(plan.trims.size(), 1u);
  EXPECT_THAT(plan.trims[0].reason, testing::HasSubstr("protection keys"));
  EXPECT_TRUE(
      plan::MakePlan(Parse("pkru.write value=0xfffffffc\n"), target_->platform()).trims.empty());
}

TEST_F(UnicornTest, PlantsActAtTheirConditionOnly) {
  struct Case {
    const char* plant;
    const char* meets;
    const char* near_miss;
  };
  const Case cases[] = {
      {"mxcsr-lost-on-fault", "sse.ldmxcsr value=0x9f80\nexit.page_fault\nsse.stmxcsr\n",
       "sse.ldmxcsr value=0x3f80\nexit.page_fault\nsse.stmxcsr\n"},
      {"st-rotated-after-faults",
       "x87.fld pattern=9\nexit.page_fault\nexit.page_fault\nx87.fnstsw\n",
       "x87.fld pattern=9\nexit.page_fault\nx87.fnstsw\n"},
      {"xmm9-cut-on-fault", "sse.load xmm=9 pattern=9\nexit.page_fault\nsse.store xmm=9\n",
       "sse.load xmm=9 pattern=9\nsse.load xmm=8 pattern=9\nexit.page_fault\nsse.store xmm=9\n"},
  };
  for (const Case& c : cases) {
    target_ = Open(c.plant);
    ASSERT_NE(target_, nullptr) << reason_;
    EXPECT_FALSE(VerdictOf(Parse(c.meets), target_->platform()).ok()) << c.plant;
    EXPECT_TRUE(VerdictOf(Parse(c.near_miss), target_->platform()).ok()) << c.plant;
  }
}

// Plan code that never ends: no step does that, so the test makes it by hand.
TEST_F(UnicornTest, AProgramThatHangsIsStoppedAndTheNextRuns) {
  auto quick = OpenTarget("unicorn", {.runner_dir = kRunners, .plant = "", .hang_ms = 100});
  ASSERT_TRUE(quick) << quick.error().reason;
  const auto good =
      plan::MakePlan(Parse("sse.stmxcsr\nx87.fninit\nx87.fnstcw\n"), target_->platform());
  plan::Plan hangs = good;
  hangs.code[hangs.rows[1].code] = 0xeb;  // JMP to itself
  hangs.code[hangs.rows[1].code + 1] = 0xfe;
  const plan::Plan* const plans[] = {&hangs, &good};
  std::vector<Records> all;
  const auto ran = (*quick)->Run(plans, [&](size_t, std::span<const uint8_t> records) {
    all.emplace_back(records.begin(), records.end());
  });
  ASSERT_TRUE(ran) << ran.error();
  EXPECT_EQ(EndOf(all[0]).reason, EndReason::kHang);
  const auto views = ViewsOf(all[0]);
  ASSERT_EQ(views.size(), 2u) << "the step before it, and the end";
  EXPECT_EQ(views[1].step, 1);
  EXPECT_EQ(EndOf(all[1]).reason, EndReason::kDone);
}

TEST(UnicornAbsent, WithoutTheAgentItSaysWhatToInstall) {
  const auto target = OpenTarget("unicorn", {.runner_dir = "/nonexistent", .plant = ""});
  ASSERT_FALSE(target);
  EXPECT_THAT(target.error().reason, testing::HasSubstr("unicorn-runner"));
  EXPECT_THAT(target.error().remedy, testing::HasSubstr("libunicorn-dev"));
}

}  // namespace
}  // namespace fpswap::targets
