// SPDX-License-Identifier: GPL-2.0-or-later
//
// Planted bugs: what a kernel would do that loses FPU state. They change the state that the kernel
// saved in a signal's frame and will put back, the registers, or what a debugger sets (tracer.cc);
// never a record. Each waits for a
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
  kZmm15CutBySecondSignal,
  kAvxNotAskedForBySigreturn,
  kHi16KeptBySetregset,
  kXmm0SetByRefusedSetregset,
  kOpmaskOfCompetitor,
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
// The competitor has run, and the registers are the program's again.
void PlantAfterCompetitor();

}  // namespace fpswap::native
