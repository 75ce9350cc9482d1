// SPDX-License-Identifier: GPL-2.0-or-later
//
// Witnesses: one instruction run on the real CPU from a random state, next to the model.
//
// A witness function, made by FPSWAP_WITNESS, does in one piece of assembly, so that no library
// code disturbs a register: save the process's state, XRSTOR64 a random image, run the instruction,
// XSAVE64 all, restore the process's state. A fault in the instruction is caught by its signal and
// goes on at the XSAVE64.
//
// A Scenario says what the model does for the same instruction. RunScenario compares fault, memory
// operand, EDX:EAX and the state afterwards, over many seeds; a difference is printed with its seed
// and in the words of the SDM.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>

#include "oracle/cpu/cpu.h"
#include "tests/oracle/random_image.h"

namespace fpswap::cpu::testing {

// The assembly knows these offsets.
struct WitnessContext {
  const uint8_t* in;       // 0: image to start from
  uint8_t* out;            // 8: image afterwards
  uint8_t* host;           // 16: the process's own state
  uint8_t* memory;         // 24: the operand, in RSI
  uint64_t rax, rdx, rcx;  // 32, 40, 48: before and (RAX, RDX) after
  uint64_t resume;         // 56: where to go on after a fault
  uint64_t mask;           // 64: components of this process
};
using WitnessFunction = void (*)(WitnessContext*);

// REQUIRES: `instruction` leaves RBX, RBP, RSP and memory below RSP alone.
#define FPSWAP_WITNESS(symbol, instruction)                        \
  extern "C" void symbol(::fpswap::cpu::testing::WitnessContext*); \
  asm(".text\n"                                                    \
      ".globl " #symbol "\n" #symbol                               \
      ":\n"                                                        \
      "  push %rbx\n"                                              \
      "  push %rbp\n"                                              \
      "  mov %rdi, %rbx\n"                                         \
      "  lea 1f(%rip), %rax\n"                                     \
      "  mov %rax, 56(%rbx)\n"                                     \
      "  mov 64(%rbx), %eax\n"                                     \
      "  mov 68(%rbx), %edx\n"                                     \
      "  mov 16(%rbx), %rcx\n"                                     \
      "  xsave64 (%rcx)\n"                                         \
      "  mov 0(%rbx), %rcx\n"                                      \
      "  xrstor64 (%rcx)\n"                                        \
      "  mov 32(%rbx), %rax\n"                                     \
      "  mov 40(%rbx), %rdx\n"                                     \
      "  mov 48(%rbx), %rcx\n"                                     \
      "  mov 24(%rbx), %rsi\n"                                     \
      "  " instruction                                             \
      "\n"                                                         \
      "1:\n"                                                       \
      "  mov %rax, 32(%rbx)\n"                                     \
      "  mov %rdx, 40(%rbx)\n"                                     \
      "  mov 64(%rbx), %eax\n"                                     \
      "  mov 68(%rbx), %edx\n"                                     \
      "  mov 8(%rbx), %rcx\n"                                      \
      "  xsave64 (%rcx)\n"                                         \
      "  mov 16(%rbx), %rcx\n"                                     \
      "  xrstor64 (%rcx)\n"                                        \
      "  pop %rbp\n"                                               \
      "  pop %rbx\n"                                               \
      "  ret\n")

inline constexpr size_t kOperandSize = xstate::kMaxAreaSize + 64;

// What an instruction sees besides the CPU.
struct Operands {
  std::span<uint8_t> memory;  // kOperandSize bytes less the misalignment
  uint64_t address = 0;       // of memory[0]
  uint64_t rax = 0, rdx = 0, rcx = 0;
  uint64_t mask() const { return (rax & 0xffffffff) | rdx << 32; }
};

// Answers with what the CPU was seen to choose: from the image it wrote at `seen`, over `before`.
class SeenChoices : public Choices {
 public:
  SeenChoices(const Features& features, std::span<const uint8_t> before,
              std::span<const uint8_t> seen, bool wide)
      : features_(features), before_(before), seen_(seen), wide_(wide) {}
  bool InitialIsInUse(Component c) override;
  bool OmitUnmodified(Component c) override;
  void ResolvePointers(X87& x87) override;

 private:
  const Features& features_;
  std::span<const uint8_t> before_, seen_;
  bool wide_;
};

struct Scenario {
  const char* name;
  WitnessFunction function;
  bool available = true;  // the host has it; else the scenario is skipped
  // Draws the operands; by default random bytes and EDX:EAX.
  std::function<void(Random&, Operands&)> prepare;
  // The instruction on the model. `operands` is what memory and registers held before and becomes
  // what they hold after; `seen` is what the CPU left.
  std::function<Result(Cpu&, Operands& operands, const Operands& seen)> model;
  bool misalign = false;  // try misaligned addresses too
};

// For GoogleTest's messages.
inline void PrintTo(const Scenario& scenario, std::ostream* os) { *os << scenario.name; }

// For INSTANTIATE_TEST_SUITE_P.
inline std::string ScenarioName(const ::testing::TestParamInfo<Scenario>& scenario) {
  return scenario.param.name;
}

// One instruction at a time on the CPU, for tables that list every case: fill `in` and `memory`,
// Run, look at `memory` and `out`. Faults are caught as long as the object lives.
class Probe {
 public:
  Probe();
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // The state to start from: a standard-format image for this process's components, all initial at
  // first.
  std::span<uint8_t> in();
  // The operand, kOperandSize bytes, aligned to 64.
  std::span<uint8_t> memory();
  // The state afterwards, as XSAVE64 of all components gives it.
  std::span<const uint8_t> out() const;
  // Runs with this EDX:EAX and ECX 0; the vector that was raised, or -1.
  int Run(WitnessFunction function, uint64_t edx_eax);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Runs `runs` random cases. In the environment FPSWAP_SEED changes the first seed, and FPSWAP_RUNS
// says how many cases are enough.
void RunScenario(const Scenario& scenario, unsigned runs = 3000);

}  // namespace fpswap::cpu::testing
