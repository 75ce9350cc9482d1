// SPDX-License-Identifier: GPL-2.0-or-later
//
// The byte form of programs. Total: every byte string decodes to a valid program. Canonical:
// Decode(Encode(p)) == p, and Encode(Decode(b)) is the one encoding of what b means. Versioned and
// append-only: byte 0 is the version; new operations get new opcodes, and ranges of arguments grow
// at their end, so that what Encode wrote keeps its meaning. (Other bytes may come to mean
// something: one that was skipped, or that wrapped.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/program/program.h"

namespace fpswap::program {

inline constexpr size_t kMaxEncodedSize = 4096;

Program Decode(std::span<const uint8_t> bytes);
std::vector<uint8_t> Encode(const Program& p);

}  // namespace fpswap::program
