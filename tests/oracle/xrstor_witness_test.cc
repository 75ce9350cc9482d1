// SPDX-License-Identifier: GPL-2.0-or-later
//
// XRSTOR of both formats and FXRSTOR on this CPU against the model.
#include <gtest/gtest.h>

#include <algorithm>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(witness_xrstor, "xrstor (%rsi)");
FPSWAP_WITNESS(witness_xrstor64, "xrstor64 (%rsi)");
FPSWAP_WITNESS(witness_fxrstor, "fxrstor (%rsi)");
FPSWAP_WITNESS(witness_fxrstor64, "fxrstor64 (%rsi)");

namespace fpswap::cpu::testing {
namespace {

using xstate::MutableImage;

auto Xrstor(bool wide) {
  return [=](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.Xrstor(operands.memory, operands.address, operands.mask(), wide);
  };
}
auto Fxrstor(bool wide) {
  return [=](Cpu& cpu, Operands& operands, const Operands&) {
    return cpu.Fxrstor(operands.memory, operands.address, wide);
  };
}

void PrepareStandard(Random& random, Operands& operands) {
  FillStandardImage(random, Host().features, Host().xcr0, operands.memory);
}

void PrepareCompacted(Random& random, Operands& operands) {
  FillCompactedImage(random, Host().features, Host().xcr0, operands.memory);
}

// Valid but for MXCSR, which has a reserved bit in half of the images; whether it is looked at
// depends on RFBM, XSTATE_BV and the format.
void SpoilMxcsr(Random& random, Operands& operands) {
  if (random.OneIn(2)) {
    xstate::WriteAt(operands.memory, 24, static_cast<uint32_t>(1) << random.Below(32));
  }
}

class LoadWitness : public ::testing::TestWithParam<Scenario> {};

TEST_P(LoadWitness, LeavesTheStateThatTheModelLeaves) { RunScenario(GetParam()); }

const Scenario kLoads[] = {
    {.name = "xrstor_standard",
     .function = witness_xrstor,
     .prepare = PrepareStandard,
     .model = Xrstor(false),
     .misalign = true},
    {.name = "xrstor64_standard",
     .function = witness_xrstor64,
     .prepare = PrepareStandard,
     .model = Xrstor(true),
     .misalign = true},
    // Where XSAVEC is not enumerated these are all #GP, in the model too.
    {.name = "xrstor_compacted",
     .function = witness_xrstor,
     .prepare = PrepareCompacted,
     .model = Xrstor(false),
     .misalign = true},
    {.name = "xrstor64_compacted",
     .function = witness_xrstor64,
     .prepare = PrepareCompacted,
     .model = Xrstor(true),
     .misalign = true},
    {.name = "xrstor64_standard_mxcsr",
     .function = witness_xrstor64,
     .prepare =
         [](Random& r, Operands& o) {
           PrepareStandard(r, o);
           SpoilMxcsr(r, o);
         },
     .model = Xrstor(true)},
    {.name = "xrstor64_compacted_mxcsr",
     .function = witness_xrstor64,
     .prepare =
         [](Random& r, Operands& o) {
           PrepareCompacted(r, o);
           SpoilMxcsr(r, o);
         },
     .model = Xrstor(true)},
    {.name = "fxrstor",
     .function = witness_fxrstor,
     .prepare = PrepareStandard,
     .model = Fxrstor(false),
     .misalign = true},
    {.name = "fxrstor64",
     .function = witness_fxrstor64,
     .prepare = PrepareStandard,
     .model = Fxrstor(true),
     .misalign = true},
    {.name = "fxrstor64_mxcsr",
     .function = witness_fxrstor64,
     .prepare =
         [](Random& r, Operands& o) {
           PrepareStandard(r, o);
           SpoilMxcsr(r, o);
         },
     .model = Fxrstor(true)},
};

INSTANTIATE_TEST_SUITE_P(Cpu, LoadWitness, ::testing::ValuesIn(kLoads), ScenarioName);

// Every bit of the header flipped alone, in images that hold nothing, everything, or something.
void FlipEveryHeaderBit(void (*prepare)(Random&, Operands&)) {
  for (unsigned bit = 0; bit < 8 * xstate::kHeaderSize; ++bit) {
    Scenario scenario = {.name = "xrstor64, header bit flipped",
                         .function = witness_xrstor64,
                         .prepare =
                             [=](Random& random, Operands& operands) {
                               prepare(random, operands);
                               const MutableImage image(operands.memory);
                               if (random.OneIn(4)) image.set_xstate_bv(0);
                               const uint32_t at = xstate::kHeaderOffset + bit / 8;
                               operands.memory[at] ^= static_cast<uint8_t>(1u << bit % 8);
                             },
                         .model = Xrstor(true)};
    SCOPED_TRACE("header bit " + std::to_string(bit));
    RunScenario(scenario, 16);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(XrstorWitness, FaultsOnTheSameHeaderBitsInTheStandardFormat) {
  FlipEveryHeaderBit([](Random& random, Operands& operands) {
    PrepareStandard(random, operands);
    // Where bytes 63:24 are not looked at they may hold anything; single bits are the point here.
    std::ranges::fill(xstate::Slice(operands.memory, 536, 40), uint8_t{0});
  });
}

TEST(XrstorWitness, FaultsOnTheSameHeaderBitsInTheCompactedFormat) {
  FlipEveryHeaderBit(PrepareCompacted);
}

}  // namespace
}  // namespace fpswap::cpu::testing
