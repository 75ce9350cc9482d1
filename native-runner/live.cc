// SPDX-License-Identifier: GPL-2.0-or-later
//
// Compiled with -mgeneral-regs-only: see live.h. No library function may be called from here.
#include "native-runner/live.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "native-runner/competitor.h"
#include "native-runner/frame_plants.h"
#include "native-runner/raw_syscall.h"
#include "native-runner/tracer.h"

namespace fpswap::native {

Live g_live;
bool g_has_mpx;
alignas(64) uint8_t g_image[kLiveImages][kImageSize];
uint8_t g_taken[kMaxLiveSteps][kImageSize];

namespace {

constexpr uint64_t kEflagsTf = 1 << 8, kEflagsDf = 1 << 10, kEflagsAc = 1 << 18;

LiveHostResult ResultOf(long result) {
  if (result < 0) return {.result = -1, .error = static_cast<int32_t>(-result)};
  return {.result = static_cast<int32_t>(result), .error = 0};
}

// Lets thread `tid` (0: this one) run on `cpu` only.
long SetAffinity(long tid, unsigned cpu) {
  uint64_t mask[1024 / 64];
  for (volatile uint64_t& word : mask) word = 0;
  mask[cpu / 64] = uint64_t{1} << (cpu % 64);
  return RawSyscall(SYS_sched_setaffinity, tid, sizeof(mask), reinterpret_cast<long>(mask));
}

unsigned CpuNow() {
  unsigned cpu = 0;
  RawSyscall(SYS_getcpu, reinterpret_cast<long>(&cpu));
  return cpu;
}

// The kernel moves the thread at once, its FPU state in the registers.
LiveHostResult MoveTo(uint64_t nth) {
  const uint16_t cpu = g_live.cpu[nth % g_live.cpus];
  const long result = SetAffinity(0, cpu);
  if (result < 0) return ResultOf(result);
  g_live.affinity_changed = true;
  g_live.cpu_changed = true;
  return ResultOf(CpuNow());
}

// Of asm/sigcontext.h and asm/siginfo.h, which don't go with the C library's headers.
constexpr unsigned kSwXfeatures = 464 + 8;
constexpr uint64_t kPkru = 1 << 9;
constexpr int kSiKernel = 0x80;
constexpr int kEfault = 14;

LiveHostResult RaiseSignal() {
  const uint32_t before = g_live.signals;
  const long result =
      RawSyscall(SYS_tgkill, RawSyscall(SYS_getpid), RawSyscall(SYS_gettid), kHostSignalNumber);
  if (result < 0) return ResultOf(result);
  // A signal to oneself is delivered before the system call returns.
  return ResultOf(*const_cast<volatile uint32_t*>(&g_live.signals) - before);
}

LiveHostResult EditImage(const LiveAction& action) {
  CopyBytes(g_image[action.arg] + action.offset, action.bytes, action.length);
  return {};
}

// plan/vmm.h: key 0 stays allowed.
void AllowKey0(uint8_t* image, bool regset) {
  if (g_live.pkru_offset == 0) return;
  if (regset) {
    image[g_live.pkru_offset] &= static_cast<uint8_t>(~3);
  } else {
    *reinterpret_cast<uint64_t*>(image + kSwXfeatures) &= ~kPkru;
  }
}

LiveHostResult TakeFrame(const LiveAction& action) {
  g_live.frame_use = FrameUse::kTake;
  g_live.frame_image = static_cast<uint8_t>(action.arg);
  const LiveHostResult delivered = RaiseSignal();
  g_live.frame_use = FrameUse::kLeave;
  if (delivered.result != 1) return {.result = -1, .error = delivered.error};
  CopyBytes(g_taken[action.first], g_image[action.arg], g_live.image_size);
  return {};
}

LiveHostResult GiveFrame(const LiveAction& action) {
  AllowKey0(g_image[action.arg], false);
  g_live.frame_use = FrameUse::kGive;
  g_live.frame_image = static_cast<uint8_t>(action.arg);
  g_live.frame_refused = false;
  const LiveHostResult delivered = RaiseSignal();
  g_live.frame_use = FrameUse::kLeave;
  // No SIGSEGV comes for it any more.
  *const_cast<volatile bool*>(&g_live.frame_given) = false;
  if (*const_cast<volatile bool*>(&g_live.frame_refused)) return {.result = -1, .error = kEfault};
  return {.result = delivered.result == 1 ? 0 : -1, .error = delivered.error};
}

LiveHostResult GetRegset(const LiveAction& action) {
  const long result = LetTracerAct(false);
  if (result == 0) {
    CopyBytes(g_image[action.arg], g_tracer->image, g_live.image_size);
    CopyBytes(g_taken[action.first], g_tracer->image, g_live.image_size);
  }
  return ResultOf(result);
}

LiveHostResult SetRegset(const LiveAction& action) {
  AllowKey0(g_image[action.arg], true);
  CopyBytes(g_tracer->image, g_image[action.arg], g_live.image_size);
  return ResultOf(LetTracerAct(true));
}

LiveHostResult DoHostStep(const LiveAction& action) {
  switch (action.kind) {
    case LiveKind::kHostCpu:
      return MoveTo(action.arg);
    case LiveKind::kHostSignal:
      return RaiseSignal();
    case LiveKind::kHostDirty:
      return ResultOf(LetCompetitorRun(static_cast<uint16_t>(action.arg)));
    case LiveKind::kImageEdit:
      return EditImage(action);
    case LiveKind::kGetRegset:
      return GetRegset(action);
    case LiveKind::kSetRegset:
      return SetRegset(action);
    case LiveKind::kSigframe:
      return TakeFrame(action);
    case LiveKind::kSigreturn:
      return GiveFrame(action);
    case LiveKind::kRun:
      break;
  }
  return {};
}

// The step of the run whose code holds `rip`, or -1.
int StepAt(uint64_t rip) {
  if (!g_live.running || rip < g_live.code_base || rip >= g_live.code_base + g_live.code_size) {
    return -1;
  }
  const uint64_t offset = rip - g_live.code_base;
  for (int step = g_live.last; step >= g_live.first; --step) {
    if (offset >= g_live.code_of[step]) return step;
  }
  return -1;
}

// The context goes on behind `step`.
void GoOnBehind(int step, greg_t* regs) {
  regs[REG_RIP] = static_cast<greg_t>(
      step == g_live.last ? g_live.return_pad : g_live.code_base + g_live.code_of[step + 1]);
  regs[REG_EFL] &= ~static_cast<greg_t>(kEflagsTf | kEflagsDf | kEflagsAc);
}

void NoteFault(int step, const greg_t* regs) {
  LiveFault& fault = g_live.fault[step];
  fault.taken = true;
  fault.vector = static_cast<uint8_t>(regs[REG_TRAPNO]);
  fault.error_code = static_cast<uint32_t>(regs[REG_ERR]);
  fault.rip = static_cast<uint64_t>(regs[REG_RIP]);
  // CR2 is what the last #PF left there for every other vector.
  fault.address = fault.vector == 14 ? static_cast<uint64_t>(regs[REG_CR2]) : 0;
  ++g_live.faults;
}

// A program that is still the same at the second tick has had between one and two periods.
void Tick(greg_t* regs) {
  if (!g_live.running) return;
  if (g_live.last_tick != g_live.program) {
    g_live.last_tick = g_live.program;
    return;
  }
  const int step = StepAt(static_cast<uint64_t>(regs[REG_RIP]));
  if (step < 0) return;
  g_live.hung = true;
  g_live.hung_at = static_cast<uint8_t>(step);
  GoOnBehind(g_live.last, regs);
}

// A fault of the runner itself: let it die of it, with a core for whoever looks.
void DieOf(int signal) {
  struct {
    uint64_t handler, flags, restorer, mask;
  } volatile act;
  act.handler = 0;  // SIG_DFL
  act.flags = 0;
  act.restorer = 0;
  act.mask = 0;
  // struct kernel_sigaction; the fourth argument is the size of its mask. Once the handler has
  // returned, the instruction faults again.
  RawSyscall(SYS_rt_sigaction, signal, reinterpret_cast<long>(&act), 0, 8);
}

}  // namespace

long LetCompetitorRun(uint16_t pattern) {
  const unsigned cpu = CpuNow();
  if (const long result = SetAffinity(g_competitor.tid, cpu); result < 0) return result;
  auto* request = const_cast<volatile uint32_t*>(&g_competitor.request);
  auto* done = const_cast<volatile uint32_t*>(&g_competitor.done);
  g_competitor.pattern = pattern;
  const uint32_t number = *request + 1;
  *request = number;
  RawSyscall(SYS_futex, reinterpret_cast<long>(request), FUTEX_WAKE_PRIVATE, 1);
  // While this thread sleeps the competitor has the CPU.
  while (*done != number) {
    RawSyscall(SYS_futex, reinterpret_cast<long>(done), FUTEX_WAIT_PRIVATE,
               static_cast<long>(number - 1));
  }
  PlantAfterCompetitor();
  return 0;
}

long LetTracerAct(bool set) {
  // A thread that is seized where the hang timer's signal has just arrived stops in the handler,
  // whose registers are initial and are thrown away when it returns. The signal waits instead.
  const uint64_t tick = uint64_t{1} << (kTickSignal - 1);
  RawSyscall(SYS_rt_sigprocmask, SIG_BLOCK, reinterpret_cast<long>(&tick), 0, sizeof(tick));
  auto* request = const_cast<volatile uint32_t*>(&g_tracer->request);
  auto* done = const_cast<volatile uint32_t*>(&g_tracer->done);
  g_tracer->set = set;
  const uint32_t number = *request + 1;
  *request = number;
  RawSyscall(SYS_futex, reinterpret_cast<long>(request), FUTEX_WAKE, 1);
  // While this thread sleeps it is stopped, looked at or changed, and let go. A tracer that was
  // killed never answers: then this process ends, and the harness starts another.
  const timespec now_and_then{.tv_sec = 1, .tv_nsec = 0};
  while (*done != number) {
    const long result =
        RawSyscall(SYS_futex, reinterpret_cast<long>(done), FUTEX_WAIT,
                   static_cast<long>(number - 1), reinterpret_cast<long>(&now_and_then));
    const bool gone =
        result == -ETIMEDOUT && RawSyscall(SYS_wait4, g_tracer->pid, 0, WNOHANG) == g_tracer->pid;
    if (gone) {
      constexpr char kWhy[] = "native-runner: the process that traces this one is gone\n";
      RawSyscall(SYS_write, STDERR_FILENO, reinterpret_cast<long>(kWhy), sizeof(kWhy) - 1);
      RawSyscall(SYS_exit_group, 1);
    }
  }
  RawSyscall(SYS_rt_sigprocmask, SIG_UNBLOCK, reinterpret_cast<long>(&tick), 0, sizeof(tick));
  return -g_tracer->error;
}

void HandleSignal(int signal, siginfo_t* info, void* context) {
  auto* uc = static_cast<ucontext_t*>(context);
  greg_t* regs = uc->uc_mcontext.gregs;
  auto* frame = reinterpret_cast<uint8_t*>(uc->uc_mcontext.fpregs);
  if (signal == kTickSignal) {
    Tick(regs);
    return;
  }
  if (signal == kHostSignalNumber) {
    ++g_live.signals;
    if (g_live.frame_use == FrameUse::kTake) {
      CopyBytes(g_image[g_live.frame_image], frame, g_live.image_size);
    } else if (g_live.frame_use == FrameUse::kGive) {
      CopyBytes(frame, g_image[g_live.frame_image], g_live.image_size);
      g_live.frame_given = true;
    }
    PlantAtSignal(frame);
    return;
  }
  // The frame was refused: every register but the FPU's is back where it was, so this is the place
  // behind the system call that raised the first signal.
  if (signal == SIGSEGV && g_live.frame_given && info->si_code == kSiKernel) {
    g_live.frame_refused = true;
    return;
  }
  const int step = StepAt(static_cast<uint64_t>(regs[REG_RIP]));
  if (step < 0) {
    DieOf(signal);
    return;
  }
  NoteFault(step, regs);
  GoOnBehind(step, regs);
  PlantAtFault(frame, g_live.fault[step].vector);
}

extern "C" void fpswap_live_loop() {
  for (uint32_t i = 0; i < g_live.actions && !g_live.hung; ++i) {
    const LiveAction& action = g_live.action[i];
    if (action.kind != LiveKind::kRun) {
      g_live.host[action.first] = DoHostStep(action);
      continue;
    }
    g_live.first = action.first;
    g_live.last = action.last;
    g_live.running = true;
    const uint64_t rip = g_live.code_base + g_live.code_of[action.first];
    if (g_has_mpx) {
      fpswap_enter_mpx(rip);
    } else {
      fpswap_enter(rip);
    }
    *const_cast<volatile bool*>(&g_live.running) = false;
  }
}

}  // namespace fpswap::native
