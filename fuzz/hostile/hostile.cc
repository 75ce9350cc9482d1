// SPDX-License-Identifier: GPL-2.0-or-later
#include "fuzz/hostile/hostile.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// libFuzzer's. Other engines have none, and do not call mutators.
extern "C" __attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t* data, size_t size,
                                                         size_t max_size);

namespace fpswap::hostile {

void Check(bool holds, const char* sentence) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", sentence);
  std::abort();
}

program::Program SeedProgram(program::Rng& rng) {
  static const program::Profile kProfile{.supervisor = 0x1800};
  return program::Generate(rng, kProfile);
}

size_t MutateOrSeed(std::span<uint8_t> buffer, size_t size, unsigned seed,
                    std::vector<uint8_t> (*make_seed)(program::Rng&)) {
  program::Rng rng(seed);
  if (LLVMFuzzerMutate != nullptr && size > 1 && !rng.OneIn(32)) {
    return LLVMFuzzerMutate(buffer.data(), size, buffer.size());
  }
  const std::vector<uint8_t> bytes = make_seed(rng);
  const size_t fits = std::min(bytes.size(), buffer.size());
  std::memcpy(buffer.data(), bytes.data(), fits);
  return fits;
}

void DefaultMaxLen(int* argc, char*** argv, const char* flag) {
  for (int i = 1; i < *argc; ++i) {
    if (std::strncmp((*argv)[i], "-max_len=", 9) == 0) return;
  }
  static std::vector<char*> args;
  static std::vector<char> text;
  text.assign(flag, flag + std::strlen(flag) + 1);
  args.assign(*argv, *argv + *argc);
  args.push_back(text.data());
  args.push_back(nullptr);
  ++*argc;
  *argv = args.data();
}

}  // namespace fpswap::hostile
