// SPDX-License-Identifier: GPL-2.0-or-later
//
// A program: one test case. It is data and fully determines what runs.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/program/step.h"

namespace fpswap::program {

// Everything XCR0 may have that this version knows; what the platform lacks is trimmed.
inline constexpr uint64_t kAllFeatures = 0x602ff;

struct Program {
  uint64_t features = kAllFeatures;  // XCR0 components the guest's CPUID is to offer
  uint64_t xcr0 = kAllFeatures;      // XCR0 at the start, limited to what the guest has
  bool pke = true;                   // CR4.PKE at the start, where the guest has PKU
  uint8_t vcpus = 1;
  // Where several vCPUs live: all in one VM (one guest memory) or each in a VM of its own; all run
  // by one thread of the VMM or each by its own. With one vCPU they mean nothing.
  bool own_vm = false, own_thread = false;
  std::vector<Step> steps;
  bool operator==(const Program&) const = default;
};

// A Program is valid when: vcpus is 1..kMaxVcpus, at most kMaxSteps steps, each step's op is in the
// table, its vcpu < vcpus, every argument in its kind's range, unused arguments 0. Everything that
// makes programs (parser, decoder, generator, mutator) makes valid ones.
bool IsValid(const Program& p);
// Brings every field into range, dropping steps beyond kMaxSteps.
void MakeValid(Program& p);

}  // namespace fpswap::program
