// SPDX-License-Identifier: GPL-2.0-or-later
//
// x87 and MMX instructions on this CPU against the model: from any stack, tags, masks and pending
// exceptions.
#include <gtest/gtest.h>

#include <algorithm>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(witness_fninit, "fninit");
FPSWAP_WITNESS(witness_fnclex, "fnclex");
FPSWAP_WITNESS(witness_fldcw, "fldcw (%rsi)");
FPSWAP_WITNESS(witness_fnstsw, "fnstsw (%rsi)");
FPSWAP_WITNESS(witness_fnclex_fnstsw, "fnclex\n  fnstsw (%rsi)");
FPSWAP_WITNESS(witness_fld, "fldt (%rsi)");
FPSWAP_WITNESS(witness_fstp, "fstpt (%rsi)");
FPSWAP_WITNESS(witness_fxch0, "fxch %st(0)");
FPSWAP_WITNESS(witness_fxch1, "fxch %st(1)");
FPSWAP_WITNESS(witness_fxch5, "fxch %st(5)");
FPSWAP_WITNESS(witness_fxch7, "fxch %st(7)");
FPSWAP_WITNESS(witness_fchs, "fchs");
FPSWAP_WITNESS(witness_ffree0, "ffree %st(0)");
FPSWAP_WITNESS(witness_ffree3, "ffree %st(3)");
FPSWAP_WITNESS(witness_ffree7, "ffree %st(7)");
FPSWAP_WITNESS(witness_fincstp, "fincstp");
FPSWAP_WITNESS(witness_fdecstp, "fdecstp");
FPSWAP_WITNESS(witness_mmx_load0, "movq (%rsi), %mm0");
FPSWAP_WITNESS(witness_mmx_load6, "movq (%rsi), %mm6");
FPSWAP_WITNESS(witness_mmx_store0, "movq %mm0, (%rsi)");
FPSWAP_WITNESS(witness_mmx_store5, "movq %mm5, (%rsi)");
FPSWAP_WITNESS(witness_pxor12, "pxor %mm2, %mm1");
FPSWAP_WITNESS(witness_pxor33, "pxor %mm3, %mm3");
FPSWAP_WITNESS(witness_emms, "emms");
// What an exception leaves behind is seen through a save that shows the selectors too.
FPSWAP_WITNESS(witness_fld_xsave, "fldt (%rsi)\n  xsave 64(%rsi)");
FPSWAP_WITNESS(witness_fchs_fxsave, "fchs\n  fxsave 64(%rsi)");

namespace fpswap::cpu::testing {
namespace {

using Model = std::function<Result(Cpu&, Operands&, const Operands&)>;

// An instruction without memory operand.
Model On(Result (Cpu::*f)()) {
  return [f](Cpu& cpu, Operands&, const Operands&) { return (cpu.*f)(); };
}
Model OnRip(Result (Cpu::*f)(uint64_t)) {
  return [f](Cpu& cpu, Operands&, const Operands&) { return (cpu.*f)(0); };
}
Model OnRegister(Result (Cpu::*f)(unsigned), unsigned i) {
  return [=](Cpu& cpu, Operands&, const Operands&) { return (cpu.*f)(i); };
}
Model Fxch(unsigned i) {
  return [=](Cpu& cpu, Operands&, const Operands&) { return cpu.Fxch(i, 0); };
}
Model MmxLoad(unsigned mm) {
  return [=](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.MmxMovq(mm, xstate::ReadAt<uint64_t>(operands.memory, 0));
  };
}
Model MmxStore(unsigned mm) {
  return [=](Cpu& cpu, Operands& operands, const Operands&) -> Result {
    uint64_t value = 0;
    if (Result fault = cpu.MmxRead(mm, &value)) return fault;
    xstate::WriteAt(operands.memory, 0, value);
    return std::nullopt;
  };
}
Model Pxor(unsigned dst, unsigned src) {
  return [=](Cpu& cpu, Operands&, const Operands&) { return cpu.MmxPxor(dst, src); };
}

Result Fld(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.FldTbyte(operands.memory.first<10>(), operands.address);
}
Result Fstp(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.FstpTbyte(operands.memory.first<10>(), operands.address);
}
Result Fldcw(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.Fldcw(xstate::ReadAt<uint16_t>(operands.memory, 0));
}

// The state word in the registers, which a save would have put together anew.
Result Fnstsw(Cpu& cpu, Operands& operands, const Operands&) {
  xstate::WriteAt(operands.memory, 0, cpu.regs.x87.fsw);
  return std::nullopt;
}

Result FnclexFnstsw(Cpu& cpu, Operands& operands, const Operands& seen) {
  if (Result fault = cpu.Fnclex()) return fault;
  return Fnstsw(cpu, operands, seen);
}

constexpr uint64_t kX87Only = 1;

// FLD, then XSAVE of x87 state to an area 64 bytes up, without REX.W.
Result FldXsave(Cpu& cpu, Operands& operands, const Operands& seen) {
  if (Result fault = Fld(cpu, operands, seen)) return fault;
  const std::span<uint8_t> area = operands.memory.subspan(64);
  const std::vector<uint8_t> before(area.begin(), area.end());
  SeenChoices choices(Host().features, before, seen.memory.subspan(64), /*wide=*/false);
  return cpu.Xsave(SaveForm::kXsave, area, operands.address + 64, kX87Only, false, choices);
}

Result FchsFxsave(Cpu& cpu, Operands& operands, const Operands& seen) {
  if (Result fault = cpu.Fchs(0)) return fault;
  const std::span<uint8_t> area = operands.memory.subspan(64);
  const std::vector<uint8_t> before(area.begin(), area.end());
  SeenChoices choices(Host().features, before, seen.memory.subspan(64), /*wide=*/false);
  return cpu.Fxsave(area, operands.address + 64, false, choices);
}

void SaveX87Only(Random&, Operands& operands) {
  operands.rax = kX87Only;
  operands.rdx = 0;
}

class X87Witness : public ::testing::TestWithParam<Scenario> {};

TEST_P(X87Witness, LeavesTheStateThatTheModelLeaves) { RunScenario(GetParam()); }

const Scenario kScenarios[] = {
    {.name = "fninit", .function = witness_fninit, .model = On(&Cpu::Fninit)},
    {.name = "fnclex", .function = witness_fnclex, .model = On(&Cpu::Fnclex)},
    {.name = "fldcw", .function = witness_fldcw, .model = Fldcw},
    {.name = "fnstsw", .function = witness_fnstsw, .model = Fnstsw},
    {.name = "fnclex_then_fnstsw", .function = witness_fnclex_fnstsw, .model = FnclexFnstsw},
    {.name = "fld_m80", .function = witness_fld, .model = Fld},
    {.name = "fstp_m80", .function = witness_fstp, .model = Fstp},
    {.name = "fxch_st0", .function = witness_fxch0, .model = Fxch(0)},
    {.name = "fxch_st1", .function = witness_fxch1, .model = Fxch(1)},
    {.name = "fxch_st5", .function = witness_fxch5, .model = Fxch(5)},
    {.name = "fxch_st7", .function = witness_fxch7, .model = Fxch(7)},
    {.name = "fchs", .function = witness_fchs, .model = OnRip(&Cpu::Fchs)},
    {.name = "ffree_st0", .function = witness_ffree0, .model = OnRegister(&Cpu::Ffree, 0)},
    {.name = "ffree_st3", .function = witness_ffree3, .model = OnRegister(&Cpu::Ffree, 3)},
    {.name = "ffree_st7", .function = witness_ffree7, .model = OnRegister(&Cpu::Ffree, 7)},
    {.name = "fincstp", .function = witness_fincstp, .model = On(&Cpu::Fincstp)},
    {.name = "fdecstp", .function = witness_fdecstp, .model = On(&Cpu::Fdecstp)},
    {.name = "movq_mm0_load", .function = witness_mmx_load0, .model = MmxLoad(0)},
    {.name = "movq_mm6_load", .function = witness_mmx_load6, .model = MmxLoad(6)},
    {.name = "movq_mm0_store", .function = witness_mmx_store0, .model = MmxStore(0)},
    {.name = "movq_mm5_store", .function = witness_mmx_store5, .model = MmxStore(5)},
    {.name = "pxor_mm1_mm2", .function = witness_pxor12, .model = Pxor(1, 2)},
    {.name = "pxor_mm3_mm3", .function = witness_pxor33, .model = Pxor(3, 3)},
    {.name = "emms", .function = witness_emms, .model = On(&Cpu::Emms)},
    {.name = "fld_m80_then_xsave",
     .function = witness_fld_xsave,
     .prepare = SaveX87Only,
     .model = FldXsave},
    {.name = "fchs_then_fxsave", .function = witness_fchs_fxsave, .model = FchsFxsave},
};

INSTANTIATE_TEST_SUITE_P(Cpu, X87Witness, ::testing::ValuesIn(kScenarios), ScenarioName);

}  // namespace
}  // namespace fpswap::cpu::testing
