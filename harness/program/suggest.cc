// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace fpswap::program {
namespace {

constexpr size_t kMaxWord = 40;

// Edits (insert, delete, replace, swap of neighbours) from `a` to `b`, both at most kMaxWord long;
// some number over `limit` where their lengths alone say so.
size_t Distance(std::string_view a, std::string_view b, size_t limit) {
  const size_t longer = std::max(a.size(), b.size());
  if (longer - std::min(a.size(), b.size()) > limit) return limit + 1;
  std::array<std::array<uint8_t, kMaxWord + 1>, 3> rows;  // row i of the table is rows[i % 3]
  for (size_t j = 0; j <= b.size(); ++j) rows[0][j] = static_cast<uint8_t>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    const auto& before = rows[(i + 1) % 3];
    const auto& last = rows[(i + 2) % 3];
    auto& row = rows[i % 3];
    row[0] = static_cast<uint8_t>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      unsigned best = std::min(last[j], row[j - 1]) + 1u;
      best = std::min(best, last[j - 1] + (a[i - 1] != b[j - 1] ? 1u : 0u));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        best = std::min(best, before[j - 2] + 1u);
      }
      row[j] = static_cast<uint8_t>(best);
    }
  }
  return rows[a.size() % 3][b.size()];
}

std::string_view LastPart(std::string_view name) { return name.substr(name.rfind('.') + 1); }

}  // namespace

std::string Suggest(std::string_view word, std::span<const std::string_view> names) {
  if (word.empty() || word.size() > kMaxWord) return "";
  const size_t limit = std::max<size_t>(1, word.size() / 3);
  size_t best = limit + 1;
  std::string_view found;
  for (std::string_view name : names) {
    if (name.size() > kMaxWord) continue;
    const size_t distance =
        std::min(Distance(word, name, limit), Distance(word, LastPart(name), limit));
    if (distance < best) best = distance, found = name;
  }
  if (best > limit || best >= word.size()) return "";
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
