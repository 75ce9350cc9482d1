// SPDX-License-Identifier: GPL-2.0-or-later
//
// The native target, judged: what the live kernel does with a thread's state is what oracle/os
// says. Where native can't run these tests are skipped and say why.
#include <gtest/gtest.h>

#include "harness/judge/judge.h"
#include "harness/plan/plan.h"
#include "harness/program/builder.h"
#include "harness/program/idioms.h"
#include "harness/program/text.h"
#include "harness/targets/agent_target.h"
#include "harness/triage/known.h"
#include "tests/targets/batch.h"

namespace fpswap::targets {
namespace {

using program::Op;

bool CanRun(const program::StepRow& row, const void* platform) {
  return static_cast<const trace::Platform*>(platform)->can[static_cast<uint8_t>(row.op)];
}

TEST(NativeTarget, TheKernelDoesWithImagesWhatTheOracleSays) {
  AgentCommand command{.path = std::string(FPSWAP_BINARY_DIR) + "/native-runner"};
  const auto target = AgentTarget::Open(std::move(command));
  if (!target) GTEST_SKIP() << target.error().reason << ": " << target.error().remedy;
  const trace::Platform& platform = (*target)->platform();
  const program::Profile profile{.features = platform.guest.xsave.xcr0,
                                 .cpl0 = false,
                                 .allowed = CanRun,
                                 .allowed_context = &platform};
  const program::Palette palette(profile);
  program::Rng rng(1);
  std::vector<program::Program> programs;
  for (int n = 0; n < 100; ++n) {
    for (const program::Idiom& idiom : program::OsIdioms()) {
      if (!palette.Has(idiom.needs)) continue;
      program::Program p;
      program::Builder b(rng, profile, palette, p, {});
      idiom.run(b);
      p.steps = std::move(b.steps());
      programs.push_back(std::move(p));
    }
  }
  const auto records = RunAll(**target, programs);
  ASSERT_EQ(records.size(), programs.size());
  const auto known = triage::LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(known) << known.error();
  judge::Judge judge(platform);
  size_t calls = 0;
  for (size_t i = 0; i < programs.size(); ++i) {
    const plan::Plan plan = plan::MakePlan(programs[i], platform);
    const judge::Verdict verdict = judge.Check(plan, records[i]);
    const auto first_new = triage::Sort(verdict, platform, *known).first_new;
    EXPECT_FALSE(first_new) << verdict.divergences[first_new.value_or(0)].words << "\n"
                            << program::PrintText(plan.effective);
    for (const program::Step& step : plan.effective.steps) {
      calls += program::RowOf(step).actor == program::Actor::kSystem;
    }
  }
  if (palette.Has(Op::kOsSigframe)) {
    EXPECT_GT(calls, programs.size());
  }
}

}  // namespace
}  // namespace fpswap::targets
