// SPDX-License-Identifier: GPL-2.0-or-later
//
// Judge and oracle. Any program that the simulator runs is judged clean, for the simulator is the
// oracle with other choices; any records whatever, as an agent that has gone wrong may send them,
// give a verdict that can be told; and so does any trace, whatever it says of its platform.
#include <cstring>
#include <nlohmann/json.hpp>

#include "fuzz/hostile/hostile.h"
#include "harness/campaign/platforms.h"
#include "harness/judge/judge.h"
#include "harness/judge/simulator.h"
#include "harness/plan/wire.h"
#include "harness/program/codec.h"
#include "harness/trace/trace.h"

extern "C" __attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t* data, size_t size,
                                                         size_t max_size);

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;
using namespace fpswap;

// An input: u8 flags, u16 length of the program, the program in byte form, records. Bit 0 of the
// flags: the platform keeps its images in the standard format, bit 1: the records are the input's
// and not the simulator's. Bit 2: a trace file follows the first three bytes.
constexpr size_t kHead = 3;
enum Flags : uint8_t { kStandard = 1, kOwnRecords = 2, kTrace = 4, kFlags = 8 };
// Where trace_file.cc has the checksum, and what it covers.
constexpr size_t kCrcOffset = 12, kCovered = 16;

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

// A platform like no machine's: some numbers and flags are others.
trace::Platform StrangePlatform(Rng& rng) {
  using nlohmann::json;
  trace::Platform platform = campaign::EverythingPlatform();
  json flat = json::parse(trace::PlatformToJson(platform)).flatten();
  for (uint64_t n = 1 + rng.Below(6); n != 0; --n) {
    auto it = flat.begin();
    std::advance(it, static_cast<ptrdiff_t>(rng.Below(flat.size())));
    const json was = *it;
    if (was.is_boolean()) *it = !was.get<bool>();
    if (was.is_number()) {
      const auto number = was.get<uint64_t>();
      *it = rng.Below(2) == 0 ? number ^ uint64_t { 1 } << rng.Below(20) : rng.Below(4096);
    }
    auto changed = trace::PlatformFromJson(flat.unflatten().dump());
    if (changed) platform = std::move(*changed);
    if (!changed) *it = was;
  }
  return platform;
}

std::vector<uint8_t> SeedTrace(Rng& rng) {
  trace::Trace trace;
  trace.platform = StrangePlatform(rng);
  trace.program = hostile::SeedProgram(rng);
  const trace::Platform& sane = PlatformOf(0);
  trace.records = judge::Simulator(sane).Run(PlanFrom(trace.program, sane), rng);
  std::vector<uint8_t> out = {kTrace, 0, 0};
  const std::vector<uint8_t> file = trace::WriteTrace(trace);
  out.insert(out.end(), file.begin(), file.end());
  return out;
}

void Tell(const judge::Verdict& verdict) {
  Check(!judge::VerdictToJson(verdict).empty(), "a verdict is told");
  for (const auto& divergence : verdict.divergences) {
    Check(!divergence.words.empty(), "a divergence is told in words");
  }
}

// The checksum is made right: no mutation gets by it.
void JudgeFile(std::vector<uint8_t> bytes) {
  if (bytes.size() < kCovered) return;
  const uint32_t crc = wire::Crc32c(std::span(bytes).subspan(kCovered));
  std::memcpy(bytes.data() + kCrcOffset, &crc, sizeof(crc));
  if (const auto trace = trace::ReadTrace(bytes)) Tell(judge::JudgeTrace(*trace));
}

std::vector<uint8_t> Seed(Rng& rng) {
  if (rng.Below(3) == 0) return SeedTrace(rng);
  const auto flags = static_cast<uint8_t>(rng.Below(kTrace));
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
  if ((flags & kTrace) != 0) {
    JudgeFile({data + kHead, data + size});
    return 0;
  }
  const size_t length = std::min<size_t>(data[1] | size_t{data[2]} << 8, size - kHead);
  const trace::Platform& platform = PlatformOf(flags);
  const plan::Plan plan = PlanFrom(program::Decode({data + kHead, length}), platform);
  judge::Judge judge(platform);
  if ((flags & kOwnRecords) != 0) {
    Tell(judge.Check(plan, {data + kHead + length, size - kHead - length}));
    return 0;
  }
  Rng rng(size);
  const judge::Verdict verdict = judge.Check(plan, judge::Simulator(platform).Run(plan, rng));
  Check(verdict.ok(), "what the oracle writes is judged clean");
  return 0;
}
