// SPDX-License-Identifier: GPL-2.0-or-later
//
// Making programs from programs in byte form, as fuzzing engines hold them: the mutator of every
// engine.
//
// Pure functions but for the Rng.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/program/generate.h"

namespace fpswap::program {

// Byte form of `program` within `limit`, steps dropped from the end where need be.
std::vector<uint8_t> EncodeWithin(Program program, size_t limit);

// `bytes` after one to four mutations; now and then something wholly new.
std::vector<uint8_t> MutateEncoded(std::span<const uint8_t> bytes, Rng& rng, const Profile& profile,
                                   size_t limit);
std::vector<uint8_t> CrossEncoded(std::span<const uint8_t> bytes, std::span<const uint8_t> other,
                                  Rng& rng, size_t limit);

}  // namespace fpswap::program
