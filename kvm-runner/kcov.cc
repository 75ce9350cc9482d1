// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/kcov.h"

#include <fcntl.h>
#include <linux/kcov.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

namespace fpswap::kvm {

void EdgeMap::Add(std::span<const uint64_t> path) {
  uint64_t from = 0;
  for (const uint64_t to : path) {
    // Not symmetric: there and back are two edges, and a loop of one block is one.
    uint64_t hash = (to + (from << 1 | from >> 63)) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
    const uint64_t edge = hash >> 48;
    bits_[edge / 64] |= uint64_t{1} << edge % 64;
    from = to;
  }
}

void EdgeMap::List(std::vector<uint16_t>& out) const {
  out.clear();
  for (size_t word = 0; word < bits_.size(); ++word) {
    for (uint64_t rest = bits_[word]; rest != 0; rest &= rest - 1) {
      out.push_back(static_cast<uint16_t>(word * 64 + static_cast<size_t>(std::countr_zero(rest))));
    }
  }
}

std::unique_ptr<Kcov> Kcov::OpenForThisThread() {
  const int fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
  if (fd < 0) return nullptr;
  void* memory = MAP_FAILED;
  // Documentation/dev-tools/kcov.rst
  if (ioctl(fd, KCOV_INIT_TRACE, kWords) == 0) {
    memory = mmap(nullptr, kWords * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (memory == MAP_FAILED) {
    close(fd);
    return nullptr;
  }
  std::unique_ptr<Kcov> kcov(new Kcov(fd, static_cast<uint64_t*>(memory)));
  if (ioctl(fd, KCOV_ENABLE, KCOV_TRACE_PC) != 0) return nullptr;
  return kcov;
}

Kcov::~Kcov() {
  ioctl(fd_, KCOV_DISABLE, 0);
  munmap(words_, kWords * sizeof(uint64_t));
  close(fd_);
}

void Kcov::Restart() { __atomic_store_n(words_, 0, __ATOMIC_RELAXED); }

std::span<const uint64_t> Kcov::path() const {
  const uint64_t count = __atomic_load_n(words_, __ATOMIC_RELAXED);
  return {words_ + 1, std::min<uint64_t>(count, kWords - 1)};
}

}  // namespace fpswap::kvm
