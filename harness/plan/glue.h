// SPDX-License-Identifier: GPL-2.0-or-later
//
// The templates of the integer instructions around the one under test. Private to harness/plan.
#pragma once

#include <array>

#include "harness/plan/encode.h"
#include "harness/plan/plan.h"

namespace fpswap::plan {

// RBX carries values to and from memory: for
// RAX assemblers choose the moffs forms, which some emulators don't know.
struct Glue {
  static Template MovImm(ZydisRegister reg, unsigned bytes) {
    return Instruction(ZYDIS_MNEMONIC_MOV).Reg(reg).Imm(bytes).Encode();
  }
  static Template Load(ZydisRegister reg, uint16_t bytes) {
    return Instruction(ZYDIS_MNEMONIC_MOV).Reg(reg).Mem(bytes).Encode();
  }
  static Template Store(ZydisRegister reg, uint16_t bytes) {
    return Instruction(ZYDIS_MNEMONIC_MOV).Mem(bytes).Reg(reg).Encode();
  }
  static Template Move(ZydisRegister to, ZydisRegister from) {
    return Instruction(ZYDIS_MNEMONIC_MOV).Reg(to).Reg(from).Encode();
  }
  static Template Out(uint16_t port) {
    return Instruction(ZYDIS_MNEMONIC_OUT).Fixed(port).Reg(ZYDIS_REGISTER_EAX).Encode();
  }
  static Template Logic(ZydisMnemonic mnemonic) {
    return Instruction(mnemonic).Reg(ZYDIS_REGISTER_EBX).Imm(4).Encode();
  }

  Template mov_eax = MovImm(ZYDIS_REGISTER_EAX, 4);
  Template mov_ecx = MovImm(ZYDIS_REGISTER_ECX, 4);
  Template mov_edx = MovImm(ZYDIS_REGISTER_EDX, 4);
  Template mov_esi = MovImm(ZYDIS_REGISTER_ESI, 4);
  Template mov_edi = MovImm(ZYDIS_REGISTER_EDI, 4);
  Template mov_rbx = MovImm(ZYDIS_REGISTER_RBX, 8);
  Template zero_ebx =
      Instruction(ZYDIS_MNEMONIC_XOR).Reg(ZYDIS_REGISTER_EBX).Reg(ZYDIS_REGISTER_EBX).Encode();
  Template ebx_from_eax = Move(ZYDIS_REGISTER_EBX, ZYDIS_REGISTER_EAX);
  Template esi_from_ebx = Move(ZYDIS_REGISTER_ESI, ZYDIS_REGISTER_EBX);
  Template store_ebx = Store(ZYDIS_REGISTER_EBX, 4);
  Template store_ecx = Store(ZYDIS_REGISTER_ECX, 4);
  Template store_edx = Store(ZYDIS_REGISTER_EDX, 4);
  Template store_esi = Store(ZYDIS_REGISTER_ESI, 4);
  Template store_rbx = Store(ZYDIS_REGISTER_RBX, 8);
  Template store_zero = Instruction(ZYDIS_MNEMONIC_MOV).Mem(8).Fixed(0).Encode();
  // By log2 of the width.
  std::array<Template, 4> load_by_width = {Load(ZYDIS_REGISTER_BL, 1), Load(ZYDIS_REGISTER_BX, 2),
                                           Load(ZYDIS_REGISTER_EBX, 4),
                                           Load(ZYDIS_REGISTER_RBX, 8)};
  std::array<Template, 4> store_by_width = {
      Store(ZYDIS_REGISTER_BL, 1), Store(ZYDIS_REGISTER_BX, 2), Store(ZYDIS_REGISTER_EBX, 4),
      Store(ZYDIS_REGISTER_RBX, 8)};
  Template cld = Instruction(ZYDIS_MNEMONIC_CLD).Encode();
  Template rep_movsb = Instruction(ZYDIS_MNEMONIC_MOVSB).Prefix(ZYDIS_ATTRIB_HAS_REP).Encode();
  Template out_exit = Out(kExitPort);
  Template out_end = Out(kEndPort);
  // With the BND prefix, for without it a near JMP may reset BND0-3 (SDM vol. 1, E.4.2).
  Template jmp = Instruction(ZYDIS_MNEMONIC_JMP).Prefix(ZYDIS_ATTRIB_HAS_BND).Rel32().Encode();
  Template rbx_from_cr0 = Move(ZYDIS_REGISTER_RBX, ZYDIS_REGISTER_CR0);
  Template cr0_from_rbx = Move(ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_RBX);
  Template rbx_from_cr4 = Move(ZYDIS_REGISTER_RBX, ZYDIS_REGISTER_CR4);
  Template cr4_from_rbx = Move(ZYDIS_REGISTER_CR4, ZYDIS_REGISTER_RBX);
  Template or_ebx = Logic(ZYDIS_MNEMONIC_OR);
  Template and_ebx = Logic(ZYDIS_MNEMONIC_AND);
};

// All of them, encoded on first use.
inline const Glue& G() {
  static const Glue glue;
  return glue;
}

}  // namespace fpswap::plan
