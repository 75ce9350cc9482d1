// SPDX-License-Identifier: GPL-2.0-or-later
#include "native-runner/competitor.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "harness/program/step.h"
#include "native-runner/raw_syscall.h"
#include "oracle/xstate/component.h"
#include "oracle/xstate/layout.h"

namespace fpswap::native {
namespace {

using xstate::Bit;
using xstate::Component;

// BNDCSR and PKRU would change what this thread may do, not just what it holds.
constexpr uint64_t kLeftAlone = Bit(Component::kBndcsr) | Bit(Component::kPkru);

struct alignas(64) Image {
  uint8_t bytes[xstate::kMaxAreaSize];
};
Image g_dirty, g_clean;

template <typename T>
void PutAt(Image& image, size_t offset, T value) {
  std::memcpy(image.bytes + offset, &value, sizeof(value));
}

void PutLegacyControls(Image& image) {
  PutAt<uint16_t>(image, 0, 0x37f);    // FCW: nothing unmasked
  PutAt<uint16_t>(image, 2, 0);        // FSW: nothing pending
  PutAt<uint32_t>(image, 24, 0x1f80);  // MXCSR
}

void FillImage(const xstate::XsaveCpuid& xsave, uint64_t components, uint16_t pattern) {
  program::FillPattern(pattern, g_dirty.bytes);
  PutLegacyControls(g_dirty);
  std::memset(g_dirty.bytes + xstate::kHeaderOffset, 0, xstate::kHeaderSize);
  PutAt(g_dirty, xstate::kHeaderOffset, components);
  if ((components & Bit(Component::kTilecfg)) == 0) return;
  // A legal TILECFG: palette 1, eight tiles of 16 rows of 64 bytes.
  const uint32_t at = xsave.sub[static_cast<size_t>(Component::kTilecfg)].offset;
  std::memset(g_dirty.bytes + at, 0, 64);
  g_dirty.bytes[at] = 1;
  for (unsigned tile = 0; tile < 8; ++tile) {
    PutAt<uint16_t>(g_dirty, at + 16 + 2 * tile, 64);
    g_dirty.bytes[at + 48 + tile] = 16;
  }
}

// Loads the dirty registers, says so, and gives the CPU away with them still loaded.
void DirtyAndWake(uint64_t components, uint32_t done) {
  const auto low = static_cast<uint32_t>(components);
  const auto high = static_cast<uint32_t>(components >> 32);
  asm volatile("xrstor64 %0" : : "m"(g_dirty), "a"(low), "d"(high) : "memory");
  *const_cast<volatile uint32_t*>(&g_competitor.done) = done;
  RawSyscall(SYS_futex, reinterpret_cast<long>(&g_competitor.done), FUTEX_WAKE_PRIVATE, 1);
  asm volatile("xrstor64 %0" : : "m"(g_clean), "a"(low), "d"(high) : "memory");
}

void CompetitorThread(const xstate::XsaveCpuid xsave, uint64_t components) {
  // All registers are the competitor's own: the handlers belong to the thread that runs programs.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  std::atomic_ref request(g_competitor.request);
  uint32_t seen = 0;
  std::atomic_ref(g_competitor.tid).store(static_cast<int32_t>(RawSyscall(SYS_gettid)));
  for (;;) {
    while (request.load() == seen) {
      RawSyscall(SYS_futex, reinterpret_cast<long>(&g_competitor.request), FUTEX_WAIT_PRIVATE,
                 static_cast<long>(seen));
    }
    seen = request.load();
    FillImage(xsave, components, g_competitor.pattern);
    DirtyAndWake(components, seen);
  }
}

}  // namespace

CompetitorShared g_competitor;

const uint8_t* DirtyImage() { return g_dirty.bytes; }

void StartCompetitor(const xstate::XsaveCpuid& xsave, uint64_t xcr0) {
  PutLegacyControls(g_clean);
  std::thread(CompetitorThread, xsave, xcr0 & ~kLeftAlone).detach();
  while (std::atomic_ref(g_competitor.tid).load() == 0) std::this_thread::yield();
}

}  // namespace fpswap::native
