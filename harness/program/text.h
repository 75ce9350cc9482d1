// SPDX-License-Identifier: GPL-2.0-or-later
//
// The text form of programs (files ending in .fps). One step a line; '#' starts a comment:
//
//   fpswap 1                       # version, must be the first line
//   features x87+sse+avx           # optional header lines, any order, before the first step
//   xcr0 x87+sse+avx
//   pke 1
//   vcpus 1
//   evex.load512 reg=17 pattern=0x1234
//   xsave slot=1 rfbm=x87+sse wide=1
//   1: vmm.get_xsave image=0       # a vCPU other than 0
//
// Printing and parsing are inverse: Parse(Print(p)) == p for every valid p.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "harness/program/program.h"

namespace fpswap::program {

// "FILE:LINE:COLUMN: what was expected, what was found".
struct ParseError {
  unsigned line = 0, column = 0;
  std::string message;
  std::string ToString(std::string_view file) const;
};

inline constexpr size_t kMaxTextSize = 1 << 20;

std::expected<Program, ParseError> ParseText(std::string_view text);
std::string PrintText(const Program& p);
// One step without newline, as PrintText has it.
std::string PrintStep(const Step& step);
// "x87+sse+avx", "0" or with a numeric rest "x87+0x400000".
std::string PrintMask(uint64_t mask);

}  // namespace fpswap::program
