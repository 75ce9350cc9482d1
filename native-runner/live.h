// SPDX-License-Identifier: GPL-2.0-or-later
//
// What runs while a program's FPU state is in the registers. From the moment the initial state is
// loaded to the end of the program, nothing here or below may touch a vector, mask, bound, tile or
// x87 register: live.cc and frame_plants.cc are compiled with -mgeneral-regs-only and call nothing
// but each other, context.S and raw system calls. So the only things that swap the state are the
// program itself and the kernel, which is what is under test.
//
// Includes nothing of the C++ library: clang refuses its headers without floating point. Constants
// of plan.h and step.h come as data, or as copies that machine.cc compares with the originals.
//
// Plain data, one of it in the process (g_live), because a signal handler has to find it.
#pragma once

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

namespace fpswap::native {

inline constexpr size_t kMaxLiveSteps = 64;
inline constexpr size_t kMaxAllowedCpus = 64;

enum class LiveKind : uint8_t { kRun, kHostCpu, kHostSignal, kHostDirty };

struct LiveAction {
  LiveKind kind;
  uint8_t first, last;  // steps; the same for host steps
  uint64_t arg;         // a host step's first argument
};

struct LiveFault {
  bool taken;
  uint8_t vector;
  uint32_t error_code;
  uint64_t rip;
  uint64_t address;  // CR2
};

struct LiveHostResult {
  int32_t result, error;
};

enum class FramePlant : uint8_t;

struct Live {
  // Before the program.
  uint32_t actions;
  uint32_t code_size;
  uint32_t code_of[kMaxLiveSteps];  // offset from kCodeBase
  LiveAction action[kMaxLiveSteps];

  // Afterwards.
  LiveFault fault[kMaxLiveSteps];
  LiveHostResult host[kMaxLiveSteps];
  bool hung;
  uint8_t hung_at;  // the step
  bool affinity_changed;

  // While it runs.
  bool running;
  uint8_t first, last;  // the run's steps
  uint32_t faults;      // taken so far
  bool cpu_changed;     // by the program, so far
  uint32_t signals;     // Op::kHostSignal's, arrived so far
  uint64_t program;     // counts programs
  uint64_t last_tick;   // the program that ran at the last tick of the hang timer

  // The machine.
  uint64_t code_base, return_pad;  // plan.h's
  FramePlant plant;
  uint32_t cpus;
  uint16_t cpu[kMaxAllowedCpus];                    // allowed ones
  uint32_t opmask_offset, avx_offset, hi16_offset;  // in a standard XSAVE area; 0: not there
};

extern Live g_live;

// Runs g_live's actions from the initial state on. The caller's own state is initial afterwards,
// but for PKRU, FCW and MXCSR, which are as prepared (see context.S).
extern "C" void fpswap_live();

// What fpswap_live loads first, and what it leaves behind: standard-format XSAVE images.
inline constexpr size_t kImageSize = 12288;
extern "C" uint8_t fpswap_initial_image[kImageSize];
extern "C" uint8_t fpswap_runner_image[kImageSize];

// Where the code at kReturnPad goes on, and how a run is entered; the second pair keeps the bound
// registers from the runner's own branches, on CPUs with MPX.
extern "C" void fpswap_leave();
extern "C" void fpswap_leave_mpx();
extern "C" void fpswap_enter(uint64_t rip);
extern "C" void fpswap_enter_mpx(uint64_t rip);
extern bool g_has_mpx;

// Handlers for faults, for Op::kHostSignal and for the hang timer go on the alternate stack.
inline constexpr int kTickSignal = SIGALRM;
inline constexpr int kHostSignalNumber = SIGUSR1;
void HandleSignal(int signal, siginfo_t* info, void* context);

}  // namespace fpswap::native
