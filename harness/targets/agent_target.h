// SPDX-License-Identifier: GPL-2.0-or-later
//
// A target whose programs run in an agent's process. The agent may die or go mad at any program:
// that program gets an End record kAgentDied, the agent is started again, and the rest of the batch
// goes on.
//
// The agent may be on another machine, behind a command that carries the stream. Then what is lost
// with a program may be that machine: the End record's text, from its second line on, is the end of
// what the machine's console said. And the stream may be damaged on the way, which is no program's
// fault: that costs a new connection, and a program is run again.
//
// Not thread safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/targets/agent_process.h"
#include "harness/targets/target.h"

namespace fpswap::targets {

struct AgentCommand {
  std::string path;
  std::vector<std::string> arguments;       // of the program at `path`
  std::vector<std::string> options;         // of the agent
  std::chrono::milliseconds start{60000};   // longer than it takes to answer, probing included
  std::chrono::milliseconds silence{7000};  // longer than a program may hang
  std::string folder;                       // where to start it; "": where this process is
  std::string lab;                          // "lab:NAME" of another machine it is on
  std::string console_folder;               // Options::console_folder
  bool spare_host = false;                  // Platform::spare_host
};

class AgentTarget : public Target {
 public:
  static std::expected<std::unique_ptr<AgentTarget>, Unavailable> Open(AgentCommand command);
  ~AgentTarget() override;

  const trace::Platform& platform() const override { return platform_; }
  std::expected<void, std::string> Run(
      std::span<const plan::Plan* const> plans,
      const std::function<void(size_t index, std::span<const uint8_t> records)>& done) override;

  std::span<const uint16_t> kernel_edges() const override { return edges_; }

  // The agent's process, for tests that kill it; -1 while there is none.
  pid_t agent_pid() const { return agent_ ? agent_->pid() : -1; }
  unsigned restarts() const { return restarts_; }

 private:
  struct Batch;
  explicit AgentTarget(AgentCommand command);

  std::expected<void, Unavailable> Hello(bool share);
  std::expected<void, std::string> Restart(bool share);
  void SendFrom(Batch& batch);
  // Takes frames until the batch sent is through; an error says why the agent can't go on.
  std::expected<void, std::string> Collect(Batch& batch);
  std::expected<bool, std::string> Take(const AgentProcess::Frame& frame, Batch& batch);

  struct Console;
  bool elsewhere() const { return !command_.lab.empty(); }

  AgentCommand command_;
  std::unique_ptr<Console> console_;  // where the agent is elsewhere
  std::optional<AgentProcess> agent_;
  trace::Platform platform_;
  bool shares_ = false;  // the agent may keep what it says for a while (unsent.h)
  unsigned restarts_ = 0;
  std::vector<uint8_t> plans_, frame_, records_;  // kept for their memory
  std::vector<uint16_t> edges_;                   // of the program under way
};

}  // namespace fpswap::targets
