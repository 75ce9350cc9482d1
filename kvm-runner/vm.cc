// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/vm.h"

#include <cerrno>
#include <cstring>

#include "kvm-runner/kvm_api.h"

namespace fpswap::kvm {
namespace {

// Reads and writes of kExitMsrIndex, and of no other MSR, exit to the VMM.
bool FilterMsr(int vm) {
  kvm_enable_cap cap{.cap = KVM_CAP_X86_USER_SPACE_MSR};
  cap.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  if (kvm_set_cap(vm, &cap) != 0) return false;
  uint8_t denied = 0;  // bit clear: denied
  kvm_msr_filter filter{.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
  filter.ranges[0] = {.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                      .nmsrs = 1,
                      .base = plan::kExitMsrIndex,
                      .bitmap = &denied};
  return kvm_x86_set_msr_filter(vm, &filter) == 0;
}

bool AddApic(int vm) {
  kvm_enable_cap cap{.cap = KVM_CAP_SPLIT_IRQCHIP};
  cap.args[0] = 24;  // pins of a user-space IOAPIC, of which there is none
  return kvm_set_cap(vm, &cap) == 0;
}

}  // namespace

std::string Failure(const char* call) { return std::string(call) + ": " + std::strerror(errno); }

std::expected<Vm, std::string> CreateVm(const Host& host, const GuestMemory& memory,
                                        const VmKind& kind) {
  Vm vm;
  vm.fd = Fd(kvm_create_vm(host.kvm.get()));
  if (!vm.fd.ok()) return std::unexpected(Failure("KVM_CREATE_VM"));
  vm.kind = kind;
  kvm_userspace_memory_region region{.slot = 0,
                                     .flags = 0,
                                     .guest_phys_addr = plan::kGuestBase,
                                     .memory_size = plan::kGuestSize,
                                     .userspace_addr = reinterpret_cast<uint64_t>(memory.host())};
  if (kvm_set_user_memory_region(vm.fd.get(), &region) != 0) {
    return std::unexpected(Failure("KVM_SET_USER_MEMORY_REGION"));
  }
  if (kind.msr_filter && !FilterMsr(vm.fd.get())) {
    return std::unexpected(Failure("KVM_X86_SET_MSR_FILTER"));
  }
  if (kind.apic && !AddApic(vm.fd.get())) return std::unexpected(Failure("KVM_CAP_SPLIT_IRQCHIP"));
  return vm;
}

std::expected<void, std::string> AddVcpus(const Host& host, Vm& vm, unsigned count, bool tell) {
  while (vm.vcpus.size() < count) {
    Vcpu vcpu;
    const auto id = static_cast<unsigned>(vm.vcpus.size());
    vcpu.number = vm.kind.first + id;
    vcpu.fd = Fd(kvm_create_vcpu(vm.fd.get(), static_cast<int>(id)));
    if (!vcpu.fd.ok()) return std::unexpected(Failure("KVM_CREATE_VCPU"));
    vcpu.run_page = Mapping(static_cast<size_t>(host.run_size), vcpu.fd.get());
    if (!vcpu.run_page.ok()) return std::unexpected(Failure("mmap of the vCPU"));
    vcpu.features = vm.kind.features;
    CpuidTable cpuid = LimitCpuid(host.cpuid, vm.kind.features);
    if (tell && kvm_set_cpuid2(vcpu.fd.get(), &cpuid) != 0) {
      return std::unexpected(Failure("KVM_SET_CPUID2"));
    }
    if (kvm_get_sregs(vcpu.fd.get(), &vcpu.sregs) != 0) {
      return std::unexpected(Failure("KVM_GET_SREGS"));
    }
    if (host.sync_regs) vcpu.run().kvm_valid_regs = KVM_SYNC_X86_REGS;
    vm.vcpus.push_back(std::move(vcpu));
  }
  return {};
}

}  // namespace fpswap::kvm
