// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/oracle/witness.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"

namespace fpswap::cpu::testing {
namespace {

using xstate::Bit;
using xstate::ImageView;
using xstate::ReadAt;
using xstate::Slice;

// The case that runs, for the handler.
WitnessContext* volatile g_context = nullptr;
volatile int g_vector = -1;

void OnFault(int signal_number, siginfo_t*, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (g_context == nullptr) {  // not ours: die of it
    signal(signal_number, SIG_DFL);
    return;
  }
  g_vector = static_cast<int>(registers[REG_TRAPNO]);
  registers[REG_RIP] = static_cast<greg_t>(g_context->resume);
}

// Installs the handlers for the life of a run.
class FaultHandlers {
 public:
  FaultHandlers() {
    struct sigaction action = {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &old_[i]);
  }
  ~FaultHandlers() {
    for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &old_[i], nullptr);
  }
  FaultHandlers(const FaultHandlers&) = delete;
  FaultHandlers& operator=(const FaultHandlers&) = delete;

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  struct sigaction old_[std::size(kSignals)];
};

struct Buffers {
  alignas(64) uint8_t in[xstate::kMaxAreaSize];
  alignas(64) uint8_t out[xstate::kMaxAreaSize];
  alignas(64) uint8_t out_before[xstate::kMaxAreaSize];
  alignas(64) uint8_t expected[xstate::kMaxAreaSize];
  alignas(64) uint8_t host[xstate::kMaxAreaSize];
  alignas(64) uint8_t memory[kOperandSize];
  alignas(64) uint8_t model_memory[kOperandSize];
};

std::string ByteText(uint32_t offset, uint8_t expected, uint8_t seen) {
  char text[64];
  std::snprintf(text, sizeof(text), "byte %u: expected %02x, CPU has %02x", offset, expected, seen);
  return text;
}

// The first byte of an image that differs, in words; empty if none does.
std::string Difference(std::span<const uint8_t> expected, std::span<const uint8_t> seen) {
  const auto [e, s] = std::ranges::mismatch(expected, seen);
  if (e == expected.end()) return "";
  const auto offset = static_cast<uint32_t>(e - expected.begin());
  return std::string(NameOfByte(Host().features.xsave, offset).text) + ", " +
         ByteText(offset, *e, *s);
}

// Reserved bytes hold what they held, or zero.
void ForgiveReserved(std::span<const uint8_t> before, std::span<const uint8_t> seen,
                     std::span<uint8_t> expected) {
  for (uint32_t i = 0; i < 464 && i < seen.size(); ++i) {
    if (xstate::IsReservedLegacyByte(i, /*wide=*/true) && (seen[i] == before[i] || seen[i] == 0)) {
      expected[i] = seen[i];
    }
  }
}

uint64_t NumberOf(const char* variable, uint64_t fallback) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : fallback;
}

// Runs the witness; the vector that it raised, or -1. REQUIRES: a FaultHandlers lives.
int Raised(WitnessFunction function, WitnessContext& context) {
  g_vector = -1;
  g_context = &context;
  function(&context);
  g_context = nullptr;
  return g_vector;
}

// One case. Returns false after the first difference.
class Runner {
 public:
  Runner(const Scenario& scenario, Buffers& buffers) : scenario_(scenario), b_(buffers) {}

  bool RunCase(uint64_t seed) {
    Random random(seed);
    Prepare(random);
    RunOnCpu();
    const std::string difference = CompareWithModel();
    EXPECT_EQ(difference, "") << scenario_.name << ", seed " << seed << ", EDX:EAX " << std::hex
                              << before_.mask() << ", XSTATE_BV loaded "
                              << ImageView(b_.in).xstate_bv();
    return difference.empty();
  }

 private:
  void Prepare(Random& random) {
    FillStandardImage(random, Host().features, Host().xcr0, b_.in);
    random.Fill(b_.memory);
    random.Fill(std::span(b_.out).first(2048));
    const uint64_t mask = random.Mask();
    const uint64_t at = scenario_.misalign && random.OneIn(8) ? random.Below(64) : 0;
    before_.memory = std::span(b_.memory).subspan(at);
    before_.address = reinterpret_cast<uint64_t>(before_.memory.data());
    before_.rax = mask & 0xffffffff;
    before_.rdx = mask >> 32;
    before_.rcx = 0;
    if (scenario_.prepare) scenario_.prepare(random, before_);
    std::ranges::copy(b_.memory, b_.model_memory);
    std::ranges::copy(b_.out, b_.out_before);
    model_ = before_;
    model_.memory = std::span(b_.model_memory).subspan(at);
  }

  void RunOnCpu() {
    WitnessContext context{b_.in,       b_.out,      b_.host,     before_.memory.data(),
                           before_.rax, before_.rdx, before_.rcx, 0,
                           Host().xcr0};
    vector_ = Raised(scenario_.function, context);
    seen_ = before_;
    seen_.rax = context.rax;
    seen_.rdx = context.rdx;
  }

  std::string CompareWithModel() {
    Cpu cpu = HostModel();
    const auto in_address = reinterpret_cast<uint64_t>(b_.in);
    if (cpu.Xrstor(b_.in, in_address, Host().xcr0, /*wide=*/true)) return "start image refused";
    const Result fault = scenario_.model(cpu, model_, seen_);
    const int expected_vector = fault ? fault->vector : -1;
    if (expected_vector != vector_) {
      return "vector expected " + std::to_string(expected_vector) + ", CPU raised " +
             std::to_string(vector_);
    }
    if (std::string d = Difference(model_.memory, seen_.memory); !d.empty()) return "operand: " + d;
    if (model_.mask() != seen_.mask()) {
      return "EDX:EAX expected " + std::to_string(model_.mask()) + ", CPU has " +
             std::to_string(seen_.mask());
    }
    // After #GP for MXCSR other components are open on parts that are not AMD's (Cpu::BadMxcsr).
    if (cpu.unknown != 0) return Host().features.amd ? "the model does not know the state" : "";
    return CompareState(cpu);
  }

  std::string CompareState(Cpu& cpu) {
    std::ranges::copy(b_.out_before, b_.expected);
    SeenChoices choices(Host().features, b_.out_before, b_.out, /*wide=*/true);
    if (cpu.Xsave(SaveForm::kXsave, b_.expected, reinterpret_cast<uint64_t>(b_.out), Host().xcr0,
                  /*wide=*/true, choices)) {
      return "final XSAVE refused";
    }
    ForgiveReserved(b_.out_before, b_.out, b_.expected);
    const std::string d = Difference(b_.expected, b_.out);
    return d.empty() ? d : "state: " + d;
  }

  const Scenario& scenario_;
  Buffers& b_;
  Operands before_, model_, seen_;
  int vector_ = -1;
};

}  // namespace

bool SeenChoices::InitialIsInUse(Component c) {
  return (ImageView(seen_).xstate_bv() & Bit(c)) != 0;
}

bool SeenChoices::OmitUnmodified(Component c) {
  const auto same = [&](std::span<const uint8_t> a, std::span<const uint8_t> b) {
    return std::ranges::equal(a, b);
  };
  if (c == Component::kX87) {
    return same(seen_.first(24), before_.first(24)) &&
           same(Slice(seen_, 32, 128), Slice(before_, 32, 128));
  }
  if (c == Component::kSse) return same(Slice(seen_, 160, 256), Slice(before_, 160, 256));
  const ImageView seen(seen_);
  const std::span<const uint8_t> part = seen.component(features_.xsave, c);
  return same(part, Slice(before_, part.data() - seen_.data(), part.size()));
}

void SeenChoices::ResolvePointers(X87& x87) {
  x87.fop = ReadAt<uint16_t>(seen_, 6);
  const uint64_t ip = ReadAt<uint64_t>(seen_, 8), dp = ReadAt<uint64_t>(seen_, 16);
  if (wide_) {
    x87.fip = ip;
    x87.fdp = dp;
    return;
  }
  x87.fip = (x87.fip & ~uint64_t{0xffffffff}) | (ip & 0xffffffff);
  x87.fdp = (x87.fdp & ~uint64_t{0xffffffff}) | (dp & 0xffffffff);
  x87.fcs = static_cast<uint16_t>(ip >> 32);
  x87.fds = static_cast<uint16_t>(dp >> 32);
}

struct Probe::State {
  FaultHandlers handlers;
  Buffers buffers{};
};

Probe::Probe() : state_(std::make_unique<State>()) {
  xstate::MutableImage(state_->buffers.in).SetInitial();
}
Probe::~Probe() = default;

std::span<uint8_t> Probe::in() { return state_->buffers.in; }
std::span<uint8_t> Probe::memory() { return state_->buffers.memory; }
std::span<const uint8_t> Probe::out() const { return state_->buffers.out; }

int Probe::Run(WitnessFunction function, uint64_t edx_eax) {
  Buffers& b = state_->buffers;
  WitnessContext context{b.in,          b.out, b.host, b.memory,   edx_eax & 0xffffffff,
                         edx_eax >> 32, 0,     0,      Host().xcr0};
  return Raised(function, context);
}

void RunScenario(const Scenario& scenario, unsigned runs) {
  if (!scenario.available) GTEST_SKIP() << "this CPU lacks " << scenario.name;
  const FaultHandlers handlers;
  const auto buffers = std::make_unique<Buffers>();
  Runner runner(scenario, *buffers);
  const uint64_t first = NumberOf("FPSWAP_SEED", 1);
  const uint64_t last = first + std::min<uint64_t>(runs, NumberOf("FPSWAP_RUNS", runs));
  for (uint64_t seed = first; seed < last; ++seed) {
    if (!runner.RunCase(seed)) return;
  }
}

}  // namespace fpswap::cpu::testing
