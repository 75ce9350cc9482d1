// SPDX-License-Identifier: GPL-2.0-or-later
//
// AMX: tile configuration, tile loads, stores and clears, integer dot products (SDM vol. 1, 18;
// vol. 2, the instructions; 2.10 for what raises #UD, #NM and #GP, the classes AMX-E1 to AMX-E6).
//
// Palette 1 is the only one besides 0, so its limits (CPUID leaf 1DH: 8 tiles of 16 rows of 64
// bytes) and those of TMUL (1EH: K at most 16, N at most 64 bytes) are constants here. TILECFG is
// kept as the 64 bytes that STTILECFG stores.
#include <algorithm>
#include <cstring>

#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {
namespace {

constexpr Fault kInvalidOpcode{kUD, 0};

// Fields of TILECFG (SDM vol. 2, LDTILECFG, "Memory Area Layout").
constexpr unsigned kPalette = 0, kStartRow = 1, kReserved = 2, kColsb = 16, kRows = 48;
constexpr unsigned kTileSlots = 16;  // places in the 64 bytes, of which palette 1 uses 8
constexpr unsigned kTileBytes = Cpu::kTileRows * Cpu::kTileRowBytes;
static_assert(Cpu::kTiles * kTileBytes == Tiledata::kSize);

unsigned RowsOf(std::span<const uint8_t, 64> cfg, unsigned tile) { return cfg[kRows + tile]; }
unsigned ColsbOf(std::span<const uint8_t, 64> cfg, unsigned tile) {
  return cfg[kColsb + 2 * tile] | unsigned{cfg[kColsb + 2 * tile + 1]} << 8;
}

int32_t Extend(uint8_t byte, bool is_signed) {
  return is_signed ? static_cast<int8_t>(byte) : int32_t{byte};
}

uint32_t Dword(std::span<const uint8_t> row, unsigned n) {
  uint32_t value;
  std::memcpy(&value, row.data() + size_t{4} * n, 4);
  return value;
}

// DPBD of the manual's pseudocode: four products of bytes, added without saturation.
uint32_t DotProduct(uint32_t sum, uint32_t x, uint32_t y, bool x_signed, bool y_signed) {
  for (unsigned shift = 0; shift < 32; shift += 8) {
    sum += static_cast<uint32_t>(Extend(static_cast<uint8_t>(x >> shift), x_signed) *
                                 Extend(static_cast<uint8_t>(y >> shift), y_signed));
  }
  return sum;
}

}  // namespace

// LDTILECFG's checks of a configuration of palette 1, in its pseudocode's words: reserved bytes are
// zero, colsb and rows within the palette's limits, and both zero or neither. Any start_row will
// do.
bool Cpu::TilecfgIsLegal(std::span<const uint8_t, 64> cfg) {
  if (cfg[kPalette] != 1) return false;
  if (std::any_of(&cfg[kReserved], &cfg[kColsb], [](uint8_t b) { return b != 0; })) return false;
  for (unsigned tile = 0; tile < kTileSlots; ++tile) {
    const unsigned rows = RowsOf(cfg, tile), colsb = ColsbOf(cfg, tile);
    if (tile >= kTiles && (rows | colsb) != 0) return false;
    if (rows > kTileRows || colsb > kTileRowBytes || (rows == 0) != (colsb == 0)) return false;
  }
  return true;
}

unsigned Cpu::TileRows(unsigned tile) const { return RowsOf(regs.tilecfg, tile); }
unsigned Cpu::TileColsb(unsigned tile) const { return ColsbOf(regs.tilecfg, tile); }

// "A valid tile": one of the palette's, with rows. Where no tiles are configured, none has any.
bool Cpu::TileIsConfigured(unsigned tile) const { return tile < kTiles && TileRows(tile) != 0; }

// All classes: #UD unless CR4.OSXSAVE is set and XCR0[18:17] is 11b (64-bit mode is a given).
bool Cpu::AmxIsAvailable() const {
  return features->amx_tile && cr4_osxsave && (xcr0 & xstate::kAmx) == xstate::kAmx;
}

Result Cpu::CheckAmx() const {
  if (!AmxIsAvailable()) return kInvalidOpcode;
  if (cr0_ts && amx_heeds_ts.value_or(false)) return Fault{kNM, 0};
  return std::nullopt;
}

// What touches TILEDATA is #NM where IA32_XFD disables it, behind all that is #UD. LDTILECFG and
// TILERELEASE initialise it and STTILECFG does not use it: these are exempt (SDM vol. 1, 13.14).
// CR0.TS, if it is heeded, leaves IA32_XFD_ERR alone.
Result Cpu::NeedTiles() {
  if (Result fault = CheckAmx()) return fault;
  return NeedXfd(Bit(Component::kTiledata));
}

std::span<uint8_t> Cpu::TileRow(unsigned tile, unsigned row) {
  return regs.tiledata.Write().subspan(tile * kTileBytes + row * kTileRowBytes, kTileRowBytes);
}

// zero_upper_rows
void Cpu::ClearTileFrom(unsigned tile, unsigned row) {
  for (; row < kTileRows; ++row) std::ranges::fill(TileRow(tile, row), uint8_t{0});
}

// zero_tileconfig_start
void Cpu::ResetStartRow() {
  if (regs.tilecfg[kStartRow] == 0) return;
  Touch(Component::kTilecfg);
  regs.tilecfg[kStartRow] = 0;
}

// Palette 0 brings everything to the initial state whatever the other bytes are.
Result Cpu::Ldtilecfg(std::span<const uint8_t, 64> memory) {
  if (Result fault = CheckAmx()) return fault;
  if (memory[kPalette] != 0 && !TilecfgIsLegal(memory)) return Fault{kGP, 0};
  Initialise(Component::kTiledata);
  Initialise(Component::kTilecfg);
  if (memory[kPalette] != 0) std::ranges::copy(memory, regs.tilecfg.begin());
  return std::nullopt;
}

Result Cpu::Sttilecfg(std::span<uint8_t, 64> memory) const {
  if (Result fault = CheckAmx()) return fault;
  std::ranges::copy(regs.tilecfg, memory.begin());
  return std::nullopt;
}

Result Cpu::Tilerelease() {
  if (Result fault = CheckAmx()) return fault;
  Initialise(Component::kTiledata);
  Initialise(Component::kTilecfg);
  return std::nullopt;
}

// AMX-E3.
Result Cpu::CheckTileMemory(unsigned tile) {
  if (!AmxIsAvailable() || !TileIsConfigured(tile)) return kInvalidOpcode;
  if (TileColsb(tile) % 4 != 0 || regs.tilecfg[kStartRow] >= TileRows(tile)) return kInvalidOpcode;
  return NeedTiles();
}

Result Cpu::Tileloadd(unsigned tile, std::span<const uint8_t> memory, uint64_t stride) {
  if (Result fault = CheckTileMemory(tile)) return fault;
  Touch(Component::kTiledata);
  const unsigned first = regs.tilecfg[kStartRow];
  ClearTileFrom(tile, first);
  for (unsigned row = first; row < TileRows(tile); ++row) {
    std::ranges::copy(memory.subspan(row * stride, TileColsb(tile)), TileRow(tile, row).begin());
  }
  ResetStartRow();
  return std::nullopt;
}

// start_row is the row that faulted, which it was already. The pseudocode has cleared the rows from
// there on before it comes to memory; a processor that hasn't would be as right, for the
// instruction is to be restarted.
void Cpu::TileloaddFaulted(unsigned tile) {
  Touch(Component::kTiledata);
  for (unsigned row = regs.tilecfg[kStartRow]; row < kTileRows; ++row) {
    const auto bytes =
        regs.tiledata.Bytes().subspan(tile * kTileBytes + row * kTileRowBytes, kTileRowBytes);
    if (std::ranges::any_of(bytes, [](uint8_t b) { return b != 0; })) {
      unknown |= Bit(Component::kTiledata);
    }
  }
}

Result Cpu::Tilestored(unsigned tile, std::span<uint8_t> memory, uint64_t stride) {
  if (Result fault = CheckTileMemory(tile)) return fault;
  for (unsigned row = regs.tilecfg[kStartRow]; row < TileRows(tile); ++row) {
    const auto bytes =
        regs.tiledata.Bytes().subspan(tile * kTileBytes + row * kTileRowBytes, TileColsb(tile));
    std::ranges::copy(bytes, memory.subspan(row * stride).begin());
  }
  ResetStartRow();
  return std::nullopt;
}

// AMX-E5. The whole tile, whatever its configuration.
Result Cpu::Tilezero(unsigned tile) {
  if (!AmxIsAvailable() || !TileIsConfigured(tile)) return kInvalidOpcode;
  if (Result fault = NeedTiles()) return fault;
  Touch(Component::kTiledata);
  ClearTileFrom(tile, 0);
  ResetStartRow();
  return std::nullopt;
}

// AMX-E4. With C = dst of m x n, A = a of m x k, B = b of k x n: rows and columns have to fit. The
// limits of TMUL are those of palette 1, so that no configuration is beyond them.
Result Cpu::Tdp(Dot signs, unsigned dst, unsigned a, unsigned b) {
  if (!features->amx_int8 || !AmxIsAvailable()) return kInvalidOpcode;
  if (dst == a || dst == b || a == b) return kInvalidOpcode;
  for (const unsigned tile : {dst, a, b}) {
    if (!TileIsConfigured(tile) || TileColsb(tile) % 4 != 0) return kInvalidOpcode;
  }
  const unsigned m = TileRows(dst), n = TileColsb(dst) / 4, k = TileColsb(a) / 4;
  if (TileRows(a) != m || TileColsb(b) / 4 != n || TileRows(b) != k) return kInvalidOpcode;
  if (Result fault = NeedTiles()) return fault;

  const bool a_signed = signs == Dot::kSs || signs == Dot::kSu;
  const bool b_signed = signs == Dot::kSs || signs == Dot::kUs;
  Touch(Component::kTiledata);
  for (unsigned i = 0; i < m; ++i) {
    const std::span<uint8_t> row = TileRow(dst, i);
    for (unsigned j = 0; j < n; ++j) {
      uint32_t sum = Dword(row, j);
      for (unsigned l = 0; l < k; ++l) {
        sum = DotProduct(sum, Dword(TileRow(a, i), l), Dword(TileRow(b, l), j), a_signed, b_signed);
      }
      std::memcpy(row.data() + size_t{4} * j, &sum, 4);
    }
    std::ranges::fill(row.subspan(size_t{4} * n), uint8_t{0});
  }
  ClearTileFrom(dst, m);
  ResetStartRow();
  return std::nullopt;
}

}  // namespace fpswap::cpu
