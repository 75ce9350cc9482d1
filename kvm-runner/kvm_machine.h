// SPDX-License-Identifier: GPL-2.0-or-later
//
// The agent's Machine (agent_loop.h) on /dev/kvm: probes once, keeps used VMs for later programs.
//
// Not thread safe.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "harness/plan/agent_loop.h"
#include "harness/trace/platform.h"
#include "kvm-runner/program_run.h"

namespace fpswap::kvm {

struct MachineOptions {
  unsigned hang_ms = 2000;  // an action of a program that takes longer is stopped
  const PlantRow* plant = nullptr;
  bool reuse = true;  // false: a fresh VM for each program
  // Whether to ask for the components that guests may have only by permission
  // (ARCH_REQ_XCOMP_GUEST_PERM). It is the process's, and can't be given back.
  bool ask_permission = true;
  bool offline_cpus = false;  // whether a step may take a CPU of the machine offline
  bool count = true;          // what programs reach of the kernel, where the kernel can (KCOV)
};

class KvmMachine : public wire::Machine {
 public:
  // A sentence with a remedy where there is no KVM to be had.
  static std::expected<std::unique_ptr<KvmMachine>, std::string> Open(
      const MachineOptions& options);

  std::expected<std::string, std::string> Platform() override;
  void Run(const wire::PlanView& plan, std::vector<uint8_t>& records) override;
  std::span<const uint16_t> KernelEdges() override { return edges_; }
  // A thread is counted for one owner at a time, and after an exec nobody could stop that.
  void BeforeExec() override { tools_.threads.Get(0)->kcov.reset(); }
  void SetPatience(unsigned times) override;

  // Guest memory of the VM whose first vCPU is `first`; for benchmarks that prepare it themselves.
  GuestMemory& memory(unsigned first) { return tools_.memory[first]; }

 private:
  KvmMachine(const MachineOptions& options, Host host, trace::Platform platform);

  // A VM whose vCPUs are at the start state of `plan`: a used one where that is sound. `first`: the
  // number of its first vCPU.
  std::expected<Vm, std::string> Take(const wire::PlanView& plan, unsigned first);
  void PutBack(Vm vm, const wire::PlanView& plan);

  MachineOptions options_;
  trace::Platform platform_;
  Tools tools_;
  std::vector<Vm> pool_;  // most recently used last
  EdgeMap reached_;
  std::vector<uint16_t> edges_;  // as a list
};

}  // namespace fpswap::kvm
