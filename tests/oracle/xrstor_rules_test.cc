// SPDX-License-Identifier: GPL-2.0-or-later
//
// Rules of XRSTOR and XRSTORS that depend on CPL 0 or on parts that are not at hand: supervisor
// components, IA32_XFD, tiles.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

using xstate::MutableImage;

TEST(XrstorRules, FaultInTheManualsOrder) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  const std::vector<uint8_t> bad = Area(0xff);
  cpu.cr4_osxsave = false;
  cpu.cr0_ts = true;
  EXPECT_EQ(cpu.Xrstor(bad, kArea + 1, ~0ull, true), (Fault{kUD, 0}));
  EXPECT_EQ(cpu.Xrstors(bad, kArea + 1, ~0ull, true), (Fault{kUD, 0}));
  cpu.cr4_osxsave = true;
  EXPECT_EQ(cpu.Xrstor(bad, kArea + 1, ~0ull, true), (Fault{kNM, 0}));
  EXPECT_EQ(cpu.Xrstors(bad, kArea + 1, ~0ull, true), (Fault{kNM, 0}));
  cpu.cr0_ts = false;
  EXPECT_EQ(cpu.Xrstor(EmptyImage(), kArea + 1, ~0ull, true), (Fault{kGP, 0}));
  EXPECT_EQ(cpu.Xrstor(bad, kArea, 0, true), (Fault{kGP, 0}));  // the header, whatever RFBM
  EXPECT_EQ(cpu.Xrstor(EmptyImage(), kArea, ~0ull, true), std::nullopt);
}

TEST(XrstorRules, XrstorsWantsCpl0AndTheCompactedFormat) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  EXPECT_EQ(cpu.Xrstors(EmptyImage(), kArea, ~0ull, true), (Fault{kGP, 0}));
  EXPECT_EQ(cpu.Xrstors(EmptyImage(kAllUser | kAllSupervisor), kArea, ~0ull, true), std::nullopt);
  cpu.cpl = 3;
  EXPECT_EQ(cpu.Xrstors(EmptyImage(7), kArea, ~0ull, true), (Fault{kGP, 0}));
}

TEST(XrstorRules, XrstorRefusesSupervisorBitsThatXrstorsTakes) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  EXPECT_EQ(cpu.Xrstor(EmptyImage(0x1807), kArea, 7, true), (Fault{kGP, 0}));
  cpu.xss = 0;
  EXPECT_EQ(cpu.Xrstors(EmptyImage(0x1807), kArea, 7, true), (Fault{kGP, 0}));
}

TEST(XrstorRules, CompactedImagesFaultWithoutXsavec) {
  Features features = Everything();
  features.xsave.xsavec = false;
  Cpu cpu = Supervisor(features);
  EXPECT_EQ(cpu.Xrstor(EmptyImage(7), kArea, 7, true), (Fault{kGP, 0}));
}

TEST(XrstorRules, CompactedResetsMxcsrWhenSseBitIsClear) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  cpu.SetMxcsr(0);
  ASSERT_EQ(cpu.Xrstor(EmptyImage(7), kArea, 4, true), std::nullopt);
  EXPECT_EQ(cpu.regs.mxcsr, 0u);
  ASSERT_EQ(cpu.Xrstor(EmptyImage(4), kArea, 2, true), std::nullopt);
  EXPECT_EQ(cpu.regs.mxcsr, 0x1f80u);
}

// 13.8.2: the layout follows XCOMP_BV, and RFBM=1 with XSTATE_BV=0 initialises what XCOMP_BV lacks.
TEST(XrstorRules, CompactedInitialisesWhatXcompBvLacks) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  cpu.regs.k[2] = 7;
  cpu.regs.pkru = 4;
  std::vector<uint8_t> image = EmptyImage(Component::kAvx | Component::kPkru);
  MutableImage(image).set_xstate_bv(Bit(Component::kPkru));
  image[576 + 256] = 0x50;
  ASSERT_EQ(cpu.Xrstor(image, kArea, Component::kOpmask | Component::kPkru, true), std::nullopt);
  EXPECT_EQ(cpu.regs.k[2], 0u);
  EXPECT_EQ(cpu.regs.pkru, 0x50u);
}

// 13.14: #NM before anything is loaded, and IA32_XFD_ERR says why; initialising is exempt.
TEST(XrstorRules, LoadingDisabledTilesIsDeviceNotAvailable) {
  const Features features = Everything();
  const uint64_t tiledata = Bit(Component::kTiledata);
  Cpu cpu = Supervisor(features);
  cpu.xfd = tiledata;
  cpu.regs.pkru = 8;
  const uint64_t rfbm = Component::kPkru | Component::kTiledata;
  std::vector<uint8_t> standard = EmptyImage(), compacted = EmptyImage(kAllUser);
  EXPECT_EQ(cpu.Xrstor(standard, kArea, tiledata, true), std::nullopt);
  EXPECT_EQ(cpu.xfd_err, 0u);
  MutableImage(standard).set_xstate_bv(rfbm);
  MutableImage(compacted).set_xstate_bv(rfbm);
  EXPECT_EQ(cpu.Xrstor(standard, kArea, rfbm, true), (Fault{kNM, 0}));
  EXPECT_EQ(cpu.xfd_err, tiledata);
  EXPECT_EQ(cpu.regs.pkru, 8u);
  EXPECT_EQ(cpu.Xrstors(compacted, kArea, rfbm, true), (Fault{kNM, 0}));
  EXPECT_EQ(cpu.Xrstor(standard, kArea, Bit(Component::kPkru), true), std::nullopt);
  // #NM by CR0.TS is another matter.
  cpu.xfd_err = 0;
  cpu.cr0_ts = true;
  EXPECT_EQ(cpu.Xrstor(standard, kArea, rfbm, true), (Fault{kNM, 0}));
  EXPECT_EQ(cpu.xfd_err, 0u);
}

// 13.5.14.
TEST(XrstorRules, IllegalTilecfgBecomesInitialAndLeavesTiledata) {
  const Features features = Everything();
  const auto restored = [&](auto edit) {
    Cpu cpu = Supervisor(features);
    cpu.LoadComponent(Component::kTiledata, std::vector<uint8_t>(8192, 0x42));
    std::vector<uint8_t> image = EmptyImage();
    const auto cfg = MutableImage(image).component(features.xsave, Component::kTilecfg);
    cfg[0] = 1;
    cfg[16] = 64;
    cfg[48] = 16;
    edit(cfg);
    MutableImage(image).set_xstate_bv(Bit(Component::kTilecfg));
    EXPECT_EQ(cpu.Xrstor(image, kArea, Bit(Component::kTilecfg), true), std::nullopt);
    EXPECT_EQ(cpu.regs.tiledata.Bytes()[8191], 0x42);
    return !cpu.IsInitial(Component::kTilecfg);
  };
  using Cfg = std::span<uint8_t>;
  EXPECT_TRUE(restored([](Cfg) {}));
  EXPECT_TRUE(restored([](Cfg c) { c[1] = 5; }));   // start_row
  EXPECT_FALSE(restored([](Cfg c) { c[0] = 0; }));  // palette 0: initial by definition
  EXPECT_FALSE(restored([](Cfg c) { c[0] = 2; }));
  EXPECT_FALSE(restored([](Cfg c) { c[2] = 1; }));
  EXPECT_FALSE(restored([](Cfg c) { c[15] = 1; }));
  EXPECT_FALSE(restored([](Cfg c) { c[48] = 17; }));
  EXPECT_FALSE(restored([](Cfg c) { c[16] = 65; }));
  EXPECT_FALSE(restored([](Cfg c) { c[17] = 1; }));
  EXPECT_FALSE(restored([](Cfg c) { c[48] = 0; }));
  EXPECT_FALSE(restored([](Cfg c) { c[49] = 4; }));
  EXPECT_FALSE(restored([](Cfg c) { c[56] = 1, c[32] = 4; }));  // a ninth tile
}

// The same rule by bytes: of a legal configuration of palette 1 with 8 tiles of 16 rows of 64
// bytes, each byte takes each value (SDM vol. 2, LDTILECFG).
TEST(TilecfgTable, IsLegalForTheValuesOfEachByteThatTheManualAllows) {
  const Features features = Everything();
  std::vector<uint8_t> legal(64, 0);
  legal[0] = 1;
  for (unsigned tile = 0; tile < 8; ++tile) legal[16 + 2 * tile] = 64, legal[48 + tile] = 16;
  const auto allowed = [](unsigned byte, unsigned value) {
    if (byte == 0) return value == 1;                                                // palette
    if (byte == 1) return true;                                                      // start_row
    if (byte >= 16 && byte < 32 && byte % 2 == 0) return value >= 1 && value <= 64;  // colsb
    if (byte >= 48 && byte < 56) return value >= 1 && value <= 16;                   // rows
    return value == 0;
  };
  for (unsigned byte = 0; byte < 64; ++byte) {
    for (unsigned value = 0; value < 256; ++value) {
      Cpu cpu = Supervisor(features);
      std::vector<uint8_t> tilecfg = legal;
      tilecfg[byte] = static_cast<uint8_t>(value);
      cpu.LoadComponent(Component::kTilecfg, tilecfg);
      EXPECT_EQ(cpu.IsInitial(Component::kTilecfg), !allowed(byte, value))
          << "byte " << byte << ", value " << value;
    }
  }
}

TEST(XrstorRules, XrstorsRefusesCetStateThatWrmsrWouldRefuse) {
  const Features features = Everything();
  const auto refused = [&](unsigned word, uint64_t value) {
    Cpu cpu = Supervisor(features);
    cpu.regs.pkru = 4;
    std::vector<uint8_t> image = EmptyImage(kAllSupervisor);
    xstate::WriteAt(std::span<uint8_t>(image), 576 + 8 * word, value);
    MutableImage(image).set_xstate_bv(kAllSupervisor);
    const Result fault = cpu.Xrstors(image, kArea, ~0ull, true);
    // What a #GP leaves: of the component its old, new or initial value, and others may be loaded.
    EXPECT_EQ(cpu.unknown, fault ? kAllUser | kAllSupervisor : 0);
    if (!fault) {
      EXPECT_EQ(cpu.regs.pkru, 0u);
    }
    return fault == Fault{kGP, 0};
  };
  EXPECT_FALSE(refused(0, 3));
  EXPECT_TRUE(refused(0, 1 << 6));
  EXPECT_TRUE(refused(0, 3 << 10));
  for (unsigned word = 1; word < 5; ++word) {
    EXPECT_FALSE(refused(word, 0x7ffffffffff8));
    EXPECT_TRUE(refused(word, 2)) << word;
    EXPECT_TRUE(refused(word, uint64_t{1} << 60)) << word;
  }
}

// SDM vol. 3, 17.2.1: of IA32_U_CET bits 5:0 are enables, 9:6 reserved, 10 SUPPRESS, 11 TRACKER,
// the rest a canonical address; shadow stack pointers are canonical and aligned to 4. Each bit
// alone.
TEST(CetTable, XrstorsRefusesEachBitThatIsReservedOrNotCanonical) {
  const char* const u_cet =
      "......####.."                                  // bits 0-11
      "............................................"  // 12-55
      "########";                                     // 63:56 must all be as bit 56 is
  const char* const ssp =
      "##"                                                      // bits 0-1
      "......................................................"  // 2-55
      "########";
  Features features = Everything();
  features.la57 = true;
  for (unsigned word = 0; word < 5; ++word) {
    const char* const row = word == 0 ? u_cet : ssp;
    for (unsigned bit = 0; bit < 64; ++bit) {
      Cpu cpu = Supervisor(features);
      std::vector<uint8_t> image = EmptyImage(kAllSupervisor);
      xstate::WriteAt(std::span<uint8_t>(image), 576 + 8 * word, uint64_t{1} << bit);
      MutableImage(image).set_xstate_bv(kAllSupervisor);
      EXPECT_EQ(cpu.Xrstors(image, kArea, kAllSupervisor, true).has_value(), row[bit] == '#')
          << "word " << word << ", bit " << bit;
    }
  }
}

TEST(XrstorRules, BadBndcfguBitsAreMasked) {
  const Features features = Everything();
  Cpu cpu = Supervisor(features);
  std::vector<uint8_t> image = EmptyImage();
  const auto bndcsr = MutableImage(image).component(features.xsave, Component::kBndcsr);
  std::ranges::fill(bndcsr, uint8_t{0xff});
  MutableImage(image).set_xstate_bv(Bit(Component::kBndcsr));
  ASSERT_EQ(cpu.Xrstor(image, kArea, ~0ull, true), std::nullopt);
  EXPECT_EQ(cpu.regs.bndcfgu, 0xfffffffffffff003u);
  EXPECT_EQ(cpu.regs.bndstatus, ~uint64_t{0});
}

// Each bit alone: 1:0 are kept, 11:2 dropped, the base is made canonical from bit 47 down.
TEST(BndcsrTable, EachBitOfBndcfguIsKeptDroppedOrExtended) {
  const Features features = Everything();
  for (unsigned bit = 0; bit < 64; ++bit) {
    Cpu cpu = Supervisor(features);
    std::vector<uint8_t> bndcsr(64, 0);
    xstate::WriteAt(std::span<uint8_t>(bndcsr), 0, uint64_t{1} << bit);
    cpu.LoadComponent(Component::kBndcsr, bndcsr);
    const bool kept = bit < 2 || (bit >= 12 && bit < 47);
    const uint64_t due = bit == 47 ? 0xffff800000000000 : kept ? uint64_t{1} << bit : 0;
    EXPECT_EQ(cpu.regs.bndcfgu, due) << "bit " << bit;
  }
}

// Recorded on Sapphire Rapids: x87 and others had been loaded by the time of the #GP. On family 19h
// nothing had (the witnesses of xrstor_witness_test.cc).
TEST(XrstorRules, ReservedMxcsrBitsFaultAndLeaveOtherComponentsOpenWhereTheCpuIsNotAmd) {
  for (const bool amd : {false, true}) {
    Features f = Everything();
    f.amd = amd;
    Cpu cpu = Supervisor(f);
    std::vector<uint8_t> area = Area(0);
    xstate::WriteAt(std::span(area), 24, uint32_t{0x80001f80});
    EXPECT_EQ(cpu.Xrstor(area, kArea, kAllUser, false), (Fault{kGP, 0}));
    EXPECT_EQ(cpu.unknown, amd ? 0 : kAllUser);
  }
}

}  // namespace
}  // namespace fpswap::cpu::testing
