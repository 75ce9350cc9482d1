// SPDX-License-Identifier: GPL-2.0-or-later
//
// Makes a program smaller while it keeps showing what it shows, in the manner of a delta debugger.
//
// Small is: few steps first, then few vCPUs, then steps and values that a reader knows. No pass
// makes a program longer. All is tried in a fixed order, so that the same program and the same
// answers give the same result.
//
// Thread safety: pure functions but for `shows`.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "harness/program/program.h"

namespace fpswap::campaign {

// Whether a candidate still shows the divergence looked for.
using Shows = std::function<bool(const program::Program&)>;

// One way to make programs smaller.
struct MinimisePass {
  std::string_view name;
  std::string_view what;  // it does, for --help and progress
};
// In the order in which they are tried.
std::span<const MinimisePass> MinimisePasses();

struct MinimiseOptions {
  unsigned budget = 1000;  // candidates tried at most
  std::string_view only;   // name of a pass: no other is tried
  // Called after each candidate, with the pass that made it, how many were tried so far, and the
  // smallest program so far: `better` if it is a new one.
  std::function<void(const MinimisePass& pass, unsigned tried, const program::Program& best,
                     bool better)>
      progress = {};
};

struct Minimised {
  program::Program program;
  unsigned tried = 0;
  bool done = false;  // no pass helps any more; else the budget ended first
};

// REQUIRES: shows(program).
Minimised Minimise(const program::Program& program, const Shows& shows,
                   const MinimiseOptions& options);

}  // namespace fpswap::campaign
