// SPDX-License-Identifier: GPL-2.0-or-later
//
// PTRACE_GETREGSET and PTRACE_SETREGSET of NT_X86_XSTATE. Only another process may trace, so there
// is a child that seizes the thread for each request and lets it go again: a thread that stays
// traced would stop at every fault of every program.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace fpswap::native {

// Memory that both processes share. `request` and `done` change by futex only.
struct TracerShared {
  uint32_t request, done;  // counts
  bool set;                // of the request: SETREGSET, not GETREGSET
  int32_t error;           // of the answer: errno or 0
  int32_t pid;             // the tracer's
  alignas(64) uint8_t image[12288];
};
extern TracerShared* g_tracer;

// Part of live.h's world: no library call. 0, or -errno. REQUIRES: StartTracer was a success.
long LetTracerAct(bool set);

// Starts the child, which lives no longer than this process, for the calling thread and regsets of
// `size` bytes. Null, or why there is none (a sentence for a person). Once in the process, while it
// has no other thread.
const char* StartTracer(size_t size);

}  // namespace fpswap::native
