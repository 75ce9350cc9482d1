// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the host does around a vCPU: the CPUs its thread may use, a competitor that dirties
// registers, signals, and the watchdog that ends programs which hang.
//
// Threads that run vCPUs take turns (vcpu_thread.h); whichever has its turn may use all of this. An
// Affinity is one thread's, for no other to use.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "kvm-runner/canary.h"

struct kvm_run;

namespace fpswap::kvm {

// The CPUs the agent was allowed when it began. A copy is another thread's.
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
  // For a thread made by another, which may have been pinned then: all of the CPUs.
  void Widen();

 private:
  int Pin(int cpu);
  cpu_set_t all_;
  std::vector<int> cpus_;
  bool pinned_ = false;
};

// A thread that runs on the caller's CPU when told to, and then waits again. The two hand over by
// futex: while one runs the other sleeps in the kernel, so what happens is the same each time; but
// not where the competitor comes by itself (Arm).
class Competitor {
 public:
  Competitor(const cpu::Features& host, uint64_t xcr0) : canary_(host, xcr0) {}
  ~Competitor();
  // Dirties every register on `cpu`, where this thread must be pinned. False if no thread is to be
  // had.
  bool Dirty(int cpu, uint16_t pattern);
  // Dirties every register on `cpu` after `micros` microseconds, while the caller goes on there. To
  // be followed by Finish. False if no thread is to be had.
  bool Arm(int cpu, uint16_t pattern, unsigned micros);
  // CPUs have gone offline, so that this thread may be elsewhere than it was pinned to.
  void Moved() { moved_.store(true); }
  // Whether it is still to come.
  bool armed() const { return turn_.load(std::memory_order_acquire) == kAsleep; }
  // Waits until it has come.
  void Finish();

 private:
  enum Turn : uint32_t { kWaits, kWorks, kToSleep, kAsleep };
  bool Start();
  void Loop();
  Canary canary_;  // for its Dirty alone
  std::thread thread_;
  std::atomic<uint32_t> turn_{kWaits};
  uint16_t pattern_ = 0;
  unsigned micros_ = 0;
  int cpu_ = -1;
  bool quit_ = false;
  std::atomic<bool> moved_{false};
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
  // The vCPU about to run, and the thread that runs it: its immediate_exit is set, so that a signal
  // that comes just before the system call is not lost.
  void Watch(kvm_run* run, int tid) {
    running_.store(run, std::memory_order_relaxed);
    runner_.store(tid, std::memory_order_relaxed);
  }
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
  std::atomic<int> runner_;  // thread id
  std::thread thread_;
};

// The last CPU of the machine that can go offline. It is the whole machine's: only for one that is
// there for nothing else.
class CpuSwitch {
 public:
  // Brings the CPU back if an agent that died has left it offline. `allowed` false: never there.
  explicit CpuSwitch(bool allowed);
  bool there() const { return !path_.empty(); }
  // False and errno if the kernel refuses.
  bool Set(bool online);
  // Brings it back.
  void Restore() {
    if (!online_) Set(true);
  }

 private:
  std::string path_;
  bool online_ = true;
};

// A signal that is blocked in every thread and let through in KVM_RUN alone.
class PendingSignal {
 public:
  // Blocks it in this thread, and so in those that this thread makes.
  PendingSignal();
  // Makes the signal pending, and open in the next KVM_RUN of `vcpu`. False if it can't.
  bool Raise(int vcpu);
  // After that KVM_RUN: takes the signal away and shuts `vcpu` again. Gives true if it was there.
  bool Take(int vcpu);
};

}  // namespace fpswap::kvm
