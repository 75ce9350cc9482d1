// SPDX-License-Identifier: GPL-2.0-or-later
//
// The same programs on several targets, record by record: a differential test that needs no oracle.
// Kernels on one emulated machine should differ in nothing; CPUs may, where the architecture leaves
// them a choice.
//
// Thread safety: pure functions but for the runners they drive.
#pragma once

#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/campaign/runner.h"

namespace fpswap::campaign {

// A program without what any of some platforms can't run.
struct Common {
  struct LeftOut {
    size_t platform;  // that can't run it
    program::Step step;
    std::string reason;
  };
  program::Program program;
  std::vector<LeftOut> left_out;
};
Common CommonProgram(const program::Program& program,
                     std::span<const trace::Platform* const> platforms);

// The first observation that two runs of one program do not share.
struct Difference {
  uint16_t step = 0;
  std::string what;  // "fault", "result of the call", "bytes seen", "end", ...
  // From the first byte that differs on, at most 16 bytes; of one that is not there: nothing.
  uint32_t offset = 0;
  std::vector<uint8_t> first, second;
};

// What a machine decides by itself (times, which CPU, whether another thread came between) is not
// compared.
std::optional<Difference> FirstDifference(std::span<const uint8_t> first,
                                          std::span<const uint8_t> second);

}  // namespace fpswap::campaign
