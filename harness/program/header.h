// SPDX-License-Identifier: GPL-2.0-or-later
//
// Drawing a program's header: shared by Generate and Mutate.
#pragma once

#include "harness/program/generate.h"

namespace fpswap::program {

// The guest's features, XCR0 and CR4.PKE: mostly all the profile has. The number of vCPUs stays.
void DrawHeader(Program& p, Rng& rng, const Profile& profile);
// The number of vCPUs, mostly one, and where they live.
void DrawVcpus(Program& p, Rng& rng, const Profile& profile);

}  // namespace fpswap::program
