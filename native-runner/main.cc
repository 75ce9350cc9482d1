// SPDX-License-Identifier: GPL-2.0-or-later
//
// native-runner: the agent that runs plans on the host's own CPU. It takes frames (wire.h) on stdin
// and answers on stdout.
#include "harness/plan/agent_main.h"
#include "native-runner/machine.h"

namespace {

using namespace fpswap;

native::FramePlant PlantOf(std::string_view name) {
  const native::FramePlantRow* row = native::kFramePlants;
  while (row->name != nullptr && row->name != name) ++row;
  return row->plant;  // the last row is no plant
}

}  // namespace

int main(int argc, char** argv) {
  wire::Agent agent{.name = "native-runner",
                    .runs_on = "this CPU",
                    .plants = {},
                    .flags = {},
                    .open = [](const wire::AgentOptions& options) {
                      return native::NativeMachine::Open(
                          {.hang_ms = options.hang_ms, .plant = PlantOf(options.plant)});
                    }};
  for (const native::FramePlantRow* row = native::kFramePlants; row->name != nullptr; ++row) {
    agent.plants.push_back({row->name, row->sentence, "model"});
  }
  return wire::AgentMain(argc, argv, agent);
}
