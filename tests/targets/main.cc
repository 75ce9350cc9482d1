// SPDX-License-Identifier: GPL-2.0-or-later
//
// The test program is also the agent that misbehaves in its own tests: fake_agent.h.
#include <gtest/gtest.h>

#include <string_view>

#include "tests/targets/fake_agent.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with(fpswap::targets::kActAsAgent)) {
      return fpswap::targets::ActAsAgent(argv[i]);
    }
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
