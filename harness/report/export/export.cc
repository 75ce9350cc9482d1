// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/export.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/plan/vmm.h"
#include "harness/program/text.h"
#include "harness/report/export/host.h"
#include "harness/report/export/texts.h"

namespace fpswap::report {
namespace {

using program::Needs;
using program::Op;
using xstate::Component;

// CPUID bits that instructions need, in the words of the selftests' processor.h, which does not
// name them all.
struct FeatureRow {
  Needs needs;
  const char* name;
  const char* leaf;  // KVM_X86_CPU_FEATURE's arguments
  bool in_library;
};
constexpr FeatureRow kFeatures[] = {
    {Needs::kXsaveopt, "X86_FEATURE_XSAVEOPT", "0xD, 1, EAX, 0", false},
    {Needs::kXsavec, "X86_FEATURE_XSAVEC", "0xD, 1, EAX, 1", false},
    {Needs::kXsaves, "X86_FEATURE_XSAVES", "0xD, 1, EAX, 3", true},
    {Needs::kAvx, "X86_FEATURE_AVX", "0x1, 0, ECX, 28", false},
    {Needs::kAvx2, "X86_FEATURE_AVX2", "0x7, 0, EBX, 5", false},
    {Needs::kAvx512f, "X86_FEATURE_AVX512F", "0x7, 0, EBX, 16", false},
    {Needs::kAvx512vl, "X86_FEATURE_AVX512VL", "0x7, 0, EBX, 31", false},
    {Needs::kAvx512bw, "X86_FEATURE_AVX512BW", "0x7, 0, EBX, 30", false},
    {Needs::kMpx, "X86_FEATURE_MPX", "0x7, 0, EBX, 14", true},
    {Needs::kPku, "X86_FEATURE_PKU", "0x7, 0, ECX, 3", true},
    {Needs::kAmxTile, "X86_FEATURE_AMX_TILE", "0x7, 0, EDX, 24", true},
    {Needs::kAmxInt8, "X86_FEATURE_AMX_INT8", "0x7, 0, EDX, 25", false},
    {Needs::kBase, "X86_FEATURE_XFD", "0xD, 1, EAX, 4", true},
    {Needs::kBase, "X86_FEATURE_SHSTK", "0x7, 0, ECX, 7", true},
    {Needs::kBase, "X86_FEATURE_IBT", "0x7, 0, EDX, 20", true},
};

void Replace(std::string& text, std::string_view what, std::string_view with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) {
    text.replace(at, what.size(), with);
  }
}

class Exporter {
 public:
  explicit Exporter(const ExportRequest& request)
      : request_(request),
        selftest_(request.format == ExportFormat::kSelftest),
        thread_(request.format == ExportFormat::kThread),
        p_(Predict(request.program, request.platform, request.format)),
        program_(p_.plan.effective) {}

  std::expected<std::string, std::string> Write();

 private:
  std::string WhyNot() const;
  std::string WhyNotInAThread() const;
  void Head();
  void Includes();
  void Defines();
  void Memory();
  void Functions();
  void Guest();
  void Helpers();
  void Main();
  void Tracer();
  void ThreadMain();
  void Requirements();
  void ThreadRequirements();
  bool Requires(const FeatureRow& feature) const;
  std::string MigrateText() const;
  std::vector<std::string> Vectors() const;

  bool Uses(Helper helper) const { return host_.helpers.contains(helper); }
  bool HasOp(Op op) const {
    return std::ranges::any_of(program_.steps, [op](const auto& s) { return s.op == op; });
  }
  bool Contains(std::string_view word) const {
    return host_.body.contains(word) || data_text_.contains(word) ||
           std::ranges::any_of(guest_.body, [&](const auto& b) { return b.contains(word); });
  }
  // Whether an MSR of CET is read or written: without CET that is refused.
  bool TouchesCet() const {
    const auto is_of_cet = [](program::Msr msr) { return msr >= program::Msr::kUCet; };
    return std::ranges::any_of(program_.steps, [&](const program::Step& s) {
      if (s.op == Op::kRdmsr || s.op == Op::kWrmsr) {
        return is_of_cet(static_cast<program::Msr>(s.arg[0]));
      }
      const plan::MsrList msrs = plan::MsrsOf(s);
      return std::ranges::any_of(msrs.Entries(),
                                 [&](const plan::MsrEntry& e) { return is_of_cet(e.msr); });
    });
  }
  bool HasNeed(Needs needs) const {
    return std::ranges::any_of(program_.steps,
                               [&](const auto& s) { return program::RowOf(s).needs == needs; });
  }
  // Whether its vCPU only has calls made to it: what it is told of its CPU then is the program's
  // affair. The selftests' library tells a vCPU that has code everything at once.
  bool NeverRuns() const { return HasOp(Op::kSetCpuid); }
  // Whether main() has something to do with the VM later.
  bool KeepsVm() const {
    return selftest_ || Uses(Helper::kMigrate) || (program_.vcpus > 1 && !program_.own_vm);
  }
  // Whether the guest runs with CR4.PKE.
  bool pke() const { return program_.pke && (p_.components & Bit(Component::kPkru)) != 0; }
  // Whether what the guest sees may be the host's: then the host's registers are given something to
  // be seen.
  bool FillsHost() const {
    return request_.divergence && request_.divergence->law == judge::Law::kIsolation &&
           Uses(Helper::kRunGuest);
  }
  // A thread: whether the tracer's registers are filled. It runs on the child's CPU then, so that
  // the child's are loaded over them.
  bool FillsTracer() const { return FillsHost() || Uses(Helper::kDirtyRegisters); }
  bool Moves() const { return Uses(Helper::kMoveToCpu) || (thread_ && FillsTracer()); }
  bool Tiles() const { return (p_.components & xstate::kAmx) != 0; }
  void Add(std::string_view text) { out_ += text; }
  void Paragraph(std::string_view text) {
    out_ += "\n";
    out_ += text;
  }

  const ExportRequest& request_;
  const bool selftest_, thread_;
  const Prediction p_;
  const program::Program& program_;
  std::vector<StepChecks> checks_;
  TestData data_;
  GuestCode guest_;
  HostCode host_;
  std::string data_text_, out_;
};

// Of a step that a child under ptrace has no counterpart of, as of native-runner's thread.
std::string WhyNoThreadDoes(const program::Step& step) {
  const program::StepRow& row = program::RowOf(step);
  switch (step.op) {
    case Op::kOsSigframe:
    case Op::kOsSigreturn:
      return "has no counterpart: a signal's frame lies on the thread's own stack, and tests of "
             "threads are exported with ptrace alone";
    case Op::kRaw:
      return "has no counterpart: code that may do anything is not run as a process of the host";
    case Op::kExitPageFault:
    case Op::kImageInit:
    case Op::kImageWrite:
    case Op::kImageFill:
    case Op::kHostCpu:
    case Op::kHostDirty:
    case Op::kHostSignal:
    case Op::kOsGetRegset:
    case Op::kOsSetRegset:
      return "";
    default:
      break;
  }
  if (step.op >= Op::kExitOut && step.op <= Op::kExitPageFault) {
    return "has no counterpart: a thread has no VMM to exit to";
  }
  if (row.actor == program::Actor::kVmm) {
    return "is a call about a vCPU, and the program has calls about a thread: no test has both";
  }
  if (row.actor == program::Actor::kHost) {
    return "has no counterpart: a thread has no KVM_RUN for the host to disturb so";
  }
  if (row.cpl0) return "has no counterpart: a thread runs at CPL 3";
  if (row.needs == Needs::kMpx) {
    return "has no counterpart: branches of the test's own code would reset the bound registers";
  }
  return "";
}

std::string Exporter::WhyNotInAThread() const {
  if (request_.program.vcpus > 1) {
    return fmt::format("it has {} vCPUs, and the steps of the system (os.*) concern one thread",
                       request_.program.vcpus);
  }
  const auto& steps = request_.program.steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string why = WhyNoThreadDoes(steps[i]);
    if (!why.empty()) return fmt::format("step {} ({}) {}", i, program::PrintStep(steps[i]), why);
  }
  if ((p_.components & xstate::kMpx) != 0) {
    return "its images have bound registers, which branches of the test's own code would reset";
  }
  return "";
}

std::string Exporter::WhyNot() const {
  if (thread_) {
    if (std::string why = WhyNotInAThread(); !why.empty()) return why;
  }
  if (p_.plan.effective.steps.size() != request_.program.steps.size()) {
    const plan::Trim& trim = p_.plan.trims.front();
    return fmt::format("step {} can't be exported: {}", trim.step, trim.reason);
  }
  if (program_.vcpus > 1 && program_.own_thread) {
    return "its vCPUs run on threads of their own (own_thread 1): exported tests have one thread";
  }
  if (request_.divergence && request_.divergence->law == judge::Law::kIsolation &&
      request_.divergence->where.ends_with("of the VMM thread")) {
    return "the divergence is in the VMM thread's own registers, which exported tests don't watch";
  }
  for (const program::Step& step : program_.steps) {
    const program::StepRow& row = program::RowOf(step);
    const bool runs = row.actor == program::Actor::kGuest || program_.vcpus > 1 ||
                      step.op == Op::kMigrate || step.op == Op::kInit ||
                      step.op == Op::kRunImmediate;
    if (NeverRuns() && (runs || !selftest_)) {
      return "vmm.set_cpuid has a counterpart only in a selftest whose one vCPU runs nothing, so "
             "that "
             "it is the test that tells it its CPUID";
    }
    if (row.actor == program::Actor::kSystem && !thread_) {
      return fmt::format(
          "{} is a call about a thread of the system, not about a vCPU; use --format c", row.name);
    }
  }
  return "";
}

std::expected<std::string, std::string> Exporter::Write() {
  if (const std::string why = WhyNot(); !why.empty()) return std::unexpected(why);
  checks_ = ChooseChecks(p_, request_);
  if (std::ranges::all_of(checks_, &StepChecks::empty)) {
    return std::unexpected(
        "nothing to assert: of what would show it, the oracle allows more than one value on other "
        "machines");
  }
  auto guest = WriteGuest(request_, p_, checks_, data_);
  if (!guest) return std::unexpected(guest.error());
  guest_ = std::move(*guest);
  auto host = WriteHost(request_, p_, checks_, guest_, data_);
  if (!host) return std::unexpected(host.error());
  host_ = std::move(*host);
  data_text_ = data_.Declarations();
  Head();
  Includes();
  Defines();
  Memory();
  Functions();
  Guest();
  Helpers();
  if (thread_) {
    Tracer();
    ThreadMain();
  } else {
    Main();
  }
  return out_;
}

void Exporter::Head() {
  Add("// SPDX-License-Identifier: GPL-2.0-only\n");
  std::string comment = "/*\n";
  for (const std::string& line : WrapWords(request_.title, 74)) comment += " * " + line + "\n";
  for (const std::string& paragraph : request_.about) {
    comment += " *\n";
    for (const std::string& line : WrapWords(paragraph, 74)) comment += " * " + line + "\n";
  }
  if (thread_) {
    comment +=
        " *\n * Needs no kernel tree: cc -Wall -Wextra -O2 -o test THIS_FILE. Exit status: 0 "
        "passed, 1 failed,\n * 4 skipped. At home in tools/testing/selftests/x86, as a 64-bit "
        "test.\n";
  } else if (!selftest_) {
    comment +=
        " *\n * Needs no kernel tree: cc -Wall -Wextra -O2 -fno-strict-aliasing "
        "-fno-stack-protector\n * -pthread -o test THIS_FILE. Exit status: 0 passed, 1 failed, 4 "
        "skipped.\n";
  }
  Add(comment + " */\n");
}

void Exporter::Includes() {
  if (!selftest_) {
    Add("#define _GNU_SOURCE\n");
    Add(thread_ ? texts::kThreadIncludes : texts::kCIncludes);
    return;
  }
  std::vector<std::string> names = {"stdio.h", "string.h"};
  if (Uses(Helper::kMoveToCpu) || Uses(Helper::kDirtyRegisters)) names.push_back("sched.h");
  if (Uses(Helper::kDirtyRegisters)) names.push_back("pthread.h");
  if (Uses(Helper::kRet) || Uses(Helper::kRunInterrupted)) names.push_back("errno.h");
  if (Uses(Helper::kRunInterrupted)) {
    names.push_back("signal.h");
    if (!Uses(Helper::kDirtyRegisters)) names.push_back("pthread.h");
  }
  if (FillsHost() && Tiles()) {
    names.insert(names.end(), {"asm/prctl.h", "sys/syscall.h", "unistd.h"});
  }
  if (Uses(Helper::kSetCpuid)) names.push_back("stdlib.h");
  std::ranges::sort(names);
  for (const std::string& name : names) Add(fmt::format("#include <{}>\n", name));
  Add("\n#include \"test_util.h\"\n#include \"kvm_util.h\"\n#include \"processor.h\"\n");
}

void Exporter::Defines() {
  if (thread_) {
    Paragraph(texts::kThreadTypes);
    Paragraph(texts::kCBase);
    Paragraph(texts::kCCpuid);
    Paragraph(texts::kThreadCpu);
    if (guest_.may_fault) {
      std::string text = texts::kCAsmSafe;
      Replace(text, "kvm_asm_safe", "asm_safe");
      Replace(text, "The host goes on\n * at R11 with the vector in R9, see vcpu_run().",
              "The parent\n * goes on at R11 with the vector in R9, see run_guest().");
      Paragraph(text);
    }
  } else if (!selftest_) {
    Paragraph(texts::kCTypes);
    Paragraph(texts::kCBase);
    Paragraph(texts::kCVcpu);
    Paragraph(texts::kCCpuid);
    Paragraph(texts::kCIoctl);
    if (guest_.may_fault) Paragraph(texts::kCAsmSafe);
    Paragraph(texts::kCVm);
    Paragraph(texts::kCRun);
    if (Uses(Helper::kMsr)) Paragraph(texts::kCMsr);
    if (Tiles()) Paragraph(texts::kCPermission);
    if (Uses(Helper::kMigrate)) Paragraph(MigrateText());
  }
  if (Uses(Helper::kMsrList)) Paragraph(texts::kMsrList);
  std::string text;
  const auto define = [&](std::string_view name, std::string_view value) {
    text += fmt::format("#define {}{}{}\n", name, name.size() < 8 ? "\t\t" : "\t", value);
  };
  if (thread_) define("X86_FEATURE_OSXSAVE", "CPU_FEATURE(0x1, 0, ECX, 27)");
  for (const FeatureRow& f : kFeatures) {
    const std::string value =
        fmt::format("{}({})", thread_ ? "CPU_FEATURE" : "KVM_X86_CPU_FEATURE", f.leaf);
    if (!Requires(f)) continue;
    if (!selftest_) {
      define(f.name, value);
    } else if (!f.in_library) {
      text += fmt::format("#ifndef {0}\n#define {0}\t{1}\n#endif\n", f.name, value);
    }
  }
  if (!selftest_) {
    static constexpr std::pair<const char*, const char*> kNumbers[] = {
        {"MSR_IA32_XSS", "0xda0"},
        {"MSR_IA32_XFD", "0x1c4"},
        {"MSR_IA32_XFD_ERR", "0x1c5"},
        {"MSR_IA32_U_CET", "0x6a0"},
        {"MSR_IA32_S_CET", "0x6a2"},
        {"MSR_IA32_PL0_SSP", "0x6a4"},
        {"MSR_IA32_PL1_SSP", "0x6a5"},
        {"MSR_IA32_PL2_SSP", "0x6a6"},
        {"MSR_IA32_PL3_SSP", "0x6a7"},
        {"UD_VECTOR", "6"},
        {"NM_VECTOR", "7"},
        {"GP_VECTOR", "13"},
        {"PF_VECTOR", "14"},
        {"MF_VECTOR", "16"},
        {"AC_VECTOR", "17"},
        {"XM_VECTOR", "19"},
        {"X86_CR0_TS", "BIT_ULL(3)"},
        {"X86_CR4_OSFXSR", "BIT_ULL(9)"},
    };
    for (const auto& [name, value] : kNumbers) {
      if (Contains(name) || (thread_ && std::string_view(texts::kThreadRun).contains(name))) {
        define(name, value);
      }
    }
  }
  if (!selftest_ && !thread_) {
    define("X86_CR4_OSXSAVE", "BIT_ULL(18)");
    define("X86_CR4_PKE", "BIT_ULL(22)");
  }
  std::string xcr0 = MaskText(p_.plan.xcr0);
  if (xcr0.size() > 72) xcr0.replace(xcr0.rfind(" | ", 72), 3, " | \\\n\t\t\t ");
  define("XCR0", "(" + xcr0 + ")");
  if (guest_.mmio) define("MMIO_GVA", "0x20000000ul");
  if (HasOp(Op::kExitPageFault)) define("ABSENT_GVA", "0x30000000ul");
  // PTRACE_SETREGSET takes an image of the machine's size alone, and less than it is given.
  if (data_.uses_images()) define("IMAGE_SIZE", thread_ ? "16384" : Tiles() ? "12288" : "4096");
  static constexpr std::pair<const char*, const char*> kOffsets[] = {
      {"FCW_OFFSET", "0"},   {"FSW_OFFSET", "2"},         {"FTW_OFFSET", "4"},
      {"FOP_OFFSET", "6"},   {"MXCSR_OFFSET", "24"},      {"ST_OFFSET", "32"},
      {"XMM_OFFSET", "160"}, {"XSTATE_BV_OFFSET", "512"}, {"XCOMP_BV_OFFSET", "520"}};
  std::string offsets;
  for (const auto& [name, value] : kOffsets) {
    const std::string_view view = name;
    const bool init = Uses(Helper::kInitImage) && (view == "FCW_OFFSET" || view == "MXCSR_OFFSET");
    if (init || Contains(view)) {
      offsets += fmt::format("#define {}\t{}{}\n", name, view.size() < 16 ? "\t" : "", value);
    }
  }
  if (!offsets.empty()) text += "\n/* In an XSAVE area */\n" + offsets;
  Paragraph(text);
}

void Exporter::Memory() {
  if (!data_text_.empty()) Paragraph(data_text_);
  if (!data_.uses_images()) return;
  std::string text = thread_ ? "/* What PTRACE_GETREGSET gives and PTRACE_SETREGSET takes. */\n"
                             : "/* What KVM_GET_XSAVE gives and KVM_SET_XSAVE takes. */\n";
  for (const uint64_t n : data_.images()) {
    text += fmt::format("static u8 image{}[IMAGE_SIZE] __aligned(64);\n", n);
  }
  Paragraph(text);
}

// Of the exceptions that the guest is to survive.
std::vector<std::string> Exporter::Vectors() const {
  std::vector<std::string> vectors;
  for (size_t i = 0; i < guest_.vector.size(); ++i) {
    if (guest_.vector[i].empty() || p_.steps[i].faults == 0) continue;
    const std::string name = VectorName(p_.steps[i].vector);
    if (std::ranges::find(vectors, name) == vectors.end()) vectors.push_back(name);
  }
  return vectors;
}

void Exporter::Functions() {
  if (NeverRuns()) return;
  Paragraph(thread_ ? texts::kThreadGuestCode : texts::kGuestCode);
  if (selftest_ && !Vectors().empty()) Paragraph(texts::kFaultHandler);
  if (guest_.copies) Paragraph(texts::kGuestCopy);
}

void Exporter::Guest() {
  if (NeverRuns()) return;
  for (unsigned v = 0; v < program_.vcpus; ++v) {
    const std::string name = program_.vcpus == 1 ? "guest_code" : fmt::format("guest_code{}", v);
    std::string text = fmt::format("static GUEST_CODE void {}(void)\n{{\n", name);
    if (guest_.uses_eax_edx[v]) text += "\tu32 eax, edx;\n";
    if (guest_.uses_value[v]) text += "\tu64 value;\n";
    if (guest_.uses_eax_edx[v] || guest_.uses_value[v]) text += "\n";
    // A vCPU that never runs has nothing to do.
    text += guest_.body[v].empty() ? "\tguest_exit();\n" : guest_.body[v];
    Paragraph(text + "}\n");
  }
}

// Whether a test has to ask for a feature of the table.
bool Exporter::Requires(const FeatureRow& f) const {
  switch (f.needs) {
    case Needs::kPku:
      return pke() || HasNeed(f.needs);
    case Needs::kBase:  // of MSRs
      return std::string_view(f.name) == "X86_FEATURE_XFD" ? Contains("MSR_IA32_XFD")
                                                           : p_.supervisor != 0 || TouchesCet();
    default:
      return HasNeed(f.needs);
  }
}

// Only what the program needs, beginning with what must be asked for before anything else.
void Exporter::Requirements() {
  if (!selftest_) {
    Add("\tkvm_fd = open(\"/dev/kvm\", O_RDWR | O_CLOEXEC);\n");
    Add("\tTEST_REQUIRE(kvm_fd >= 0);\n");
  }
  if (Tiles()) Add("\tvm_xsave_require_permission(XFEATURE_MASK_XTILE_DATA);\n");
  if (selftest_) Add("\tTEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));\n");
  const std::string all = NeverRuns() ? "(" + MaskText(p_.components) + ")" : "XCR0";
  Add(fmt::format("\tTEST_REQUIRE((kvm_cpu_supported_xcr0() & {0}) == {0});\n", all));
  for (const FeatureRow& f : kFeatures) {
    if (Requires(f)) Add(fmt::format("\tTEST_REQUIRE(kvm_cpu_has({}));\n", f.name));
  }
  if (HasOp(Op::kGetXsave2)) {
    Add(selftest_ ? "\tTEST_REQUIRE(kvm_has_cap(KVM_CAP_XSAVE2));\n"
                  : "\tTEST_REQUIRE(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2) > 0);\n");
  }
  if (p_.absent != 0) {
    Add(fmt::format("\tTEST_REQUIRE(!(kvm_cpu_supported_xcr0() & ({})));\n", MaskText(p_.absent)));
  }
  Add("\n");
}

// c: the state of every vCPU into a fresh VM, in the program's order.
std::string Exporter::MigrateText() const {
  struct Row {
    plan::MigrateCall call;
    const char *ioctl, *member;
  };
  constexpr Row kRows[] = {
      {plan::MigrateCall::kRegs, "REGS", "regs"},
      {plan::MigrateCall::kSregs, "SREGS", "sregs"},
      {plan::MigrateCall::kXcrs, "XCRS", "xcrs"},
      {plan::MigrateCall::kEvents, "VCPU_EVENTS", "events"},
      {plan::MigrateCall::kMpState, "MP_STATE", "mp_state"},
      {plan::MigrateCall::kDebugregs, "DEBUGREGS", "debugregs"},
  };
  std::vector<std::string> msrs;
  if (p_.supervisor != 0) msrs.push_back("MSR_IA32_XSS");
  if (Tiles()) msrs.insert(msrs.end(), {"0x1c4 /* IA32_XFD */", "0x1c5 /* IA32_XFD_ERR */"});
  const auto migrate = std::ranges::find(program_.steps, Op::kMigrate, &program::Step::op);
  const auto& order = plan::kMigrateOrders[migrate->arg[0] % plan::kMigrateOrderCount];
  std::string text = R"(/* All that a VMM carries over to a fresh vCPU. */
struct saved {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	struct kvm_debugregs debugregs;
	u8 xsave[16384];
)";
  if (!msrs.empty()) {
    text += fmt::format(
        "\tstruct {{\n\t\tstruct kvm_msrs head;\n\t\tstruct kvm_msr_entry entries[{}];\n\t}} "
        "msrs;\n",
        msrs.size());
  }
  text += R"(};

static void save(struct kvm_vcpu *vcpu, struct saved *s)
{
	/* Complete the OUT first, or the fresh vCPU does it again. */
	vcpu->run->immediate_exit = 1;
	__vcpu_ioctl(vcpu, KVM_RUN, NULL);
	vcpu->run->immediate_exit = 0;

)";
  for (const Row& row : kRows) {
    text += fmt::format("\tvcpu_ioctl(vcpu, KVM_GET_{}, &s->{});\n", row.ioctl, row.member);
  }
  text += "\tvcpu_ioctl(vcpu, KVM_GET_XSAVE2, s->xsave);\n";
  if (!msrs.empty()) {
    text += fmt::format("\ts->msrs.head.nmsrs = {};\n", msrs.size());
    for (size_t i = 0; i < msrs.size(); ++i) {
      text += fmt::format("\ts->msrs.entries[{}].index = {};\n", i, msrs[i]);
    }
    text += fmt::format(
        "\tTEST_ASSERT(vcpu_ioctl(vcpu, KVM_GET_MSRS, &s->msrs) == {}, \"KVM_GET_MSRS\");\n",
        msrs.size());
  }
  text += "}\n\nstatic void restore(struct kvm_vcpu *vcpu, struct saved *s)\n{\n";
  for (const plan::MigrateCall call : order.calls) {
    switch (call) {
      case plan::MigrateCall::kCpuid:
        text += "\tvcpu_ioctl(vcpu, KVM_SET_CPUID2, supported_cpuid());\n";
        break;
      case plan::MigrateCall::kXsave:
        text += "\tvcpu_ioctl(vcpu, KVM_SET_XSAVE, s->xsave);\n";
        break;
      case plan::MigrateCall::kMsrs:
        if (!msrs.empty()) {
          text += fmt::format(
              "\tTEST_ASSERT(vcpu_ioctl(vcpu, KVM_SET_MSRS, &s->msrs) == {}, \"KVM_SET_MSRS\");\n",
              msrs.size());
        }
        break;
      default:
        for (const Row& row : kRows) {
          if (row.call == call) {
            text += fmt::format("\tvcpu_ioctl(vcpu, KVM_SET_{}, &s->{});\n", row.ioctl, row.member);
          }
        }
    }
  }
  return text + R"(}

/* Move all vCPUs of a VM to a fresh one, over the same memory. */
static void migrate(struct kvm_vm *vm)
{
	static struct saved saved[MAX_VCPUS];
	int i, nr = vm->nr_vcpus;

	for (i = 0; i < nr; i++) {
		save(vm->vcpus[i], &saved[i]);
		munmap(vm->vcpus[i]->run, run_size());
		close(vm->vcpus[i]->fd);
	}
	close(vm->fd);
	open_vm(vm);
	for (i = 0; i < nr; i++) {
		open_vcpu(vm, vm->vcpus[i]);
		restore(vm->vcpus[i], &saved[i]);
	}
}
)";
}

void Exporter::Helpers() {
  const auto helper = [&](Helper which, const char* text) {
    if (Uses(which)) Paragraph(text);
  };
  helper(Helper::kCheckBytes, texts::kCheckBytes);
  helper(Helper::kCheckValue, texts::kCheckValue);
  helper(Helper::kCheckBits, texts::kCheckBits);
  helper(Helper::kXstateOffset, texts::kXstateOffset);
  helper(Helper::kAreaComponent, texts::kAreaComponent);
  helper(Helper::kInitImage, texts::kInitImage);
  if (data_.uses_patterns() || Uses(Helper::kFillPattern)) Paragraph(texts::kFillPattern);
  if (thread_) return;
  helper(Helper::kMoveToCpu, texts::kMoveToCpu);
  helper(Helper::kDirtyRegisters, texts::kDirtyRegisters);
  if (FillsHost()) {
    const std::string permission =
        selftest_ ? "\tTEST_REQUIRE(!syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, 18));\n"
                  : "\t/* ARCH_REQ_XCOMP_PERM */\n"
                    "\tTEST_REQUIRE(!syscall(SYS_arch_prctl, 0x1023, 18));\n";
    std::string text = texts::kFillHostRegisters;
    text.replace(text.find("@\n"), 2, Tiles() ? permission : "");
    if (!selftest_) text.replace(text.find("noinline"), 8, "__attribute__((noinline))");
    Paragraph(text);
  }
  helper(Helper::kSendInit, texts::kSendInit);
  helper(Helper::kSetCpuid, texts::kSetCpuid);
  helper(Helper::kRunInterrupted, texts::kRunInterrupted);
}

// The child, and what its parent does to it.
void Exporter::Tracer() {
  const char* const tile_state =
      "\tstatic u64 tiles[1536] __aligned(64) = { [64] = XFEATURE_MASK_XTILE_DATA };\n";
  const char* const load_tiles =
      "\t/* From here on the kernel has room for tiles. */\n"
      "\tasm volatile(\"xrstor %0\" : : \"m\" (tiles), \"a\" ((u32)XFEATURE_MASK_XTILE), "
      "\"d\" (0));\n";
  const bool signals = Uses(Helper::kSendSignal);
  const bool absent = HasOp(Op::kExitPageFault);
  std::string start = texts::kThreadStart;
  Replace(start, "@state\n", Tiles() ? tile_state : "");
  Replace(start, "@tiles\n", Tiles() ? load_tiles : "");
  Replace(start, "@handler\n", signals ? texts::kThreadHandler : "");
  Replace(start, "@child\n",
          std::string(signals ? "\t\tsignal(SIGUSR1, handle_signal);\n" : "") +
              (absent ? "\t\tTEST_ASSERT(mmap((void *)ABSENT_GVA, 4096, PROT_NONE,\n"
                        "\t\t\t\t MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != "
                        "MAP_FAILED,\n"
                        "\t\t\t    \"mmap: %s\", strerror(errno));\n"
                      : ""));
  Paragraph(start);
  if (Moves()) {
    std::string move = texts::kMoveToCpu;
    Replace(move, "this task may use. */", "this task may use, and the child with it. */");
    Replace(move, "\tTEST_ASSERT(!sched_setaffinity(0, sizeof(one), &one), ",
            "\tTEST_ASSERT(!sched_setaffinity(0, sizeof(one), &one) &&\n"
            "\t\t    (!child || !sched_setaffinity(child, sizeof(one), &one)),\n\t\t    ");
    Paragraph(move);
  }
  if (FillsTracer()) {
    std::string fill = texts::kFillHostRegisters;
    Replace(fill, "The VMM's own registers hold what no guest may see.",
            "This task's registers hold what the child, next on this CPU, may not see.");
    Replace(fill, "noinline", "__attribute__((noinline))");
    Replace(fill, "@\n", "");
    Paragraph(fill);
  }
  std::string run = texts::kThreadRun;
  Replace(run, "@fill\n", FillsHost() ? "\t\tfill_host_registers();\n" : "");
  Paragraph(run);
  if (Uses(Helper::kSync)) Paragraph(texts::kThreadSync);
  if (Uses(Helper::kRegset)) Paragraph(texts::kThreadRegset);
  if (signals) Paragraph(texts::kThreadSignal);
}

void Exporter::ThreadRequirements() {
  Add("\tTEST_REQUIRE(cpu_has(X86_FEATURE_OSXSAVE));\n");
  if (Tiles()) {
    Add("\t/* ARCH_REQ_XCOMP_PERM, which the child inherits */\n"
        "\tTEST_REQUIRE(!syscall(SYS_arch_prctl, 0x1023, 18));\n");
  }
  Add("\tTEST_REQUIRE((xgetbv(0) & XCR0) == XCR0);\n");
  for (const FeatureRow& f : kFeatures) {
    if (Requires(f)) Add(fmt::format("\tTEST_REQUIRE(cpu_has({}));\n", f.name));
  }
  if (p_.absent != 0) {
    Add(fmt::format("\tTEST_REQUIRE(!(xgetbv(0) & ({})));\n", MaskText(p_.absent)));
  }
  Add("\n");
}

void Exporter::ThreadMain() {
  Paragraph("int main(void)\n{\n");
  if (Uses(Helper::kRet)) Add("\tint ret;\n\n");
  ThreadRequirements();
  // The child has a copy of what is filled before it is there.
  for (const std::string& line : data_.Fills(request_.format)) Add("\t" + line + "\n");
  if (Moves()) Add("\tmove_to_cpu(0);\n");
  Add("\tstart_guest();\n\n");
  Add(host_.body);
  Add("\n\tprintf(\"PASS\\n\");\n\treturn 0;\n}\n");
}

void Exporter::Main() {
  const std::string cr4 = pke() ? "X86_CR4_OSXSAVE | X86_CR4_PKE" : "X86_CR4_OSXSAVE";
  const auto call = [&](const char* library, const char* ioctl, const char* pointer) {
    return selftest_ ? fmt::format("\t{}(vcpu, {});\n", library, pointer)
                     : fmt::format("\tvcpu_ioctl(vcpu, {}, {});\n", ioctl, pointer);
  };
  Paragraph(
      "static void enable_xcr0(struct kvm_vcpu *vcpu)\n{\n"
      "\tstruct kvm_xcrs xcrs = {\n\t\t.nr_xcrs = 1,\n\t\t.xcrs[0].value = XCR0,\n\t};\n"
      "\tstruct kvm_sregs sregs;\n\n" +
      call("vcpu_sregs_get", "KVM_GET_SREGS", "&sregs") + fmt::format("\tsregs.cr4 |= {};\n", cr4) +
      (pke() && !selftest_
           ? std::string("\t/* KVM may not offer PKU. */\n"
                         "\tTEST_REQUIRE(!__vcpu_ioctl(vcpu, KVM_SET_SREGS, &sregs));\n")
           : call("vcpu_sregs_set", "KVM_SET_SREGS", "&sregs")) +
      call("vcpu_xcrs_set", "KVM_SET_XCRS", "&xcrs") + "}\n");
  if (Uses(Helper::kRunGuest)) {
    Paragraph(std::string("static void run_guest(struct kvm_vcpu *vcpu)\n{\n") +
              (FillsHost() ? "\tfill_host_registers();\n" : "") +
              "\tvcpu_run(vcpu);\n"
              "\tTEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);\n"
              "\tTEST_ASSERT(vcpu->run->io.port == EXIT_PORT, \"Wanted port 0x%x, got 0x%x\",\n"
              "\t\t    EXIT_PORT, vcpu->run->io.port);\n}\n");
  }

  Paragraph("int main(void)\n{\n");
  std::string vcpus, vms;
  for (unsigned v = 0; v < program_.vcpus; ++v) {
    vcpus += (v == 0 ? "*" : ", *") + VcpuName(program_, v);
    if (v == 0 || program_.own_vm) vms += (v == 0 ? "*" : ", *") + VmName(program_, v);
  }
  if (Uses(Helper::kMpState)) Add("\tstruct kvm_mp_state mp_state;\n");
  if (Uses(Helper::kMigrate) && selftest_) {
    Add(fmt::format("\tstruct kvm_x86_state *state[{}];\n", program_.vcpus));
  }
  if (Uses(Helper::kXcrs)) Add("\tstruct kvm_xcrs xcrs;\n");
  if (Uses(Helper::kMsrList)) Add("\tstruct msr_list msrs;\n");
  Add(fmt::format("\tstruct kvm_vcpu {};\n", vcpus));
  if (KeepsVm()) Add(fmt::format("\tstruct kvm_vm {};\n", vms));
  if (host_.body.contains("new_fpu")) Add("\tstruct kvm_fpu new_fpu;\n");
  if (host_.body.contains("&fpu)")) Add("\tstruct kvm_fpu fpu;\n");
  if (Uses(Helper::kRet)) Add("\tint ret;\n");
  Add("\n");
  Requirements();

  std::vector<std::string> vm_names;
  if (NeverRuns()) {
    vm_names.push_back("vm");
    Add("\tvm = vm_create_barebones();\n\tvcpu = __vm_vcpu_add(vm, 0);\n");
    Add(fmt::format("\tset_cpuid(vcpu, {});\n",
                    MaskText(request_.program.features & p_.components)));
  }
  for (unsigned v = NeverRuns() ? 1 : 0; v < program_.vcpus; ++v) {
    const std::string vm = VmName(program_, v), vcpu = VcpuName(program_, v);
    const std::string code = program_.vcpus == 1 ? "guest_code" : fmt::format("guest_code{}", v);
    if (v == 0 || program_.own_vm) {
      const std::string make = fmt::format("vm_create_with_one_vcpu(&{}, {});", vcpu, code);
      Add(KeepsVm() ? fmt::format("\t{} = {}\n", vm, make) : "\t" + make + "\n");
      vm_names.push_back(vm);
    } else if (selftest_) {
      Add(fmt::format("\t{} = vm_vcpu_add({}, {}, {});\n", vcpu, vm, v, code));
    } else {
      Add(fmt::format("\t{} = vm_vcpu_add({}, {});\n", vcpu, vm, code));
    }
  }
  for (unsigned v = 0; v < program_.vcpus; ++v) {
    Add(fmt::format("\tenable_xcr0({});\n", VcpuName(program_, v)));
  }
  for (const std::string& vector : Vectors()) {
    for (const auto& vm : vm_names) {
      if (!selftest_) continue;
      Add(fmt::format("\tvm_install_exception_handler({}, {}, fault_handler);\n", vm, vector));
    }
  }
  if (guest_.mmio) {
    for (const auto& vm : vm_names) {
      Add(selftest_ ? fmt::format("\tvirt_map({}, MMIO_GVA, MMIO_GVA, 1);\n", vm)
                    : "\tmap_page(MMIO_GVA, MMIO_GVA);\n");
    }
  }
  for (const std::string& line : data_.Fills(request_.format)) {
    if (!line.starts_with('@')) {
      Add("\t" + line + "\n");
      continue;
    }
    for (const auto& vm : vm_names) {
      std::string text = line.substr(1);
      text.replace(text.find("{vm}"), 4, vm);
      Add("\t" + text + "\n");
    }
  }
  Add("\n");
  if (Uses(Helper::kMoveToCpu)) Add("\tmove_to_cpu(0);\n");
  Add(host_.body);
  Add("\n");
  if (selftest_) {
    for (const auto& vm : vm_names) Add(fmt::format("\tkvm_vm_free({});\n", vm));
  } else {
    Add("\tprintf(\"PASS\\n\");\n");
  }
  Add("\treturn 0;\n}\n");
}

}  // namespace

bool IsAboutAThread(const program::Program& program) {
  return std::ranges::any_of(program.steps, [](const program::Step& step) {
    return program::RowOf(step).actor == program::Actor::kSystem;
  });
}

std::expected<std::string, std::string> ExportC(const ExportRequest& request) {
  ExportRequest cut = request;
  if (cut.format == ExportFormat::kC && IsAboutAThread(cut.program)) {
    cut.format = ExportFormat::kThread;
  }
  // What comes behind the observation that diverged has no part in it.
  if (cut.divergence && ShowsAtItsStep(*cut.divergence)) {
    const size_t end = std::min(cut.program.steps.size(), size_t{cut.divergence->step} + 1);
    cut.program.steps.resize(end);
  }
  return Exporter(cut).Write();
}

}  // namespace fpswap::report
