// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "harness/cli/cli.h"

int main(int argc, char** argv) {
  // A limit on the size of files is to be told like a full disk, and not to be the end.
  std::signal(SIGXFSZ, SIG_IGN);
  int lost = 0;  // errno of what could not be written to standard output
  const auto write_to = [&lost](std::FILE* file) {
    return [file, &lost](std::string_view text) {
      errno = 0;
      const bool all = std::fwrite(text.data(), 1, text.size(), file) == text.size();
      if ((!all || std::fflush(file) != 0) && file == stdout) lost = errno != 0 ? errno : EIO;
    };
  };
  const fpswap::cli::Io io{
      .out = write_to(stdout), .err = write_to(stderr), .err_is_terminal = isatty(2) == 1};
  const int status = fpswap::cli::Main({argv + 1, argv + argc}, io);
  if (lost == 0) return status;
  std::fprintf(stderr, "fpswap: standard output can't be written: %s\n", std::strerror(lost));
  return fpswap::cli::kBadInput;
}
