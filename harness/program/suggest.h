// SPDX-License-Identifier: GPL-2.0-or-later
//
// "did you mean": the nearest of a list of names.
//
// Thread safety: pure.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace fpswap::program {

// `; did you mean "x87.fninit"?`, or "" where nothing is near. A name whose last part (behind the
// last dot) is `word` counts as near: people know instructions by their mnemonics.
std::string Suggest(std::string_view word, std::span<const std::string_view> names);

// `word` between quotes for a message: at most 40 bytes, what can't be printed as \xNN.
std::string Quote(std::string_view word);

}  // namespace fpswap::program
