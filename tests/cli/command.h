// SPDX-License-Identifier: GPL-2.0-or-later
//
// The command as a function, for its tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/cli/cli.h"

namespace fpswap::cli {

struct Result {
  int exit = -1;
  std::string out, err;
};

inline Result Command(const std::vector<std::string>& arguments) {
  Result result;
  const Io io{.out = [&](std::string_view text) { result.out += text; },
              .err = [&](std::string_view text) { result.err += text; }};
  result.exit = Main(arguments, io);
  return result;
}

}  // namespace fpswap::cli
