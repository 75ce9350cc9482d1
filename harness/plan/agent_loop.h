// SPDX-License-Identifier: GPL-2.0-or-later
//
// The agent's side of the stream (wire.h), the same for every agent.
#pragma once

#include <string>
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
};

// Serves frames read from `in` and written to `out` until kQuit or end of file; returns the exit
// status. Malformed plans are answered with kError; the batch goes on with the next plan.
int ServeAgent(int in, int out, Machine& machine);

}  // namespace fpswap::wire
