// SPDX-License-Identifier: GPL-2.0-or-later
//
// Planted bugs: what a kernel would do that loses FPU state around a signal. They change the state
// that the kernel saved in the signal's frame and will put back; never a record. Each waits for a
// condition that a program must reach. They measure the fuzzer, which must find each of them.
//
// Compiled with -mgeneral-regs-only (live.h).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace fpswap::native {

enum class FramePlant : uint8_t {
  kNone,
  kYmmHighLostOnFault,
  kZmm16SwapOnThirdFault,
  kMxcsrResetBySignal,
  kOpmaskCutAfterCpuChange,
  kTagsLostOnPageFault,
};

struct FramePlantRow {
  FramePlant plant;
  const char* name;
  const char* sentence;
};

// Ends with a row whose name is null.
extern const FramePlantRow kFramePlants[];

// `frame` is the XSAVE area of the frame, standard format. Called with g_live up to date.
void PlantAtFault(uint8_t* frame, uint8_t vector);
void PlantAtSignal(uint8_t* frame);

}  // namespace fpswap::native
