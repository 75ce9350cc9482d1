// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/breed.h"

#include <utility>

#include "harness/program/codec.h"

namespace fpswap::program {

std::vector<uint8_t> EncodeWithin(Program program, size_t limit) {
  std::vector<uint8_t> bytes = Encode(program);
  while (bytes.size() > limit && !program.steps.empty()) {
    program.steps.pop_back();
    bytes = Encode(program);
  }
  return bytes;
}

std::vector<uint8_t> MutateEncoded(std::span<const uint8_t> bytes, Rng& rng, const Profile& profile,
                                   size_t limit) {
  Program program = Decode(bytes);
  // Often something wholly new, or a corpus of one idea would never leave it; the share is measured
  // (docs/generator.md).
  if (program.steps.empty() || rng.OneIn(3)) {
    program = Generate(rng, profile);
  } else {
    for (uint64_t n = 1 + rng.Below(4); n > 0; --n) Mutate(program, rng, profile);
  }
  return EncodeWithin(std::move(program), limit);
}

std::vector<uint8_t> CrossEncoded(std::span<const uint8_t> bytes, std::span<const uint8_t> other,
                                  Rng& rng, size_t limit) {
  return EncodeWithin(Crossover(Decode(bytes), Decode(other), rng), limit);
}

}  // namespace fpswap::program
