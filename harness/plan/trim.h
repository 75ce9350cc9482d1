// SPDX-License-Identifier: GPL-2.0-or-later
//
// What of a program a platform can run. Private to harness/plan. Pure functions.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "harness/program/program.h"
#include "harness/trace/platform.h"

namespace fpswap::plan {

// The program without its steps, its set-up limited to what the platform has.
program::Program LimitSetUp(const program::Program& program, const trace::Platform& platform);

// What of the set-up is another in `taken`, which LimitSetUp gave, though the platform has all of
// it, as a sentence; nothing if it is as given. On native there is nothing to choose, where
// Platform::guest_fixed no features.
std::optional<std::string> WhySetUpChanged(const program::Program& program,
                                           const program::Program& taken,
                                           const trace::Platform& platform);

// Why the step can't run there, as a sentence; nothing if it can.
std::optional<std::string> WhyTrimmed(const program::Step& step, const program::StepRow& row,
                                      const trace::Platform& platform);

// Steps that a defect of the kernel turns into the host's end, trimmed where Platform::spare_host
// says so. The rules look at steps alone and are on the safe side.
class HostSparer {
 public:
  explicit HostSparer(const trace::Platform& platform);
  // Why `step` may not follow those noted so far, as a sentence; nothing if it may.
  std::optional<std::string> WhyNot(const program::Step& step) const;
  // The steps that stay, in order.
  void Note(const program::Step& step);

 private:
  bool xfd_over_tiles_;                           // the host may have that defect
  std::array<bool, program::kMaxVcpus> tiles_{};  // by vCPU: TILEDATA may be in use
};

// Limits the arguments of a step that can run: accesses to the end of their slot or image, and what
// would take the native runner's own memory away.
void Confine(program::Step& step, const trace::Platform& platform);

}  // namespace fpswap::plan
