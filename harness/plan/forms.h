// SPDX-License-Identifier: GPL-2.0-or-later
//
// The table of how single-instruction steps are encoded. Private to harness/plan.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>

#include "harness/program/step.h"

namespace fpswap::plan {

// What an operand is made of.
enum class OperandKind : uint8_t {
  kNone,
  kReg,      // `reg` + arg[arg]
  kFixed,    // `reg` itself
  kImm8,     // arg[arg]
  kLiteral,  // memory at the step's literal, `bytes` wide
  kJournal,  // memory at the step's journal place
  kArea,     // memory at slot arg[0] + arg[1]
  kTileMem,  // rows from RBX on, RCX bytes apart: at the step's literal or journal, by its Setup
};

struct OperandForm {
  OperandKind kind = OperandKind::kNone;
  ZydisRegister reg = ZYDIS_REGISTER_NONE;
  uint8_t arg = 0;
  uint16_t bytes = 0;
};

// General registers before the instruction.
enum class Setup : uint8_t {
  kNothing,
  kEdxEax,     // EDX:EAX := arg[setup_arg]
  kEcxEdxEax,  // ECX := arg[0], EDX:EAX := arg[1]
  kEcx,        // ECX := arg[0]
  kMsr,        // ECX := the MSR arg[0] names
  kMsrEdxEax,  // the same, and EDX:EAX := arg[1]
  kPkru,       // EAX := arg[0], ECX := EDX := 0
  kZeroEcx,    // ECX := 0
  kCpuid,      // EAX := 0DH, ECX := 0
  kVmmMsr,     // ECX := kExitMsrIndex, EDX:EAX := arg[1]
  kTileLoad,   // RBX := the literal, RCX := arg[2]
  kTileStore,  // RBX := the journal, RCX := 64
};

// What is copied to the journal after it.
enum class After : uint8_t {
  kNothing,
  kEax,
  kEdxEax,
  kEaxEbxEcxEdx,
  kSlot,    // the slot from its base on
  kFxArea,  // the slot from `at` on
};

inline constexpr int8_t kNoWide = -1;

struct Form {
  program::Op op;
  ZydisMnemonic mnemonic;
  std::array<OperandForm, 4> operands{};
  ZydisEncodableEncoding encoding = ZYDIS_ENCODABLE_ENCODING_DEFAULT;
  Setup setup = Setup::kNothing;
  uint8_t setup_arg = 0;
  After after = After::kNothing;
  int8_t other_arg = kNoWide;  // where arg[other_arg] is not 0, `other` is the mnemonic
  ZydisMnemonic other = ZYDIS_MNEMONIC_INVALID;
};

// Number of the form of `op` in Forms(), or -1: it is more than one instruction.
int FormIndex(program::Op op);
const Form& FormAt(int index);
int FormCount();

}  // namespace fpswap::plan
