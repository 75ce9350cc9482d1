// SPDX-License-Identifier: GPL-2.0-or-later
//
// AMX instructions. Operands and journals are guest memory like any other: #UD and #NM come first,
// then #PF by PKRU for the first row, then the #GP of LDTILECFG.
#include <cstring>

#include "harness/judge/context.h"

namespace fpswap::judge {
namespace {

using cpu::Cpu;
using program::Op;

constexpr uint64_t kStoreStride = 64;

unsigned Tile(const Context& c, unsigned arg = 0) { return static_cast<unsigned>(c.step.arg[arg]); }

Outcome Ldtilecfg(Context& c, Outcome& o) {
  if ((o.fault = c.cpu.CheckAmx())) return o;
  if ((o.page = LiteralFault(c)).errors != 0) return o;
  std::array<uint8_t, 64> config;
  program::FillTilecfg(c.step, config);
  o.fault = c.cpu.Ldtilecfg(config);
  return o;
}

Outcome Sttilecfg(Context& c, Outcome& o) {
  if ((o.fault = c.cpu.CheckAmx())) return o;
  if ((o.page = JournalFault(c)).errors != 0) return o;
  const auto out = std::span(c.scratch).first<64>();
  o.fault = c.cpu.Sttilecfg(out);
  o.journal = out;
  return o;
}

Outcome Tileloadd(Context& c, Outcome& o) {
  if ((o.fault = c.cpu.CheckTileMemory(Tile(c)))) return o;
  if ((o.page = LiteralFault(c)).errors != 0) {
    c.cpu.TileloaddFaulted(Tile(c));
    return o;
  }
  const auto memory = std::span(c.scratch).first(program::TileloaddBytes(c.step));
  program::FillPattern(static_cast<uint16_t>(c.step.arg[1]), memory);
  o.fault = c.cpu.Tileloadd(Tile(c), memory, c.step.arg[2]);
  return o;
}

// What lies beyond the configured rows and columns is not written: the journal is zero there.
Outcome Tilestored(Context& c, Outcome& o) {
  if ((o.fault = c.cpu.CheckTileMemory(Tile(c)))) return o;
  if ((o.page = JournalFault(c)).errors != 0) return o;
  const auto out = std::span(c.scratch).first(Cpu::kTileRows * kStoreStride);
  std::memset(out.data(), 0, out.size());
  o.fault = c.cpu.Tilestored(Tile(c), out, kStoreStride);
  o.journal = out;
  return o;
}

Outcome Tdp(Context& c, Outcome& o, Cpu::Dot signs) {
  o.fault = c.cpu.Tdp(signs, Tile(c, 0), Tile(c, 1), Tile(c, 2));
  return o;
}

}  // namespace

Outcome StepAmx(Context& c) {
  Outcome o;
  o.rule = "SDM vol. 1, 18; vol. 2, 2.10: AMX";
  switch (c.step.op) {
    case Op::kLdtilecfg:
      return Ldtilecfg(c, o);
    case Op::kSttilecfg:
      return Sttilecfg(c, o);
    case Op::kTileloadd:
      return Tileloadd(c, o);
    case Op::kTilestored:
      return Tilestored(c, o);
    case Op::kTilezero:
      o.fault = c.cpu.Tilezero(Tile(c));
      return o;
    case Op::kTilerelease:
      o.fault = c.cpu.Tilerelease();
      return o;
    case Op::kTdpbssd:
      return Tdp(c, o, Cpu::Dot::kSs);
    case Op::kTdpbsud:
      return Tdp(c, o, Cpu::Dot::kSu);
    case Op::kTdpbusd:
      return Tdp(c, o, Cpu::Dot::kUs);
    default:  // kTdpbuud
      return Tdp(c, o, Cpu::Dot::kUu);
  }
}

}  // namespace fpswap::judge
