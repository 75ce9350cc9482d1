// SPDX-License-Identifier: GPL-2.0-or-later
//
// What KVM_GET_XSAVE(2), KVM_GET_FPU and KVM_GET_XCRS must show of a vCPU (law 2: what the guest
// would see). Where more than one answer is right, the one that was seen is taken if it is
// possible, so that the caller has to compare bytes only.
//
// Thread safety: pure but for the Vcpu given.
#pragma once

#include <cstdint>
#include <span>

#include "oracle/kvm/vcpu.h"

namespace fpswap::kvm {

// Writes to `out` (host->image_size bytes) the possible image nearest to `seen`, which may be empty
// (then the simplest). What is settled by looking (the x87 pointers; that what IA32_XFD disables is
// gone) becomes part of `vcpu`.
//
// Left open, and so taken from `seen`:
//   * XSTATE_BV[i] of a component that holds its initial value (SDM 13.6), or that IA32_XFD
//   disables;
//   * MXCSR_MASK, which is no state: the host's, 0, or that of the last image set;
//   * bytes 464-483, xstate_fx_sw_bytes: the kernel's own;
//   * a component that was set and not changed since: its bytes as given, not as normalised.
void ExpectXsave(Vcpu& vcpu, std::span<const uint8_t> seen, std::span<uint8_t> out);

// The same for struct kvm_fpu (kFpuSize bytes).
void ExpectFpu(Vcpu& vcpu, std::span<const uint8_t> seen, std::span<uint8_t> out);

// struct kvm_xcrs with its one entry: nr_xcrs, flags, then (xcr, reserved, value).
inline constexpr uint32_t kXcrsSize = 392;
void ExpectXcrs(const Vcpu& vcpu, std::span<uint8_t> out);

}  // namespace fpswap::kvm
