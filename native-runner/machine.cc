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
#include "native-runner/tracer.h"
#include "oracle/xstate/layout.h"

namespace fpswap::native {
namespace {

using program::Op;
using trace::RecordKind;
using xstate::Component;

// What live.h copies.
static_assert(kMaxLiveSteps == program::kMaxSteps);
static_assert(kImageSize == xstate::kMaxAreaSize);
static_assert(kLiveImages == program::kImageCount);

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
  g_live.zmm_hi256_offset = OffsetOf(p, Component::kZmmHi256);
  g_live.hi16_offset = OffsetOf(p, Component::kHi16Zmm);
  g_live.pkru_offset = OffsetOf(p, Component::kPkru);
  g_live.image_size = p.xsave_size;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE && g_live.cpus < kMaxAllowedCpus; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) g_live.cpu[g_live.cpus++] = static_cast<uint16_t>(cpu);
  }
}

// Until a thread first loads AMX tiles the kernel keeps no room for them (exc_device_not_available,
// __xfd_enable_feature), and its regset and frames have no tiles: programs are to find one size.
void LoadTilesOnce(const trace::Platform& p) {
  if ((p.host_xcr0 & Bit(Component::kTiledata)) == 0) return;
  alignas(64) static uint8_t image[kImageSize];
  const uint64_t tiles = Bit(Component::kTiledata);
  for (const uint64_t bv : {tiles, uint64_t{0}}) {
    std::memcpy(image + xstate::kHeaderOffset, &bv, sizeof(bv));
    asm volatile("xrstor64 %0" : : "m"(image), "a"(tiles), "d"(0) : "memory");
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

// The steps that are none of a run.
struct KindRow {
  Op op;
  LiveKind kind;
};
constexpr KindRow kKinds[] = {
    {Op::kHostCpu, LiveKind::kHostCpu},       {Op::kHostDirty, LiveKind::kHostDirty},
    {Op::kHostSignal, LiveKind::kHostSignal}, {Op::kImageInit, LiveKind::kImageEdit},
    {Op::kImageWrite, LiveKind::kImageEdit},  {Op::kImageFill, LiveKind::kImageEdit},
    {Op::kOsGetRegset, LiveKind::kGetRegset}, {Op::kOsSetRegset, LiveKind::kSetRegset},
    {Op::kOsSigframe, LiveKind::kSigframe},   {Op::kOsSigreturn, LiveKind::kSigreturn},
};

// LiveKind::kRun for a step that native does not do.
LiveKind KindOf(Op op) {
  const auto* row = std::ranges::find(kKinds, op, &KindRow::op);
  return row == std::end(kKinds) ? LiveKind::kRun : row->kind;
}

bool IsRun(const wire::PlanAction& action) {
  return action.kind == static_cast<uint8_t>(plan::ActionKind::kRun);
}

bool UsesImages(LiveKind kind) { return kind >= LiveKind::kImageEdit; }
bool TakesImage(LiveKind kind) {
  return kind == LiveKind::kGetRegset || kind == LiveKind::kSigframe;
}

// An image buffer as programs find it (plan.h).
std::span<const uint8_t> InitialImage() {
  static const auto kImage = [] {
    std::array<uint8_t, kImageSize> image{};
    const uint16_t fcw = 0x37f;
    const uint32_t mxcsr = 0x1f80;
    std::memcpy(image.data(), &fcw, sizeof(fcw));
    std::memcpy(image.data() + 24, &mxcsr, sizeof(mxcsr));
    return image;
  }();
  return kImage;
}

void ReportStep(LiveKind kind, unsigned step, std::vector<uint8_t>& records) {
  const LiveHostResult& done = g_live.host[step];
  if (!UsesImages(kind)) {
    const trace::HostRecord record{.result = done.result, .error = done.error};
    return Append(records, RecordKind::kHost, step, record);
  }
  const trace::IoctlRecord record{.result = done.result, .error = done.error};
  const bool taken = TakesImage(kind) && done.result == 0;
  Append(records, RecordKind::kIoctl, step, record,
         std::span(g_taken[step]).first(taken ? g_live.image_size : 0));
}

// Null, or why native can't run the plan. Plans for native are trimmed to this.
const char* Unfit(const wire::PlanView& plan) {
  if (plan.vcpus != 1) return "native has one vCPU";
  for (const wire::PlanAction& action : plan.actions) {
    const LiveKind kind = KindOf(plan.steps[action.first].op);
    if (IsRun(action) && action.cpl != 3) return "native runs at CPL 3 only";
    if (!IsRun(action) && kind == LiveKind::kRun) return "native does no such VMM or host step";
    const bool regset = kind == LiveKind::kGetRegset || kind == LiveKind::kSetRegset;
    if (!IsRun(action) && regset && g_tracer == nullptr) return "native can't trace itself here";
  }
  return nullptr;
}

}  // namespace

// What live.cc copies: it can't make patterns.
void NativeMachine::PutEdit(const program::Step& step, LiveAction& action) {
  if (step.op == Op::kImageInit) {
    action.length = g_live.image_size;
    action.bytes = InitialImage().data();
    return;
  }
  action.offset = static_cast<uint32_t>(step.arg[1]);
  action.length = step.op == Op::kImageWrite ? 8 : static_cast<uint32_t>(step.arg[2]);
  const size_t at = edits_.size();
  edits_.resize(at + action.length);  // within what is reserved
  if (step.op == Op::kImageWrite) {
    std::memcpy(&edits_[at], &step.arg[2], 8);
  } else {
    program::FillPattern(static_cast<uint16_t>(step.arg[3]),
                         std::span(edits_).subspan(at, action.length));
  }
  action.bytes = &edits_[at];
}

void NativeMachine::PutSteps(const wire::PlanView& plan) {
  edits_.clear();
  bool images = false;
  g_live.actions = static_cast<uint32_t>(plan.actions.size());
  g_live.code_size = static_cast<uint32_t>(plan.code.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    g_live.code_of[i] = plan.rows[i].code;
    g_live.fault[i].taken = false;
  }
  for (size_t i = 0; i < plan.actions.size(); ++i) {
    const wire::PlanAction& action = plan.actions[i];
    const program::Step& step = plan.steps[action.first];
    const LiveKind kind = IsRun(action) ? LiveKind::kRun : KindOf(step.op);
    g_live.action[i] = {.kind = kind,
                        .first = static_cast<uint8_t>(action.first),
                        .last = static_cast<uint8_t>(action.last),
                        .arg = step.arg[0],
                        .offset = 0,
                        .length = 0,
                        .bytes = nullptr};
    if (kind == LiveKind::kImageEdit) {
      if (edits_.capacity() == 0) edits_.reserve(kMaxLiveSteps * kImageSize);
      PutEdit(step, g_live.action[i]);
    }
    images |= UsesImages(kind);
  }
  for (auto& image : g_image) {
    if (images) std::memcpy(image, InitialImage().data(), g_live.image_size);
  }
  g_live.hung = false;
  g_live.affinity_changed = false;
  g_live.cpu_changed = false;
  g_live.faults = 0;
  g_live.signals = 0;
  ++g_live.program;
}

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
  LoadTilesOnce(*platform);
  PrepareImages(*platform);
  PrepareLive(*platform, allowed, options.plant);
  // Before there is another thread.
  if (const char* reason = StartTracer(platform->xsave_size)) {
    g_tracer = nullptr;
    WithdrawRegsets(*platform, reason);
  }
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
  if (std::ranges::any_of(plan.steps, [](const auto& step) { return step.op == Op::kHostCpu; })) {
    // Else what a step moves away from would be chance, and a program no reproducer.
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(g_live.cpu[0], &first);
    g_live.affinity_changed = sched_setaffinity(0, sizeof(first), &first) == 0;
  }
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
      if (!IsRun(action)) {
        ReportStep(KindOf(plan.steps[i].op), i, records);
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
