// SPDX-License-Identifier: GPL-2.0-or-later
//
// A thread of the VMM that runs vCPUs, and what is each thread's own: its canaries, its PKRU and
// the CPUs it may use. Threads take turns: one works while the others sleep in the kernel, so the
// program's order is what runs.
//
// Not thread safe: one thread hands out work, and waits for it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "harness/program/step.h"
#include "kvm-runner/canary.h"
#include "kvm-runner/host_side.h"
#include "kvm-runner/kcov.h"

namespace fpswap::kvm {

class VcpuThread {
 public:
  // Number 0 is the thread that makes it and hands out the work; any other is a new thread, with
  // canaries of its own, and PKRU and CPUs as `first` (number 0; else null) began with. `host` and
  // `xcr0` as for Canary. `count`: what it reaches of the kernel, where the kernel can.
  VcpuThread(unsigned number, const cpu::Features& host, uint64_t xcr0, bool count,
             const VcpuThread* first);
  ~VcpuThread();
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;
  // False if no thread is to be had.
  bool ok() const { return number_ == 0 || thread_.joinable(); }

  // Has the thread do `work`, and waits until it is done.
  template <typename Work>
  void Do(Work&& work) {
    used_ = true;
    if (number_ == 0) return work();
    HandOver(work);
  }
  // Its PKRU and CPUs as they were when it began.
  void Restore();

  unsigned number() const { return number_; }
  int tid() const { return tid_; }
  Canary canary;
  Affinity affinity;           // of the thread that does the work
  std::unique_ptr<Kcov> kcov;  // null: nobody counts

 private:
  void HandOver(const std::function<void()>& work);
  void Loop();

  unsigned number_;
  bool count_;
  int tid_ = 0;
  uint32_t pkru_ = 0;
  std::atomic<uint32_t> turn_{0};  // 0: this thread waits, 1: it works
  const std::function<void()>* work_ = nullptr;
  bool quit_ = false;
  bool used_ = false;  // since Restore
  std::thread thread_;
};

// The agent's threads, made when first needed.
class VcpuThreads {
 public:
  // The thread that makes this is number 0. `host` outlives it.
  VcpuThreads(const cpu::Features& host, uint64_t xcr0, bool count);
  // Null if no thread is to be had. REQUIRES: number < kMaxVcpus.
  VcpuThread* Get(unsigned number);
  // All that have worked, as they were when they began.
  void Restore();
  // Between the two a program runs: what its threads reached of the kernel.
  void StartCounting();
  void AddEdges(EdgeMap& edges) const;

 private:
  const cpu::Features& host_;
  uint64_t xcr0_;
  bool count_;
  std::array<std::unique_ptr<VcpuThread>, program::kMaxVcpus> threads_;
};

}  // namespace fpswap::kvm
