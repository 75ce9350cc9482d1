// SPDX-License-Identifier: GPL-2.0-or-later
//
// The step table: the only list of operations. To add a step, add an Op (step.h) and a row here;
// text form, byte form, validation, documentation and the generator's single steps follow.
//
// Thread safety: immutable after static initialisation, which is constant.
#include <algorithm>
#include <array>

#include "harness/program/step.h"
#include "oracle/xstate/component.h"

namespace fpswap::program {
namespace {

using xstate::Bit;
using xstate::Component;
using enum ArgKind;

constexpr uint64_t kX87 = Bit(Component::kX87);
constexpr uint64_t kSse = Bit(Component::kSse);
constexpr uint64_t kAvx = Bit(Component::kAvx);
constexpr uint64_t kLegacy = kX87 | kSse;
constexpr uint64_t kYmm = kSse | kAvx;
constexpr uint64_t kOpmask = Bit(Component::kOpmask);
constexpr uint64_t kZmm = kYmm | Bit(Component::kZmmHi256) | Bit(Component::kHi16Zmm);
constexpr uint64_t kBound = xstate::kMpx;
constexpr uint64_t kPkru = Bit(Component::kPkru);
constexpr uint64_t kUser = xstate::kX87Sse | kAvx | xstate::kMpx | xstate::kAvx512 | kPkru |
                           xstate::kAmx | Bit(Component::kApx);
constexpr uint64_t kSupervisor = Bit(Component::kCetU) | Bit(Component::kCetS);
constexpr uint64_t kAll = kUser | kSupervisor;
constexpr uint64_t kXfdAble = Bit(Component::kTiledata);
constexpr uint64_t kTilecfg = Bit(Component::kTilecfg);
constexpr uint64_t kTiledata = Bit(Component::kTiledata);
constexpr uint64_t kNothing = 0;
constexpr uint64_t kAllOnes = ~uint64_t{0};

using Args = std::array<ArgRow, kArgCount>;

// Argument rows that many steps share.
constexpr ArgRow kPatternArg{kPattern, "pattern", 2};
constexpr ArgRow kSlotArg{kSlot, "slot", 0};
constexpr ArgRow kAtArg{kAlign, "at", 0};
constexpr ArgRow kRfbmArg{kMask, "rfbm", kAllOnes};
constexpr ArgRow kWideArg{kBool, "wide", 0};
constexpr ArgRow kImageArg{kImage, "image", 0};
constexpr ArgRow kOffsetArg{kOffset, "offset", 0};
constexpr ArgRow kLengthArg{kLength, "length", 8};
constexpr ArgRow kMsrArg{kMsrName, "msr", 0};
constexpr ArgRow kWriteArg{kBool, "write", 0};
constexpr Args kNoArgs{};
constexpr Args kSaveArgs{kSlotArg, kAtArg, kRfbmArg, kWideArg};
constexpr Args kFxArgs{kSlotArg, kAtArg, kWideArg};
constexpr ArgRow kTileArg{kReg8, "tile", 0};
constexpr Args kTdpArgs{ArgRow{kReg8, "dst", 0}, ArgRow{kReg8, "a", 1}, ArgRow{kReg8, "b", 2}};

// What a row is beside its arguments, for guest steps: the journal's form.
constexpr auto kSilent = Journal::kNone;
constexpr auto kBytesOut = Journal::kBytes;
constexpr auto kArea = Journal::kArea;

// Rows of the two kinds of guest step, by the CPL they need.
constexpr StepRow User(Op op, std::string_view name, Args args, Needs needs, uint64_t components,
                       Journal journal, uint16_t bytes, uint8_t weight, std::string_view doc) {
  return {op, name, Actor::kGuest, args, false, journal, bytes, needs, components, weight, doc};
}
constexpr StepRow Privileged(Op op, std::string_view name, Args args, Needs needs,
                             uint64_t components, Journal journal, uint16_t bytes, uint8_t weight,
                             std::string_view doc) {
  return {op, name, Actor::kGuest, args, true, journal, bytes, needs, components, weight, doc};
}
constexpr StepRow Vmm(Op op, std::string_view name, Args args, uint64_t components, uint8_t weight,
                      std::string_view doc) {
  return {op, name,         Actor::kVmm, args,   false, Journal::kNone,
          0,  Needs::kBase, components,  weight, doc};
}
constexpr StepRow Host(Op op, std::string_view name, Args args, uint64_t components, uint8_t weight,
                       std::string_view doc) {
  return {op, name,         Actor::kHost, args,   false, Journal::kNone,
          0,  Needs::kBase, components,   weight, doc};
}

constexpr StepRow System(Op op, std::string_view name, uint8_t weight, std::string_view doc) {
  return {op, name,         Actor::kSystem, Args{kImageArg}, false, Journal::kNone,
          0,  Needs::kBase, kUser,          weight,          doc};
}

constexpr StepRow kSteps[] = {
    // x87 and MMX.
    User(Op::kFninit, "x87.fninit", kNoArgs, Needs::kBase, kX87, kSilent, 0, 20,
         "FNINIT: the x87 state becomes initial."),
    User(Op::kFnclex, "x87.fnclex", kNoArgs, Needs::kBase, kX87, kSilent, 0, 6,
         "FNCLEX: clears the exception flags of FSW."),
    User(Op::kFldcw, "x87.fldcw", Args{ArgRow{kU16, "value", 0x37f}}, Needs::kBase, kX87, kSilent,
         0, 16, "FLDCW: loads FCW."),
    User(Op::kFldTbyte, "x87.fld", Args{kPatternArg}, Needs::kBase, kX87, kSilent, 0, 40,
         "FLD m80: pushes 10 bytes of a pattern on the x87 stack."),
    User(Op::kFstpTbyte, "x87.fstp", kNoArgs, Needs::kBase, kX87, kBytesOut, 10, 16,
         "FSTP m80: pops ST(0)."),
    User(Op::kFxch, "x87.fxch", Args{ArgRow{kReg8, "i", 1}}, Needs::kBase, kX87, kSilent, 0, 8,
         "FXCH: exchanges ST(0) and ST(i)."),
    User(Op::kFchs, "x87.fchs", kNoArgs, Needs::kBase, kX87, kSilent, 0, 8,
         "FCHS: changes the sign of ST(0)."),
    User(Op::kFfree, "x87.ffree", Args{ArgRow{kReg8, "i", 0}}, Needs::kBase, kX87, kSilent, 0, 8,
         "FFREE: marks ST(i) empty."),
    User(Op::kFincstp, "x87.fincstp", kNoArgs, Needs::kBase, kX87, kSilent, 0, 8,
         "FINCSTP: increments TOP."),
    User(Op::kFdecstp, "x87.fdecstp", kNoArgs, Needs::kBase, kX87, kSilent, 0, 8,
         "FDECSTP: decrements TOP."),
    User(Op::kFnstcw, "x87.fnstcw", kNoArgs, Needs::kBase, kX87, kBytesOut, 2, 8,
         "FNSTCW: stores FCW."),
    User(Op::kFnstsw, "x87.fnstsw", kNoArgs, Needs::kBase, kX87, kBytesOut, 2, 8,
         "FNSTSW: stores FSW."),
    User(Op::kMmxMovq, "mmx.movq", Args{ArgRow{kReg8, "mm", 0}, kPatternArg}, Needs::kBase, kX87,
         kSilent, 0, 24, "MOVQ mm, m64: loads 8 bytes of a pattern."),
    User(Op::kMmxStore, "mmx.store", Args{ArgRow{kReg8, "mm", 0}}, Needs::kBase, kX87, kBytesOut, 8,
         12, "MOVQ m64, mm: stores an MMX register."),
    User(Op::kMmxPxor, "mmx.pxor", Args{ArgRow{kReg8, "dst", 0}, ArgRow{kReg8, "src", 0}},
         Needs::kBase, kX87, kSilent, 0, 8, "PXOR mm, mm."),
    User(Op::kEmms, "mmx.emms", kNoArgs, Needs::kBase, kX87, kSilent, 0, 10,
         "EMMS: marks all x87 registers empty."),
    // SSE.
    User(Op::kSseLoad, "sse.load", Args{ArgRow{kReg16, "xmm", 0}, kPatternArg}, Needs::kBase, kSse,
         kSilent, 0, 40, "MOVDQU xmm, m128: loads XMM, keeps the register's upper part."),
    User(Op::kSseStore, "sse.store", Args{ArgRow{kReg16, "xmm", 0}}, Needs::kBase, kSse, kBytesOut,
         16, 20, "MOVDQU m128, xmm: stores XMM."),
    User(Op::kLdmxcsr, "sse.ldmxcsr", Args{ArgRow{kU32, "value", 0x1f80}}, Needs::kBase, kSse,
         kSilent, 0, 24, "LDMXCSR: loads MXCSR; #GP for reserved bits."),
    User(Op::kStmxcsr, "sse.stmxcsr", kNoArgs, Needs::kBase, kSse, kBytesOut, 4, 16,
         "STMXCSR: stores MXCSR."),
    User(Op::kSsePxor, "sse.pxor", Args{ArgRow{kReg16, "dst", 0}, ArgRow{kReg16, "src", 0}},
         Needs::kBase, kSse, kSilent, 0, 12, "PXOR xmm, xmm; with dst = src it clears XMM."),
    User(Op::kSsePaddq, "sse.paddq", Args{ArgRow{kReg16, "dst", 0}, ArgRow{kReg16, "src", 0}},
         Needs::kBase, kSse, kSilent, 0, 8, "PADDQ xmm, xmm."),
    User(Op::kSsePshufd, "sse.pshufd",
         Args{ArgRow{kReg16, "dst", 0}, ArgRow{kReg16, "src", 0}, ArgRow{kU8, "imm", 0x1b}},
         Needs::kBase, kSse, kSilent, 0, 8, "PSHUFD xmm, xmm, imm8."),
    // AVX.
    User(Op::kVexLoad128, "vex.load128", Args{ArgRow{kReg16, "xmm", 0}, kPatternArg}, Needs::kAvx,
         kYmm, kSilent, 0, 20, "VMOVDQU xmm, m128: loads XMM, clears the register's upper part."),
    User(Op::kVexLoad256, "vex.load256", Args{ArgRow{kReg16, "ymm", 0}, kPatternArg}, Needs::kAvx,
         kYmm, kSilent, 0, 40, "VMOVDQU ymm, m256: loads YMM."),
    User(Op::kVexStore256, "vex.store256", Args{ArgRow{kReg16, "ymm", 0}}, Needs::kAvx, kYmm,
         kBytesOut, 32, 20, "VMOVDQU m256, ymm: stores YMM."),
    User(Op::kVexPxor256, "vex.pxor256",
         Args{ArgRow{kReg16, "dst", 0}, ArgRow{kReg16, "a", 0}, ArgRow{kReg16, "b", 0}},
         Needs::kAvx2, kYmm, kSilent, 0, 10, "VPXOR ymm, ymm, ymm."),
    User(Op::kVzeroupper, "vex.vzeroupper", kNoArgs, Needs::kAvx, kAvx, kSilent, 0, 20,
         "VZEROUPPER: clears bits above 127 of registers 0-15."),
    User(Op::kVzeroall, "vex.vzeroall", kNoArgs, Needs::kAvx, kYmm, kSilent, 0, 14,
         "VZEROALL: clears registers 0-15."),
    // AVX-512.
    User(Op::kEvexLoad128, "evex.load128", Args{ArgRow{kReg32, "reg", 0}, kPatternArg},
         Needs::kAvx512vl, kZmm, kSilent, 0, 12,
         "VMOVDQU64 xmm, m128: loads, clears the register's upper part."),
    User(Op::kEvexLoad256, "evex.load256", Args{ArgRow{kReg32, "reg", 0}, kPatternArg},
         Needs::kAvx512vl, kZmm, kSilent, 0, 12,
         "VMOVDQU64 ymm, m256: loads, clears the register's upper part."),
    User(Op::kEvexLoad512, "evex.load512", Args{ArgRow{kReg32, "reg", 0}, kPatternArg},
         Needs::kAvx512f, kZmm, kSilent, 0, 50, "VMOVDQU64 zmm, m512: loads ZMM."),
    User(Op::kEvexStore512, "evex.store512", Args{ArgRow{kReg32, "reg", 0}}, Needs::kAvx512f, kZmm,
         kBytesOut, 64, 24, "VMOVDQU64 m512, zmm: stores ZMM."),
    User(Op::kEvexPxor512, "evex.pxor512",
         Args{ArgRow{kReg32, "dst", 0}, ArgRow{kReg32, "a", 0}, ArgRow{kReg32, "b", 0}},
         Needs::kAvx512f, kZmm, kSilent, 0, 12, "VPXORQ zmm, zmm, zmm."),
    User(Op::kKmovLoad, "k.load", Args{ArgRow{kReg8, "k", 0}, kPatternArg}, Needs::kAvx512bw,
         kOpmask, kSilent, 0, 24, "KMOVQ k, m64: loads an opmask register."),
    User(Op::kKmovStore, "k.store", Args{ArgRow{kReg8, "k", 0}}, Needs::kAvx512bw, kOpmask,
         kBytesOut, 8, 12, "KMOVQ m64, k: stores an opmask register."),
    User(Op::kKxor, "k.xor",
         Args{ArgRow{kReg8, "dst", 0}, ArgRow{kReg8, "a", 0}, ArgRow{kReg8, "b", 0}},
         Needs::kAvx512bw, kOpmask, kSilent, 0, 8, "KXORQ k, k, k."),
    // MPX and PKRU.
    User(Op::kBndmovLoad, "mpx.bndmov_load", Args{ArgRow{kReg4, "bnd", 0}, kPatternArg},
         Needs::kMpx, kBound, kSilent, 0, 24, "BNDMOV bnd, m128: loads a bound register."),
    User(Op::kBndmovStore, "mpx.bndmov_store", Args{ArgRow{kReg4, "bnd", 0}}, Needs::kMpx, kBound,
         kBytesOut, 16, 12, "BNDMOV m128, bnd: stores a bound register."),
    User(Op::kWrpkru, "pkru.write", Args{ArgRow{kU32, "value", 0}}, Needs::kPku, kPkru, kSilent, 0,
         24, "WRPKRU; a value with bit 0 or 1 set takes the guest's own data away from CPL 3."),
    User(Op::kRdpkru, "pkru.read", kNoArgs, Needs::kPku, kPkru, kBytesOut, 4, 16, "RDPKRU."),
    // Saved areas.
    User(Op::kXsave, "xsave", kSaveArgs, Needs::kXsave, kUser, kArea, 0, 40,
         "XSAVE to a slot, XSAVE64 if wide."),
    User(Op::kXsavec, "xsavec", kSaveArgs, Needs::kXsavec, kUser, kArea, 0, 40,
         "XSAVEC to a slot, XSAVEC64 if wide."),
    User(Op::kXsaveopt, "xsaveopt", kSaveArgs, Needs::kXsaveopt, kUser, kArea, 0, 30,
         "XSAVEOPT to a slot, XSAVEOPT64 if wide."),
    Privileged(Op::kXsaves, "xsaves", kSaveArgs, Needs::kXsaves, kAll, kArea, 0, 20,
               "XSAVES to a slot, XSAVES64 if wide."),
    User(Op::kXrstor, "xrstor", kSaveArgs, Needs::kXsave, kUser, kSilent, 0, 60,
         "XRSTOR from a slot, standard or compacted by its XCOMP_BV; XRSTOR64 if wide."),
    Privileged(Op::kXrstors, "xrstors", kSaveArgs, Needs::kXsaves, kAll, kSilent, 0, 20,
               "XRSTORS from a slot, XRSTORS64 if wide."),
    User(Op::kFxsave, "fxsave", kFxArgs, Needs::kBase, kLegacy, kBytesOut, 512, 16,
         "FXSAVE to a slot, FXSAVE64 if wide."),
    User(Op::kFxrstor, "fxrstor", kFxArgs, Needs::kBase, kLegacy, kSilent, 0, 20,
         "FXRSTOR from a slot, FXRSTOR64 if wide."),
    User(Op::kMemWrite, "mem.write", Args{kSlotArg, kOffsetArg, ArgRow{kU64, "value", 0}},
         Needs::kBase, kNothing, kSilent, 0, 16,
         "Writes 8 bytes of a slot with an integer instruction."),
    User(Op::kMemFill, "mem.fill", Args{kSlotArg, kOffsetArg, kLengthArg, kPatternArg},
         Needs::kBase, kNothing, kSilent, 0, 12,
         "Fills bytes of a slot with a pattern, by integer instructions."),
    User(Op::kMemHeader, "mem.header",
         Args{kSlotArg, ArgRow{kMask, "xstate_bv", 0}, ArgRow{kMask, "xcomp_bv", 0}}, Needs::kBase,
         kNothing, kSilent, 0, 20,
         "Writes the XSAVE header of a slot: XSTATE_BV, XCOMP_BV, zeros behind them."),
    // System registers.
    Privileged(Op::kXsetbv, "xsetbv", Args{ArgRow{kU32, "ecx", 0}, ArgRow{kMask, "value", 1}},
               Needs::kXsave, kUser, kSilent, 0, 40, "XSETBV."),
    User(Op::kXgetbv, "xgetbv", Args{ArgRow{kU32, "ecx", 0}}, Needs::kXsave, kUser, kBytesOut, 8,
         24, "XGETBV; ecx 0 is XCR0, 1 is XCR0 & XINUSE."),
    Privileged(Op::kRdmsr, "msr.read", Args{kMsrArg}, Needs::kBase, kSupervisor | kXfdAble,
               kBytesOut, 8, 8, "RDMSR."),
    Privileged(Op::kWrmsr, "msr.write", Args{kMsrArg, ArgRow{kMask, "value", 0}}, Needs::kBase,
               kSupervisor | kXfdAble, kSilent, 0, 16, "WRMSR."),
    Privileged(Op::kCr0Ts, "cr0.ts", Args{ArgRow{kBool, "ts", 0}}, Needs::kBase, kUser, kSilent, 0,
               8, "MOV CR0: sets or clears CR0.TS."),
    Privileged(Op::kCr4Bit, "cr4", Args{ArgRow{kCr4Name, "bit", 0}, ArgRow{kBool, "value", 1}},
               Needs::kBase, kUser, kSilent, 0, 10, "MOV CR4: sets or clears one bit."),
    User(Op::kRaw, "raw", Args{ArgRow{kBytes, "bytes", 1}}, Needs::kBase, kNothing, kSilent, 0, 2,
         "Up to 15 bytes of machine code; the guest's state is unknown from there on."),
    // Exits.
    User(Op::kExitOut, "exit.out", kNoArgs, Needs::kBase, kNothing, kSilent, 0, 40,
         "OUT: KVM_EXIT_IO."),
    User(Op::kExitMmioRead, "exit.mmio_read", Args{ArgRow{kLog2Width, "width", 2}}, Needs::kBase,
         kNothing, kBytesOut, 8, 10, "Integer load from MMIO of 1 << width bytes: KVM_EXIT_MMIO."),
    User(Op::kExitMmioWrite, "exit.mmio_write",
         Args{ArgRow{kLog2Width, "width", 2}, ArgRow{kU64, "value", 0}}, Needs::kBase, kNothing,
         kSilent, 0, 10, "Integer store to MMIO of 1 << width bytes: KVM_EXIT_MMIO."),
    User(Op::kExitMmioVector, "exit.mmio_vector",
         Args{kWriteArg, ArgRow{kReg16, "reg", 0}, kPatternArg}, Needs::kBase, kSse, kSilent, 0, 20,
         "MOVDQU between XMM and MMIO: KVM's instruction emulator touches the registers."),
    User(Op::kExitCpuid, "exit.cpuid", kNoArgs, Needs::kBase, kNothing, kBytesOut, 16, 16,
         "CPUID (0DH,0): an exit that the kernel serves itself."),
    Privileged(Op::kExitHlt, "exit.hlt", kNoArgs, Needs::kBase, kNothing, kSilent, 0, 8,
               "HLT: KVM_EXIT_HLT."),
    Privileged(Op::kExitMsr, "exit.msr", Args{kWriteArg, ArgRow{kU64, "value", 0}}, Needs::kBase,
               kNothing, kBytesOut, 8, 8, "An MSR that the VMM serves: KVM_EXIT_X86_RDMSR, WRMSR."),
    User(Op::kExitPageFault, "exit.page_fault", Args{kWriteArg}, Needs::kBase, kNothing, kSilent, 0,
         8, "Touches a page that is not present."),
    // VMM.
    Vmm(Op::kGetXsave, "vmm.get_xsave", Args{kImageArg}, kUser, 50,
        "KVM_GET_XSAVE into an image buffer."),
    Vmm(Op::kGetXsave2, "vmm.get_xsave2", Args{kImageArg}, kUser, 30,
        "KVM_GET_XSAVE2 into an image buffer."),
    Vmm(Op::kSetXsave, "vmm.set_xsave", Args{kImageArg}, kUser, 60,
        "KVM_SET_XSAVE from an image buffer."),
    Vmm(Op::kImageInit, "vmm.image_init", Args{kImageArg}, kNothing, 12,
        "Makes an image buffer the initial image: FCW 37FH, MXCSR 1F80H, all else 0."),
    Vmm(Op::kImageWrite, "vmm.image_write", Args{kImageArg, kOffsetArg, ArgRow{kU64, "value", 0}},
        kNothing, 20, "Writes 8 bytes of an image buffer."),
    Vmm(Op::kImageFill, "vmm.image_fill", Args{kImageArg, kOffsetArg, kLengthArg, kPatternArg},
        kNothing, 16, "Fills bytes of an image buffer with a pattern."),
    Vmm(Op::kGetFpu, "vmm.get_fpu", kNoArgs, kLegacy, 16, "KVM_GET_FPU."),
    Vmm(Op::kSetFpu, "vmm.set_fpu",
        Args{kPatternArg, ArgRow{kU16, "fcw", 0x37f}, ArgRow{kU32, "mxcsr", 0x1f80}}, kLegacy, 16,
        "KVM_SET_FPU: registers from a pattern, FCW and MXCSR as given."),
    Vmm(Op::kGetXcrs, "vmm.get_xcrs", kNoArgs, kUser, 14, "KVM_GET_XCRS."),
    Vmm(Op::kSetXcrs, "vmm.set_xcrs",
        Args{ArgRow{kU8, "count", 1}, ArgRow{kU32, "xcr", 0}, ArgRow{kMask, "value", 1},
             ArgRow{kU32, "flags", 0}},
        kUser, 24, "KVM_SET_XCRS with `count` entries, all the same."),
    Vmm(Op::kGetMsr, "vmm.get_msr", Args{kMsrArg}, kSupervisor | kXfdAble, 8, "KVM_GET_MSRS."),
    Vmm(Op::kSetMsr, "vmm.set_msr", Args{kMsrArg, ArgRow{kMask, "value", 0}},
        kSupervisor | kXfdAble, 12, "KVM_SET_MSRS."),
    Vmm(Op::kGetMpState, "vmm.get_mp_state", kNoArgs, kBound, 10,
        "KVM_GET_MP_STATE, which loads and puts the guest's FPU state in some kernels."),
    Vmm(Op::kSetCpuid, "vmm.set_cpuid", Args{ArgRow{kMask, "features", kLegacy}}, kUser, 6,
        "KVM_SET_CPUID2 with leaf 0DH limited to these components."),
    Vmm(Op::kRunImmediate, "vmm.run_immediate", kNoArgs, kNothing, 16,
        "KVM_RUN with immediate_exit: a whole swap without an entry."),
    Vmm(Op::kMigrate, "vmm.migrate", Args{ArgRow{kU8, "order", 0}}, kUser, 16,
        "Moves the whole state into a fresh VM, in one of the orders VMMs use."),
    Vmm(Op::kInit, "vmm.init", kNoArgs, kBound | kSupervisor, 12, "INIT."),
    Vmm(Op::kSetXcrsList, "vmm.set_xcrs_list",
        Args{ArgRow{kU32, "xcr", 0}, ArgRow{kMask, "value", 1}, ArgRow{kU32, "next", 0},
             ArgRow{kMask, "next_value", 1}},
        kUser, 8, "KVM_SET_XCRS with two entries: only the first for XCR0 counts."),
    Vmm(Op::kGetMsrList, "vmm.get_msr_list", Args{kMsrArg, ArgRow{kMsrName, "next", 0}},
        kSupervisor | kXfdAble, 4, "KVM_GET_MSRS with two entries: it ends at a refused one."),
    Vmm(Op::kSetMsrList, "vmm.set_msr_list",
        Args{kMsrArg, ArgRow{kMask, "value", 0}, ArgRow{kMsrName, "next", 0},
             ArgRow{kMask, "next_value", 0}},
        kSupervisor | kXfdAble, 8,
        "KVM_SET_MSRS with two entries: it ends at a refused one, what is before it is done."),
    // Host.
    Host(
        Op::kHostCpu, "host.cpu", Args{ArgRow{kU8, "cpu", 0}}, kNothing, 24,
        "Moves the vCPU's thread to the n-th CPU allowed, modulo their number. Where a program has "
        "this, or `host.online`, threads begin on CPU 0."),
    Host(Op::kHostDirty, "host.dirty", Args{kPatternArg}, kNothing, 30,
         "A competitor on this CPU dirties every register with a pattern."),
    Host(Op::kHostPkru, "host.pkru", Args{ArgRow{kU32, "value", 0}}, kPkru, 12,
         "The VMM thread's own PKRU from now on."),
    Host(Op::kHostSignal, "host.signal", kNoArgs, kNothing, 10,
         "A signal arrives in the vCPU's next KVM_RUN."),
    Host(
        Op::kHostPreempt, "host.preempt", Args{kPatternArg, ArgRow{kU8, "delay", 20}}, kNothing, 8,
        "In the vCPU's next KVM_RUN, `delay` microseconds on, a thread that dirties every register "
        "takes the CPU away."),
    Host(Op::kHostFork, "host.fork", Args{kPatternArg}, kNothing, 2,
         "The VMM forks: the child dirties every register, may not use the vCPU, and exits."),
    Host(Op::kHostThread, "host.thread", Args{ArgRow{kU8, "thread", 1}}, kNothing, 8,
         "The vCPU is run by the n-th of the VMM's threads from now on, modulo 4."),
    Host(Op::kHostOnline, "host.online", Args{ArgRow{kBool, "online", 0}}, kNothing, 1,
         "The last CPU of the machine goes offline, and what runs there moves; or it comes back, "
         "at the latest when the program ends."),
    // AMX.
    User(
        Op::kLdtilecfg, "amx.ldtilecfg",
        Args{ArgRow{kU8, "palette", 1}, ArgRow{kU64, "tiles", kAllOnes}, ArgRow{kU8, "at", 0},
             ArgRow{kU8, "xor", 0}},
        Needs::kAmxTile, kTilecfg | kTiledata, kSilent, 0, 24,
        "LDTILECFG: byte n of `tiles` gives tile n 1 + its low four bits rows of 4 * (1 + its high "
        "four bits) bytes, 0 none; byte `at` modulo 64 of all that is XORed with `xor`."),
    User(Op::kSttilecfg, "amx.sttilecfg", kNoArgs, Needs::kAmxTile, kTilecfg, kBytesOut, 64, 12,
         "STTILECFG: stores TILECFG."),
    User(Op::kTileloadd, "amx.tileloadd", Args{kTileArg, kPatternArg, ArgRow{kU8, "stride", 64}},
         Needs::kAmxTile, kTiledata, kSilent, 0, 40,
         "TILELOADD: loads the rows of a tile from a pattern, `stride` bytes apart."),
    User(Op::kTilestored, "amx.tilestored", Args{kTileArg}, Needs::kAmxTile, kTiledata, kBytesOut,
         1024, 24, "TILESTORED: stores the rows of a tile, 64 bytes apart."),
    User(Op::kTilezero, "amx.tilezero", Args{kTileArg}, Needs::kAmxTile, kTiledata, kSilent, 0, 8,
         "TILEZERO: clears a tile."),
    User(Op::kTilerelease, "amx.tilerelease", kNoArgs, Needs::kAmxTile, kTilecfg | kTiledata,
         kSilent, 0, 12, "TILERELEASE: TILECFG and all tiles become initial."),
    User(Op::kTdpbssd, "amx.tdpbssd", kTdpArgs, Needs::kAmxInt8, kTiledata, kSilent, 0, 8,
         "TDPBSSD: dst += a * b, of signed bytes; the three tiles must differ and fit."),
    User(Op::kTdpbsud, "amx.tdpbsud", kTdpArgs, Needs::kAmxInt8, kTiledata, kSilent, 0, 4,
         "TDPBSUD: the same of signed and unsigned bytes."),
    User(Op::kTdpbusd, "amx.tdpbusd", kTdpArgs, Needs::kAmxInt8, kTiledata, kSilent, 0, 4,
         "TDPBUSD: the same of unsigned and signed bytes."),
    User(Op::kTdpbuud, "amx.tdpbuud", kTdpArgs, Needs::kAmxInt8, kTiledata, kSilent, 0, 4,
         "TDPBUUD: the same of unsigned bytes."),
    // System.
    System(Op::kOsGetRegset, "os.getregset", 30,
           "Another process reads NT_X86_XSTATE of the thread (PTRACE_GETREGSET) into an image "
           "buffer."),
    System(Op::kOsSetRegset, "os.setregset", 40,
           "Another process sets NT_X86_XSTATE of the thread (PTRACE_SETREGSET) from an image "
           "buffer."),
    System(Op::kOsSigframe, "os.sigframe", 40,
           "A signal: the XSAVE image of its frame goes into an image buffer, and sigreturn "
           "restores it."),
    System(Op::kOsSigreturn, "os.sigreturn", 40,
           "A signal whose frame's XSAVE image is an image buffer's by the time of sigreturn."),
};

// Row numbers by opcode, one more than the row; 0: no row.
constexpr std::array<uint8_t, 256> IndexByOp() {
  std::array<uint8_t, 256> index{};
  uint8_t n = 0;
  for (const StepRow& row : kSteps) index[static_cast<uint8_t>(row.op)] = ++n;
  return index;
}
constexpr std::array<uint8_t, 256> kIndex = IndexByOp();

// Row numbers by name, for binary search.
constexpr std::array<uint8_t, std::size(kSteps)> RowsByName() {
  std::array<uint8_t, std::size(kSteps)> rows{};
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint8_t>(i);
  std::ranges::sort(rows, {}, [](uint8_t n) { return kSteps[n].name; });
  return rows;
}
constexpr auto kByName = RowsByName();

constexpr bool Ascending() {
  for (size_t i = 1; i < std::size(kSteps); ++i) {
    if (kSteps[i].op <= kSteps[i - 1].op) return false;
  }
  return true;
}
static_assert(Ascending(), "rows are in the order of their op numbers, each once");

}  // namespace

std::span<const StepRow> StepTable() { return kSteps; }

const StepRow* FindStep(Op op) {
  const uint8_t n = kIndex[static_cast<uint8_t>(op)];
  return n == 0 ? nullptr : &kSteps[n - 1];
}

const StepRow* FindStep(std::string_view name) {
  const auto found =
      std::ranges::lower_bound(kByName, name, {}, [](uint8_t n) { return kSteps[n].name; });
  if (found == kByName.end() || kSteps[*found].name != name) return nullptr;
  return &kSteps[*found];
}

const StepRow& RowOf(const Step& step) { return *FindStep(step.op); }

}  // namespace fpswap::program
