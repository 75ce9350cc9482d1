// SPDX-License-Identifier: GPL-2.0-or-later
//
// Text on its way into a page or into a shell's command line. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fpswap::report {

// Any bytes as the text of an HTML element or of a quoted attribute: markup escaped, what is no
// UTF-8 or no character of a page replaced by U+FFFD.
std::string Html(std::string_view text);

// As one word of a POSIX shell's command line, quoted where it has to be.
std::string ShellWord(std::string_view text);

// "2024-03-01 12:30" in UTC, "" for 0 or what is no time.
std::string TimeText(int64_t seconds);

// Counts with a thin space at each thousand, as HTML: 1 234 567.
std::string CountHtml(uint64_t count);
// Counts in at most five characters: 999, 1.2k, 34M.
std::string ShortCount(uint64_t count);

}  // namespace fpswap::report
