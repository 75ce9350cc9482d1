// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/host_side.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <system_error>

#include "kvm-runner/futex.h"
#include "kvm-runner/kvm_api.h"

namespace fpswap::kvm {
namespace {

constexpr int kHostSignal = SIGUSR1;
constexpr int kHangSignal = SIGUSR2;
constexpr size_t kKernelSigset = 8;  // bytes of the kernel's sigset_t

uint64_t Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

void BlockAllSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace

Affinity::Affinity() {
  CPU_ZERO(&all_);
  sched_getaffinity(0, sizeof(all_), &all_);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all_)) cpus_.push_back(cpu);
  }
}

int Affinity::Pin(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (sched_setaffinity(0, sizeof(one), &one) != 0) return -1;
  pinned_ = true;
  return cpu;
}

int Affinity::MoveTo(unsigned n) { return cpus_.empty() ? -1 : Pin(cpus_[n % cpus_.size()]); }

int Affinity::Stay() { return Pin(sched_getcpu()); }

void Affinity::Restore() {
  if (pinned_) Widen();
}

void Affinity::Widen() {
  sched_setaffinity(0, sizeof(all_), &all_);
  pinned_ = false;
}

Competitor::~Competitor() {
  if (!thread_.joinable()) return;
  quit_ = true;
  Wake(turn_, kWorks);
  thread_.join();
}

void Competitor::Loop() {
  BlockAllSignals();
  prctl(PR_SET_TIMERSLACK, 1L);  // nanoseconds; 50 microseconds else, which is longer than KVM_RUN
  int pinned = -1;
  for (;;) {
    WaitWhile(turn_, kWaits);
    if (quit_) return;
    if (cpu_ != pinned || moved_.exchange(false)) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu_, &one);
      if (sched_setaffinity(0, sizeof(one), &one) == 0) pinned = cpu_;
    }
    if (turn_.load() == kToSleep) {
      // The caller is on this CPU, so it goes on when this thread is asleep.
      Wake(turn_, kAsleep);
      const timespec pause{.tv_sec = 0, .tv_nsec = static_cast<long>(micros_) * 1000};
      clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    }
    canary_.Dirty(pattern_);
    Wake(turn_, kWaits);
  }
}

bool Competitor::Start() {
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread(&Competitor::Loop, this);
  } catch (const std::system_error&) {
    return false;
  }
  return true;
}

bool Competitor::Dirty(int cpu, uint16_t pattern) {
  if (!Start()) return false;
  cpu_ = cpu;
  pattern_ = pattern;
  Wake(turn_, kWorks);
  WaitWhile(turn_, kWorks);
  return true;
}

bool Competitor::Arm(int cpu, uint16_t pattern, unsigned micros) {
  if (!Start()) return false;
  cpu_ = cpu;
  pattern_ = pattern;
  micros_ = micros;
  Wake(turn_, kToSleep);
  WaitWhile(turn_, kToSleep);
  return true;
}

void Competitor::Finish() { WaitWhile(turn_, kAsleep); }

std::atomic<Watchdog*> Watchdog::active_{nullptr};

Watchdog::Watchdog(unsigned limit_ms)
    : limit_(uint64_t{limit_ms} * 1'000'000), runner_(static_cast<int>(syscall(SYS_gettid))) {
  active_.store(this);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(kHangSignal, &action, nullptr);
  thread_ = std::thread(&Watchdog::Loop, this);
}

Watchdog::~Watchdog() {
  Wake(quit_, 1);
  thread_.join();
  signal(kHangSignal, SIG_IGN);
  active_.store(nullptr);
}

void Watchdog::Begin() {
  // In this order: a signal between the two finds an action that has just begun.
  began_.store(Now());
  hung_.store(false);
}

void Watchdog::End() {
  began_.store(0);
  running_.store(nullptr);
}

void Watchdog::OnSignal(int) {
  // Runs on the thread that runs the vCPU.
  Watchdog* self = active_.load();
  // The signal may be late: what it was sent for is over, and another action has begun.
  if (self == nullptr || !self->Over(self->began_.load())) return;
  self->hung_.store(true);
  if (kvm_run* run = self->running_.load()) run->immediate_exit = 1;
}

bool Watchdog::Over(uint64_t began) const { return began != 0 && Now() - began > limit_.load(); }

void Watchdog::Loop() {
  BlockAllSignals();
  while (quit_.load() == 0) {
    const uint64_t tick = std::clamp<uint64_t>(limit_.load() / 4, 5'000'000, 250'000'000);
    const timespec pause{.tv_sec = 0, .tv_nsec = static_cast<long>(tick)};
    Futex(quit_, FUTEX_WAIT, 0, &pause);
    // Each tick again: the first signal may hit a system call other than KVM_RUN.
    if (Over(began_.load())) syscall(SYS_tgkill, getpid(), runner_.load(), kHangSignal);
  }
}

CpuSwitch::CpuSwitch(bool allowed) {
  const long cpus = allowed ? sysconf(_SC_NPROCESSORS_CONF) : 0;
  // CPU 0 has no switch since Linux 6.5.
  for (long cpu = cpus - 1; cpu > 0 && path_.empty(); --cpu) {
    const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online";
    if (access(path.c_str(), W_OK) == 0) path_ = path;
  }
  if (there()) Set(true);
}

bool CpuSwitch::Set(bool online) {
  const int fd = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  // Also where it is so already.
  const bool done = write(fd, online ? "1" : "0", 1) == 1;
  const int error = errno;
  close(fd);
  errno = error;
  if (done) online_ = online;
  return done;
}

PendingSignal::PendingSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kHostSignal);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool PendingSignal::Raise(int vcpu) {
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  sigdelset(&blocked, kHostSignal);
  struct {  // struct kvm_signal_mask
    uint32_t len = kKernelSigset;
    uint8_t set[kKernelSigset];
  } mask;
  std::memcpy(mask.set, &blocked, kKernelSigset);
  if (kvm_set_signal_mask(vcpu, &mask) != 0) return false;
  return syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), kHostSignal) == 0;
}

bool PendingSignal::Take(int vcpu) {
  kvm_set_signal_mask(vcpu, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kHostSignal);
  const timespec none{};
  return sigtimedwait(&set, nullptr, &none) == kHostSignal;
}

}  // namespace fpswap::kvm
