// SPDX-License-Identifier: GPL-2.0-or-later
//
// Drawing, mutating and crossing programs. All randomness comes from the Rng: same seed, same
// programs.
#pragma once

#include <cstdint>

#include "harness/program/program.h"

namespace fpswap::program {

// SplitMix64: tiny, fast, the same everywhere.
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // Uniform in [0, n); 0 when n is 0.
  uint64_t Below(uint64_t n);
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

// Bits of the generator's taste; set from a target's platform so that few steps are trimmed.
struct Profile {
  uint64_t features = kAllFeatures;  // components worth drawing
  uint64_t supervisor = 0;           // IA32_XSS components worth drawing
  bool vmm = true, host = true;      // draw VMM and system steps, host steps
  bool cpl0 = true;                  // draw privileged steps
  uint8_t vcpus = 1;                 // draw programs of up to as many vCPUs
  // Rows for which this is false are never drawn; null: all.
  bool (*allowed)(const StepRow&, const void*) = nullptr;
  const void* allowed_context = nullptr;
};

Program Generate(Rng& rng, const Profile& profile);
void Mutate(Program& p, Rng& rng, const Profile& profile);
Program Crossover(const Program& a, const Program& b, Rng& rng);

}  // namespace fpswap::program
