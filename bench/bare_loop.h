// SPDX-License-Identifier: GPL-2.0-or-later
//
// The calls to KVM that programs make, recorded on their way to the kernel, and made again in a
// bare loop: what the kvm target's speed is compared to.
//
// kvm-runner calls KVM through two doors, ioctl() and Canary::Run; KVM_RUN goes through either. The
// linker puts ours before both (--wrap in bench/CMakeLists.txt), so what is recorded is what the
// agent's own code does.
//
// Not thread safe; one BareLoop records at a time.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness/plan/wire.h"
#include "kvm-runner/kvm_machine.h"
#include "kvm-runner/posix.h"

namespace fpswap::bench {

class BareLoop {
 public:
  // `xsave_size` is what KVM_SET_XSAVE reads, `run_size` the bytes to map of a vCPU.
  BareLoop(uint32_t xsave_size, size_t run_size) : xsave_size_(xsave_size), run_size_(run_size) {}
  ~BareLoop() { Stop(); }
  BareLoop(const BareLoop&) = delete;
  BareLoop& operator=(const BareLoop&) = delete;

  // From here to Stop() every call of this process is recorded. `plan`, which outlives this, is
  // what goes to guest memory before them.
  void Start(const wire::PlanView& plan);
  void Stop();
  // Whether a VM was made: its descriptors may be gone by now, and nothing can be made again.
  bool made_vm() const { return made_vm_; }

  // Prepares memory and makes all calls again. REQUIRES: the vCPUs are as they were when recording
  // began, and no KVM_RUN waited for a signal: none comes here.
  void Replay(kvm::KvmMachine& machine);

  size_t calls() const { return calls_.size(); }
  size_t runs() const { return inputs_.size(); }
  // The part of all calls made again that answered otherwise than when recorded: 0 if the loop does
  // what the programs did.
  double otherwise() const;
  // The first of them, in words.
  const std::string& first_otherwise() const { return first_otherwise_; }

  // For the two doors.
  static BareLoop* recording();
  int Ioctl(int fd, unsigned long request, void* argument);
  long Run(int vcpu, const std::function<long()>& run);

 private:
  // What the VMM leaves in the kvm_run page for KVM_RUN.
  struct RunInput {
    kvm_run* page;
    uint8_t immediate_exit;
    uint64_t dirty_regs;
    kvm_regs regs;
    std::array<uint8_t, 32> exit;  // data of an MMIO or MSR read
  };
  struct Call {
    int fd;
    unsigned long request;
    unsigned long value;  // the argument, if it is no pointer
    size_t bytes;         // of the argument, in bytes_; kNoBytes: none
    size_t input;         // of KVM_RUN, in inputs_
    long result;
    uint32_t exit_reason;  // of KVM_RUN
  };
  struct Program {
    const wire::PlanView* plan;
    size_t begin;  // in calls_
  };
  static constexpr size_t kNoBytes = ~size_t{0};

  size_t InputSize(unsigned long request, const void* argument) const;
  kvm_run* PageOf(int vcpu);
  void ReplayCall(const Call& call);
  void Compare(const Call& call, long result, uint32_t exit_reason);

  uint32_t xsave_size_;
  size_t run_size_;
  std::map<int, kvm::Mapping> pages_;  // a second mapping of each vCPU's kvm_run
  std::vector<Program> programs_;
  std::vector<Call> calls_;
  std::vector<RunInput> inputs_;
  std::vector<uint8_t> bytes_;
  std::array<uint8_t, 16384> answers_{};  // of GETs
  bool made_vm_ = false;
  uint64_t replayed_ = 0, otherwise_ = 0;
  std::string first_otherwise_;
};

}  // namespace fpswap::bench
