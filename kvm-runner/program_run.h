// SPDX-License-Identifier: GPL-2.0-or-later
//
// One program on its VMs: does the plan's actions in order, each on the thread that runs its vCPU,
// and records what is seen.
//
// Not thread safe: one thread runs a program; those that it hands work to take turns with it.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "harness/plan/vmm.h"
#include "harness/plan/wire.h"
#include "harness/trace/record.h"
#include "kvm-runner/host_side.h"
#include "kvm-runner/plants.h"
#include "kvm-runner/vcpu_thread.h"
#include "kvm-runner/vm.h"

namespace fpswap::kvm {

// What lives as long as the agent.
struct Tools {
  Host host;
  std::array<GuestMemory, program::kMaxVcpus> memory;  // by the VM's first vCPU
  VcpuThreads threads;
  Competitor competitor;
  CpuSwitch cpu;
  PendingSignal signal;
  Watchdog watchdog;
  const PlantRow* plant = nullptr;
  PlantMemory plant_memory;
};

class ProgramRun {
 public:
  // `vms` (one, or one for each vCPU) are at the start state, the plan in their guest memories.
  ProgramRun(Tools& tools, const wire::PlanView& plan, std::span<Vm> vms,
             std::vector<uint8_t>& records);

  // Runs to the end or to the vCPU's death; gives the reason. Writes all records but End.
  trace::EndReason Go();
  int error() const { return error_; }
  uint16_t last_step() const { return step_; }

 private:
  using EndReason = trace::EndReason;
  using RecordKind = trace::RecordKind;
  template <typename T>
  using ByVcpu = std::array<T, program::kMaxVcpus>;

  Vm& VmOf(unsigned vcpu) { return vms_[plan_.own_vm ? vcpu : 0]; }
  Vcpu& VcpuOf(unsigned vcpu) { return plan_.own_vm ? vms_[vcpu].vcpus[0] : vms_[0].vcpus[vcpu]; }
  const GuestMemory& MemoryOf(unsigned vcpu) const {
    return tools_.memory[plan_.own_vm ? vcpu : 0];
  }
  void Act(const wire::PlanAction& action);
  void BeginOnFirstCpu();
  void CompleteExits();

  // KVM_RUN with all that goes with it: canary, signal, plants. 0 or -errno.
  long Run(Vcpu& vcpu);
  void Record(RecordKind kind, unsigned vcpu, unsigned step, const auto& head,
              std::span<const uint8_t> tail = {}) {
    trace::AppendRecord(records_, kind, static_cast<uint8_t>(vcpu), static_cast<uint16_t>(step),
                        {reinterpret_cast<const uint8_t*>(&head), sizeof(head)}, tail);
  }
  void RecordCanary(unsigned vcpu);
  bool Arm(const program::Step& preempt);
  // Fills in what every event has.
  void Plant(PlantEvent event);
  void Die(EndReason reason, int error);

  // guest_run.cc
  void RunGuest(const wire::PlanAction& action);
  bool Enter(Vcpu& vcpu, unsigned step);
  bool OnExit(Vcpu& vcpu);
  bool OnIo(Vcpu& vcpu);
  void OnMmio(Vcpu& vcpu);
  void OnMsr(Vcpu& vcpu);
  bool OnFault(Vcpu& vcpu, uint8_t vector);
  bool OnInterrupted(Vcpu& vcpu);
  void RecordExit(Vcpu& vcpu, unsigned step, const trace::ExitRecord& exit);
  void FlushJournals(unsigned upto);
  unsigned StepAt(uint64_t rip) const;
  unsigned StepByRip(Vcpu& vcpu, int64_t correction);
  unsigned Guess() const;
  bool WaitsInHlt() const;

  // vmm_steps.cc
  void DoStep(unsigned number);
  void Ioctl(const Vcpu& vcpu, unsigned step, int result, std::span<const uint8_t> data = {});
  void GetImage(Vcpu& vcpu, unsigned number, bool second);
  void SetImage(Vcpu& vcpu, unsigned number);
  void EditImage(const Vcpu& vcpu, unsigned number);
  void GetSetFpu(Vcpu& vcpu, unsigned number);
  void GetSetXcrs(Vcpu& vcpu, unsigned number);
  void GetSetMsrs(Vcpu& vcpu, unsigned number);
  void GetMpState(Vcpu& vcpu, unsigned number);
  void SetCpuid(Vcpu& vcpu, unsigned number);
  void RunImmediate(Vcpu& vcpu, unsigned number);
  void Init(Vcpu& vcpu, unsigned number);
  void HostStep(Vcpu& vcpu, unsigned number);
  void Fork(Vcpu& vcpu, unsigned number);
  std::span<uint8_t> Image(uint64_t n);

  // migrate.cc
  void Migrate(const Vcpu& vcpu, unsigned number);

  Tools& tools_;
  const wire::PlanView& plan_;
  std::span<Vm> vms_;
  std::vector<uint8_t>& records_;
  std::vector<uint8_t> images_;
  Happenings happened_;
  std::optional<EndReason> end_;
  int error_ = 0;
  uint16_t step_ = 0;
  // Of each vCPU: a kHostSignal and a kHostPreempt that its next KVM_RUN is to see, and the number
  // of the thread that runs it.
  ByVcpu<std::optional<uint16_t>> signal_step_{}, preempt_step_{};
  ByVcpu<uint8_t> thread_of_{};
  VcpuThread* here_;                              // the thread that has its turn
  bool moves_ = false;                            // threads, from one CPU to another
  std::array<bool, program::kMaxVcpus> began_{};  // of each thread: it has had a turn

  // The run of guest steps under way.
  wire::PlanAction action_{};
  unsigned flushed_ = 0;  // steps before this one have their journals recorded
  unsigned exits_ = 0;
};

}  // namespace fpswap::kvm
