// SPDX-License-Identifier: GPL-2.0-or-later
//
// The set of worlds: the complete states the system under test may be in, given what was observed
// so far. Where a contract leaves more than one answer, a world is branched; each observation drops
// the worlds that do not allow it. Normally there is exactly one, and nothing is allocated after
// the first program.
//
// Choices that an observation settles at once (XINUSE, what XSAVEOPT left out) need no branch: they
// are taken from the observation where it is possible (cpu::Choices). A branch is for what can't be
// seen yet: tiles after XFD went from 1 to 0.
//
// A world may be blamed: it exists only if the system under test has broken a law at an earlier
// step. Blamed worlds never make an observation right; when none but them is left, the divergence
// is known exactly, and judging goes on in the one that fits.
//
// Thread safety: none; a value.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace fpswap::worlds {

// A number of the caller's own meaning; 0 is no blame.
using Blame = unsigned;

template <typename State>
class Worlds {
 public:
  static constexpr size_t kMax = 256;
  // Room that a reset leaves. States are large (hundreds of KiB), programs that need more are rare.
  static constexpr size_t kKept = 16;

  Worlds() { slots_.push_back(std::make_unique<Slot>()); }

  size_t size() const { return size_; }
  State& operator[](size_t i) { return slots_[i]->state; }
  const State& operator[](size_t i) const { return slots_[i]->state; }
  Blame blame(size_t i) const { return slots_[i]->blame; }
  void set_blame(size_t i, Blame blame) { slots_[i]->blame = blame; }

  // Exchanges two worlds' places, blame and all; no state is copied.
  void Swap(size_t i, size_t k) { std::swap(slots_[i], slots_[k]); }

  // Back to one world without blame, whose state the caller resets.
  void Reset() {
    size_ = 1;
    slots_[0]->blame = 0;
    if (slots_.size() > kKept) slots_.resize(kKept);
  }

  // A copy of world `i`, blame and all; its number. Full sets grow no more: then `kMax` is
  // returned, and as going on without the branch would call right things wrong, judging has to end
  // there.
  size_t Branch(size_t i) {
    if (size_ == kMax) return kMax;
    if (size_ == slots_.size()) slots_.push_back(std::make_unique<Slot>());
    *slots_[size_] = *slots_[i];
    return size_++;
  }

  // Keeps the worlds for which keep(i) holds, in order. All are asked, each once, in order; when
  // none is kept the set is left as it is and false returned.
  template <typename Keep>
  bool Prune(Keep&& keep) {
    size_t kept = 0;
    for (size_t i = 0; i < size_; ++i) {
      if (!keep(i)) continue;
      if (kept != i) std::swap(slots_[kept], slots_[i]);
      ++kept;
    }
    if (kept == 0) return false;
    size_ = kept;
    return true;
  }

  // Whether a world without blame is left.
  bool AnyBlameless() const {
    for (size_t i = 0; i < size_; ++i) {
      if (slots_[i]->blame == 0) return true;
    }
    return false;
  }

 private:
  struct Slot {
    State state;
    Blame blame = 0;
  };
  std::vector<std::unique_ptr<Slot>> slots_;
  size_t size_ = 1;
};

// The nearest of `n` worlds: the one whose distance (any ordered type) is least, the first of
// these.
template <typename Distance>
size_t Nearest(size_t n, Distance&& distance) {
  size_t best = 0;
  for (size_t i = 1; i < n; ++i) {
    if (distance(i) < distance(best)) best = i;
  }
  return best;
}

}  // namespace fpswap::worlds
