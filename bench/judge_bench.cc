// SPDX-License-Identifier: GPL-2.0-or-later
//
// The judge alone, on records that the native target gave on this machine.
#include <benchmark/benchmark.h>

#include <filesystem>

#include "bench/programs.h"
#include "harness/judge/judge.h"
#include "harness/targets/target.h"

namespace fpswap::bench {
namespace {

constexpr size_t kPrograms = 256, kSteps = 16;

struct Recorded {
  trace::Platform platform;
  std::vector<plan::Plan> plans;
  std::vector<std::vector<uint8_t>> records;
};

std::string OwnFolder() {
  std::error_code status;
  return std::filesystem::read_symlink("/proc/self/exe", status).parent_path().string();
}

// Sixteen steps of loads between saves of whole areas: images of about 2.7 KiB where there is
// AVX-512 and PKRU.
program::Program ImageHeavy(program::Program program) {
  for (size_t i = 0; i < program.steps.size(); i += 4) {
    program.steps[i] = {.op = program::Op::kXsave, .arg = {i / 4, 0, ~uint64_t{0}, 1}};
  }
  program::MakeValid(program);
  return program;
}

Recorded Record(bool images) {
  Recorded recorded;
  auto target = targets::OpenTarget("native", {.runner_dir = OwnFolder(), .plant = ""});
  if (!target) return recorded;
  recorded.platform = (*target)->platform();
  for (auto& program : Draw(recorded.platform, kPrograms, kSteps)) {
    recorded.plans.push_back(
        plan::MakePlan(images ? ImageHeavy(std::move(program)) : program, recorded.platform));
  }
  std::vector<const plan::Plan*> pointers;
  for (const plan::Plan& plan : recorded.plans) pointers.push_back(&plan);
  const auto status = (*target)->Run(pointers, [&](size_t, std::span<const uint8_t> records) {
    recorded.records.emplace_back(records.begin(), records.end());
  });
  if (!status) recorded.records.clear();
  return recorded;
}

void Check(benchmark::State& state, bool images) {
  const Recorded recorded = Record(images);
  if (recorded.records.empty()) {
    state.SkipWithError("the native target is not available here");
    return;
  }
  judge::Judge judge(recorded.platform);
  size_t i = 0;
  int64_t bytes = 0;
  for (auto _ : state) {
    const size_t n = i++ % recorded.records.size();
    benchmark::DoNotOptimize(judge.Check(recorded.plans[n], recorded.records[n]));
    bytes += static_cast<int64_t>(recorded.records[n].size());
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(bytes);
}
BENCHMARK_CAPTURE(Check, drawn, false);
BENCHMARK_CAPTURE(Check, images, true);

}  // namespace
}  // namespace fpswap::bench
