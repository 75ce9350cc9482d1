// SPDX-License-Identifier: GPL-2.0-or-later
//
// A thread's user state as Linux shows and takes it: ptrace's regset NT_X86_XSTATE, and the XSAVE
// image in the frame of a signal. Each rule names the kernel function it was read in (6.18:
// arch/x86/kernel/fpu/{regset,signal,xstate,core}.c).
//
// The thread is a kvm::Vcpu because the kernel's uABI copy is the same code for both; its host says
// which components the thread may have (fpstate->user_xfeatures). Images have ImageSize bytes in
// standard format; what sigreturn is given may be in either.
//
// Thread safety: pure but for the Vcpu given.
#pragma once

#include <cstdint>
#include <span>

#include "oracle/kvm/vcpu.h"

namespace fpswap::os {

// struct _fpx_sw_bytes of a frame's image (asm/sigcontext.h): where it lies, and its fields.
inline constexpr uint32_t kSwAt = 464, kSwSize = 48;
inline constexpr uint32_t kSwMagic1 = 464, kSwExtendedSize = 468, kSwXfeatures = 472,
                          kSwXstateSize = 480;
inline constexpr uint32_t kMagic1 = 0x46505853;  // FP_XSTATE_MAGIC1
inline constexpr uint32_t kMagic2 = 0x46505845;  // FP_XSTATE_MAGIC2: 4 bytes behind the image

// Bytes of NT_X86_XSTATE (fpu_user_cfg.max_size) and of a frame's image (fpstate->user_size): the
// same where the process may use every component the kernel does.
uint32_t ImageSize(const kvm::Host& host);

// What PTRACE_GETREGSET must show (xstateregs_get, copy_xstate_to_uabi_buf): as KVM's image, but
// for bytes 464-511, which hold the kernel's XCR0 and zeros (xstate_fx_sw_bytes; asm/user.h). See
// kvm::ExpectXsave for what is left open, and so taken from `seen`.
void ExpectRegset(kvm::Vcpu& thread, std::span<const uint8_t> seen, std::span<uint8_t> out);

// PTRACE_SETREGSET (xstateregs_set, copy_uabi_from_kernel_to_xstate): EINVAL as KVM_SET_XSAVE. A
// PKRU that is absent becomes 0, where KVM leaves its guest's alone. The next GETREGSET may show
// what was set as it was given: XSAVES leaves out what is unmodified since the kernel's XRSTORS
// from the same fpstate (SDM vol. 1, 13.11; seen on family 19h with FIP and FDP, which its
// registers don't keep).
kvm::Status SetRegset(kvm::Vcpu& thread, std::span<const uint8_t> image);

// The image in a signal's frame (copy_fpstate_to_sigframe): XSAVE64 of all the thread's components
// over a cleared header, but for tiles that are not in use (xfeatures_need_sigframe_write); then
// XSTATE_BV[1:0] set and _fpx_sw_bytes written (save_xstate_epilog). Left open: XSTATE_BV[i] of a
// component that holds its initial value, and bytes that no instruction and no rule writes
// (reserved, gaps of the layout), which are the stack's.
void ExpectSigframe(kvm::Vcpu& thread, std::span<const uint8_t> seen, std::span<uint8_t> out);

// rt_sigreturn from a frame that holds `image`, with kMagic2 behind it (fpu__restore_sig).
//   * check_xstate_in_sigframe: unless magic1 is right, xstate_size is in 576..ImageSize and not
//     over extended_size, and kMagic2 lies at xstate_size, the image counts as FXSAVE's alone.
//   * restore_fpregs_from_user: XRSTOR64 (standard or compacted) of sw_bytes.xfeatures, or
//     FXRSTOR64, straight from the frame; components that were not asked for become initial.
//   * If that faults, all user components become initial, PKRU its default for new processes
//     (fpu__clear_user_states), and the thread gets SIGSEGV: EFAULT here.
kvm::Status Sigreturn(kvm::Vcpu& thread, std::span<const uint8_t> image);

}  // namespace fpswap::os
