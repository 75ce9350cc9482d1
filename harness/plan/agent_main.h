// SPDX-License-Identifier: GPL-2.0-or-later
//
// An agent's main: its command line and its life, the same for every agent.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "harness/plan/agent_loop.h"

namespace fpswap::wire {

// A bug that an agent can plant. Views of constants.
struct PlantText {
  std::string_view name;
  std::string_view sentence;  // what it does
  std::string_view law;       // the law it breaks
};

// What the command line asks for.
struct AgentOptions {
  unsigned hang_ms = 2000;  // a program that runs longer is stopped and reported
  std::string_view plant;   // one of Agent::plants, or ""
  uint32_t flags = 0;       // bit i: Agent::flags[i] was given
  bool operator==(const AgentOptions&) const = default;
};

struct Agent {
  std::string_view name;     // "kvm-runner"
  std::string_view runs_on;  // "/dev/kvm", for --help
  std::vector<PlantText> plants;
  std::vector<std::string_view> flags;  // options of its own, "--no-reuse"; 32 at most
  // A sentence, and after a newline its remedy where there is one, if plans can't be run here. The
  // agent then still speaks, to say so.
  std::function<std::expected<std::unique_ptr<Machine>, std::string>(const AgentOptions&)> open;
};

// Returns the exit status: 0, 2 for a command line not understood, 3 if plans can't be run here.
int AgentMain(int argc, char** argv, const Agent& agent);

}  // namespace fpswap::wire
