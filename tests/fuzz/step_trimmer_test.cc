// SPDX-License-Identifier: GPL-2.0-or-later
#include "fuzz/afl/step_trimmer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "harness/program/breed.h"

namespace fpswap::fuzz {
namespace {

using program::Op;

program::Program Of(std::initializer_list<Op> ops) {
  program::Program program;
  for (const Op op : ops) program.steps.push_back({.op = op, .arg = {}});
  return program;
}

// Trims `program` while each of `needed` is still in it, in how many tries.
std::pair<program::Program, unsigned> Trim(const program::Program& program,
                                           std::initializer_list<Op> needed) {
  StepTrimmer trimmer(program);
  unsigned tries = 0;
  for (; !trimmer.Done() && tries < 1000; ++tries) {
    const program::Program less = program::Decode(trimmer.Try());
    trimmer.Tell(std::ranges::all_of(
        needed, [&](Op op) { return std::ranges::count(less.steps, op, &program::Step::op) > 0; }));
  }
  return {trimmer.program(), tries};
}

TEST(StepTrimmer, LeavesOnlyWhatIsNeeded) {
  program::Program program = Of({Op::kFnclex, Op::kFninit, Op::kEmms});
  for (int i = 0; i < 40; ++i) program.steps.push_back({.op = Op::kFchs, .arg = {}});
  program.steps.push_back({.op = Op::kFnstcw, .arg = {}});
  const auto [trimmed, tries] = Trim(program, {Op::kFninit, Op::kFnstcw});
  EXPECT_EQ(trimmed, Of({Op::kFninit, Op::kFnstcw}));
  EXPECT_LT(tries, 60u) << "halves first: not one try a step";
}

TEST(StepTrimmer, EndsAtOnceWhereThereIsNothing) {
  EXPECT_TRUE(StepTrimmer(program::Program{}).Done());
  EXPECT_EQ(Trim(Of({Op::kFchs}), {}).first.steps.size(), 0u);
}

TEST(StepTrimmer, KeepsAllWhereAllIsNeeded) {
  const auto program = Of({Op::kFninit, Op::kFnclex, Op::kFchs, Op::kEmms, Op::kFnstcw});
  EXPECT_EQ(Trim(program, {Op::kFninit, Op::kFnclex, Op::kFchs, Op::kEmms, Op::kFnstcw}).first,
            program);
}

TEST(Breed, WhatIsMadeKeepsToItsLimitAndIsCanonical) {
  program::Rng rng(3);
  const program::Profile profile;
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 500; ++i) {
    const size_t limit = 40 + rng.Below(200);
    std::vector<uint8_t> next = rng.OneIn(4) ? program::CrossEncoded(bytes, bytes, rng, limit)
                                             : program::MutateEncoded(bytes, rng, profile, limit);
    EXPECT_LE(next.size(), limit);
    EXPECT_EQ(program::Encode(program::Decode(next)), next);
    bytes = std::move(next);
  }
}

}  // namespace
}  // namespace fpswap::fuzz
