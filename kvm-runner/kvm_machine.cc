// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/kvm_machine.h"

#include <time.h>

#include <algorithm>
#include <cerrno>

#include "harness/plan/kmsg.h"
#include "harness/trace/trace.h"
#include "kvm-runner/probe.h"
#include "kvm-runner/start.h"

namespace fpswap::kvm {
namespace {

// VMs kept at a time; a campaign has few kinds of feature set at once.
constexpr size_t kPoolSize = 12;
// What the probe finds holds for good, so it is not to be in a hurry.
constexpr unsigned kLeastProbeMs = 2000;

uint64_t MicrosSince(const timespec& began) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec - began.tv_sec) * 1'000'000 +
         static_cast<uint64_t>((now.tv_nsec - began.tv_nsec) / 1000);
}

}  // namespace

std::expected<std::unique_ptr<KvmMachine>, std::string> KvmMachine::Open(
    const MachineOptions& options) {
  trace::Platform platform;
  auto host = ProbeHost(platform, options.ask_permission);
  if (!host) return std::unexpected(host.error());
  std::unique_ptr<KvmMachine> machine(
      new KvmMachine(options, std::move(*host), std::move(platform)));
  if (!std::ranges::all_of(machine->tools_.memory, &GuestMemory::ok)) {
    return std::unexpected("no memory for a guest");
  }
  machine->options_.hang_ms = std::max(options.hang_ms, kLeastProbeMs);
  machine->SetPatience(1);
  ProbeSteps(machine->tools_.host, machine->platform_,
             [&](const wire::PlanView& plan, std::vector<uint8_t>& records) {
               wire::RunPatiently(*machine, plan, records);
             });
  if (!machine->tools_.cpu.there()) {
    const auto op = static_cast<uint8_t>(program::Op::kHostOnline);
    machine->platform_.can.reset(op);
    machine->platform_.cannot.emplace_back(
        op, options.offline_cpus ? "no CPU of this machine can be taken offline"
                                 : "it takes a CPU from the whole machine, so the agent is to be "
                                   "told --offline-cpus, as in lab:amd");
  }
  machine->options_.hang_ms = options.hang_ms;
  machine->SetPatience(1);
  // Only now: a planted bug is one that works on a healthy KVM's probe.
  machine->tools_.plant = options.plant;
  return machine;
}

KvmMachine::KvmMachine(const MachineOptions& options, Host host, trace::Platform platform)
    : options_(options),
      platform_(std::move(platform)),
      tools_{.host = std::move(host),
             .memory = {},
             .threads = VcpuThreads(platform_.host, platform_.host_xcr0, options.count),
             .competitor = Competitor(platform_.host, platform_.host_xcr0),
             .cpu = CpuSwitch(options.offline_cpus),
             .signal = PendingSignal(),
             .watchdog = Watchdog(options.hang_ms),
             .plant = nullptr,
             .plant_memory = {}} {
  platform_.kernel_log = wire::Kmsg().readable();
  platform_.kernel_coverage = tools_.threads.Get(0)->kcov != nullptr;
  platform_.cpus = tools_.threads.Get(0)->affinity.count();
}

std::expected<std::string, std::string> KvmMachine::Platform() {
  return trace::PlatformToJson(platform_);
}

std::expected<Vm, std::string> KvmMachine::Take(const wire::PlanView& plan, unsigned first) {
  const unsigned count = plan.own_vm ? 1 : plan.vcpus;
  const uint64_t features = tools_.host.guest_fixed ? tools_.host.guest_components
                                                    : plan.features & tools_.host.guest_components;
  const VmKind kind{.features = features,
                    .apic = NeedsApic(plan),
                    .msr_filter = tools_.host.msr_exits && NeedsMsrFilter(plan),
                    .first = first,
                    .threads = plan.own_thread && first + count > 1};
  const auto fits = [&](const Vm& vm) { return vm.kind == kind; };
  std::expected<Vm, std::string> vm;
  const auto found = NeedsFresh(plan) ? pool_.end() : std::ranges::find_if(pool_, fits);
  if (found != pool_.end()) {
    vm = std::move(*found);
    pool_.erase(found);
  } else {
    vm = CreateVm(tools_.host, tools_.memory[first], kind);
  }
  if (!vm) return vm;
  if (auto added = AddVcpus(tools_.host, *vm, count); !added) {
    return std::unexpected(added.error());
  }
  for (unsigned i = 0; i < count; ++i) {
    if (auto ready = BringToStart(tools_.host, plan, vm->vcpus[i]); !ready) {
      return std::unexpected(ready.error());
    }
  }
  return vm;
}

void KvmMachine::PutBack(Vm vm, const wire::PlanView& plan) {
  const unsigned stale = StaleAfter(plan);
  for (Vcpu& vcpu : vm.vcpus) vcpu.stale |= stale;
  if (pool_.size() >= kPoolSize) pool_.erase(pool_.begin());
  pool_.push_back(std::move(vm));
}

void KvmMachine::SetPatience(unsigned times) { tools_.watchdog.SetLimit(options_.hang_ms * times); }

void KvmMachine::Run(const wire::PlanView& plan, std::vector<uint8_t>& records) {
  timespec began;
  clock_gettime(CLOCK_MONOTONIC, &began);
  edges_.clear();
  const auto end = [&](trace::EndReason reason, unsigned step, int error,
                       std::span<const uint8_t> text = {}) {
    const trace::EndRecord record{.reason = static_cast<uint8_t>(reason),
                                  .hangs = 0,
                                  .pad = {},
                                  .error = error,
                                  .micros = MicrosSince(began)};
    trace::AppendRecord(records, trace::RecordKind::kEnd, 0, static_cast<uint16_t>(step),
                        {reinterpret_cast<const uint8_t*>(&record), sizeof(record)}, text);
  };
  std::vector<Vm> vms;
  for (unsigned i = 0; i < (plan.own_vm ? plan.vcpus : 1u); ++i) {
    tools_.memory[i].Load(plan, plan.own_vm ? std::optional(i) : std::nullopt);
    auto vm = Take(plan, i);
    if (!vm) {
      const std::string& text = vm.error();
      return end(trace::EndReason::kSetupFailed, 0, errno,
                 {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    }
    vms.push_back(std::move(*vm));
  }
  ProgramRun run(tools_, plan, vms, records);
  // What brings a vCPU to its start is left out: it depends on which VMs are at hand.
  tools_.threads.StartCounting();
  const trace::EndReason reason = run.Go();
  if (platform_.kernel_coverage) {
    reached_.Clear();
    tools_.threads.AddEdges(reached_);
    reached_.List(edges_);
  }
  tools_.watchdog.End();
  tools_.cpu.Restore();
  tools_.threads.Restore();
  end(reason, run.last_step(), run.error());
  if (reason == trace::EndReason::kDone && options_.reuse && !Spoils(plan)) {
    for (Vm& vm : vms) PutBack(std::move(vm), plan);
  }
}

}  // namespace fpswap::kvm
