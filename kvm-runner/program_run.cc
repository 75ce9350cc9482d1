// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/program_run.h"

#include <algorithm>
#include <cerrno>

#include "kvm-runner/start.h"

namespace fpswap::kvm {

ProgramRun::ProgramRun(Tools& tools, const wire::PlanView& plan, Vm& vm,
                       std::vector<uint8_t>& records)
    : tools_(tools), plan_(plan), vm_(vm), records_(records) {
  const bool images = std::ranges::any_of(plan.steps, [](const program::Step& step) {
    return step.op >= program::Op::kGetXsave && step.op <= program::Op::kImageFill;
  });
  if (!images) return;
  images_.resize(size_t{tools.host.xsave_size} * program::kImageCount);
  for (unsigned i = 0; i < program::kImageCount; ++i) InitialImage(Image(i));
}

trace::EndReason ProgramRun::Go() {
  if (tools_.plant != nullptr) {
    for (unsigned i = 0; i < plan_.vcpus; ++i) {
      Plant({.point = PlantPoint::kStart, .happened = happened_, .vcpu = vm_.vcpus[i]});
    }
  }
  for (const wire::PlanAction& action : plan_.actions) {
    if (end_) break;
    tools_.watchdog.Begin();
    step_ = action.first;
    if (action.kind == static_cast<uint8_t>(plan::ActionKind::kRun)) {
      RunGuest(action);
    } else {
      DoStep(action.first);
    }
    if (tools_.watchdog.hung()) Die(EndReason::kHang, 0);
  }
  // A signal that no KVM_RUN came for.
  if (signal_step_) Record(RecordKind::kHost, 0, *signal_step_, trace::HostRecord{0, 0});
  return end_.value_or(EndReason::kDone);
}

void ProgramRun::Die(EndReason reason, int error) {
  if (end_) return;
  end_ = reason;
  error_ = error;
}

void ProgramRun::Plant(PlantEvent event) {
  if (tools_.plant != nullptr) tools_.plant->act(tools_.host, event, tools_.plant_memory);
}

long ProgramRun::Run(Vcpu& vcpu) {
  tools_.watchdog.Watch(&vcpu.run());
  Plant({.point = PlantPoint::kBeforeRun, .happened = happened_, .vcpu = vcpu});
  const bool signal = signal_step_ && tools_.signal.Raise(vcpu.fd.get());
  const long result = tools_.canary.Run(vcpu.fd.get());
  tools_.watchdog.Unwatch();
  happened_.signalled = result == -EINTR;
  happened_.exits += result == 0;
  happened_.last_exit = vcpu.run().exit_reason;
  Plant({.point = PlantPoint::kAfterRun,
         .happened = happened_,
         .vcpu = vcpu,
         .canary = const_cast<uint8_t*>(tools_.canary.seen().data())});
  happened_.cpu_changed = happened_.dirtied = false;
  if (const uint64_t components = tools_.canary.Differing()) {
    std::vector<uint8_t> both(tools_.canary.expected().begin(), tools_.canary.expected().end());
    both.insert(both.end(), tools_.canary.seen().begin(), tools_.canary.seen().end());
    Record(RecordKind::kCanary, vcpu.number, step_, trace::CanaryRecord{components}, both);
  }
  if (signal) {
    tools_.signal.Take(vcpu.fd.get());
    Record(RecordKind::kHost, vcpu.number, *signal_step_, trace::HostRecord{result == -EINTR, 0});
    signal_step_.reset();
  }
  return result;
}

}  // namespace fpswap::kvm
