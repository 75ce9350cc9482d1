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

inline constexpr size_t kLiveImages = 4;
inline constexpr size_t kImageSize = 12288;

enum class LiveKind : uint8_t {
  kRun,
  kHostCpu,
  kHostSignal,
  kHostDirty,
  kImageEdit,
  kGetRegset,
  kSetRegset,
  kSigframe,
  kSigreturn
};

struct LiveAction {
  LiveKind kind;
  uint8_t first, last;      // steps; the same for all but runs
  uint64_t arg;             // their first argument
  uint32_t offset, length;  // kImageEdit: `length` of `bytes` go to `offset`
  const uint8_t* bytes;
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

// What Op::kHostSignal's handler does with the frame: nothing, or takes its XSAVE image into an
// image buffer, or puts an image buffer in its place.
enum class FrameUse : uint8_t { kLeave, kTake, kGive };

enum class FramePlant : uint8_t;

struct Live {
  // Before the program.
  uint32_t actions;
  uint32_t code_size;
  uint32_t code_of[kMaxLiveSteps];  // offset from kCodeBase
  LiveAction action[kMaxLiveSteps];

  // Afterwards.
  LiveFault fault[kMaxLiveSteps];
  LiveHostResult host[kMaxLiveSteps];  // of all steps that are none of a run
  bool hung;
  uint8_t hung_at;  // the step
  bool affinity_changed;

  // While it runs.
  bool running;
  uint8_t first, last;  // the run's steps
  uint32_t faults;      // taken so far
  bool cpu_changed;     // by the program, so far
  uint32_t signals;     // kHostSignalNumber's, arrived so far
  FrameUse frame_use;   // of the next one
  uint8_t frame_image;
  bool frame_given;    // sigreturn is at work on an image of the program's
  bool frame_refused;  // by SIGSEGV
  uint64_t program;    // counts programs
  uint64_t last_tick;  // the program that ran at the last tick of the hang timer

  // The machine.
  uint64_t code_base, return_pad;  // plan.h's
  FramePlant plant;
  uint32_t cpus;
  uint16_t cpu[kMaxAllowedCpus];  // allowed ones
  uint32_t image_size;            // bytes of NT_X86_XSTATE and of a frame's XSAVE image
  // In a standard XSAVE area; 0: not there.
  uint32_t opmask_offset, avx_offset, zmm_hi256_offset, hi16_offset, pkru_offset;
};

extern Live g_live;

// The program's image buffers, and what its steps took.
extern uint8_t g_image[kLiveImages][kImageSize];
extern uint8_t g_taken[kMaxLiveSteps][kImageSize];

// memcpy, which could use vector registers.
inline void CopyBytes(void* to, const void* from, size_t size) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

// Runs g_live's actions from the initial state on. The caller's own state is initial afterwards,
// but for PKRU, FCW and MXCSR, which are as prepared (see context.S).
extern "C" void fpswap_live();

// What fpswap_live loads first, and what it leaves behind: standard-format XSAVE images.
extern "C" uint8_t fpswap_initial_image[kImageSize];
extern "C" uint8_t fpswap_runner_image[kImageSize];

// Where the code at kReturnPad goes on, and how a run is entered; the second pair keeps the bound
// registers from the runner's own branches, on CPUs with MPX.
extern "C" void fpswap_leave();
extern "C" void fpswap_leave_mpx();
extern "C" void fpswap_enter(uint64_t rip);
extern "C" void fpswap_enter_mpx(uint64_t rip);
extern bool g_has_mpx;

// Handlers for faults, for signals of the program's steps and for the hang timer go on the
// alternate stack.
inline constexpr int kTickSignal = SIGALRM;
inline constexpr int kHostSignalNumber = SIGUSR1;
void HandleSignal(int signal, siginfo_t* info, void* context);

}  // namespace fpswap::native
