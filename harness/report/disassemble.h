// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest code as text. Zydis assembled it and disassembles it; Capstone, which shares no code with
// it, is the second opinion: where the two read the same bytes differently, the assembler step made
// something else than it meant.
//
// Thread safety: a Disassembler is used by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fpswap::report {

enum class SecondOpinion : uint8_t {
  kAgrees,
  kDisagrees,  // another length or another meaning
  kUnknown,    // Capstone does not know the instruction (4.0 and 5.0 lack AMX, 4.0 RDPKRU too)
};

struct Instruction {
  uint64_t address = 0;
  std::vector<uint8_t> bytes;
  std::string text;    // Zydis; "(bad)" for a byte that begins no instruction
  std::string second;  // Capstone, "" where it does not know it
  SecondOpinion opinion = SecondOpinion::kAgrees;
};

class Disassembler {
 public:
  Disassembler();
  ~Disassembler();
  Disassembler(const Disassembler&) = delete;
  Disassembler& operator=(const Disassembler&) = delete;

  // All of `code`, 64-bit, at `address`. Total: a bad byte is an instruction of its own.
  std::vector<Instruction> Decode(std::span<const uint8_t> code, uint64_t address) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Two texts of one instruction brought to one spelling: case, blanks, operand size words, st(i),
// numbers and the mnemonics that have two names. Equal texts mean the same.
std::string Normalise(std::string_view text);

}  // namespace fpswap::report
