// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/host.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "harness/plan/vmm.h"
#include "harness/program/text.h"
#include "oracle/xstate/image.h"

namespace fpswap::report {
namespace {

using program::Op;
using program::Step;
using xstate::Component;

// Calls with an argument of their own kind: the library's helper and the ioctl.
struct CallRow {
  Op op;
  const char* helper;
  const char* ioctl;
};
constexpr CallRow kCalls[] = {
    {Op::kGetXsave, "vcpu_xsave_get", "KVM_GET_XSAVE"},
    {Op::kGetXsave2, "vcpu_xsave2_get", "KVM_GET_XSAVE2"},
    {Op::kSetXsave, "vcpu_xsave_set", "KVM_SET_XSAVE"},
    {Op::kGetFpu, "vcpu_fpu_get", "KVM_GET_FPU"},
    {Op::kSetFpu, "vcpu_fpu_set", "KVM_SET_FPU"},
    {Op::kGetXcrs, "vcpu_xcrs_get", "KVM_GET_XCRS"},
    {Op::kSetXcrs, "vcpu_xcrs_set", "KVM_SET_XCRS"},
    {Op::kGetMsr, "vcpu_get_msr", "KVM_GET_MSRS"},
    {Op::kSetMsr, "_vcpu_set_msr", "KVM_SET_MSRS"},
    {Op::kSetXcrsList, "vcpu_xcrs_set", "KVM_SET_XCRS"},
    {Op::kGetMsrList, nullptr, "KVM_GET_MSRS"},
    {Op::kSetMsrList, nullptr, "KVM_SET_MSRS"},
    {Op::kGetMpState, "vcpu_mp_state_get", "KVM_GET_MP_STATE"},
    {Op::kOsGetRegset, nullptr, "PTRACE_GETREGSET"},
    {Op::kOsSetRegset, nullptr, "PTRACE_SETREGSET"},
};

const CallRow* CallOf(Op op) {
  const auto row = std::ranges::find(kCalls, op, &CallRow::op);
  return row == std::end(kCalls) ? nullptr : &*row;
}

const char* MsrName(program::Msr msr) {
  static constexpr const char* kNames[] = {
      "MSR_IA32_XSS",     "MSR_IA32_XFD",     "MSR_IA32_XFD_ERR",
      "MSR_IA32_U_CET",   "MSR_IA32_S_CET",   "MSR_IA32_PL0_SSP",
      "MSR_IA32_PL1_SSP", "MSR_IA32_PL2_SSP", "MSR_IA32_PL3_SSP"};
  return kNames[static_cast<size_t>(msr) % std::size(kNames)];
}

std::string ErrnoName(int error) {
  switch (error) {
    case EINVAL:
      return "EINVAL";
    case EIO:
      return "EIO";
    case EFAULT:
      return "EFAULT";
    case EINTR:
      return "EINTR";
    case EPERM:
      return "EPERM";
    default:
      return std::to_string(error);
  }
}

class HostWriter {
 public:
  HostWriter(const ExportRequest& request, const Prediction& prediction,
             const std::vector<StepChecks>& checks, const GuestCode& guest, TestData& data)
      : request_(request),
        p_(prediction),
        program_(prediction.plan.effective),
        checks_(checks),
        guest_(guest),
        data_(data) {
    cpl_.fill(3);
  }

  std::expected<HostCode, std::string> Write() {
    for (const plan::Action& action : p_.plan.actions) {
      if (action.kind == plan::ActionKind::kRun) {
        Run(action);
        continue;
      }
      const Step& step = program_.steps[action.first];
      const size_t before = code_.body.size();
      if (!Do(action.first)) {
        return std::unexpected(fmt::format("step {} ({}) has no counterpart in an exported test",
                                           action.first, program::PrintStep(step)));
      }
      const bool said =
          action.first < request_.comments.size() && !request_.comments[action.first].empty();
      if (said) code_.body.insert(before, CommentText(request_.comments[action.first], 1));
    }
    return code_;
  }

 private:
  bool Selftest() const { return request_.format == ExportFormat::kSelftest; }
  bool Thread() const { return request_.format == ExportFormat::kThread; }
  void Use(Helper helper) { code_.helpers.insert(helper); }
  std::string Vcpu(unsigned vcpu) const { return VcpuName(program_, vcpu); }
  std::string Vm(unsigned vcpu) const { return VmName(program_, vcpu); }
  template <typename... Args>
  void Line(fmt::format_string<Args...> format, Args&&... args) {
    code_.body += "\t" + fmt::format(format, std::forward<Args>(args)...) + "\n";
  }
  // A call, its later arguments under the first where the line would be too long.
  void Call(const std::string& head, const std::vector<std::string>& rest) {
    const size_t column = 8 + head.find('(') + 1;
    std::string line = "\t" + head;
    size_t width = 7 + line.size();
    for (const std::string& part : rest) {
      if (width + 1 + part.size() <= 90) {
        line += " " + part;
        width += 1 + part.size();
        continue;
      }
      line += "\n" + std::string(column / 8, '\t') + std::string(column % 8, ' ') + part;
      width = column + part.size();
    }
    code_.body += line + "\n";
  }
  void Call(const std::string& head, const std::string& rest) { Call(head, std::vector{rest}); }

  // --- guest
  void Run(const plan::Action& action) {
    if (!code_.body.empty()) code_.body += "\n";
    Use(Helper::kRunGuest);
    const std::string vcpu = Vcpu(action.vcpu);
    if (!Selftest() && !Thread() && cpl_[action.vcpu] != action.cpl) {
      Line("set_cpl({}, {});", vcpu, action.cpl);
      cpl_[action.vcpu] = action.cpl;
    }
    if (interrupted_.erase(action.vcpu) != 0) {
      Use(Helper::kRunInterrupted);
      Line("run_interrupted({});", vcpu);
    }
    for (size_t i = action.first; i <= action.last; ++i) Exits(vcpu, i);
    const Op last = program_.steps[action.last].op;
    if (last != Op::kExitOut && last != Op::kExitHlt) {
      Line("run_guest({});", Thread() ? "" : vcpu);
    }
    for (size_t i = action.first; i <= action.last; ++i) Stored(action.vcpu, i);
  }

  // The exits of one step that has any, in place.
  void Exits(const std::string& vcpu, size_t i) {
    const Step& step = program_.steps[i];
    switch (step.op) {
      case Op::kExitOut:
        return Line("run_guest({});", vcpu);
      case Op::kExitHlt:
        Line("vcpu_run({});", vcpu);
        return Line("TEST_ASSERT_KVM_EXIT_REASON({}, KVM_EXIT_HLT);", vcpu);
      case Op::kExitMmioRead:
      case Op::kExitMmioWrite:
      case Op::kExitMmioVector:
        break;
      default:
        return;
    }
    if (i >= p_.known_until) return;
    const ForetoldStep& told = p_.steps[i];
    for (unsigned n = 0; n < told.exits; ++n) {
      Use(Helper::kMmio);
      Line("vcpu_run({});", vcpu);
      Line("TEST_ASSERT_KVM_EXIT_REASON({}, KVM_EXIT_MMIO);", vcpu);
      const bool writes =
          step.op == Op::kExitMmioWrite || (step.op == Op::kExitMmioVector && step.arg[0] != 0);
      if (!writes) {
        const auto pattern = static_cast<uint16_t>(i + 2);
        const std::string bytes = data_.Pattern(pattern, 16, false);
        Line("memcpy({}->run->mmio.data, {}{}, 8);", vcpu, bytes, n == 0 ? "" : " + 8");
      } else if (checks_[i].exits) {
        const size_t size = told.exit_size[n] != 0 ? told.exit_size[n] : 8;
        if (!told.exit_data[n].IsFixed(0, size)) continue;
        Bytes(fmt::format("MMIO write of the guest, part {}", n),
              fmt::format("{}->run->mmio.data", vcpu),
              std::span(told.exit_data[n].value).first(size), "mmio_data");
      }
    }
  }

  // What the guest stored at step `i` of its stay.
  void Stored(unsigned vcpu, size_t i) {
    const StepChecks& checks = checks_[i];
    const Step& step = program_.steps[i];
    const std::string name{program::RowOf(step).name};
    if (!guest_.vector[i].empty()) {
      Sync(vcpu, guest_.vector[i]);
      if (checks.fault) {
        Use(Helper::kCheckValue);
        const bool faults = p_.steps[i].faults != 0;
        Call(fmt::format("check_value(\"Vector of {}\",", UpperName(step)),
             fmt::format("{}, {});", guest_.vector[i],
                         faults ? VectorName(p_.steps[i].vector) : "0"));
      }
    }
    if (guest_.stored[i].empty()) return;
    if (checks.values.empty() && checks.shown.empty()) return;
    Sync(vcpu, guest_.stored[i]);
    for (const ShownAndStored& a : checks.shown) Agrees(a, guest_.stored[i]);
    if (checks.values.empty()) return;
    const Seen seen = SeenAt(step);
    if (seen == Seen::kArea || seen == Seen::kFxArea) {
      const bool compacted = step.op == Op::kXsavec || step.op == Op::kXsaves;
      const std::string base = step.arg[1] == 0
                                   ? guest_.stored[i]
                                   : fmt::format("{} + {}", guest_.stored[i], step.arg[1]);
      Fields(checks.values, base, fmt::format(" of {}", UpperName(step)),
             compacted ? Place::kCompacted : Place::kStandard,
             static_cast<uint32_t>(seen == Seen::kArea ? step.arg[1] : 0));
      return;
    }
    const Check& check = checks.values[0];
    const std::string what = check.field.name + " in the guest";
    if (IsNumber(check.field.size)) {
      Value(what, guest_.stored[i], check);
    } else {
      Bytes(what, guest_.stored[i], check.expected, "expected_" + guest_.stored[i]);
    }
  }

  // What a call gave for a register is what the guest has stored since.
  void Agrees(const ShownAndStored& a, const std::string& stored) {
    const Step& call = program_.steps[a.shown];
    const bool fpu = SeenAt(call) == Seen::kFpu;
    const std::string base = fpu ? "fpu" : fmt::format("image{}", call.arg[0]);
    const std::string at = At(a.field, base, fpu ? Place::kFpu : Place::kStandard, 0);
    const std::string what = fmt::format("{} of {}", a.field.name, CallOf(call.op)->ioctl);
    if (!a.field.scalar) {
      Use(Helper::kCheckBytes);
      return Call(fmt::format("check_bytes(\"{}\",", what),
                  {at + ",", stored + ",", fmt::format("{});", a.field.size)});
    }
    Use(Helper::kCheckValue);
    Call(fmt::format("check_value(\"{}\",", what), {Scalar(a.field, at, fpu) + ",", stored + ");"});
  }

  static std::string UpperName(const Step& step) {
    std::string name{program::RowOf(step).name};
    if (const size_t dot = name.find('.'); dot != std::string::npos) name.erase(0, dot + 1);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::toupper(c); });
    return name;
  }

  void Sync(unsigned vcpu, const std::string& name) {
    if (Selftest()) Line("sync_global_from_guest({}, {});", Vm(vcpu), name);
    if (Thread()) {
      Use(Helper::kSync);
      Line("sync_from_guest({});", name);
    }
  }

  // --- assertions
  void Value(const std::string& what, const std::string& seen, const Check& check) {
    uint64_t expected = 0, mask = 0, all = ~uint64_t{0};
    std::memcpy(&expected, check.expected.data(), check.expected.size());
    std::memcpy(&mask, check.mask.data(), check.mask.size());
    if (check.mask.size() < 8) all >>= 64 - 8 * check.mask.size();
    const bool bitmap = check.field.name == "XSTATE_BV" || check.field.name == "XINUSE" ||
                        check.field.name == "XCR0";
    std::vector<std::string> rest;
    if (mask != all && mask == expected) {
      Use(Helper::kCheckBits);
      rest = Words(MaskText(expected) + ");");
      rest.insert(rest.begin(), seen + ",");
      return Call(fmt::format("check_bits(\"{}\",", what), rest);
    }
    Use(Helper::kCheckValue);
    if (mask == all) {
      rest.push_back(seen + ",");
    } else {
      rest = Words("(" + MaskText(mask) + "),");
      rest.insert(rest.begin(), seen + " &");
    }
    for (std::string& word :
         Words((bitmap ? MaskText(expected) : fmt::format("0x{:x}", expected)) + ");")) {
      rest.push_back(std::move(word));
    }
    Call(fmt::format("check_value(\"{}\",", what), rest);
  }

  // "A | B" as "A |" and "B", between which a line may end.
  static std::vector<std::string> Words(const std::string& mask) {
    std::vector<std::string> words;
    size_t at = 0;
    for (size_t bar; (bar = mask.find(" | ", at)) != std::string::npos; at = bar + 3) {
      words.push_back(mask.substr(at, bar - at) + " |");
    }
    words.push_back(mask.substr(at));
    return words;
  }

  void Bytes(const std::string& what, const std::string& seen, std::span<const uint8_t> expected,
             const std::string& prefix) {
    Use(Helper::kCheckBytes);
    Call(
        fmt::format("check_bytes(\"{}\",", what),
        {seen + ",", data_.Expected(prefix, expected) + ",", fmt::format("{});", expected.size())});
  }

  enum class Place { kStandard, kCompacted, kFpu };

  std::string At(const Field& f, const std::string& base, Place place, uint32_t shift) {
    if (place == Place::kFpu) return FpuMember(f, base);
    if (!f.extended) return base + " + " + LegacyOffset(f.offset - shift);
    std::string component;
    const std::string mask = MaskName(f.component);
    if (place == Place::kCompacted) {
      Use(Helper::kAreaComponent);
      component = fmt::format("area_component({}, {})", base, mask);
    } else {
      Use(Helper::kXstateOffset);
      component = fmt::format("{} + xstate_offset({})", base, mask);
    }
    return f.within == 0 ? component : fmt::format("{} + {}", component, f.within);
  }

  static std::string LegacyOffset(uint32_t offset) {
    switch (offset) {
      case 0:
        return "FCW_OFFSET";
      case 2:
        return "FSW_OFFSET";
      case 4:
        return "FTW_OFFSET";
      case 6:
        return "FOP_OFFSET";
      case 24:
        return "MXCSR_OFFSET";
      case 512:
        return "XSTATE_BV_OFFSET";
      case 520:
        return "XCOMP_BV_OFFSET";
      default:
        break;
    }
    if (offset >= 160 && offset < 416 && offset % 16 == 0) {
      return fmt::format("XMM_OFFSET + {} * 16", (offset - 160) / 16);
    }
    if (offset >= 32 && offset < 160 && offset % 16 == 0) {
      return fmt::format("ST_OFFSET + {} * 16", (offset - 32) / 16);
    }
    return std::to_string(offset);
  }

  static std::string FpuMember(const Field& f, const std::string& base) {
    switch (f.home) {
      case 0:
        return base + ".fcw";
      case 2:
        return base + ".fsw";
      case 4:
        return base + ".ftwx";
      case 6:
        return base + ".last_opcode";
      case 24:
        return base + ".mxcsr";
      case 8:
      case 12:
      case 16:
      case 20:
        return fmt::format("*(u32 *)((u8 *)&{} + {})", base, f.offset);
      default:
        return f.home >= 160 ? fmt::format("{}.xmm[{}]", base, (f.home - 160) / 16)
                             : fmt::format("{}.fpr[{}]", base, (f.home - 32) / 16);
    }
  }

  void Fields(const std::vector<Check>& checks, const std::string& base, const std::string& of,
              Place place, uint32_t shift) {
    for (size_t i = 0; i < checks.size();) {
      const Check& check = checks[i];
      const std::string at = At(check.field, base, place, shift);
      const std::string what = check.field.name + of;
      if (check.field.scalar) {
        Value(what, Scalar(check.field, at, place == Place::kFpu), check);
        ++i;
        continue;
      }
      // Registers side by side that are to hold what stands side by side are one assertion.
      std::vector<uint8_t> bytes = check.expected;
      size_t last = i;
      for (size_t next = i + 1; next < checks.size(); ++next) {
        const Field &f = checks[next].field, &before = checks[last].field;
        if (f.scalar || f.offset != before.offset + before.size || f.component != before.component)
          break;
        std::vector<uint8_t> more = bytes;
        more.insert(more.end(), checks[next].expected.begin(), checks[next].expected.end());
        std::string found;
        const bool zero = std::ranges::all_of(more, [](uint8_t b) { return b == 0; });
        if (!zero && !data_.Find(more, found)) break;
        bytes = std::move(more);
        last = next;
      }
      const std::string range =
          last == i ? check.field.name : check.field.name + " to " + checks[last].field.name;
      std::string prefix = check.field.name.substr(0, check.field.name.find('['));
      std::ranges::transform(prefix, prefix.begin(), [](unsigned char c) {
        return std::isalnum(c) ? std::tolower(c) : '_';
      });
      Bytes(range + of, at, bytes, "expected_" + prefix);
      i = last + 1;
    }
  }

  // A number at that place, or the member of a structure that it is.
  static std::string Scalar(const Field& f, const std::string& at, bool member) {
    return member ? at : fmt::format("*({} *)({})", TypeOf(f.size), at);
  }

  // --- the VMM
  bool Do(size_t i);
  void ImageStep(const Step& step);
  void ImagePiece(const std::string& image, uint64_t at, std::span<const uint8_t> bytes,
                  const Step& step, uint64_t into);
  void XsaveCall(const Step& step, size_t i);
  void AllowKey0(uint64_t image);
  void SetFpu(const Step& step, size_t i);
  void SetXcrs(const Step& step, size_t i);
  void Msr(const Step& step, size_t i);
  void MsrList(const Step& step, size_t i);
  // A call that returns how many MSRs were `done`.
  void CountOfMsrs(size_t i, const std::string& call, const std::string& what, const char* done);
  void Migrate(const Step& step);

  // A call that must succeed, by the library; one whose result is asserted, by hand.
  void Ioctl(const Step& step, size_t i, const std::string& pointer) {
    const CallRow* row = CallOf(step.op);
    const std::string vcpu = Vcpu(step.vcpu);
    // A refusal is asserted even where the test is about something else: it is its precondition.
    const bool refused = i < p_.known_until && p_.steps[i].one_result && p_.steps[i].result < 0;
    const bool open = i < p_.known_until && !p_.steps[i].one_result;
    const std::string call =
        Thread() ? fmt::format("regset({}, {})", row->ioctl, pointer)
                 : fmt::format("__vcpu_ioctl({}, {}, {})", vcpu, row->ioctl, pointer);
    if (open) return Line("{};", call);
    if (refused) {
      Use(Helper::kRet);
      Line("ret = {};", call);
      const std::string error = ErrnoName(p_.steps[i].error);
      Call(fmt::format("TEST_ASSERT(ret == -1 && errno == {},", error),
           fmt::format("\"{}: expected {}, got %d (errno %d)\", ret, errno);", row->ioctl, error));
      return;
    }
    if (Thread()) {
      Call(fmt::format("TEST_ASSERT(!{},", call),
           fmt::format("\"{}: %s\", strerror(errno));", row->ioctl));
    } else if (Selftest()) {
      Line("{}({}, {});", row->helper, vcpu, pointer);
    } else {
      Line("vcpu_ioctl({}, {}, {});", vcpu, row->ioctl, pointer);
    }
  }

  void EnsureImage(uint64_t n) {
    data_.Image(n);
    if (image_ready_.insert(n).second) {
      Use(Helper::kInitImage);
      Line("init_image(image{});", n);
    }
  }

  const ExportRequest& request_;
  const Prediction& p_;
  const program::Program& program_;
  const std::vector<StepChecks>& checks_;
  const GuestCode& guest_;
  TestData& data_;
  HostCode code_;
  std::array<int, program::kMaxVcpus> cpl_{};
  std::set<uint64_t> image_ready_;
  std::set<unsigned> interrupted_;  // vCPUs whose next KVM_RUN a signal meets
};

bool HostWriter::Do(size_t i) {
  const Step& step = program_.steps[i];
  const std::string vcpu = Vcpu(step.vcpu);
  switch (step.op) {
    case Op::kImageInit:
      image_ready_.insert(step.arg[0]);
      Use(Helper::kInitImage);
      Line("init_image({});", data_.Image(step.arg[0]));
      return true;
    case Op::kImageWrite:
    case Op::kImageFill:
      ImageStep(step);
      return true;
    case Op::kGetXsave:
    case Op::kGetXsave2:
    case Op::kSetXsave:
      XsaveCall(step, i);
      return true;
    case Op::kOsSetRegset:
      AllowKey0(step.arg[0]);
      [[fallthrough]];
    case Op::kOsGetRegset:
      Use(Helper::kRegset);
      XsaveCall(step, i);
      return true;
    case Op::kGetFpu:
      Use(Helper::kFpu);
      Ioctl(step, i, "&fpu");
      Fields(checks_[i].values, "fpu", " of KVM_GET_FPU", Place::kFpu, 0);
      return true;
    case Op::kSetFpu:
      SetFpu(step, i);
      return true;
    case Op::kGetXcrs:
      Use(Helper::kXcrs);
      Ioctl(step, i, "&xcrs");
      if (!checks_[i].values.empty()) {
        Value("XCR0 of KVM_GET_XCRS", "xcrs.xcrs[0].value", checks_[i].values[0]);
      }
      return true;
    case Op::kSetXcrs:
    case Op::kSetXcrsList:
      SetXcrs(step, i);
      return true;
    case Op::kGetMsrList:
    case Op::kSetMsrList:
      MsrList(step, i);
      return true;
    case Op::kGetMsr:
    case Op::kSetMsr:
      Msr(step, i);
      return true;
    case Op::kSetCpuid:
      Use(Helper::kSetCpuid);
      Line("set_cpuid({}, {});", vcpu, MaskText(step.arg[0] & p_.components));
      return true;
    case Op::kGetMpState:
      Use(Helper::kMpState);
      Ioctl(step, i, "&mp_state");
      return true;
    case Op::kRunImmediate:
      Use(Helper::kRet);
      // One that meets both sees one EINTR.
      interrupted_.erase(step.vcpu);
      Line("{}->run->immediate_exit = 1;", vcpu);
      Line("ret = __vcpu_ioctl({}, KVM_RUN, NULL);", vcpu);
      Line("TEST_ASSERT(ret == -1 && errno == EINTR,");
      Line(
          "\t    \"KVM_RUN with immediate_exit: expected EINTR, got %d (errno %d)\", ret, errno);");
      Line("{}->run->immediate_exit = 0;", vcpu);
      return true;
    case Op::kMigrate:
      Migrate(step);
      return true;
    case Op::kInit:
      Use(Helper::kSendInit);
      Line("send_init({});", vcpu);
      return true;
    case Op::kHostCpu:
      Use(Helper::kMoveToCpu);
      Line("move_to_cpu({});", step.arg[0]);
      return true;
    case Op::kHostSignal:
      if (Thread()) {
        Use(Helper::kSendSignal);
        Line("send_signal();");
      } else {
        interrupted_.insert(step.vcpu);
      }
      return true;
    case Op::kHostDirty:
      Use(Helper::kDirtyRegisters);
      Line("{}();", Thread() ? "fill_host_registers" : "dirty_registers");
      return true;
    case Op::kHostPkru:
      // Key 0 stays allowed: all of this program's memory has it.
      Line("asm volatile(\"wrpkru\" : : \"a\" (0x{:x}), \"c\" (0), \"d\" (0));",
           step.arg[0] & ~3ull);
      return true;
    default:
      return false;
  }
}

void HostWriter::ImageStep(const Step& step) {
  EnsureImage(step.arg[0]);
  const uint64_t room = p_.platform.xsave_size;
  const uint64_t at = std::min<uint64_t>(step.arg[1], room);
  std::vector<uint8_t> bytes;
  if (step.op == Op::kImageWrite) {
    bytes.resize(8);
    std::memcpy(bytes.data(), &step.arg[2], 8);
  } else {
    bytes = PatternBytes(static_cast<uint16_t>(step.arg[3]), step.arg[2]);
  }
  bytes.resize(std::min<uint64_t>(bytes.size(), room - at));
  const std::string image = data_.Image(step.arg[0]);
  // Piece by piece, for each component lies where CPUID says.
  const uint64_t end = at + bytes.size();
  const auto piece = [&](uint64_t begin, uint64_t size, const std::string& place, uint64_t base) {
    const uint64_t from = std::max(at, begin), to = std::min(end, begin + size);
    if (from >= to) return;
    const std::string where =
        from == begin && base == 0 ? place : fmt::format("{} + {}", place, from - begin + base);
    ImagePiece(where, from, std::span(bytes).subspan(from - at, to - from), step, from - at);
  };
  if (at < xstate::kExtendedOffset) {
    const uint64_t to = std::min<uint64_t>(end, xstate::kExtendedOffset);
    ImagePiece(image + " + " + LegacyOffset(static_cast<uint32_t>(at)), at,
               std::span(bytes).first(to - at), step, 0);
  }
  xstate::ForEachStandard(p_.platform.host.xsave, p_.platform.host.xsave.xcr0,
                          [&](Component c, uint64_t offset, uint64_t size) {
                            if (at >= offset + size || offset >= end) return;
                            Use(Helper::kXstateOffset);
                            piece(offset, size,
                                  fmt::format("{} + xstate_offset({})", image, MaskName(c)), 0);
                          });
}

void HostWriter::ImagePiece(const std::string& where, uint64_t at, std::span<const uint8_t> bytes,
                            const Step& step, uint64_t into) {
  if (step.op == Op::kImageWrite && IsNumber(bytes.size())) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    const std::string text = at == xstate::kHeaderOffset || at == xstate::kHeaderOffset + 8
                                 ? MaskText(value)
                                 : fmt::format("0x{:x}", value);
    return Line("*({} *)({}) = {};", TypeOf(bytes.size()), where, text);
  }
  std::string from;
  if (step.op == Op::kImageFill) {
    from = data_.Pattern(static_cast<uint16_t>(step.arg[3]), into + bytes.size(), false);
    if (into != 0 && from != "zeros") from += fmt::format(" + {}", into);
  } else {
    from = data_.Expected("bytes", bytes);
  }
  Line("memcpy({}, {}, {});", where, from, bytes.size());
}

// As the model's PTRACE_SETREGSET has it (plan/vmm.h).
void HostWriter::AllowKey0(uint64_t image) {
  if ((p_.components & Bit(Component::kPkru)) == 0) return;
  EnsureImage(image);
  Use(Helper::kXstateOffset);
  code_.body += CommentText("Key 0 stays allowed: all of the child's memory has it.", 1);
  Line("*(u32 *)(image{} + xstate_offset(XFEATURE_MASK_PKRU)) &= ~3u;", image);
}

void HostWriter::XsaveCall(const Step& step, size_t i) {
  const bool get = step.op != Op::kSetXsave && step.op != Op::kOsSetRegset;
  if (get) {
    data_.Image(step.arg[0]);
    image_ready_.insert(step.arg[0]);
  } else {
    EnsureImage(step.arg[0]);
  }
  const std::string image = fmt::format("image{}", step.arg[0]);
  Ioctl(step, i, Selftest() ? fmt::format("(struct kvm_xsave *){}", image) : image);
  if (get && !checks_[i].values.empty()) {
    Fields(checks_[i].values, image, fmt::format(" of {}", CallOf(step.op)->ioctl),
           Place::kStandard, 0);
  }
}

void HostWriter::SetFpu(const Step& step, size_t i) {
  Use(Helper::kFpu);
  std::array<uint8_t, plan::kFpuSize> bytes{};
  plan::FillFpu(step, bytes);
  const auto pattern = static_cast<uint16_t>(step.arg[0]);
  if (pattern < 2) {
    Line("memset(&new_fpu, {}, sizeof(new_fpu));", pattern == 0 ? "0" : "0xff");
  } else {
    Use(Helper::kFillPattern);
    Line("fill_pattern(&new_fpu, sizeof(new_fpu), 0x{:x}ull);", program::PatternKey(pattern));
  }
  Line("new_fpu.fcw = 0x{:x};", step.arg[1]);
  Line("new_fpu.mxcsr = 0x{:x};", step.arg[2]);
  Ioctl(step, i, "&new_fpu");
  for (unsigned n = 0; n < 16; ++n) {
    data_.AddSource(fmt::format("new_fpu.xmm[{}]", n),
                    std::span(bytes).subspan(152 + 16 * n, 16 * (16 - n)));
  }
  for (unsigned n = 0; n < 8; ++n) {
    data_.AddSource(fmt::format("new_fpu.fpr[{}]", n), std::span(bytes).subspan(16 * n, 10));
  }
}

void HostWriter::SetXcrs(const Step& step, size_t i) {
  Use(Helper::kXcrs);
  const plan::XcrList list = plan::XcrsOf(step);
  Line("memset(&xcrs, 0, sizeof(xcrs));");
  Line("xcrs.nr_xcrs = {};", list.count);
  if (list.flags != 0) Line("xcrs.flags = 0x{:x};", list.flags);
  // Of entries that are all the same two say enough.
  for (unsigned n = 0; n < std::min(list.count, 2u); ++n) {
    if (list.entry[n].xcr != 0) Line("xcrs.xcrs[{}].xcr = {};", n, list.entry[n].xcr);
    Line("xcrs.xcrs[{}].value = {};", n, MaskText(list.entry[n].value));
  }
  Ioctl(step, i, "&xcrs");
}

void HostWriter::Msr(const Step& step, size_t i) {
  Use(Helper::kMsr);
  const std::string vcpu = Vcpu(step.vcpu);
  const plan::MsrEntry entry = plan::MsrsOf(step).entry[0];
  const char* msr = MsrName(entry.msr);
  if (step.op == Op::kGetMsr) {
    if (checks_[i].values.empty()) return;
    return Value(fmt::format("{} of KVM_GET_MSRS", msr),
                 fmt::format("vcpu_get_msr({}, {})", vcpu, msr), checks_[i].values[0]);
  }
  CountOfMsrs(i, fmt::format("_vcpu_set_msr({}, {}, {})", vcpu, msr, MaskText(entry.value)),
              fmt::format("KVM_SET_MSRS of {}", msr), "set");
}

void HostWriter::MsrList(const Step& step, size_t i) {
  Use(Helper::kMsrList);
  const bool set = step.op == Op::kSetMsrList;
  const char* call = CallOf(step.op)->ioctl;
  const plan::MsrList list = plan::MsrsOf(step);
  Line("memset(&msrs, 0, sizeof(msrs));");
  Line("msrs.head.nmsrs = {};", list.count);
  for (unsigned n = 0; n < list.count; ++n) {
    Line("msrs.entry[{}].index = {};", n, MsrName(list.entry[n].msr));
    if (set) Line("msrs.entry[{}].data = {};", n, MaskText(list.entry[n].value));
  }
  CountOfMsrs(i, fmt::format("__vcpu_ioctl({}, {}, &msrs.head)", Vcpu(step.vcpu), call), call,
              set ? "set" : "read");
  for (const Check& check : checks_[i].values) {
    Value(fmt::format("{} of {}", MsrName(list.entry[check.field.offset / 8].msr), call),
          fmt::format("msrs.entry[{}].data", check.field.offset / 8), check);
  }
}

void HostWriter::CountOfMsrs(size_t i, const std::string& call, const std::string& what,
                             const char* done) {
  if (i >= p_.known_until || !p_.steps[i].one_result) return Line("{};", call);
  Use(Helper::kRet);
  Line("ret = {};", call);
  Call(fmt::format("TEST_ASSERT(ret == {},", p_.steps[i].result),
       fmt::format("\"{}: expected {} MSRs to be {}, got %d\", ret);", what, p_.steps[i].result,
                   done));
}

void HostWriter::Migrate(const Step& step) {
  Use(Helper::kMigrate);
  if (!Selftest()) {
    return Line("migrate({});", Vm(step.vcpu));
  }
  // Every vCPU of the VM is saved before it goes, and restored in a fresh one.
  std::vector<unsigned> moved;
  for (unsigned v = 0; v < program_.vcpus; ++v) {
    if (!program_.own_vm || v == step.vcpu) moved.push_back(v);
  }
  const std::string vm = Vm(step.vcpu);
  for (const unsigned v : moved) Line("state[{}] = vcpu_save_state({});", v, Vcpu(v));
  Line("kvm_vm_release({});", vm);
  for (const unsigned v : moved) {
    if (v == moved.front()) {
      Line("{} = vm_recreate_with_one_vcpu({});", Vcpu(v), vm);
    } else {
      Line("{} = vm_vcpu_recreate({}, {});", Vcpu(v), vm, v);
    }
  }
  for (const unsigned v : moved) {
    Line("vcpu_load_state({}, state[{}]);", Vcpu(v), v);
    Line("kvm_x86_state_cleanup(state[{}]);", v);
  }
}

}  // namespace

const char* VectorName(uint8_t vector) {
  switch (vector) {
    case 6:
      return "UD_VECTOR";
    case 7:
      return "NM_VECTOR";
    case 13:
      return "GP_VECTOR";
    case 14:
      return "PF_VECTOR";
    case 16:
      return "MF_VECTOR";
    case 17:
      return "AC_VECTOR";
    default:
      return "XM_VECTOR";
  }
}

std::string VcpuName(const program::Program& program, unsigned vcpu) {
  return program.vcpus == 1 ? "vcpu" : fmt::format("vcpu{}", vcpu);
}
std::string VmName(const program::Program& program, unsigned vcpu) {
  return program.vcpus == 1 || !program.own_vm ? "vm" : fmt::format("vm{}", vcpu);
}

std::expected<HostCode, std::string> WriteHost(const ExportRequest& request,
                                               const Prediction& prediction,
                                               const std::vector<StepChecks>& checks,
                                               const GuestCode& guest, TestData& data) {
  return HostWriter(request, prediction, checks, guest, data).Write();
}

}  // namespace fpswap::report
