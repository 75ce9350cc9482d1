// SPDX-License-Identifier: GPL-2.0-or-later
//
// The table of XSAVE-managed state components: one row a component. Everything that differs between
// components is a column here; code elsewhere loops over rows.
//
// Sizes and offsets in the rows are the architecture's usual ones (SDM vol. 1, 13.4.2-13.5 and the
// "standard" offsets every part with AMX uses). They serve where no machine is at hand; what a real
// machine uses always comes from its CPUID leaf 0DH (see layout.h).
//
// Thread safety: all of it is immutable.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fpswap::xstate {

// The value is the component's bit in XCR0, IA32_XSS, XSTATE_BV, XCOMP_BV and RFBM (SDM 13.1).
enum class Component : uint8_t {
  kX87 = 0,
  kSse = 1,
  kAvx = 2,
  kBndregs = 3,
  kBndcsr = 4,
  kOpmask = 5,
  kZmmHi256 = 6,
  kHi16Zmm = 7,
  kPt = 8,
  kPkru = 9,
  kPasid = 10,
  kCetU = 11,
  kCetS = 12,
  kHdc = 13,
  kUintr = 14,
  kLbr = 15,
  kHwp = 16,
  kTilecfg = 17,
  kTiledata = 18,
  kApx = 19,
};

inline constexpr unsigned kComponentCount = 20;

// The bit of `c` in a feature bitmap.
constexpr uint64_t Bit(Component c) { return uint64_t{1} << static_cast<unsigned>(c); }

constexpr uint64_t operator|(Component a, Component b) { return Bit(a) | Bit(b); }
constexpr uint64_t operator|(uint64_t a, Component b) { return a | Bit(b); }

inline constexpr uint64_t kX87Sse = 3;
inline constexpr uint64_t kMpx = 0x18;
inline constexpr uint64_t kAvx512 = 0xe0;
inline constexpr uint64_t kAmx = 0x60000;

struct ComponentRow {
  Component id;
  std::string_view name;         // short, used in text and JSON: "x87", "sse", "avx", "zmm_hi256"
  std::string_view title;        // the SDM's name: "x87 state", "AVX state (YMM_Hi128)"
  std::string_view kernel_name;  // XFEATURE_* without the prefix
  uint32_t size;                 // bytes; 0 for the legacy region's x87 and SSE (they share 512)
  uint32_t standard_offset;      // 0 for supervisor components
  bool supervisor;               // bit of IA32_XSS, not XCR0 (SDM 13.2)
  bool align64;                  // CPUID.(0DH,i):ECX[1]
  bool xfd;                      // can be disabled by IA32_XFD (SDM 13.14)
  bool modelled;                 // oracle/cpu keeps registers for it; else a row of layout only
};

// The row of `c`.
const ComponentRow& RowOf(Component c);

// All rows, by bit number.
const std::array<ComponentRow, kComponentCount>& Rows();

// The component with this short name, or nothing.
std::optional<Component> ComponentByName(std::string_view name);

}  // namespace fpswap::xstate
