// SPDX-License-Identifier: GPL-2.0-or-later
//
// AMX by the manual: what a configuration may be, what each instruction needs, what it leaves.
// Expected values are computed here, from the pseudocode, by other means than the model's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

using Config = std::array<uint8_t, 64>;
using Dot = Cpu::Dot;
constexpr uint64_t kTiledata = Bit(Component::kTiledata);
constexpr Fault kInvalid{kUD, 0}, kNotAvailable{kNM, 0}, kProtection{kGP, 0};

struct Shape {
  unsigned rows, colsb;
};

// Palette 1 with these tiles, the first one tile 0.
Config ConfigOf(std::initializer_list<Shape> shapes) {
  Config config{};
  config[0] = 1;
  unsigned tile = 0;
  for (const Shape& shape : shapes) {
    config[16 + 2 * tile] = static_cast<uint8_t>(shape.colsb);
    config[48 + tile] = static_cast<uint8_t>(shape.rows);
    ++tile;
  }
  return config;
}
const Config kFull =
    ConfigOf({{16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}});

// Bytes that differ from offset to offset.
std::vector<uint8_t> Memory(size_t size, unsigned seed) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<uint8_t>((i * 0x9e3779b1u + seed * 0x85ebca6bu) >> 11);
  }
  return bytes;
}

class Amx : public ::testing::Test {
 protected:
  Amx() : features_(Everything()), cpu_(Supervisor(features_)) {}
  void Configure(const Config& config) { ASSERT_EQ(cpu_.Ldtilecfg(config), std::nullopt); }
  std::span<const uint8_t> Row(unsigned tile, unsigned row) {
    return cpu_.regs.tiledata.Bytes().subspan(tile * 1024 + row * 64, 64);
  }
  Config Stored() {
    Config out;
    out.fill(0xcc);
    EXPECT_EQ(cpu_.Sttilecfg(out), std::nullopt);
    return out;
  }

  Features features_;
  Cpu cpu_;
};

TEST_F(Amx, LdtilecfgTakesEveryShapeThatThePaletteHasAndNoOther) {
  for (unsigned tile = 0; tile < 8; ++tile) {
    for (unsigned rows = 0; rows <= 20; ++rows) {
      for (const unsigned colsb : {0u, 1u, 3u, 4u, 63u, 64u, 65u, 256u, 0xff40u}) {
        Config config = kFull;
        config[48 + tile] = static_cast<uint8_t>(rows);
        config[16 + 2 * tile] = static_cast<uint8_t>(colsb);
        config[17 + 2 * tile] = static_cast<uint8_t>(colsb >> 8);
        const bool both_or_none = (rows == 0) == (colsb == 0);
        const bool legal = both_or_none && rows <= 16 && colsb <= 64;
        Cpu cpu = cpu_;
        EXPECT_EQ(cpu.Ldtilecfg(config), legal ? Result() : kProtection) << rows << "x" << colsb;
        EXPECT_EQ(cpu.TileRows(tile), legal ? rows : 0);
      }
    }
  }
}

TEST_F(Amx, LdtilecfgWantsReservedBytesZero) {
  for (unsigned at = 0; at < 64; ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Config config = ConfigOf({{4, 16}});
      config[at] ^= static_cast<uint8_t>(1u << bit);
      const bool reserved = (at >= 2 && at < 16) || (at >= 32 && at < 48) || at >= 56;
      Cpu cpu = cpu_;
      const Result result = cpu.Ldtilecfg(config);
      if (reserved) {
        EXPECT_EQ(result, kProtection) << at;
      }
      if (at == 1) {
        EXPECT_EQ(result, std::nullopt) << "any start_row will do";
      }
      if (at == 0) {
        EXPECT_EQ(result, bit == 0 ? Result() : kProtection) << "palettes are 0 and 1";
      }
    }
  }
}

TEST_F(Amx, LdtilecfgWantsNoNinthTile) {
  for (unsigned tile = 8; tile < 16; ++tile) {
    Config config = ConfigOf({{4, 16}});
    config[16 + 2 * tile] = 16;
    config[48 + tile] = 4;
    EXPECT_EQ(cpu_.Ldtilecfg(config), kProtection) << tile;
  }
}

TEST_F(Amx, ARefusedConfigurationChangesNothing) {
  Configure(kFull);
  ASSERT_EQ(cpu_.Tileloadd(3, Memory(1024, 1), 64), std::nullopt);
  Config bad = kFull;
  bad[48] = 17;
  EXPECT_EQ(cpu_.Ldtilecfg(bad), kProtection);
  EXPECT_EQ(Stored(), kFull);
  EXPECT_FALSE(cpu_.IsInitial(Component::kTiledata));
}

TEST_F(Amx, PaletteZeroInitialisesWhateverTheOtherBytesAre) {
  Configure(kFull);
  ASSERT_EQ(cpu_.Tileloadd(0, Memory(1024, 1), 64), std::nullopt);
  Config garbage;
  garbage.fill(0xff);
  garbage[0] = 0;
  EXPECT_EQ(cpu_.Ldtilecfg(garbage), std::nullopt);
  EXPECT_EQ(Stored(), Config{});
  EXPECT_TRUE(cpu_.IsInitial(Component::kTilecfg));
  EXPECT_TRUE(cpu_.IsInitial(Component::kTiledata));
}

TEST_F(Amx, LdtilecfgAndTilereleaseClearTheTiles) {
  for (const bool release : {false, true}) {
    Configure(kFull);
    ASSERT_EQ(cpu_.Tileloadd(7, Memory(1024, 2), 64), std::nullopt);
    if (release) {
      EXPECT_EQ(cpu_.Tilerelease(), std::nullopt);
    } else {
      Configure(kFull);
    }
    EXPECT_TRUE(cpu_.IsInitial(Component::kTiledata)) << release;
    EXPECT_EQ(cpu_.IsInitial(Component::kTilecfg), release);
  }
}

TEST_F(Amx, TileloaddZeroesWhatTheConfigurationLeavesOut) {
  Configure(kFull);
  for (unsigned tile = 0; tile < 8; ++tile) {
    ASSERT_EQ(cpu_.Tileloadd(tile, std::vector<uint8_t>(1024, 0xee), 64), std::nullopt);
  }
  // XRSTOR brings the configuration in without clearing the tiles.
  cpu_.LoadComponent(Component::kTilecfg, ConfigOf({{16, 64}, {5, 12}}));
  const std::vector<uint8_t> memory = Memory(4096, 3);
  constexpr uint64_t kStride = 100;
  ASSERT_EQ(cpu_.Tileloadd(1, memory, kStride), std::nullopt);
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned byte = 0; byte < 64; ++byte) {
      const bool loaded = row < 5 && byte < 12;
      ASSERT_EQ(Row(1, row)[byte], loaded ? memory[row * kStride + byte] : 0) << row << " " << byte;
      ASSERT_EQ(Row(0, row)[byte], 0xee);
    }
  }
}

TEST_F(Amx, TilestoredWritesRowsAndColumnsAndNothingElse) {
  Configure(ConfigOf({{16, 64}, {3, 20}}));
  const std::vector<uint8_t> memory = Memory(1024, 4);
  ASSERT_EQ(cpu_.Tileloadd(1, memory, 64), std::nullopt);
  std::vector<uint8_t> out(1024, 0xcc);
  ASSERT_EQ(cpu_.Tilestored(1, out, 32), std::nullopt);
  for (unsigned at = 0; at < out.size(); ++at) {
    const unsigned row = at / 32, byte = at % 32;
    ASSERT_EQ(out[at], row < 3 && byte < 20 ? memory[row * 64 + byte] : 0xcc) << at;
  }
}

TEST_F(Amx, StartRowIsWhereLoadsAndStoresBegin) {
  Config config = ConfigOf({{6, 8}});
  Configure(config);
  ASSERT_EQ(cpu_.Tileloadd(0, std::vector<uint8_t>(1024, 0xaa), 64), std::nullopt);
  config[1] = 4;
  cpu_.LoadComponent(Component::kTilecfg, config);
  const std::vector<uint8_t> memory = Memory(1024, 5);
  ASSERT_EQ(cpu_.Tileloadd(0, memory, 64), std::nullopt);
  for (unsigned row = 0; row < 6; ++row) {
    EXPECT_EQ(Row(0, row)[1], row < 4 ? 0xaa : memory[row * 64 + 1]) << row;
  }
  EXPECT_EQ(Stored()[1], 0) << "done: start_row is 0 again";

  cpu_.LoadComponent(Component::kTilecfg, config);
  std::vector<uint8_t> out(1024, 0xcc);
  ASSERT_EQ(cpu_.Tilestored(0, out, 64), std::nullopt);
  EXPECT_EQ(out[3 * 64], 0xcc);
  EXPECT_EQ(out[4 * 64], memory[4 * 64]);
  EXPECT_EQ(Stored()[1], 0);

  config[1] = 6;
  cpu_.LoadComponent(Component::kTilecfg, config);
  EXPECT_EQ(cpu_.Tileloadd(0, memory, 64), kInvalid) << "no row is left";
  EXPECT_EQ(cpu_.Tilestored(0, out, 64), kInvalid);
  EXPECT_EQ(Stored()[1], 6);
  EXPECT_EQ(cpu_.Tilezero(0), std::nullopt) << "TILEZERO does not look at it";
  EXPECT_EQ(Stored()[1], 0);
}

TEST_F(Amx, TilesThatAreNotConfiguredAreInvalidOpcodes) {
  std::vector<uint8_t> memory(1024);
  const auto all = [&](unsigned tile) {
    return std::array{cpu_.Tileloadd(tile, memory, 64), cpu_.Tilestored(tile, memory, 64),
                      cpu_.Tilezero(tile)};
  };
  for (const Result& result : all(0)) EXPECT_EQ(result, kInvalid) << "nothing is configured";
  Configure(ConfigOf({{0, 0}, {2, 4}}));
  for (const Result& result : all(0)) EXPECT_EQ(result, kInvalid);
  for (const Result& result : all(1)) EXPECT_EQ(result, std::nullopt);
  for (const Result& result : all(8)) EXPECT_EQ(result, kInvalid) << "palette 1 has eight";
  Configure(ConfigOf({{2, 6}}));
  EXPECT_EQ(cpu_.Tileloadd(0, memory, 64), kInvalid) << "colsb is no multiple of 4";
  EXPECT_EQ(cpu_.Tilestored(0, memory, 64), kInvalid);
  EXPECT_EQ(cpu_.Tilezero(0), std::nullopt);
}

TEST_F(Amx, EveryInstructionNeedsOsxsaveBothBitsOfXcr0AndTheFeature) {
  Configure(kFull);
  std::vector<uint8_t> memory(1024);
  Config config = kFull;
  const auto all = [&](Cpu cpu) {
    std::vector<Result> results = {cpu.Ldtilecfg(config),     cpu.Sttilecfg(config),
                                   cpu.Tilerelease(),         cpu.Tileloadd(0, memory, 64),
                                   cpu.Tilezero(0),           cpu.Tilestored(0, memory, 64),
                                   cpu.Tdp(Dot::kSs, 0, 1, 2)};
    return std::ranges::count(results, Result(kInvalid));
  };
  for (const uint64_t lost : {xstate::kAmx, kTiledata, Bit(Component::kTilecfg)}) {
    Cpu cpu = cpu_;
    cpu.xcr0 &= ~lost;
    EXPECT_EQ(all(cpu), 7) << lost;
  }
  Cpu cpu = cpu_;
  cpu.cr4_osxsave = false;
  EXPECT_EQ(all(cpu), 7);
  Features fewer = features_;
  fewer.amx_int8 = false;
  cpu = cpu_;
  cpu.features = &fewer;
  EXPECT_EQ(cpu.Tdp(Dot::kUu, 0, 1, 2), kInvalid);
  EXPECT_EQ(cpu.Tilezero(0), std::nullopt);
  fewer.amx_tile = false;
  EXPECT_EQ(all(cpu), 7);
}

// SDM vol. 1, 13.14.
TEST_F(Amx, XfdIsDeviceNotAvailableForWhatTouchesTilesAlone) {
  Configure(kFull);
  ASSERT_EQ(cpu_.Tileloadd(2, Memory(1024, 6), 64), std::nullopt);
  cpu_.xfd = kTiledata;
  std::vector<uint8_t> memory(1024);
  const std::vector<uint8_t> before(cpu_.regs.tiledata.Bytes().begin(),
                                    cpu_.regs.tiledata.Bytes().end());
  const auto expect = [&](auto&& instruction, const char* name) {
    cpu_.xfd_err = 0;
    EXPECT_EQ(instruction(), kNotAvailable) << name;
    EXPECT_EQ(cpu_.xfd_err, kTiledata) << name;
  };
  expect([&] { return cpu_.Tileloadd(2, memory, 64); }, "TILELOADD");
  expect([&] { return cpu_.Tilestored(2, memory, 64); }, "TILESTORED");
  expect([&] { return cpu_.Tilezero(2); }, "TILEZERO");
  expect([&] { return cpu_.Tdp(Dot::kSu, 0, 1, 2); }, "TDPBSUD");
  EXPECT_TRUE(std::ranges::equal(before, cpu_.regs.tiledata.Bytes()));
  // #UD comes first, and leaves IA32_XFD_ERR alone.
  cpu_.xfd_err = 0;
  EXPECT_EQ(cpu_.Tileloadd(8, memory, 64), kInvalid);
  EXPECT_EQ(cpu_.Tdp(Dot::kSs, 0, 0, 1), kInvalid);
  Config odd = kFull;
  odd[16 + 2 * 5] = 62;
  odd[1] = 15;
  odd[48 + 6] = 15;
  cpu_.LoadComponent(Component::kTilecfg, odd);
  EXPECT_EQ(cpu_.Tilestored(5, memory, 64), kInvalid) << "colsb is no multiple of 4";
  EXPECT_EQ(cpu_.Tileloadd(6, memory, 64), kInvalid) << "start_row is beyond the rows";
  EXPECT_EQ(cpu_.Tdp(Dot::kSs, 5, 1, 2), kInvalid);
  cpu_.LoadComponent(Component::kTilecfg, kFull);
  EXPECT_EQ(cpu_.xfd_err, 0u);
  EXPECT_EQ(Stored(), kFull);
  EXPECT_EQ(cpu_.Ldtilecfg(kFull), std::nullopt);
  EXPECT_TRUE(cpu_.IsInitial(Component::kTiledata)) << "LDTILECFG initialises them all the same";
  EXPECT_EQ(cpu_.Tilerelease(), std::nullopt);
  EXPECT_EQ(cpu_.xfd_err, 0u);
  // It acts only where XCR0 has the bit (13.14); but then there are no tiles either.
  cpu_.xcr0 &= ~xstate::kAmx;
  EXPECT_EQ(cpu_.Tilezero(0), kInvalid);
  EXPECT_EQ(cpu_.xfd_err, 0u);
}

TEST_F(Amx, CpusThatHeedTsSayNothingInXfdErr) {
  Configure(kFull);
  cpu_.cr0_ts = true;
  Config config = kFull;
  std::vector<uint8_t> memory(1024);
  EXPECT_EQ(cpu_.Tilezero(0), std::nullopt) << "not settled: as the exception classes have it";
  cpu_.amx_heeds_ts = true;
  cpu_.xfd = kTiledata;
  EXPECT_EQ(cpu_.Tilezero(0), kNotAvailable);
  EXPECT_EQ(cpu_.Tileloadd(0, memory, 64), kNotAvailable);
  EXPECT_EQ(cpu_.Ldtilecfg(config), kNotAvailable);
  EXPECT_EQ(cpu_.Sttilecfg(config), kNotAvailable);
  EXPECT_EQ(cpu_.Tilerelease(), kNotAvailable);
  EXPECT_EQ(cpu_.xfd_err, 0u);
  cpu_.amx_heeds_ts = false;
  EXPECT_EQ(cpu_.Tilezero(0), kNotAvailable);
  EXPECT_EQ(cpu_.xfd_err, kTiledata);
}

// One dword of C + A * B by long arithmetic, for signs by name.
uint32_t Reference(std::span<const uint8_t> c, std::span<const uint8_t> a,
                   std::span<const uint8_t> b, unsigned i, unsigned j, unsigned k, const char* op) {
  int64_t sum = 0;
  for (unsigned byte = 0; byte < 4 * k; ++byte) {
    const uint8_t x = a[i * 64 + byte];                       // A's row, byte by byte
    const uint8_t y = b[(byte / 4) * 64 + 4 * j + byte % 4];  // B's column, in groups of four
    const int64_t left = op[0] == 's' && x >= 128 ? int64_t{x} - 256 : x;
    const int64_t right = op[1] == 's' && y >= 128 ? int64_t{y} - 256 : y;
    sum += left * right;
  }
  uint32_t before = 0;
  for (unsigned n = 0; n < 4; ++n) before |= uint32_t{c[i * 64 + 4 * j + n]} << (8 * n);
  return before + static_cast<uint32_t>(static_cast<uint64_t>(sum));
}

TEST_F(Amx, DotProductsMultiplyBytesAndWrapAround) {
  struct Case {
    Dot signs;
    const char* name;
  };
  struct Matrices {
    unsigned m, n, k;
  };
  for (const Case& c :
       {Case{Dot::kSs, "ss"}, Case{Dot::kSu, "su"}, Case{Dot::kUs, "us"}, Case{Dot::kUu, "uu"}}) {
    for (const Matrices& size : {Matrices{16, 16, 16}, Matrices{3, 7, 5}, Matrices{1, 1, 16}}) {
      cpu_ = Supervisor(features_);
      Configure(ConfigOf({{size.m, 4 * size.n}, {size.m, 4 * size.k}, {size.k, 4 * size.n}}));
      // Sums near 2^31 and 2^32 show that nothing saturates.
      std::vector<uint8_t> dst(1024, 0xff), a = Memory(1024, 7), b = Memory(1024, 8);
      for (size_t at = 3; at < dst.size(); at += 8) dst[at] = 0x7f;
      ASSERT_EQ(cpu_.Tileloadd(0, dst, 64), std::nullopt);
      ASSERT_EQ(cpu_.Tileloadd(1, a, 64), std::nullopt);
      ASSERT_EQ(cpu_.Tileloadd(2, b, 64), std::nullopt);
      ASSERT_EQ(cpu_.Tdp(c.signs, 0, 1, 2), std::nullopt);
      for (unsigned i = 0; i < 16; ++i) {
        for (unsigned j = 0; j < 16; ++j) {
          const bool within = i < size.m && j < size.n;
          EXPECT_EQ(xstate::ReadAt<uint32_t>(Row(0, i), 4 * j),
                    within ? Reference(dst, a, b, i, j, size.k, c.name) : 0)
              << c.name << " " << i << "," << j;
        }
      }
      EXPECT_EQ(Row(1, 0)[0], a[0]);
      EXPECT_EQ(Row(2, 0)[3], b[3]);
    }
  }
}

TEST_F(Amx, DotProductsZeroWhatTheConfigurationLeavesOut) {
  Configure(kFull);
  for (unsigned tile = 0; tile < 3; ++tile) {
    ASSERT_EQ(cpu_.Tileloadd(tile, std::vector<uint8_t>(1024, 0xee), 64), std::nullopt);
  }
  Config smaller = ConfigOf({{3, 8}, {3, 20}, {5, 8}});
  smaller[1] = 2;
  cpu_.LoadComponent(Component::kTilecfg, smaller);
  ASSERT_EQ(cpu_.Tdp(Dot::kUu, 0, 1, 2), std::nullopt);
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned j = 0; j < 16; ++j) {
      const uint32_t sum = 0xeeeeeeeeu + 5 * 4 * 0xee * 0xee;
      ASSERT_EQ(xstate::ReadAt<uint32_t>(Row(0, row), 4 * j), row < 3 && j < 2 ? sum : 0)
          << row << " " << j;
      ASSERT_EQ(xstate::ReadAt<uint32_t>(Row(1, row), 4 * j), 0xeeeeeeeeu) << "a source";
    }
  }
  EXPECT_EQ(Stored()[1], 0) << "start_row is not looked at, and is 0 afterwards";
}

TEST_F(Amx, DotProductsWantThreeTilesThatFit) {
  const auto tdp = [&](const Config& config, unsigned dst = 0, unsigned a = 1, unsigned b = 2) {
    Cpu cpu = cpu_;
    EXPECT_EQ(cpu.Ldtilecfg(config), std::nullopt);
    return cpu.Tdp(Dot::kUs, dst, a, b);
  };
  EXPECT_EQ(tdp(ConfigOf({{3, 8}, {3, 20}, {5, 8}})), std::nullopt);
  EXPECT_EQ(tdp(ConfigOf({{3, 8}, {4, 20}, {5, 8}})), kInvalid) << "rows of C and A";
  EXPECT_EQ(tdp(ConfigOf({{3, 8}, {3, 20}, {5, 12}})), kInvalid) << "columns of C and B";
  EXPECT_EQ(tdp(ConfigOf({{3, 8}, {3, 20}, {6, 8}})), kInvalid) << "columns of A, rows of B";
  EXPECT_EQ(tdp(ConfigOf({{3, 6}, {3, 20}, {5, 6}})), kInvalid) << "no multiple of 4";
  EXPECT_EQ(tdp(ConfigOf({{3, 8}, {3, 18}, {5, 8}})), kInvalid);
  EXPECT_EQ(tdp(ConfigOf({{3, 8}, {0, 0}, {5, 8}})), kInvalid) << "not configured";
  EXPECT_EQ(tdp(kFull, 0, 0, 1), kInvalid);
  EXPECT_EQ(tdp(kFull, 0, 1, 0), kInvalid);
  EXPECT_EQ(tdp(kFull, 0, 1, 1), kInvalid);
  EXPECT_EQ(tdp(kFull, 0, 1, 8), kInvalid);
  EXPECT_EQ(tdp(kFull, 7, 6, 5), std::nullopt);
}

// TILEDATA's own #NM and init rules meet XSAVE's: a tile in use is saved, a disabled one is not.
TEST_F(Amx, TilesAreInUseOnceLoadedAndUntilReleased) {
  FixedChoices choices;
  uint64_t xinuse = 0;
  ASSERT_EQ(cpu_.Xgetbv(1, &xinuse, choices), std::nullopt);
  EXPECT_EQ(xinuse & xstate::kAmx, 0u);
  Configure(ConfigOf({{1, 4}}));
  ASSERT_EQ(cpu_.Xgetbv(1, &xinuse, choices), std::nullopt);
  EXPECT_EQ(xinuse & xstate::kAmx, Bit(Component::kTilecfg));
  ASSERT_EQ(cpu_.Tileloadd(0, std::vector<uint8_t>(1024, 1), 64), std::nullopt);
  ASSERT_EQ(cpu_.Xgetbv(1, &xinuse, choices), std::nullopt);
  EXPECT_EQ(xinuse & xstate::kAmx, xstate::kAmx);
  ASSERT_EQ(cpu_.Tilerelease(), std::nullopt);
  ASSERT_EQ(cpu_.Xgetbv(1, &xinuse, choices), std::nullopt);
  EXPECT_EQ(xinuse & xstate::kAmx, 0u);
}

TEST_F(Amx, WritesEndTheModifiedOptimisation) {
  FixedChoices choices(/*in_use=*/true, /*omit=*/true);
  std::vector<uint8_t> image = EmptyImage();
  Config config = kFull;
  config[1] = 2;
  const auto restore = [&] {
    std::ranges::copy(
        config,
        xstate::MutableImage(image).component(features_.xsave, Component::kTilecfg).begin());
    xstate::MutableImage(image).set_xstate_bv(xstate::kAmx);
    ASSERT_EQ(cpu_.Xrstor(image, kArea, xstate::kAmx, true), std::nullopt);
  };
  restore();
  ASSERT_EQ(cpu_.Tilezero(1), std::nullopt);
  choices.omittable = 0;
  ASSERT_EQ(cpu_.Xsave(SaveForm::kXsaveopt, image, kArea, xstate::kAmx, true, choices),
            std::nullopt);
  EXPECT_EQ(choices.omittable, 0u) << "the tile and start_row were written";
  config[1] = 0;
  restore();
  ASSERT_EQ(cpu_.Tilezero(1), std::nullopt);
  choices.omittable = 0;
  ASSERT_EQ(cpu_.Xsave(SaveForm::kXsaveopt, image, kArea, xstate::kAmx, true, choices),
            std::nullopt);
  EXPECT_EQ(choices.omittable, Bit(Component::kTilecfg)) << "start_row was 0 already";
}

TEST_F(Amx, APageFaultOfALoadMayOrMayNotHaveClearedTheTile) {
  Configure(kFull);
  cpu_.TileloaddFaulted(0);
  EXPECT_EQ(cpu_.unknown, 0u) << "clear already";
  ASSERT_EQ(cpu_.Tileloadd(0, Memory(1024, 9), 64), std::nullopt);
  cpu_.TileloaddFaulted(1);
  EXPECT_EQ(cpu_.unknown, 0u);
  cpu_.TileloaddFaulted(0);
  EXPECT_EQ(cpu_.unknown, kTiledata);
}

}  // namespace
}  // namespace fpswap::cpu::testing
