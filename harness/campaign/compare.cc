// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/compare.h"

#include <algorithm>

#include "harness/files/files.h"
#include "harness/trace/kernel_log.h"
#include "harness/trace/record.h"

namespace fpswap::campaign {
namespace {

using trace::RecordKind;

struct Seen {
  RecordKind kind;
  uint8_t vcpu;
  uint16_t step;
  std::vector<uint8_t> bytes;
  bool SamePlace(const Seen& o) const { return kind == o.kind && vcpu == o.vcpu && step == o.step; }
};

// What counts of a record's bytes.
std::vector<uint8_t> Compared(const trace::RecordView& record) {
  std::vector<uint8_t> bytes(record.bytes.begin(), record.bytes.end());
  if (record.kind == RecordKind::kEnd) {
    bytes.resize(std::min<size_t>(bytes.size(), 1));  // the reason
  } else if (record.kind == RecordKind::kKernelLog) {
    bytes.clear();  // by kind and function: addresses and times never repeat
    for (const trace::Splat& splat : trace::FindSplats(files::AsText(record.bytes))) {
      bytes.insert(bytes.end(), splat.kind.begin(), splat.kind.end());
      bytes.insert(bytes.end(), splat.place.begin(), splat.place.end());
    }
  }
  return bytes;
}

std::vector<Seen> Observations(std::span<const uint8_t> records) {
  std::vector<Seen> all;
  trace::RecordReader reader(records);
  trace::RecordView record;
  while (reader.Next(record)) {
    if (record.kind == RecordKind::kHost) continue;
    Seen seen{record.kind, record.vcpu, record.step, Compared(record)};
    // A program that was done was done at its end, wherever in its last run the agent puts that.
    const bool done = seen.kind == RecordKind::kEnd && !seen.bytes.empty() &&
                      seen.bytes[0] == static_cast<uint8_t>(trace::EndReason::kDone);
    if (done) seen.step = UINT16_MAX, seen.vcpu = 0;
    all.push_back(std::move(seen));
  }
  return all;
}

const char* What(RecordKind kind) {
  switch (kind) {
    case RecordKind::kJournal:
      return "bytes seen by the guest";
    case RecordKind::kFault:
      return "fault";
    case RecordKind::kExit:
      return "exit";
    case RecordKind::kIoctl:
      return "result of the call";
    case RecordKind::kCanary:
      return "the VMM's registers";
    case RecordKind::kKernelLog:
      return "the kernel's log";
    default:
      return "end";
  }
}

}  // namespace

Common CommonProgram(const program::Program& program,
                     std::span<const trace::Platform* const> platforms) {
  Common common{.program = program, .left_out = {}};
  // What one leaves out may be what a later step needed on another: until none leaves out more.
  for (;;) {
    const size_t before = common.program.steps.size();
    for (size_t i = 0; i < platforms.size(); ++i) {
      plan::Plan plan = plan::MakePlan(common.program, *platforms[i]);
      for (plan::Trim& trim : plan.trims) {
        if (trim.step == plan::kSetUp) continue;
        common.left_out.push_back({i, common.program.steps[trim.step], std::move(trim.reason)});
      }
      common.program = std::move(plan.effective);
    }
    if (common.program.steps.size() == before) return common;
  }
}

std::optional<Difference> FirstDifference(std::span<const uint8_t> first,
                                          std::span<const uint8_t> second) {
  const auto a = Observations(first), b = Observations(second);
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const Seen* x = i < a.size() ? &a[i] : nullptr;
    const Seen* y = i < b.size() ? &b[i] : nullptr;
    if (x != nullptr && y != nullptr && x->SamePlace(*y) && x->bytes == y->bytes) continue;
    // One of them has something that the other lacks: the one of the earlier step.
    if (x == nullptr || y == nullptr || !x->SamePlace(*y)) {
      const bool in_first = y == nullptr || (x != nullptr && x->step <= y->step);
      const Seen& only = in_first ? *x : *y;
      Difference d{.step = only.step, .what = What(only.kind)};
      auto& bytes = in_first ? d.first : d.second;
      bytes.assign(only.bytes.begin(), only.bytes.begin() + static_cast<ptrdiff_t>(std::min<size_t>(
                                                                16, only.bytes.size())));
      return d;
    }
    const auto [p, q] = std::ranges::mismatch(x->bytes, y->bytes);
    const auto offset = p - x->bytes.begin();
    const auto piece = [&](const std::vector<uint8_t>& bytes) {
      const auto end = std::min<ptrdiff_t>(offset + 16, static_cast<ptrdiff_t>(bytes.size()));
      return std::vector<uint8_t>(bytes.begin() + offset, bytes.begin() + end);
    };
    return Difference{.step = x->step,
                      .what = What(x->kind),
                      .offset = static_cast<uint32_t>(offset),
                      .first = piece(x->bytes),
                      .second = piece(y->bytes)};
  }
  return {};
}

}  // namespace fpswap::campaign
