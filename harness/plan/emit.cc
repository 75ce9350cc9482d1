// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/emit.h"

#include <algorithm>
#include <array>

#include "harness/plan/forms.h"
#include "harness/plan/glue.h"
#include "harness/plan/templates.h"
#include "oracle/xstate/layout.h"

namespace fpswap::plan {
namespace {

using program::ArgKind;
using program::Op;
using program::Step;

Template VectorMove(bool store, unsigned reg) {
  Instruction in(ZYDIS_MNEMONIC_MOVDQU);
  const auto xmm = static_cast<ZydisRegister>(ZYDIS_REGISTER_XMM0 + reg);
  return store ? in.Mem(16).Reg(xmm).Encode() : in.Reg(xmm).Mem(16).Encode();
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
      case Setup::kTileLoad:
        code_.Put(G().mov_rbx, 0, Literal());
        Ecx(step_.arg[2]);
        break;
      case Setup::kTileStore:
        code_.Put(G().mov_rbx, 0, Journal());
        Ecx(64);
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
  if (step.op == Op::kTileloadd) return program::TileloaddBytes(step);
  const int form = FormIndex(step.op);
  if (form < 0) return 0;
  for (const OperandForm& o : FormAt(form).operands) {
    if (o.kind == OperandKind::kLiteral) return o.bytes;
  }
  return 0;
}

void FillLiteral(const Step& step, std::span<uint8_t> out) {
  if (step.op == Op::kLdtilecfg) return program::FillTilecfg(step, out.first<64>());
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
