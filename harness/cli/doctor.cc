// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap doctor: what this machine can test, and for what is missing the reason and the remedy.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>

#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/plan/plan.h"
#include "harness/program/text.h"
#include "harness/targets/lab.h"
#include "harness/trace/trace.h"

namespace fpswap::cli {
namespace {

using nlohmann::json;

constexpr size_t kMaxPlatformFile = 1 << 20;

struct Machine {
  std::string cpu = "unknown", kernel, modules;
};

Machine LookAround() {
  Machine machine;
  utsname name{};
  if (uname(&name) == 0) machine.kernel = name.release;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      machine.cpu = line.substr(colon + 2);
      break;
    }
  }
  for (const char* module : {"kvm_intel", "kvm_amd", "kvm_pvm"}) {
    std::error_code status;
    if (!std::filesystem::exists(fmt::format("/sys/module/{}", module), status)) continue;
    machine.modules += fmt::format("{}{}", machine.modules.empty() ? "" : ", ", module);
  }
  return machine;
}

// What would have to be different for `row` to run.
std::string Remedy(const program::StepRow& row, const trace::Platform& platform) {
  const bool kvm = platform.target == "kvm";
  if (platform.target == "unicorn") {
    return row.actor == program::Actor::kGuest && !row.cpl0 ? "use --target native or kvm"
                                                            : "use --target kvm";
  }
  if (!plan::Has(platform.host, row.needs)) return "run on a machine whose CPU has it";
  if (!plan::Has(platform.guest, row.needs)) {
    return "this KVM does not offer it to guests: try another kernel or vendor module";
  }
  if (row.actor == program::Actor::kSystem) return kvm ? "use --target native" : "";
  if (row.actor != program::Actor::kGuest && !kvm) return "use --target kvm";
  if (row.cpl0 && kvm) {
    return "needs a KVM that runs guest code at CPL 0 on the CPU (kvm_intel, kvm_amd)";
  }
  if (row.cpl0) return "use --target kvm: privileged instructions need a guest";
  return "";
}

// Steps that can't run, by (reason, remedy).
using Missing = std::map<std::pair<std::string, std::string>, std::vector<std::string>>;
Missing FindMissing(const trace::Platform& platform) {
  Missing missing;
  for (const auto& [op, reason] : platform.cannot) {
    const program::StepRow* row = program::FindStep(static_cast<program::Op>(op));
    if (row == nullptr) continue;
    missing[{reason, Remedy(*row, platform)}].emplace_back(row->name);
  }
  return missing;
}

// How a component stands on `platform`, in words.
std::string ComponentState(const xstate::ComponentRow& row, const trace::Platform& platform) {
  const uint64_t bit = xstate::Bit(row.id);
  const auto listed = [&](const cpu::Features& f) {
    return ((row.supervisor ? f.xsave.xss : f.xsave.xcr0) & bit) != 0;
  };
  if (listed(platform.guest)) {
    if (row.supervisor && !platform.can.test(static_cast<uint8_t>(program::Op::kXsaves))) {
      return "there, but out of reach: XSAVES can't run here";
    }
    return row.modelled ? "tested" : "there, but not modelled: its place in images only";
  }
  if (!listed(platform.host)) {
    return platform.target == "unicorn" ? "Unicorn lacks it" : "the CPU lacks it";
  }
  if (row.xfd && (platform.guest_supp & bit) != 0 && (platform.guest_perm & bit) == 0) {
    return "the process lacks permission for guests (ARCH_REQ_XCOMP_GUEST_PERM)";
  }
  return "the CPU has it, guests are not offered it";
}

json Available(const trace::Platform& platform) {
  json components = json::object();
  for (const xstate::ComponentRow& row : xstate::Rows()) {
    components[std::string(row.name)] = ComponentState(row, platform);
  }
  json missing = json::array();
  for (const auto& [why, steps] : FindMissing(platform)) {
    missing.push_back({{"reason", why.first}, {"remedy", why.second}, {"steps", steps}});
  }
  return {{"steps", platform.can.count()},
          {"components", components},
          {"missing", missing},
          {"platform", json::parse(trace::PlatformToJson(platform), nullptr, false)}};
}

std::string Instructions(const cpu::Features& f) {
  static constexpr std::pair<bool cpu::Features::*, const char*> kFlags[] = {
      {&cpu::Features::avx, "AVX"},           {&cpu::Features::avx2, "AVX2"},
      {&cpu::Features::fma, "FMA"},           {&cpu::Features::avx512f, "AVX512F"},
      {&cpu::Features::avx512bw, "AVX512BW"}, {&cpu::Features::avx512dq, "AVX512DQ"},
      {&cpu::Features::avx512vl, "AVX512VL"}, {&cpu::Features::mpx, "MPX"},
      {&cpu::Features::pku, "PKU"},           {&cpu::Features::amx_tile, "AMX-TILE"},
      {&cpu::Features::amx_int8, "AMX-INT8"}, {&cpu::Features::amx_bf16, "AMX-BF16"}};
  std::string text = "XSAVE";
  if (f.xsave.xsaveopt) text += " XSAVEOPT";
  if (f.xsave.xsavec) text += " XSAVEC";
  if (f.xsave.xsaves) text += " XSAVES";
  if (f.xsave.xgetbv1) text += " XGETBV(1)";
  if (f.xsave.xfd) text += " XFD";
  for (const auto& [flag, name] : kFlags) {
    if (f.*flag) text += fmt::format(" {}", name);
  }
  return text;
}

// The CPU and the kernel as a target shows them.
std::string HostText(const trace::Platform& platform) {
  if (platform.target == "unicorn") {
    return fmt::format(
        "  {}, an emulator: a witness for the model; nothing of this host is tested\n",
        platform.cpu);
  }
  std::string text = fmt::format(
      "  XCR0 of the host {}, of guests {}; IA32_XSS of guests {}\n  instructions: {}\n"
      "  images: {} bytes, {} in the kernel; permission for guests {}; {} CPUs\n",
      program::PrintMask(platform.host_xcr0), program::PrintMask(platform.guest.xsave.xcr0),
      program::PrintMask(platform.guest.xsave.xss), Instructions(platform.guest),
      platform.xsave_size, platform.compacted ? "compacted" : "standard format",
      program::PrintMask(platform.guest_perm), platform.cpus);
  text += platform.kernel_log
              ? "  law 6 reads the kernel's log\n"
              : "  law 6 does without the kernel's log: /dev/kmsg can't be read (be "
                "root, or sysctl kernel.dmesg_restrict=0)\n";
  if (platform.kernel_coverage) {
    text += "  the kernel counts what programs reach of it (KCOV), which guides fuzzing\n";
  }
  if (platform.guest_fixed) {
    text += "  guests see the host's CPUID leaf 0DH whatever they are given\n";
  }
  return text;
}

std::string AvailableText(const trace::Platform& platform) {
  std::string text = HostText(platform);
  const auto can = [&](const program::StepRow& row) { return plan::CanRun(row, platform); };
  text +=
      fmt::format("  {} of {} steps can run\n", std::ranges::count_if(program::StepTable(), can),
                  program::StepTable().size());
  for (const xstate::ComponentRow& row : xstate::Rows()) {
    text += fmt::format("    {:12} {}\n", row.name, ComponentState(row, platform));
  }
  for (const auto& [why, steps] : FindMissing(platform)) {
    text += "  can't run:";
    for (const std::string& step : steps) text += " " + step;
    text += fmt::format("\n    reason: {}\n", why.first);
    if (!why.second.empty()) text += fmt::format("    remedy: {}\n", why.second);
  }
  return text;
}

// A lab is not started for this: what it can test is what it said when it last ran.
std::optional<trace::Platform> LastSeen(const targets::Lab& lab) {
  const auto text = files::ReadFile(targets::PlatformFile(lab), kMaxPlatformFile);
  auto platform = text ? trace::PlatformFromJson(*text) : std::unexpected(text.error());
  if (!platform) return {};
  return std::move(*platform);
}

std::string LabText(const targets::Lab& lab, const std::optional<trace::Platform>& seen) {
  std::string text = fmt::format("\ntarget {}{}: {}\n", targets::kLabPrefix, lab.name(), lab.about);
  if (!lab.debug.empty()) text += fmt::format("  its kernel has {}\n", fmt::join(lab.debug, ", "));
  if (!seen) return text + fmt::format("  not run yet: ci/lab check {}\n", lab.name());
  text += fmt::format("  {}, kernel {}, {}, as it was when it last ran\n", seen->cpu, seen->kernel,
                      seen->vendor_module);
  return text + AvailableText(*seen);
}

json LabJson(const targets::Lab& lab, const std::optional<trace::Platform>& seen) {
  json entry = seen ? Available(*seen) : json::object();
  entry["about"] = lab.about;
  entry["debug"] = lab.debug;
  entry["seen"] = seen.has_value();
  return entry;
}

}  // namespace

int Doctor(const DoctorOptions& options, const Io& io) {
  const Machine machine = LookAround();
  json targets = json::object();
  std::string text =
      fmt::format("CPU     {}\nkernel  {}\nKVM     {}\n", machine.cpu, machine.kernel,
                  machine.modules.empty() ? "no vendor module" : machine.modules);
  bool any = false;
  for (const std::string_view name : targets::TargetNames()) {
    const auto target = targets::OpenTarget(name, options.common.TargetOptions());
    any = any || target.has_value();
    json entry = target
                     ? Available((*target)->platform())
                     : json{{"reason", target.error().reason}, {"remedy", target.error().remedy}};
    entry["available"] = target.has_value();
    targets[std::string(name)] = std::move(entry);
    text += target ? fmt::format("\ntarget {}: available\n{}", name,
                                 AvailableText((*target)->platform()))
                   : fmt::format("\ntarget {}: not available\n  reason: {}\n  remedy: {}\n", name,
                                 target.error().reason, target.error().remedy);
  }
  json labs = json::object();
  for (const targets::Lab& lab : targets::Labs()) {
    const auto seen = LastSeen(lab);
    labs[lab.name()] = LabJson(lab, seen);
    text += LabText(lab, seen);
  }
  if (labs.empty()) {
    text +=
        "\nNo lab (a machine to test in, emulated or real) is set up: `ci/lab list`, "
        "docs/labs.md\n";
  }
  if (!any) text += "\nWithout a target `fpswap judge`, `show` and `reach` still work.\n";
  io.out(options.common.json ? Dump({{"cpu", machine.cpu},
                                     {"kernel", machine.kernel},
                                     {"vendor_modules", machine.modules},
                                     {"targets", targets},
                                     {"labs", labs}})
                             : text);
  return any ? kAgrees : kUnavailable;
}

void AddDoctor(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = app.add_subcommand(
      "doctor", "Tell what this machine can test, and what to do about what it can't");
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Doctor(*options, io); }; });
}

}  // namespace fpswap::cli
