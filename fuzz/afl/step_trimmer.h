// SPDX-License-Identifier: GPL-2.0-or-later
//
// Leaves out steps of a program while someone else says whether it still does what it did: first
// half of them at a time, then a quarter, down to single ones.
//
//   while (!trimmer.Done()) trimmer.Tell(StillDoes(trimmer.Try()));
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "harness/program/codec.h"

namespace fpswap::fuzz {

class StepTrimmer {
 public:
  explicit StepTrimmer(program::Program program)
      : program_(std::move(program)), chunk_(std::bit_floor(program_.steps.size()) / 2) {
    chunk_ = std::max<size_t>(chunk_, program_.steps.empty() ? 0 : 1);
  }
  bool Done() const { return chunk_ == 0; }
  // REQUIRES: !Done(). The program, in byte form, without the steps that are tried now.
  std::vector<uint8_t> Try() const { return program::Encode(Without()); }
  // REQUIRES: !Done(). Whether what Try() gave does what the program did.
  void Tell(bool does) {
    if (does) {
      program_ = Without();
    } else {
      at_ += chunk_;
    }
    if (at_ < program_.steps.size()) return;
    at_ = 0;
    chunk_ = program_.steps.empty() ? 0 : chunk_ / 2;
  }
  const program::Program& program() const { return program_; }

 private:
  program::Program Without() const {
    program::Program less = program_;
    const auto first = less.steps.begin() + static_cast<std::ptrdiff_t>(at_);
    const size_t count = std::min(chunk_, less.steps.size() - at_);
    less.steps.erase(first, first + static_cast<std::ptrdiff_t>(count));
    return less;
  }
  program::Program program_;
  size_t at_ = 0, chunk_;
};

}  // namespace fpswap::fuzz
