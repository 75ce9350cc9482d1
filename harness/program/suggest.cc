// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

namespace fpswap::program {
namespace {

constexpr size_t kMaxWord = 40;

// Edits (insert, delete, replace, swap of neighbours) from `a` to `b`, both at most kMaxWord long.
size_t Distance(std::string_view a, std::string_view b) {
  std::array<size_t, kMaxWord + 1> before{}, last{}, row{};
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

std::string_view LastPart(std::string_view name) { return name.substr(name.rfind('.') + 1); }

}  // namespace

std::string Suggest(std::string_view word, std::span<const std::string_view> names) {
  if (word.empty() || word.size() > kMaxWord) return "";
  size_t best = std::numeric_limits<size_t>::max();
  std::string_view found;
  for (std::string_view name : names) {
    if (name.size() > kMaxWord) continue;
    const size_t distance = std::min(Distance(word, name), Distance(word, LastPart(name)));
    if (distance < best) best = distance, found = name;
  }
  if (best > std::max<size_t>(1, word.size() / 3) || best >= word.size()) return "";
  return fmt::format("; did you mean \"{}\"?", found);
}

std::string Quote(std::string_view word) {
  std::string out = "\"";
  for (char c : word.substr(0, kMaxWord)) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out + (word.size() > kMaxWord ? "...\"" : "\"");
}

}  // namespace fpswap::program
