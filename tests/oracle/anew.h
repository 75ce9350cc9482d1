// SPDX-License-Identifier: GPL-2.0-or-later
//
// Permission for tiles lasts for a process's life and is inherited by fork; execve takes it away.
// So what is to be seen without it is seen in a test that runs itself anew.
#pragma once

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/oracle/host_cpu.h"

namespace fpswap::cpu::testing {

// Runs `body` in a process that has not asked for tiles: from the test that it is called in. Skips
// where there are none.
inline void WithoutTilePermission(void (*body)()) {
  if (!Host().features.amx_tile || (Host().full_xcr0 & xstate::kAmx) != xstate::kAmx) {
    GTEST_SKIP() << "no AMX on this CPU, or not enabled by its kernel";
  }
  if (std::getenv(kWithoutTiles) != nullptr) return body();
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  std::string marker = std::string(kWithoutTiles) + "=1";
  environment.push_back(marker.data());
  environment.push_back(nullptr);
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string self = "/proc/self/exe";
  std::string filter =
      std::string("--gtest_filter=") + test->test_suite_name() + "." + test->name();
  char* arguments[] = {self.data(), filter.data(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, self.data(), nullptr, nullptr, arguments, environment.data()), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

}  // namespace fpswap::cpu::testing
