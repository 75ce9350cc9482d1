// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/probe.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "harness/program/step.h"
#include "harness/trace/host_features.h"
#include "kvm-runner/host_kernel.h"
#include "kvm-runner/kvm_api.h"
#include "kvm-runner/msrs.h"
#include "kvm-runner/start.h"

#ifndef KVM_X86_XCOMP_GUEST_SUPP
#define KVM_X86_XCOMP_GUEST_SUPP 0
#endif

namespace fpswap::kvm {
namespace {

constexpr long kArchGetXcompGuestPerm = 0x1024, kArchReqXcompGuestPerm = 0x1025;
constexpr int kCapXsave2 = 208;
constexpr long kTiledata = 18;

std::string OpenFailure() {
  switch (errno) {
    case ENOENT:
      return "there is no /dev/kvm\nload kvm_intel or kvm_amd, or enable virtualisation in the "
             "firmware, or nested virtualisation for this machine";
    case EACCES:
    case EPERM:
      return "/dev/kvm may not be opened\njoin the group that owns it (ls -l /dev/kvm; usually "
             "`adduser $USER kvm`, then log in again) or run as root";
    default:
      return std::string("/dev/kvm: ") + std::strerror(errno);
  }
}

uint64_t GuestSupported(const Host& host, uint64_t host_xcr0) {
  uint64_t components = 0;
  kvm_device_attr attribute{.flags = 0,
                            .group = 0,
                            .attr = KVM_X86_XCOMP_GUEST_SUPP,
                            .addr = reinterpret_cast<uint64_t>(&components)};
  if (kvm_get_device_attr(host.kvm.get(), &attribute) != 0) return host_xcr0;
  return components;
}

uint64_t GuestPermission(uint64_t fallback) {
  uint64_t permitted = 0;
  if (syscall(SYS_arch_prctl, kArchGetXcompGuestPerm, &permitted) != 0) return fallback;
  return permitted;
}

// What a vCPU with every feature shows its guest, and whether features can be taken away.
std::expected<void, std::string> ReadGuest(Host& host, trace::Platform& platform) {
  const auto leaves = [&](uint64_t features) -> std::expected<CpuidTable, std::string> {
    Fd vm(kvm_create_vm(host.kvm.get()));
    if (!vm.ok()) return std::unexpected(Failure("KVM_CREATE_VM"));
    Fd vcpu(kvm_create_vcpu(vm.get(), 0));
    if (!vcpu.ok()) return std::unexpected(Failure("KVM_CREATE_VCPU"));
    CpuidTable table = LimitCpuid(host.cpuid, features);
    if (kvm_set_cpuid2(vcpu.get(), &table) != 0) return std::unexpected(Failure("KVM_SET_CPUID2"));
    table.nent = CpuidTable::kRoom;
    if (kvm_get_cpuid2(vcpu.get(), &table) != 0) return std::unexpected(Failure("KVM_GET_CPUID2"));
    for (unsigned name = 0; name <= static_cast<unsigned>(program::Msr::kPl3Ssp); ++name) {
      const uint32_t index = program::MsrIndex(static_cast<program::Msr>(name));
      MsrTable msr;
      msr.Add(index, 0);
      const bool known = std::ranges::find(host.reset_msrs, index) != host.reset_msrs.end();
      if (!known && kvm_set_msrs(vcpu.get(), &msr) == 1) host.reset_msrs.push_back(index);
    }
    return table;
  };
  const auto all = leaves(~uint64_t{0});
  if (!all) return std::unexpected(all.error());
  platform.guest = trace::FeaturesFromCpuid(
      [&](uint32_t leaf, uint32_t subleaf) { return all->Get(leaf, subleaf); },
      platform.host.mxcsr_mask);
  const auto few = leaves(xstate::kX87Sse);
  if (!few) return std::unexpected(few.error());
  const auto limited = few->Get(0xd, 0).eax;
  platform.guest_fixed = platform.guest.xsave.xcr0 != xstate::kX87Sse &&
                         limited == static_cast<uint32_t>(platform.guest.xsave.xcr0);
  return {};
}

}  // namespace

std::expected<Host, std::string> ProbeHost(trace::Platform& platform, bool ask_permission) {
  Host host;
  host.kvm = Fd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!host.kvm.ok()) return std::unexpected(OpenFailure());
  const int kvm = host.kvm.get();
  utsname name;
  platform.target = "kvm";
  platform.kernel = uname(&name) == 0 ? name.release : "";
  platform.cpu = trace::BrandString(trace::HostCpuid);
  platform.cpu_family = trace::DisplayFamily(trace::HostCpuid);
  const bool vmx = (trace::HostCpuid(1, 0).ecx & 1u << 5) != 0;
  const bool svm = (trace::HostCpuid(0x80000001, 0).ecx & 1u << 2) != 0;
  platform.vendor_module = VendorModule("/sys/module", vmx, svm);
  platform.host = trace::HostFeatures();
  platform.host_xcr0 = trace::HostXcr0();
  platform.guest_supp = GuestSupported(host, platform.host_xcr0);
  if (ask_permission && (platform.guest_supp & xstate::kAmx) != 0) {
    syscall(SYS_arch_prctl, kArchReqXcompGuestPerm, kTiledata);  // GuestPermission has the outcome
  }
  platform.guest_perm = GuestPermission(platform.guest_supp);
  platform.compacted =
      KeepsCompacted(platform.kernel, platform.host.xsave.xsaves, platform.host.xsave.xsavec);
  host.compacted = platform.compacted;

  const auto has = [kvm](int cap) { return kvm_check_extension(kvm, cap) > 0; };
  host.run_size = kvm_get_vcpu_mmap_size(kvm);
  host.xcrs = has(KVM_CAP_XCRS);
  host.sync_regs = (kvm_check_extension(kvm, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS) != 0;
  host.msr_exits = has(KVM_CAP_X86_USER_SPACE_MSR) && has(KVM_CAP_X86_MSR_FILTER);
  {
    Fd vm(kvm_create_vm(kvm));
    if (!vm.ok()) return std::unexpected(Failure("KVM_CREATE_VM"));
    const int size = kvm_check_extension(vm.get(), kCapXsave2);
    host.xsave2 = size > 0;
    host.xsave_size = static_cast<uint32_t>(std::clamp(size, 4096, 65536));
  }
  platform.xsave_size = host.xsave_size;
  platform.vcpus = static_cast<uint32_t>(
      std::clamp<int>(kvm_check_extension(kvm, KVM_CAP_MAX_VCPUS), 1, program::kMaxVcpus));
  const uint64_t components = platform.guest_supp & platform.guest_perm;
  if (!ReadSupportedCpuid(kvm, components, host.cpuid)) {
    return std::unexpected(Failure("KVM_GET_SUPPORTED_CPUID"));
  }
  if (auto read = ReadGuest(host, platform); !read) return std::unexpected(read.error());
  host.guest_components = platform.guest.xsave.xcr0;
  host.guest_fixed = platform.guest_fixed;
  host.mxcsr_mask = platform.host.mxcsr_mask;
  host.guest_pku = platform.guest.pku;
  return host;
}

}  // namespace fpswap::kvm
