// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/text.h"

#include <gtest/gtest.h>

#include "tests/program/samples.h"

namespace fpswap::program {
namespace {

constexpr std::string_view kExample =
    "fpswap 1\n"
    "features x87+sse+avx\n"
    "xcr0 x87+sse\n"
    "pke 0\n"
    "vcpus 2\n"
    "evex.load512 reg=17 pattern=0x1234\n"
    "xsave slot=1 rfbm=x87+sse wide=1\n"
    "1: vmm.get_xsave image=0\n";

std::string ErrorOf(std::string_view text) {
  const auto program = ParseText(text);
  return program ? "no error" : program.error().ToString("f.fps");
}

// The error of `step` as the only step of a program, less the file and line.
std::string ErrorOfStep(std::string_view step) {
  const std::string error = ErrorOf("fpswap 1\n" + std::string(step) + "\n");
  return error.starts_with("f.fps:2:") ? error.substr(8) : error;
}

Step StepOf(std::string_view step) {
  const auto program = ParseText("fpswap 1\n" + std::string(step) + "\n");
  if (!program) {
    ADD_FAILURE() << program.error().ToString("step");
    return {};
  }
  return program->steps.at(0);
}

TEST(Text, ReadsTheExampleOfTheHeader) {
  const auto p = ParseText(kExample);
  ASSERT_TRUE(p) << p.error().ToString("example");
  EXPECT_EQ(p->features, 7u);
  EXPECT_EQ(p->xcr0, 3u);
  EXPECT_FALSE(p->pke);
  EXPECT_EQ(p->vcpus, 2);
  ASSERT_EQ(p->steps.size(), 3u);
  EXPECT_EQ(p->steps[0], (Step{.op = Op::kEvexLoad512, .arg = {17, 0x1234}}));
  EXPECT_EQ(p->steps[1], (Step{.op = Op::kXsave, .arg = {1, 0, 3, 1}}));
  EXPECT_EQ(p->steps[2], (Step{.op = Op::kGetXsave, .vcpu = 1}));
  EXPECT_EQ(PrintText(*p), kExample);
}

TEST(Text, ReadsAndPrintsWhereVcpusLive) {
  const auto p = ParseText("fpswap 1\nown_thread 1\nown_vm 0\nvcpus 3\n");
  ASSERT_TRUE(p) << p.error().ToString("example");
  EXPECT_EQ(p->vcpus, 3);
  EXPECT_FALSE(p->own_vm);
  EXPECT_TRUE(p->own_thread);
  EXPECT_TRUE(PrintText(*p).ends_with("vcpus 3\nown_thread 1\n"));
  EXPECT_EQ(ErrorOf("fpswap 1\nown_vm 2"), "f.fps:2:8: expected 0 or 1, found \"2\"");
}

TEST(Text, PrintingAndParsingAreInverseForEveryValidProgram) {
  Rng rng(1);
  for (int n = 0; n < 3000; ++n) {
    const Program p = AnyProgram(rng);
    const std::string text = PrintText(p);
    const auto parsed = ParseText(text);
    ASSERT_TRUE(parsed) << parsed.error().ToString("printed") << "\n" << text;
    ASSERT_EQ(*parsed, p) << text;
    ASSERT_EQ(PrintText(*parsed), text);
  }
}

TEST(Text, EveryStepParsesByItsNameAloneWithItsFallbacks) {
  for (const StepRow& row : StepTable()) {
    if (row.op == Op::kRaw) continue;
    const Step step = StepOf(row.name);
    EXPECT_EQ(step.op, row.op);
    for (unsigned i = 0; i < kArgCount; ++i) EXPECT_EQ(step.arg[i], row.args[i].fallback);
  }
}

TEST(Text, ArgumentsComeInAnyOrderAndSpacing) {
  EXPECT_EQ(StepOf("\txsave  wide=1\t rfbm=0x3 slot=1  # two\r"),
            (Step{.op = Op::kXsave, .arg = {1, 0, 3, 1}}));
}

TEST(Text, CommentsAndBlankLinesMayStandAnywhere) {
  const auto p = ParseText("# SPDX\n\n  fpswap 1 # version\n#\nx87.fninit#\n\n");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->steps.size(), 1u);
}

TEST(Text, ALastLineWithoutNewlineCounts) {
  const auto p = ParseText("fpswap 1\nx87.fninit");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->steps.size(), 1u);
}

TEST(Text, HeaderLinesLeftOutHaveTheirDefaults) {
  const auto p = ParseText("fpswap 1");
  ASSERT_TRUE(p);
  EXPECT_EQ(*p, Program{});
}

TEST(Text, MasksAreNamesNumbersOrBoth) {
  EXPECT_EQ(PrintMask(0), "0");
  EXPECT_EQ(PrintMask(7), "x87+sse+avx");
  EXPECT_EQ(PrintMask(0x400001), "x87+0x400000");
  EXPECT_EQ(PrintMask(~uint64_t{0}), "all");
  EXPECT_EQ(PrintMask((uint64_t{1} << 63) | 3), "x87+sse+compacted");
  EXPECT_EQ(PrintMask((uint64_t{3} << 62) | 1), "x87+0x4000000000000000+compacted");
  EXPECT_EQ(StepOf("xsave rfbm=sse+0x1+12").arg[2], 15u);
  EXPECT_EQ(StepOf("xsave rfbm=all").arg[2], ~uint64_t{0});
  EXPECT_EQ(StepOf("mem.header xcomp_bv=compacted+avx").arg[2], (uint64_t{1} << 63) | 4);
}

TEST(Text, RawBytesAreHexadecimalInOrder) {
  const Step step = StepOf("raw bytes=0F0bc9");
  EXPECT_EQ(step, (Step{.op = Op::kRaw, .arg = {3, 0xc90b0f}}));
  EXPECT_EQ(PrintStep(step), "raw bytes=0f0bc9");
  EXPECT_EQ(StepOf("raw bytes=000102030405060708090a0b0c0d0e").arg[2], 0x0e0d0c0b0a0908u);
}

TEST(Text, MisalignmentIsPrintedOnlyWhereThereIsOne) {
  EXPECT_EQ(PrintStep(Step{.op = Op::kFxsave, .arg = {2, 0, 1}}), "fxsave slot=2 wide=1");
  EXPECT_EQ(PrintStep(Step{.op = Op::kFxsave, .arg = {2, 8, 0}}), "fxsave slot=2 at=8 wide=0");
}

TEST(TextErrors, SayWhereWhatWasExpectedAndWhatWasFound) {
  EXPECT_EQ(ErrorOf(""), "f.fps:1:1: expected \"fpswap 1\", found the end of the file");
  EXPECT_EQ(ErrorOf("\n# x\nxsave"),
            "f.fps:3:1: expected \"fpswap 1\" as the first line, found \"xsave\"");
  EXPECT_EQ(ErrorOf("fpswap"), "f.fps:1:7: expected version 1, found the end of the line");
  EXPECT_EQ(ErrorOf("fpswap 2"), "f.fps:1:8: expected version 1, found \"2\"");
  EXPECT_EQ(ErrorOf("fpswap 1 2"), "f.fps:1:10: expected the end of the line, found \"2\"");
}

TEST(TextErrors, UnknownStepsAreAnsweredWithTheNearestName) {
  EXPECT_EQ(ErrorOfStep("  xsavve slot=1"),
            "3: expected a step or a header line, found \"xsavve\"; did you mean \"xsave\"?");
  EXPECT_EQ(ErrorOfStep("fninit"),
            "1: expected a step or a header line, found \"fninit\"; did you mean \"x87.fninit\"?");
  EXPECT_EQ(ErrorOfStep("featuers sse"),
            "1: expected a step or a header line, found \"featuers\"; did you mean \"features\"?");
  EXPECT_EQ(ErrorOfStep("qqqqqqqq"), "1: expected a step or a header line, found \"qqqqqqqq\"");
}

// A guest can't have it: oracle/xstate knows its place, oracle/cpu no registers of it.
TEST(TextErrors, ApxIsRefusedByNameForGuestsAndIsABitLikeOthersElsewhere) {
  EXPECT_EQ(ErrorOfStep("features x87+sse+apx"),
            "18: expected components that a guest can have here, found \"apx\", which is not "
            "modelled");
  EXPECT_EQ(ErrorOfStep("xcr0 apx+x87"),
            "6: expected components that a guest can have here, found \"apx\", which is not "
            "modelled");
  const auto program = ParseText("fpswap 1\nfeatures 0x800ff\nxcr0 all\nxsetbv value=x87+apx\n");
  ASSERT_TRUE(program) << program.error().ToString("test");
  EXPECT_EQ(program->features, 0x800ffu);
  EXPECT_EQ(program->steps[0].arg[1], 0x80001u);
  const auto again = ParseText(PrintText(*program));
  ASSERT_TRUE(again) << again.error().ToString("test");
  EXPECT_EQ(*again, *program);
}

TEST(TextErrors, UnknownArgumentsAreAnsweredWithTheStepsOwn) {
  EXPECT_EQ(ErrorOfStep("xsave slto=1"),
            "7: expected an argument of \"xsave\" (slot=, at=, rfbm=, wide=), found \"slto\"; did "
            "you mean \"slot\"?");
  EXPECT_EQ(ErrorOfStep("x87.fninit 5"), "12: expected nothing behind \"x87.fninit\", found \"5\"");
}

TEST(TextErrors, ValuesOutOfRangeAreRefusedAtTheValue) {
  EXPECT_EQ(ErrorOfStep("sse.load xmm=16"), "14: expected a register number 0-15, found \"16\"");
  EXPECT_EQ(ErrorOfStep("sse.load xmm=-1"), "14: expected a register number 0-15, found \"-1\"");
  EXPECT_EQ(ErrorOfStep("sse.load xmm="), "14: expected a register number 0-15, found \"\"");
  EXPECT_EQ(ErrorOfStep("sse.load xmm"),
            "13: expected \"=\" and a register number 0-15, found nothing");
  EXPECT_EQ(ErrorOfStep("mem.fill length=0"), "17: expected a length 1-12288, found \"0\"");
  EXPECT_EQ(ErrorOfStep("mem.write value=0x10000000000000000"),
            "17: expected a 64-bit number, found \"0x10000000000000000\"");
  EXPECT_EQ(ErrorOfStep("mem.write value=12x"), "17: expected a 64-bit number, found \"12x\"");
  EXPECT_EQ(
      ErrorOfStep("msr.read msr=xdf"),
      "14: expected an MSR: xss, xfd, xfd_err, u_cet, s_cet or pl0_ssp to pl3_ssp, found \"xdf\"");
  EXPECT_EQ(ErrorOfStep("xsave rfbm=x87+avv"),
            "16: expected components (\"x87+sse+avx\", \"all\") or a 64-bit number, found \"avv\"; "
            "did you mean \"avx\"?");
  EXPECT_EQ(ErrorOfStep("xsave rfbm=x87+"),
            "16: expected components (\"x87+sse+avx\", \"all\") or a 64-bit number, found \"\"");
}

TEST(TextErrors, RawBytesMustBeWholeAndFewEnough) {
  for (const char* bytes : {"raw bytes=0", "raw bytes=", "raw bytes=zz",
                            "raw bytes=000102030405060708090a0b0c0d0e0f"}) {
    EXPECT_TRUE(ErrorOfStep(bytes).contains("expected 1 to 15 bytes as hexadecimal digits"))
        << ErrorOfStep(bytes);
  }
  EXPECT_EQ(ErrorOfStep("raw"), "1: expected \"bytes=\", found no argument");
}

TEST(TextErrors, NothingIsGivenTwice) {
  EXPECT_EQ(ErrorOfStep("xsave slot=1 slot=1"), "14: expected \"slot\" once, found it again");
  EXPECT_EQ(ErrorOf("fpswap 1\npke 1\npke 1"), "f.fps:3:1: expected \"pke\" once, found it again");
}

TEST(TextErrors, HeaderLinesStandBeforeTheSteps) {
  EXPECT_EQ(ErrorOf("fpswap 1\nx87.fninit\npke 1"),
            "f.fps:3:1: expected a step (header lines come before the first step), found \"pke\"");
}

TEST(TextErrors, VcpusMustExist) {
  EXPECT_EQ(
      ErrorOfStep("1: x87.fninit"),
      "1: expected a vCPU 0-0 before \":\", found \"1\"; a header line \"vcpus N\" sets their "
      "number");
  EXPECT_EQ(ErrorOf("fpswap 1\nvcpus 5"), "f.fps:2:7: expected a number of vCPUs 1-4, found \"5\"");
  EXPECT_EQ(ErrorOf("fpswap 1\nvcpus 0"), "f.fps:2:7: expected a number of vCPUs 1-4, found \"0\"");
  EXPECT_EQ(ErrorOf("fpswap 1\nvcpus 2\n1:"),
            "f.fps:3:3: expected a step, found the end of the line");
  const auto p = ParseText("fpswap 1\nvcpus 2\n1:x87.fninit");
  ASSERT_TRUE(p);
  EXPECT_EQ(p->steps[0].vcpu, 1);
}

TEST(TextErrors, TheStepTooMuchIsNamed) {
  std::string text = "fpswap 1\n";
  for (unsigned n = 0; n < kMaxSteps; ++n) text += "x87.fninit\n";
  EXPECT_EQ(ErrorOf(text), "no error");
  EXPECT_EQ(ErrorOf(text + "x87.fninit"), "f.fps:66:1: expected at most 64 steps, found one more");
}

TEST(TextErrors, HugeInputIsRefusedAtOnce) {
  EXPECT_EQ(ErrorOf(std::string(kMaxTextSize + 1, '\n')),
            "f.fps:1:1: expected at most 1048576 bytes, found 1048577");
  EXPECT_EQ(ErrorOf("fpswap 1" + std::string(kMaxTextSize - 8, '\n')), "no error");
}

TEST(TextErrors, WhatCannotBePrintedIsEscapedAndShortened) {
  EXPECT_EQ(ErrorOfStep(std::string_view("\0\xff", 2)),
            "1: expected a step or a header line, found \"\\x00\\xff\"");
  const std::string error = ErrorOfStep(std::string(100000, 'a'));
  EXPECT_LT(error.size(), 120u) << error;
}

// Cut at every place, a program is an error or a program, never anything else.
TEST(TextHostile, TruncatedProgramsAreReadTotally) {
  Rng rng(3);
  for (int n = 0; n < 20; ++n) {
    const std::string text = PrintText(AnyProgram(rng));
    for (size_t size = 0; size < text.size(); ++size) {
      const auto p = ParseText(std::string_view(text).substr(0, size));
      if (p) {
        EXPECT_TRUE(IsValid(*p));
      } else {
        EXPECT_GT(p.error().line, 0u);
        EXPECT_GT(p.error().column, 0u);
        EXPECT_TRUE(p.error().message.starts_with("expected "));
      }
    }
  }
}

TEST(TextHostile, GarbageInProgramsIsReadTotally) {
  Rng rng(4);
  unsigned accepted = 0;
  for (int n = 0; n < 20000; ++n) {
    std::string text(kExample);
    for (uint64_t k = 1 + rng.Below(3); k != 0; --k) {
      text[rng.Below(text.size())] = static_cast<char>(rng.Next());
    }
    const auto p = ParseText(text);
    if (!p) continue;
    ++accepted;
    EXPECT_TRUE(IsValid(*p)) << text;
    EXPECT_EQ(ParseText(PrintText(*p)).value_or(Program{}), *p) << text;
  }
  EXPECT_GT(accepted, 0u);
}

}  // namespace
}  // namespace fpswap::program
