// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/disassemble.h"

#include <gtest/gtest.h>

#include "harness/plan/plan.h"
#include "harness/report/show.h"
#include "tests/campaign/fakes.h"

namespace fpswap::report {
namespace {

using program::Op;

TEST(Disassembler, ReadsEveryByteAndMarksWhatCapstoneDoesNotKnow) {
  // xsave [rdi]; ldtilecfg [rdi] (AMX: unknown to Capstone 4 and 5); a byte that begins nothing.
  const std::vector<uint8_t> code = {0x0f, 0xae, 0x27, 0xc4, 0xe2, 0x78, 0x49, 0x07, 0x06};
  const auto read = Disassembler().Decode(code, 0x1000);
  ASSERT_EQ(read.size(), 3u);
  EXPECT_EQ(read[0].opinion, SecondOpinion::kAgrees) << read[0].second;
  EXPECT_EQ(read[1].address, 0x1003u);
  EXPECT_EQ(read[1].bytes.size(), 5u);
  EXPECT_NE(read[1].opinion, SecondOpinion::kAgrees);
  EXPECT_EQ(read[2].text, "(bad)");
}

TEST(Disassembler, ReadsDotProductsOfTilesThatAreTheSame) {
  program::Program program;
  program.steps = {{.op = Op::kTdpbssd, .arg = {3, 3, 3}}, {.op = Op::kTdpbsud, .arg = {7, 0, 7}}};
  const plan::Plan plan = plan::MakePlan(program, campaign::EverythingPlatform());
  const auto read = Disassembler().Decode(plan.code, plan::kCodeBase);
  EXPECT_EQ(read.at(0).text, "tdpbssd tmm3, tmm3, tmm3");
  EXPECT_EQ(read.at(1).text, "tdpbsud tmm7, tmm0, tmm7");
  EXPECT_EQ(read.at(0).opinion, SecondOpinion::kUnknown);
}

TEST(Normalise, BringsTheTwoDecodersSpellingsTogether) {
  EXPECT_EQ(Normalise("movabs rax, 0x10"), Normalise("mov rax, 0x0000000000000010"));
  EXPECT_EQ(Normalise("fxch st(3)"), Normalise("fxch st3"));
  EXPECT_EQ(Normalise("movdqu xmm0, xmmword ptr [rax]"), Normalise("movdqu xmm0, [rax]"));
  EXPECT_NE(Normalise("movdqu xmm0, [rax]"), Normalise("movdqu xmm1, [rax]"));
  EXPECT_NE(Normalise("mov eax, 0x10"), Normalise("mov eax, 0x11"));
}

// A disagreement on the guest code of a program is a bug in the assembler step.
TEST(Disassembler, ZydisAndCapstoneReadTheCodeOfEveryStepAlike) {
  const trace::Platform platform = campaign::EverythingPlatform();
  size_t instructions = 0;
  for (const program::StepRow& row : program::StepTable()) {
    if (row.op == Op::kRaw || row.actor != program::Actor::kGuest) continue;
    for (uint64_t value : {0, 1, 3, 5}) {
      program::Program program;
      // The tiles of a dot product must differ.
      program.steps = {{.op = row.op, .arg = {value, value + 1, value + 2, value}}};
      program::MakeValid(program);
      const Shown shown = Describe(plan::MakePlan(program, platform), {});
      for (const ShownStep& step : shown.steps) {
        EXPECT_LT(step.under_test, step.code.size()) << row.name << ": no instruction under test";
        for (const Instruction& instruction : step.code) {
          ++instructions;
          EXPECT_NE(instruction.opinion, SecondOpinion::kDisagrees)
              << row.name << ": " << instruction.text << " / " << instruction.second;
          EXPECT_NE(instruction.text, "(bad)") << row.name;
        }
      }
    }
  }
  EXPECT_GT(instructions, 500u);
}

TEST(Show, PutsADivergenceBesideItsStep) {
  const auto program = fpswap::testing::ProgramOf({Op::kVzeroall, Op::kGetXsave});
  judge::Verdict verdict;
  verdict.divergences.push_back(fpswap::testing::SomeDivergence());
  const auto plan = plan::MakePlan(program, campaign::EverythingPlatform());
  const std::string text = ShownText(Describe(plan, verdict));
  const size_t step = text.find("vmm.get_xsave"), words = text.find("YMM5 was to be");
  ASSERT_NE(step, std::string::npos) << text;
  ASSERT_NE(words, std::string::npos) << text;
  EXPECT_LT(step, words);
  EXPECT_NE(text.find("vzeroall"), std::string::npos);
}

}  // namespace
}  // namespace fpswap::report
