// SPDX-License-Identifier: GPL-2.0-or-later
#include "native-runner/machine.h"

#include <sys/mman.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "harness/trace/record.h"
#include "harness/trace/trace.h"
#include "native-runner/competitor.h"
#include "native-runner/live.h"
#include "native-runner/probe.h"
#include "oracle/xstate/layout.h"

namespace fpswap::native {
namespace {

using program::Op;
using trace::RecordKind;
using xstate::Component;

// What live.h copies.
static_assert(kMaxLiveSteps == program::kMaxSteps);
static_assert(kImageSize == xstate::kMaxAreaSize);

std::string Failed(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

uint8_t* At(uint64_t address) { return reinterpret_cast<uint8_t*>(address); }

// Nothing on success.
using Error = std::optional<std::string>;

Error MapAt(uint64_t address, size_t size, int protection) {
  void* at = mmap(At(address), size, protection,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
                      (protection == PROT_NONE ? 0 : MAP_POPULATE),
                  -1, 0);
  if (at == MAP_FAILED) return Failed("mapping the guest's memory");
  return std::nullopt;
}

// kReturnPad: BND JMP [RIP+0] and the address. With the BND prefix for the reason in context.S.
void WriteReturnPad() {
  constexpr uint8_t kJump[] = {0xf2, 0xff, 0x25, 0, 0, 0, 0};
  const auto target = reinterpret_cast<uint64_t>(g_has_mpx ? fpswap_leave_mpx : fpswap_leave);
  std::memcpy(At(plan::kReturnPad), kJump, sizeof(kJump));
  std::memcpy(At(plan::kReturnPad) + sizeof(kJump), &target, sizeof(target));
}

// The code is written at the very address it runs at, so that the jump to it is all the
// serialisation that is needed (SDM vol. 3, 9.1.3). Hence writable.
Error MapGuest() {
  constexpr size_t kRest = plan::kGuestSize - (plan::kLiteralBase - plan::kGuestBase);
  if (auto e = MapAt(plan::kSystemBase, plan::kSystemSize + plan::kCodeSize,
                     PROT_READ | PROT_WRITE | PROT_EXEC)) {
    return e;
  }
  if (auto e = MapAt(plan::kLiteralBase, kRest, PROT_READ | PROT_WRITE)) return e;
  // Taken, so that nothing else ever lies there.
  if (auto e = MapAt(plan::kAbsentBase, 4096, PROT_NONE)) return e;
  WriteReturnPad();
  return mprotect(At(plan::kSystemBase), 4096, PROT_READ | PROT_EXEC) == 0
             ? Error{}
             : Failed("protecting the return pad");
}

uint32_t OffsetOf(const trace::Platform& p, Component c) {
  return (p.host_xcr0 & Bit(c)) != 0 ? p.host.xsave.sub[static_cast<size_t>(c)].offset : 0;
}

// XSTATE_BV = 0: RFBM's components become initial, MXCSR is loaded (SDM vol. 1, 13.8.1).
void PrepareImages(const trace::Platform& p) {
  const uint32_t mxcsr = 0x1f80;
  constexpr size_t kMxcsrAt = 24;
  std::memcpy(fpswap_initial_image + kMxcsrAt, &mxcsr, sizeof(mxcsr));
  // The runner's own state is initial but for its PKRU: the process has not changed FCW or MXCSR.
  std::memcpy(fpswap_runner_image + kMxcsrAt, &mxcsr, sizeof(mxcsr));
  const uint32_t at = OffsetOf(p, Component::kPkru);
  if (at == 0) return;
  uint32_t pkru, edx;
  asm volatile("rdpkru" : "=a"(pkru), "=d"(edx) : "c"(0));
  const uint64_t bv = Bit(Component::kPkru);
  std::memcpy(fpswap_runner_image + xstate::kHeaderOffset, &bv, sizeof(bv));
  std::memcpy(fpswap_runner_image + at, &pkru, sizeof(pkru));
}

void PrepareLive(const trace::Platform& p, const cpu_set_t& allowed, FramePlant plant) {
  g_live.code_base = plan::kCodeBase;
  g_live.return_pad = plan::kReturnPad;
  g_live.plant = plant;
  g_live.avx_offset = OffsetOf(p, Component::kAvx);
  g_live.opmask_offset = OffsetOf(p, Component::kOpmask);
  g_live.hi16_offset = OffsetOf(p, Component::kHi16Zmm);
  for (unsigned cpu = 0; cpu < CPU_SETSIZE && g_live.cpus < kMaxAllowedCpus; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) g_live.cpu[g_live.cpus++] = static_cast<uint16_t>(cpu);
  }
}

// The timer is always on, so that no program costs a system call: see Tick in live.cc.
Error SetTimer(unsigned hang_ms) {
  const unsigned period_ms = std::max(1u, hang_ms / 2);
  const timeval period{.tv_sec = period_ms / 1000, .tv_usec = (period_ms % 1000) * 1000};
  const itimerval timer{.it_interval = period, .it_value = period};
  if (setitimer(ITIMER_REAL, &timer, nullptr) != 0) return Failed("setitimer");
  return std::nullopt;
}

Error CatchSignals(unsigned hang_ms) {
  // The frame of a signal holds an XSAVE area of everything, AMX included.
  alignas(64) static uint8_t stack[256 << 10];
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
  if (sigaltstack(&alternate, nullptr) != 0) return Failed("sigaltstack");
  struct sigaction act{};
  act.sa_sigaction = HandleSignal;
  act.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&act.sa_mask);
  for (const int signal :
       {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, kHostSignalNumber, kTickSignal}) {
    if (sigaction(signal, &act, nullptr) != 0) return Failed("sigaction");
  }
  return SetTimer(hang_ms);
}

template <typename T>
void Append(std::vector<uint8_t>& records, RecordKind kind, unsigned step, const T& head,
            std::span<const uint8_t> tail = {}) {
  trace::AppendRecord(records, kind, 0, static_cast<uint16_t>(step),
                      {reinterpret_cast<const uint8_t*>(&head), sizeof(head)}, tail);
}

LiveKind KindOf(const wire::PlanAction& action, const program::Step& step) {
  if (action.kind == static_cast<uint8_t>(plan::ActionKind::kRun)) return LiveKind::kRun;
  if (step.op == Op::kHostCpu) return LiveKind::kHostCpu;
  if (step.op == Op::kHostSignal) return LiveKind::kHostSignal;
  return LiveKind::kHostDirty;
}

// Null, or why native can't run the plan. Plans for native are trimmed to this.
const char* Unfit(const wire::PlanView& plan) {
  if (plan.vcpus != 1) return "native has one vCPU";
  for (const wire::PlanAction& action : plan.actions) {
    const Op op = plan.steps[action.first].op;
    if (action.kind == static_cast<uint8_t>(plan::ActionKind::kRun) && action.cpl != 3) {
      return "native runs at CPL 3 only";
    }
    if (action.kind == static_cast<uint8_t>(plan::ActionKind::kStep) && op != Op::kHostCpu &&
        op != Op::kHostSignal && op != Op::kHostDirty) {
      return "native does no such VMM or host step";
    }
  }
  return nullptr;
}

void PutSteps(const wire::PlanView& plan) {
  g_live.actions = static_cast<uint32_t>(plan.actions.size());
  g_live.code_size = static_cast<uint32_t>(plan.code.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    g_live.code_of[i] = plan.rows[i].code;
    g_live.fault[i].taken = false;
  }
  for (size_t i = 0; i < plan.actions.size(); ++i) {
    const wire::PlanAction& action = plan.actions[i];
    const program::Step& step = plan.steps[action.first];
    g_live.action[i] = {.kind = KindOf(action, step),
                        .first = static_cast<uint8_t>(action.first),
                        .last = static_cast<uint8_t>(action.last),
                        .arg = step.arg[0]};
  }
  g_live.hung = false;
  g_live.affinity_changed = false;
  g_live.cpu_changed = false;
  g_live.faults = 0;
  g_live.signals = 0;
  ++g_live.program;
}

}  // namespace

std::expected<std::unique_ptr<NativeMachine>, std::string> NativeMachine::Open(
    const MachineOptions& options) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return std::unexpected(Failed("sched_getaffinity"));
  }
  // The alternate stack comes before AMX permission, which the kernel refuses without room for it.
  if (auto e = CatchSignals(options.hang_ms)) return std::unexpected(*e);
  auto platform = ProbeHost(allowed);
  if (!platform) return std::unexpected(platform.error());
  g_has_mpx = (platform->host_xcr0 & xstate::kMpx) != 0;
  if (auto e = MapGuest()) return std::unexpected(*e);
  PrepareImages(*platform);
  PrepareLive(*platform, allowed, options.plant);
  StartCompetitor(platform->host.xsave, platform->host_xcr0);
  auto machine = std::unique_ptr<NativeMachine>(new NativeMachine(std::move(*platform)));
  machine->allowed_ = allowed;
  machine->hang_ms_ = options.hang_ms;
  return machine;
}

std::expected<std::string, std::string> NativeMachine::Platform() {
  return trace::PlatformToJson(platform_);
}

void NativeMachine::SetPatience(unsigned times) { SetTimer(hang_ms_ * times); }

// Slots and journal places are zero when a program begins.
void NativeMachine::Reset(const wire::PlanView& plan) {
  for (size_t slot = 0; slot < dirty_.size(); ++slot) {
    std::memset(At(plan::kSlotBase + slot * plan::kSlotSize), 0, dirty_[slot]);
    dirty_[slot] = 0;
  }
  for (const wire::PlanCode& row : plan.rows) {
    std::memset(At(plan::kJournalBase + row.journal), 0, row.journal_bytes);
  }
}

void NativeMachine::NoteDirtySlots(const wire::PlanView& plan) {
  for (const program::Step& step : plan.steps) {
    uint64_t end = 0;
    switch (step.op) {
      case Op::kXsave:
      case Op::kXsavec:
      case Op::kXsaveopt:
        end = step.arg[1] + plan.area_size;
        break;
      case Op::kFxsave:
        end = step.arg[1] + xstate::kLegacySize;
        break;
      case Op::kMemWrite:
        end = step.arg[1] + 8;
        break;
      case Op::kMemFill:
        end = step.arg[1] + step.arg[2];
        break;
      case Op::kMemHeader:
        end = xstate::kExtendedOffset;
        break;
      default:
        continue;
    }
    uint32_t& dirty = dirty_[step.arg[0]];
    dirty = std::max(dirty, static_cast<uint32_t>(std::min(end, plan::kSlotSize)));
  }
}

void NativeMachine::Run(const wire::PlanView& plan, std::vector<uint8_t>& records) {
  if (const char* reason = Unfit(plan)) {
    const trace::EndRecord end{.reason = static_cast<uint8_t>(trace::EndReason::kSetupFailed)};
    Append(records, RecordKind::kEnd, 0, end,
           {reinterpret_cast<const uint8_t*>(reason), std::strlen(reason)});
    return;
  }
  const auto begin = std::chrono::steady_clock::now();
  Reset(plan);
  NoteDirtySlots(plan);
  std::memcpy(At(plan::kCodeBase), plan.code.data(), plan.code.size());
  std::memcpy(At(plan::kLiteralBase), plan.literals.data(), plan.literals.size());
  PutSteps(plan);
  fpswap_live();
  if (g_live.affinity_changed) sched_setaffinity(0, sizeof(allowed_), &allowed_);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  Report(plan, static_cast<uint64_t>(micros.count()), records);
}

void NativeMachine::Report(const wire::PlanView& plan, uint64_t micros,
                           std::vector<uint8_t>& records) const {
  unsigned last = 0;
  for (const wire::PlanAction& action : plan.actions) {
    for (unsigned i = action.first; i <= action.last; ++i) {
      last = i;
      if (g_live.hung && i >= g_live.hung_at) break;
      const wire::PlanCode& row = plan.rows[i];
      const LiveFault& fault = g_live.fault[i];
      if (action.kind == static_cast<uint8_t>(plan::ActionKind::kStep)) {
        const trace::HostRecord done{.result = g_live.host[i].result,
                                     .error = g_live.host[i].error};
        Append(records, RecordKind::kHost, i, done);
      } else if (fault.taken) {
        const trace::FaultRecord record{.vector = fault.vector,
                                        .pad = {},
                                        .error_code = fault.error_code,
                                        .rip = fault.rip,
                                        .address = fault.address};
        Append(records, RecordKind::kFault, i, record);
      } else if (row.journal_bytes != 0) {
        trace::AppendRecord(records, RecordKind::kJournal, 0, static_cast<uint16_t>(i),
                            {At(plan::kJournalBase + row.journal), row.journal_bytes});
      }
    }
  }
  const auto reason = g_live.hung ? trace::EndReason::kHang : trace::EndReason::kDone;
  const trace::EndRecord end{
      .reason = static_cast<uint8_t>(reason), .hangs = 0, .pad = {}, .error = 0, .micros = micros};
  Append(records, RecordKind::kEnd, g_live.hung ? g_live.hung_at : last, end);
}

}  // namespace fpswap::native
