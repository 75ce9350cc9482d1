// SPDX-License-Identifier: GPL-2.0-or-later
//
// What agents need of step.h: the bytes of patterns and the numbers of MSRs. Standard library only,
// for agents link this file without the step table.
//
// Thread safety: pure functions.
#include <algorithm>

#include "harness/program/step.h"

namespace fpswap::program {
namespace {

constexpr size_t kWindow = 256;

// SplitMix64's finaliser: patterns with neighbouring numbers have nothing in common.
constexpr uint64_t Hash(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// A permutation of the bytes drawn from `key`. Each step is a bijection modulo 256, so that all 256
// offsets of a window differ; the xor-shifts between the multiplications keep the whole from being
// linear, for under a linear pattern a shift by a well chosen distance would not show.
constexpr uint8_t Permute(uint64_t key, unsigned x) {
  for (int round = 0; round < 3; ++round, key >>= 16) {
    x = (x * (2 * (key & 0x7f) + 1) + ((key >> 8) & 0xff)) & 0xff;
    x ^= x >> 4;
    x ^= x >> 3;
  }
  return static_cast<uint8_t>(x);
}

}  // namespace

uint64_t PatternKey(uint16_t p) { return Hash(p); }

void FillPattern(uint16_t p, std::span<uint8_t> out) {
  if (p < 2) {
    std::ranges::fill(out, p == 0 ? uint8_t{0x00} : uint8_t{0xff});
    return;
  }
  const uint64_t key = Hash(p);
  // An odd step from window to window: any two of the first 256 windows differ at every offset.
  const auto stride = static_cast<uint8_t>((key >> 56) | 1);
  const size_t first = std::min(out.size(), kWindow);
  for (size_t i = 0; i < first; ++i) out[i] = Permute(key, static_cast<unsigned>(i));
  for (size_t i = kWindow; i < out.size(); ++i) {
    out[i] = static_cast<uint8_t>(out[i - kWindow] + stride);
  }
}

void FillTilecfg(const Step& step, std::span<uint8_t, 64> out) {
  constexpr size_t kColsb = 16, kRows = 48;
  std::ranges::fill(out, uint8_t{0});
  out[0] = static_cast<uint8_t>(step.arg[0]);
  for (size_t tile = 0; tile < 8; ++tile) {
    const auto shape = static_cast<uint8_t>(step.arg[1] >> (8 * tile));
    if (shape == 0) continue;
    out[kColsb + 2 * tile] = static_cast<uint8_t>(4 * (1 + (shape >> 4)));
    out[kRows + tile] = static_cast<uint8_t>(1 + (shape & 15));
  }
  out[step.arg[2] % 64] ^= static_cast<uint8_t>(step.arg[3]);
}

uint32_t MsrIndex(Msr m) {
  switch (m) {
    case Msr::kXss:
      return 0xda0;  // IA32_XSS
    case Msr::kXfd:
      return 0x1c4;  // IA32_XFD
    case Msr::kXfdErr:
      return 0x1c5;  // IA32_XFD_ERR
    case Msr::kUCet:
      return 0x6a0;  // IA32_U_CET
    case Msr::kSCet:
      return 0x6a2;  // IA32_S_CET
    case Msr::kPl0Ssp:
    case Msr::kPl1Ssp:
    case Msr::kPl2Ssp:
    case Msr::kPl3Ssp:  // IA32_PL0_SSP to IA32_PL3_SSP
      return 0x6a4 + (static_cast<uint32_t>(m) - static_cast<uint32_t>(Msr::kPl0Ssp));
  }
  return 0;
}

}  // namespace fpswap::program
