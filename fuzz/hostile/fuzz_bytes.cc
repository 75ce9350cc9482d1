// SPDX-License-Identifier: GPL-2.0-or-later
//
// The byte form: any bytes are a valid program with one encoding. Programs from it are mutated and
// crossed as well.
#include "fuzz/hostile/hostile.h"
#include "harness/program/codec.h"

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;

std::vector<uint8_t> Seed(Rng& rng) {
  return fpswap::program::Encode(fpswap::hostile::SeedProgram(rng));
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  return fpswap::hostile::MutateOrSeed({data, max}, size, seed, Seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fpswap::program;
  const Program p = Decode({data, size});
  Check(IsValid(p), "what is decoded is valid");
  const std::vector<uint8_t> bytes = Encode(p);
  Check(bytes.size() <= kMaxEncodedSize, "an encoding is bounded");
  Check(Decode(bytes) == p, "decoding and encoding are inverse");
  Check(Encode(Decode(bytes)) == bytes, "an encoding is canonical");

  Rng rng(size);
  const Profile profile{.features = p.features};
  Program mutant = p;
  Mutate(mutant, rng, profile);
  Check(IsValid(mutant), "a mutant is valid");
  Check(IsValid(Crossover(p, mutant, rng)), "a child is valid");
  return 0;
}
