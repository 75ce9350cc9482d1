// SPDX-License-Identifier: GPL-2.0-or-later
//
// What of the kernel a program reaches, where the kernel counts it (CONFIG_KCOV) and debugfs is
// mounted: the edges between basic blocks that the vCPUs' threads ran in their system calls.
//
// Interrupts are not traced, but what a thread does when it is scheduled away is: where whole
// kernels are instrumented, two runs of one program differ a little.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace fpswap::kvm {

// A set of edges, each known by 16 bits of its hash (wire.h).
class EdgeMap {
 public:
  // The edges of a path through basic blocks; the first block counts as one from nowhere.
  void Add(std::span<const uint64_t> path);
  void Clear() { bits_ = {}; }
  // Ascending.
  void List(std::vector<uint16_t>& out) const;

 private:
  std::array<uint64_t, (1u << 16) / 64> bits_{};
};

// Counts for the thread that opens it, until that thread ends or closes it.
class Kcov {
 public:
  // Null where the kernel does not count.
  static std::unique_ptr<Kcov> OpenForThisThread();
  ~Kcov();
  Kcov(const Kcov&) = delete;
  Kcov& operator=(const Kcov&) = delete;

  // These two by any thread, while the one that is counted does nothing.
  void Restart();
  // The blocks since then, the first 256 Ki of them.
  std::span<const uint64_t> path() const;

 private:
  static constexpr size_t kWords = size_t{256} << 10;
  Kcov(int fd, uint64_t* words) : fd_(fd), words_(words) {}

  int fd_;
  uint64_t* words_;  // the first is the number of those behind it
};

}  // namespace fpswap::kvm
