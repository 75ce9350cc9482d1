// SPDX-License-Identifier: GPL-2.0-or-later
//
// Judge and oracle. Any program that the simulator runs is judged clean, for the simulator is the
// oracle with other choices; any records whatever, as an agent that has gone wrong may send them,
// give a verdict that can be told.
#include <cstring>

#include "fuzz/hostile/hostile.h"
#include "harness/campaign/platforms.h"
#include "harness/judge/judge.h"
#include "harness/judge/simulator.h"
#include "harness/program/codec.h"

extern "C" __attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t* data, size_t size,
                                                         size_t max_size);

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;
using namespace fpswap;

// An input: u8 flags, u16 length of the program, the program in byte form, records. Bit 0 of the
// flags: the platform keeps its images in the standard format, bit 1: the records are the input's
// and not the simulator's.
constexpr size_t kHead = 3;
enum Flags : uint8_t { kStandard = 1, kOwnRecords = 2, kFlags = 4 };

const trace::Platform& PlatformOf(uint8_t flags) {
  static const trace::Platform kPlatforms[] = {campaign::EverythingPlatform(), [] {
                                                 trace::Platform platform =
                                                     campaign::EverythingPlatform();
                                                 platform.compacted = false;
                                                 return platform;
                                               }()};
  return kPlatforms[flags & kStandard];
}

plan::Plan PlanFrom(program::Program program, const trace::Platform& platform) {
  // The simulator knows no raw code.
  std::erase_if(program.steps, [](const auto& step) { return step.op == program::Op::kRaw; });
  return plan::MakePlan(program, platform);
}

std::vector<uint8_t> Seed(Rng& rng) {
  const auto flags = static_cast<uint8_t>(rng.Below(kFlags));
  const trace::Platform& platform = PlatformOf(flags);
  const program::Program program = hostile::SeedProgram(rng);
  const std::vector<uint8_t> bytes = program::Encode(program);
  std::vector<uint8_t> out = {flags, static_cast<uint8_t>(bytes.size()),
                              static_cast<uint8_t>(bytes.size() >> 8)};
  out.insert(out.end(), bytes.begin(), bytes.end());
  if ((flags & kOwnRecords) != 0) {
    const auto records = judge::Simulator(platform).Run(PlanFrom(program, platform), rng);
    out.insert(out.end(), records.begin(), records.end());
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  hostile::DefaultMaxLen(argc, argv, "-max_len=65536");
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  const size_t made = hostile::MutateOrSeed({data, max}, size, seed, Seed);
  // Where the build is not instrumented, no input is worth keeping to libFuzzer: what was just made
  // is mutated at once.
  return seed % 2 == 0 || LLVMFuzzerMutate == nullptr ? made : LLVMFuzzerMutate(data, made, max);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kHead) return 0;
  const uint8_t flags = data[0];
  const size_t length = std::min<size_t>(data[1] | size_t{data[2]} << 8, size - kHead);
  const trace::Platform& platform = PlatformOf(flags);
  const plan::Plan plan = PlanFrom(program::Decode({data + kHead, length}), platform);
  judge::Judge judge(platform);
  if ((flags & kOwnRecords) != 0) {
    const judge::Verdict verdict =
        judge.Check(plan, {data + kHead + length, size - kHead - length});
    Check(!judge::VerdictToJson(verdict).empty(), "a verdict is told");
    for (const auto& divergence : verdict.divergences) {
      Check(!divergence.words.empty(), "a divergence is told in words");
    }
    return 0;
  }
  Rng rng(size);
  const judge::Verdict verdict = judge.Check(plan, judge::Simulator(platform).Run(plan, rng));
  Check(verdict.ok(), "what the oracle writes is judged clean");
  return 0;
}
