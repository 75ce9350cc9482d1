// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/forms.h"

#include <iterator>

namespace fpswap::plan {
namespace {

using program::Op;
using enum OperandKind;

constexpr OperandForm Reg(ZydisRegister first, uint8_t arg) { return {kReg, first, arg, 0}; }
constexpr OperandForm Mm(uint8_t arg) { return Reg(ZYDIS_REGISTER_MM0, arg); }
constexpr OperandForm Xmm(uint8_t arg) { return Reg(ZYDIS_REGISTER_XMM0, arg); }
constexpr OperandForm Ymm(uint8_t arg) { return Reg(ZYDIS_REGISTER_YMM0, arg); }
constexpr OperandForm Zmm(uint8_t arg) { return Reg(ZYDIS_REGISTER_ZMM0, arg); }
constexpr OperandForm K(uint8_t arg) { return Reg(ZYDIS_REGISTER_K0, arg); }
constexpr OperandForm Bnd(uint8_t arg) { return Reg(ZYDIS_REGISTER_BND0, arg); }
constexpr OperandForm St(uint8_t arg) { return Reg(ZYDIS_REGISTER_ST0, arg); }
constexpr OperandForm Imm8(uint8_t arg) {
  return {OperandKind::kImm8, ZYDIS_REGISTER_NONE, arg, 1};
}
constexpr OperandForm Literal(uint16_t bytes) { return {kLiteral, ZYDIS_REGISTER_NONE, 0, bytes}; }
constexpr OperandForm Journal(uint16_t bytes) { return {kJournal, ZYDIS_REGISTER_NONE, 0, bytes}; }
// Zydis gives an XSAVE area the size of the legacy region and the header.
constexpr OperandForm kXsaveArea{OperandKind::kArea, ZYDIS_REGISTER_NONE, 0, 576};
constexpr OperandForm kFxsaveArea{OperandKind::kArea, ZYDIS_REGISTER_NONE, 0, 512};
// Zydis counts the mask of an EVEX instruction among its operands: k0 is "no mask".
constexpr OperandForm kNoMask{kFixed, ZYDIS_REGISTER_K0, 0, 0};

constexpr OperandForm Tmm(uint8_t arg) { return Reg(ZYDIS_REGISTER_TMM0, arg); }
constexpr OperandForm kTileRows{kTileMem, ZYDIS_REGISTER_NONE, 0, 0};

constexpr auto kEvex = ZYDIS_ENCODABLE_ENCODING_EVEX;
constexpr auto kVex = ZYDIS_ENCODABLE_ENCODING_VEX;

// XSAVE and its like: EDX:EAX = RFBM (arg 2), REX.W form by arg 3.
constexpr Form Area(Op op, ZydisMnemonic narrow, ZydisMnemonic wide, After after) {
  return {.op = op,
          .mnemonic = narrow,
          .operands = {kXsaveArea},
          .setup = Setup::kEdxEax,
          .setup_arg = 2,
          .after = after,
          .other_arg = 3,
          .other = wide};
}

constexpr Form System(Op op, ZydisMnemonic mnemonic, Setup setup, After after) {
  return {.op = op, .mnemonic = mnemonic, .setup = setup, .after = after};
}

constexpr Form kForms[] = {
    // x87 and MMX.
    {Op::kFninit, ZYDIS_MNEMONIC_FNINIT},
    {Op::kFnclex, ZYDIS_MNEMONIC_FNCLEX},
    {Op::kFldcw, ZYDIS_MNEMONIC_FLDCW, {Literal(2)}},
    {Op::kFldTbyte, ZYDIS_MNEMONIC_FLD, {Literal(10)}},
    {Op::kFstpTbyte, ZYDIS_MNEMONIC_FSTP, {Journal(10)}},
    {Op::kFxch, ZYDIS_MNEMONIC_FXCH, {St(0)}},
    {Op::kFchs, ZYDIS_MNEMONIC_FCHS},
    {Op::kFfree, ZYDIS_MNEMONIC_FFREE, {St(0)}},
    {Op::kFincstp, ZYDIS_MNEMONIC_FINCSTP},
    {Op::kFdecstp, ZYDIS_MNEMONIC_FDECSTP},
    {Op::kFnstcw, ZYDIS_MNEMONIC_FNSTCW, {Journal(2)}},
    {Op::kFnstsw, ZYDIS_MNEMONIC_FNSTSW, {Journal(2)}},
    {Op::kMmxMovq, ZYDIS_MNEMONIC_MOVQ, {Mm(0), Literal(8)}},
    {Op::kMmxStore, ZYDIS_MNEMONIC_MOVQ, {Journal(8), Mm(0)}},
    {Op::kMmxPxor, ZYDIS_MNEMONIC_PXOR, {Mm(0), Mm(1)}},
    {Op::kEmms, ZYDIS_MNEMONIC_EMMS},
    // SSE.
    {Op::kSseLoad, ZYDIS_MNEMONIC_MOVDQU, {Xmm(0), Literal(16)}},
    {Op::kSseStore, ZYDIS_MNEMONIC_MOVDQU, {Journal(16), Xmm(0)}},
    {Op::kLdmxcsr, ZYDIS_MNEMONIC_LDMXCSR, {Literal(4)}},
    {Op::kStmxcsr, ZYDIS_MNEMONIC_STMXCSR, {Journal(4)}},
    {Op::kSsePxor, ZYDIS_MNEMONIC_PXOR, {Xmm(0), Xmm(1)}},
    {Op::kSsePaddq, ZYDIS_MNEMONIC_PADDQ, {Xmm(0), Xmm(1)}},
    {Op::kSsePshufd, ZYDIS_MNEMONIC_PSHUFD, {Xmm(0), Xmm(1), Imm8(2)}},
    // AVX.
    {Op::kVexLoad128, ZYDIS_MNEMONIC_VMOVDQU, {Xmm(0), Literal(16)}, kVex},
    {Op::kVexLoad256, ZYDIS_MNEMONIC_VMOVDQU, {Ymm(0), Literal(32)}, kVex},
    {Op::kVexStore256, ZYDIS_MNEMONIC_VMOVDQU, {Journal(32), Ymm(0)}, kVex},
    {Op::kVexPxor256, ZYDIS_MNEMONIC_VPXOR, {Ymm(0), Ymm(1), Ymm(2)}, kVex},
    {Op::kVzeroupper, ZYDIS_MNEMONIC_VZEROUPPER},
    {Op::kVzeroall, ZYDIS_MNEMONIC_VZEROALL},
    // AVX-512.
    {Op::kEvexLoad128, ZYDIS_MNEMONIC_VMOVDQU64, {Xmm(0), kNoMask, Literal(16)}, kEvex},
    {Op::kEvexLoad256, ZYDIS_MNEMONIC_VMOVDQU64, {Ymm(0), kNoMask, Literal(32)}, kEvex},
    {Op::kEvexLoad512, ZYDIS_MNEMONIC_VMOVDQU64, {Zmm(0), kNoMask, Literal(64)}, kEvex},
    {Op::kEvexStore512, ZYDIS_MNEMONIC_VMOVDQU64, {Journal(64), kNoMask, Zmm(0)}, kEvex},
    {Op::kEvexPxor512, ZYDIS_MNEMONIC_VPXORQ, {Zmm(0), kNoMask, Zmm(1), Zmm(2)}, kEvex},
    {Op::kKmovLoad, ZYDIS_MNEMONIC_KMOVQ, {K(0), Literal(8)}, kVex},
    {Op::kKmovStore, ZYDIS_MNEMONIC_KMOVQ, {Journal(8), K(0)}, kVex},
    {Op::kKxor, ZYDIS_MNEMONIC_KXORQ, {K(0), K(1), K(2)}, kVex},
    // MPX and PKRU.
    {Op::kBndmovLoad, ZYDIS_MNEMONIC_BNDMOV, {Bnd(0), Literal(16)}},
    {Op::kBndmovStore, ZYDIS_MNEMONIC_BNDMOV, {Journal(16), Bnd(0)}},
    System(Op::kWrpkru, ZYDIS_MNEMONIC_WRPKRU, Setup::kPkru, After::kNothing),
    System(Op::kRdpkru, ZYDIS_MNEMONIC_RDPKRU, Setup::kZeroEcx, After::kEax),
    // Saved areas.
    Area(Op::kXsave, ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVE64, After::kSlot),
    Area(Op::kXsavec, ZYDIS_MNEMONIC_XSAVEC, ZYDIS_MNEMONIC_XSAVEC64, After::kSlot),
    Area(Op::kXsaveopt, ZYDIS_MNEMONIC_XSAVEOPT, ZYDIS_MNEMONIC_XSAVEOPT64, After::kSlot),
    Area(Op::kXsaves, ZYDIS_MNEMONIC_XSAVES, ZYDIS_MNEMONIC_XSAVES64, After::kSlot),
    Area(Op::kXrstor, ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XRSTOR64, After::kNothing),
    Area(Op::kXrstors, ZYDIS_MNEMONIC_XRSTORS, ZYDIS_MNEMONIC_XRSTORS64, After::kNothing),
    {.op = Op::kFxsave,
     .mnemonic = ZYDIS_MNEMONIC_FXSAVE,
     .operands = {kFxsaveArea},
     .after = After::kFxArea,
     .other_arg = 2,
     .other = ZYDIS_MNEMONIC_FXSAVE64},
    {.op = Op::kFxrstor,
     .mnemonic = ZYDIS_MNEMONIC_FXRSTOR,
     .operands = {kFxsaveArea},
     .other_arg = 2,
     .other = ZYDIS_MNEMONIC_FXRSTOR64},
    // System registers.
    System(Op::kXsetbv, ZYDIS_MNEMONIC_XSETBV, Setup::kEcxEdxEax, After::kNothing),
    System(Op::kXgetbv, ZYDIS_MNEMONIC_XGETBV, Setup::kEcx, After::kEdxEax),
    System(Op::kRdmsr, ZYDIS_MNEMONIC_RDMSR, Setup::kMsr, After::kEdxEax),
    System(Op::kWrmsr, ZYDIS_MNEMONIC_WRMSR, Setup::kMsrEdxEax, After::kNothing),
    // Exits.
    System(Op::kExitCpuid, ZYDIS_MNEMONIC_CPUID, Setup::kCpuid, After::kEaxEbxEcxEdx),
    System(Op::kExitHlt, ZYDIS_MNEMONIC_HLT, Setup::kNothing, After::kNothing),
    {.op = Op::kExitMsr,
     .mnemonic = ZYDIS_MNEMONIC_RDMSR,
     .setup = Setup::kVmmMsr,
     .after = After::kEdxEax,
     .other_arg = 0,
     .other = ZYDIS_MNEMONIC_WRMSR},
    // AMX. VEX.vvvv is the last source of a dot product.
    {Op::kLdtilecfg, ZYDIS_MNEMONIC_LDTILECFG, {Literal(64)}},
    {Op::kSttilecfg, ZYDIS_MNEMONIC_STTILECFG, {Journal(64)}},
    {.op = Op::kTileloadd,
     .mnemonic = ZYDIS_MNEMONIC_TILELOADD,
     .operands = {Tmm(0), kTileRows},
     .setup = Setup::kTileLoad},
    {.op = Op::kTilestored,
     .mnemonic = ZYDIS_MNEMONIC_TILESTORED,
     .operands = {kTileRows, Tmm(0)},
     .setup = Setup::kTileStore},
    {Op::kTilezero, ZYDIS_MNEMONIC_TILEZERO, {Tmm(0)}},
    {Op::kTilerelease, ZYDIS_MNEMONIC_TILERELEASE},
    {Op::kTdpbssd, ZYDIS_MNEMONIC_TDPBSSD, {Tmm(0), Tmm(1), Tmm(2)}},
    {Op::kTdpbsud, ZYDIS_MNEMONIC_TDPBSUD, {Tmm(0), Tmm(1), Tmm(2)}},
    {Op::kTdpbusd, ZYDIS_MNEMONIC_TDPBUSD, {Tmm(0), Tmm(1), Tmm(2)}},
    {Op::kTdpbuud, ZYDIS_MNEMONIC_TDPBUUD, {Tmm(0), Tmm(1), Tmm(2)}},
};

constexpr std::array<int8_t, 256> IndexByOp() {
  std::array<int8_t, 256> index{};
  index.fill(-1);
  int8_t number = 0;
  for (const Form& form : kForms) index[static_cast<uint8_t>(form.op)] = number++;
  return index;
}
constexpr std::array<int8_t, 256> kIndex = IndexByOp();

}  // namespace

int FormIndex(program::Op op) { return kIndex[static_cast<uint8_t>(op)]; }
const Form& FormAt(int index) { return kForms[index]; }
int FormCount() { return std::size(kForms); }

}  // namespace fpswap::plan
