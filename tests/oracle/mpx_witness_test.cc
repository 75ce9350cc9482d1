// SPDX-License-Identifier: GPL-2.0-or-later
//
// MPX on this CPU, where it has it: what a branch does to BND0-3 (SDM vol. 1, appendix E: "BND
// prefix", BNDCFGU.BNDPRESERVE). The model has no branches, for no code of a plan branches without
// the prefix (StepCode.NoBranchLacksTheBndPrefix); this is the ground of that.
//
// CPUs with MPX are gone, but QEMU's user mode has it:
//   qemu-x86_64 -cpu max build/test_oracle --gtest_filter='MpxWitness.*'
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

namespace fpswap::cpu::testing {
namespace {

FPSWAP_WITNESS(fpswap_mpx_nothing, "nop");
// Assemblers have forgotten it: BNDMOV BND2, [RSI] and back.
FPSWAP_WITNESS(fpswap_mpx_load, ".byte 0x66, 0x0f, 0x1a, 0x16");
FPSWAP_WITNESS(fpswap_mpx_store, ".byte 0x66, 0x0f, 0x1b, 0x16");
FPSWAP_WITNESS(fpswap_mpx_jmp, "jmp 2f\n2: .byte 0xe9, 0, 0, 0, 0");
FPSWAP_WITNESS(fpswap_mpx_jmp_indirect, "lea 2f(%rip), %rdx\n jmp *%rdx\n2:");
FPSWAP_WITNESS(fpswap_mpx_jcc, "cmp %rax, %rax\n .byte 0x0f, 0x84, 0, 0, 0, 0");
FPSWAP_WITNESS(fpswap_mpx_call, "call 2f\n2: pop %rdx");
FPSWAP_WITNESS(fpswap_mpx_ret, "lea 2f(%rip), %rdx\n push %rdx\n ret\n2:");
FPSWAP_WITNESS(fpswap_mpx_bnd_jmp, ".byte 0xf2, 0xe9, 0, 0, 0, 0");

constexpr uint64_t kEnabled = 1, kPreserve = 2;

class MpxWitness : public ::testing::Test {
 protected:
  void SetUp() override {
    if ((Host().xcr0 & xstate::kMpx) != xstate::kMpx || !Host().features.mpx) {
      GTEST_SKIP() << "this CPU has no MPX";
    }
    const xstate::MutableImage in(probe_.in());
    in.set_xstate_bv(in.view().xstate_bv() | xstate::kMpx);
    std::ranges::copy(kBounds, Bounds(probe_.in()).begin());
  }

  // BND0-3 behind an instruction that was run with this BNDCFGU.
  std::array<uint8_t, 64> After(WitnessFunction function, uint64_t bndcfgu) {
    const auto bndcsr =
        xstate::MutableImage(probe_.in()).component(Host().features.xsave, Component::kBndcsr);
    xstate::WriteAt(bndcsr, 0, bndcfgu);
    EXPECT_EQ(probe_.Run(function, 0), -1);
    std::array<uint8_t, 64> out{};
    const auto& sub = Host().features.xsave.sub[static_cast<unsigned>(Component::kBndregs)];
    std::ranges::copy(xstate::Slice(probe_.out(), sub.offset, sub.size), out.begin());
    return out;
  }

  static std::span<uint8_t> Bounds(std::span<uint8_t> image) {
    return xstate::MutableImage(image).component(Host().features.xsave, Component::kBndregs);
  }

  static constexpr std::array<uint8_t, 64> kBounds = [] {
    std::array<uint8_t, 64> bytes{};
    for (unsigned i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(3 * i + 1);
    return bytes;
  }();
  static constexpr std::array<uint8_t, 64> kInitial{};

  Probe probe_;
};

TEST_F(MpxWitness, ABranchWithoutThePrefixResetsTheBoundsUnlessTheyArePreserved) {
  EXPECT_EQ(After(fpswap_mpx_nothing, kEnabled), kBounds);
  for (const WitnessFunction branch :
       {fpswap_mpx_jmp, fpswap_mpx_jmp_indirect, fpswap_mpx_jcc, fpswap_mpx_call, fpswap_mpx_ret}) {
    EXPECT_EQ(After(branch, kEnabled), kInitial);
    EXPECT_EQ(After(branch, kEnabled | kPreserve), kBounds);
    EXPECT_EQ(After(branch, 0), kBounds);
  }
  EXPECT_EQ(After(fpswap_mpx_bnd_jmp, kEnabled), kBounds);
}

TEST_F(MpxWitness, BndmovActsWhereBndcfguEnablesIt) {
  for (unsigned i = 0; i < 16; ++i) probe_.memory()[i] = static_cast<uint8_t>(0x80 + i);
  std::array<uint8_t, 64> loaded = kBounds;
  std::copy_n(probe_.memory().begin(), 16, loaded.begin() + 32);
  EXPECT_EQ(After(fpswap_mpx_load, 0), kBounds);
  EXPECT_EQ(After(fpswap_mpx_load, kEnabled), loaded);
  After(fpswap_mpx_store, 0);
  EXPECT_EQ(probe_.memory()[0], 0x80);
  After(fpswap_mpx_store, kEnabled);
  EXPECT_TRUE(std::equal(kBounds.begin() + 32, kBounds.begin() + 48, probe_.memory().begin()));
}

}  // namespace
}  // namespace fpswap::cpu::testing
