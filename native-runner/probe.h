// SPDX-License-Identifier: GPL-2.0-or-later
//
// What this host offers to the native target.
#pragma once

#include <sched.h>

#include <expected>
#include <string>

#include "harness/trace/platform.h"

namespace fpswap::native {

// The steps that need StartTracer are listed as if it were a success: see Withdraw. Also asks the
// kernel for permission to use AMX tiles where there are any. A sentence on failure.
std::expected<trace::Platform, std::string> ProbeHost(const cpu_set_t& allowed);

// The regset steps can't run, for this reason.
void WithdrawRegsets(trace::Platform& platform, const char* reason);

}  // namespace fpswap::native
