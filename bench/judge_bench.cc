// SPDX-License-Identifier: GPL-2.0-or-later
//
// The judge alone, on records that the native target gave on this machine.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <map>

#include "bench/programs.h"
#include "harness/judge/judge.h"
#include "harness/targets/target.h"

namespace fpswap::bench {
namespace {

constexpr size_t kSteps = 16;
// Few programs stay in the caches; what many programs leave is more than these hold.
constexpr size_t kCached = 256, kCold = 8192;

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

Recorded Record(bool images, size_t programs) {
  Recorded recorded;
  auto target = targets::OpenTarget("native", {.runner_dir = OwnFolder(), .plant = ""});
  if (!target) return recorded;
  recorded.platform = (*target)->platform();
  for (auto& program : Draw(recorded.platform, programs, kSteps)) {
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

void Check(benchmark::State& state, bool images, size_t programs) {
  static std::map<std::pair<bool, size_t>, Recorded> made;  // Google Benchmark calls more than once
  Recorded& recorded = made[{images, programs}];
  if (recorded.records.empty()) recorded = Record(images, programs);
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
BENCHMARK_CAPTURE(Check, drawn, false, kCached);
BENCHMARK_CAPTURE(Check, drawn_cold, false, kCold);
BENCHMARK_CAPTURE(Check, images, true, kCached);
BENCHMARK_CAPTURE(Check, images_cold, true, kCold);

}  // namespace
}  // namespace fpswap::bench
