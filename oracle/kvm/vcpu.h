// SPDX-License-Identifier: GPL-2.0-or-later
//
// A vCPU as KVM's ioctls present it: a CPU, and what the kernel keeps beside it. Each rule names
// the kernel function it was read in (Linux 6.1, 6.12, 7.x: arch/x86/kvm/x86.c and
// arch/x86/kernel/fpu/{core,xstate}.c).
//
// The functions say what the vCPU's user is promised, which is the guest's view (law 2): where the
// kernel shows something else, the judge reports it.
//
// Thread safety: none; a Vcpu is a value.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>

#include "oracle/cpu/cpu.h"

namespace fpswap::kvm {

using xstate::Component;

// What of the host and its KVM decides the answers.
struct Host {
  xstate::XsaveCpuid xsave;      // the uABI image has the host's standard layout
  uint64_t supported = 3;        // kvm_caps.supported_xcr0
  uint64_t user_features = 3;    // fpstate->user_xfeatures of a new vCPU
  uint64_t dynamic = 0;          // features that are in use only where a guest's CPUID has them
  uint32_t mxcsr_mask = 0xffff;  // mxcsr_feature_mask
  uint32_t image_size = 4096;    // KVM_CAP_XSAVE2: bytes of an image with all that is permitted
  bool compacted = true;         // the kernel keeps fpstates compacted
};

// The parts of a struct kvm_fpu (kFpuSize bytes), written to where an XSAVE image has them in its
// legacy region: st_space with the 24 bytes from FCW to FDP, and xmm_space.
void CopyFpuX87(std::span<const uint8_t> fpu, std::span<uint8_t> legacy);
void CopyFpuXmm(std::span<const uint8_t> fpu, std::span<uint8_t> legacy);

// What an ioctl returns: 0 or a count, or -1 with an errno.
struct Status {
  int result = 0;
  int error = 0;
  static Status Error(int e) { return {-1, e}; }
  bool ok() const { return result >= 0; }
};

inline constexpr uint32_t kMaxImage = xstate::kMaxAreaSize;
inline constexpr uint32_t kGetXsaveSize = 4096;  // sizeof(struct kvm_xsave)
inline constexpr uint32_t kFpuSize = 416;        // sizeof(struct kvm_fpu)

// The bytes of the last image that SET_XSAVE took. GET_XSAVE may show them as they were given, not
// as the CPU reads them (FCW bit 6, pad bytes), until the kernel has swapped them through
// registers.
struct RawImage {
  uint64_t components = 0;  // those that were in it
  bool mask = false;        // its MXCSR_MASK was taken
  std::array<uint8_t, kMaxImage> bytes;

  RawImage() = default;
  RawImage(const RawImage& other) { *this = other; }
  RawImage& operator=(const RawImage& other);
};

struct Xcr {
  uint32_t xcr;
  uint64_t value;
};

struct Vcpu {
  Vcpu(const cpu::Features& features, const Host& h) : cpu(features), host(&h) {}

  cpu::Cpu cpu;
  const Host* host;      // not owned, outlives the Vcpu
  bool has_run = false;  // kvm_vcpu_has_run(): entered at least once
  // Dynamic features that KVM_SET_CPUID2 has given the guest so far: the fpstate grew by them, and
  // never shrinks (fpu_enable_guest_xfd_features, fpstate_realloc).
  uint64_t enabled_dynamic = 0;
  RawImage raw;

  // Whether such a CPUID makes the fpstate grow.
  bool GrowsFor(const cpu::Features& features) const {
    return (features.xsave.xcr0 & host->dynamic & ~enabled_dynamic) != 0;
  }
  // The guest's CPUID is `features` from now on: what grows, grows.
  void GrowFor(const cpu::Features& features) {
    enabled_dynamic |= features.xsave.xcr0 & host->dynamic;
  }
  // What a growth leaves that brings nothing over: a fpstate of zeros, whose XSTATE_BV says that
  // all is initial. IA32_S_CET and PKRU are not in it (vcpu->arch.pkru).
  void LoseFpstate();
  // fpstate->user_xfeatures.
  uint64_t UserFeatures() const { return host->user_features | enabled_dynamic; }
  // guest_fpu.uabi_size: bytes that KVM_GET_XSAVE2 writes and KVM_SET_XSAVE reads.
  uint32_t ImageSize() const;

  // Components of an image that concern the guest: those GET_XSAVE shows
  // (fpu_copy_guest_fpstate_to_uabi masks with guest_supported_xcr0 | FPSSE).
  uint64_t GuestComponents() const;

  // kvm_vcpu_ioctl_x86_set_xsave, then fpu_copy_uabi_to_guest_fpstate and copy_uabi_to_xstate.
  // `image` has ImageSize() bytes.
  Status SetXsave(std::span<const uint8_t> image);
  // kvm_vcpu_ioctl_x86_get_xsave: struct kvm_xsave can't hold a larger image.
  Status GetXsaveStatus() const;

  // kvm_arch_vcpu_ioctl_set_fpu: it checks nothing. MXCSR is left to SetFpuMxcsr.
  void SetFpuX87(std::span<const uint8_t> fpu);
  void SetFpuXmm(std::span<const uint8_t> fpu);

  // kvm_vcpu_ioctl_x86_set_xcrs with nr_xcrs `count`. Entries behind the last of `entries` are like
  // it.
  Status SetXcrs(uint32_t count, std::span<const Xcr> entries, uint32_t flags);
  Status SetXcrs(uint32_t count, uint32_t xcr, uint64_t value, uint32_t flags) {
    const Xcr all{xcr, value};
    return SetXcrs(count, {&all, 1}, flags);
  }

  // KVM_GET_MSRS and KVM_SET_MSRS of one MSR; the result is the count (do_set_msr,
  // kvm_set_msr_common with host_initiated set). Of a list, __msr_io does one entry after the other
  // and ends at the first that is refused.
  Status GetMsr(uint32_t msr, uint64_t* value) const;
  Status SetMsr(uint32_t msr, uint64_t value);

  // kvm_set_cpuid: after the vCPU has run only what changes nothing is taken. Gives the status; the
  // caller replaces the features where they change.
  Status SetCpuid(bool changes) const;

  // kvm_arch_vcpu_ioctl_run with immediate_exit: swaps in and out and returns.
  Status RunImmediate() const { return Status::Error(EINTR); }

  // kvm_vcpu_reset(vcpu, true): INIT.
  void Init();

  // The state has been taken out by GETs and put into a fresh vCPU by SETs.
  void Migrate();
};

}  // namespace fpswap::kvm
