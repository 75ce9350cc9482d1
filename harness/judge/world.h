// SPDX-License-Identifier: GPL-2.0-or-later
//
// A complete state of the system under test: the vCPUs, the guest's slots and the VMM's image
// buffers. What the oracle's worlds (oracle/worlds) are made of here.
//
// Thread safety: none; a value. Copies and resets cost what is in use, not what there is room for.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "harness/plan/plan.h"
#include "oracle/kvm/vcpu.h"

namespace fpswap::judge {

// N bytes of memory that start as zeros; keeps count of how many at the front may be something
// else.
template <size_t N>
class Memory {
 public:
  Memory() = default;
  Memory(const Memory& other) { *this = other; }
  Memory& operator=(const Memory& other) {
    if (this == &other) return *this;
    std::memcpy(bytes_.data(), other.bytes_.data(), other.used_);
    if (used_ > other.used_) std::memset(&bytes_[other.used_], 0, used_ - other.used_);
    used_ = other.used_;
    return *this;
  }

  void Clear() {
    std::memset(bytes_.data(), 0, used_);
    used_ = 0;
  }
  std::span<const uint8_t> Bytes() const { return bytes_; }
  // The whole memory from `at` on, of which `size` bytes are about to be written.
  std::span<uint8_t> Write(size_t at, size_t size) {
    used_ = std::max(used_, std::min(at + size, N));
    return std::span(bytes_).subspan(std::min(at, N));
  }

 private:
  size_t used_ = 0;
  std::array<uint8_t, N> bytes_{};
};

// Where an image buffer's bytes come from: an unedited GET of a vCPU, for law 3.
struct ImageSource {
  bool from_get = false;
  uint8_t vcpu = 0;
};

// What KVM and the kernel go by on that platform. Total: a trace may say anything of it.
kvm::Host HostOf(const trace::Platform& platform);

struct World {
  World();
  World(const World&) = default;
  World& operator=(const World& other);

  // The state every program starts from (plan.h), for vCPUs with `features`.
  void Reset(const plan::Plan& plan, const cpu::Features& features, const kvm::Host& host);

  // The slot that step argument `n` names on `vcpu`: vCPUs of one VM share them.
  Memory<plan::kSlotSize>& Slot(unsigned vcpu_number, uint64_t n) {
    return slot[own_vm ? vcpu_number % program::kMaxVcpus : 0][n % program::kSlotCount];
  }
  const Memory<plan::kSlotSize>& Slot(unsigned vcpu_number, uint64_t n) const {
    return slot[own_vm ? vcpu_number % program::kMaxVcpus : 0][n % program::kSlotCount];
  }

  unsigned vcpus = 1;
  bool own_vm = false;  // each vCPU in a VM of its own
  std::array<kvm::Vcpu, program::kMaxVcpus> vcpu;
  std::array<std::array<Memory<plan::kSlotSize>, program::kSlotCount>, program::kMaxVcpus> slot;
  std::array<Memory<xstate::kMaxAreaSize>, program::kImageCount> image;
  std::array<ImageSource, program::kImageCount> source;
  // Whether two vCPUs are in one VM, and so migrate together.
  bool SameVm(unsigned a, unsigned b) const { return !own_vm || a == b; }
  // XCR0 as KVM has it, where a hypothesis says that the CPU runs with another (walk.h).
  std::array<uint64_t, program::kMaxVcpus> kvm_xcr0{};
  uint64_t xfd_before = 0;  // IA32_XFD of the vCPU whose step it is, as the step found it
  // What each vCPU held when its IA32_XFD disabled it: only that can be there when it lets go.
  std::array<uint64_t, program::kMaxVcpus> held_under_xfd{};
};

// `all` for a guest that is to have the user components `mask` only: CPUID bits that hang on a
// component go with it (kvm-runner/cpuid.cc takes the same away).
cpu::Features LimitFeatures(const cpu::Features& all, uint64_t mask);

// An image buffer as programs find it: FCW 37FH, MXCSR 1F80H, all else 0.
void MakeInitialImage(Memory<xstate::kMaxAreaSize>& image);

}  // namespace fpswap::judge
