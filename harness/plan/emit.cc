// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/emit.h"

#include <algorithm>
#include <array>

#include "harness/plan/forms.h"
#include "oracle/xstate/layout.h"

namespace fpswap::plan {
namespace {

using program::ArgKind;
using program::Op;
using program::Step;

// The integer instructions around the one under test. RBX carries values to and from memory: for
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

const Glue& G() {
  static const Glue glue;
  return glue;
}

Template VectorMove(bool store, unsigned reg) {
  Instruction in(ZYDIS_MNEMONIC_MOVDQU);
  const auto xmm = static_cast<ZydisRegister>(ZYDIS_REGISTER_XMM0 + reg);
  return store ? in.Mem(16).Reg(xmm).Encode() : in.Reg(xmm).Mem(16).Encode();
}

// Bits that number the registers of an argument of this kind.
unsigned BitsOf(ArgKind kind) {
  switch (kind) {
    case ArgKind::kReg4:
      return 2;
    case ArgKind::kReg8:
      return 3;
    case ArgKind::kReg16:
      return 4;
    case ArgKind::kReg32:
      return 5;
    default:
      return 0;
  }
}

// The templates of one form, one for each choice of registers and of the REX.W form, encoded when
// first asked for.
class FormTemplates {
 public:
  explicit FormTemplates(const Form& form) : form_(form) {
    const program::StepRow& row = *program::FindStep(form.op);
    unsigned bits = 1;
    for (size_t i = 0; i < form.operands.size(); ++i) {
      const OperandForm& o = form.operands[i];
      if (o.kind != OperandKind::kReg) continue;
      bits_[i] = BitsOf(row.args[o.arg].kind);
      bits += bits_[i];
    }
    templates_.resize(size_t{1} << bits);
  }

  const Template& For(const Step& step) {
    size_t key = UsesOther(step) ? 1 : 0;
    for (size_t i = 0; i < bits_.size(); ++i) {
      if (bits_[i] != 0) key = (key << bits_[i]) | step.arg[form_.operands[i].arg];
    }
    Template& t = templates_[key];
    if (t.size == 0) t = Encode(step);
    return t;
  }

 private:
  bool UsesOther(const Step& step) const {
    return form_.other_arg >= 0 && step.arg[static_cast<size_t>(form_.other_arg)] != 0;
  }

  Template Encode(const Step& step) const {
    Instruction in(UsesOther(step) ? form_.other : form_.mnemonic);
    in.Encoding(form_.encoding);
    for (const OperandForm& o : form_.operands) {
      switch (o.kind) {
        case OperandKind::kNone:
          break;
        case OperandKind::kReg:
          in.Reg(static_cast<ZydisRegister>(o.reg + static_cast<int>(step.arg[o.arg])));
          break;
        case OperandKind::kFixed:
          in.Reg(o.reg);
          break;
        case OperandKind::kImm8:
          in.Imm(1);
          break;
        case OperandKind::kLiteral:
        case OperandKind::kJournal:
        case OperandKind::kArea:
          in.Mem(o.bytes);
          break;
      }
    }
    return in.Encode();
  }

  const Form& form_;
  std::array<unsigned, 4> bits_{};
  std::vector<Template> templates_;
};

const Template& TemplateOf(int form, const Step& step) {
  thread_local std::vector<FormTemplates> forms = [] {
    std::vector<FormTemplates> all;
    for (int i = 0; i < FormCount(); ++i) all.emplace_back(FormAt(i));
    return all;
  }();
  return forms[static_cast<size_t>(form)].For(step);
}

uint64_t SlotAddress(const Step& step) { return kSlotBase + step.arg[0] * kSlotSize; }

// Writes one step.
class StepWriter {
 public:
  StepWriter(CodeWriter& code, const Step& step, const Placement& place)
      : code_(code), step_(step), place_(place) {}

  uint32_t instruction() const { return instruction_; }

  void Write() {
    const int form = FormIndex(step_.op);
    if (form >= 0) {
      WriteForm(FormAt(form), TemplateOf(form, step_));
    } else {
      WriteSpecial();
    }
  }

 private:
  uint64_t Journal() const { return kJournalBase + place_.journal; }
  uint64_t Literal() const { return kLiteralBase + place_.literal; }
  uint64_t OwnAddress(uint64_t base) const { return base + uint64_t{16} * place_.number; }

  // What follows is the instruction under test.
  void Mark() { instruction_ = code_.at(); }

  void EdxEax(uint64_t value) {
    code_.Put(G().mov_eax, 0, value & 0xffffffff);
    code_.Put(G().mov_edx, 0, value >> 32);
  }
  void Ecx(uint64_t value) { code_.Put(G().mov_ecx, 0, value); }

  void SetUp(const Form& form) {
    const auto msr = [&] { return program::MsrIndex(static_cast<program::Msr>(step_.arg[0])); };
    switch (form.setup) {
      case Setup::kNothing:
        break;
      case Setup::kEdxEax:
        EdxEax(step_.arg[form.setup_arg]);
        break;
      case Setup::kEcxEdxEax:
        Ecx(step_.arg[0]);
        EdxEax(step_.arg[1]);
        break;
      case Setup::kEcx:
        Ecx(step_.arg[0]);
        break;
      case Setup::kMsr:
        Ecx(msr());
        break;
      case Setup::kMsrEdxEax:
        Ecx(msr());
        EdxEax(step_.arg[1]);
        break;
      case Setup::kPkru:
        Ecx(0);
        EdxEax(step_.arg[0] & 0xffffffff);
        break;
      case Setup::kZeroEcx:
        Ecx(0);
        break;
      case Setup::kCpuid:
        code_.Put(G().mov_eax, 0, 0xd);
        Ecx(0);
        break;
      case Setup::kVmmMsr:
        Ecx(kExitMsrIndex);
        EdxEax(step_.arg[1]);
        break;
    }
  }

  void Copy(uint64_t to, uint64_t from, uint64_t bytes) {
    code_.Put(G().mov_esi, 0, from);
    code_.Put(G().mov_edi, 0, to);
    code_.Put(G().mov_ecx, 0, bytes);
    code_.Put(G().cld);
  }

  void BringToJournal(After after) {
    switch (after) {
      case After::kNothing:
        break;
      case After::kEaxEbxEcxEdx:
        code_.Put(G().esi_from_ebx);
        code_.Put(G().store_esi, Journal() + 4);
        code_.Put(G().store_ecx, Journal() + 8);
        code_.Put(G().store_edx, Journal() + 12);
        code_.Put(G().ebx_from_eax);
        code_.Put(G().store_ebx, Journal());
        break;
      case After::kEdxEax:
        code_.Put(G().store_edx, Journal() + 4);
        [[fallthrough]];
      case After::kEax:
        code_.Put(G().ebx_from_eax);
        code_.Put(G().store_ebx, Journal());
        break;
      case After::kSlot:
        Copy(Journal(), SlotAddress(step_), place_.journal_bytes);
        code_.Put(G().rep_movsb);
        break;
      case After::kFxArea:
        Copy(Journal(), SlotAddress(step_) + step_.arg[1], place_.journal_bytes);
        code_.Put(G().rep_movsb);
        break;
    }
  }

  void WriteForm(const Form& form, const Template& t) {
    SetUp(form);
    Mark();
    uint64_t address = 0, immediate = 0;
    for (const OperandForm& o : form.operands) {
      if (o.kind == OperandKind::kLiteral) address = Literal();
      if (o.kind == OperandKind::kJournal) address = Journal();
      if (o.kind == OperandKind::kArea) address = SlotAddress(step_) + step_.arg[1];
      if (o.kind == OperandKind::kImm8) immediate = step_.arg[o.arg];
    }
    code_.Put(t, address, immediate);
    BringToJournal(form.after);
  }

  void WriteSpecial() {
    switch (step_.op) {
      case Op::kMemWrite:
        code_.Put(G().mov_rbx, 0, step_.arg[2]);
        Mark();
        code_.Put(G().store_rbx, SlotAddress(step_) + step_.arg[1]);
        break;
      case Op::kMemFill:
        Copy(SlotAddress(step_) + step_.arg[1], Literal(), step_.arg[2]);
        Mark();
        code_.Put(G().rep_movsb);
        break;
      case Op::kMemHeader:
        WriteHeader();
        break;
      case Op::kCr0Ts:
        WriteControlBit(G().rbx_from_cr0, G().cr0_from_rbx, 3, step_.arg[0] != 0);
        break;
      case Op::kCr4Bit: {
        constexpr std::array<unsigned, 3> kBit = {9, 18, 22};  // OSFXSR, OSXSAVE, PKE
        WriteControlBit(G().rbx_from_cr4, G().cr4_from_rbx, kBit[step_.arg[0]], step_.arg[1] != 0);
        break;
      }
      case Op::kRaw:
        WriteRaw();
        break;
      default:
        WriteExit();
    }
  }

  void WriteHeader() {
    const uint64_t header = SlotAddress(step_) + xstate::kHeaderOffset;
    code_.Put(G().mov_rbx, 0, step_.arg[1]);
    Mark();
    code_.Put(G().store_rbx, header);
    code_.Put(G().mov_rbx, 0, step_.arg[2]);
    code_.Put(G().store_rbx, header + 8);
    for (uint64_t at = 16; at < xstate::kHeaderSize; at += 8) {
      code_.Put(G().store_zero, header + at);
    }
  }

  void WriteControlBit(const Template& read, const Template& write, unsigned bit, bool on) {
    const uint32_t mask = uint32_t{1} << bit;
    code_.Put(read);
    code_.Put(on ? G().or_ebx : G().and_ebx, 0, on ? mask : ~mask);
    Mark();
    code_.Put(write);
  }

  // An instruction has at most 15 bytes (SDM vol. 2, 2.3.11). So if the bytes end within one, the
  // NOPs behind them complete it, and the next step begins where an instruction begins.
  void WriteRaw() {
    std::array<uint8_t, 16 + 15> bytes;
    bytes.fill(0x90);
    std::memcpy(bytes.data(), &step_.arg[1], 16);
    const size_t length = std::min<uint64_t>(step_.arg[0], 15);
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(length), bytes.begin() + 16, 0x90);
    Mark();
    code_.Put(std::span(bytes).first(length + 15));
  }

  void WriteExit() {
    switch (step_.op) {
      case Op::kExitOut:
        code_.Put(G().mov_eax, 0, place_.number);
        Mark();
        code_.Put(G().out_exit);
        break;
      case Op::kExitMmioRead:
        code_.Put(G().zero_ebx);
        Mark();
        code_.Put(G().load_by_width[step_.arg[0]], OwnAddress(kMmioBase));
        code_.Put(G().store_rbx, Journal());
        break;
      case Op::kExitMmioWrite:
        code_.Put(G().mov_rbx, 0, step_.arg[1]);
        Mark();
        code_.Put(G().store_by_width[step_.arg[0]], OwnAddress(kMmioBase));
        break;
      case Op::kExitMmioVector:
        Mark();
        code_.Put(VectorTemplate(), OwnAddress(kMmioBase));
        break;
      case Op::kExitPageFault:
        Mark();
        code_.Put(step_.arg[0] != 0 ? G().store_ebx : G().load_by_width[2],
                  OwnAddress(kAbsentBase));
        break;
      default:
        break;  // VMM and host steps have no code
    }
  }

  const Template& VectorTemplate() const {
    static const std::array<Template, 32> templates = [] {
      std::array<Template, 32> all;
      for (unsigned i = 0; i < 32; ++i) all[i] = VectorMove(i >= 16, i % 16);
      return all;
    }();
    return templates[(step_.arg[0] != 0 ? 16 : 0) + step_.arg[1]];
  }

  CodeWriter& code_;
  const Step& step_;
  const Placement& place_;
  uint32_t instruction_ = 0;
};

// The argument that a step's literal is made of: a pattern's number, or the value itself.
int PatternArg(const Step& step) {
  const program::StepRow& row = program::RowOf(step);
  for (size_t i = 0; i < row.args.size(); ++i) {
    if (row.args[i].kind == ArgKind::kPattern) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

uint32_t LiteralBytes(const Step& step) {
  if (step.op == Op::kMemFill) return static_cast<uint32_t>(step.arg[2]);
  const int form = FormIndex(step.op);
  if (form < 0) return 0;
  for (const OperandForm& o : FormAt(form).operands) {
    if (o.kind == OperandKind::kLiteral) return o.bytes;
  }
  return 0;
}

void FillLiteral(const Step& step, std::span<uint8_t> out) {
  const int arg = PatternArg(step);
  if (arg >= 0) {
    program::FillPattern(static_cast<uint16_t>(step.arg[static_cast<size_t>(arg)]), out);
  } else {
    std::memcpy(out.data(), step.arg.data(), out.size());  // FLDCW, LDMXCSR: arg[0]
  }
}

CodeRow Emitter::Emit(const Step& step, const Placement& place) {
  CodeRow row{.code = code_.at(),
              .instruction = 0,
              .journal = place.journal,
              .journal_bytes = place.journal_bytes};
  StepWriter writer(code_, step, place);
  writer.Write();
  row.instruction = writer.instruction();
  return row;
}

void Emitter::EndByOut(uint16_t last) {
  code_.Put(G().mov_eax, 0, last);
  code_.Put(G().out_end);
}

void Emitter::EndByReturn() {
  const uint64_t next = kCodeBase + code_.at() + G().jmp.size;
  code_.Put(G().jmp, 0, kReturnPad - next);
}

}  // namespace fpswap::plan
