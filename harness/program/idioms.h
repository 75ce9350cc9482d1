// SPDX-License-Identifier: GPL-2.0-or-later
//
// Idioms: small templates of several steps, as an expert would write them to bring the state under
// test into a corner and look there. Programs are made of them and of single steps.
//
// Thread safety: the tables are immutable.
#pragma once

#include <span>
#include <string_view>

#include "harness/program/builder.h"

namespace fpswap::program {

struct Idiom {
  std::string_view name;
  uint8_t weight;
  Op needs;  // an idiom is left out where its main step is not allowed
  void (*run)(Builder&);
};

std::span<const Idiom> GuestIdioms();  // idioms_guest.cc: instructions and exits
std::span<const Idiom> VmmIdioms();    // idioms_vmm.cc: ioctls and the host
std::span<const Idiom> VcpuIdioms();   // idioms_vcpus.cc: for programs with several vCPUs
std::span<const Idiom> OsIdioms();     // idioms_os.cc: regsets and signal frames

// A state, then another CPUID. KVM takes that until the vCPU has run: for a program's beginning.
void NewCpuid(Builder& b);

// Appends one idiom, by weight, on any vCPU. False where none is allowed.
bool AddIdiom(Builder& b);

}  // namespace fpswap::program
