// SPDX-License-Identifier: GPL-2.0-or-later
//
// Makes a program smaller while it keeps showing what it shows.
#pragma once

#include <functional>

#include "harness/program/program.h"

namespace fpswap::campaign {

// Whether a candidate still shows the divergence looked for.
using Shows = std::function<bool(const program::Program&)>;

// The passes, tried in order until none of them helps or `budget` candidates were tried: drop steps
// (halves first, single ones last), put arguments back to the simplest value, one vCPU, only the
// features needed. REQUIRES: shows(program).
program::Program Minimise(const program::Program& program, const Shows& shows, unsigned budget);

}  // namespace fpswap::campaign
