// SPDX-License-Identifier: GPL-2.0-or-later
//
// The machine code of steps, read by two disassemblers.
#include <Zydis/Zydis.h>
#include <capstone/capstone.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "harness/plan/plan.h"
#include "tests/plan/plan_testing.h"

namespace fpswap::plan {
namespace {

using plan_testing::Do;
using plan_testing::DrawStep;
using plan_testing::Of;
using plan_testing::RichKvm;
using plan_testing::RichNative;
using program::Op;
using program::Step;

struct Decoded {
  uint32_t at = 0;
  uint8_t size = 0;
  std::string text;
  std::string mnemonic;
  bool branch = false, bnd = false;  // it is one; it has the BND prefix
  bool vector = false;               // has an operand that is no general register, memory or number
};

bool IsIntegerClass(ZydisRegisterClass c) {
  switch (c) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_FLAGS:
    case ZYDIS_REGCLASS_IP:
    case ZYDIS_REGCLASS_SEGMENT:
    case ZYDIS_REGCLASS_CONTROL:
      return true;
    default:
      return false;
  }
}

bool IsBranch(const ZydisDecodedInstruction& in) {
  switch (in.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_UNCOND_BR:
      return true;
    default:
      return false;
  }
}

Decoded DecodeAt(const std::vector<uint8_t>& code, uint32_t at) {
  Decoded out{.at = at};
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecodedInstruction in;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, &code[at], code.size() - at, &in, operands))) {
    return out;
  }
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_FORCE_SIZE, ZYAN_TRUE);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                            ZYDIS_PADDING_DISABLED);
  char text[128];
  ZydisFormatterFormatInstruction(&formatter, &in, operands, in.operand_count_visible, text,
                                  sizeof(text), kCodeBase + at, nullptr);
  out.size = in.length;
  out.text = text;
  out.mnemonic = ZydisMnemonicGetString(in.mnemonic);
  out.branch = IsBranch(in);
  out.bnd = (in.attributes & ZYDIS_ATTRIB_HAS_BND) != 0;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const ZydisDecodedOperand& o = operands[i];
    if (o.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    out.vector |= !IsIntegerClass(ZydisRegisterGetClass(o.reg.value));
  }
  return out;
}

// Instructions of step `number`, from its row to the next one's or to the end of its run.
std::vector<Decoded> DecodeStep(const Plan& plan, size_t number) {
  const uint32_t end = number + 1 < plan.rows.size() ? plan.rows[number + 1].code
                                                     : static_cast<uint32_t>(plan.code.size());
  std::vector<Decoded> all;
  for (uint32_t at = plan.rows[number].code; at < end; at += all.back().size) {
    all.push_back(DecodeAt(plan.code, at));
    if (all.back().size == 0) {
      ADD_FAILURE() << "undecodable at " << at;
      break;
    }
  }
  return all;
}

struct Meant {
  Step step;
  const char* text;  // of the instruction under test
};

// A step alone in its program: its literal, journal, MMIO and absent places are the first ones.
const Meant kMeant[] = {
    {Do(Op::kFninit), "fninit"},
    {Do(Op::kFnclex), "fnclex"},
    {Do(Op::kFldcw, 0x37f), "fldcw word ptr [0x10020000]"},
    {Do(Op::kFldTbyte, 3), "fld tbyte ptr [0x10020000]"},
    {Do(Op::kFstpTbyte), "fstp tbyte ptr [0x10060000]"},
    {Do(Op::kFxch, 5), "fxch st5"},
    {Do(Op::kFchs), "fchs"},
    {Do(Op::kFfree, 6), "ffree st6"},
    {Do(Op::kFincstp), "fincstp"},
    {Do(Op::kFdecstp), "fdecstp"},
    {Do(Op::kFnstcw), "fnstcw word ptr [0x10060000]"},
    {Do(Op::kFnstsw), "fnstsw word ptr [0x10060000]"},
    {Do(Op::kMmxMovq, 3, 9), "movq mm3, qword ptr [0x10020000]"},
    {Do(Op::kMmxStore, 4), "movq qword ptr [0x10060000], mm4"},
    {Do(Op::kMmxPxor, 1, 7), "pxor mm1, mm7"},
    {Do(Op::kEmms), "emms"},
    {Do(Op::kSseLoad, 12, 9), "movdqu xmm12, xmmword ptr [0x10020000]"},
    {Do(Op::kSseStore, 13), "movdqu xmmword ptr [0x10060000], xmm13"},
    {Do(Op::kLdmxcsr, 0x1f80), "ldmxcsr dword ptr [0x10020000]"},
    {Do(Op::kStmxcsr), "stmxcsr dword ptr [0x10060000]"},
    {Do(Op::kSsePxor, 1, 15), "pxor xmm1, xmm15"},
    {Do(Op::kSsePaddq, 9, 2), "paddq xmm9, xmm2"},
    {Do(Op::kSsePshufd, 3, 4, 0x1b), "pshufd xmm3, xmm4, 0x1B"},
    {Do(Op::kVexLoad128, 15, 9), "vmovdqu xmm15, xmmword ptr [0x10020000]"},
    {Do(Op::kVexLoad256, 8, 9), "vmovdqu ymm8, ymmword ptr [0x10020000]"},
    {Do(Op::kVexStore256, 9), "vmovdqu ymmword ptr [0x10060000], ymm9"},
    {Do(Op::kVexPxor256, 1, 10, 15), "vpxor ymm1, ymm10, ymm15"},
    {Do(Op::kVzeroupper), "vzeroupper"},
    {Do(Op::kVzeroall), "vzeroall"},
    {Do(Op::kEvexLoad128, 16, 9), "vmovdqu64 xmm16, xmmword ptr [0x10020000]"},
    {Do(Op::kEvexLoad256, 31, 9), "vmovdqu64 ymm31, ymmword ptr [0x10020000]"},
    {Do(Op::kEvexLoad512, 17, 9), "vmovdqu64 zmm17, zmmword ptr [0x10020000]"},
    {Do(Op::kEvexStore512, 30), "vmovdqu64 zmmword ptr [0x10060000], zmm30"},
    {Do(Op::kEvexPxor512, 0, 16, 31), "vpxorq zmm0, zmm16, zmm31"},
    {Do(Op::kKmovLoad, 7, 9), "kmovq k7, qword ptr [0x10020000]"},
    {Do(Op::kKmovStore, 6), "kmovq qword ptr [0x10060000], k6"},
    {Do(Op::kKxor, 1, 2, 3), "kxorq k1, k2, k3"},
    {Do(Op::kBndmovLoad, 2, 9), "bndmov bnd2, xmmword ptr [0x10020000]"},
    {Do(Op::kBndmovStore, 3), "bndmov xmmword ptr [0x10060000], bnd3"},
    {Do(Op::kWrpkru, 4), "wrpkru"},
    {Do(Op::kRdpkru), "rdpkru"},
    {Do(Op::kXsave, 1, 0, 7, 0), "xsave [0x10044000]"},
    {Do(Op::kXsave, 1, 8, 7, 1), "xsave64 [0x10044008]"},
    {Do(Op::kXsavec, 2, 0, 7, 0), "xsavec [0x10048000]"},
    {Do(Op::kXsavec, 2, 0, 7, 1), "xsavec64 [0x10048000]"},
    {Do(Op::kXsaveopt, 3, 0, 7, 0), "xsaveopt [0x1004C000]"},
    {Do(Op::kXsaveopt, 3, 0, 7, 1), "xsaveopt64 [0x1004C000]"},
    {Do(Op::kXsaves, 0, 0, 7, 0), "xsaves [0x10040000]"},
    {Do(Op::kXsaves, 0, 0, 7, 1), "xsaves64 [0x10040000]"},
    {Do(Op::kXrstor, 0, 63, 7, 0), "xrstor [0x1004003F]"},
    {Do(Op::kXrstor, 0, 0, 7, 1), "xrstor64 [0x10040000]"},
    {Do(Op::kXrstors, 0, 0, 7, 0), "xrstors [0x10040000]"},
    {Do(Op::kXrstors, 0, 0, 7, 1), "xrstors64 [0x10040000]"},
    {Do(Op::kFxsave, 1, 16, 0), "fxsave [0x10044010]"},
    {Do(Op::kFxsave, 1, 16, 1), "fxsave64 [0x10044010]"},
    {Do(Op::kFxrstor, 1, 16, 0), "fxrstor [0x10044010]"},
    {Do(Op::kFxrstor, 1, 16, 1), "fxrstor64 [0x10044010]"},
    {Do(Op::kMemWrite, 1, 520, 5), "mov qword ptr [0x10044208], rbx"},
    {Do(Op::kMemFill, 1, 520, 5, 9), "rep movsb"},
    {Do(Op::kMemHeader, 2, 7, 0), "mov qword ptr [0x10048200], rbx"},
    {Do(Op::kXsetbv, 0, 7), "xsetbv"},
    {Do(Op::kXgetbv, 1), "xgetbv"},
    {Do(Op::kRdmsr, 1), "rdmsr"},
    {Do(Op::kWrmsr, 1, 5), "wrmsr"},
    {Do(Op::kCr0Ts, 1), "mov cr0, rbx"},
    {Do(Op::kCr4Bit, 1, 0), "mov cr4, rbx"},
    {Do(Op::kRaw, 3, 0xd9d0d9), "fnop"},
    {Do(Op::kExitOut), "out 0xE1, eax"},
    {Do(Op::kExitMmioRead, 0), "mov bl, byte ptr [0x20000000]"},
    {Do(Op::kExitMmioRead, 1), "mov bx, word ptr [0x20000000]"},
    {Do(Op::kExitMmioRead, 3), "mov rbx, qword ptr [0x20000000]"},
    {Do(Op::kExitMmioWrite, 2, 5), "mov dword ptr [0x20000000], ebx"},
    {Do(Op::kExitMmioVector, 0, 9, 5), "movdqu xmm9, xmmword ptr [0x20000000]"},
    {Do(Op::kExitMmioVector, 1, 10, 5), "movdqu xmmword ptr [0x20000000], xmm10"},
    {Do(Op::kExitCpuid), "cpuid"},
    {Do(Op::kExitHlt), "hlt"},
    {Do(Op::kExitMsr, 0), "rdmsr"},
    {Do(Op::kExitMsr, 1, 5), "wrmsr"},
    {Do(Op::kExitPageFault, 0), "mov ebx, dword ptr [0x30000000]"},
    {Do(Op::kExitPageFault, 1), "mov dword ptr [0x30000000], ebx"},
    {Do(Op::kLdtilecfg, 1, ~uint64_t{0}), "ldtilecfg zmmword ptr [0x10020000]"},
    {Do(Op::kSttilecfg), "sttilecfg zmmword ptr [0x10060000]"},
    {Do(Op::kTileloadd, 5, 9, 64), "tileloadd tmm5, [rbx+rcx*1]"},
    {Do(Op::kTilestored, 6), "tilestored [rbx+rcx*1], tmm6"},
    {Do(Op::kTilezero, 7), "tilezero tmm7"},
    {Do(Op::kTilerelease), "tilerelease"},
    {Do(Op::kTdpbssd, 1, 4, 7), "tdpbssd tmm1, tmm4, tmm7"},
    {Do(Op::kTdpbsud, 2, 0, 1), "tdpbsud tmm2, tmm0, tmm1"},
    {Do(Op::kTdpbusd, 3, 7, 0), "tdpbusd tmm3, tmm7, tmm0"},
    {Do(Op::kTdpbuud, 7, 6, 5), "tdpbuud tmm7, tmm6, tmm5"},
};

TEST(Code, OfEachStepDecodesToTheInstructionMeant) {
  for (const Meant& meant : kMeant) {
    const Plan plan = MakePlan(Of({meant.step}), RichKvm());
    ASSERT_EQ(plan.rows.size(), 1u) << meant.text;
    EXPECT_EQ(DecodeAt(plan.code, plan.rows[0].instruction).text, meant.text);
  }
}

TEST(Code, OfEveryGuestOperationIsInTheTableAbove) {
  for (const program::StepRow& row : program::StepTable()) {
    if (row.actor != program::Actor::kGuest) continue;
    EXPECT_TRUE(std::ranges::any_of(kMeant, [&](const Meant& m) { return m.step.op == row.op; }))
        << row.name;
  }
}

// Every operation with every register: decodes whole, one instruction after the other, and only the
// one under test has an operand that is part of the state under test.
TEST(Code, TouchesVectorStateInTheInstructionUnderTestOnly) {
  std::mt19937_64 random(8);
  for (const program::StepRow& row : program::StepTable()) {
    if (row.actor != program::Actor::kGuest || row.op == Op::kRaw) continue;
    for (int round = 0; round < 200; ++round) {
      const Plan plan =
          MakePlan(Of({Do(Op::kFninit), DrawStep(row, random), Do(Op::kFninit)}), RichKvm());
      ASSERT_EQ(plan.rows.size(), 3u);
      bool found = false;
      for (const Decoded& in : DecodeStep(plan, 1)) {
        if (in.at == plan.rows[1].instruction) {
          found = true;
        } else {
          EXPECT_FALSE(in.vector) << row.name << ": " << in.text;
        }
      }
      EXPECT_TRUE(found) << row.name;
    }
  }
}

// With MPX a branch without the BND prefix may reset BND0-3 (SDM vol. 1, appendix E; MpxWitness),
// which the model would have to know of. Raw code makes the guest's state unknown anyway.
TEST(Code, NoBranchLacksTheBndPrefix) {
  std::mt19937_64 random(11);
  unsigned branches = 0, instructions = 0;
  for (const trace::Platform& platform : {RichKvm(), RichNative()}) {
    for (const program::StepRow& row : program::StepTable()) {
      if (row.actor != program::Actor::kGuest || row.op == Op::kRaw) continue;
      for (int round = 0; round < 20; ++round) {
        const Plan plan = MakePlan(Of({Do(Op::kFninit), DrawStep(row, random)}), platform);
        for (uint32_t at = 0; at < plan.code.size(); ++instructions) {
          const Decoded in = DecodeAt(plan.code, at);
          ASSERT_NE(in.size, 0) << row.name;
          EXPECT_TRUE(!in.branch || in.bnd) << row.name << ": " << in.text;
          branches += in.branch;
          at += in.size;
        }
      }
    }
  }
  EXPECT_GT(branches, 1000u) << "the end of each run on native is one";
  EXPECT_GT(instructions, 10000u);
}

// Capstone as second opinion, on the encodings it knows.
TEST(Code, MeansTheSameToCapstone) {
  csh handle;
  ASSERT_EQ(cs_open(CS_ARCH_X86, CS_MODE_64, &handle), CS_ERR_OK);
  std::mt19937_64 random(9);
  std::set<std::string> known, unknown;
  for (const program::StepRow& row : program::StepTable()) {
    if (row.actor != program::Actor::kGuest || row.op == Op::kRaw) continue;
    for (int round = 0; round < 50; ++round) {
      const Plan plan = MakePlan(Of({DrawStep(row, random)}), RichKvm());
      for (const Decoded& in : DecodeStep(plan, 0)) {
        cs_insn* insn = nullptr;
        if (cs_disasm(handle, &plan.code[in.at], in.size, kCodeBase + in.at, 1, &insn) == 0) {
          unknown.insert(in.mnemonic);
          continue;
        }
        std::string mnemonic = insn->mnemonic;
        mnemonic.erase(0, mnemonic.rfind(' ') + 1);  // "rep movsb"
        if (mnemonic == "movabs") mnemonic = "mov";  // its word for MOV r64, imm64
        if (in.mnemonic == "bndmov" && mnemonic == "nop") {
          // It has no MPX: to a CPU without it these are hint NOPs.
          unknown.insert(in.mnemonic);
          mnemonic = in.mnemonic;
        }
        EXPECT_EQ(mnemonic, in.mnemonic) << in.text;
        EXPECT_EQ(insn->size, in.size) << in.text;
        known.insert(in.mnemonic);
        cs_free(insn, 1);
      }
    }
  }
  cs_close(&handle);
  EXPECT_GE(known.size(), 40u);
  for (const std::string& name : unknown) std::printf("Capstone does not know %s\n", name.c_str());
}

TEST(Code, EndsARunByOutUnderKvmAndByAJumpToTheReturnPadOnNative) {
  const Plan kvm = MakePlan(Of({Do(Op::kFninit), Do(Op::kEmms)}), RichKvm());
  const auto end = DecodeStep(kvm, 1);
  ASSERT_EQ(end.size(), 3u);
  EXPECT_EQ(end[1].text, "mov eax, 0x01");
  EXPECT_EQ(end[2].text, "out 0xE0, eax");
  const Plan native = MakePlan(Of({Do(Op::kFninit), Do(Op::kEmms)}), RichNative());
  EXPECT_EQ(DecodeStep(native, 1).back().text, "bnd jmp 0x10000000");
}

// Raw bytes that end within an instruction swallow NOPs, never the next step.
TEST(Code, BehindRawBytesTheNextStepBeginsWhereAnInstructionBegins) {
  std::mt19937_64 random(10);
  for (int round = 0; round < 5000; ++round) {
    Step raw = Do(Op::kRaw, 1 + random() % 15, random(), random() & 0xffffffffffffff);
    const Plan plan = MakePlan(Of({raw, Do(Op::kStmxcsr)}), RichKvm());
    uint32_t at = plan.rows[0].code;
    while (at < plan.rows[1].code) {
      const Decoded in = DecodeAt(plan.code, at);
      at += in.size == 0 ? 1 : in.size;  // a CPU would stop at #UD
    }
    EXPECT_EQ(at, plan.rows[1].code);
  }
}

}  // namespace
}  // namespace fpswap::plan
