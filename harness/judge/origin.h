// SPDX-License-Identifier: GPL-2.0-or-later
//
// Where a value that should not be there comes from, in words, as far as its bytes tell. Only for
// what is reported; may allocate.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/judge/explain.h"
#include "harness/plan/plan.h"

namespace fpswap::judge {

// The VMM thread's own, and what disturbances before step `until` put there.
std::vector<HostPattern> HostPatterns(const plan::Plan& plan, unsigned until);

// Law 4: whether these are the bytes that the host's side had in this very register, and that the
// guest can't have by itself. `home` as below.
bool IsHosts(std::span<const uint8_t> seen, size_t home, const Surroundings& around);

// `seen`: the register's bytes; `home`: their place in a standard-format image, kNoHome for none.
// "" where nothing can be said: the bytes are too plain, or nobody's.
std::string OriginOf(std::span<const uint8_t> seen, size_t home, const Surroundings& around,
                     const trace::Platform& platform);

}  // namespace fpswap::judge
