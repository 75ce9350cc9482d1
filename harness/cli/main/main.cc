// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "harness/cli/cli.h"

int main(int argc, char** argv) {
  // A limit on the size of files is to be told like a full disk, and not to be the end.
  std::signal(SIGXFSZ, SIG_IGN);
  const auto write_to = [](std::FILE* file) {
    return [file](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), file);
      std::fflush(file);
    };
  };
  const fpswap::cli::Io io{
      .out = write_to(stdout), .err = write_to(stderr), .err_is_terminal = isatty(2) == 1};
  return fpswap::cli::Main({argv + 1, argv + argc}, io);
}
