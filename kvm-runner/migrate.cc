// SPDX-License-Identifier: GPL-2.0-or-later
//
// Live migration as VMMs do it, over the same guest memory: the whole state of every vCPU of the VM
// is read, a fresh VM made, and the state written in one of the orders of vmm.h.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kvm-runner/kvm_api.h"
#include "kvm-runner/msrs.h"
#include "kvm-runner/program_run.h"

namespace fpswap::kvm {
namespace {

using plan::MigrateCall;
using plan::MigrateFailure;

// What a VMM carries over.
struct SavedVcpu {
  CpuidTable cpuid;
  kvm_regs regs{};
  kvm_sregs sregs{};
  std::vector<uint8_t> xsave;
  kvm_xcrs xcrs{};
  MsrTable msrs;
  kvm_vcpu_events events{};
  kvm_mp_state mp_state{};
  kvm_debugregs debugregs{};
};

// One row a call: how it is read and how written. MSRs count as failed where KVM took fewer.
struct CallRow {
  MigrateCall call;
  int (*get)(int vcpu, SavedVcpu& saved, const Host& host);
  int (*set)(int vcpu, SavedVcpu& saved);
};

int AllOf(int count, const SavedVcpu& saved) {
  if (count == static_cast<int>(saved.msrs.nmsrs)) return 0;
  if (count >= 0) errno = 0;
  return -1;
}

constexpr CallRow kCalls[] = {
    {MigrateCall::kMpState,
     [](int v, SavedVcpu& s, const Host&) { return kvm_get_mp_state(v, &s.mp_state); },
     [](int v, SavedVcpu& s) { return kvm_set_mp_state(v, &s.mp_state); }},
    {MigrateCall::kEvents,
     [](int v, SavedVcpu& s, const Host&) { return kvm_get_vcpu_events(v, &s.events); },
     [](int v, SavedVcpu& s) { return kvm_set_vcpu_events(v, &s.events); }},
    {MigrateCall::kCpuid,
     [](int v, SavedVcpu& s, const Host&) {
       s.cpuid.nent = CpuidTable::kRoom;
       return kvm_get_cpuid2(v, &s.cpuid);
     },
     [](int v, SavedVcpu& s) { return kvm_set_cpuid2(v, &s.cpuid); }},
    {MigrateCall::kRegs, [](int v, SavedVcpu& s, const Host&) { return kvm_get_regs(v, &s.regs); },
     [](int v, SavedVcpu& s) { return kvm_set_regs(v, &s.regs); }},
    {MigrateCall::kSregs,
     [](int v, SavedVcpu& s, const Host&) { return kvm_get_sregs(v, &s.sregs); },
     [](int v, SavedVcpu& s) { return kvm_set_sregs(v, &s.sregs); }},
    {MigrateCall::kXsave,
     [](int v, SavedVcpu& s, const Host& host) {
       s.xsave.resize(host.xsave_size);
       return host.xsave2 ? kvm_get_xsave2(v, s.xsave.data()) : kvm_get_xsave(v, s.xsave.data());
     },
     [](int v, SavedVcpu& s) { return kvm_set_xsave(v, s.xsave.data()); }},
    {MigrateCall::kXcrs, [](int v, SavedVcpu& s, const Host&) { return kvm_get_xcrs(v, &s.xcrs); },
     [](int v, SavedVcpu& s) { return kvm_set_xcrs(v, &s.xcrs); }},
    {MigrateCall::kMsrs,
     [](int v, SavedVcpu& s, const Host& host) {
       for (const uint32_t index : host.reset_msrs) s.msrs.Add(index, 0);
       return s.msrs.nmsrs == 0 ? 0 : AllOf(kvm_get_msrs(v, &s.msrs), s);
     },
     [](int v, SavedVcpu& s) {
       return s.msrs.nmsrs == 0 ? 0 : AllOf(kvm_set_msrs(v, &s.msrs), s);
     }},
    {MigrateCall::kDebugregs,
     [](int v, SavedVcpu& s, const Host&) { return kvm_get_debugregs(v, &s.debugregs); },
     [](int v, SavedVcpu& s) { return kvm_set_debugregs(v, &s.debugregs); }},
};

void Note(std::vector<MigrateFailure>& failures, MigrateCall call, bool saving, unsigned vcpu) {
  failures.push_back({.call = static_cast<uint8_t>(call),
                      .saving = saving,
                      .vcpu = static_cast<uint8_t>(vcpu),
                      .pad = 0,
                      .error = errno});
}

SavedVcpu Save(const Host& host, const Vcpu& vcpu, std::vector<MigrateFailure>& failures) {
  SavedVcpu saved;
  for (const CallRow& row : kCalls) {
    if (row.get(vcpu.fd.get(), saved, host) != 0) Note(failures, row.call, true, vcpu.number);
  }
  return saved;
}

void Restore(const plan::MigrateOrder& order, SavedVcpu& saved, const Vcpu& vcpu,
             std::vector<MigrateFailure>& failures) {
  for (const MigrateCall call : order.calls) {
    for (const CallRow& row : kCalls) {
      if (row.call != call) continue;
      if (row.set(vcpu.fd.get(), saved) != 0) Note(failures, call, false, vcpu.number);
    }
  }
}

// Its vCPUs have not been told their CPUID yet: that is part of what is restored, and only then
// does an fpstate grow that is to hold tiles. It comes first in every order: before it KVM takes no
// image with a component in it (guest_supported_xcr0 is 0: fpu_copy_uabi_to_guest_fpstate).
std::expected<Vm, std::string> FreshVm(const Tools& tools, const Vm& old, unsigned count) {
  auto fresh = CreateVm(tools.host, tools.memory[old.kind.first], old.kind);
  if (!fresh) return fresh;
  if (auto added = AddVcpus(tools.host, *fresh, count, false); !added) {
    return std::unexpected(added.error());
  }
  return fresh;
}

}  // namespace

void ProgramRun::Migrate(const Vcpu& vcpu, unsigned number) {
  const auto& order = plan::kMigrateOrders[plan_.steps[number].arg[0] % plan::kMigrateOrderCount];
  const unsigned vcpu_number = vcpu.number;
  std::vector<MigrateFailure> failures;
  std::vector<SavedVcpu> saved;
  Vm& vm = VmOf(vcpu_number);
  const unsigned count = plan_.own_vm ? 1 : plan_.vcpus;  // a used VM may have more
  for (unsigned i = 0; i < count; ++i) {
    saved.push_back(Save(tools_.host, vm.vcpus[i], failures));
  }
  auto fresh = FreshVm(tools_, vm, count);
  if (!fresh) {
    Note(failures, MigrateCall::kCreate, false, vcpu_number);
    Die(EndReason::kSetupFailed, errno);
  } else {
    for (size_t i = 0; i < saved.size(); ++i) {
      Restore(order, saved[i], fresh->vcpus[i], failures);
      fresh->vcpus[i].sregs = vm.vcpus[i].sregs;
      fresh->vcpus[i].features = vm.vcpus[i].features;
    }
    vm = std::move(*fresh);
    ++happened_.migrations;
    for (unsigned i = 0; i < count; ++i) {
      Plant({.point = PlantPoint::kMigrated,
             .happened = happened_,
             .vcpu = vm.vcpus[i],
             .value = saved[i].xcrs.xcrs[0].value});
    }
  }
  Record(RecordKind::kIoctl, vcpu_number, number, trace::IoctlRecord{failures.empty() ? 0 : -1, 0},
         {reinterpret_cast<const uint8_t*>(failures.data()),
          failures.size() * sizeof(MigrateFailure)});
}

}  // namespace fpswap::kvm
