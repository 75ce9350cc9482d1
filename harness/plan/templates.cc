// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/templates.h"

#include <array>
#include <vector>

#include "harness/plan/forms.h"

namespace fpswap::plan {
namespace {

using program::ArgKind;
using program::Step;

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

  // Zydis encodes no dot product of tiles that are the same: a CPU raises #UD, and a step may ask
  // for that. So the operands are put into VEX.vvvv (inverted) and ModRM of one that it does
  // encode.
  static Template DotProduct(ZydisMnemonic mnemonic, const Step& step) {
    Template t = Instruction(mnemonic)
                     .Reg(ZYDIS_REGISTER_TMM0)
                     .Reg(ZYDIS_REGISTER_TMM1)
                     .Reg(ZYDIS_REGISTER_TMM2)
                     .Encode();
    t.bytes[2] = static_cast<uint8_t>((t.bytes[2] & ~0x78u) | (~step.arg[2] & 15) << 3);
    t.bytes[4] = static_cast<uint8_t>(0xc0 | step.arg[0] << 3 | step.arg[1]);
    return t;
  }

  Template Encode(const Step& step) const {
    if (program::RowOf(step).needs == program::Needs::kAmxInt8) {
      return DotProduct(form_.mnemonic, step);
    }
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
        case OperandKind::kTileMem:
          in.RowsAtRbx();
          break;
      }
    }
    return in.Encode();
  }

  const Form& form_;
  std::array<unsigned, 4> bits_{};
  std::vector<Template> templates_;
};

}  // namespace

const Template& TemplateOf(int form, const Step& step) {
  thread_local std::vector<FormTemplates> forms = [] {
    std::vector<FormTemplates> all;
    for (int i = 0; i < FormCount(); ++i) all.emplace_back(FormAt(i));
    return all;
  }();
  return forms[static_cast<size_t>(form)].For(step);
}

}  // namespace fpswap::plan
