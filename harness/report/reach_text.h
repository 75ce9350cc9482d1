// SPDX-License-Identifier: GPL-2.0-or-later
//
// A reach table for reading: step x component, step x way of exit, what was trimmed, which laws.
#pragma once

#include <string>

#include "harness/campaign/reach_table.h"
#include "harness/trace/platform.h"

namespace fpswap::report {

// `platform`, where known, adds the steps it can do that never ran. May be null.
std::string ReachText(const campaign::ReachTable& table, const trace::Platform* platform);

}  // namespace fpswap::report
