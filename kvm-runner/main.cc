// SPDX-License-Identifier: GPL-2.0-or-later
//
// kvm-runner: the agent that runs plans on /dev/kvm. It takes frames (wire.h) on stdin and answers
// on stdout.
#include "harness/plan/agent_main.h"
#include "kvm-runner/kvm_machine.h"

using namespace fpswap;

// Their places in Agent::flags.
constexpr uint32_t kNoReuse = 1u << 0, kNoGuestPermission = 1u << 1, kOfflineCpus = 1u << 2,
                   kNoKcov = 1u << 3;

int main(int argc, char** argv) {
  wire::Agent agent{
      .name = "kvm-runner",
      .runs_on = "/dev/kvm",
      .plants = {},
      .flags = {"--no-reuse", "--no-guest-permission", "--offline-cpus", "--no-kcov"},
      .open = [](const wire::AgentOptions& options) {
        return kvm::KvmMachine::Open({.hang_ms = options.hang_ms,
                                      .plant = kvm::FindPlant(options.plant),
                                      .reuse = (options.flags & kNoReuse) == 0,
                                      .ask_permission = (options.flags & kNoGuestPermission) == 0,
                                      .offline_cpus = (options.flags & kOfflineCpus) != 0,
                                      .count = (options.flags & kNoKcov) == 0});
      }};
  for (const kvm::PlantRow& row : kvm::PlantTable()) {
    agent.plants.push_back({row.name, row.sentence, row.law});
  }
  return wire::AgentMain(argc, argv, agent);
}
