// SPDX-License-Identifier: GPL-2.0-or-later
//
// KVM's ioctls for tests that ask it and share no code with the harness.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

namespace fpswap::kvm {

// struct kvm_cpuid2 with room; its ioctls are numbered by its 8-byte head (which C++ sizes
// otherwise).
struct CpuidTable {
  uint32_t nent = 0, padding = 0;
  kvm_cpuid_entry2 entries[128] = {};
  std::span<const kvm_cpuid_entry2> Entries() const { return std::span(entries).first(nent); }
};
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kGetCpuid2 = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x91, 8);
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, 4096);
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);
inline constexpr unsigned long kGetXsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, 4096);
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// Memory that ends where nothing is mapped: what is read or written too far is EFAULT.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t size) : room_((size + 4095) / 4096 * 4096) {
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, room_ + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (!ok()) return;
    if (mprotect(base_ + room_, 4096, PROT_NONE) != 0) std::abort();
  }
  ~GuardedBuffer() {
    if (ok()) munmap(base_, room_ + 4096);
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  bool ok() const { return base_ != MAP_FAILED; }
  // The last bytes before the end, filled with the first of `contents`.
  uint8_t* Last(size_t bytes, std::span<const uint8_t> contents) {
    std::memset(base_, 0, room_);
    std::memcpy(base_ + room_ - bytes, contents.data(), bytes);
    return base_ + room_ - bytes;
  }

 private:
  size_t room_;
  uint8_t* base_;
};

}  // namespace fpswap::kvm
