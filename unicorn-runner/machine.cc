// SPDX-License-Identifier: GPL-2.0-or-later
#include "unicorn-runner/machine.h"

#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "harness/trace/trace.h"
#include "unicorn-runner/probe.h"

namespace fpswap::unicorn {
namespace {

using Error = std::optional<std::string>;
using trace::EndReason;
using trace::RecordKind;

constexpr size_t kPage = 4096;
// Translations of one program's code are of no use to the next, and Unicorn grows by them.
constexpr unsigned kProgramsPerEngine = 50000;

constexpr uint64_t kCr0 = 0x33;  // PE, MP, ET, NE: no paging
constexpr uint64_t kCr4Pae = 1 << 5, kCr4Osfxsr = 1 << 9, kCr4Osxmmexcpt = 1 << 10,
                   kCr4Osxsave = 1 << 18, kCr4Pke = 1 << 22;
constexpr uint64_t kCr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
// Unicorn starts with MXCSR and FCW 0, and all x87 registers valid.
constexpr uint32_t kMxcsr = 0x1f80;
constexpr uint16_t kFcw = 0x37f, kAllEmpty = 0xffff;

constexpr uint8_t kUndefinedOpcode = 6, kPageFault = 14;

Error Failed(const char* what, uc_err error) {
  return std::string(what) + ": " + uc_strerror(error);
}

// The hang timer. Always on, so that no program costs a system call: a program that still runs at
// the second tick has had between one and two periods.
struct HangTimer {
  uc_engine* volatile running = nullptr;
  volatile uint64_t program = 0, last_tick = 0;
  volatile std::sig_atomic_t hung = 0;
};
HangTimer g_timer;

void OnTick(int) {
  uc_engine* const uc = g_timer.running;
  if (uc == nullptr) return;
  if (g_timer.last_tick != g_timer.program) {
    g_timer.last_tick = g_timer.program;
    return;
  }
  g_timer.hung = 1;
  uc_emu_stop(uc);  // sets flags that the translated code looks at
}

Error StartHangTimer(unsigned hang_ms) {
  struct sigaction act{};
  act.sa_handler = OnTick;
  act.sa_flags = SA_RESTART;
  const unsigned period_ms = std::max(1u, hang_ms / 2);
  const timeval period{.tv_sec = period_ms / 1000, .tv_usec = (period_ms % 1000) * 1000};
  const itimerval timer{.it_interval = period, .it_value = period};
  if (sigaction(SIGALRM, &act, nullptr) != 0 || setitimer(ITIMER_REAL, &timer, nullptr) != 0) {
    return std::string("the hang timer: ") + std::strerror(errno);
  }
  return std::nullopt;
}

template <typename T>
void Append(std::vector<uint8_t>& records, RecordKind kind, unsigned step, const T& head,
            std::string_view tail = {}) {
  trace::AppendRecord(records, kind, 0, static_cast<uint16_t>(step),
                      {reinterpret_cast<const uint8_t*>(&head), sizeof(head)},
                      {reinterpret_cast<const uint8_t*>(tail.data()), tail.size()});
}

void AppendEnd(std::vector<uint8_t>& records, EndReason reason, unsigned step, uint64_t micros,
               std::string_view text) {
  const trace::EndRecord end{
      .reason = static_cast<uint8_t>(reason), .pad = {}, .error = 0, .micros = micros};
  Append(records, RecordKind::kEnd, step, end, text);
}

// The step of [first, last] whose code holds `rip`.
std::optional<unsigned> StepAt(const wire::PlanView& plan, const wire::PlanAction& action,
                               uint64_t rip) {
  if (rip < plan::kCodeBase || rip >= plan::kCodeBase + plan.code.size()) return std::nullopt;
  for (unsigned step = action.last + 1u; step-- > action.first;) {
    if (rip - plan::kCodeBase >= plan.rows[step].code) return step;
  }
  return std::nullopt;
}

}  // namespace

void UnicornMachine::Freer::operator()(void* memory) const { std::free(memory); }

UnicornMachine::UnicornMachine(const MachineOptions& options)
    : plant_(FindPlant(options.plant)),
      memory_(static_cast<uint8_t*>(std::aligned_alloc(kPage, plan::kGuestSize))) {
  if (memory_) std::memset(memory_.get(), 0, plan::kGuestSize);
}

UnicornMachine::~UnicornMachine() { CloseEngine(); }

std::expected<std::unique_ptr<UnicornMachine>, std::string> UnicornMachine::Open(
    const MachineOptions& options) {
  auto machine = std::unique_ptr<UnicornMachine>(new UnicornMachine(options));
  if (!machine->memory_) return std::unexpected("no memory for the guest");
  if (auto e = machine->MakeEngine()) return std::unexpected(*e);
  if (auto e = StartHangTimer(options.hang_ms)) return std::unexpected(*e);
  return machine;
}

void UnicornMachine::CloseEngine() {
  if (initial_ != nullptr) uc_context_free(initial_);
  initial_ = nullptr;
  if (uc_ != nullptr) uc_close(uc_);
  uc_ = nullptr;
  page_faults_.clear();
}

void UnicornMachine::OnInterrupt(uc_engine* uc, uint32_t vector, void* seen) {
  static_cast<Seen*>(seen)->vector = static_cast<uint8_t>(vector);
  uc_emu_stop(uc);
}

// False: the access is not carried out, and Unicorn stops with the error that says what it was.
bool UnicornMachine::OnBadMemory(uc_engine*, uc_mem_type, uint64_t address, int, int64_t,
                                 void* seen) {
  static_cast<Seen*>(seen)->address = address;
  return false;
}

// Does nothing: that it is called makes Unicorn keep RIP up to date.
void UnicornMachine::OnInstruction(uc_engine*, uint64_t, uint32_t, void*) {}

// Where an instruction accesses memory that is not there, Unicorn's RIP would be that of the
// translated block, but for this. Hooking every instruction would cost more than all else.
Error UnicornMachine::HookPageFaults(const wire::PlanView& plan) {
  for (const uc_hook hook : page_faults_) uc_hook_del(uc_, hook);
  page_faults_.clear();
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    if (plan.steps[i].op != program::Op::kExitPageFault) continue;
    const uint64_t at = plan::kCodeBase + plan.rows[i].instruction;
    uc_hook hook = 0;
    const uc_err error = uc_hook_add(uc_, &hook, UC_HOOK_CODE,
                                     reinterpret_cast<void*>(OnInstruction), nullptr, at, at);
    if (error != UC_ERR_OK) return Failed("uc_hook_add", error);
    page_faults_.push_back(hook);
  }
  return std::nullopt;
}

Error UnicornMachine::MakeEngine() {
  CloseEngine();
  programs_ = 0;
  const auto check = [](const char* what, uc_err error) {
    return error == UC_ERR_OK ? Error{} : Failed(what, error);
  };
  if (auto e = check("uc_open", uc_open(UC_ARCH_X86, UC_MODE_64, &uc_))) return e;
  // The model must come first. This one has PKU: the default's MOV CR4 would drop CR4.PKE.
  if (auto e =
          check("uc_ctl_set_cpu_model", uc_ctl_set_cpu_model(uc_, UC_CPU_X86_ICELAKE_SERVER))) {
    return e;
  }
  if (auto e = check("uc_mem_map_ptr", uc_mem_map_ptr(uc_, plan::kGuestBase, plan::kGuestSize,
                                                      UC_PROT_ALL, memory_.get()))) {
    return e;
  }
  // The handlers' types differ by kind of hook, so the API takes them as void*.
  const std::pair<int, void*> hooks[] = {
      {UC_HOOK_INTR, reinterpret_cast<void*>(OnInterrupt)},
      {UC_HOOK_MEM_INVALID, reinterpret_cast<void*>(OnBadMemory)},
  };
  for (const auto& [kind, handler] : hooks) {
    uc_hook hook = 0;
    const uc_err error = uc_hook_add(uc_, &hook, kind, handler, &seen_, 1, 0);  // anywhere
    if (error != UC_ERR_OK) return Failed("uc_hook_add", error);
  }
  uc_reg_write(uc_, UC_X86_REG_CR0, &kCr0);
  uc_reg_write(uc_, UC_X86_REG_CR4, &kCr4);
  uc_reg_write(uc_, UC_X86_REG_MXCSR, &kMxcsr);
  uc_reg_write(uc_, UC_X86_REG_FPCW, &kFcw);
  uc_reg_write(uc_, UC_X86_REG_FPTAG, &kAllEmpty);
  if (auto e = check("uc_context_alloc", uc_context_alloc(uc_, &initial_))) return e;
  return check("uc_context_save", uc_context_save(uc_, initial_));
}

std::expected<std::string, std::string> UnicornMachine::Platform() {
  return trace::PlatformToJson(DescribeUnicorn());
}

Error UnicornMachine::PutCode(std::span<const uint8_t> code) {
  if (code.empty()) return std::nullopt;
  if (const uc_err error = uc_mem_write(uc_, plan::kCodeBase, code.data(), code.size())) {
    return Failed("uc_mem_write", error);
  }
  // It runs what it has translated, whatever is written there since.
  const uint64_t begin = plan::kCodeBase, end = plan::kCodeBase + code.size();
  if (const uc_err error = uc_ctl_remove_cache(uc_, begin, end)) {
    return Failed("uc_ctl_remove_cache", error);
  }
  return std::nullopt;
}

// The state that plan.h says every program starts from.
Error UnicornMachine::Begin(const wire::PlanView& plan) {
  if (programs_++ == kProgramsPerEngine) {
    if (auto e = MakeEngine()) return e;
  }
  faults_ = 0;
  std::memset(At(plan::kSlotBase), 0, program::kSlotCount * plan::kSlotSize);
  for (const wire::PlanCode& row : plan.rows) {
    std::memset(At(plan::kJournalBase + row.journal), 0, row.journal_bytes);
  }
  std::memcpy(At(plan::kLiteralBase), plan.literals.data(), plan.literals.size());
  if (auto e = PutCode(plan.code)) return e;
  if (auto e = HookPageFaults(plan)) return e;
  if (const uc_err error = uc_context_restore(uc_, initial_)) {
    return Failed("uc_context_restore", error);
  }
  const uint64_t cr4 = kCr4 | (plan.pke ? kCr4Pke : 0);
  uc_reg_write(uc_, UC_X86_REG_CR4, &cr4);
  return std::nullopt;
}

// Unicorn tells the vector and, of an access to memory that is not there, address and kind; never
// an error code. Of the faults that plans for Unicorn can raise, all but #PF have the error code 0.
// For #PF the missing U/S bit is that of the CPL the run is for (plan.h), for the code itself runs
// at CPL 0.
std::optional<trace::FaultRecord> UnicornMachine::FaultOf(uc_err error, uint64_t rip,
                                                          unsigned cpl) const {
  constexpr uint32_t kWrite = 2, kUser = 4;
  trace::FaultRecord fault{.vector = 0, .pad = {}, .error_code = 0, .rip = rip, .address = 0};
  if (seen_.vector) {
    fault.vector = *seen_.vector;
  } else if (error == UC_ERR_INSN_INVALID) {
    fault.vector = kUndefinedOpcode;
  } else if (seen_.address && (error == UC_ERR_READ_UNMAPPED || error == UC_ERR_WRITE_UNMAPPED)) {
    fault.vector = kPageFault;
    fault.error_code = (error == UC_ERR_WRITE_UNMAPPED ? kWrite : 0) | (cpl == 3 ? kUser : 0);
    fault.address = *seen_.address;
  } else {
    return std::nullopt;
  }
  return fault;
}

std::optional<UnicornMachine::Stop> UnicornMachine::RunSteps(const wire::PlanView& plan,
                                                             const wire::PlanAction& action,
                                                             std::vector<uint8_t>& records) {
  std::array<bool, program::kMaxSteps> faulted{};
  std::optional<Stop> stop;
  for (unsigned next = action.first; next <= action.last;) {
    seen_ = {};
    g_timer.running = uc_;
    const uc_err error =
        uc_emu_start(uc_, plan::kCodeBase + plan.rows[next].code, plan::kReturnPad, 0, 0);
    g_timer.running = nullptr;
    uint64_t rip = 0;
    uc_reg_read(uc_, UC_X86_REG_RIP, &rip);
    if (error == UC_ERR_OK && rip == plan::kReturnPad && !seen_.vector) break;
    const auto step = StepAt(plan, action, rip);
    if (g_timer.hung != 0) {
      stop = {EndReason::kHang, step.value_or(next), ""};
      break;
    }
    const auto fault = FaultOf(error, rip, action.cpl);
    if (!fault || !step) {
      stop = {EndReason::kVcpuDead, step.value_or(next),
              std::string("Unicorn stopped: ") + uc_strerror(error)};
      break;
    }
    faulted[*step] = true;
    Append(records, RecordKind::kFault, *step, *fault);
    ++faults_;
    if (plant_ != nullptr) plant_->act(uc_, faults_);
    next = *step + 1;
  }
  const unsigned end = stop ? stop->step : action.last + 1u;
  for (unsigned i = action.first; i < end; ++i) {
    const wire::PlanCode& row = plan.rows[i];
    if (faulted[i] || row.journal_bytes == 0) continue;
    trace::AppendRecord(records, RecordKind::kJournal, 0, static_cast<uint16_t>(i),
                        {At(plan::kJournalBase + row.journal), row.journal_bytes});
  }
  return stop;
}

void UnicornMachine::Run(const wire::PlanView& plan, std::vector<uint8_t>& records) {
  const auto begin = std::chrono::steady_clock::now();
  g_timer.hung = 0;
  g_timer.program = g_timer.program + 1;
  const bool fits = plan.vcpus == 1 && std::ranges::all_of(plan.actions, [](const auto& action) {
                      return action.kind == static_cast<uint8_t>(plan::ActionKind::kRun);
                    });
  if (!fits) {
    return AppendEnd(records, EndReason::kSetupFailed, 0, 0,
                     "Unicorn has one vCPU, and neither VMM nor host steps");
  }
  if (const auto failed = Begin(plan)) {
    return AppendEnd(records, EndReason::kSetupFailed, 0, 0, *failed);
  }
  Stop end{EndReason::kDone, 0, ""};
  for (const wire::PlanAction& action : plan.actions) {
    end.step = action.last;
    if (auto stop = RunSteps(plan, action, records)) {
      end = std::move(*stop);
      break;
    }
  }
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  AppendEnd(records, end.reason, end.step, static_cast<uint64_t>(micros.count()), end.text);
}

}  // namespace fpswap::unicorn
