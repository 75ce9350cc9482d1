// SPDX-License-Identifier: GPL-2.0-or-later
//
// Where a component lies in an XSAVE area (SDM vol. 1, 13.4), for one machine. Pure functions.
#pragma once

#include <array>
#include <cstdint>

#include "oracle/xstate/component.h"

namespace fpswap::xstate {

inline constexpr uint32_t kLegacySize = 512;    // 13.4.1
inline constexpr uint32_t kHeaderOffset = 512;  // 13.4.2
inline constexpr uint32_t kHeaderSize = 64;
inline constexpr uint32_t kExtendedOffset = 576;  // 13.4.3
inline constexpr uint32_t kMaxAreaSize = 12288;   // bound used for every buffer: three pages
inline constexpr uint64_t kXcompBvCompacted = uint64_t{1} << 63;

// What CPUID leaf 0DH says. Plain data: recorded in every trace.
struct XsaveCpuid {
  struct Sub {
    uint32_t size = 0;
    uint32_t offset = 0;
    bool supervisor = false;
    bool align64 = false;
    bool xfd = false;
    bool operator==(const Sub&) const = default;
  };
  uint64_t xcr0 = 0;      // (0DH,0):EDX:EAX, the user components that XCR0 may have
  uint64_t xss = 0;       // (0DH,1):EDX:ECX, the supervisor components that IA32_XSS may have
  uint32_t max_size = 0;  // (0DH,0):ECX, bytes of a standard-format area with all of `xcr0`
  bool xsaveopt = false;  // (0DH,1):EAX[0]
  bool xsavec = false;    // EAX[1]
  bool xgetbv1 = false;   // EAX[2]
  bool xsaves = false;    // EAX[3]
  bool xfd = false;       // EAX[4]
  std::array<Sub, kComponentCount> sub{};  // (0DH,i), i >= 2

  bool operator==(const XsaveCpuid&) const = default;

  // The table's own layout for `xcr0` and `xss`, all instructions present: for tests and
  // simulation.
  static XsaveCpuid Typical(uint64_t xcr0, uint64_t xss);
};

// Bytes of a standard-format area for the components `mask` (at least 576).
uint32_t StandardSize(const XsaveCpuid& cpuid, uint64_t mask);

// Offset of `c` in the compacted format whose XCOMP_BV[62:0] is `xcomp_bv` (13.4.3). `c` must be
// >= 2 and in `xcomp_bv`.
uint32_t CompactedOffset(const XsaveCpuid& cpuid, uint64_t xcomp_bv, Component c);

// Bytes of a compacted area with XCOMP_BV[62:0] = `xcomp_bv` (at least 576).
uint32_t CompactedSize(const XsaveCpuid& cpuid, uint64_t xcomp_bv);

// Names the byte at `offset` of a standard-format area, for messages: "YMM5[255:128] byte 3",
// "header XSTATE_BV", "ST2 byte 4", "MXCSR". Total: any offset has a name.
struct ByteName {
  Component component;  // x87 for the header and for reserved bytes
  char text[48];
};
ByteName NameOfByte(const XsaveCpuid& cpuid, uint32_t offset);

}  // namespace fpswap::xstate
