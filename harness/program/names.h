// SPDX-License-Identifier: GPL-2.0-or-later
//
// Words of the text form that are no step names: shared by printer and parser.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "oracle/xstate/layout.h"

namespace fpswap::program {

// By the values of enum Msr and enum Cr4Bit.
inline constexpr std::array<std::string_view, 9> kMsrNames = {
    "xss", "xfd", "xfd_err", "u_cet", "s_cet", "pl0_ssp", "pl1_ssp", "pl2_ssp", "pl3_ssp"};
inline constexpr std::array<std::string_view, 3> kCr4Names = {"osfxsr", "osxsave", "pke"};

// In masks: every bit, and XCOMP_BV[63].
inline constexpr std::string_view kAllName = "all";
inline constexpr uint64_t kAllComponents = ~uint64_t{0};
inline constexpr std::string_view kCompactedName = "compacted";

}  // namespace fpswap::program
