// SPDX-License-Identifier: GPL-2.0-or-later
//
// What of a program a platform can run. Private to harness/plan. Pure functions.
#pragma once

#include <optional>
#include <string>

#include "harness/program/program.h"
#include "harness/trace/platform.h"

namespace fpswap::plan {

// The program without its steps, its set-up limited to what the platform has.
program::Program LimitSetUp(const program::Program& program, const trace::Platform& platform);

// Why the step can't run there, as a sentence; nothing if it can.
std::optional<std::string> WhyTrimmed(const program::Step& step, const program::StepRow& row,
                                      const trace::Platform& platform);

// Limits the arguments of a step that can run: accesses to the end of their slot or image, and what
// would take the native runner's own memory away.
void Confine(program::Step& step, const trace::Platform& platform);

}  // namespace fpswap::plan
