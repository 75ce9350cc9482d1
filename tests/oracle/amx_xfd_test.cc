// SPDX-License-Identifier: GPL-2.0-or-later
//
// IA32_XFD on this CPU, where it has AMX. A process without permission for tiles runs with
// IA32_XFD[18] = 1, and its kernel turns the #NM into SIGILL with si_code ILL_ILLOPC
// (handle_xfd_event); an invalid opcode is ILL_ILLOPN (handle_invalid_op). So an unprivileged
// process sees which instructions are exempt, and whether #UD comes before #NM.
#include <gtest/gtest.h>
#include <signal.h>
#include <ucontext.h>

#include <array>

#include "tests/oracle/anew.h"

namespace {

// What an instruction ended in: 0 or the si_code of its SIGILL.
volatile sig_atomic_t g_code = 0;
uint64_t g_resume = 0;

void OnIllegal(int, siginfo_t* info, void* context) {
  g_code = info->si_code;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(g_resume);
}

#define TRY(instruction, ...)                                                \
  ([&] {                                                                     \
    g_code = 0;                                                              \
    asm volatile("lea 1f(%%rip), %%rax\n mov %%rax, %0\n" instruction "\n1:" \
                 : "=m"(g_resume)                                            \
                 : __VA_ARGS__                                               \
                 : "rax", "rdx", "memory");                                  \
    return static_cast<int>(g_code);                                         \
  }())

// The body, in a process without permission.
void WithoutPermission() {
  struct sigaction action = {};
  action.sa_sigaction = OnIllegal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ASSERT_EQ(sigaction(SIGILL, &action, nullptr), 0);

  alignas(64) std::array<uint8_t, 64> config{}, stored{};
  config[0] = 1;
  for (unsigned tile = 0; tile < 4; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
  std::array<uint8_t, 1024> memory{};
  const uint64_t stride = 64;

  EXPECT_EQ(TRY("tilezero %%tmm0", "m"(memory)), ILL_ILLOPN) << "not configured: #UD before #NM";
  EXPECT_EQ(TRY("ldtilecfg %1", "m"(config)), 0) << "LDTILECFG is exempt";
  EXPECT_EQ(TRY("sttilecfg %1", "m"(stored)), 0) << "STTILECFG is exempt";
  EXPECT_EQ(stored, config);
  EXPECT_EQ(TRY("tilezero %%tmm0", "m"(memory)), ILL_ILLOPC) << "#NM";
  EXPECT_EQ(TRY("tileloadd (%1,%2,1), %%tmm1", "r"(memory.data()), "r"(stride)), ILL_ILLOPC);
  EXPECT_EQ(TRY("tilestored %%tmm1, (%1,%2,1)", "r"(memory.data()), "r"(stride)), ILL_ILLOPC);
  EXPECT_EQ(TRY("tdpbssd %%tmm2, %%tmm1, %%tmm0", "m"(memory)), ILL_ILLOPC);
  EXPECT_EQ(TRY("tilezero %%tmm4", "m"(memory)), ILL_ILLOPN) << "an invalid tile: #UD before #NM";
  // XRSTOR: #NM only where XSTATE_BV has the tiles; XSAVE acts as if they were initial.
  alignas(64) static std::array<uint8_t, 12288> area;
  area.fill(0);
  area[24] = 0x80, area[25] = 0x1f;  // MXCSR
  const uint32_t mask = 0x60000;
  EXPECT_EQ(TRY("mov %1, %%eax\n xor %%edx, %%edx\n xrstor %2", "r"(mask), "m"(area)), 0);
  area[512 + 2] = 0x04;
  EXPECT_EQ(TRY("mov %1, %%eax\n xor %%edx, %%edx\n xrstor %2", "r"(mask), "m"(area)), ILL_ILLOPC);
  EXPECT_EQ(TRY("ldtilecfg %1", "m"(config)), 0);
  EXPECT_EQ(TRY("mov %1, %%eax\n xor %%edx, %%edx\n xsave %2", "r"(mask), "m"(area)), 0);
  EXPECT_EQ(area[512 + 2] & 0x06, 0x02) << "TILECFG is in use, the tiles are not";
  EXPECT_EQ(TRY("tilerelease", "m"(memory)), 0) << "TILERELEASE is exempt";
}

TEST(AmxXfd, DisabledTilesAreDeviceNotAvailableBehindInvalidOpcodes) {
  fpswap::cpu::testing::WithoutTilePermission(WithoutPermission);
}

}  // namespace
