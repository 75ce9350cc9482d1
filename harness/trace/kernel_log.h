// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a kernel's log says that no healthy kernel says: warnings of its own code, oopses, panics.
//
// The log is the whole machine's, and others write to it. So each is told with how surely it
// belongs to a program of ours.
//
// Thread safety: pure functions. Total: the text may be anything.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fpswap::trace {

struct Splat {
  enum class Ours {
    kNo,      // another process's, in code that has nothing to do with guests or FPU state
    kLikely,  // in KVM's or the FPU core's code, or in an agent's process
    kSurely   // both
  };
  std::string kind;      // "WARNING", "BUG", "Oops", "Kernel panic", ...
  std::string headline;  // the line that says so, without its time stamp
  std::string place;     // the function it happened in, "" where it does not say
  Ours ours = Ours::kNo;
  bool fatal = false;  // the machine, or at least the process, did not survive it
};

// The splats in `log`: lines as /dev/kmsg or a console shows them, with time stamps or without.
// What belongs to one dump (from its first line to the end of its trace) is one splat.
std::vector<Splat> FindSplats(std::string_view log);

const char* OursText(Splat::Ours ours);  // "surely", ...

}  // namespace fpswap::trace
