// SPDX-License-Identifier: GPL-2.0-or-later
//
// Walks a plan and its records through the oracle. Also simulates a plan without records, for the
// states it reaches (the fuzzer's feedback, which depends on the program alone).
//
// Thread safety: a Judge is used by one thread; it keeps buffers between programs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "harness/judge/verdict.h"
#include "harness/plan/plan.h"
#include "harness/trace/trace.h"

namespace fpswap::judge {

// Receives each oracle state reached: a hash of (step's op, state class of a component, XCR0, way
// of exit, outcome). See reach.h for the table it feeds.
struct ReachEvent {
  uint8_t op;
  uint8_t component;  // Component, or 255 for none
  uint8_t state;      // 0 absent from XCR0, 1 initial, 2 in use, 3 disabled by XFD, 4 unknown
  uint8_t exit;       // program::Op of the last step that left the guest, 0 for none yet
  uint8_t outcome;    // 0 done, else 1 + vector, or 128 + low bits of errno
  uint32_t xcr0;
  uint8_t vcpus = 1;  // of the program
};
class ReachSink {
 public:
  virtual ~ReachSink() = default;
  virtual void Reach(const ReachEvent& event) = 0;
};

class Judge {
 public:
  explicit Judge(const trace::Platform& platform);
  ~Judge();
  // `plan` must have been made for the same platform.
  Verdict Check(const plan::Plan& plan, std::span<const uint8_t> records,
                ReachSink* reach = nullptr);
  // From here on each divergence comes with all bytes that were compared.
  void KeepCompared();
  // The same walk without records. What is left to choice takes the simplest value.
  void Simulate(const plan::Plan& plan, ReachSink& reach);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Judges a trace read from a file: makes the plan of its program again and checks.
Verdict JudgeTrace(const trace::Trace& trace);

}  // namespace fpswap::judge
