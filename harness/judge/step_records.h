// SPDX-License-Identifier: GPL-2.0-or-later
//
// The records of a trace, sorted by step. Records may come from anywhere: what is malformed, out of
// place or twice there is noted, never followed.
//
// Thread safety: none. Reused from program to program without allocation.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/trace/record.h"

namespace fpswap::judge {

inline constexpr unsigned kMaxStepExits = 4;

// What was seen of one step. Spans are null-data where there was no such record.
struct StepRecords {
  std::span<const uint8_t> fault, journal, ioctl, host;
  bool has_fault = false, has_journal = false, has_ioctl = false, has_host = false;
  uint8_t exits = 0;
  std::array<std::span<const uint8_t>, kMaxStepExits> exit;
  bool Any() const { return has_fault || has_journal || has_ioctl || has_host || exits != 0; }
};

struct RecordProblem {
  const char* what = nullptr;  // a sentence's end: "the records ..."
  uint16_t step = 0;
};

class SortedRecords {
 public:
  // Sorts `records`, which must outlive this. The first problem found is kept, and records behind
  // it are still sorted where that is possible.
  void Sort(const plan::Plan& plan, std::span<const uint8_t> records);

  const StepRecords& Of(unsigned step) const { return steps_[step]; }
  std::span<const trace::RecordView> canaries() const { return canaries_; }
  std::span<const uint8_t> kernel_log() const { return kernel_log_; }  // text
  bool has_end() const { return has_end_; }
  // The program ran to its end.
  bool done() const {
    return has_end_ && end_.reason == static_cast<uint8_t>(trace::EndReason::kDone);
  }
  const trace::EndRecord& end() const { return end_; }
  uint16_t end_step() const { return end_step_; }
  std::span<const uint8_t> end_text() const { return end_text_; }
  const RecordProblem& problem() const { return problem_; }

 private:
  void Note(const char* what, uint16_t step);
  void Take(const plan::Plan& plan, const trace::RecordView& record);
  void TakeOfStep(const plan::Plan& plan, const trace::RecordView& record);

  std::array<StepRecords, program::kMaxSteps> steps_;
  std::array<uint16_t, program::kMaxSteps> action_of_{};
  uint16_t last_action_ = 0;
  std::vector<trace::RecordView> canaries_;
  std::span<const uint8_t> kernel_log_;
  bool has_end_ = false;
  trace::EndRecord end_{};
  uint16_t end_step_ = 0;
  std::span<const uint8_t> end_text_;
  RecordProblem problem_;
};

}  // namespace fpswap::judge
