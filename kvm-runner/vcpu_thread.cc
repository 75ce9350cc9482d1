// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/vcpu_thread.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <system_error>

#include "kvm-runner/futex.h"

namespace fpswap::kvm {

VcpuThread::VcpuThread(unsigned number, const cpu::Features& host, uint64_t xcr0, bool count,
                       const VcpuThread* first)
    : canary(host, xcr0, number),
      affinity(first != nullptr ? first->affinity : Affinity()),
      number_(number),
      count_(count),
      pkru_(first != nullptr ? first->pkru_ : canary.ReadPkru()) {
  if (number == 0) {
    tid_ = static_cast<int>(syscall(SYS_gettid));
    if (count_) kcov = Kcov::OpenForThisThread();
    return;
  }
  // It inherits which signals are blocked: host_side.h's is, in each thread that runs vCPUs.
  turn_.store(1);
  try {
    thread_ = std::thread(&VcpuThread::Loop, this);
  } catch (const std::system_error&) {
    return;
  }
  WaitWhile(turn_, 1);
}

VcpuThread::~VcpuThread() {
  if (!thread_.joinable()) return;
  quit_ = true;
  Wake(turn_, 1);
  thread_.join();
}

void VcpuThread::Loop() {
  tid_ = static_cast<int>(syscall(SYS_gettid));
  if (count_) kcov = Kcov::OpenForThisThread();
  // Its maker may be pinned, and have another PKRU, by a step of the program.
  affinity.Widen();
  canary.WritePkru(pkru_);
  for (;;) {
    Wake(turn_, 0);
    WaitWhile(turn_, 0);
    if (quit_) return;
    (*work_)();
  }
}

void VcpuThread::HandOver(const std::function<void()>& work) {
  work_ = &work;
  Wake(turn_, 1);
  WaitWhile(turn_, 1);
}

void VcpuThread::Restore() {
  if (!used_) return;
  Do([this] {
    affinity.Restore();
    if (canary.has_pkru() && canary.ReadPkru() != pkru_) canary.WritePkru(pkru_);
  });
  used_ = false;
}

VcpuThreads::VcpuThreads(const cpu::Features& host, uint64_t xcr0, bool count)
    : host_(host), xcr0_(xcr0), count_(count) {
  threads_[0] = std::make_unique<VcpuThread>(0, host_, xcr0_, count_, nullptr);
}

VcpuThread* VcpuThreads::Get(unsigned number) {
  auto& thread = threads_[number];
  if (!thread)
    thread = std::make_unique<VcpuThread>(number, host_, xcr0_, count_, threads_[0].get());
  if (!thread->ok()) thread.reset();
  return thread.get();
}

void VcpuThreads::Restore() {
  for (const auto& thread : threads_) {
    if (thread) thread->Restore();
  }
}

void VcpuThreads::StartCounting() {
  for (const auto& thread : threads_) {
    if (thread && thread->kcov) thread->kcov->Restart();
  }
}

void VcpuThreads::AddEdges(EdgeMap& edges) const {
  for (const auto& thread : threads_) {
    if (thread && thread->kcov) edges.Add(thread->kcov->path());
  }
}

}  // namespace fpswap::kvm
