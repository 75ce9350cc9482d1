// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/guest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "harness/program/arg.h"
#include "harness/program/text.h"

namespace fpswap::report {
namespace {

using program::Op;
using program::Step;

// One instruction as inline assembly. "%0" and "%1" are its operands, outputs first.
struct Asm {
  std::string text;
  std::vector<std::string> out, in;
  std::string clobbers;
  std::string then;  // a statement behind it
};

std::string Join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

// How wide a line is, tabs as the kernel counts them.
size_t Width(std::string_view line) {
  size_t width = 0;
  for (const char c : line) width = c == '\t' ? (width / 8 + 1) * 8 : width + 1;
  return width;
}

std::string MsrName(uint64_t msr) {
  static constexpr const char* kNames[] = {
      "MSR_IA32_XSS",     "MSR_IA32_XFD",     "MSR_IA32_XFD_ERR",
      "MSR_IA32_U_CET",   "MSR_IA32_S_CET",   "MSR_IA32_PL0_SSP",
      "MSR_IA32_PL1_SSP", "MSR_IA32_PL2_SSP", "MSR_IA32_PL3_SSP"};
  return kNames[msr % 9];
}

std::string In(const char* constraint, const std::string& expression) {
  return fmt::format("\"{}\" ({})", constraint, expression);
}

std::string Low(uint64_t value) {
  return value == ~uint64_t{0} ? "-1" : fmt::format("0x{:x}", value & 0xffffffff);
}
std::string High(uint64_t value) {
  return value == ~uint64_t{0} ? "-1" : fmt::format("0x{:x}", value >> 32);
}

// EDX:EAX as a mask of components, in words where it is short.
std::vector<std::string> EdxEax(uint64_t mask) {
  if (mask == ~uint64_t{0} || (mask >> 32) != 0) return {In("a", Low(mask)), In("d", High(mask))};
  if (mask == 0) return {In("a", "0"), In("d", "0")};
  const std::string text = MaskText(mask);
  return {In("a", text.contains(" | ") ? "(u32)(" + text + ")" : "(u32)" + text), In("d", "0")};
}

class GuestWriter {
 public:
  GuestWriter(const ExportRequest& request, const Prediction& prediction,
              const std::vector<StepChecks>& checks, TestData& data)
      : request_(request),
        p_(prediction),
        program_(prediction.plan.effective),
        checks_(checks),
        data_(data) {
    code_.stored.resize(program_.steps.size());
    code_.vector.resize(program_.steps.size());
  }

  std::expected<GuestCode, std::string> Write() {
    for (const plan::Action& action : p_.plan.actions) {
      if (action.kind != plan::ActionKind::kRun) continue;
      std::string& body = code_.body[action.vcpu];
      if (!body.empty()) body += "\n";
      for (size_t i = action.first; i <= action.last; ++i) {
        if (auto done = WriteStep(action, i, body); !done) return std::unexpected(done.error());
      }
      const Op last = program_.steps[action.last].op;
      if (last != Op::kExitOut && last != Op::kExitHlt) body += "\tguest_exit();\n";
    }
    return code_;
  }

 private:
  const ForetoldStep& Told(size_t i) const { return p_.steps[i]; }
  bool Keeps(size_t i) const { return !checks_[i].values.empty() || !checks_[i].shown.empty(); }

  std::expected<void, std::string> WriteStep(const plan::Action& action, size_t i,
                                             std::string& body) {
    const Step& step = program_.steps[i];
    if (const std::string why = WhyNot(step, i); !why.empty()) {
      return std::unexpected(fmt::format("step {} ({}) {}", i, program::PrintStep(step), why));
    }
    if (i < request_.comments.size()) body += CommentText(request_.comments[i], 1);
    if (step.op == Op::kExitOut) {
      body += "\tguest_exit();\n";
      return {};
    }
    if (step.op == Op::kMemHeader || step.op == Op::kMemFill || step.op == Op::kMemWrite) {
      WriteMemory(step, body);
      return {};
    }
    if (step.op == Op::kCr0Ts || step.op == Op::kCr4Bit) {
      WriteControl(step, body);
      return {};
    }
    Asm a = Instruction(step, i);
    if (a.text.empty()) {
      return std::unexpected(fmt::format("step {} ({}) has no counterpart in an exported test", i,
                                         program::PrintStep(step)));
    }
    const bool safe = i < p_.known_until && (Told(i).faults != 0 || checks_[i].fault);
    if (safe) {
      code_.may_fault = true;
      code_.vector[i] = data_.Result("vector", 1);
      body += SafeText(a, code_.vector[i]);
      return {};
    }
    for (const std::string& out : a.out) code_.uses_eax_edx[step.vcpu] |= out.contains("(eax)");
    body += PlainText(a);
    if (!a.then.empty()) body += "\t" + a.then + "\n";
    CopyArea(action, i, body);
    return {};
  }

  std::string WhyNot(const Step& step, size_t i) const {
    const bool selftest = request_.format == ExportFormat::kSelftest;
    if (selftest && i < p_.known_until && Told(i).pkru_fault) {
      return "faults by PKRU, which does not apply to a selftest's guest: its pages are the "
             "supervisor's; use --format c";
    }
    switch (step.op) {
      case Op::kExitHlt:
        if (selftest) {
          return "has no counterpart: a selftest's VM has its APIC in the kernel, where HLT does "
                 "not exit; use --format c";
        }
        break;
      case Op::kBndmovLoad:
      case Op::kBndmovStore:
        if (selftest) {
          return "has no counterpart: a selftest's guest runs at CPL 0, where BNDCFGS and not "
                 "BNDCFGU enables MPX; use --format c";
        }
        break;
      case Op::kExitMsr:
        return "has no counterpart: MSRs that the VMM serves are not exported";
      case Op::kMemWrite:
      case Op::kMemFill:
      case Op::kMemHeader:
        if (i < p_.known_until && Told(i).faults != 0) {
          return "faults: memory that the guest may not write is not exported";
        }
        break;
      default:
        break;
    }
    return "";
  }

  // Where a step's result goes: a variable of its own if it is asserted.
  std::string Result(size_t i, size_t size) {
    if (!Keeps(i)) {
      scratch_ = std::max(scratch_, size);
      return data_.Area("scratch");
    }
    std::string name = StoredName(program_.steps[i]);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    code_.stored[i] = data_.Result(name, size);
    return code_.stored[i];
  }

  Asm Load(const std::string& text, uint16_t pattern, size_t bytes) {
    return {text, {}, {In("m", data_.Pattern(pattern, bytes, true))}, "", ""};
  }
  Asm Store(const std::string& text, size_t i, size_t bytes) {
    return {text, {In("=m", Result(i, bytes))}, {}, "", ""};
  }
  // An instruction that gives EDX:EAX.
  Asm Give(const std::string& text, std::vector<std::string> in, size_t i, size_t bytes) {
    Asm a{text, {"\"=a\" (eax)", "\"=d\" (edx)"}, std::move(in), "", ""};
    if (Keeps(i)) {
      const std::string to = Result(i, bytes);
      a.then =
          bytes == 4 ? fmt::format("{} = eax;", to) : fmt::format("{} = eax | (u64)edx << 32;", to);
    }
    return a;
  }
  std::string AreaAt(const Step& step) {
    const std::string name = data_.Area(AreaName(program_, step));
    return step.arg[1] == 0 ? name : fmt::format("{} + {}", name, step.arg[1]);
  }
  Asm Area(const Step& step, const char* mnemonic) {
    const bool fx = step.op == Op::kFxsave || step.op == Op::kFxrstor;
    const bool wide = step.arg[fx ? 2 : 3] != 0;
    Asm a{fmt::format("{}{} (%0)", mnemonic, wide ? "64" : ""),
          {},
          {In("r", AreaAt(step))},
          "\"memory\"",
          ""};
    if (!fx) {
      for (std::string& each : EdxEax(step.arg[2])) a.in.push_back(std::move(each));
    }
    return a;
  }

  Asm Instruction(const Step& step, size_t i);
  Asm Exit(const Step& step, size_t i);
  Asm Amx(const Step& step, size_t i);

  // A vector in `variable`, by kvm_asm_safe() as the library has it: all operands are inputs there,
  // and have names.
  std::string SafeText(const Asm& a, const std::string& variable) {
    std::string text = a.text;
    std::vector<std::string> in;
    const auto take = [&](std::string operand) {
      const size_t quote = operand.find('"');
      if (operand.compare(quote + 1, 1, "=") == 0) operand.erase(quote + 1, 1);
      if (operand.starts_with("\"+")) operand.erase(1, 1);
      // EAX and EDX are outputs only where nothing faults.
      if (operand == "\"a\" (eax)" || operand == "\"d\" (edx)") return;
      const std::string place = fmt::format("%{}", in.size());
      if (const size_t at = text.find(place); at != std::string::npos) {
        const char* name = in.empty() ? "arg" : "arg2";
        text.replace(at, place.size(), fmt::format("%[{}]", name));
        operand = fmt::format("[{}] {}", name, operand);
      }
      in.push_back(std::move(operand));
    };
    for (const std::string& each : a.out) take(each);
    for (const std::string& each : a.in) take(each);
    if (in.empty()) in.push_back("\"a\" (0)");  // the macro wants one
    const char* safe = request_.format == ExportFormat::kThread ? "asm_safe" : "kvm_asm_safe";
    return Wrapped(fmt::format("\t{} = {}(\"{}\", ", variable, safe, text), Join(in) + ");\n");
  }

  static std::string Wrapped(const std::string& head, const std::string& tail) {
    if (Width(head + tail) <= 90) return head + tail;
    // The rest stands under the first argument, in as many lines as it needs.
    const size_t column = Width(head.substr(0, head.find('(') + 1));
    const std::string indent = std::string(column / 8, '\t') + std::string(column % 8, ' ');
    std::string text = head;
    while (text.ends_with(' ')) text.pop_back();
    std::string line;
    for (size_t at = 0; at < tail.size();) {
      const size_t comma = tail.find("), ", at);
      const size_t end = comma == std::string::npos ? tail.size() : comma + 3;
      const std::string part = tail.substr(at, end - at);
      if (!line.empty() && column + line.size() + part.size() > 92) {
        while (line.ends_with(' ')) line.pop_back();
        text += "\n" + indent + line;
        line.clear();
      }
      line += part;
      at = end;
    }
    return text + "\n" + indent + line;
  }

  static std::string PlainText(Asm a) {
    // Without operands a percent sign is one.
    const bool basic = a.out.empty() && a.in.empty() && a.clobbers.empty();
    for (size_t at; basic && (at = a.text.find("%%")) != std::string::npos;) a.text.erase(at, 1);
    std::string head = fmt::format("\tasm volatile(\"{}\"", a.text);
    std::string tail;
    if (!a.out.empty() || !a.in.empty() || !a.clobbers.empty()) {
      tail = a.out.empty() ? " :" : " : " + Join(a.out);
      if (!a.in.empty() || !a.clobbers.empty()) tail += a.in.empty() ? " :" : " : " + Join(a.in);
      if (!a.clobbers.empty()) tail += " : " + a.clobbers;
    }
    if (Width(head + tail) + 2 <= 90) return head + tail + ");\n";
    return Wrapped(head + " ", tail.substr(1) + ");\n");
  }

  void WriteMemory(const Step& step, std::string& body) {
    const std::string area = data_.Area(AreaName(program_, step));
    if (step.op == Op::kMemWrite) {
      body +=
          fmt::format("\t*(u64 *)({} + {}) = {};\n", area, step.arg[1],
                      step.arg[1] == 512 && step.arg[2] != 0 ? MaskText(step.arg[2])
                                                             : fmt::format("0x{:x}", step.arg[2]));
    } else if (step.op == Op::kMemFill) {
      code_.copies = true;
      const auto pattern = static_cast<uint16_t>(step.arg[3]);
      const std::string from = data_.Pattern(pattern, step.arg[2], true);
      body += fmt::format("\tguest_copy({} + {}, {}, {});\n", area, step.arg[1], from, step.arg[2]);
    } else {
      code_.copies = true;
      body += fmt::format("\tguest_copy({} + 512, {}, 64);\n", area, data_.Zeros(64));
      if (step.arg[1] != 0)
        body += fmt::format("\t*(u64 *)({} + 512) = {};\n", area, MaskText(step.arg[1]));
      if (step.arg[2] != 0)
        body += fmt::format("\t*(u64 *)({} + 520) = {};\n", area, MaskText(step.arg[2]));
    }
  }

  void WriteControl(const Step& step, std::string& body) {
    static constexpr const char* kCr4[] = {"X86_CR4_OSFXSR", "X86_CR4_OSXSAVE", "X86_CR4_PKE"};
    const bool cr0 = step.op == Op::kCr0Ts;
    const bool on = (cr0 ? step.arg[0] : step.arg[1]) != 0;
    const std::string bit = cr0 ? "X86_CR0_TS" : kCr4[step.arg[0] % 3];
    const char* reg = cr0 ? "cr0" : "cr4";
    code_.uses_value[step.vcpu] = true;
    body += fmt::format("\tasm volatile(\"mov %%{}, %0\" : \"=r\" (value));\n", reg);
    body += fmt::format("\tvalue {}= {}{};\n", on ? "|" : "&", on ? "" : "~", bit);
    body += fmt::format("\tasm volatile(\"mov %0, %%{}\" : : \"r\" (value));\n", reg);
  }

  // The area is asserted when the guest has left: if a later step of this stay changes it, a copy
  // is.
  void CopyArea(const plan::Action& action, size_t i, std::string& body) {
    const Step& step = program_.steps[i];
    const Seen seen = SeenAt(step);
    if ((seen != Seen::kArea && seen != Seen::kFxArea) || !Keeps(i)) return;
    const std::string area = AreaName(program_, step);
    code_.stored[i] = area;
    const bool changes = std::any_of(
        program_.steps.begin() + static_cast<ptrdiff_t>(i) + 1,
        program_.steps.begin() + action.last + 1, [&](const Step& later) {
          const bool writes = SeenAt(later) == Seen::kArea || SeenAt(later) == Seen::kFxArea ||
                              (later.op >= Op::kMemWrite && later.op <= Op::kMemHeader);
          return writes && AreaName(program_, later) == area;
        });
    if (!changes) return;
    code_.copies = true;
    code_.stored[i] = data_.Area(fmt::format("{}_then", area) +
                                 (copies_ == 0 ? "" : fmt::format("_{}", copies_)));
    ++copies_;
    body += fmt::format("\tguest_copy({}, {}, AREA_SIZE);\n", code_.stored[i], area);
  }

  const ExportRequest& request_;
  const Prediction& p_;
  const program::Program& program_;
  const std::vector<StepChecks>& checks_;
  TestData& data_;
  GuestCode code_;
  size_t scratch_ = 0;
  unsigned copies_ = 0;
};

Asm GuestWriter::Instruction(const Step& step, size_t i) {
  const auto a = [&](unsigned n) { return step.arg[n]; };
  const auto pattern = [&](unsigned n) { return static_cast<uint16_t>(step.arg[n]); };
  const auto plain = [](std::string text) { return Asm{std::move(text), {}, {}, "", ""}; };
  const auto three = [&](const char* mnemonic, const char* reg) {
    return plain(fmt::format("{0} %%{1}{2}, %%{1}{3}, %%{1}{4}", mnemonic, reg, a(2), a(1), a(0)));
  };
  switch (step.op) {
    case Op::kFninit:
      return plain("fninit");
    case Op::kFnclex:
      return plain("fnclex");
    case Op::kFldcw:
      return {"fldcw %0", {}, {In("m", data_.Scalar("fcw", a(0), 2))}, "", ""};
    case Op::kFldTbyte:
      return Load("fldt %0", pattern(0), 10);
    case Op::kFstpTbyte:
      return Store("fstpt %0", i, 10);
    case Op::kFxch:
      return plain(fmt::format("fxch %%st({})", a(0)));
    case Op::kFchs:
      return plain("fchs");
    case Op::kFfree:
      return plain(fmt::format("ffree %%st({})", a(0)));
    case Op::kFincstp:
      return plain("fincstp");
    case Op::kFdecstp:
      return plain("fdecstp");
    case Op::kFnstcw:
      return Store("fnstcw %0", i, 2);
    case Op::kFnstsw:
      return Store("fnstsw %0", i, 2);
    case Op::kMmxMovq:
      return Load(fmt::format("movq %0, %%mm{}", a(0)), pattern(1), 8);
    case Op::kMmxStore:
      return Store(fmt::format("movq %%mm{}, %0", a(0)), i, 8);
    case Op::kMmxPxor:
      return plain(fmt::format("pxor %%mm{}, %%mm{}", a(1), a(0)));
    case Op::kEmms:
      return plain("emms");
    case Op::kSseLoad:
      return Load(fmt::format("movdqu %0, %%xmm{}", a(0)), pattern(1), 16);
    case Op::kSseStore:
      return Store(fmt::format("movdqu %%xmm{}, %0", a(0)), i, 16);
    case Op::kLdmxcsr:
      return {"ldmxcsr %0", {}, {In("m", data_.Scalar("mxcsr", a(0), 4))}, "", ""};
    case Op::kStmxcsr:
      return Store("stmxcsr %0", i, 4);
    case Op::kSsePxor:
      return plain(fmt::format("pxor %%xmm{}, %%xmm{}", a(1), a(0)));
    case Op::kSsePaddq:
      return plain(fmt::format("paddq %%xmm{}, %%xmm{}", a(1), a(0)));
    case Op::kSsePshufd:
      return plain(fmt::format("pshufd ${}, %%xmm{}, %%xmm{}", a(2), a(1), a(0)));
    case Op::kVexLoad128:
      return Load(fmt::format("vmovdqu %0, %%xmm{}", a(0)), pattern(1), 16);
    case Op::kVexLoad256:
      return Load(fmt::format("vmovdqu %0, %%ymm{}", a(0)), pattern(1), 32);
    case Op::kVexStore256:
      return Store(fmt::format("vmovdqu %%ymm{}, %0", a(0)), i, 32);
    case Op::kVexPxor256:
      return three("vpxor", "ymm");
    case Op::kVzeroupper:
      return plain("vzeroupper");
    case Op::kVzeroall:
      return plain("vzeroall");
    case Op::kEvexLoad128:
      return Load(fmt::format("vmovdqu64 %0, %%xmm{}", a(0)), pattern(1), 16);
    case Op::kEvexLoad256:
      return Load(fmt::format("vmovdqu64 %0, %%ymm{}", a(0)), pattern(1), 32);
    case Op::kEvexLoad512:
      return Load(fmt::format("vmovdqu64 %0, %%zmm{}", a(0)), pattern(1), 64);
    case Op::kEvexStore512:
      return Store(fmt::format("vmovdqu64 %%zmm{}, %0", a(0)), i, 64);
    case Op::kEvexPxor512:
      return three("vpxorq", "zmm");
    case Op::kKmovLoad:
      return Load(fmt::format("kmovq %0, %%k{}", a(0)), pattern(1), 8);
    case Op::kKmovStore:
      return Store(fmt::format("kmovq %%k{}, %0", a(0)), i, 8);
    case Op::kKxor:
      return three("kxorq", "k");
    case Op::kBndmovLoad:
      return Load(fmt::format("bndmov %0, %%bnd{}", a(0)), pattern(1), 16);
    case Op::kBndmovStore:
      return Store(fmt::format("bndmov %%bnd{}, %0", a(0)), i, 16);
    case Op::kWrpkru:
      return {
          "wrpkru", {}, {In("a", fmt::format("0x{:x}", a(0))), In("c", "0"), In("d", "0")}, "", ""};
    case Op::kRdpkru:
      return Give("rdpkru", {In("c", "0")}, i, 4);
    case Op::kXsave:
      return Area(step, "xsave");
    case Op::kXsavec:
      return Area(step, "xsavec");
    case Op::kXsaveopt:
      return Area(step, "xsaveopt");
    case Op::kXsaves:
      return Area(step, "xsaves");
    case Op::kXrstor:
      return Area(step, "xrstor");
    case Op::kXrstors:
      return Area(step, "xrstors");
    case Op::kFxsave:
      return Area(step, "fxsave");
    case Op::kFxrstor:
      return Area(step, "fxrstor");
    case Op::kXsetbv: {
      Asm x{"xsetbv", {}, {In("c", fmt::format("0x{:x}", a(0)))}, "", ""};
      for (std::string& each : EdxEax(a(1))) x.in.push_back(std::move(each));
      return x;
    }
    case Op::kXgetbv:
      return Give("xgetbv", {In("c", fmt::format("0x{:x}", a(0)))}, i, 8);
    case Op::kRdmsr:
      return Give("rdmsr", {In("c", MsrName(a(0)))}, i, 8);
    case Op::kWrmsr: {
      Asm x{"wrmsr", {}, {In("c", MsrName(a(0)))}, "", ""};
      for (std::string& each : EdxEax(a(1))) x.in.push_back(std::move(each));
      return x;
    }
    case Op::kRaw: {
      std::string bytes;
      for (unsigned n = 0; n < a(0); ++n) {
        bytes += fmt::format("{}0x{:02x}", n == 0 ? "" : ", ", program::RawByte(step, n));
      }
      return {".byte " + bytes, {}, {}, "\"memory\"", ""};
    }
    default:
      return step.op >= Op::kLdtilecfg ? Amx(step, i) : Exit(step, i);
  }
}

Asm GuestWriter::Exit(const Step& step, size_t i) {
  static constexpr const char* kMove[] = {"movb", "movw", "movl", "movq"};
  static constexpr const char* kSize[] = {"b", "w", "k", "q"};
  const std::string mmio = fmt::format("MMIO_GVA + {}", 16 * i);
  switch (step.op) {
    case Op::kExitMmioRead: {
      code_.mmio = true;
      code_.uses_value[step.vcpu] = true;
      Asm a{fmt::format("{} (%1), %{}0", kMove[step.arg[0]], kSize[step.arg[0]]),
            {"\"=&r\" (value)"},
            {In("r", mmio)},
            "",
            ""};
      // What is read is added to a cleared register.
      a.text = "xor %k0, %k0\\n\\t" + a.text;
      if (Keeps(i)) a.then = fmt::format("{} = value;", Result(i, 8));
      return a;
    }
    case Op::kExitMmioWrite:
      code_.mmio = true;
      return {fmt::format("{} %{}1, (%0)", kMove[step.arg[0]], kSize[step.arg[0]]),
              {},
              {In("r", mmio), In("r", fmt::format("0x{:x}ull", step.arg[1]))},
              "\"memory\"",
              ""};
    case Op::kExitMmioVector:
      code_.mmio = true;
      return {step.arg[0] != 0 ? fmt::format("movdqu %%xmm{}, (%0)", step.arg[1])
                               : fmt::format("movdqu (%0), %%xmm{}", step.arg[1]),
              {},
              {In("r", mmio)},
              "\"memory\"",
              ""};
    case Op::kExitCpuid:
      // All four registers are written: what the compiler is not told of it takes for unchanged.
      return {"xor %%ecx, %%ecx\\n\\tcpuid",
              {"\"=a\" (eax)", "\"=d\" (edx)"},
              {In("a", "0xd")},
              "\"rbx\", \"rcx\"",
              ""};
    case Op::kExitHlt:
      return {"hlt", {}, {}, "", ""};
    case Op::kExitPageFault:
      return {step.arg[0] != 0 ? "movl %%eax, (%0)" : "testl $1, (%0)",
              {},
              {In("r", "ABSENT_GVA")},
              "",
              ""};
    default:
      return {};
  }
}

Asm GuestWriter::Amx(const Step& step, size_t i) {
  switch (step.op) {
    case Op::kLdtilecfg: {
      std::array<uint8_t, 64> bytes{};
      program::FillTilecfg(step, bytes);
      return {"ldtilecfg %0", {}, {In("m", data_.Table("tilecfg_operand", bytes))}, "", ""};
    }
    case Op::kSttilecfg:
      return Store("sttilecfg %0", i, 64);
    case Op::kTileloadd:
      return {fmt::format("tileloadd (%0, %1, 1), %%tmm{}", step.arg[0]),
              {},
              {In("r", data_.Pattern(static_cast<uint16_t>(step.arg[1]),
                                     program::TileloaddBytes(step), true)),
               In("r", fmt::format("{}ul", step.arg[2]))},
              "",
              ""};
    case Op::kTilestored:
      return {fmt::format("tilestored %%tmm{}, (%0, %1, 1)", step.arg[0]),
              {},
              {In("r", Result(i, 1024)), In("r", "64ul")},
              "\"memory\"",
              ""};
    case Op::kTilezero:
      return {fmt::format("tilezero %%tmm{}", step.arg[0]), {}, {}, "", ""};
    case Op::kTilerelease:
      return {"tilerelease", {}, {}, "", ""};
    default: {
      static constexpr const char* kNames[] = {"tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud"};
      const auto n = static_cast<unsigned>(step.op) - static_cast<unsigned>(Op::kTdpbssd);
      return {fmt::format("{} %%tmm{}, %%tmm{}, %%tmm{}", kNames[n % 4], step.arg[2], step.arg[1],
                          step.arg[0]),
              {},
              {},
              "",
              ""};
    }
  }
}

}  // namespace

std::string AreaName(const program::Program& program, const Step& step) {
  const uint64_t slot = step.arg[0] % program::kSlotCount;
  if (program.vcpus > 1 && program.own_vm) return fmt::format("area{}_vm{}", slot, step.vcpu);
  return fmt::format("area{}", slot);
}

std::vector<std::string> WrapWords(const std::string& text, size_t room) {
  std::vector<std::string> lines;
  std::string line;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && line.size() + 1 + word.size() > room) {
      lines.push_back(std::exchange(line, ""));
    }
    line += (line.empty() ? "" : " ") + word;
    at = end + 1;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

std::string CommentText(const std::string& text, unsigned tabs) {
  if (text.empty()) return "";
  const std::string indent(tabs, '\t');
  const std::vector<std::string> lines = WrapWords(text, 76 - 8 * tabs);
  if (lines.size() == 1) return fmt::format("{}/* {} */\n", indent, text);
  std::string out = indent + "/*\n";
  for (const std::string& line : lines) out += fmt::format("{} * {}\n", indent, line);
  return out + indent + " */\n";
}

std::expected<GuestCode, std::string> WriteGuest(const ExportRequest& request,
                                                 const Prediction& prediction,
                                                 const std::vector<StepChecks>& checks,
                                                 TestData& data) {
  return GuestWriter(request, prediction, checks, data).Write();
}

}  // namespace fpswap::report
