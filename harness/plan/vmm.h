// SPDX-License-Identifier: GPL-2.0-or-later
//
// What VMM, host and system steps do exactly, where step.h leaves it open: read by the agents,
// which do it, and by the judge, which knows what was done. Standard library only.
//
// Every VMM step gives one IoctlRecord, followed on success by
//   kGetXsave          the image, 4096 bytes
//   kGetXsave2         the image, Platform::xsave_size bytes
//   kGetFpu, kGetXcrs  struct kvm_fpu, struct kvm_xcrs
//   kGetMsr(List)      a u64 for each MSR read; the result is their count: it ends at a refused one
//   kSetMsr(List)      nothing; the result is the count of MSRs written
//   kGetMpState        u32
//   kSetCpuid          u64 (0DH,0):EDX:EAX as KVM_GET_CPUID2 shows it afterwards; on failure too
//   kMigrate           the calls that failed, a MigrateFailure each; result -1 if there are any
//   kRunImmediate      nothing; the result is -1 and the error EINTR when all is well
//   kImage*            nothing, result 0
//   kInit              nothing; the VMM puts SREGS (so CR0 and CR4) and REGS back afterwards, and
//                      the program goes on with its next step
//   kOsGetRegset, kOsSigframe
//                      the image, Platform::xsave_size bytes
//   kOsSetRegset       nothing; the result is ptrace's
//   kOsSigreturn       nothing; result -1 and EFAULT if the kernel refused the frame with SIGSEGV,
//                      and the program goes on with its next step
// A refused GET leaves the image buffer as it was.
//
// Where there are protection keys, a thread that loses key 0 loses its own stack. So kOsSetRegset
// first clears bits 1:0 at PKRU's place of its image buffer, and kOsSigreturn bit 9 of its buffer's
// _fpx_sw_bytes.xfeatures. kOsSigreturn copies Platform::xsave_size bytes into the frame;
// FP_XSTATE_MAGIC2 behind them stays where the kernel wrote it.
//
// MMIO reads at kMmioBase + kMmioStride * step + n are answered with byte n of
// FillPattern(step + 2), RDMSR of kExitMsrIndex with the first 8 bytes of the same.
#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>

#include "harness/program/step.h"

namespace fpswap::plan {

inline constexpr uint64_t kMmioStride = 16;

// struct kvm_fpu (asm/kvm.h) without padding surprises.
inline constexpr size_t kFpuSize = 416;
inline constexpr size_t kFpuFcw = 128;
inline constexpr size_t kFpuMxcsr = 408;

// Op::kSetFpu: the whole struct from the pattern (so FSW, tags, FOP, FIP, FDP as well), then FCW
// and MXCSR. KVM passes over MXCSR: arch/x86/kvm/x86.c, kvm_arch_vcpu_ioctl_set_fpu.
inline void FillFpu(const program::Step& step, std::span<uint8_t, kFpuSize> out) {
  program::FillPattern(static_cast<uint16_t>(step.arg[0]), out);
  const auto fcw = static_cast<uint16_t>(step.arg[1]);
  const auto mxcsr = static_cast<uint32_t>(step.arg[2]);
  std::memcpy(&out[kFpuFcw], &fcw, sizeof(fcw));
  std::memcpy(&out[kFpuMxcsr], &mxcsr, sizeof(mxcsr));
}

// What KVM_SET_XCRS is given; entries behind the second are like it.
struct Xcr {
  uint32_t xcr;
  uint64_t value;
};
struct XcrList {
  uint32_t count, flags;
  Xcr entry[2];
};
inline XcrList XcrsOf(const program::Step& step) {
  const auto& arg = step.arg;
  if (step.op == program::Op::kSetXcrsList) {
    return {
        2, 0, {{static_cast<uint32_t>(arg[0]), arg[1]}, {static_cast<uint32_t>(arg[2]), arg[3]}}};
  }
  const Xcr all{static_cast<uint32_t>(arg[1]), arg[2]};
  return {static_cast<uint32_t>(arg[0]), static_cast<uint32_t>(arg[3]), {all, all}};
}

// The entries of KVM_GET_MSRS (whose values are nothing) and KVM_SET_MSRS.
struct MsrEntry {
  program::Msr msr;
  uint64_t value;
};
struct MsrList {
  unsigned count;
  MsrEntry entry[2];
  std::span<const MsrEntry> Entries() const& { return std::span(entry).first(count); }
  void Entries() && = delete;  // they are in this very list
};
inline bool SetsMsrs(program::Op op) {
  return op == program::Op::kSetMsr || op == program::Op::kSetMsrList;
}
inline MsrList MsrsOf(const program::Step& step) {
  using program::Msr, program::Op;
  const auto& arg = step.arg;
  const auto msr = [&](unsigned i) { return static_cast<Msr>(arg[i]); };
  switch (step.op) {
    case Op::kGetMsr:
      return {1, {{msr(0), 0}}};
    case Op::kSetMsr:
      return {1, {{msr(0), arg[1]}}};
    case Op::kGetMsrList:
      return {2, {{msr(0), 0}, {msr(1), 0}}};
    case Op::kSetMsrList:
      return {2, {{msr(0), arg[1]}, {msr(2), arg[3]}}};
    default:
      return {};
  }
}

// The calls a migration makes, in the words of <linux/kvm.h>.
enum class MigrateCall : uint8_t {
  kNone,
  kCreate,
  kCpuid,
  kRegs,
  kSregs,
  kXsave,
  kXcrs,
  kMsrs,
  kEvents,
  kMpState,
  kDebugregs
};

// Orders in which the state is put into the fresh vCPU: Op::kMigrate's argument modulo their
// number. KVM_SET_CPUID2 comes first in all. What matters is the order of XCRS, XSAVE and MSRs
// (IA32_XFD drops components of an image that is set after it).
struct MigrateOrder {
  const char* name;
  MigrateCall calls[10];
};
using enum MigrateCall;
inline constexpr MigrateOrder kMigrateOrders[] = {
    {"qemu: XSAVE, XCRS, MSRs",
     {kCpuid, kSregs, kRegs, kXsave, kXcrs, kMsrs, kEvents, kMpState, kDebugregs}},
    {"firecracker: XSAVE, XCRS, MSRs, events last",
     {kCpuid, kMpState, kRegs, kSregs, kXsave, kXcrs, kDebugregs, kMsrs, kEvents}},
    {"crosvm: XCRS, MSRs, XSAVE",
     {kCpuid, kRegs, kSregs, kDebugregs, kXcrs, kMsrs, kXsave, kEvents, kMpState}},
    {"selftests: MSRs, XCRS, XSAVE",
     {kCpuid, kSregs, kMsrs, kXcrs, kXsave, kEvents, kMpState, kDebugregs, kRegs}},
    {"XCRS, XSAVE, MSRs",
     {kCpuid, kSregs, kRegs, kXcrs, kXsave, kMsrs, kEvents, kMpState, kDebugregs}},
};
inline constexpr unsigned kMigrateOrderCount = std::size(kMigrateOrders);

struct MigrateFailure {
  uint8_t call;    // MigrateCall
  uint8_t saving;  // 1: the GET from the old vCPU, 0: the SET into the new one
  uint8_t vcpu;
  uint8_t pad;
  int32_t error;  // errno; 0 for MSRS that took fewer than given
};

}  // namespace fpswap::plan
