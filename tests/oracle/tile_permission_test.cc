// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kernel's permission for tiles (arch/x86/kernel/fpu/xstate.c, xstate_request_perm;
// Documentation/arch/x86/xstate.rst), as a process sees it: counterparts of its selftest x86/amx
// (docs/other-tests.md). On a CPU with AMX, and inside lab:amx.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "oracle/xstate/image.h"
#include "tests/oracle/anew.h"

namespace fpswap::cpu::testing {
namespace {

constexpr uint64_t kTilecfg = Bit(Component::kTilecfg), kTiledata = Bit(Component::kTiledata);
constexpr uint64_t kTiledataNumber = 18;

// asm/prctl.h, Linux 5.16.
constexpr long kGetSupp = 0x1021, kGetPerm = 0x1022, kReqPerm = 0x1023;

uint64_t Components(long call) {
  uint64_t mask = 0;
  EXPECT_EQ(syscall(SYS_arch_prctl, call, &mask), 0);
  return mask;
}

// 0 or the errno.
int Request(uint64_t component) {
  return syscall(SYS_arch_prctl, kReqPerm, component) == 0 ? 0 : errno;
}

void ConfigureTiles() {
  alignas(64) std::array<uint8_t, 64> config{};
  config[0] = 1;
  for (unsigned tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
  asm volatile("ldtilecfg %0" : : "m"(config));
}

struct Tile {
  alignas(64) std::array<uint8_t, 1024> bytes{};
  bool operator==(const Tile&) const = default;
};
constexpr uint64_t kStride = 64;

Tile SomeTile() {
  Tile tile;
  for (unsigned i = 0; i < tile.bytes.size(); ++i) tile.bytes[i] = static_cast<uint8_t>(i * 7 + 1);
  return tile;
}
void Load(const Tile& tile) {
  asm volatile("tileloadd (%0,%1,1), %%tmm3" : : "r"(tile.bytes.data()), "r"(kStride) : "memory");
}
Tile Stored() {
  Tile tile;
  asm volatile("tilestored %%tmm3, (%0,%1,1)" : : "r"(tile.bytes.data()), "r"(kStride) : "memory");
  return tile;
}

// The XSAVE image of a signal's frame.
struct Frame {
  uint32_t size = 0;        // struct _fpx_sw_bytes
  uint64_t components = 0;  // its xfeatures
  uint64_t xstate_bv = 0;
  Tile tile;  // TMM3, if it is there
};
Frame g_frame;

void OnSignal(int, siginfo_t*, void* context) {
  const auto* bytes =
      reinterpret_cast<const uint8_t*>(static_cast<ucontext_t*>(context)->uc_mcontext.fpregs);
  const std::span<const uint8_t> fixed(bytes, xstate::kExtendedOffset);
  g_frame.components = xstate::ReadAt<uint64_t>(fixed, 472);
  g_frame.size = xstate::ReadAt<uint32_t>(fixed, 480);
  g_frame.xstate_bv = xstate::ReadAt<uint64_t>(fixed, xstate::kHeaderOffset);
  const uint64_t at = Host().features.xsave.sub[kTiledataNumber].offset + 3 * 1024;
  if (g_frame.size < at + 1024) return;
  std::copy_n(bytes + at, 1024, g_frame.tile.bytes.begin());
}

Frame FrameNow() {
  struct sigaction action = {}, old = {};
  action.sa_sigaction = OnSignal;
  action.sa_flags = SA_SIGINFO;
  EXPECT_EQ(sigaction(SIGUSR1, &action, &old), 0);
  g_frame = {};
  raise(SIGUSR1);
  EXPECT_EQ(sigaction(SIGUSR1, &old, nullptr), 0);
  return g_frame;
}

TEST(TilePermission, IsListedOnceItWasAskedFor) {
  WithoutTilePermission([] {
    EXPECT_EQ(Components(kGetSupp) & xstate::kAmx, xstate::kAmx);
    EXPECT_EQ(Components(kGetPerm) & xstate::kAmx, kTilecfg);
    EXPECT_EQ(Request(63), EINVAL) << "no component of the kernel's";
    EXPECT_EQ(Request(2), EOPNOTSUPP) << "AVX wants no permission";
    EXPECT_EQ(Components(kGetPerm) & xstate::kAmx, kTilecfg);
    EXPECT_EQ(Request(kTiledataNumber), 0);
    EXPECT_EQ(Components(kGetPerm) & xstate::kAmx, xstate::kAmx);
    EXPECT_EQ(Request(kTiledataNumber), 0) << "a second time";
  });
}

// With the first use of tiles, a frame grows (fpstate_realloc).
TEST(TilePermission, FramesHaveTilesWhereTheyAreInUse) {
  WithoutTilePermission([] {
    const auto& tiledata = Host().features.xsave.sub[kTiledataNumber];
    for (const bool permitted : {false, true}) {
      if (permitted) {
        ASSERT_EQ(Request(kTiledataNumber), 0);
      }
      const Frame before = FrameNow();
      EXPECT_LE(before.size, tiledata.offset) << (permitted ? "permitted" : "not permitted");
      EXPECT_EQ(before.components & xstate::kAmx, kTilecfg);
      EXPECT_EQ(before.xstate_bv & kTiledata, 0u);
    }
    ConfigureTiles();
    Load(SomeTile());
    const Frame after = FrameNow();
    EXPECT_GE(after.size, tiledata.offset + tiledata.size);
    EXPECT_EQ(after.components & xstate::kAmx, xstate::kAmx);
    EXPECT_EQ(after.xstate_bv & xstate::kAmx, xstate::kAmx);
    EXPECT_EQ(after.tile, SomeTile());
    EXPECT_EQ(Stored(), SomeTile());
  });
}

// A signal stack that can't hold a frame with tiles, and permission for tiles: whichever comes
// second is refused (validate_sigaltstack, sigaltstack_size_valid).
TEST(TilePermission, AndSmallSignalStacksExcludeEachOther) {
  WithoutTilePermission([] {
    static std::array<uint8_t, 1 << 16> memory;
    const size_t enough = getauxval(AT_MINSIGSTKSZ);
    constexpr size_t kSmall = 4096;  // a frame without tiles and more
    ASSERT_GT(enough, kSmall);
    const auto use = [](size_t size) {
      const stack_t stack{.ss_sp = memory.data(), .ss_flags = 0, .ss_size = size};
      return syscall(SYS_sigaltstack, &stack, nullptr) == 0 ? 0 : errno;
    };
    ASSERT_EQ(use(kSmall), 0);
    EXPECT_EQ(Request(kTiledataNumber), ENOSPC);
    EXPECT_EQ(Components(kGetPerm) & xstate::kAmx, kTilecfg);
    ASSERT_EQ(use(enough), 0);
    EXPECT_EQ(Request(kTiledataNumber), 0);
    EXPECT_EQ(use(kSmall), ENOMEM);
    EXPECT_EQ(use(enough), 0);
  });
}

// fpu_clone: permission and TILECFG go to the child, tiles do not.
TEST(TilePermission, IsInheritedByAChildWhoseTilesAreInitial) {
  WithoutTilePermission([] {
    ASSERT_EQ(Request(kTiledataNumber), 0);
    ConfigureTiles();
    Load(SomeTile());
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const bool permitted = (Components(kGetPerm) & kTiledata) != 0;
      _exit((permitted ? 0 : 1) | (FrameNow().xstate_bv & kTiledata ? 2 : 0) |
            (Stored() == Tile() ? 0 : 4));
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "status " << status;
    EXPECT_EQ(WEXITSTATUS(status) & 1, 0) << "no permission in the child";
    EXPECT_EQ(WEXITSTATUS(status) & 2, 0) << "tiles in the child's frame";
    EXPECT_EQ(WEXITSTATUS(status) & 4, 0) << "a tile of the child's is not zero";
    EXPECT_EQ(Stored(), SomeTile()) << "the parent's tiles";
  });
}

}  // namespace
}  // namespace fpswap::cpu::testing
