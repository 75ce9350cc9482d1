// SPDX-License-Identifier: GPL-2.0-or-later
//
// A run of guest steps: entering, what comes back, and going on after a fault.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "kvm-runner/kvm_api.h"
#include "kvm-runner/program_run.h"

namespace fpswap::kvm {
namespace {

using program::Op;

constexpr uint8_t kPageFault = 14, kDebug = 1, kBreakpoint = 3, kOverflow = 4;
// Raw code may loop over an exit for ever; real programs have a few exits a step.
constexpr unsigned kMaxExits = 1024;

bool ChangesSregs(Op op) { return op == Op::kCr0Ts || op == Op::kCr4Bit || op == Op::kRaw; }

// SIGALRM for this thread every millisecond while its vCPU may wait in HLT inside the kernel: one
// of them finds it there. KVM_RUN then gives EINTR.
class AlarmClock {
 public:
  explicit AlarmClock(bool on) {
    if (!on) return;
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGALRM, &action, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGALRM;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    on_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    constexpr timespec kEach{.tv_sec = 0, .tv_nsec = 1'000'000};
    const itimerspec each{.it_interval = kEach, .it_value = kEach};
    if (on_) timer_settime(timer_, 0, &each, nullptr);
  }
  ~AlarmClock() {
    if (on_) timer_delete(timer_);
  }

 private:
  bool on_ = false;
  timer_t timer_{};
};

}  // namespace

void ProgramRun::RunGuest(const wire::PlanAction& action) {
  Vcpu& vcpu = VcpuOf(action.vcpu);
  action_ = action;
  flushed_ = action.first;
  exits_ = 0;
  const AlarmClock alarm(WaitsInHlt());
  if (!Enter(vcpu, action.first)) return;
  for (;;) {
    const long result = Run(vcpu);
    if (result == -EINTR) {
      if (!OnInterrupted(vcpu)) break;
    } else if (result < 0) {
      RecordExit(vcpu, Guess(), {.reason = KVM_EXIT_UNKNOWN});
      Die(EndReason::kVcpuDead, static_cast<int>(-result));
      break;
    } else if (++exits_ > kMaxExits) {
      Die(EndReason::kHang, 0);
      break;
    } else if (!OnExit(vcpu)) {
      break;
    }
  }
  for (unsigned i = action.first; i <= action.last; ++i) {
    if (ChangesSregs(plan_.steps[i].op)) vcpu.sregs_known = false;
    happened_.xcr0_set |= plan_.steps[i].op == Op::kXsetbv;
  }
}

// Sets the registers to begin with `step`, at the action's CPL.
bool ProgramRun::Enter(Vcpu& vcpu, unsigned step) {
  const unsigned cpl = action_.cpl;
  if (!vcpu.sregs_known || vcpu.cpl != static_cast<int>(cpl)) {
    if (!vcpu.sregs_known) {
      // Steps may have changed CR0 and CR4: these stay. Raw code may have changed segments.
      kvm_sregs now;
      if (kvm_get_sregs(vcpu.fd.get(), &now) != 0) {
        Die(EndReason::kSetupFailed, errno);
        return false;
      }
      vcpu.sregs.cr0 = now.cr0;
      vcpu.sregs.cr4 = now.cr4;
    }
    SetCpl(vcpu.sregs, cpl);
    if (kvm_set_sregs(vcpu.fd.get(), &vcpu.sregs) != 0) {
      Die(EndReason::kSetupFailed, errno);
      return false;
    }
    vcpu.sregs_known = true;
    vcpu.cpl = static_cast<int>(cpl);
  }
  kvm_regs regs = RegsAt(plan::kCodeBase + plan_.rows[step].code, vcpu.number, cpl);
  if (tools_.host.sync_regs) {
    vcpu.run().s.regs.regs = regs;
    vcpu.run().kvm_dirty_regs = KVM_SYNC_X86_REGS;
  } else if (kvm_set_regs(vcpu.fd.get(), &regs) != 0) {
    Die(EndReason::kSetupFailed, errno);
    return false;
  }
  return true;
}

// A signal: ours to test with, the watchdog's, or the alarm that finds a vCPU waiting in HLT.
bool ProgramRun::OnInterrupted(Vcpu& vcpu) {
  vcpu.run().immediate_exit = 0;
  if (tools_.watchdog.hung()) {
    step_ = static_cast<uint16_t>(StepByRip(vcpu, 0));
    Die(EndReason::kHang, 0);
    return false;
  }
  if (!WaitsInHlt()) return true;
  kvm_mp_state state{};
  if (kvm_get_mp_state(vcpu.fd.get(), &state) == 0 && state.mp_state == KVM_MP_STATE_HALTED) {
    RecordExit(vcpu, StepByRip(vcpu, -1), {.reason = KVM_EXIT_HLT});
    state.mp_state = KVM_MP_STATE_RUNNABLE;
    kvm_set_mp_state(vcpu.fd.get(), &state);
  }
  return true;
}

// True if the guest is to go on.
bool ProgramRun::OnExit(Vcpu& vcpu) {
  kvm_run& run = vcpu.run();
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      return OnIo(vcpu);
    case KVM_EXIT_MMIO:
      OnMmio(vcpu);
      return true;
    case KVM_EXIT_HLT:
      RecordExit(vcpu, StepByRip(vcpu, -1), {.reason = KVM_EXIT_HLT});
      return true;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      OnMsr(vcpu);
      return true;
    case KVM_EXIT_INTERNAL_ERROR:
      RecordExit(vcpu, StepByRip(vcpu, 0),
                 {.reason = run.exit_reason, .suberror = run.internal.suberror});
      break;
    case KVM_EXIT_FAIL_ENTRY:
      RecordExit(vcpu, StepByRip(vcpu, 0),
                 {.reason = run.exit_reason,
                  .suberror = static_cast<uint32_t>(run.fail_entry.hardware_entry_failure_reason)});
      break;
    default:
      RecordExit(vcpu, StepByRip(vcpu, 0), {.reason = run.exit_reason});
      break;
  }
  Die(EndReason::kVcpuDead, 0);
  return false;
}

bool ProgramRun::OnIo(Vcpu& vcpu) {
  kvm_run& run = vcpu.run();
  uint8_t* data = vcpu.run_page.data() + run.io.data_offset;
  const size_t bytes = size_t{run.io.size} * run.io.count;
  const bool out = run.io.direction == KVM_EXIT_IO_OUT;
  if (out && run.io.port == plan::kEndPort) {
    FlushJournals(action_.last + 1u);
    return false;
  }
  if (out && run.io.port == plan::kFaultPort && run.io.size == 1) return OnFault(vcpu, data[0]);
  trace::ExitRecord exit{
      .reason = KVM_EXIT_IO, .where = run.io.port, .size = run.io.size, .is_write = out};
  unsigned step = Guess();
  if (out) {
    std::memcpy(&exit.data, data, std::min<size_t>(bytes, sizeof(exit.data)));
    const uint64_t said = exit.data;
    if (run.io.port == plan::kExitPort && said >= flushed_ && said <= action_.last) {
      step = static_cast<unsigned>(said);
    }
  } else {
    // Raw code's IN: there is always an answer, and always the same.
    std::memset(data, 0, bytes);
  }
  RecordExit(vcpu, step, exit);
  return true;
}

void ProgramRun::OnMmio(Vcpu& vcpu) {
  kvm_run& run = vcpu.run();
  const uint64_t offset = run.mmio.phys_addr - plan::kMmioBase;
  const uint32_t length = std::min<uint32_t>(run.mmio.len, sizeof(run.mmio.data));
  unsigned step = Guess();
  if (const uint64_t by_address = offset / plan::kMmioStride;
      by_address >= flushed_ && by_address <= action_.last) {
    step = static_cast<unsigned>(by_address);
  }
  trace::ExitRecord exit{.reason = KVM_EXIT_MMIO,
                         .where = run.mmio.phys_addr,
                         .size = static_cast<uint8_t>(run.mmio.len),
                         .is_write = run.mmio.is_write};
  if (run.mmio.is_write != 0) {
    std::memcpy(&exit.data, run.mmio.data, length);
  } else {
    uint8_t answer[2 * plan::kMmioStride];
    program::FillPattern(static_cast<uint16_t>(step + 2), answer);
    std::memcpy(run.mmio.data, answer + offset % plan::kMmioStride, length);
  }
  RecordExit(vcpu, step, exit);
}

void ProgramRun::OnMsr(Vcpu& vcpu) {
  kvm_run& run = vcpu.run();
  const unsigned step = StepByRip(vcpu, 0);
  trace::ExitRecord exit{.reason = run.exit_reason, .where = run.msr.index, .size = 8};
  if (run.exit_reason == KVM_EXIT_X86_WRMSR) {
    exit.is_write = 1;
    exit.data = run.msr.data;
  } else {
    uint8_t answer[8];
    program::FillPattern(static_cast<uint16_t>(step + 2), answer);
    std::memcpy(&run.msr.data, answer, sizeof(answer));
  }
  run.msr.error = 0;
  RecordExit(vcpu, step, exit);
}

bool ProgramRun::OnFault(Vcpu& vcpu, uint8_t vector) {
  const ExceptionFrame frame = MemoryOf(vcpu.number).Frame(vcpu.number, vector);
  trace::FaultRecord fault{.vector = vector, .error_code = frame.error_code, .rip = frame.rip};
  if (vector == kPageFault) {
    kvm_sregs sregs;
    if (kvm_get_sregs(vcpu.fd.get(), &sregs) == 0) fault.address = sregs.cr2;
  }
  // These three are traps: RIP is behind the instruction.
  const bool trap = vector == kDebug || vector == kBreakpoint || vector == kOverflow;
  const unsigned step = std::max(StepAt(frame.rip - trap), flushed_);
  FlushJournals(step);
  ++happened_.faults;
  Record(RecordKind::kFault, vcpu.number, step, fault);
  step_ = static_cast<uint16_t>(step);
  flushed_ = step + 1;
  vcpu.cpl = -1;  // in the stub
  for (unsigned i = action_.first; i <= step; ++i) {
    if (ChangesSregs(plan_.steps[i].op)) vcpu.sregs_known = false;
  }
  return flushed_ <= action_.last && Enter(vcpu, flushed_);
}

void ProgramRun::RecordExit(Vcpu& vcpu, unsigned step, const trace::ExitRecord& exit) {
  FlushJournals(step);
  step_ = static_cast<uint16_t>(step);
  Record(RecordKind::kExit, vcpu.number, step, exit);
}

// Records the journals of the steps from the last one recorded up to, not including, `upto`.
void ProgramRun::FlushJournals(unsigned upto) {
  for (; flushed_ < upto; ++flushed_) {
    const wire::PlanCode& row = plan_.rows[flushed_];
    if (row.journal_bytes == 0) continue;
    trace::AppendRecord(records_, RecordKind::kJournal, action_.vcpu,
                        static_cast<uint16_t>(flushed_), MemoryOf(action_.vcpu).Journal(row));
  }
}

// The step of the run whose code holds `rip`.
unsigned ProgramRun::StepAt(uint64_t rip) const {
  const uint64_t offset = rip - plan::kCodeBase;
  if (offset >= plan_.code.size() || offset < plan_.rows[action_.first].code) return Guess();
  unsigned step = action_.first;
  while (step < action_.last && plan_.rows[step + 1u].code <= offset) ++step;
  return step;
}

unsigned ProgramRun::StepByRip(Vcpu& vcpu, int64_t correction) {
  kvm_regs regs;
  if (kvm_get_regs(vcpu.fd.get(), &regs) != 0) return Guess();
  return std::max(StepAt(regs.rip + static_cast<uint64_t>(correction)), flushed_);
}

// Where code is that is not in the plan's: raw code has gone astray, or the first step not yet
// done.
unsigned ProgramRun::Guess() const {
  for (unsigned i = flushed_; i <= action_.last; ++i) {
    if (plan_.steps[i].op == Op::kRaw) return i;
  }
  return std::min<unsigned>(flushed_, action_.last);
}

// With an APIC in the kernel HLT does not exit: the vCPU waits there.
bool ProgramRun::WaitsInHlt() const {
  if (!vms_[0].kind.apic) return false;
  for (unsigned i = action_.first; i <= action_.last; ++i) {
    if (plan_.steps[i].op == Op::kExitHlt || plan_.steps[i].op == Op::kRaw) return true;
  }
  return false;
}

}  // namespace fpswap::kvm
