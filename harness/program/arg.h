// SPDX-License-Identifier: GPL-2.0-or-later
//
// What an argument's kind fixes, as one table: its range and its width in the byte form. Parser,
// codec, validation, generator and documentation read it.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "harness/program/step.h"

namespace fpswap::program {

// Op::kRaw holds 1 to kMaxRaw bytes of code (an x86 instruction has at most 15).
inline constexpr unsigned kMaxRaw = 15;

struct KindRow {
  ArgKind kind;
  uint64_t min, max;      // inclusive; kBytes: of the length
  unsigned bytes;         // in the byte form; kBytes: of the length
  std::string_view what;  // completes "expected ...", and the documentation's list
};

const KindRow& RowOf(ArgKind kind);

// Brings `value` into the kind's range, evenly (so that a mutated byte never sticks to an end).
uint64_t Wrap(ArgKind kind, uint64_t value);

// The bytes of an Op::kRaw step, and back. Byte n of `step` is meaningful for n < its length.
uint8_t RawByte(const Step& step, unsigned n);
void SetRawByte(Step& step, unsigned n, uint8_t value);

// How many leading args of the row are used.
unsigned ArgCount(const StepRow& row);

}  // namespace fpswap::program
