// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle/kvm/vcpu.h"

#include <algorithm>
#include <cstring>

#include "oracle/xstate/image.h"

namespace fpswap::kvm {
namespace {

using xstate::Bit;
using xstate::ReadAt;

constexpr uint64_t kAllComponents = (uint64_t{1} << xstate::kComponentCount) - 1;
constexpr uint32_t kMxcsrInitial = 0x1f80;
constexpr uint32_t kMxcsrAt = 24;
constexpr uint32_t kMaxXcrs = 16;  // KVM_MAX_XCRS

// The components that IA32_XFD can disable in this guest (kvm_guest_supported_xfd).
uint64_t XfdBits(const cpu::Features& features) {
  uint64_t bits = 0;
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    if (features.xsave.sub[i].xfd && ((features.xsave.xcr0 >> i) & 1) != 0) {
      bits |= uint64_t{1} << i;
    }
  }
  return bits;
}

// validate_user_xstate_header and the MXCSR check of copy_uabi_to_xstate.
bool ImageIsValid(const Vcpu& vcpu, std::span<const uint8_t> image, uint64_t bv) {
  const Host& host = *vcpu.host;
  if ((bv & ~host.supported) != 0 || (bv & ~vcpu.UserFeatures()) != 0) return false;
  for (uint32_t at = 8; at < xstate::kHeaderSize; at += 8) {
    if (ReadAt<uint64_t>(image, xstate::kHeaderOffset + at) != 0) return false;
  }
  const bool needs_mxcsr = (bv & (xstate::kX87Sse | Component::kAvx)) != 0;
  return !needs_mxcsr || (ReadAt<uint32_t>(image, kMxcsrAt) & ~host.mxcsr_mask) == 0;
}

}  // namespace

void CopyFpuX87(std::span<const uint8_t> fpu, std::span<uint8_t> legacy) {
  std::memcpy(legacy.data() + 32, fpu.data(), 128);
  std::memcpy(legacy.data(), fpu.data() + 128, 24);
}

void CopyFpuXmm(std::span<const uint8_t> fpu, std::span<uint8_t> legacy) {
  std::memcpy(legacy.data() + 160, fpu.data() + 152, 256);
}

RawImage& RawImage::operator=(const RawImage& other) {
  if (this == &other) return *this;
  components = other.components;
  mask = other.mask;
  if (components != 0 || mask) bytes = other.bytes;
  return *this;
}

uint64_t Vcpu::GuestComponents() const {
  return ((cpu.features->xsave.xcr0 & UserFeatures()) | xstate::kX87Sse) & kAllComponents;
}

uint32_t Vcpu::ImageSize() const {
  return enabled_dynamic == host->dynamic ? host->image_size : kGetXsaveSize;
}

Status Vcpu::GetXsaveStatus() const {
  return ImageSize() > kGetXsaveSize ? Status::Error(EINVAL) : Status{};
}

Status Vcpu::SetXsave(std::span<const uint8_t> image) {
  // "XSTATE_BV[i] must still be cleared whenever XFD[i]=1, or XRSTOR would cause a #NM."
  const uint64_t bv = ReadAt<uint64_t>(image, xstate::kHeaderOffset) & ~cpu.xfd;
  if (!ImageIsValid(*this, image, bv)) return Status::Error(EINVAL);

  if ((bv & Bit(Component::kX87)) != 0) {
    cpu.LoadX87(image, /*wide=*/true);
  } else {
    cpu.Initialise(Component::kX87);
  }
  if ((bv & Bit(Component::kSse)) != 0) {
    cpu.LoadXmm(image);
  } else {
    cpu.Initialise(Component::kSse);
  }
  // MXCSR where SSE is absent: XRSTOR from a compacted fpstate initialises it (SDM 13.8.2); from a
  // standard one it always comes from memory (13.8.1), where copy_uabi_to_xstate has put the
  // image's if x87, SSE or AVX was there, and the last save's is left otherwise.
  const bool taken = (bv & (xstate::kX87Sse | Component::kAvx)) != 0;
  if ((bv & Bit(Component::kSse)) != 0 || (!host->compacted && taken)) {
    cpu.SetMxcsr(ReadAt<uint32_t>(image, kMxcsrAt));
  } else if (host->compacted) {
    cpu.SetMxcsr(kMxcsrInitial);
  }
  // What the guest's CPUID lacks is taken as well, and shown once another CPUID has it.
  const uint64_t taken_from_image = UserFeatures() & host->supported;
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    const auto c = static_cast<Component>(i);
    if ((taken_from_image & Bit(c)) == 0) continue;
    const auto& sub = host->xsave.sub[i];
    const auto bytes = xstate::Slice(image, sub.offset, sub.size);
    if ((bv & Bit(c)) != 0 && !bytes.empty()) {
      cpu.LoadComponent(c, bytes);
    } else if (c != Component::kPkru) {  // "vpkru = NULL": PKRU is left alone
      cpu.Initialise(c);
    }
  }
  raw.components = bv;
  raw.mask = raw.mask || taken;
  std::memcpy(raw.bytes.data(), image.data(), std::min(image.size(), raw.bytes.size()));
  return {};
}

// struct kvm_fpu: st_space, then the 24 bytes that begin the legacy region, then xmm_space. As with
// an image, what was given may be shown as it was until it has been through the registers.
void Vcpu::SetFpuX87(std::span<const uint8_t> fpu) {
  CopyFpuX87(fpu, raw.bytes);
  raw.bytes[5] = 0;  // the byte behind the tags is not taken
  cpu.LoadX87(raw.bytes, /*wide=*/true);
  raw.components |= Bit(Component::kX87);
}

void Vcpu::SetFpuXmm(std::span<const uint8_t> fpu) {
  CopyFpuXmm(fpu, raw.bytes);
  cpu.LoadXmm(raw.bytes);
  raw.components |= Bit(Component::kSse);
}

Status Vcpu::SetXcrs(uint32_t count, std::span<const Xcr> entries, uint32_t flags) {
  if (count > kMaxXcrs || flags != 0) return Status::Error(EINVAL);
  for (const Xcr& entry : entries.first(std::min<size_t>(count, entries.size()))) {
    if (entry.xcr != 0) continue;  // "Only support XCR0 currently"
    if (!cpu::Cpu::XcrValueValid(*cpu.features, entry.value)) return Status::Error(EINVAL);
    cpu.xcr0 = entry.value;
    break;  // the first one for XCR0 counts
  }
  return {};
}

Status Vcpu::GetMsr(uint32_t msr, uint64_t* value) const {
  if (cpu::Cpu::HasCetMsr(*cpu.features, msr)) {
    *value = *cpu.CetRegister(msr);
    return {1, 0};
  }
  switch (msr) {
    case cpu::Cpu::kMsrXss:
      *value = cpu.xss;
      return {1, 0};
    case cpu::Cpu::kMsrXfd:
      *value = cpu.xfd;
      return {1, 0};
    case cpu::Cpu::kMsrXfdErr:
      *value = cpu.xfd_err;
      return {1, 0};
    default:
      // A guest without CET: the call may know the MSR and show 0.
      *value = 0;
      return {cpu.CetRegister(msr) != nullptr ? 1 : 0, 0};
  }
}

Status Vcpu::SetMsr(uint32_t msr, uint64_t value) {
  // CET's: host_initiated passes over nothing (kvm_is_valid_u_s_cet, is_noncanonical_msr_address).
  if (cpu::Cpu::HasCetMsr(*cpu.features, msr)) {
    if (!cpu::Cpu::CetMsrValid(*cpu.features, msr, value)) return {0, 0};
    *cpu.CetRegister(msr) = value;
    return {1, 0};
  }
  // kvm_set_msr_common: host_initiated passes over the guest's CPUID bit, but not over the values.
  switch (msr) {
    case cpu::Cpu::kMsrXss:
      if ((value & ~cpu.features->xsave.xss) != 0) return {0, 0};
      cpu.xss = value;
      return {1, 0};
    case cpu::Cpu::kMsrXfd:
      if ((value & ~XfdBits(*cpu.features)) != 0) return {0, 0};
      cpu.xfd = value;
      return {1, 0};
    case cpu::Cpu::kMsrXfdErr:
      if ((value & ~XfdBits(*cpu.features)) != 0) return {0, 0};
      cpu.xfd_err = value;
      return {1, 0};
    default:
      return {cpu.CetRegister(msr) != nullptr && value == 0 ? 1 : 0, 0};
  }
}

Status Vcpu::SetCpuid(bool changes) const {
  return has_run && changes ? Status::Error(EINVAL) : Status{};
}

void Vcpu::Init() {
  // "kvm_mpx_supported()": fpstate_clear_xstate_component of both; all else survives INIT.
  if ((host->supported & xstate::kMpx) == xstate::kMpx) {
    cpu.Initialise(Component::kBndregs);
    cpu.Initialise(Component::kBndcsr);
  }
  // kvm_xstate_reset and vmx_vcpu_reset of 6.18, the first that offers CET to guests.
  if (cpu.features->cet_ss || cpu.features->cet_ibt) {
    cpu.Initialise(Component::kCetU);
    cpu.Initialise(Component::kCetS);
    cpu.s_cet = 0;
  }
  cpu.xrstor_info.valid = false;
}

void Vcpu::LoseFpstate() {
  uint64_t lost = UserFeatures() & ~Bit(Component::kPkru);
  if (cpu.features->cet_ss || cpu.features->cet_ibt) {
    lost |= Bit(Component::kCetU) | Bit(Component::kCetS);
  }
  for (; lost != 0; lost &= lost - 1) {
    cpu.Initialise(static_cast<Component>(std::countr_zero(lost)));
  }
  cpu.regs.mxcsr = cpu::kInitialMxcsr;
  cpu.xrstor_info.valid = false;
  raw.components = 0;
  raw.mask = false;
}

void Vcpu::Migrate() {
  // The uABI image is made with the REX.W forms: FCS and FDS do not travel.
  cpu.regs.x87.fcs = cpu.regs.x87.fds = 0;
  cpu.xrstor_info.valid = false;
  has_run = false;
  // `raw` stays: bytes that no CPU has loaded yet travel as they were given.
}

}  // namespace fpswap::kvm
