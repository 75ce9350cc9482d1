// SPDX-License-Identifier: GPL-2.0-or-later
//
// Programs that benchmarks share: drawn with a fixed seed, so that figures compare.
#pragma once

#include <vector>

#include "harness/campaign/platforms.h"
#include "harness/program/generate.h"

namespace fpswap::bench {

// `count` programs of `steps` steps each, as the generator draws them for `platform`; with 0 steps
// as long as they come.
inline std::vector<program::Program> Draw(const trace::Platform& platform, size_t count,
                                          size_t steps) {
  program::Rng rng(2026);
  const program::Profile profile = campaign::ProfileFor(platform);
  std::vector<program::Program> programs;
  while (programs.size() < count) {
    program::Program program = program::Generate(rng, profile);
    while (program.steps.size() < steps) {
      const program::Program more = program::Generate(rng, profile);
      program.steps.insert(program.steps.end(), more.steps.begin(), more.steps.end());
    }
    if (steps != 0) program.steps.resize(steps);
    program::MakeValid(program);
    programs.push_back(std::move(program));
  }
  return programs;
}

}  // namespace fpswap::bench
