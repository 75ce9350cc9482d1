// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the host does around a vCPU: the CPUs its thread may use, a competitor that dirties
// registers, signals, and the watchdog that ends programs which hang.
//
// All of it belongs to the thread that made it, which is the one that runs vCPUs.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "kvm-runner/canary.h"

struct kvm_run;

namespace fpswap::kvm {

// The CPUs this thread was allowed when the agent began.
class Affinity {
 public:
  Affinity();
  unsigned count() const { return static_cast<unsigned>(cpus_.size()); }
  // Moves this thread to the n-th of them, modulo their number; gives the CPU, -1 and errno if the
  // kernel refuses.
  int MoveTo(unsigned n);
  // Stays on the CPU where this thread is; gives it.
  int Stay();
  void Restore();

 private:
  int Pin(int cpu);
  cpu_set_t all_;
  std::vector<int> cpus_;
  bool pinned_ = false;
};

// A second thread that runs on this thread's CPU when told to, and then waits again. The two hand
// over by futex: while one runs the other sleeps in the kernel, so what happens is the same each
// time.
class Competitor {
 public:
  explicit Competitor(const Canary& canary) : canary_(canary) {}
  ~Competitor();
  // Dirties every register on `cpu`, where this thread must be pinned. False if no thread is to be
  // had.
  bool Dirty(int cpu, uint16_t pattern);

 private:
  void Loop();
  const Canary& canary_;
  std::thread thread_;
  std::atomic<uint32_t> turn_{0};  // 0: the competitor waits, 1: it works
  uint16_t pattern_ = 0;
  int cpu_ = -1;
  bool quit_ = false;
};

// Ends an action of a program that runs too long: the KVM_RUN under way gives EINTR and hung()
// turns true. A whole program has no limit: what it takes depends on its length and on the
// machine's load.
class Watchdog {
 public:
  explicit Watchdog(unsigned limit_ms);
  ~Watchdog();
  void SetLimit(unsigned limit_ms) { limit_.store(uint64_t{limit_ms} * 1'000'000); }
  // An action begins: its time counts from now.
  void Begin();
  void End();
  // The vCPU about to run: its immediate_exit is set, so that a signal that comes just before the
  // system call is not lost.
  void Watch(kvm_run* run) { running_.store(run, std::memory_order_relaxed); }
  // REQUIRES: called when KVM_RUN has come back; the page may be unmapped from then on.
  void Unwatch() { running_.store(nullptr, std::memory_order_relaxed); }
  bool hung() const { return hung_.load(std::memory_order_relaxed); }

 private:
  static void OnSignal(int);
  void Loop();
  static std::atomic<Watchdog*> active_;
  bool Over(uint64_t began) const;
  std::atomic<uint64_t> limit_;  // ns
  std::atomic<kvm_run*> running_{nullptr};
  std::atomic<bool> hung_{false};
  std::atomic<uint64_t> began_{0};  // CLOCK_MONOTONIC ns; 0: nothing runs
  std::atomic<uint32_t> quit_{0};
  int runner_;  // thread id
  std::thread thread_;
};

// A signal that is blocked in this thread and let through in KVM_RUN alone.
class PendingSignal {
 public:
  PendingSignal();
  // Makes the signal pending, and open in the next KVM_RUN of `vcpu`. False if it can't.
  bool Raise(int vcpu);
  // After that KVM_RUN: takes the signal away and shuts `vcpu` again. Gives true if it was there.
  bool Take(int vcpu);
};

}  // namespace fpswap::kvm
