// SPDX-License-Identifier: GPL-2.0-or-later
//
// The CPU that the tests run on, read through CPUID by code that shares nothing with the harness.
#pragma once

#include "oracle/cpu/cpu.h"

namespace fpswap::cpu::testing {

struct HostCpu {
  Features features;
  uint64_t xcr0 = 0;       // components that this process may use: tiles only if permitted
  uint64_t full_xcr0 = 0;  // XCR0
  bool os_pke = false;
};

// Read once. Asks the kernel for permission to use tiles.
const HostCpu& Host();

// Set in the environment: this process does not ask for permission to use tiles.
inline constexpr char kWithoutTiles[] = "FPSWAP_WITHOUT_TILES";

// A Cpu that is in the state that a process of this host starts its steps in.
Cpu HostModel();

}  // namespace fpswap::cpu::testing
