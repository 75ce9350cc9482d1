// SPDX-License-Identifier: GPL-2.0-or-later
//
// The machine code of guest steps. Each step sets up the general registers it needs, runs the
// instruction under test and brings what it gave to the step's journal place, all of that without
// touching a vector, mask, bound or x87 register. Stores of registers go to the journal directly.
//
// How an operation is encoded is a row of a table (kForms in emit.cc); the few that are more than
// one instruction have a function.
//
// Thread safety: an Emitter is used by one thread; templates are cached for each thread.
// Private to harness/plan.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/plan/encode.h"
#include "harness/plan/plan.h"

namespace fpswap::plan {

// No step's code is longer than this, the end of its run included (raw bytes and their padding, or
// the ten stores of mem.header).
inline constexpr size_t kMaxStepCode = 160;
static_assert(program::kMaxSteps * kMaxStepCode <= kCodeSize);

// Where a step's data lies, laid out before its code is written.
struct Placement {
  uint16_t number = 0;   // of the step
  uint32_t literal = 0;  // offset from kLiteralBase
  uint32_t journal = 0;  // offset from kJournalBase
  uint32_t journal_bytes = 0;
};

class Emitter {
 public:
  // `buffer` has room for kMaxStepCode bytes for each step.
  explicit Emitter(std::span<uint8_t> buffer) : code_(buffer) {}

  // Appends the code of a guest step.
  CodeRow Emit(const program::Step& step, const Placement& place);
  // Ends a run whose last step is `last`: the OUT to kEndPort, or the jump to kReturnPad.
  void EndByOut(uint16_t last);
  void EndByReturn();

  uint32_t size() const { return code_.at(); }

 private:
  CodeWriter code_;
};

// Bytes of literals that `step` loads; 0: none.
uint32_t LiteralBytes(const program::Step& step);
// Writes them. `out` has LiteralBytes(step) bytes.
void FillLiteral(const program::Step& step, std::span<uint8_t> out);

}  // namespace fpswap::plan
