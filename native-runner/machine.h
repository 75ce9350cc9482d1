// SPDX-License-Identifier: GPL-2.0-or-later
//
// The native machine: runs the unprivileged guest steps of plans on the host's own CPU, in this
// process, at the addresses of plan.h. Faults come back as signals.
//
// One in a process, for its memory lies at fixed addresses and signals are the process's.
// Not thread safe.
#pragma once

#include <sched.h>

#include <array>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "harness/plan/agent_loop.h"
#include "harness/plan/plan.h"
#include "native-runner/frame_plants.h"

namespace fpswap::native {

struct LiveAction;

struct MachineOptions {
  unsigned hang_ms = 2000;  // a program that runs longer is stopped
  FramePlant plant = FramePlant::kNone;
};

class NativeMachine : public wire::Machine {
 public:
  // A sentence where this host or process can't run plans.
  static std::expected<std::unique_ptr<NativeMachine>, std::string> Open(
      const MachineOptions& options);

  std::expected<std::string, std::string> Platform() override;
  void Run(const wire::PlanView& plan, std::vector<uint8_t>& records) override;
  void SetPatience(unsigned times) override;

 private:
  explicit NativeMachine(trace::Platform platform) : platform_(std::move(platform)) {}

  void Reset(const wire::PlanView& plan);
  void NoteDirtySlots(const wire::PlanView& plan);
  void PutSteps(const wire::PlanView& plan);
  void PutEdit(const program::Step& step, LiveAction& action);
  void Report(const wire::PlanView& plan, uint64_t micros, std::vector<uint8_t>& records) const;

  trace::Platform platform_;
  unsigned hang_ms_ = 0;
  cpu_set_t allowed_{};
  // The bytes that edits of images write.
  std::vector<uint8_t> edits_;
  // Bytes from a slot's start that programs may have written since it was last zero.
  std::array<uint32_t, program::kSlotCount> dirty_{};
};

}  // namespace fpswap::native
