// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kernel's log as it grows, read from /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
//
// Not thread safe.
#pragma once

#include <string>

namespace fpswap::wire {

class Kmsg {
 public:
  // From the log's present end on. Where it may not be read (dmesg_restrict) nothing is ever new.
  Kmsg();
  ~Kmsg();
  Kmsg(const Kmsg&) = delete;
  Kmsg& operator=(const Kmsg&) = delete;

  bool readable() const { return fd_ >= 0; }
  // What the kernel itself has logged since the last call at level warning or worse, a line each,
  // at most trace::kMaxKernelLog bytes of it. Costs a system call. Valid until the next call.
  const std::string& ReadNew();

 private:
  int fd_;
  std::string text_;
};

}  // namespace fpswap::wire
