// SPDX-License-Identifier: GPL-2.0-or-later
//
// The stream between harness and agents, from both sides: frames cut out of any bytes, plans,
// records.
#include <algorithm>

#include "fuzz/hostile/hostile.h"
#include "harness/plan/plan.h"
#include "harness/plan/wire.h"
#include "harness/trace/record.h"
#include "harness/trace/trace.h"

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;
using namespace fpswap;

// The first byte of an input says how the rest is read.
enum Mode : uint8_t { kFrames = 0, kPlans = 1, kRecords = 2, kModes = 3 };

plan::Plan SeedPlan(Rng& rng) {
  plan::Plan plan;
  plan.effective = hostile::SeedProgram(rng);
  const size_t steps = plan.effective.steps.size();
  plan.code.assign(16 * steps, 0x90);
  plan.literals.assign(rng.Below(256), 0x11);
  plan.area_size = 2696;
  for (size_t n = 0; n < steps; ++n) {
    const auto code = static_cast<uint32_t>(16 * n);
    plan.rows.push_back({code, code, static_cast<uint32_t>(64 * n), 8});
    plan.actions.push_back({.first = static_cast<uint16_t>(n), .last = static_cast<uint16_t>(n)});
  }
  return plan;
}

std::vector<uint8_t> Seed(Rng& rng) {
  const auto mode = static_cast<Mode>(rng.Below(kModes));
  std::vector<uint8_t> plans, out = {mode};
  for (uint64_t n = 1 + rng.Below(3); n != 0; --n) plan::AppendPlan(SeedPlan(rng), plans);
  if (mode == kPlans) out.insert(out.end(), plans.begin(), plans.end());
  if (mode == kFrames) {
    wire::AppendFrame(out, wire::FrameType::kHello, {});
    out.resize(out.size() + rng.Below(20), 'F');
    wire::AppendFrame(out, wire::FrameType::kPlans, plans);
  }
  if (mode == kRecords) {
    for (uint64_t n = 1 + rng.Below(5); n != 0; --n) {
      trace::AppendRecord(out, static_cast<trace::RecordKind>(1 + rng.Below(7)), 0, 1,
                          std::span(plans).first(rng.Below(60)));
    }
  }
  return out;
}

bool Inside(std::span<const uint8_t> inner, std::span<const uint8_t> outer) {
  return inner.empty() || (inner.data() >= outer.data() &&
                           inner.data() + inner.size() <= outer.data() + outer.size());
}

void CheckPlan(const wire::PlanView& plan, std::span<const uint8_t> input) {
  Check(Inside(plan.code, input) && Inside(plan.literals, input), "a plan views its bytes");
  Check(plan.code.size() <= plan::kCodeSize, "code fits its place");
  Check(plan.literals.size() <= plan::kLiteralSize, "literals fit their place");
  Check(plan.steps.size() <= program::kMaxSteps, "a plan has at most kMaxSteps steps");
  Check(plan.rows.size() == plan.steps.size(), "each step has a code row");
  Check(plan.vcpus >= 1 && plan.vcpus <= program::kMaxVcpus, "vCPUs are in range");
  Check(plan.area_size <= xstate::kMaxAreaSize, "an area fits its buffer");
  for (const wire::PlanCode& row : plan.rows) {
    Check(row.code <= plan.code.size() && row.instruction <= plan.code.size(), "code is inside");
    Check(uint64_t{row.journal} + row.journal_bytes <= plan::kJournalSize, "the journal is inside");
  }
  for (const wire::PlanAction& action : plan.actions) {
    Check(action.first <= action.last && action.last < plan.steps.size(), "actions name steps");
    Check(action.vcpu < plan.vcpus, "actions name vCPUs");
  }
  // Opcodes may be unknown: agents link no step table and do nothing for what they don't know.
}

void ReadPlans(std::span<const uint8_t> bytes) {
  std::span<const uint8_t> rest = bytes;
  while (!rest.empty()) {
    const size_t before = rest.size();
    const auto plan = wire::ReadPlan(rest);
    if (plan) {
      CheckPlan(*plan, bytes);
      Check(rest.size() < before, "a plan that was read is gone");
    } else {
      Check(!plan.error().empty(), "an error is a sentence");
      if (rest.size() == before) return;
    }
  }
}

void ReadRecords(std::span<const uint8_t> bytes) {
  trace::RecordReader reader(bytes);
  trace::RecordView record;
  size_t total = 0;
  while (reader.Next(record)) {
    Check(Inside(record.bytes, bytes), "a record views its bytes");
    total += 8 + record.bytes.size();
    Check(total <= bytes.size(), "records do not overlap");
  }
  Check(reader.malformed() || total == bytes.size(), "nothing is passed over in silence");
}

// What frames come out of `bytes`, fed in pieces of `piece`.
std::vector<std::pair<wire::FrameType, std::vector<uint8_t>>> Cut(std::span<const uint8_t> bytes,
                                                                  size_t piece) {
  std::vector<std::pair<wire::FrameType, std::vector<uint8_t>>> frames;
  wire::FrameReader reader;
  while (!bytes.empty()) {
    const size_t n = std::min(piece, bytes.size());
    reader.Feed(bytes.first(n));
    bytes = bytes.subspan(n);
    while (const auto frame = reader.Next()) {
      frames.emplace_back(frame->type,
                          std::vector<uint8_t>(frame->payload.begin(), frame->payload.end()));
    }
  }
  return frames;
}

void ReadFrames(std::span<const uint8_t> bytes) {
  const auto frames = Cut(bytes, bytes.size());
  Check(frames == Cut(bytes, 7), "how bytes arrive changes nothing");
  for (const auto& [type, payload] : frames) {
    if (type == wire::FrameType::kPlans) ReadPlans(payload);
    if (type == wire::FrameType::kRecords) ReadRecords(payload);
  }
  // Behind garbage that holds no whole frame, a frame is found again.
  if (!frames.empty()) return;
  std::vector<uint8_t> stream(bytes.begin(), bytes.end());
  const std::vector<uint8_t> payload = {1, 2, 3};
  for (int n = 0; n < 2; ++n) wire::AppendFrame(stream, wire::FrameType::kBegin, payload);
  // A length in the garbage may promise more than comes: then the reader still waits. Or it proves
  // wrong by what comes, and frames within what it promised are found. But none is made up.
  for (const auto& [type, found] : Cut(stream, stream.size())) {
    std::vector<uint8_t> frame;
    wire::AppendFrame(frame, type, found);
    Check(!std::ranges::search(stream, frame).empty(), "a frame that is found was sent");
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  fpswap::hostile::DefaultMaxLen(argc, argv, "-max_len=32768");
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  return hostile::MutateOrSeed({data, max}, size, seed, Seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> rest(data + 1, size - 1);
  switch (data[0] % kModes) {
    case kFrames:
      ReadFrames(rest);
      break;
    case kPlans:
      ReadPlans(rest);
      break;
    default:
      ReadRecords(rest);
  }
  return 0;
}
