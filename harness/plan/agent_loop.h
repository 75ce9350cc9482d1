// SPDX-License-Identifier: GPL-2.0-or-later
//
// The agent's side of the stream (wire.h), the same for every agent.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/plan/wire.h"

namespace fpswap::wire {

// What runs plans: a KVM machine, or the host's own CPU.
class Machine {
 public:
  virtual ~Machine() = default;
  // JSON of trace::Platform, or a sentence why there is nothing to run on.
  virtual std::expected<std::string, std::string> Platform() = 0;
  // Runs `plan` and appends its records, the last one an End record.
  virtual void Run(const PlanView& plan, std::vector<uint8_t>& records) = 0;
  // The edges of the kernel that the last plan reached (FrameType::kCoverage), where they are
  // known.
  virtual std::span<const uint16_t> KernelEdges() { return {}; }
  // Gives back what this process would have even after an exec.
  virtual void BeforeExec() {}
  // From now on things may take `times` as long as usual before they count as hung.
  virtual void SetPatience(unsigned /*times*/) {}
};

inline constexpr unsigned kPatience = 5;

// Runs `plan` on `machine`, and once more with kPatience if it hangs: on a machine that was busy,
// or stopped for a while, what only took long then comes through. The End record tells of the first
// time (EndRecord::hangs). Raw code, which may loop for ever, has no second chance.
void RunPatiently(Machine& machine, const PlanView& plan, std::vector<uint8_t>& records);

// Takes the words of a hello; a sentence if they can't be followed. It does not come back if the
// agent has to start again for them, with `greeted`.
using FollowHello =
    std::function<std::expected<void, std::string>(std::span<const std::string_view> words)>;

// Serves frames read from `in` and written to `out` until end of file; returns the exit status. A
// malformed plan is answered with kError and the batch goes on with the next plan, if that can be
// found. Without `follow` the words of a hello but for kUnsent are not looked at. `greeted`: the
// hello was taken before, and waits for its answer.
int ServeAgent(int in, int out, Machine& machine, const FollowHello& follow = {},
               bool greeted = false);

}  // namespace fpswap::wire
