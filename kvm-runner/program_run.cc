// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/program_run.h"

#include <algorithm>
#include <cerrno>

#include "kvm-runner/kvm_api.h"
#include "kvm-runner/start.h"

namespace fpswap::kvm {

ProgramRun::ProgramRun(Tools& tools, const wire::PlanView& plan, std::span<Vm> vms,
                       std::vector<uint8_t>& records)
    : tools_(tools), plan_(plan), vms_(vms), records_(records), here_(tools.threads.Get(0)) {
  for (uint8_t i = 0; plan.own_thread && i < plan.vcpus; ++i) thread_of_[i] = i;
  bool images = false;
  for (const program::Step& step : plan.steps) {
    images |= step.op >= program::Op::kGetXsave && step.op <= program::Op::kImageFill;
    moves_ |= step.op == program::Op::kHostCpu || step.op == program::Op::kHostOnline;
  }
  if (!images) return;
  images_.resize(size_t{tools.host.xsave_size} * program::kImageCount);
  for (unsigned i = 0; i < program::kImageCount; ++i) InitialImage(Image(i));
}

trace::EndReason ProgramRun::Go() {
  if (tools_.plant != nullptr) {
    for (unsigned i = 0; i < plan_.vcpus; ++i) {
      Plant({.point = PlantPoint::kStart, .happened = happened_, .vcpu = VcpuOf(i)});
    }
  }
  for (size_t next = 0; next < plan_.actions.size() && !end_;) {
    VcpuThread* thread = tools_.threads.Get(thread_of_[plan_.actions[next].vcpu]);
    if (thread == nullptr) {
      Die(EndReason::kSetupFailed, EAGAIN);
      break;
    }
    here_ = thread;
    // A thread has its turn until the program comes to a vCPU that another one runs.
    here_->Do([&] {
      BeginOnFirstCpu();
      do {
        Act(plan_.actions[next++]);
      } while (next < plan_.actions.size() && !end_ &&
               thread_of_[plan_.actions[next].vcpu] == here_->number());
    });
  }
  // What no KVM_RUN came for.
  for (unsigned i = 0; i < plan_.vcpus; ++i) {
    for (const auto& step : {signal_step_[i], preempt_step_[i]}) {
      if (step) Record(RecordKind::kHost, i, *step, trace::HostRecord{0, 0});
    }
  }
  CompleteExits();
  return end_.value_or(EndReason::kDone);
}

// Else what a step moves away from would be chance, and a program no reproducer.
void ProgramRun::BeginOnFirstCpu() {
  bool& began = began_[here_->number()];
  if (moves_ && !began) here_->affinity.MoveTo(0);
  began = true;
}

// The last exits' unfinished business must not meet the next program: an OUT moves RIP on if that
// is where the OUT was, and the next program may begin there (complete_fast_pio_out).
// Documentation/virt/kvm/api.rst, KVM_RUN: immediate_exit completes an operation and does no more.
void ProgramRun::CompleteExits() {
  for (unsigned i = 0; i < plan_.vcpus && !end_; ++i) {
    Vcpu& vcpu = VcpuOf(i);
    VcpuThread* thread = vcpu.pending ? tools_.threads.Get(thread_of_[i]) : nullptr;
    if (thread == nullptr) continue;
    thread->Do([&] {
      vcpu.run().immediate_exit = 1;
      vcpu.run().kvm_dirty_regs = 0;
      kvm_run_vcpu(vcpu.fd.get());
      vcpu.run().immediate_exit = 0;
      vcpu.pending = false;
    });
  }
}

void ProgramRun::Act(const wire::PlanAction& action) {
  tools_.watchdog.Begin();
  step_ = action.first;
  if (action.kind == static_cast<uint8_t>(plan::ActionKind::kRun)) {
    RunGuest(action);
  } else {
    DoStep(action.first);
  }
  if (tools_.watchdog.hung()) Die(EndReason::kHang, 0);
}

void ProgramRun::Die(EndReason reason, int error) {
  if (end_) return;
  end_ = reason;
  error_ = error;
}

void ProgramRun::Plant(PlantEvent event) {
  if (tools_.plant == nullptr) return;
  if (plan_.vcpus > 1) event.other = &VcpuOf((event.vcpu.number + 1) % plan_.vcpus);
  event.thread = here_->number();
  tools_.plant->act(tools_.host, event, tools_.plant_memory);
}

void ProgramRun::RecordCanary(unsigned vcpu) {
  const Canary& canary = here_->canary;
  const uint64_t components = canary.Differing();
  if (components == 0) return;
  std::vector<uint8_t> both(canary.expected().begin(), canary.expected().end());
  both.insert(both.end(), canary.seen().begin(), canary.seen().end());
  Record(RecordKind::kCanary, vcpu, step_, trace::CanaryRecord{components}, both);
}

long ProgramRun::Run(Vcpu& vcpu) {
  auto& signal_step = signal_step_[vcpu.number];
  auto& preempt_step = preempt_step_[vcpu.number];
  Canary& canary = here_->canary;
  tools_.watchdog.Watch(&vcpu.run(), here_->tid());
  Plant({.point = PlantPoint::kBeforeRun, .happened = happened_, .vcpu = vcpu});
  const bool signal = signal_step && tools_.signal.Raise(vcpu.fd.get());
  const bool armed = preempt_step && Arm(plan_.steps[*preempt_step]);
  const bool in_time = armed && tools_.competitor.armed();
  const long result = canary.Run(vcpu.fd.get());
  tools_.watchdog.Unwatch();
  const bool preempted = in_time && !tools_.competitor.armed();
  if (armed) tools_.competitor.Finish();
  vcpu.pending = result == 0;
  happened_.signalled = result == -EINTR;
  happened_.exits += result == 0;
  happened_.last_exit = vcpu.run().exit_reason;
  Plant({.point = PlantPoint::kAfterRun,
         .happened = happened_,
         .vcpu = vcpu,
         .canary = const_cast<uint8_t*>(canary.seen().data())});
  happened_.cpu_changed = happened_.dirtied = false;
  RecordCanary(vcpu.number);
  if (signal) {
    tools_.signal.Take(vcpu.fd.get());
    Record(RecordKind::kHost, vcpu.number, *signal_step, trace::HostRecord{result == -EINTR, 0});
    signal_step.reset();
  }
  if (preempt_step) {
    Record(RecordKind::kHost, vcpu.number, *preempt_step,
           trace::HostRecord{armed ? preempted : -1, armed ? 0 : EAGAIN});
    preempt_step.reset();
  }
  return result;
}

bool ProgramRun::Arm(const program::Step& preempt) {
  const int cpu = here_->affinity.Stay();
  return cpu >= 0 && tools_.competitor.Arm(cpu, static_cast<uint16_t>(preempt.arg[0]),
                                           static_cast<unsigned>(preempt.arg[1]));
}

}  // namespace fpswap::kvm
