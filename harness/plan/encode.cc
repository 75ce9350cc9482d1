// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/encode.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace fpswap::plan {
namespace {

// Placeholders. No byte of one is part of any opcode here; both are positive, so that no
// sign-extended form changes them.
constexpr uint32_t kDispMark = 0x1d2c3b4a;
constexpr uint64_t kImmMark = 0x5e6f7a8b1c2d3e4f;

// Offset of `mark` in the encoded bytes; 0 if it is not there.
uint8_t Find(std::span<const uint8_t> code, uint64_t mark, size_t size) {
  std::array<uint8_t, 8> bytes;
  std::memcpy(bytes.data(), &mark, sizeof(mark));
  const auto hit = std::search(code.begin(), code.end(), bytes.begin(),
                               bytes.begin() + static_cast<ptrdiff_t>(size));
  return hit == code.end() ? uint8_t{0} : static_cast<uint8_t>(hit - code.begin());
}

}  // namespace

Instruction::Instruction(ZydisMnemonic mnemonic) {
  std::memset(&request_, 0, sizeof(request_));
  request_.machine_mode = ZYDIS_MACHINE_MODE_LONG_64;
  request_.mnemonic = mnemonic;
}

Instruction& Instruction::Encoding(ZydisEncodableEncoding encoding) {
  request_.allowed_encodings = encoding;
  return *this;
}

Instruction& Instruction::Prefix(ZydisInstructionAttributes prefix) {
  request_.prefixes |= prefix;
  return *this;
}

ZydisEncoderOperand& Instruction::Next(ZydisOperandType type) {
  ZydisEncoderOperand& operand = request_.operands[request_.operand_count++];
  operand.type = type;
  return operand;
}

Instruction& Instruction::Reg(ZydisRegister reg) {
  Next(ZYDIS_OPERAND_TYPE_REGISTER).reg.value = reg;
  return *this;
}

Instruction& Instruction::Mem(uint16_t bytes) {
  ZydisEncoderOperand& operand = Next(ZYDIS_OPERAND_TYPE_MEMORY);
  operand.mem.size = bytes;
  operand.mem.displacement = kDispMark;
  mem_ = true;
  return *this;
}

Instruction& Instruction::RowsAtRbx() {
  ZydisEncoderOperand& operand = Next(ZYDIS_OPERAND_TYPE_MEMORY);
  operand.mem.base = ZYDIS_REGISTER_RBX;
  operand.mem.index = ZYDIS_REGISTER_RCX;
  operand.mem.scale = 1;
  return *this;
}

Instruction& Instruction::Imm(unsigned bytes) {
  imm_size_ = static_cast<uint8_t>(bytes);
  imm_ = bytes == 8 ? kImmMark : kImmMark & ((uint64_t{1} << (8 * bytes)) - 1);
  return Fixed(imm_);
}

Instruction& Instruction::Fixed(uint64_t value) {
  Next(ZYDIS_OPERAND_TYPE_IMMEDIATE).imm.u = value;
  return *this;
}

Instruction& Instruction::Rel32() {
  request_.branch_type = ZYDIS_BRANCH_TYPE_NEAR;
  request_.branch_width = ZYDIS_BRANCH_WIDTH_32;
  return Imm(4);
}

Template Instruction::Encode() const {
  Template t;
  ZyanUSize size = t.bytes.size();
  const ZyanStatus status = ZydisEncoderEncodeInstruction(&request_, t.bytes.data(), &size);
  if (!ZYAN_SUCCESS(status)) {
    std::fprintf(stderr, "fpswap: Zydis does not encode %s (status %x)\n",
                 ZydisMnemonicGetString(request_.mnemonic), static_cast<unsigned>(status));
    std::abort();
  }
  t.size = static_cast<uint8_t>(size);
  const std::span code(t.bytes.data(), size);
  if (mem_) t.disp_at = Find(code, kDispMark, 4);
  if (imm_size_ == 1) {
    t.imm_at = static_cast<uint8_t>(size - 1);  // an imm8 is an instruction's last byte
  } else if (imm_size_ != 0) {
    t.imm_at = Find(code, imm_, imm_size_);
  }
  t.imm_size = imm_size_;
  return t;
}

}  // namespace fpswap::plan
