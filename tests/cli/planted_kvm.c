// SPDX-License-Identifier: GPL-2.0-or-later
//
// A KVM with a planted bug, for programs that are not our agent (LD_PRELOAD): the agent's plant
// refused-set-changes-ymm, done to every caller of ioctl().
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

enum { kXstateBv = 512, kAvx = 4, kAvxOffset = 576, kAvxSize = 256, kLargest = 16384 };

int ioctl(int fd, unsigned long request, ...) {
  static int (*real)(int, unsigned long, ...);
  if (real == 0) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  va_list arguments;
  va_start(arguments, request);
  uint8_t* const given = va_arg(arguments, uint8_t*);
  va_end(arguments);
  const int result = real(fd, request, given);
  if (request != KVM_SET_XSAVE || result == 0 || (given[kXstateBv] & kAvx) == 0) return result;
  const int error = errno;
  static uint8_t image[kLargest];
  if (real(fd, KVM_GET_XSAVE2, image) == 0) {
    memcpy(image + kAvxOffset, given + kAvxOffset, kAvxSize);
    image[kXstateBv] |= kAvx;
    real(fd, KVM_SET_XSAVE, image);
  }
  errno = error;
  return result;
}
