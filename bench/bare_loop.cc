// SPDX-License-Identifier: GPL-2.0-or-later
#include "bench/bare_loop.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <optional>

#include "kvm-runner/canary.h"

// The linker's names for the two doors: __wrap_X takes calls of X, __real_X is X itself.
extern "C" int RealIoctl(int fd, unsigned long request, ...) asm("__real_ioctl");
extern "C" int WrapIoctl(int fd, unsigned long request, ...) asm("__wrap_ioctl");
long RealRun(fpswap::kvm::Canary* canary, int vcpu) asm("__real__ZN6fpswap3kvm6Canary3RunEi");
long WrapRun(fpswap::kvm::Canary* canary, int vcpu) asm("__wrap__ZN6fpswap3kvm6Canary3RunEi");

using fpswap::bench::BareLoop;

int WrapIoctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  BareLoop* loop = BareLoop::recording();
  return loop == nullptr ? RealIoctl(fd, request, argument) : loop->Ioctl(fd, request, argument);
}

long WrapRun(fpswap::kvm::Canary* canary, int vcpu) {
  BareLoop* loop = BareLoop::recording();
  return loop == nullptr ? RealRun(canary, vcpu)
                         : loop->Run(vcpu, [&] { return RealRun(canary, vcpu); });
}

namespace fpswap::bench {
namespace {

BareLoop* active = nullptr;

// Calls whose argument is a number. The numbers of requests are compared without their sizes, which
// C++ gets wrong for some (kvm_api.h).
bool TakesNumber(unsigned long request) {
  const auto number = _IOC_NR(request);
  return number == _IOC_NR(KVM_CREATE_VM) || number == _IOC_NR(KVM_CREATE_VCPU) ||
         number == _IOC_NR(KVM_CHECK_EXTENSION);
}

}  // namespace

BareLoop* BareLoop::recording() { return active; }

void BareLoop::Start(const wire::PlanView& plan) {
  programs_.push_back({&plan, calls_.size()});
  active = this;
}

void BareLoop::Stop() {
  if (active == this) active = nullptr;
}

// Bytes that a call reads of its argument.
size_t BareLoop::InputSize(unsigned long request, const void* argument) const {
  const auto number = _IOC_NR(request);
  uint32_t count = 0;
  if (_IOC_SIZE(request) >= sizeof(count)) std::memcpy(&count, argument, sizeof(count));
  if (number == _IOC_NR(KVM_SET_XSAVE)) return xsave_size_;
  if (number == _IOC_NR(KVM_SET_CPUID2) || number == _IOC_NR(KVM_GET_CPUID2)) {
    return 8 + size_t{count} * sizeof(kvm_cpuid_entry2);
  }
  if (number == _IOC_NR(KVM_SET_MSRS) || number == _IOC_NR(KVM_GET_MSRS)) {
    return 8 + size_t{count} * sizeof(kvm_msr_entry);
  }
  return (_IOC_DIR(request) & _IOC_WRITE) != 0 ? _IOC_SIZE(request) : 0;
}

int BareLoop::Ioctl(int fd, unsigned long request, void* argument) {
  if (request == KVM_RUN) {
    const long result = Run(fd, [&] {
      const long answer = RealIoctl(fd, request, argument);
      return answer < 0 ? -errno : answer;
    });
    if (result < 0) errno = static_cast<int>(-result);
    return result < 0 ? -1 : static_cast<int>(result);
  }
  made_vm_ |= _IOC_NR(request) == _IOC_NR(KVM_CREATE_VM);
  Call call{.fd = fd, .request = request, .value = 0, .bytes = kNoBytes};
  if (TakesNumber(request) || argument == nullptr) {
    call.value = reinterpret_cast<unsigned long>(argument);
  } else if (const size_t size = InputSize(request, argument); size != 0) {
    call.bytes = bytes_.size();
    bytes_.resize((bytes_.size() + size + 63) & ~size_t{63});
    std::memcpy(&bytes_[call.bytes], argument, size);
  } else {
    call.value = reinterpret_cast<unsigned long>(answers_.data());
  }
  call.result = RealIoctl(fd, request, argument);
  calls_.push_back(call);
  return static_cast<int>(call.result);
}

kvm_run* BareLoop::PageOf(int vcpu) {
  kvm::Mapping& page = pages_[vcpu];
  if (!page.ok()) page = kvm::Mapping(run_size_, vcpu);
  return reinterpret_cast<kvm_run*>(page.data());
}

long BareLoop::Run(int vcpu, const std::function<long()>& run) {
  kvm_run* page = PageOf(vcpu);
  RunInput input{.page = page,
                 .immediate_exit = page->immediate_exit,
                 .dirty_regs = page->kvm_dirty_regs,
                 .regs = page->s.regs.regs,
                 .exit = {}};
  std::memcpy(input.exit.data(), page->padding, input.exit.size());
  Call call{.fd = vcpu, .request = KVM_RUN, .value = 0, .bytes = kNoBytes, .input = inputs_.size()};
  inputs_.push_back(input);
  call.result = run();
  call.exit_reason = page->exit_reason;
  calls_.push_back(call);
  return call.result;
}

void BareLoop::Replay(kvm::KvmMachine& machine) {
  for (size_t i = 0; i < programs_.size(); ++i) {
    const wire::PlanView& plan = *programs_[i].plan;
    for (unsigned vm = 0; vm < (plan.own_vm ? plan.vcpus : 1u); ++vm) {
      machine.memory(vm).Load(plan, plan.own_vm ? std::optional(vm) : std::nullopt);
    }
    const size_t end = i + 1 < programs_.size() ? programs_[i + 1].begin : calls_.size();
    for (size_t n = programs_[i].begin; n < end; ++n) ReplayCall(calls_[n]);
  }
  replayed_ += calls_.size();
}

void BareLoop::ReplayCall(const Call& call) {
  if (call.request != KVM_RUN) {
    void* argument = call.bytes == kNoBytes ? reinterpret_cast<void*>(call.value)
                                            : static_cast<void*>(&bytes_[call.bytes]);
    return Compare(call, RealIoctl(call.fd, call.request, argument), 0);
  }
  const RunInput& input = inputs_[call.input];
  kvm_run& page = *input.page;
  page.immediate_exit = input.immediate_exit;
  page.kvm_dirty_regs = input.dirty_regs;
  if (input.dirty_regs != 0) page.s.regs.regs = input.regs;
  std::memcpy(page.padding, input.exit.data(), input.exit.size());
  const long result = RealIoctl(call.fd, KVM_RUN, nullptr) < 0 ? -errno : 0;
  // As kvm-runner leaves it: the next one on this vCPU may be kvm-runner's own.
  page.immediate_exit = 0;
  Compare(call, result, page.exit_reason);
}

void BareLoop::Compare(const Call& call, long result, uint32_t exit_reason) {
  const bool exits = call.request == KVM_RUN && result == 0;
  if (result == call.result && (!exits || exit_reason == call.exit_reason)) return;
  if (otherwise_++ != 0) return;
  first_otherwise_ = fmt::format("request {:#x} gave {} and was recorded with {}", call.request,
                                 result, call.result);
  if (exits) {
    first_otherwise_ += fmt::format(", exit {} and {}", exit_reason, call.exit_reason);
  }
}

double BareLoop::otherwise() const {
  return replayed_ == 0 ? 0 : static_cast<double>(otherwise_) / static_cast<double>(replayed_);
}

}  // namespace fpswap::bench
