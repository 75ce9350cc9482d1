// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/trim.h"

#include <algorithm>
#include <string_view>

#include "harness/plan/plan.h"
#include "harness/plan/vmm.h"
#include "harness/program/text.h"
#include "oracle/xstate/component.h"
#include "oracle/xstate/layout.h"

namespace fpswap::plan {
namespace {

using program::Needs;
using program::Op;
using program::Program;
using program::Step;
using program::StepRow;
using trace::Platform;
using xstate::Bit;
using xstate::Component;

constexpr uint64_t kPkruKey0 = 3;  // AD and WD of protection key 0

bool IsNative(const Platform& platform) { return platform.target == "native"; }

// The largest part of `mask` that XSETBV accepts (SDM vol. 1, 13.3).
uint64_t Consistent(uint64_t mask) {
  mask |= Bit(Component::kX87);
  const auto all_or_none = [&mask](uint64_t bits) {
    if ((mask & bits) != bits) mask &= ~bits;
  };
  if ((mask & Bit(Component::kSse)) == 0) mask &= ~Bit(Component::kAvx);
  if ((mask & Bit(Component::kAvx)) == 0) mask &= ~xstate::kAvx512;
  all_or_none(xstate::kMpx);
  all_or_none(xstate::kAvx512);
  all_or_none(xstate::kAmx);
  return mask;
}

std::string_view NameOf(Needs needs) {
  switch (needs) {
    case Needs::kBase:
      return "x86-64";
    case Needs::kXsave:
      return "XSAVE";
    case Needs::kXsaveopt:
      return "XSAVEOPT";
    case Needs::kXsavec:
      return "XSAVEC";
    case Needs::kXsaves:
      return "XSAVES";
    case Needs::kAvx:
      return "AVX";
    case Needs::kAvx2:
      return "AVX2";
    case Needs::kAvx512f:
      return "AVX512F";
    case Needs::kAvx512vl:
      return "AVX512VL";
    case Needs::kAvx512bw:
      return "AVX512BW";
    case Needs::kMpx:
      return "MPX";
    case Needs::kPku:
      return "PKU";
    case Needs::kAmxTile:
      return "AMX-TILE";
    case Needs::kAmxInt8:
      return "AMX-INT8";
  }
  return "";
}

bool IsAmx(Needs needs) { return needs == Needs::kAmxTile || needs == Needs::kAmxInt8; }

std::string WhyTargetCannot(const StepRow& row, const Platform& platform) {
  const auto op = static_cast<uint8_t>(row.op);
  const auto hit = std::ranges::find(platform.cannot, op, &std::pair<uint8_t, std::string>::first);
  if (hit != platform.cannot.end()) return hit->second;
  return "the target " + platform.target + " does not run " + std::string(row.name);
}

}  // namespace

bool Has(const cpu::Features& f, Needs needs) {
  switch (needs) {
    case Needs::kBase:
      return true;
    case Needs::kXsave:
      return f.xsave.xcr0 != 0;
    case Needs::kXsaveopt:
      return f.xsave.xsaveopt;
    case Needs::kXsavec:
      return f.xsave.xsavec;
    case Needs::kXsaves:
      return f.xsave.xsaves;
    case Needs::kAvx:
      return f.avx;
    case Needs::kAvx2:
      return f.avx2;
    case Needs::kAvx512f:
      return f.avx512f;
    case Needs::kAvx512vl:
      return f.avx512f && f.avx512vl;
    case Needs::kAvx512bw:
      return f.avx512f && f.avx512bw;
    case Needs::kMpx:
      return f.mpx;
    case Needs::kPku:
      return f.pku;
    case Needs::kAmxTile:
      return f.amx_tile && (f.xsave.xcr0 & xstate::kAmx) == xstate::kAmx;
    case Needs::kAmxInt8:
      return f.amx_int8 && Has(f, Needs::kAmxTile);
  }
  return false;
}

bool CanRun(const program::StepRow& row, const Platform& platform) {
  return platform.can.test(static_cast<uint8_t>(row.op)) && Has(platform.guest, row.needs);
}

Program LimitSetUp(const Program& program, const Platform& platform) {
  const uint64_t guest = platform.guest.xsave.xcr0;
  Program out;
  out.vcpus = static_cast<uint8_t>(
      std::clamp<uint32_t>(program.vcpus, 1, std::max<uint32_t>(platform.vcpus, 1)));
  out.own_vm = program.own_vm && out.vcpus > 1;
  out.own_thread = program.own_thread && out.vcpus > 1;
  if (IsNative(platform)) {
    // Nothing to choose: XCR0 and CR4 are the kernel's.
    out.features = guest;
    out.xcr0 = platform.host_xcr0;
    out.pke = platform.guest.pku && (out.xcr0 & Bit(Component::kPkru)) != 0;
    return out;
  }
  out.features = platform.guest_fixed ? guest : Consistent(program.features & guest);
  out.xcr0 = Consistent(program.xcr0 & out.features);
  out.pke = program.pke && platform.guest.pku && (out.features & Bit(Component::kPkru)) != 0;
  return out;
}

std::optional<std::string> WhySetUpChanged(const Program& program, const Program& taken,
                                           const Platform& platform) {
  if (IsNative(platform)) return std::nullopt;
  const auto changed = [&](const char* line, uint64_t given, uint64_t mask) {
    given = (given & platform.guest.xsave.xcr0) | Bit(Component::kX87);
    if (given == mask) return std::optional<std::string>();
    return std::optional(line + program::PrintMask(mask) + ": " + program::PrintMask(given) +
                         " is no value that XSETBV takes there");
  };
  if (!platform.guest_fixed) {
    auto reason = changed("features become ", program.features, taken.features);
    if (reason) return reason;
  }
  if (program.xcr0 == Program().xcr0) return std::nullopt;  // all that there is
  return changed("XCR0 begins as ", program.xcr0, taken.xcr0);
}

std::optional<std::string> WhyTrimmed(const Step& step, const StepRow& row,
                                      const Platform& platform) {
  if (!platform.can[static_cast<uint8_t>(row.op)]) return WhyTargetCannot(row, platform);
  if (!Has(platform.guest, row.needs)) {
    std::string reason = "the guest's CPU has no " + std::string(NameOf(row.needs));
    // The host has it: then it is KVM or the kernel that doesn't give it.
    if (IsAmx(row.needs) && Has(platform.host, row.needs)) {
      if ((platform.host_xcr0 & platform.guest_supp & xstate::kAmx) != xstate::kAmx) {
        reason += ": this KVM has no tiles for guests (KVM_X86_XCOMP_GUEST_SUPP)";
      } else if ((platform.guest_perm & xstate::kAmx) != xstate::kAmx) {
        reason += ": no permission for tiles (ARCH_REQ_XCOMP_GUEST_PERM)";
      }
    }
    return reason;
  }
  if (step.vcpu >= std::max<uint32_t>(platform.vcpus, 1)) {
    return "the target " + platform.target + " has no vCPU " + std::to_string(step.vcpu);
  }
  if (IsNative(platform) && step.op == Op::kWrpkru && (step.arg[0] & kPkruKey0) != 0) {
    return "on native, a PKRU that denies key 0 would take the runner's own memory away";
  }
  return std::nullopt;
}

HostSparer::HostSparer(const Platform& platform)
    : xfd_over_tiles_(platform.spare_host && platform.HasVmm() && platform.host.xsave.xfd) {}

std::optional<std::string> HostSparer::WhyNot(const Step& step) const {
  if (!xfd_over_tiles_ || !tiles_[step.vcpu % program::kMaxVcpus]) return std::nullopt;
  const MsrList msrs = MsrsOf(step);
  const bool disables = std::ranges::any_of(msrs.Entries(), [](const MsrEntry& e) {
    return e.msr == program::Msr::kXfd && (e.value & Bit(Component::kTiledata)) != 0;
  });
  if (!disables) return std::nullopt;
  return "would take this host down: corpus/known/kvm-set-msr-xfd-host-nm (a lab runs it, as does "
         "--endanger-host)";
}

void HostSparer::Note(const Step& step) {
  bool& tiles = tiles_[step.vcpu % program::kMaxVcpus];
  switch (step.op) {
    case Op::kLdtilecfg:  // tiles of zeros may count as in use (SDM vol. 1, 13.6)
    case Op::kTileloadd:
    case Op::kTilezero:
    case Op::kTdpbssd:
    case Op::kTdpbsud:
    case Op::kTdpbusd:
    case Op::kTdpbuud:
    case Op::kSetXsave:
    case Op::kMigrate:
    case Op::kRaw:
      tiles = true;
      break;
    case Op::kXrstor:
    case Op::kXrstors:
      tiles = tiles || (step.arg[2] & Bit(Component::kTiledata)) != 0;
      break;
    default:
      break;
  }
}

void Confine(Step& step, const Platform& platform) {
  switch (step.op) {
    case Op::kMemFill:
      step.arg[2] = std::min(step.arg[2], kSlotSize - step.arg[1]);
      break;
    case Op::kImageWrite:
      step.arg[1] = std::min<uint64_t>(step.arg[1], xstate::kMaxAreaSize - 8);
      break;
    case Op::kImageFill:
      step.arg[2] = std::min(step.arg[2], xstate::kMaxAreaSize - step.arg[1]);
      break;
    case Op::kXrstor:
      // An image in a slot may hold any PKRU, also one that denies key 0.
      if (IsNative(platform) && (platform.host_xcr0 & Bit(Component::kPkru)) != 0) {
        step.arg[2] &= ~Bit(Component::kPkru);
      }
      break;
    default:
      break;
  }
}

}  // namespace fpswap::plan
