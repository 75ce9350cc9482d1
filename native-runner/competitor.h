// SPDX-License-Identifier: GPL-2.0-or-later
//
// Op::kHostDirty: another thread that fills every register of this CPU with a pattern, so that the
// program's state has to be swapped out and in again.
#pragma once

#include <stdint.h>

namespace fpswap::xstate {
struct XsaveCpuid;
}

namespace fpswap::native {

// What the two threads share. Changed by futex only.
struct CompetitorShared {
  uint32_t request, done;  // counts
  uint16_t pattern;
  int32_t tid;  // 0: not there
};
extern CompetitorShared g_competitor;

// The registers the competitor loads, an XSAVE image; it writes there on request only.
const uint8_t* DirtyImage();

// Part of live.h's world: no library call. 0, or -errno.
long LetCompetitorRun(uint16_t pattern);

// Starts the thread, once in the process; it lives as long as the process. `xcr0` is the host's.
void StartCompetitor(const xstate::XsaveCpuid& xsave, uint64_t xcr0);

}  // namespace fpswap::native
