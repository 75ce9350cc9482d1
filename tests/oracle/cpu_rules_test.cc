// SPDX-License-Identifier: GPL-2.0-or-later
//
// Pointers of x87, system registers, and what instructions need of XCR0, CR0 and CR4.
#include "tests/oracle/cpu_rules.h"

#include <gtest/gtest.h>

namespace fpswap::cpu::testing {
namespace {

using xstate::ReadAt;
using Encoding = Cpu::Encoding;

std::vector<uint8_t> ImageWithPointers() {
  std::vector<uint8_t> image = EmptyImage();
  const std::span<uint8_t> bytes(image);
  xstate::WriteAt(bytes, 0, uint16_t{0x340});
  xstate::WriteAt(bytes, 2, uint16_t{1});
  xstate::WriteAt(bytes, 6, uint16_t{0x123});
  xstate::WriteAt(bytes, 8, uint64_t{0x0000333344445555});
  xstate::WriteAt(bytes, 16, uint64_t{0x0000666677778888});
  xstate::MutableImage(image).set_xstate_bv(1);
  return image;
}

TEST(X87Pointers, MayLoseTheirSelectorsButNothingElse) {
  Features features = Everything();
  features.fcs_fds_zero = false;
  Cpu cpu = Supervisor(features);
  ASSERT_EQ(cpu.Xrstor(ImageWithPointers(), kArea, 1, /*wide=*/false), std::nullopt);
  X87 lost = cpu.regs.x87;
  lost.fcs = lost.fds = 0;
  lost.fop = 0x7ff;
  lost.fip = 1;
  FixedChoices choices;
  std::vector<uint8_t> area = Area();
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/false, choices), std::nullopt);
  EXPECT_EQ(choices.resolved, 1);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0x333344445555u);
  choices.answer = &lost;
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/false, choices), std::nullopt);
  EXPECT_EQ(ReadAt<uint16_t>(area, 6), 0x123);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0x44445555u);
  EXPECT_EQ(ReadAt<uint64_t>(area, 16), 0x77778888u);
}

TEST(X87Pointers, AreWhatIsSeenAfterAnInstructionThatMayHaveChangedThem) {
  Features features = Everything();
  Cpu cpu = Supervisor(features);
  ASSERT_EQ(cpu.Fincstp(), std::nullopt);
  EXPECT_FALSE(cpu.regs.x87.pointers_known);
  X87 seen;
  seen.fop = 0x1f7;
  seen.fip = 0x401000;
  FixedChoices choices;
  choices.answer = &seen;
  std::vector<uint8_t> area = Area();
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/true, choices), std::nullopt);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0x401000u);
  EXPECT_TRUE(cpu.regs.x87.pointers_known);
  // Seen once, they are known: another value is not taken.
  seen.fip = 0x402000;
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/true, choices), std::nullopt);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0x401000u);
}

TEST(X87Pointers, ThatAreNotCanonicalMayBeSignExtended) {
  const Features features = Everything();
  constexpr uint64_t kLoaded = 0x01ff812345678901;
  for (const uint64_t seen :
       {kLoaded, uint64_t{0xff}, uint64_t{0xffff812345678901}, uint64_t{0x0000812345678901}}) {
    Cpu cpu = Supervisor(features);
    std::vector<uint8_t> image = ImageWithPointers();
    xstate::WriteAt(std::span<uint8_t>(image), 8, kLoaded);
    ASSERT_EQ(cpu.Xrstor(image, kArea, 1, /*wide=*/true), std::nullopt);
    X87 answer = cpu.regs.x87;
    answer.fip = seen;
    FixedChoices choices;
    choices.answer = &answer;
    std::vector<uint8_t> area = Area();
    ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/true, choices), std::nullopt);
    const bool possible = seen == kLoaded || seen == 0xffff812345678901;
    EXPECT_EQ(ReadAt<uint64_t>(area, 8), possible ? seen : kLoaded) << std::hex << seen;
  }
}

TEST(X87Pointers, OfAmdPartsAreZeroWithoutAPendingException) {
  Features features = Everything();
  features.amd = true;
  features.fcs_fds_zero = false;
  Cpu cpu = Supervisor(features);
  FixedChoices choices;
  std::vector<uint8_t> area = Area();
  ASSERT_EQ(cpu.Xrstor(ImageWithPointers(), kArea, 1, /*wide=*/true), std::nullopt);
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/true, choices), std::nullopt);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0x333344445555u);
  ASSERT_EQ(cpu.Fnclex(), std::nullopt);
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/true, choices), std::nullopt);
  EXPECT_EQ(ReadAt<uint16_t>(area, 6), 0);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0u);
  EXPECT_EQ(ReadAt<uint64_t>(area, 16), 0u);
}

TEST(X87Pointers, OfOldAmdPartsAreNeitherSavedNorLoadedWithoutAPendingException) {
  Features features = Everything();
  features.amd = true;
  features.xsave_err_ptr = false;
  Cpu cpu = Supervisor(features);
  FixedChoices choices;
  std::vector<uint8_t> area = Area();
  ASSERT_EQ(cpu.Fxsave(area, kArea, /*wide=*/true, choices), std::nullopt);
  EXPECT_EQ(ReadAt<uint64_t>(area, 8), 0xccccccccccccccccu);
  EXPECT_EQ(choices.resolved, 0);
  ASSERT_EQ(cpu.Xrstor(ImageWithPointers(), kArea, 1, /*wide=*/true), std::nullopt);
  std::vector<uint8_t> other = ImageWithPointers();
  xstate::WriteAt(std::span<uint8_t>(other), 2, uint16_t{0});
  xstate::WriteAt(std::span<uint8_t>(other), 8, uint64_t{9});
  ASSERT_EQ(cpu.Xrstor(other, kArea, 1, /*wide=*/true), std::nullopt);
  EXPECT_EQ(cpu.regs.x87.fip, 0x333344445555u);
}

TEST(X87, WaitingInstructionsFaultOnAPendingExceptionAndControlOnesDoNot) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  ASSERT_EQ(cpu.Xrstor(ImageWithPointers(), kArea, 1, true), std::nullopt);
  EXPECT_EQ(cpu.Fchs(0), (Fault{kMF, 0}));
  EXPECT_EQ(cpu.MmxMovq(0, 1), (Fault{kMF, 0}));
  EXPECT_EQ(cpu.Emms(), (Fault{kMF, 0}));
  cpu.cr0_ts = true;
  EXPECT_EQ(cpu.Fchs(0), (Fault{kNM, 0}));
  EXPECT_EQ(cpu.Fninit(), (Fault{kNM, 0}));
  cpu.cr0_ts = false;
  EXPECT_EQ(cpu.Fnclex(), std::nullopt);
  EXPECT_EQ(cpu.Fchs(0), std::nullopt);
}

TEST(Vector, EachEncodingNeedsItsEnables) {
  const Features features = Everything();
  const auto vector_of = [&](Encoding e, uint64_t xcr0, auto edit) {
    Cpu cpu = Supervisor(features);
    cpu.xcr0 = xcr0;
    edit(cpu);
    const Result fault = cpu.CheckVector(e);
    return fault ? int{fault->vector} : -1;
  };
  const auto as_is = [](Cpu&) {};
  const auto no_osxsave = [](Cpu& c) { c.cr4_osxsave = false; };
  const auto no_osfxsr = [](Cpu& c) { c.cr4_osfxsr = false; };
  const auto ts = [](Cpu& c) { c.cr0_ts = true; };
  const auto no_osfxsr_ts = [](Cpu& c) { c.cr4_osfxsr = false, c.cr0_ts = true; };
  EXPECT_EQ(vector_of(Encoding::kSse, 1, as_is), -1);
  EXPECT_EQ(vector_of(Encoding::kSse, 1, no_osfxsr), kUD);
  EXPECT_EQ(vector_of(Encoding::kSse, 1, no_osxsave), -1);
  EXPECT_EQ(vector_of(Encoding::kSse, 1, ts), kNM);
  EXPECT_EQ(vector_of(Encoding::kSse, 1, no_osfxsr_ts), kUD);
  for (const Encoding e : {Encoding::kVex128, Encoding::kVex256}) {
    EXPECT_EQ(vector_of(e, 7, as_is), -1);
    EXPECT_EQ(vector_of(e, 7, no_osfxsr), -1);
    EXPECT_EQ(vector_of(e, 7, no_osxsave), kUD);
    EXPECT_EQ(vector_of(e, 3, ts), kUD);
    EXPECT_EQ(vector_of(e, 7, ts), kNM);
  }
  for (const Encoding e : {Encoding::kEvex128, Encoding::kEvex256, Encoding::kEvex512}) {
    EXPECT_EQ(vector_of(e, 0xe7, as_is), -1);
    EXPECT_EQ(vector_of(e, 7, as_is), kUD);
    EXPECT_EQ(vector_of(e, 0xe7, ts), kNM);
  }
  EXPECT_EQ(vector_of(Encoding::kMmx, 1, no_osfxsr_ts), kNM);
  Cpu cpu = Supervisor(features);
  cpu.xcr0 = 7;
  EXPECT_EQ(cpu.WriteOpmask(1, 1), (Fault{kUD, 0}));
  cpu.xcr0 = 0xe7;
  EXPECT_EQ(cpu.WriteOpmask(1, 1), std::nullopt);
}

// SDM vol. 2, 3.1.1.9: what VEX clears ends at MAXVL, which is 512 where XCR0 has AVX-512's bits
// and 256 where it has AVX's only. What is disabled is kept (13.3), on parts that do as the manual
// says.
TEST(VexTable, EachInstructionClearsUpToWhatXcr0Enables) {
  const Features features = Everything();
  const std::vector<uint8_t> full(64, 0x77);
  const struct {
    const char* name;
    Result (*run)(Cpu& cpu);
    unsigned kept;  // bytes that the instruction itself writes or keeps
  } rows[] = {
      {"VMOVDQU xmm",
       [](Cpu& c) { return c.WriteVector(Encoding::kVex128, 3, std::vector<uint8_t>(16, 0x11)); },
       16},
      {"VMOVDQU ymm",
       [](Cpu& c) { return c.WriteVector(Encoding::kVex256, 3, std::vector<uint8_t>(32, 0x11)); },
       32},
      {"VZEROUPPER", [](Cpu& c) { return c.Vzeroupper(); }, 16},
      {"VZEROALL", [](Cpu& c) { return c.Vzeroall(); }, 0},
  };
  for (const auto& row : rows) {
    for (const bool enabled : {true, false}) {
      for (const std::optional<bool> reaches : {std::optional<bool>(), {true}, {false}}) {
        Cpu cpu = Supervisor(features);
        ASSERT_EQ(cpu.WriteVector(Encoding::kEvex512, 3, full), std::nullopt);
        cpu.vex_clears_disabled_zmm = reaches;
        cpu.xcr0 = enabled ? 0xe7 : 7;
        EXPECT_EQ(cpu.VexReachIsOpen(), !enabled && !reaches);
        ASSERT_EQ(row.run(cpu), std::nullopt);
        const unsigned end = enabled || reaches.value_or(false) ? 64 : 32;
        for (unsigned byte = 0; byte < 64; ++byte) {
          const bool cleared = byte >= row.kept && byte < end;
          EXPECT_EQ(cpu.regs.zmm[3][byte] == 0, cleared)
              << row.name << ", byte " << byte << ", enabled " << enabled;
        }
      }
    }
  }
}

TEST(Pkru, HangsOnCr4PkeAndWantsZeroInEcxAndEdx) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  cpu.xcr0 = 1;  // plays no part
  cpu.cr0_ts = true;
  uint32_t value = 0;
  EXPECT_EQ(cpu.Wrpkru(0, 0, 0x0c), std::nullopt);
  EXPECT_EQ(cpu.Rdpkru(0, &value), std::nullopt);
  EXPECT_EQ(value, 0x0cu);
  EXPECT_EQ(cpu.Wrpkru(1, 0, 1), (Fault{kGP, 0}));
  EXPECT_EQ(cpu.Wrpkru(0, 1, 1), (Fault{kGP, 0}));
  EXPECT_EQ(cpu.Rdpkru(1, &value), (Fault{kGP, 0}));
  EXPECT_FALSE(cpu.PkruDenies(true));
  ASSERT_EQ(cpu.Wrpkru(0, 0, 2), std::nullopt);
  EXPECT_TRUE(cpu.PkruDenies(true));
  EXPECT_FALSE(cpu.PkruDenies(false));
  ASSERT_EQ(cpu.Wrpkru(0, 0, 1), std::nullopt);
  EXPECT_TRUE(cpu.PkruDenies(false));
  cpu.cr4_pke = false;
  EXPECT_FALSE(cpu.PkruDenies(false));
  EXPECT_EQ(cpu.Wrpkru(1, 1, 1), (Fault{kUD, 0}));
}

TEST(MsrTable, TakesTheBitsThatCpuidListsAtCpl0) {
  const Features features = Everything();
  struct Case {
    uint32_t msr;
    uint64_t writable;
  };
  for (const Case& c :
       {Case{Cpu::kMsrXss, kAllSupervisor}, Case{Cpu::kMsrXfd, Bit(Component::kTiledata)},
        Case{Cpu::kMsrXfdErr, Bit(Component::kTiledata)}}) {
    for (unsigned bit = 0; bit < 64; ++bit) {
      Cpu cpu = Supervisor(features);
      const uint64_t value = uint64_t{1} << bit;
      const Result fault = cpu.Wrmsr(c.msr, value);
      ASSERT_EQ(!fault.has_value(), (c.writable & value) != 0) << std::hex << c.msr << " " << bit;
      uint64_t read = 0;
      ASSERT_EQ(cpu.Rdmsr(c.msr, &read), std::nullopt);
      const uint64_t before = c.msr == Cpu::kMsrXss ? kAllSupervisor : 0;
      ASSERT_EQ(read, fault ? before : value);
    }
    Cpu cpu = Supervisor(features);
    cpu.cpl = 3;
    uint64_t read = 0;
    EXPECT_EQ(cpu.Wrmsr(c.msr, 0), (Fault{kGP, 0}));
    EXPECT_EQ(cpu.Rdmsr(c.msr, &read), (Fault{kGP, 0}));
  }
  Features old = Everything();
  old.xsave.xsaves = old.xsave.xfd = false;
  for (const uint32_t msr : {Cpu::kMsrXss, Cpu::kMsrXfd, Cpu::kMsrXfdErr, 0x10u}) {
    Cpu cpu = Supervisor(old);
    EXPECT_EQ(cpu.Wrmsr(msr, 0), (Fault{kGP, 0})) << std::hex << msr;
  }
}

TEST(Cr0, TsIsForCpl0) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  EXPECT_EQ(cpu.MovCr0Ts(true), std::nullopt);
  EXPECT_TRUE(cpu.cr0_ts);
  cpu.cpl = 3;
  EXPECT_EQ(cpu.MovCr0Ts(false), (Fault{kGP, 0}));
  EXPECT_TRUE(cpu.cr0_ts);
}

TEST(Tiledata, CopiesShareNothing) {
  Tiledata a;
  EXPECT_TRUE(a.IsZero());
  a.Load(std::vector<uint8_t>(8192, 3));
  Tiledata b = a;
  a.Clear();
  EXPECT_TRUE(a.IsZero());
  EXPECT_EQ(b.Bytes()[8191], 3);
  b.Load(std::vector<uint8_t>(4, 0));
  EXPECT_TRUE(b.IsZero());
  EXPECT_EQ(b.Bytes().size(), Tiledata::kSize);
}

}  // namespace
}  // namespace fpswap::cpu::testing
