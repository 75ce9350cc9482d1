// SPDX-License-Identifier: GPL-2.0-or-later
//
// unicorn-runner: the agent that runs plans in Unicorn, a CPU emulator. It takes frames (wire.h) on
// stdin and answers on stdout.
#include "harness/plan/agent_main.h"
#include "unicorn-runner/machine.h"

int main(int argc, char** argv) {
  using namespace fpswap;
  wire::Agent agent{
      .name = "unicorn-runner",
      .runs_on = "Unicorn",
      .plants = {},
      .flags = {},
      .open = [](const wire::AgentOptions& options) {
        return unicorn::UnicornMachine::Open({.hang_ms = options.hang_ms, .plant = options.plant});
      }};
  for (const unicorn::PlantRow& row : unicorn::PlantTable()) {
    agent.plants.push_back({row.name, row.sentence, "model"});
  }
  return wire::AgentMain(argc, argv, agent);
}
