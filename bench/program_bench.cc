// SPDX-License-Identifier: GPL-2.0-or-later
//
// What making a program costs: decoding, mutating, resolving, simulating.
#include <benchmark/benchmark.h>

#include "bench/programs.h"
#include "harness/campaign/feedback.h"
#include "harness/judge/judge.h"
#include "harness/plan/plan.h"
#include "harness/program/codec.h"

namespace fpswap::bench {
namespace {

constexpr size_t kPrograms = 256, kSteps = 16;

void DecodeProgram(benchmark::State& state) {
  std::vector<std::vector<uint8_t>> encoded;
  for (const auto& program : Draw(campaign::EverythingPlatform(), kPrograms, kSteps)) {
    encoded.push_back(program::Encode(program));
  }
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(program::Decode(encoded[i++ % kPrograms]));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(DecodeProgram);

void MutateProgram(benchmark::State& state) {
  const trace::Platform platform = campaign::EverythingPlatform();
  const program::Profile profile = campaign::ProfileFor(platform);
  const auto programs = Draw(platform, kPrograms, kSteps);
  program::Rng rng(1);
  size_t i = 0;
  for (auto _ : state) {
    program::Program program = programs[i++ % kPrograms];
    program::Mutate(program, rng, profile);
    benchmark::DoNotOptimize(program);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(MutateProgram);

void MakePlan(benchmark::State& state) {
  const trace::Platform platform = campaign::EverythingPlatform();
  const auto programs = Draw(platform, kPrograms, kSteps);
  size_t i = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(plan::MakePlan(programs[i++ % kPrograms], platform));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(MakePlan);

void Simulate(benchmark::State& state) {
  const trace::Platform platform = campaign::EverythingPlatform();
  std::vector<plan::Plan> plans;
  for (const auto& program : Draw(platform, kPrograms, kSteps)) {
    plans.push_back(plan::MakePlan(program, platform));
  }
  judge::Judge judge(platform);
  std::vector<uint8_t> counters(campaign::kCounters);
  campaign::Feedback feedback(counters);
  size_t i = 0;
  for (auto _ : state) judge.Simulate(plans[i++ % kPrograms], feedback);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(Simulate);

}  // namespace
}  // namespace fpswap::bench
