// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/step_records.h"

#include <algorithm>

namespace fpswap::judge {

using trace::RecordKind;
using trace::RecordView;

void SortedRecords::Note(const char* what, uint16_t step) {
  if (problem_.what == nullptr) problem_ = {what, step};
}

void SortedRecords::Sort(const plan::Plan& plan, std::span<const uint8_t> records) {
  const size_t steps = std::min<size_t>(plan.effective.steps.size(), program::kMaxSteps);
  for (size_t i = 0; i < steps; ++i) {
    StepRecords& s = steps_[i];
    s.has_fault = s.has_journal = s.has_ioctl = s.has_host = false;
    s.fault = s.journal = s.ioctl = s.host = {};
    s.exits = 0;
  }
  for (size_t a = 0; a < plan.actions.size(); ++a) {
    for (size_t i = plan.actions[a].first; i <= plan.actions[a].last && i < steps; ++i) {
      action_of_[i] = static_cast<uint16_t>(a);
    }
  }
  canaries_.clear();
  kernel_log_ = {};
  last_action_ = 0;
  has_end_ = false;
  end_ = {};
  end_step_ = 0;
  end_text_ = {};
  problem_ = {};
  // Each record says where the next one is: were they looked up one by one, records that are not in
  // the cache would cost a wait each.
  const size_t ahead = std::min<size_t>(records.size(), 64 << 10);
  for (size_t at = 0; at < ahead; at += 64) __builtin_prefetch(&records[at]);
  trace::RecordReader reader(records);
  RecordView record;
  while (reader.Next(record)) Take(plan, record);
  if (reader.malformed()) Note("end within a record", end_step_);
  if (!has_end_) Note("have no End record", 0);
}

void SortedRecords::Take(const plan::Plan& plan, const RecordView& record) {
  if (has_end_) return Note("go on behind the End record", record.step);
  switch (record.kind) {
    case RecordKind::kEnd:
      has_end_ = trace::ReadHead(record.bytes, end_);
      if (!has_end_) return Note("have an End record that is too short", record.step);
      end_step_ = record.step;
      end_text_ = record.bytes.subspan(sizeof(end_));
      return;
    case RecordKind::kCanary: {
      trace::CanaryRecord canary;
      const size_t tail = record.bytes.size() - std::min(record.bytes.size(), sizeof(canary));
      if (!trace::ReadHead(record.bytes, canary) || tail % 2 != 0 ||
          tail / 2 > xstate::kMaxAreaSize) {
        return Note("have a malformed canary", record.step);
      }
      canaries_.push_back(record);
      return;
    }
    case RecordKind::kKernelLog:
      if (!kernel_log_.empty()) return Note("have two kernel logs", record.step);
      kernel_log_ = record.bytes;
      return;
    default:
      return TakeOfStep(plan, record);
  }
}

void SortedRecords::TakeOfStep(const plan::Plan& plan, const RecordView& record) {
  const auto& steps = plan.effective.steps;
  if (record.step >= std::min<size_t>(steps.size(), program::kMaxSteps)) {
    return Note("name a step that the program has not", record.step);
  }
  if (record.vcpu != steps[record.step].vcpu && record.kind != RecordKind::kHost) {
    return Note("name another vCPU than the step's", record.step);
  }
  // A signal is recorded by the KVM_RUN that sees it, later than its step.
  const bool late = record.kind == RecordKind::kHost;
  if (!late && action_of_[record.step] < last_action_) return Note("are out of order", record.step);
  if (!late) last_action_ = action_of_[record.step];

  // Raw code may jump anywhere and exit as often as it likes, all of which counts as its own.
  const bool raw = steps[record.step].op == program::Op::kRaw;
  StepRecords& s = steps_[record.step];
  const auto once = [&](bool& has, std::span<const uint8_t>& bytes, size_t least) {
    if (has && raw) return;
    if (has) return Note("have two of one kind for a step", record.step);
    if (record.bytes.size() < least) return Note("have one that is too short", record.step);
    has = true;
    bytes = record.bytes;
  };
  switch (record.kind) {
    case RecordKind::kJournal:
      return once(s.has_journal, s.journal, 0);
    case RecordKind::kFault:
      return once(s.has_fault, s.fault, sizeof(trace::FaultRecord));
    case RecordKind::kIoctl:
      return once(s.has_ioctl, s.ioctl, sizeof(trace::IoctlRecord));
    case RecordKind::kHost:
      return once(s.has_host, s.host, sizeof(trace::HostRecord));
    case RecordKind::kExit:
      if (record.bytes.size() < sizeof(trace::ExitRecord)) {
        return Note("have one that is too short", record.step);
      }
      if (s.exits < kMaxStepExits) {
        s.exit[s.exits++] = record.bytes;
      } else if (raw) {
        s.exit[kMaxStepExits - 1] = record.bytes;  // the last one says why the vCPU can't go on
      } else {
        Note("have more exits than a step can make", record.step);
      }
      return;
    default:
      return Note("have one of an unknown kind", record.step);
  }
}

}  // namespace fpswap::judge
