// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/start.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "kvm-runner/kvm_api.h"
#include "kvm-runner/msrs.h"
#include "oracle/xstate/layout.h"

namespace fpswap::kvm {
namespace {

using program::Op;

// What a vCPU does not forget, and what takes it back. A step that is not listed leaves kStaleFpu
// alone, which every program may. `spoils`: nothing takes it back:
//   the guest's CPUID is fixed once it has run.
// Raw code runs at CPL 3 only, so it changes no MSR or CR.
// Writes of IA32_XFD (they change what VMX intercepts for good) are the plan's spoils_vcpu.
struct StaleRow {
  Op op;
  unsigned stale;
  bool spoils;
};
constexpr StaleRow kStaleRows[] = {
    {Op::kXsetbv, kStaleXcr0, false},
    {Op::kSetXcrs, kStaleXcr0, false},
    {Op::kSetXcrsList, kStaleXcr0, false},
    {Op::kWrmsr, kStaleMsrs, false},
    {Op::kSetMsr, kStaleMsrs, false},
    {Op::kSetMsrList, kStaleMsrs, false},
    {Op::kXrstors, kStaleMsrs, false},  // CET state, which no image of KVM_SET_XSAVE holds
    {Op::kCr0Ts, kStaleSregs, false},
    {Op::kCr4Bit, kStaleSregs, false},
    {Op::kInit, kStaleAll, false},
    {Op::kMigrate, kStaleAll, false},
    {Op::kRaw, kStaleSregs | kStaleEvents, false},
    {Op::kSetCpuid, kStaleAll, true},
};

bool HasStep(const wire::PlanView& plan, Op op) {
  return std::ranges::any_of(plan.steps, [op](const program::Step& s) { return s.op == op; });
}

std::expected<void, std::string> SetImage(const Host& host, Vcpu& vcpu, uint64_t xstate_bv) {
  alignas(64) static std::array<uint8_t, xstate::kMaxAreaSize + 4096> image;
  const std::span<uint8_t> bytes = std::span(image).first(std::max(host.xsave_size, 4096u));
  InitialImage(bytes);
  // Not state, but the kernel keeps what it is given, and later shows it: as the CPU would store
  // it.
  std::memcpy(&bytes[28], &host.mxcsr_mask, sizeof(host.mxcsr_mask));
  std::memcpy(&bytes[xstate::kHeaderOffset], &xstate_bv, sizeof(xstate_bv));
  if (kvm_set_xsave(vcpu.fd.get(), bytes.data()) != 0) {
    return std::unexpected(Failure("KVM_SET_XSAVE of the initial image"));
  }
  return {};
}

// Two calls: the first brings initial bytes into every component of the kernel's buffer, the second
// makes every component initial, XSTATE_BV and all, as in a fresh vCPU. An image without a
// component leaves its bytes in the buffer (copy_uabi_to_xstate), where an earlier program's could
// be seen: MXCSR by a GET of a state with AVX but no SSE; x87 and XMM by KVM_GET_FPU, which does
// not ask XSTATE_BV; any by a CPU whose XSAVES sets an XSTATE_BV bit and leaves the component out
// as unmodified (seen of AVX on Zen 4; AMD erratum 1386 is alike). PKRU has no other way to become
// 0.
std::expected<void, std::string> ResetFpu(const Host& host, Vcpu& vcpu) {
  const uint64_t components = (vcpu.features & host.guest_components) | xstate::kX87Sse;
  if (auto set = SetImage(host, vcpu, components); !set) return set;
  return SetImage(host, vcpu, 0);
}

std::expected<void, std::string> ResetSregs(const Host& host, const wire::PlanView& plan,
                                            Vcpu& vcpu) {
  const bool pke = plan.pke && host.guest_pku && (vcpu.features & 0x200) != 0;
  const uint64_t cr4 = kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave | (pke ? kCr4Pke : 0);
  kvm_sregs sregs = vcpu.sregs;
  MakeLongMode(sregs, vcpu.number, cr4);
  const bool same = vcpu.sregs_known && vcpu.cpl == 3 && (vcpu.stale & kStaleSregs) == 0 &&
                    sregs.cr4 == vcpu.sregs.cr4;
  if (same) return {};
  if (kvm_set_sregs(vcpu.fd.get(), &sregs) != 0) return std::unexpected(Failure("KVM_SET_SREGS"));
  vcpu.sregs = sregs;
  vcpu.sregs_known = true;
  vcpu.cpl = 3;
  return {};
}

std::expected<void, std::string> ResetXcr0(const Host& host, const wire::PlanView& plan,
                                           Vcpu& vcpu) {
  if (!host.xcrs || ((vcpu.stale & kStaleXcr0) == 0 && vcpu.xcr0 == plan.xcr0)) return {};
  kvm_xcrs xcrs{.nr_xcrs = 1};
  xcrs.xcrs[0].value = plan.xcr0;
  if (kvm_set_xcrs(vcpu.fd.get(), &xcrs) != 0) return std::unexpected(Failure("KVM_SET_XCRS"));
  vcpu.xcr0 = plan.xcr0;
  return {};
}

std::expected<void, std::string> ResetMsrs(const Host& host, Vcpu& vcpu) {
  if ((vcpu.stale & kStaleMsrs) == 0 || host.reset_msrs.empty()) return {};
  MsrTable msrs;
  for (const uint32_t index : host.reset_msrs) msrs.Add(index, 0);
  if (kvm_set_msrs(vcpu.fd.get(), &msrs) != static_cast<int>(msrs.nmsrs)) {
    return std::unexpected(Failure("KVM_SET_MSRS of XSS, XFD, XFD_ERR and the MSRs of CET"));
  }
  return {};
}

}  // namespace

std::expected<void, std::string> BringToStart(const Host& host, const wire::PlanView& plan,
                                              Vcpu& vcpu) {
  // XFD first: an image set while it is on loses components.
  if (auto done = ResetMsrs(host, vcpu); !done) return done;
  if (auto done = ResetSregs(host, plan, vcpu); !done) return done;
  if (auto done = ResetXcr0(host, plan, vcpu); !done) return done;
  if ((vcpu.stale & kStaleFpu) != 0) {
    if (auto done = ResetFpu(host, vcpu); !done) return done;
  }
  if ((vcpu.stale & kStaleEvents) != 0) {
    kvm_vcpu_events events{};
    if (kvm_set_vcpu_events(vcpu.fd.get(), &events) != 0) {
      return std::unexpected(Failure("KVM_SET_VCPU_EVENTS"));
    }
  }
  if ((vcpu.stale & kStaleMpState) != 0) {
    kvm_mp_state state{.mp_state = KVM_MP_STATE_RUNNABLE};
    if (kvm_set_mp_state(vcpu.fd.get(), &state) != 0) {
      return std::unexpected(Failure("KVM_SET_MP_STATE"));
    }
  }
  vcpu.stale = 0;
  return {};
}

unsigned StaleAfter(const wire::PlanView& plan) {
  unsigned stale = kStaleFpu;
  for (const auto& step : plan.steps) {
    for (const StaleRow& row : kStaleRows) {
      if (row.op == step.op) stale |= row.stale;
    }
  }
  return stale;
}

bool Spoils(const wire::PlanView& plan) {
  const auto spoils = [](const program::Step& step) {
    return std::ranges::any_of(
        kStaleRows, [&](const StaleRow& row) { return row.spoils && row.op == step.op; });
  };
  return plan.spoils_vcpu || std::ranges::any_of(plan.steps, spoils);
}

bool NeedsFresh(const wire::PlanView& plan) { return HasStep(plan, Op::kSetCpuid); }

bool NeedsApic(const wire::PlanView& plan) { return HasStep(plan, Op::kInit); }

bool NeedsMsrFilter(const wire::PlanView& plan) { return HasStep(plan, Op::kExitMsr); }

void InitialImage(std::span<uint8_t> image) {
  std::ranges::fill(image, uint8_t{0});
  constexpr uint16_t kFcw = 0x37f;
  constexpr uint32_t kMxcsr = 0x1f80;
  std::memcpy(image.data(), &kFcw, sizeof(kFcw));
  std::memcpy(&image[24], &kMxcsr, sizeof(kMxcsr));
}

}  // namespace fpswap::kvm
