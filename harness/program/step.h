// SPDX-License-Identifier: GPL-2.0-or-later
//
// A step: one thing done by the guest (an instruction), by the VMM (an ioctl) or by the host around
// them (a disturbance). Steps are flat data: an operation and up to four numbers, so that they can
// be mutated, printed, sent to an agent and minimised by code that knows none of them.
//
// The step table (kSteps in step_table.cc) is the only place that lists operations. Text form, byte
// form, validation, documentation and the generator's weights follow from it.
//
// Op numbers are the byte form's opcodes: append-only, never reused (see codec.h).
//
// This header depends on nothing but the standard library: kvm-runner includes it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace fpswap::program {

enum class Op : uint8_t {
  // Guest: x87 and MMX
  kFninit = 1,
  kFnclex = 2,
  kFldcw = 3,      // value(u16)
  kFldTbyte = 4,   // pattern: 10 bytes
  kFstpTbyte = 5,  // journal 10 bytes
  kFxch = 6,       // i
  kFchs = 7,
  kFfree = 8,  // i
  kFincstp = 9,
  kFdecstp = 10,
  kFnstcw = 11,    // journal 2 bytes
  kFnstsw = 12,    // journal 2 bytes
  kMmxMovq = 13,   // mm, pattern: 8 bytes
  kMmxStore = 14,  // mm; journal 8 bytes
  kMmxPxor = 15,   // mm dst, mm src
  kEmms = 16,
  // Guest: SSE, AVX, AVX-512
  kSseLoad = 20,      // xmm(0-15), pattern: MOVDQU, keeps the upper part
  kSseStore = 21,     // xmm(0-15); MOVDQU, journal 16 bytes
  kLdmxcsr = 22,      // value(u32)
  kStmxcsr = 23,      // journal 4 bytes
  kSsePxor = 24,      // dst, src (0-15)
  kSsePaddq = 25,     // dst, src
  kSsePshufd = 26,    // dst, src, imm8
  kVexLoad128 = 30,   // xmm(0-15), pattern: VMOVDQU, clears the upper part
  kVexLoad256 = 31,   // ymm(0-15), pattern
  kVexStore256 = 32,  // ymm(0-15); journal 32 bytes
  kVexPxor256 = 33,   // dst, a, b (VPXOR ymm, AVX2)
  kVzeroupper = 34,
  kVzeroall = 35,
  kEvexLoad128 = 40,   // reg(0-31), pattern: VMOVDQU64 (AVX512VL)
  kEvexLoad256 = 41,   // (AVX512VL)
  kEvexLoad512 = 42,   // (AVX512F)
  kEvexStore512 = 43,  // reg(0-31); journal 64 bytes
  kEvexPxor512 = 44,   // dst, a, b (VPXORQ)
  kKmovLoad = 45,      // k(0-7), pattern: 8 bytes (KMOVQ, AVX512BW)
  kKmovStore = 46,     // k; journal 8 bytes
  kKxor = 47,          // dst, a, b (KXORQ)
  // Guest: MPX, PKRU
  kBndmovLoad = 50,   // bnd(0-3), pattern: 16 bytes
  kBndmovStore = 51,  // bnd; journal 16 bytes
  kWrpkru = 52,       // value(u32)
  kRdpkru = 53,       // journal 4 bytes
  // Guest: saved areas. `slot` names one of kSlotCount areas of guest memory, `at` an offset added
  // to its address (misalignment), `rfbm` EDX:EAX, `wide` REX.W. Each journals the area afterwards.
  kXsave = 60,  // slot, at, rfbm, wide
  kXsavec = 61,
  kXsaveopt = 62,
  kXsaves = 63,     // CPL 0
  kXrstor = 64,     // slot, at, rfbm, wide (no journal)
  kXrstors = 65,    // CPL 0
  kFxsave = 66,     // slot, at, wide; journal 512 bytes
  kFxrstor = 67,    // slot, at, wide
  kMemWrite = 68,   // slot, offset, value: 8 bytes stored with an integer MOV
  kMemFill = 69,    // slot, offset, length, pattern: integer stores
  kMemHeader = 70,  // slot, xstate_bv, xcomp_bv; the other 48 header bytes become 0
  // Guest: system registers
  kXsetbv = 80,  // ecx, value (CPL 0)
  kXgetbv = 81,  // ecx; journal 8 bytes
  kRdmsr = 82,   // msr; journal 8 bytes (CPL 0)
  kWrmsr = 83,   // msr, value (CPL 0)
  kCr0Ts = 84,   // ts: MOV CR0 (CPL 0)
  kCr4Bit = 85,  // bit (enum Cr4Bit), value (CPL 0)
  kRaw = 86,     // bytes: up to 15 bytes of code
  // Guest: exits
  kExitOut = 100,         // OUT to kExitPort
  kExitMmioRead = 101,    // width (1,2,4,8 as log2): integer MOV, journal 8 bytes
  kExitMmioWrite = 102,   // width, value
  kExitMmioVector = 103,  // write, reg(0-15), pattern: MOVDQU xmm from or to MMIO
  kExitCpuid = 104,       // CPUID.(0DH,0); journal 16 bytes EAX EBX ECX EDX
  kExitHlt = 105,         // (CPL 0)
  kExitMsr = 106,         // write, value: an MSR the VMM serves (CPL 0), journal 8 bytes
  kExitPageFault = 107,   // write: touches a page that is not present
  // VMM. `image` names one of kImageCount image buffers of the VMM.
  kGetXsave = 120,    // image
  kGetXsave2 = 121,   // image
  kSetXsave = 122,    // image
  kImageInit = 123,   // image: the architectural initial image, XSTATE_BV = 0
  kImageWrite = 124,  // image, offset, value: 8 bytes
  kImageFill = 125,   // image, offset, length, pattern
  kGetFpu = 126,
  kSetFpu = 127,  // pattern, fcw, mxcsr
  kGetXcrs = 128,
  kSetXcrs = 129,  // count, xcr, value, flags
  kGetMsr = 130,   // msr
  kSetMsr = 131,   // msr, value
  kGetMpState = 132,
  kSetCpuid = 133,      // features: KVM_SET_CPUID2 with leaf 0DH limited to these
  kRunImmediate = 134,  // KVM_RUN with immediate_exit
  kMigrate = 135,       // order: the whole state into a fresh VM
  kInit = 136,          // INIT, through KVM_SET_VCPU_EVENTS or KVM_SET_MP_STATE
  kSetXcrsList = 137,   // xcr, value, next, next_value: two entries
  kGetMsrList = 138,    // msr, next: two entries
  kSetMsrList = 139,    // msr, value, next, next_value: two entries
  // Host
  kHostCpu = 150,      // cpu: move the vCPU thread to the n-th CPU allowed
  kHostDirty = 151,    // pattern: a competitor dirties every register on this CPU
  kHostPkru = 152,     // value: the VMM thread's own PKRU from now on
  kHostSignal = 153,   // a signal arrives in the next KVM_RUN
  kHostPreempt = 154,  // pattern, delay: another thread takes the CPU, best during KVM_RUN
  kHostFork = 155,     // pattern: the VMM forks; the child dirties every register and exits
  kHostThread = 156,   // thread: the vCPU is run by another thread of the VMM from now on
  kHostOnline = 157,   // online: the last CPU leaves the machine, or comes back
  // Guest: AMX
  kLdtilecfg = 160,   // palette, tiles, at, xor: the 64 bytes that FillTilecfg makes of these
  kSttilecfg = 161,   // journal 64 bytes
  kTileloadd = 162,   // tile, pattern, stride: rows of a pattern, `stride` bytes apart
  kTilestored = 163,  // tile; journal 1024 bytes, rows 64 bytes apart
  kTilezero = 164,    // tile
  kTilerelease = 165,
  kTdpbssd = 166,  // dst, a, b
  kTdpbsud = 167,
  kTdpbusd = 168,
  kTdpbuud = 169,
  // System: the program is a thread of its own. `image` as for the VMM.
  kOsGetRegset = 185,  // image
  kOsSetRegset = 186,  // image
  kOsSigframe = 187,   // image
  kOsSigreturn = 188,  // image
};

// kSystem: the kernel, asked by or about the thread that runs the program.
enum class Actor : uint8_t { kGuest, kVmm, kHost, kSystem };

enum class Cr4Bit : uint8_t { kOsfxsr = 0, kOsxsave = 1, kPke = 2 };
enum class Msr : uint8_t {
  kXss = 0,
  kXfd = 1,
  kXfdErr = 2,
  kUCet = 3,
  kSCet = 4,
  kPl0Ssp = 5,
  kPl1Ssp = 6,
  kPl2Ssp = 7,
  kPl3Ssp = 8,
};
uint32_t MsrIndex(Msr m);

inline constexpr unsigned kMaxSteps = 64;
inline constexpr unsigned kMaxVcpus = 4;
inline constexpr unsigned kSlotCount = 4;
inline constexpr unsigned kImageCount = 4;
inline constexpr unsigned kArgCount = 4;

struct Step {
  Op op = Op::kFninit;
  uint8_t vcpu = 0;
  // Meaning by the step table. Op::kRaw: arg[0] length, arg[1] and arg[2] the bytes, little-endian.
  std::array<uint64_t, kArgCount> arg{};
  bool operator==(const Step&) const = default;
};

// The kinds of argument. A kind fixes range, width in the byte form, spelling in the text form and
// how values are drawn and mutated.
enum class ArgKind : uint8_t {
  kNone,
  kReg8,     // 0-7
  kReg16,    // 0-15
  kReg32,    // 0-31
  kReg4,     // 0-3
  kPattern,  // u16, see FillPattern
  kSlot,     // 0..kSlotCount-1
  kImage,    // 0..kImageCount-1
  kAlign,    // 0-63; 0 by default
  kMask,     // u64 of component bits: text "x87+sse+avx" or a number
  kBool,     // 0, 1
  kU8,
  kU16,
  kU32,
  kU64,
  kOffset,     // u16, < xstate::kMaxAreaSize
  kLength,     // u16, 1..kMaxAreaSize
  kLog2Width,  // 0-3
  kMsrName,    // enum Msr: text "xss", "xfd", "u_cet", ...
  kCr4Name,    // enum Cr4Bit: text "osfxsr", "osxsave", "pke"
  kBytes,      // raw: three args, text "0f0b"
};

struct ArgRow {
  ArgKind kind = ArgKind::kNone;
  std::string_view name;
  uint64_t fallback = 0;  // when the text leaves it out
};

// What a step's journal holds (see plan.h).
enum class Journal : uint8_t { kNone, kBytes, kArea };

// What a CPU must have; a step is trimmed elsewhere.
enum class Needs : uint8_t {
  kBase,
  kXsave,
  kXsaveopt,
  kXsavec,
  kXsaves,
  kAvx,
  kAvx2,
  kAvx512f,
  kAvx512vl,
  kAvx512bw,
  kMpx,
  kPku,
  kAmxTile,
  kAmxInt8
};

struct StepRow {
  Op op;
  std::string_view name;  // text form: "evex.load512"
  Actor actor;
  std::array<ArgRow, kArgCount> args;
  bool cpl0;  // guest: only at CPL 0
  Journal journal;
  uint16_t journal_bytes;  // Journal::kBytes
  Needs needs;
  uint64_t components;   // those it concerns (for reach and for the generator), XCR0/XSS bits
  uint8_t weight;        // the generator's, 0-255
  std::string_view doc;  // one sentence for docs and --help
};

// All rows, by ascending op number.
std::span<const StepRow> StepTable();
// The row of `op`; null for a number that no row has.
const StepRow* FindStep(Op op);
const StepRow* FindStep(std::string_view name);
// REQUIRES: `step.op` is in the table.
const StepRow& RowOf(const Step& step);

// The bytes pattern `p` stands for: 0 is all zeros, 1 all ones, any other differs at every byte
// offset of a 256-byte window and between windows, so that a shift or a swap shows.
void FillPattern(uint16_t p, std::span<uint8_t> out);
// What FillPattern makes the bytes of a pattern from, for those above 1.
uint64_t PatternKey(uint16_t p);

// The memory operand of an Op::kLdtilecfg step. Byte n of its `tiles` configures tile n: 0 not at
// all, else 1 + its low four bits are the rows, and 4 times 1 + its high four bits the bytes of
// each. Last, byte `at` (modulo 64) of the result is XORed with `xor`: so any one byte can be
// wrong.
void FillTilecfg(const Step& step, std::span<uint8_t, 64> out);

// Op::kTileloadd: bytes of the pattern from the first row to the end of the last one, as far as a
// tile of palette 1 may reach.
constexpr uint32_t TileloaddBytes(const Step& step) {
  return static_cast<uint32_t>(15 * step.arg[2] + 64);
}

}  // namespace fpswap::program
