// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/world.h"

#include <algorithm>

#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using xstate::Bit;
using xstate::Component;

// What a default-made World refers to until it is reset.
const cpu::Features kNoFeatures{};
const kvm::Host kNoHost{};

// Flags of cpu::Features that need components.
struct FlagRow {
  bool cpu::Features::* flag;
  uint64_t needs;
};
constexpr uint64_t kAvx = xstate::kX87Sse | Bit(Component::kAvx);
constexpr FlagRow kFlags[] = {
    {&cpu::Features::avx, kAvx},
    {&cpu::Features::avx2, kAvx},
    {&cpu::Features::fma, kAvx},
    {&cpu::Features::avx512f, kAvx | xstate::kAvx512},
    {&cpu::Features::avx512bw, kAvx | xstate::kAvx512},
    {&cpu::Features::avx512dq, kAvx | xstate::kAvx512},
    {&cpu::Features::avx512vl, kAvx | xstate::kAvx512},
    {&cpu::Features::mpx, xstate::kMpx},
    {&cpu::Features::pku, Bit(Component::kPkru)},
    {&cpu::Features::amx_tile, xstate::kAmx},
    {&cpu::Features::amx_int8, xstate::kAmx},
    {&cpu::Features::amx_bf16, xstate::kAmx},
};

void ResetCpu(const plan::Plan& plan, const cpu::Features& features, cpu::Cpu& cpu) {
  cpu.features = &features;
  // Not value-initialised: that would clear tile memory which nothing reads.
  static const cpu::Registers kInitial = [] {
    cpu::Registers regs;
    return regs;
  }();
  cpu.regs = kInitial;
  cpu.xcr0 = plan.xcr0;
  cpu.xss = cpu.xfd = cpu.xfd_err = cpu.s_cet = 0;
  cpu.amx_heeds_ts.reset();
  cpu.vex_clears_disabled_zmm.reset();
  cpu.cr0_ts = false;
  cpu.cr4_osxsave = cpu.cr4_osfxsr = cpu.cr4_osxmmexcpt = true;
  cpu.cr4_pke = plan.effective.pke && features.pku;
  cpu.cpl = 3;
  cpu.xrstor_info = {};
  cpu.unknown = 0;
}

}  // namespace

kvm::Host HostOf(const trace::Platform& platform) {
  kvm::Host host;
  host.xsave = platform.host.xsave;
  host.supported = platform.guest_supp | xstate::kX87Sse;
  for (unsigned i = 0; i < xstate::kComponentCount; ++i) {
    if (platform.host.xsave.sub[i].xfd) host.dynamic |= uint64_t{1} << i;
  }
  host.dynamic &= platform.host_xcr0;
  // fpu_user_cfg.default_features
  host.user_features = (platform.host_xcr0 | xstate::kX87Sse) & ~host.dynamic;
  // The native agent's thread has used them before its first program (LoadTilesOnce).
  if (!platform.HasVmm()) host.user_features |= host.dynamic & platform.guest.xsave.xcr0;
  host.mxcsr_mask = platform.host.mxcsr_mask;
  host.image_size = std::clamp(platform.xsave_size, kvm::kGetXsaveSize, kvm::kMaxImage);
  host.compacted = platform.compacted;
  return host;
}

World::World()
    : vcpu{kvm::Vcpu(kNoFeatures, kNoHost), kvm::Vcpu(kNoFeatures, kNoHost),
           kvm::Vcpu(kNoFeatures, kNoHost), kvm::Vcpu(kNoFeatures, kNoHost)} {}

World& World::operator=(const World& other) {
  for (unsigned i = 0; i < other.vcpus; ++i) vcpu[i] = other.vcpu[i];
  // Slots of VMs that a world has not are zeros, and stay so.
  const unsigned vms = std::max(own_vm ? vcpus : 1, other.own_vm ? other.vcpus : 1);
  for (unsigned i = 0; i < vms; ++i) slot[i] = other.slot[i];
  own_vm = other.own_vm;
  vcpus = other.vcpus;
  image = other.image;
  source = other.source;
  kvm_xcr0 = other.kvm_xcr0;
  xfd_before = other.xfd_before;
  held_under_xfd = other.held_under_xfd;
  return *this;
}

void World::Reset(const plan::Plan& plan, const cpu::Features& features, const kvm::Host& host) {
  for (unsigned i = 0; i < (own_vm ? vcpus : 1); ++i) {
    for (auto& memory : slot[i]) memory.Clear();
  }
  own_vm = plan.effective.own_vm;
  vcpus = std::clamp<unsigned>(plan.effective.vcpus, 1, program::kMaxVcpus);
  for (unsigned i = 0; i < vcpus; ++i) {
    ResetCpu(plan, features, vcpu[i].cpu);
    vcpu[i].host = &host;
    vcpu[i].has_run = false;
    vcpu[i].enabled_dynamic = 0;
    vcpu[i].GrowFor(features);
    vcpu[i].raw.components = 0;
    vcpu[i].raw.mask = false;
  }
  held_under_xfd.fill(0);
  for (auto& memory : image) MakeInitialImage(memory);
  source = {};
  kvm_xcr0.fill(plan.xcr0);
}

void MakeInitialImage(Memory<xstate::kMaxAreaSize>& image) {
  image.Clear();
  xstate::WriteAt(image.Write(0, 2), 0, uint16_t{0x37f});
  xstate::WriteAt(image.Write(24, 4), 0, cpu::kInitialMxcsr);
}

cpu::Features LimitFeatures(const cpu::Features& all, uint64_t mask) {
  cpu::Features out = all;
  out.xsave.xcr0 &= mask | xstate::kX87Sse;
  for (const FlagRow& row : kFlags) {
    if ((out.xsave.xcr0 & row.needs) != row.needs) out.*row.flag = false;
  }
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    auto& sub = out.xsave.sub[i];
    if (((out.xsave.xcr0 >> i) & 1) == 0 && !sub.supervisor) sub = {};
  }
  out.xsave.max_size = xstate::StandardSize(out.xsave, out.xsave.xcr0);
  return out;
}

}  // namespace fpswap::judge
