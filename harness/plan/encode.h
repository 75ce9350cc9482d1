// SPDX-License-Identifier: GPL-2.0-or-later
//
// Machine code by templates. Zydis encodes each instruction once, with placeholders where an
// address, an immediate or a branch displacement goes; resolving a program then only copies and
// patches bytes. Encoding anew for each step would cost more than running it.
//
// Thread safety: templates are values. Private to harness/plan.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

namespace fpswap::plan {

struct Template {
  uint8_t size = 0;
  uint8_t disp_at = 0;  // offset of a disp32 (absolute address), 0: none
  uint8_t imm_at = 0;   // offset of an immediate, 0: none
  uint8_t imm_size = 0;
  std::array<uint8_t, 16> bytes{};
};

// One instruction to be encoded. Memory operands are absolute addresses below 2 GiB, so that their
// disp32 means the same in every place of the code and no base register is needed.
class Instruction {
 public:
  explicit Instruction(ZydisMnemonic mnemonic);
  Instruction& Encoding(ZydisEncodableEncoding encoding);
  Instruction& Prefix(ZydisInstructionAttributes prefix);
  Instruction& Reg(ZydisRegister reg);
  Instruction& Mem(uint16_t bytes);    // its address is patched in
  Instruction& RowsAtRbx();            // [RBX + RCX], as AMX takes its rows
  Instruction& Imm(unsigned bytes);    // patched in: 1, 4 or 8 bytes
  Instruction& Fixed(uint64_t value);  // an immediate that stays
  Instruction& Rel32();                // a near branch's displacement, patched in
  // REQUIRES: an instruction that Zydis can encode; the tables in emit.cc hold no other, and a test
  // encodes them all. Ends the process otherwise.
  Template Encode() const;

 private:
  ZydisEncoderOperand& Next(ZydisOperandType type);

  ZydisEncoderRequest request_;
  bool mem_ = false;
  uint64_t imm_ = 0;  // placeholder
  uint8_t imm_size_ = 0;
};

// A place to put code. The buffer is the caller's and large enough for what a plan may hold.
class CodeWriter {
 public:
  explicit CodeWriter(std::span<uint8_t> buffer) : buffer_(buffer) {}

  uint32_t at() const { return at_; }

  void Put(const Template& t, uint64_t address = 0, uint64_t immediate = 0) {
    uint8_t* to = buffer_.data() + at_;
    std::memcpy(to, t.bytes.data(), t.bytes.size());
    if (t.disp_at != 0) std::memcpy(to + t.disp_at, &address, 4);
    if (t.imm_at != 0) std::memcpy(to + t.imm_at, &immediate, t.imm_size);
    at_ += t.size;
  }

  void Put(std::span<const uint8_t> bytes) {
    std::memcpy(buffer_.data() + at_, bytes.data(), bytes.size());
    at_ += static_cast<uint32_t>(bytes.size());
  }

 private:
  std::span<uint8_t> buffer_;
  uint32_t at_ = 0;
};

}  // namespace fpswap::plan
