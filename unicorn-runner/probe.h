// SPDX-License-Identifier: GPL-2.0-or-later
//
// What Unicorn offers as a target.
#pragma once

#include "harness/trace/platform.h"

namespace fpswap::unicorn {

trace::Platform DescribeUnicorn();

}  // namespace fpswap::unicorn
