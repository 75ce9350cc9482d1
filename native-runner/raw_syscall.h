// SPDX-License-Identifier: GPL-2.0-or-later
//
// System calls without libc, which may use vector registers and touches errno.
#pragma once

namespace fpswap::native {

// The kernel's answer: -errno on failure. The fifth and sixth arguments are left out: no caller
// here has them.
inline long RawSyscall(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
  long result;
  asm volatile(
      "mov %[d], %%r10\n\t"
      "syscall"
      : "=a"(result)
      : "a"(number), "D"(a), "S"(b), "d"(c), [d] "r"(d)
      : "rcx", "r10", "r11", "memory");
  return result;
}

}  // namespace fpswap::native
