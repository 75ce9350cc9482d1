// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/trace/kernel_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace fpswap::trace {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Ours = Splat::Ours;

TEST(KernelLogTest, WhatHealthyKernelsLogIsNoSplat) {
  EXPECT_THAT(FindSplats(""), IsEmpty());
  EXPECT_THAT(FindSplats("debugfs: duplicate directory '3-7' with parent 'kvm'\n"
                         "[    1.2] kvm: SMP vm created on host with unstable TSC\n"
                         "x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'\n"
                         "kvm_intel: kvm [12]: vcpu0, guest rIP: 0x1 Unhandled WRMSR(0x1c4) = 0x1\n"
                         "Call Trace:\n fpu_swap_kvm_fpstate+0x1/0x2\n"),
              IsEmpty());
}

TEST(KernelLogTest, AWarningOfOldAndNewKernels) {
  const auto old = FindSplats(
      "[   12.345678] ------------[ cut here ]------------\n"
      "[   12.345679] WARNING: CPU: 1 PID: 77 at arch/x86/kernel/fpu/core.c:312 "
      "fpu_sync_guest_vmexit_xfd_state+0x2a/0x40\n"
      "[   12.345680] Modules linked in: kvm_intel kvm irqbypass\n"
      "[   12.345681] CPU: 1 PID: 77 Comm: kvm-runner Not tainted 6.12.1 #1\n"
      "[   12.345682] RIP: 0010:fpu_sync_guest_vmexit_xfd_state+0x2a/0x40\n"
      "[   12.345683] Call Trace:\n"
      "[   12.345684]  vcpu_enter_guest.constprop.0+0x123/0x456 [kvm]\n"
      "[   12.345685] ---[ end trace 0000000000000000 ]---\n");
  ASSERT_THAT(old, SizeIs(1));
  EXPECT_EQ(old[0].kind, "WARNING");
  EXPECT_EQ(old[0].place, "fpu_sync_guest_vmexit_xfd_state");
  EXPECT_EQ(old[0].ours, Ours::kSurely);
  EXPECT_FALSE(old[0].fatal);
  EXPECT_THAT(old[0].headline, testing::StartsWith("WARNING: CPU: 1"));

  const auto fresh = FindSplats(
      "WARNING: arch/x86/kvm/x86.c:4242 at kvm_put_guest_fpu+0x7/0x9 [kvm], CPU#0: kvm-runner/5\n"
      "---[ end trace 0000000000000000 ]---\n");
  ASSERT_THAT(fresh, SizeIs(1));
  EXPECT_EQ(fresh[0].place, "kvm_put_guest_fpu");
  EXPECT_EQ(fresh[0].ours, Ours::kSurely);
}

TEST(KernelLogTest, AnOopsAndThePanicItEndsInAreOne) {
  const auto splats = FindSplats(
      "<1>[ 3.0] BUG: kernel NULL pointer dereference, address: 0000000000000008\r\n"
      "<1>[ 3.0] #PF: supervisor read access in kernel mode\r\n"
      "<4>[ 3.0] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI\r\n"
      "<4>[ 3.0] RIP: 0010:xstate_copy.isra.0+0x8/0x50\r\n"
      "<4>[ 3.0] ---[ end trace 0000000000000000 ]---\r\n"
      "<0>[ 3.1] Kernel panic - not syncing: Fatal exception\r\n");
  ASSERT_THAT(splats, SizeIs(1));
  EXPECT_EQ(splats[0].kind, "BUG");
  EXPECT_EQ(splats[0].place, "xstate_copy");
  EXPECT_TRUE(splats[0].fatal);
  EXPECT_EQ(splats[0].ours, Ours::kLikely) << "the process is not named";
}

TEST(KernelLogTest, OthersComplaintsAreToldApart) {
  const std::string other =
      "WARNING: CPU: 0 PID: 9 at fs/ext4/inode.c:1 ext4_evict_inode+0x1/0x2\n"
      "Modules linked in: kvm_intel kvm\n"
      "CPU: 0 PID: 9 Comm: tar Not tainted\n"
      "---[ end trace 0000000000000000 ]---\n";
  ASSERT_THAT(FindSplats(other), SizeIs(1));
  EXPECT_EQ(FindSplats(other)[0].ours, Ours::kNo) << "a list of modules is no trace";
  const std::string in_ours =
      "WARNING: CPU: 0 PID: 9 at mm/slub.c:1 kfree+0x1/0x2\n"
      "CPU: 0 PID: 9 Comm: kvm-runner Not tainted\n";
  ASSERT_THAT(FindSplats(in_ours), SizeIs(1));
  EXPECT_EQ(FindSplats(in_ours)[0].ours, Ours::kLikely)
      << "the agent's name alone is not KVM's code";
  EXPECT_THAT(FindSplats(other + in_ours), SizeIs(2));
}

TEST(KernelLogTest, EachKind) {
  const std::pair<const char*, const char*> cases[] = {
      {"unchecked MSR access error: WRMSR to 0x1c4 (tried to write 0x40000) at rIP: 0x1 "
       "(xfd_update_state+0x1/0x2)",
       "unchecked MSR access"},
      {"Bad FPU state detected at restore_fpregs_from_fpstate+0x1/0x2, reinitializing FPU "
       "registers.",
       "bad FPU state"},
      {"BUG: KASAN: slab-out-of-bounds in copy_xstate+0x1/0x2", "KASAN"},
      {"UBSAN: shift-out-of-bounds in arch/x86/kernel/fpu/xstate.c:1:2", "UBSAN"},
      {"watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kvm-runner:12]", "soft lockup"},
      {"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RCU stall"},
      {"INFO: task kvm-runner:12 blocked for more than 120 seconds.", "hung task"},
      {"general protection fault, probably for non-canonical address 0x1: 0000 [#1]", "Oops"},
      {"Oops: general protection fault, probably for non-canonical address 0x1: 0000 [#1]", "Oops"},
      {"kernel BUG at arch/x86/kvm/x86.c:1!", "BUG"},
      {"Kernel panic - not syncing: sysrq triggered crash", "Kernel panic"},
  };
  for (const auto& [line, kind] : cases) {
    const auto splats = FindSplats(line);
    ASSERT_THAT(splats, SizeIs(1)) << line;
    EXPECT_EQ(splats[0].kind, kind) << line;
  }
}

TEST(KernelLogTest, AnyTextIsRead) {
  std::minstd_rand random(1);
  const std::string_view parts[] = {"WARNING: ",
                                    "BUG: ",
                                    "+0x",
                                    "RIP: 0010:",
                                    "\n",
                                    "[",
                                    "] ",
                                    "Oops: ",
                                    "<4>",
                                    "---[ end ",
                                    "\r",
                                    "kvm",
                                    "Kernel panic - not syncing"};
  for (unsigned i = 0; i < 2000; ++i) {
    std::string text;
    for (auto n = random() % 200; n > 0; --n) {
      if (random() % 3 == 0) {
        text += static_cast<char>(random());
      } else {
        text += parts[random() % std::size(parts)];
      }
    }
    for (const Splat& splat : FindSplats(text)) {
      EXPECT_LE(splat.headline.size(), 400u);
      for (const char c : splat.headline) EXPECT_TRUE(c >= ' ' && c <= '~');
    }
  }
  std::string endless;
  for (unsigned i = 0; i < 10'000; ++i) endless += "WARNING: again\n";
  EXPECT_LE(FindSplats(endless).size(), 64u);
}

}  // namespace
}  // namespace fpswap::trace
