// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kernel's own handling of a thread's registers, for every component that this process may use:
// context switches, ptrace and signal frames. Counterparts of the kernel's selftests (docs/
// other-tests.md), and the ground under native fuzzing: what it calls a divergence of the CPU must
// not be the kernel's.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/random_image.h"

namespace fpswap::cpu::testing {
namespace {

using xstate::ImageView;
using xstate::MutableImage;
using xstate::ReadAt;

// Bytes 464 on of an image in a signal frame or from ptrace: the kernel's struct _fpx_sw_bytes.
constexpr uint32_t kMagic1At = 464, kFeaturesAt = 472, kSizeAt = 480;
constexpr uint32_t kMagic1 = 0x46505853, kMagic2 = 0x46505845;

struct Area {
  alignas(64) uint8_t bytes[xstate::kMaxAreaSize] = {};
};

// XRSTOR64 `in`, then sched_yield `yields` times, a UD2 if `trap`, XSAVE64 into `out`: in one
// piece, so that no library code touches a register.
void LoadWaitSave(const Area& in, Area& out, uint64_t yields, bool trap) {
  const auto low = static_cast<uint32_t>(Host().xcr0);
  const auto high = static_cast<uint32_t>(Host().xcr0 >> 32);
  uint32_t eax = low, edx = high;
  asm volatile(
      "xrstor64 (%[in])\n"
      "test %[trap], %[trap]\n"
      "jz 1f\n"
      "ud2\n"  // the handler goes on behind it
      "1: test %[yields], %[yields]\n"
      "jz 2f\n"
      "mov %[yield], %%eax\n"
      "syscall\n"
      "dec %[yields]\n"
      "jmp 1b\n"
      "2: mov %[low], %%eax\n"
      "mov %[high], %%edx\n"
      "xsave64 (%[out])\n"
      : [yields] "+&r"(yields), "+&a"(eax), "+&d"(edx)
      : [in] "r"(in.bytes), [out] "r"(out.bytes), [trap] "r"(uint64_t{trap}),
        [yield] "i"(SYS_sched_yield), [low] "r"(low), [high] "r"(high)
      : "rcx", "r11", "memory", "cc");
}

// As LoadWaitSave, with the compiler's own state put back.
void LoadWaitSaveKeepingState(const Area& in, Area& out, uint64_t yields, bool trap) {
  Area own;
  const auto low = static_cast<uint32_t>(Host().xcr0);
  const auto high = static_cast<uint32_t>(Host().xcr0 >> 32);
  asm volatile("xsave64 %0" : "+m"(own) : "a"(low), "d"(high));
  LoadWaitSave(in, out, yields, trap);
  asm volatile("xrstor64 %0" : : "m"(own), "a"(low), "d"(high) : "memory");
}

// An image with every component in use, and none that reads back as another.
void FillInUse(Random& random, Area& area) {
  const auto& cpuid = Host().features.xsave;
  random.Fill(area.bytes);
  std::ranges::fill(std::span(area.bytes).subspan(xstate::kHeaderOffset, 64), uint8_t{0});
  const MutableImage image(area.bytes);
  image.set_xstate_bv(Host().xcr0);
  image.set_fcw(0x37f);
  xstate::WriteAt(std::span(area.bytes), 2, uint16_t{0});
  image.set_mxcsr(0x1f80);
  const auto pkru = image.component(cpuid, Component::kPkru);
  if (!pkru.empty()) pkru[0] &= 0xfc;
  for (const Component c : {Component::kBndregs, Component::kBndcsr, Component::kTilecfg}) {
    std::ranges::fill(image.component(cpuid, c), uint8_t{0});
  }
}

// The first component whose bytes differ, in words; empty if none does.
std::string Difference(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  const auto differs = [&](uint32_t at, uint32_t size) {
    return !std::ranges::equal(xstate::Slice(a, at, size), xstate::Slice(b, at, size));
  };
  if (differs(160, 256)) return "sse";
  for (unsigned i = 0; i < 8; ++i) {
    if (differs(32 + 16 * i, 10)) return "x87";
  }
  const auto& cpuid = Host().features.xsave;
  for (const xstate::ComponentRow& row : xstate::Rows()) {
    const auto& sub = cpuid.sub[static_cast<unsigned>(row.id)];
    const uint32_t size = row.id == Component::kPkru ? 4 : sub.size;
    if ((Host().xcr0 & Bit(row.id) & ~xstate::kX87Sse) != 0 && differs(sub.offset, size)) {
      return std::string(row.name);
    }
  }
  return "";
}

TEST(KernelSwap, ContextSwitchesKeepEveryThreadsComponents) {
  constexpr unsigned kThreads = 5, kRounds = 10, kYields = 4;
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  std::vector<std::string> differences(kThreads);
  std::vector<std::thread> threads;
  for (unsigned n = 0; n < kThreads; ++n) {
    threads.emplace_back([&difference = differences[n], n] {
      Random random(n + 1);
      const auto in = std::make_unique<Area>(), out = std::make_unique<Area>();
      for (unsigned round = 0; round < kRounds && difference.empty(); ++round) {
        FillInUse(random, *in);
        LoadWaitSaveKeepingState(*in, *out, kYields, false);
        difference = Difference(in->bytes, out->bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(sched_setaffinity(0, sizeof(all), &all), 0);
  for (const std::string& difference : differences) EXPECT_EQ(difference, "");
}

// What the handler saw and wrote.
Area* g_frame = nullptr;
const Area* g_new = nullptr;

void OnTrap(int, siginfo_t*, void* context) {
  auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
  machine.gregs[REG_RIP] += 2;  // UD2
  auto* frame = reinterpret_cast<uint8_t*>(machine.fpregs);
  const std::span<uint8_t> bytes(frame, xstate::kMaxAreaSize);
  const uint32_t size = ReadAt<uint32_t>(bytes, kSizeAt);
  std::copy_n(frame, std::min(size + 4, xstate::kMaxAreaSize), g_frame->bytes);
  // Components change, what is the kernel's own stays.
  std::copy_n(g_new->bytes + 32, kMagic1At - 48 - 32, frame + 32);
  std::copy_n(g_new->bytes + xstate::kExtendedOffset, size - xstate::kExtendedOffset,
              frame + xstate::kExtendedOffset);
}

TEST(KernelSwap, SignalFramesShowTheComponentsAndGiveThemBack) {
  Random random(9);
  const auto in = std::make_unique<Area>(), out = std::make_unique<Area>();
  const auto frame = std::make_unique<Area>(), changed = std::make_unique<Area>();
  FillInUse(random, *in);
  FillInUse(random, *changed);
  g_frame = frame.get();
  g_new = changed.get();
  struct sigaction action = {}, old = {};
  action.sa_sigaction = OnTrap;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGILL, &action, &old), 0);
  LoadWaitSaveKeepingState(*in, *out, 0, true);
  ASSERT_EQ(sigaction(SIGILL, &old, nullptr), 0);

  const std::span<const uint8_t> bytes(frame->bytes);
  const uint32_t size = ReadAt<uint32_t>(bytes, kSizeAt);
  EXPECT_EQ(ReadAt<uint32_t>(bytes, kMagic1At), kMagic1);
  EXPECT_EQ(ReadAt<uint32_t>(bytes, size), kMagic2);
  EXPECT_EQ(ReadAt<uint64_t>(bytes, kFeaturesAt) & Host().xcr0, Host().xcr0);
  // TILECFG was given its initial value.
  const uint64_t in_use = Host().xcr0 & ~Bit(Component::kTilecfg);
  EXPECT_EQ(ImageView(bytes).xstate_bv() & in_use, in_use);
  EXPECT_EQ(Difference(in->bytes, bytes), "") << "in the frame";
  EXPECT_EQ(Difference(changed->bytes, out->bytes), "") << "after sigreturn";
}

TEST(KernelSwap, PtraceReadsBackTheComponentsThatItWrote) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    // It has used every component, so that its fpstate has room for tiles, and holds none of them.
    Random random(12);
    const auto in = std::make_unique<Area>(), out = std::make_unique<Area>();
    FillInUse(random, *in);
    LoadWaitSaveKeepingState(*in, *out, 0, false);
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSTOPPED(status)) << "ptrace is not allowed here";
  constexpr auto kXstate = static_cast<long>(0x202);  // NT_X86_XSTATE
  const auto given = std::make_unique<Area>(), seen = std::make_unique<Area>();
  Random random(11);
  iovec io{seen->bytes, sizeof(seen->bytes)};
  EXPECT_EQ(ptrace(PTRACE_GETREGSET, child, kXstate, &io), 0);
  const ImageView before(seen->bytes);
  EXPECT_TRUE(std::ranges::all_of(before.component(Host().features.xsave, Component::kTiledata),
                                  [](uint8_t byte) { return byte == 0; }))
      << "initial tiles read as zeros";
  FillInUse(random, *given);
  iovec out{given->bytes, io.iov_len};
  EXPECT_EQ(ptrace(PTRACE_SETREGSET, child, kXstate, &out), 0);
  EXPECT_EQ(ptrace(PTRACE_GETREGSET, child, kXstate, &io), 0);
  EXPECT_EQ(Difference(given->bytes, seen->bytes), "");
  EXPECT_EQ(ReadAt<uint64_t>(std::span<const uint8_t>(seen->bytes), kMagic1At), Host().full_xcr0);
  // A bit outside of what the thread may use is refused, and nothing changes.
  MutableImage(given->bytes).set_xstate_bv(uint64_t{1} << 62);
  EXPECT_EQ(ptrace(PTRACE_SETREGSET, child, kXstate, &out), -1);
  ptrace(PTRACE_DETACH, child, nullptr, nullptr);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
}

}  // namespace
}  // namespace fpswap::cpu::testing
