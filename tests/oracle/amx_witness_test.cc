// SPDX-License-Identifier: GPL-2.0-or-later
//
// AMX instructions on this CPU against the model, where the CPU has tiles and the kernel grants
// them. Without AMX all of them are #UD, in both.
#include <gtest/gtest.h>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(witness_ldtilecfg, "ldtilecfg (%rsi)");
FPSWAP_WITNESS(witness_sttilecfg, "sttilecfg (%rsi)");
FPSWAP_WITNESS(witness_tilerelease, "tilerelease");
FPSWAP_WITNESS(witness_tileloadd0, "tileloadd (%rsi,%rcx,1), %tmm0");
FPSWAP_WITNESS(witness_tileloadd7, "tileloadd (%rsi,%rcx,1), %tmm7");
FPSWAP_WITNESS(witness_tilestored1, "tilestored %tmm1, (%rsi,%rcx,1)");
FPSWAP_WITNESS(witness_tilestored6, "tilestored %tmm6, (%rsi,%rcx,1)");
FPSWAP_WITNESS(witness_tilezero2, "tilezero %tmm2");
FPSWAP_WITNESS(witness_tilezero5, "tilezero %tmm5");
// The manual's order of operands is the reverse: dst, a, b.
FPSWAP_WITNESS(witness_tdpbssd, "tdpbssd %tmm2, %tmm1, %tmm0");
FPSWAP_WITNESS(witness_tdpbsud, "tdpbsud %tmm5, %tmm4, %tmm3");
FPSWAP_WITNESS(witness_tdpbusd, "tdpbusd %tmm0, %tmm7, %tmm6");
FPSWAP_WITNESS(witness_tdpbuud, "tdpbuud %tmm4, %tmm1, %tmm7");
// TDPBSSD TMM0, TMM0, TMM1, which assemblers refuse.
FPSWAP_WITNESS(witness_tdpbssd_same, ".byte 0xc4, 0xe2, 0x73, 0x5e, 0xc0");
// TILEZERO TMM8: VEX.R extends the register's number, and there are eight tiles.
FPSWAP_WITNESS(witness_tilezero8, ".byte 0xc4, 0x62, 0x7b, 0x49, 0xc0");

namespace fpswap::cpu::testing {
namespace {

using Dot = Cpu::Dot;

bool HasTiles() { return Host().features.amx_tile && (Host().xcr0 & xstate::kAmx) == xstate::kAmx; }

// A configuration with one byte changed now and then.
void PrepareConfig(Random& random, Operands& operands) {
  FillTilecfg(random, operands.memory.first(64));
  if (random.OneIn(3)) {
    operands.memory[random.Below(64)] ^= static_cast<uint8_t>(1u << random.Below(8));
  }
  if (random.OneIn(8)) operands.memory[0] = 0;
}

void PrepareStride(Random& random, Operands& operands) {
  operands.rcx = random.OneIn(2) ? 64 : random.Below(256);
}

Result Ldtilecfg(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.Ldtilecfg(operands.memory.first<64>());
}
Result Sttilecfg(Cpu& cpu, Operands& operands, const Operands&) {
  return cpu.Sttilecfg(operands.memory.first<64>());
}
Result Tilerelease(Cpu& cpu, Operands&, const Operands&) { return cpu.Tilerelease(); }

using Model = std::function<Result(Cpu&, Operands&, const Operands&)>;

Model Load(unsigned tile) {
  return [tile](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.Tileloadd(tile, operands.memory, operands.rcx);
  };
}
Model Store(unsigned tile) {
  return [tile](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.Tilestored(tile, operands.memory, operands.rcx);
  };
}
Model Zero(unsigned tile) {
  return [tile](Cpu& cpu, Operands&, const Operands&) { return cpu.Tilezero(tile); };
}
Model Tdp(Dot signs, unsigned dst, unsigned a, unsigned b) {
  return [=](Cpu& cpu, Operands&, const Operands&) { return cpu.Tdp(signs, dst, a, b); };
}

class AmxWitness : public ::testing::TestWithParam<Scenario> {};

TEST_P(AmxWitness, LeavesTheStateThatTheModelLeaves) {
  Scenario scenario = GetParam();
  scenario.available = HasTiles();
  RunScenario(scenario);
}

TEST_P(AmxWitness, IsAnInvalidOpcodeWithoutTiles) {
  if (HasTiles()) GTEST_SKIP() << "this CPU has tiles";
  RunScenario(GetParam(), 20);
}

const Scenario kScenarios[] = {
    {.name = "ldtilecfg",
     .function = witness_ldtilecfg,
     .prepare = PrepareConfig,
     .model = Ldtilecfg},
    {.name = "sttilecfg", .function = witness_sttilecfg, .model = Sttilecfg},
    {.name = "tilerelease", .function = witness_tilerelease, .model = Tilerelease},
    {.name = "tileloadd_tmm0",
     .function = witness_tileloadd0,
     .prepare = PrepareStride,
     .model = Load(0)},
    {.name = "tileloadd_tmm7",
     .function = witness_tileloadd7,
     .prepare = PrepareStride,
     .model = Load(7)},
    {.name = "tilestored_tmm1",
     .function = witness_tilestored1,
     .prepare = PrepareStride,
     .model = Store(1)},
    {.name = "tilestored_tmm6",
     .function = witness_tilestored6,
     .prepare = PrepareStride,
     .model = Store(6)},
    {.name = "tilezero_tmm2", .function = witness_tilezero2, .model = Zero(2)},
    {.name = "tilezero_tmm5", .function = witness_tilezero5, .model = Zero(5)},
    {.name = "tilezero_tmm8", .function = witness_tilezero8, .model = Zero(8)},
    {.name = "tdpbssd", .function = witness_tdpbssd, .model = Tdp(Dot::kSs, 0, 1, 2)},
    {.name = "tdpbsud", .function = witness_tdpbsud, .model = Tdp(Dot::kSu, 3, 4, 5)},
    {.name = "tdpbusd", .function = witness_tdpbusd, .model = Tdp(Dot::kUs, 6, 7, 0)},
    {.name = "tdpbuud", .function = witness_tdpbuud, .model = Tdp(Dot::kUu, 7, 1, 4)},
    {.name = "tdpbssd_same_tiles",
     .function = witness_tdpbssd_same,
     .model = Tdp(Dot::kSs, 0, 0, 1)},
};

INSTANTIATE_TEST_SUITE_P(Cpu, AmxWitness, ::testing::ValuesIn(kScenarios), ScenarioName);

}  // namespace
}  // namespace fpswap::cpu::testing
