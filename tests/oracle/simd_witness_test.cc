// SPDX-License-Identifier: GPL-2.0-or-later
//
// SSE, AVX, AVX-512, opmask and PKRU instructions on this CPU against the model. What the CPU or
// its XCR0 lacks is #UD in both.
#include <gtest/gtest.h>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(witness_movdqu0, "movdqu (%rsi), %xmm0");
FPSWAP_WITNESS(witness_movdqu15, "movdqu (%rsi), %xmm15");
FPSWAP_WITNESS(witness_vmovdqu128_3, "vmovdqu (%rsi), %xmm3");
FPSWAP_WITNESS(witness_vmovdqu128_12, "vmovdqu (%rsi), %xmm12");
FPSWAP_WITNESS(witness_vmovdqu256_0, "vmovdqu (%rsi), %ymm0");
FPSWAP_WITNESS(witness_vmovdqu256_9, "vmovdqu (%rsi), %ymm9");
FPSWAP_WITNESS(witness_evex128_20, "vmovdqu64 (%rsi), %xmm20");
FPSWAP_WITNESS(witness_evex256_31, "vmovdqu64 (%rsi), %ymm31");
FPSWAP_WITNESS(witness_evex512_0, "vmovdqu64 (%rsi), %zmm0");
FPSWAP_WITNESS(witness_evex512_15, "vmovdqu64 (%rsi), %zmm15");
FPSWAP_WITNESS(witness_evex512_16, "vmovdqu64 (%rsi), %zmm16");
FPSWAP_WITNESS(witness_evex512_31, "vmovdqu64 (%rsi), %zmm31");
FPSWAP_WITNESS(witness_vzeroupper, "vzeroupper");
FPSWAP_WITNESS(witness_vzeroall, "vzeroall");
FPSWAP_WITNESS(witness_kmov0, "kmovq (%rsi), %k0");
FPSWAP_WITNESS(witness_kmov7, "kmovq (%rsi), %k7");
FPSWAP_WITNESS(witness_ldmxcsr, "ldmxcsr (%rsi)");
FPSWAP_WITNESS(witness_rdpkru, "rdpkru");
FPSWAP_WITNESS(witness_wrpkru, "wrpkru");

namespace fpswap::cpu::testing {
namespace {

using Model = std::function<Result(Cpu&, Operands&, const Operands&)>;
using Encoding = Cpu::Encoding;

Model Load(Encoding encoding, unsigned reg, size_t bytes) {
  return [=](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.WriteVector(encoding, reg, operands.memory.first(bytes));
  };
}
Model On(Result (Cpu::*f)()) {
  return [f](Cpu& cpu, Operands&, const Operands&) { return (cpu.*f)(); };
}
Model Kmov(unsigned k) {
  return [=](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.WriteOpmask(k, xstate::ReadAt<uint64_t>(operands.memory, 0));
  };
}

// Mostly valid values, and single reserved bits.
void PrepareMxcsr(Random& random, Operands& operands) {
  uint32_t value = static_cast<uint32_t>(random.Next()) & Host().features.mxcsr_mask;
  if (random.OneIn(2)) value ^= 1u << random.Below(32);
  xstate::WriteAt(operands.memory, 0, value);
}
Result Ldmxcsr(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.Ldmxcsr(xstate::ReadAt<uint32_t>(operands.memory, 0));
}

// Key 0 must stay open: XSAVE comes next.
void PreparePkru(Random& random, Operands& operands) {
  operands.rax = random.Next() & 0xfffffffc;
  operands.rcx = random.OneIn(4) ? random.Below(3) : 0;
  operands.rdx = random.OneIn(4) ? random.Below(3) : 0;
}
Result Rdpkru(Cpu& cpu, Operands& operands, const Operands&) {
  uint32_t value = 0;
  if (Result fault = cpu.Rdpkru(static_cast<uint32_t>(operands.rcx), &value)) return fault;
  operands.rax = value;
  operands.rdx = 0;
  return std::nullopt;
}
Result Wrpkru(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.Wrpkru(static_cast<uint32_t>(operands.rcx), static_cast<uint32_t>(operands.rdx),
                    static_cast<uint32_t>(operands.rax));
}

class SimdWitness : public ::testing::TestWithParam<Scenario> {};

TEST_P(SimdWitness, LeavesTheStateThatTheModelLeaves) { RunScenario(GetParam()); }

const Scenario kScenarios[] = {
    {.name = "movdqu_xmm0", .function = witness_movdqu0, .model = Load(Encoding::kSse, 0, 16)},
    {.name = "movdqu_xmm15", .function = witness_movdqu15, .model = Load(Encoding::kSse, 15, 16)},
    {.name = "vmovdqu_xmm3",
     .function = witness_vmovdqu128_3,
     .model = Load(Encoding::kVex128, 3, 16)},
    {.name = "vmovdqu_xmm12",
     .function = witness_vmovdqu128_12,
     .model = Load(Encoding::kVex128, 12, 16)},
    {.name = "vmovdqu_ymm0",
     .function = witness_vmovdqu256_0,
     .model = Load(Encoding::kVex256, 0, 32)},
    {.name = "vmovdqu_ymm9",
     .function = witness_vmovdqu256_9,
     .model = Load(Encoding::kVex256, 9, 32)},
    {.name = "vmovdqu64_xmm20",
     .function = witness_evex128_20,
     .model = Load(Encoding::kEvex128, 20, 16)},
    {.name = "vmovdqu64_ymm31",
     .function = witness_evex256_31,
     .model = Load(Encoding::kEvex256, 31, 32)},
    {.name = "vmovdqu64_zmm0",
     .function = witness_evex512_0,
     .model = Load(Encoding::kEvex512, 0, 64)},
    {.name = "vmovdqu64_zmm15",
     .function = witness_evex512_15,
     .model = Load(Encoding::kEvex512, 15, 64)},
    {.name = "vmovdqu64_zmm16",
     .function = witness_evex512_16,
     .model = Load(Encoding::kEvex512, 16, 64)},
    {.name = "vmovdqu64_zmm31",
     .function = witness_evex512_31,
     .model = Load(Encoding::kEvex512, 31, 64)},
    {.name = "vzeroupper", .function = witness_vzeroupper, .model = On(&Cpu::Vzeroupper)},
    {.name = "vzeroall", .function = witness_vzeroall, .model = On(&Cpu::Vzeroall)},
    {.name = "kmovq_k0", .function = witness_kmov0, .model = Kmov(0)},
    {.name = "kmovq_k7", .function = witness_kmov7, .model = Kmov(7)},
    {.name = "ldmxcsr", .function = witness_ldmxcsr, .prepare = PrepareMxcsr, .model = Ldmxcsr},
    {.name = "rdpkru", .function = witness_rdpkru, .prepare = PreparePkru, .model = Rdpkru},
    {.name = "wrpkru", .function = witness_wrpkru, .prepare = PreparePkru, .model = Wrpkru},
};

INSTANTIATE_TEST_SUITE_P(Cpu, SimdWitness, ::testing::ValuesIn(kScenarios), ScenarioName);

}  // namespace
}  // namespace fpswap::cpu::testing
