// SPDX-License-Identifier: GPL-2.0-or-later
//
// XCR0: which values XSETBV accepts, and in which order it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {
namespace {

Features With(uint64_t xcr0) {
  Features features;
  features.xsave = xstate::XsaveCpuid::Typical(xcr0, 0);
  return features;
}

// Every value that the manual allows, written out as what one may build up (SDM 13.3), on a part
// that has it all but APX.
std::set<uint64_t> LegalValues() {
  std::set<uint64_t> values;
  for (const uint64_t vectors : {0x1, 0x3, 0x7, 0xe7}) {
    for (const uint64_t mpx : {0x0, 0x18}) {
      for (const uint64_t pkru : {0x0, 0x200}) {
        for (const uint64_t amx : {0x0, 0x60000}) values.insert(vectors | mpx | pkru | amx);
      }
    }
  }
  return values;
}

// Every value of the bits that are defined so far, APX among them: 2^20 for each part, and every
// part that supports what can be enabled together, SSE at least.
TEST(XsetbvTable, AcceptsExactlyTheLegalValuesForEverySetOfSupportedComponents) {
  const std::set<uint64_t> legal = LegalValues();
  std::vector<bool> is_legal(size_t{1} << xstate::kComponentCount);
  for (const uint64_t value : legal) is_legal[value] = true;
  for (const uint64_t supported : legal) {
    if ((supported & 2) == 0) continue;
    const Features features = With(supported);
    unsigned accepted = 0;
    for (uint64_t value = 0; value < is_legal.size(); ++value) {
      const bool expected = (value & ~supported) == 0 && is_legal[value];
      if (Cpu::XcrValueValid(features, value) != expected) {
        FAIL() << std::hex << "XCR0 " << value << " on a part with " << supported;
      }
      accepted += expected;
    }
    EXPECT_EQ(accepted, std::ranges::count_if(
                            legal, [&](uint64_t value) { return (value & ~supported) == 0; }));
  }
}

TEST(Xsetbv, LoadsALegalValueAndFaultsOnAnyOther) {
  const Features features = With(0x602ff);
  for (const uint64_t value : {0x7ull, 0x602ffull, 0x5ull, 0x0ull, 0x20003ull}) {
    Cpu cpu(features);
    cpu.cpl = 0;
    const bool legal = LegalValues().contains(value);
    EXPECT_EQ(cpu.Xsetbv(0, value), (legal ? Result{} : Result{Fault{kGP, 0}}));
    EXPECT_EQ(cpu.xcr0, legal ? value : 1u);
  }
}

TEST(Xsetbv, RefusesEveryBitThatCpuidDoesNotList) {
  const Features features = With(0x602ff);
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t value = 0x602ff ^ uint64_t { 1 } << bit;
    if ((value & ~uint64_t{0x602ff}) == 0) continue;
    EXPECT_FALSE(Cpu::XcrValueValid(features, value)) << "bit " << bit;
  }
}

TEST(Xsetbv, IsUndefinedWithoutOsxsaveBeforeAnythingElse) {
  const Features features = With(0x7);
  Cpu cpu(features);
  cpu.cr4_osxsave = false;
  EXPECT_EQ(cpu.Xsetbv(7, 0), (Fault{kUD, 0}));  // CPL 3, bad ECX and bad value besides
  uint64_t value = 0;
  class : public Choices {
    bool InitialIsInUse(Component) override { return false; }
    bool OmitUnmodified(Component) override { return false; }
    void ResolvePointers(X87&) override {}
  } choices;
  EXPECT_EQ(cpu.Xgetbv(7, &value, choices), (Fault{kUD, 0}));
}

TEST(Xsetbv, FaultsOutsideCpl0AndForOtherRegisters) {
  const Features features = With(0x7);
  Cpu cpu(features);
  EXPECT_EQ(cpu.Xsetbv(0, 7), (Fault{kGP, 0}));
  cpu.cpl = 0;
  EXPECT_EQ(cpu.Xsetbv(1, 7), (Fault{kGP, 0}));
  EXPECT_EQ(cpu.Xsetbv(0, 7), std::nullopt);
}

TEST(Xsetbv, KeepsTheRegistersOfAComponentThatItDisables) {
  const Features features = With(0x7);
  Cpu cpu(features);
  cpu.cpl = 0;
  cpu.xcr0 = 7;
  cpu.regs.zmm[3][17] = 0x5a;
  ASSERT_EQ(cpu.Xsetbv(0, 1), std::nullopt);
  EXPECT_EQ(cpu.regs.zmm[3][17], 0x5a);
}

}  // namespace
}  // namespace fpswap::cpu
