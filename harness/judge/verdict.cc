// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/verdict.h"

#include <algorithm>
#include <utility>

namespace fpswap::judge {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// "XMM5 of kvm_fpu" and "XMM12 of kvm_fpu" are one place.
bool SamePlace(std::string_view a, std::string_view b) {
  size_t i = 0, k = 0;
  for (;;) {
    while (i < a.size() && IsDigit(a[i])) ++i;
    while (k < b.size() && IsDigit(b[k])) ++k;
    if (i == a.size() || k == b.size()) return i == a.size() && k == b.size();
    if (a[i++] != b[k++]) return false;
  }
}

bool Alike(const Divergence& a, const Divergence& b) {
  return a.law == b.law && a.op == b.op && a.has_component == b.has_component &&
         (!a.has_component || a.component == b.component) && a.relation == b.relation &&
         a.initial == b.initial && a.cause == b.cause && a.possible_value == b.possible_value &&
         a.seen_value == b.seen_value && SamePlace(a.where, b.where);
}

}  // namespace

void Verdict::Add(Divergence divergence) {
  const bool is_new =
      std::ranges::none_of(divergences, [&](const Divergence& d) { return Alike(d, divergence); });
  if (is_new) divergences.push_back(std::move(divergence));
}

void Verdict::Cut(const char* why, uint16_t step, bool is_unknown) {
  cut = why;
  cut_at = step;
  unknown = is_unknown;
}

}  // namespace fpswap::judge
