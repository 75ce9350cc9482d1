// SPDX-License-Identifier: GPL-2.0-or-later
//
// An x86 CPU as far as XSAVE-managed state goes: its registers, XCR0, IA32_XSS, IA32_XFD, the bits
// of CR0 and CR4 that matter here, and the instructions that read or write them, with their faults
// and the order of these. It knows nothing of KVM, of programs or of files.
//
// Where the manual leaves the processor a choice, the function asks a `Choices` (below): a judge
// answers with what was seen, a simulation with a draw.
//
// Memory is given as spans whose accessibility the caller has decided; every function either
// completes or returns a Fault and has changed nothing (except IA32_XFD_ERR, where 13.14 says so).
//
// Thread safety: none; a Cpu is a value.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "oracle/xstate/component.h"
#include "oracle/xstate/layout.h"

namespace fpswap::cpu {

using xstate::Component;

enum Vector : uint8_t {
  kDE = 0,
  kDB = 1,
  kBP = 3,
  kUD = 6,
  kNM = 7,
  kDF = 8,
  kSS = 12,
  kGP = 13,
  kPF = 14,
  kMF = 16,
  kAC = 17,
  kXM = 19
};

struct Fault {
  uint8_t vector = 0;
  uint32_t error_code = 0;  // 0 where the vector has none
  bool operator==(const Fault&) const = default;
};

// Nothing on success.
using Result = std::optional<Fault>;

// What CPUID says beyond leaf 0DH, and what had to be measured. Recorded in every trace.
struct Features {
  xstate::XsaveCpuid xsave;
  bool osfxsr_ffxsr = false;      // EFER.FFXSR supported (AMD)
  bool amd = false;               // vendor AMD or Hygon: see X87's pointers
  bool fcs_fds_zero = false;      // CPUID.7.0:EBX[13]: FCS and FDS are saved as 0
  bool fdp_on_exception = false;  // CPUID.7.0:EBX[6]: FDP is updated by unmasked exceptions only
  bool xsave_err_ptr = true;     // false: FIP/FDP/FOP are saved and restored only while FSW.ES (AMD
                                 // without CPUID.80000008H:EBX[2])
  uint32_t mxcsr_mask = 0xffff;  // FXSAVE's MXCSR_MASK
  bool avx = false, avx2 = false, fma = false, avx512f = false, avx512bw = false, avx512dq = false,
       avx512vl = false, mpx = false, pku = false, amx_tile = false, amx_int8 = false,
       amx_bf16 = false;
  bool cet_ss = false;   // CPUID.7.0:ECX[7]: shadow stacks
  bool cet_ibt = false;  // CPUID.7.0:EDX[20]: indirect branch tracking
  bool la57 = false;     // CPUID.7.0:ECX[16]: linear addresses of 57 bits
  bool operator==(const Features&) const = default;
};

// x87 state as the 160 bytes it owns. ST(i) is stored by stack position, as FXSAVE does.
struct X87 {
  uint16_t fcw = 0x37f;
  uint16_t fsw = 0;  // TOP is FSW[13:11]
  uint8_t ftw = 0;   // abridged tags, by physical register: 1 is "not empty" (SDM 10.5.1)
  uint16_t fop = 0;  // 11 bits
  uint64_t fip = 0;
  uint64_t fdp = 0;
  uint16_t fcs = 0;
  uint16_t fds = 0;
  std::array<std::array<uint8_t, 10>, 8> st{};  // st[i] is ST(i)
  // An x87 instruction may or may not have updated FOP, FIP, FCS, FDP, FDS (parts differ): until
  // they are next seen, or loaded, their value is not known. `pointers_known` is about FOP, FIP and
  // FDP, `selectors_known` about FCS and FDS: no form of save shows both in full.
  //
  // The fields hold what software can see. AMD parts show pointers only while FSW.ES is set, else
  // zeros (measured on Zen 4, which lists CPUID.80000008H:EBX[2]): so there they are 0 while ES=0.
  bool pointers_known = true;
  bool selectors_known = true;

  // FSW.ES and FSW.B are not state of their own: they follow from the unmasked exceptions.
  bool ErrorSummary() const { return (fsw & ~fcw & 0x3f) != 0; }
  unsigned Top() const { return (fsw >> 11) & 7; }
};

// Whether FIP or FDP, loaded with `value`, may read as `seen`: 48 or 57 bits are kept by parts
// without and with 5-level paging (Zen 4: 57), all 64 by others.
bool PointerMayRead(uint64_t value, uint64_t seen);

// XTILEDATA's 8 KiB, which most programs never touch: a copy costs nothing while they are initial.
class Tiledata {
 public:
  static constexpr size_t kSize = 8192;
  Tiledata() = default;
  Tiledata(const Tiledata& other) { *this = other; }
  Tiledata& operator=(const Tiledata& other);
  // Always kSize bytes.
  std::span<const uint8_t> Bytes() const;
  // Copies in at most kSize bytes; the rest becomes 0.
  void Load(std::span<const uint8_t> in);
  // All kSize bytes, to be written.
  std::span<uint8_t, kSize> Write();
  void Clear() { used_ = false; }
  bool IsZero() const;

 private:
  bool used_ = false;  // false: all zero, whatever bytes_ holds
  std::array<uint8_t, kSize> bytes_;
};

inline constexpr uint32_t kInitialMxcsr = 0x1f80;  // SDM vol. 1, 13.6

// The contents of every modelled component. Vector registers are whole; ZMM[i] holds XMM, YMM and
// ZMM parts.
struct Registers {
  X87 x87;
  uint32_t mxcsr = kInitialMxcsr;
  std::array<std::array<uint8_t, 64>, 32> zmm{};
  std::array<uint64_t, 8> k{};
  std::array<std::array<uint64_t, 2>, 4> bnd{};  // lower, upper (as stored)
  uint64_t bndcfgu = 0, bndstatus = 0;
  uint32_t pkru = 0;
  std::array<uint64_t, 2> cet_u{};  // IA32_U_CET, IA32_PL3_SSP
  std::array<uint64_t, 3> cet_s{};  // IA32_PL0_SSP, PL1, PL2
  std::array<uint8_t, 64> tilecfg{};
  Tiledata tiledata;
};

// Choices the architecture leaves to the processor.
class Choices {
 public:
  virtual ~Choices() = default;
  // Component `c` holds its initial value: does XINUSE[c] read as 1 all the same (SDM 13.6)? Asked
  // each time and not remembered: the host swaps state under a running program, and a swap may turn
  // either answer into the other. x87 with pointers that may be 0 counts as initial; "no" then says
  // that they are 0.
  virtual bool InitialIsInUse(Component c) = 0;
  // XSAVEOPT and XSAVES may leave out `c`, unmodified since the last XRSTOR(S) from this very area
  // (SDM 13.9, 13.11 "modified optimization"): do they? Also asked by FXSAVE about kSse where
  // CR4.OSFXSR=0, and then of XMM alone: it may or may not be saved (SDM vol. 2, FXSAVE).
  virtual bool OmitUnmodified(Component c) = 0;
  // FXSAVE where CR4.OSFXSR=0 may or may not save MXCSR and MXCSR_MASK, and may treat XMM otherwise
  // (the same place: implementation dependent). Does it leave them out?
  virtual bool OmitMxcsr() { return OmitUnmodified(Component::kSse); }
  // FOP, FIP, FDP and (in the forms without REX.W) FCS and FDS are about to be stored. `x87` holds
  // what the model expects. Overwrite in place those five fields with what was seen (what a form
  // doesn't show is left alone); or leave all alone. It needs no judgement of its own: an answer
  // that is not possible is dropped and the model's value stored, so that it shows as a difference.
  //
  // Possible is: anything where the value is not known; else the same value, or: FCS and FDS 0
  // (kernels swap with the REX.W forms, which lose them); FIP and FDP sign-extended from bit 47 or
  // 56 (how many bits the registers have is not enumerated).
  virtual void ResolvePointers(X87& x87) = 0;
};

// What XRSTOR last loaded and from where: the processor's XRSTOR_INFO (SDM 13.12, 13.9).
struct XrstorInfo {
  bool valid = false;
  uint64_t address = 0;
  uint8_t cpl = 0;
  uint64_t xcomp_bv = 0;
  uint64_t unmodified = 0;  // components not written since; SSE means XMM, see kMxcsrUnmodified
};
inline constexpr uint64_t kMxcsrUnmodified = uint64_t{1} << 63;

enum class SaveForm : uint8_t { kXsave, kXsaveopt, kXsavec, kXsaves };

struct Cpu {
  explicit Cpu(const Features& f) : features(&f) {}

  const Features* features;  // not owned, outlives the Cpu
  Registers regs;
  uint64_t xcr0 = 1, xss = 0, xfd = 0, xfd_err = 0;
  uint64_t s_cet = 0;  // IA32_S_CET, which no XSAVE area holds
  bool cr0_ts = false;
  bool cr4_osxsave = true, cr4_osfxsr = true, cr4_pke = false, cr4_osxmmexcpt = true;
  uint8_t cpl = 3;
  // Whether AMX instructions are #NM while CR0.TS is set. Their exception classes (SDM vol.
  // 2, 2.10) don't list it and no part was seen either way; nothing: not settled, and taken for no.
  std::optional<bool> amx_heeds_ts;
  // Whether a write with a VEX prefix clears bits 511:256 of its register also where XCR0 disables
  // them. The manual says no: it clears up to MAXVL, which XCR0 gives (SDM vol. 2, 3.1.1.9). No
  // part was seen either way; nothing: not settled, and taken for no.
  std::optional<bool> vex_clears_disabled_zmm;
  XrstorInfo xrstor_info;
  // Where contents are not known any more (see MakeUnknown): judged no further.
  uint64_t unknown = 0;

  // --- state seen as components -----------------------------------------------------------------

  // Whether `c` holds its initial value (SDM 13.6). MXCSR counts for neither x87 nor SSE; x87
  // pointers that are not known may be 0, and count as such.
  bool IsInitial(Component c) const;
  void Initialise(Component c);  // SSE: XMM only, not MXCSR
  // The bytes `c` has in an XSAVE area (size from features; x87 and SSE are not served here).
  void StoreComponent(Component c, std::span<uint8_t> out) const;
  // Normalises as XRSTOR does (TILECFG 13.5.14, BNDCFGU 13.5.6).
  void LoadComponent(Component c, std::span<const uint8_t> in);
  // x87 and XMM registers to and from the legacy region, whose first 512 bytes are given: nothing
  // else of it is touched. Storing writes what the model expects, asking nobody. Loading normalises
  // as XRSTOR does; for REX.W forms (`wide`) see SDM 13.5.1.
  void StoreX87(std::span<uint8_t> legacy, bool wide) const;
  void LoadX87(std::span<const uint8_t> legacy, bool wide);
  // Asks `choices` about the pointers, as a save does before it stores them.
  void ResolvePointers(bool wide, Choices& choices);
  void StoreXmm(std::span<uint8_t> legacy) const;
  void LoadXmm(std::span<const uint8_t> legacy);
  // SDM 13.5.2: with reserved bits set, a load of `value` into MXCSR is #GP.
  bool MxcsrValid(uint32_t value) const { return (value & ~features->mxcsr_mask) == 0; }
  void SetMxcsr(uint32_t value);
  // XINUSE as XGETBV(1) and XSAVE see it, `choices` asked for components that hold initial values.
  // Bits disabled by XFD read 0 for XSAVE* (13.14) when `for_save`.
  uint64_t Xinuse(uint64_t mask, bool for_save, Choices& choices) const;
  // Notes that `c` was written (ends the modified optimization for it).
  void Touch(Component c) { xrstor_info.unmodified &= ~xstate::Bit(c); }

  // --- XSAVE and XRSTOR families (xsave.cc, xrstor.cc, fxsave.cc)
  // ----------------------------------- `area` is at least as long as the instruction may touch;
  // `address` is its linear address. `wide` is REX.W.

  Result Xsave(SaveForm form, std::span<uint8_t> area, uint64_t address, uint64_t rfbm, bool wide,
               Choices& choices);
  // XRSTOR (standard or compacted, by the area's XCOMP_BV[63]).
  Result Xrstor(std::span<const uint8_t> area, uint64_t address, uint64_t rfbm, bool wide);
  Result Xrstors(std::span<const uint8_t> area, uint64_t address, uint64_t rfbm, bool wide);
  Result Fxsave(std::span<uint8_t> area, uint64_t address, bool wide, Choices& choices);
  // Without CR4.OSFXSR the processor may pass over MXCSR: `skips_mxcsr` says that it did.
  Result Fxrstor(std::span<const uint8_t> area, uint64_t address, bool wide,
                 bool skips_mxcsr = false);

  // --- system registers (xcr.cc, msr.cc) --------------------------------------------------------

  Result Xsetbv(uint32_t ecx, uint64_t value);
  // On success *value is what EDX:EAX receive.
  Result Xgetbv(uint32_t ecx, uint64_t* value, Choices& choices);
  // Would XSETBV accept `value` for XCR0, CPL and CR4 apart? (also KVM_SET_XCRS's rule)
  static bool XcrValueValid(const Features& f, uint64_t value);
  static constexpr uint32_t kMsrXss = 0xda0, kMsrXfd = 0x1c4, kMsrXfdErr = 0x1c5, kMsrUCet = 0x6a0,
                            kMsrSCet = 0x6a2, kMsrPl0Ssp = 0x6a4, kMsrPl1Ssp = 0x6a5,
                            kMsrPl2Ssp = 0x6a6, kMsrPl3Ssp = 0x6a7;
  Result Rdmsr(uint32_t msr, uint64_t* value);
  Result Wrmsr(uint32_t msr, uint64_t value);
  // The MSRs of CET, for WRMSR, for XRSTORS and for the VMM alike (SDM vol. 1, 17.2): whether a
  // processor with these features has `msr`, and whether it takes `value`.
  static bool HasCetMsr(const Features& f, uint32_t msr);
  static bool CetMsrValid(const Features& f, uint32_t msr, uint64_t value);
  // The register behind `msr`; null if it is none of CET's.
  uint64_t* CetRegister(uint32_t msr);
  const uint64_t* CetRegister(uint32_t msr) const {
    return const_cast<Cpu*>(this)->CetRegister(msr);
  }

  // --- loads, stores, clears and computations (x87.cc, simd.cc, misc.cc) -------------------------
  // Faults in the manual's order: #UD, then #NM, then what memory gives (the caller's).

  // What a vector instruction needs besides its operands. Legacy SSE hangs on CR4.OSFXSR, VEX on
  // XCR0[2:1], EVEX on XCR0[7:5,2:1]; all on CR0.TS.
  enum class Encoding : uint8_t { kMmx, kSse, kVex128, kVex256, kEvex128, kEvex256, kEvex512 };
  Result CheckVector(Encoding e);
  // Writes the low `width` bytes (16, 32 or 64) of a vector register; legacy SSE keeps the rest,
  // VEX and EVEX clear it to the end of what XCR0 enables.
  Result WriteVector(Encoding e, unsigned reg, std::span<const uint8_t> value);
  Result Vzeroupper();
  Result Vzeroall();
  // Whether what these three leave of the registers hangs on `vex_clears_disabled_zmm`.
  bool VexReachIsOpen() const {
    return !VexClearsZmmHi256() && !vex_clears_disabled_zmm && !IsInitial(Component::kZmmHi256);
  }
  // KMOV, KXOR and their like: VEX encoded, need XCR0[7:5,2:1].
  Result CheckOpmask();
  Result WriteOpmask(unsigned k, uint64_t value);

  Result CheckX87(bool waits_for_exceptions);  // #NM by CR0.TS, #MF by a pending exception
  Result Fninit();
  Result Fnclex();
  Result Fldcw(uint16_t value);
  Result FldTbyte(std::span<const uint8_t, 10> value, uint64_t rip);
  Result FstpTbyte(std::span<uint8_t, 10> value, uint64_t rip);
  Result Fxch(unsigned i, uint64_t rip);
  Result Fchs(uint64_t rip);
  Result Ffree(unsigned i);
  Result Fincstp();
  Result Fdecstp();
  Result MmxMovq(unsigned mm, uint64_t value);
  Result MmxRead(unsigned mm, uint64_t* value);
  Result MmxPxor(unsigned dst, unsigned src);
  Result Emms();

  Result Ldmxcsr(uint32_t value);
  Result CheckSse() { return CheckVector(Encoding::kSse); }

  // --- AMX (amx.cc) ------------------------------------------------------------------------------
  // What each needs before it touches memory: #UD, #NM. Rows are read and written one after the
  // other from `memory`[start_row * stride] on; `memory` holds kTileRows rows that far apart.

  static constexpr unsigned kTiles = 8, kTileRows = 16, kTileRowBytes = 64;  // palette 1
  enum class Dot : uint8_t { kSs, kSu, kUs, kUu };  // signs of the bytes of both sources
  Result CheckAmx() const;                          // LDTILECFG, STTILECFG, TILERELEASE
  Result Ldtilecfg(std::span<const uint8_t, 64> memory);
  Result Sttilecfg(std::span<uint8_t, 64> memory) const;
  Result Tilerelease();
  Result CheckTileMemory(unsigned tile);  // TILELOADD, TILESTORED
  Result Tileloadd(unsigned tile, std::span<const uint8_t> memory, uint64_t stride);
  Result Tilestored(unsigned tile, std::span<uint8_t> memory, uint64_t stride);
  // A page fault of the first row that TILELOADD loads.
  void TileloaddFaulted(unsigned tile);
  Result Tilezero(unsigned tile);
  Result Tdp(Dot signs, unsigned dst, unsigned a, unsigned b);  // TDPBSSD and its like
  unsigned TileRows(unsigned tile) const;                       // as configured
  unsigned TileColsb(unsigned tile) const;
  // Whether LDTILECFG and XRSTOR take these bytes, palette 0 apart.
  static bool TilecfgIsLegal(std::span<const uint8_t, 64> cfg);

  Result Rdpkru(uint32_t ecx, uint32_t* value);
  Result Wrpkru(uint32_t ecx, uint32_t edx, uint32_t value);

  Result MovCr0Ts(bool ts);  // MOV CR0 or CLTS; #GP unless CPL 0

  // Would a data access at CPL 3 to a user page of protection key 0 be refused by PKRU?
  bool PkruDenies(bool write) const;

 private:
  bool VexClearsZmmHi256() const {
    return (xcr0 & xstate::Bit(Component::kZmmHi256)) != 0 ||
           vex_clears_disabled_zmm.value_or(false);
  }
  Result CheckXsaveArea(bool enumerated, bool cpl0, uint64_t address) const;
  Result NeedXfd(uint64_t components);
  bool TileIsConfigured(unsigned tile) const;
  bool AmxIsAvailable() const;
  Result NeedTiles();
  std::span<uint8_t> TileRow(unsigned tile, unsigned row);
  void ClearTileFrom(unsigned tile, unsigned row);
  void ResetStartRow();
  void SaveStandard(SaveForm form, std::span<uint8_t> area, uint64_t rfbm, uint64_t xinuse,
                    uint64_t omitted, bool wide);
  void SaveCompacted(std::span<uint8_t> area, uint64_t rfbm, uint64_t xinuse, uint64_t omitted,
                     bool wide);
  uint64_t Omitted(SaveForm form, uint64_t address, uint64_t rfbm, uint64_t xinuse,
                   Choices& choices) const;
  Result RestoreStandard(std::span<const uint8_t> area, uint64_t rfbm, bool wide);
  Result RestoreCompacted(std::span<const uint8_t> area, uint64_t rfbm, uint64_t allowed,
                          bool wide);
  void InitialiseAll(uint64_t components);
  Result BadMxcsr(uint64_t rfbm);
  Result BadCet(uint64_t rfbm);
  void NoteXrstor(std::span<const uint8_t> area, uint64_t address, uint64_t rfbm,
                  uint64_t xcomp_bv);
  void LoadLegacy(std::span<const uint8_t> area, uint64_t components, bool wide);
  void StoreX87Pointers(std::span<uint8_t> legacy, bool wide) const;
  void ForgetPointers();
  void SettlePointers();
  bool StackFault(bool overflow);
  void SetTop(unsigned top);
  void EnterMmx();
};

}  // namespace fpswap::cpu
