// SPDX-License-Identifier: GPL-2.0-or-later
#include "native-runner/tracer.h"

#include <elf.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "native-runner/frame_plants.h"
#include "native-runner/live.h"
#include "native-runner/raw_syscall.h"

namespace fpswap::native {

TracerShared* g_tracer;

namespace {

using Image = std::array<uint8_t, kImageSize>;

constexpr unsigned kXstateBv = 512, kXmm = 160;
constexpr uint64_t kSse = 1 << 1, kHi16Zmm = 1 << 7;

// 0 or errno. A regset of another size than asked for is an error.
int Regset(pid_t thread, bool set, uint8_t* image, size_t size) {
  iovec vector{.iov_base = image, .iov_len = size};
  const auto request = set ? PTRACE_SETREGSET : PTRACE_GETREGSET;
  if (ptrace(request, thread, NT_X86_XSTATE, &vector) != 0) return errno;
  return vector.iov_len == size ? 0 : EIO;
}

uint64_t BvOf(const uint8_t* image) {
  uint64_t bv;
  std::memcpy(&bv, image + kXstateBv, sizeof(bv));
  return bv;
}
void SetBv(uint8_t* image, uint64_t bv) { std::memcpy(image + kXstateBv, &bv, sizeof(bv)); }

// SETREGSET as a kernel with the planted bug would do it.
int SetRegset(pid_t thread, uint8_t* image, size_t size) {
  Image before{};
  if (g_live.plant == FramePlant::kNone || Regset(thread, false, before.data(), size) != 0) {
    return Regset(thread, true, image, size);
  }
  const uint32_t hi16 = g_live.hi16_offset;
  if (g_live.plant == FramePlant::kHi16KeptBySetregset && hi16 != 0 &&
      (BvOf(image) & kHi16Zmm) == 0 && (BvOf(before.data()) & kHi16Zmm) != 0) {
    Image kept{};
    std::memcpy(kept.data(), image, size);
    std::memcpy(kept.data() + hi16, before.data() + hi16, 1024);
    SetBv(kept.data(), BvOf(image) | kHi16Zmm);
    return Regset(thread, true, kept.data(), size);
  }
  const int error = Regset(thread, true, image, size);
  if (g_live.plant == FramePlant::kXmm0SetByRefusedSetregset && error == EINVAL) {
    std::memcpy(before.data() + kXmm, image + kXmm, 16);
    SetBv(before.data(), BvOf(before.data()) | kSse);
    Regset(thread, true, before.data(), size);
  }
  return error;
}

// Stops the thread, acts, lets it go.
int Act(pid_t thread, size_t size) {
  if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) return errno;
  // A thread that can't be stopped can't be let go either, but by the end of its tracer.
  if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) _exit(1);
  int status = 0;
  while (waitpid(thread, &status, __WALL) != thread) {
    if (errno != EINTR) _exit(1);
  }
  const int error = g_tracer->set ? SetRegset(thread, g_tracer->image, size)
                                  : Regset(thread, false, g_tracer->image, size);
  // It may have stopped at a signal instead (not the hang timer's), which is then passed on.
  const bool at_signal = status >> 16 != PTRACE_EVENT_STOP;
  const uintptr_t signal = at_signal ? static_cast<uintptr_t>(WSTOPSIG(status)) : 0;
  ptrace(PTRACE_DETACH, thread, nullptr, reinterpret_cast<void*>(signal));
  return error;
}

[[noreturn]] void TracerProcess(pid_t parent, pid_t thread, size_t size) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  // An agent's death shows by the end of its stream, which is not ours to keep open.
  syscall(SYS_close_range, 0u, ~0u, 0u);
  std::atomic_ref request(g_tracer->request);
  std::atomic_ref done(g_tracer->done);
  for (uint32_t seen = 0;;) {
    while (request.load() == seen) {
      RawSyscall(SYS_futex, reinterpret_cast<long>(&g_tracer->request), FUTEX_WAIT,
                 static_cast<long>(seen));
    }
    seen = request.load();
    g_tracer->error = Act(thread, size);
    done.store(seen);
    RawSyscall(SYS_futex, reinterpret_cast<long>(&g_tracer->done), FUTEX_WAKE, 1);
  }
}

}  // namespace

const char* StartTracer(size_t size) {
  void* shared = mmap(nullptr, sizeof(TracerShared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return "no memory to share with a tracing process";
  g_tracer = static_cast<TracerShared*>(shared);
  const pid_t self = getpid();
  const auto thread = static_cast<pid_t>(syscall(SYS_gettid));
  const pid_t child = fork();
  if (child < 0) return "no process could be started to trace this one";
  if (child == 0) TracerProcess(self, thread, size);
  g_tracer->pid = child;
  // Where Yama restricts ptrace to ancestors; elsewhere there is no such call.
  prctl(PR_SET_PTRACER, child, 0, 0, 0);
  switch (LetTracerAct(false)) {
    case 0:
      return nullptr;
    case -EPERM:
      return "this process may not be traced (ptrace: EPERM)";
    case -EIO:
      return "NT_X86_XSTATE has not the size of the host's XCR0";
    default:
      return "ptrace's NT_X86_XSTATE does not work here";
  }
}

}  // namespace fpswap::native
