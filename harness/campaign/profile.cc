// SPDX-License-Identifier: GPL-2.0-or-later
//
// Apart from the rest of platforms.h, for AFL++'s mutator has no targets.
#include "harness/campaign/platforms.h"

namespace fpswap::campaign {

program::Profile ProfileFor(const trace::Platform& platform) {
  program::Profile profile;
  profile.features = platform.guest.xsave.xcr0;
  profile.supervisor = platform.guest.xsave.xss;
  profile.vcpus = static_cast<uint8_t>(platform.vcpus);
  profile.allowed = [](const program::StepRow& row, const void* context) {
    return static_cast<const trace::Platform*>(context)->can.test(static_cast<uint8_t>(row.op));
  };
  profile.allowed_context = &platform;
  return profile;
}

}  // namespace fpswap::campaign
