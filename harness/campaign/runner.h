// SPDX-License-Identifier: GPL-2.0-or-later
//
// Runs plans and judges them: a target and a judge behind one interface, so that all that drives
// programs (fuzzing, replaying, minimising) needs neither, and tests can stand in for both.
//
// Thread safety: a Runner is used by one thread.
#pragma once

#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "harness/judge/judge.h"
#include "harness/targets/target.h"

namespace fpswap::campaign {

class Runner {
 public:
  using Done = std::function<void(size_t index, std::span<const uint8_t> records,
                                  const judge::Verdict& verdict)>;
  virtual ~Runner() = default;
  virtual const trace::Platform& platform() const = 0;
  // Runs `plans` in order, calling `done` for each. What was reached goes to `reach` if not null.
  // An error means that nothing can be run any more.
  virtual std::expected<void, std::string> Run(std::span<const plan::Plan* const> plans,
                                               judge::ReachSink* reach, const Done& done) = 0;
  // As Target's.
  virtual std::span<const uint16_t> kernel_edges() const { return {}; }
};

// Runs any number of `plans`, some at a time: a target answers when a batch is through.
std::expected<void, std::string> RunInBatches(Runner& runner,
                                              std::span<const plan::Plan* const> plans,
                                              const Runner::Done& done);

std::unique_ptr<Runner> MakeRunner(std::unique_ptr<targets::Target> target);

// A program that ran: all that a finding needs.
struct Ran {
  plan::Plan plan;
  std::vector<uint8_t> records;
  judge::Verdict verdict;
};

// Resolves and runs one program.
std::expected<Ran, std::string> RunOne(Runner& runner, const program::Program& program,
                                       judge::ReachSink* reach = nullptr);

}  // namespace fpswap::campaign
