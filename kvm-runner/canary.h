// SPDX-License-Identifier: GPL-2.0-or-later
//
// KVM_RUN with a witness: every register of every component the host has holds a pattern of ours
// when the system call is made, and is stored straight after it. The host's registers must survive
// (law 4, isolation).
//
// XRSTOR, SYSCALL and XSAVE are one block of assembly: nothing of ours may touch a register between
// them. The kernel may switch the thread, move it to another CPU or deliver a signal meanwhile; all
// of these must keep the registers, so they need no allowance.
//
// Not thread safe; a Canary serves the thread that made it.
#pragma once

#include <cstdint>
#include <span>

#include "kvm-runner/posix.h"
#include "oracle/cpu/cpu.h"

namespace fpswap::kvm {

class Canary {
 public:
  // `host` is what CPUID says, `xcr0` what the kernel enabled. Where the host has AMX, asks for the
  // permission to use tiles (ARCH_REQ_XCOMP_PERM); without it they are left out.
  // `number`: of the thread, each of which has a pattern of its own.
  Canary(const cpu::Features& host, uint64_t xcr0, unsigned number = 0);

  // ioctl(vcpu, KVM_RUN); gives what the system call gave: 0 or -errno.
  long Run(int vcpu);
  // fork(2): the child's process id, 0 in the child, or -errno. The child has this thread alone, so
  // it may call nothing that takes a lock.
  long Fork();
  // Components of the last Run or Fork whose registers differ; 0 when all is well.
  uint64_t Differing() const;
  std::span<const uint8_t> expected() const { return {Expected(), size_}; }
  std::span<const uint8_t> seen() const { return {Seen(), size_}; }

  // PKRU has changed by our own hand: it is part of the pattern.
  void NotePkru(uint32_t pkru);
  // The register itself; 0 where the host has no PKU.
  uint32_t ReadPkru() const;
  void WritePkru(uint32_t pkru);
  bool has_pkru() const { return has_pkru_; }

  // Loads pattern number `pattern` into every component of this CPU but PKRU, then the initial
  // state: what a competitor does to dirty the registers. Any thread.
  void Dirty(uint16_t pattern) const;

 private:
  uint8_t* Pattern() const { return areas_.data(); }
  uint8_t* Expected() const { return areas_.data() + kStride; }
  uint8_t* Seen() const { return areas_.data() + 2 * kStride; }
  uint8_t* Initial() const { return areas_.data() + 3 * kStride; }
  static constexpr size_t kStride = 16384;
  long Round(long number, long a, long b) const;

  const cpu::Features& host_;
  uint64_t components_;  // those loaded and compared
  uint32_t size_;        // bytes of a standard-format area with these
  bool has_pkru_;
  Mapping areas_;
};

// Which of `components` differ between two standard-format images as XSAVE stores them.
uint64_t DifferingComponents(const cpu::Features& host, uint64_t components,
                             std::span<const uint8_t> expected, std::span<const uint8_t> seen);

// Writes into `area` an XSAVE image in standard format that puts a pattern which XRSTOR accepts in
// each of `components`.
void FillHostImage(const cpu::Features& host, uint64_t components, uint16_t pattern,
                   std::span<uint8_t> area);

}  // namespace fpswap::kvm
