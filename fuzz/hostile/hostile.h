// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the hostile-input targets share. Each target makes its own seeds: its mutator now and then
// starts afresh from something valid, for from an empty corpus no fuzzer finds a checksum or a JSON
// platform.
//
// Thread safety: none; libFuzzer runs a target in one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "harness/program/generate.h"

namespace fpswap::hostile {

// Stops the fuzzer with a sentence if `holds` is false.
void Check(bool holds, const char* sentence);

program::Program SeedProgram(program::Rng& rng);

// A mutator's body: replaces `data` by a seed once in 32 times (and where it is empty), else lets
// libFuzzer mutate it. Returns the new size.
size_t MutateOrSeed(std::span<uint8_t> buffer, size_t size, unsigned seed,
                    std::vector<uint8_t> (*make_seed)(program::Rng&));

// For LLVMFuzzerInitialize: sets -max_len where the command line does not.
void DefaultMaxLen(int* argc, char*** argv, const char* flag);

}  // namespace fpswap::hostile
