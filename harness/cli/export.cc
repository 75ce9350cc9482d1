// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap export: a finding or a program as a KVM selftest in C, or as a C file of its own.
#include "harness/report/export/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <regex>

#include "harness/campaign/platforms.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/judge/judge.h"
#include "harness/program/text.h"
#include "harness/triage/finding.h"
#include "harness/triage/known.h"
#include "harness/triage/signature.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

using report::ExportRequest;

constexpr size_t kMaxJson = 1 << 20;

std::string TitleOf(const judge::Divergence& d) {
  static constexpr std::pair<judge::Relation, const char*> kWhat[] = {
      {judge::Relation::kStale, "is not an old value"},
      {judge::Relation::kInitial, "is not lost"},
      {judge::Relation::kInvented, "is not made up"},
      {judge::Relation::kShifted, "is in its place"},
      {judge::Relation::kAnothers, "is the guest's own"},
      {judge::Relation::kAccepted, "comes where it must"},
      {judge::Relation::kRefused, "does not come where all is well"},
      {judge::Relation::kWrongError, "is the right one"},
  };
  const auto row =
      std::ranges::find(kWhat, d.relation, &std::pair<judge::Relation, const char*>::first);
  const program::StepRow* step = program::FindStep(static_cast<program::Op>(d.op));
  return fmt::format("Test that the {} {}{}{}", d.where,
                     row == std::end(kWhat) ? "is as it must be" : row->second,
                     step == nullptr ? "" : ", at ", step == nullptr ? "" : step->name);
}

// "  # text" before a step becomes its comment; what is in front of the first line that is no
// comment, the head's.
std::vector<std::string> CommentsOf(std::string_view text) {
  std::vector<std::string> comments;
  std::string pending;
  static constexpr std::string_view kHeaders[] = {"fpswap", "features", "xcr0",      "pke",
                                                  "vcpus",  "own_vm",   "own_thread"};
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    const size_t first = line.find_first_not_of(" \t");
    if (first == std::string_view::npos) continue;
    line.remove_prefix(first);
    if (line.starts_with('#')) {
      line.remove_prefix(1);
      if (line.contains("SPDX-License-Identifier")) continue;
      if (const size_t word = line.find_first_not_of(" \t"); word != std::string_view::npos) {
        pending += (pending.empty() ? "" : " ") + std::string(line.substr(word));
      }
      continue;
    }
    const std::string_view word = line.substr(0, line.find_first_of(" \t"));
    if (std::ranges::find(kHeaders, word) != std::end(kHeaders)) continue;
    comments.push_back(std::exchange(pending, ""));
  }
  return comments;
}

std::expected<void, std::string> ReadTraceInto(const fs::path& path, ExportRequest& request,
                                               const std::string& signature) {
  const auto trace = ReadTraceFile(path);
  if (!trace) return std::unexpected(trace.error());
  request.program = trace->program;
  request.platform = trace->platform;
  const judge::Verdict verdict = judge::JudgeTrace(*trace);
  if (verdict.ok()) return {};
  // The one that the finding is of, or the first.
  const auto of = std::ranges::find_if(verdict.divergences, [&](const judge::Divergence& each) {
    return triage::SignatureOf(each).Key() == signature;
  });
  request.divergence = of == verdict.divergences.end() ? verdict.divergences.front() : *of;
  request.title = TitleOf(*request.divergence);
  request.about = {request.divergence->words};
  request.about.push_back(fmt::format(
      "Seen on {}, Linux {}{}{}.", trace->platform.cpu, trace->platform.kernel,
      trace->platform.vendor_module.empty() ? "" : ", ", trace->platform.vendor_module));
  return {};
}

std::expected<void, std::string> ReadProgramInto(const fs::path& path, ExportRequest& request) {
  auto program = files::ReadProgram(path);
  if (!program) return std::unexpected(program.error());
  const auto text = files::ReadFile(path, program::kMaxTextSize);
  if (text) request.comments = CommentsOf(*text);
  request.program = std::move(*program);
  request.platform = campaign::EverythingPlatform();
  request.title = fmt::format("Test {} FPU state: {}",
                              report::IsAboutAThread(request.program) ? "a thread's" : "guest",
                              path.stem().string());
  return {};
}

// As the KVM x86 maintainers want comments: functions with brackets, the SDM without section
// numbers, which change.
std::string InKernelStyle(std::string text, const std::string& function) {
  static const std::regex sections(R"(\s*\((SDM )?(vol\. \d, )?\d+\.[\d.]+(, \d+\.[\d.]+)*\))");
  text = std::regex_replace(text, sections, "");
  const bool plain = std::ranges::all_of(
      function, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
  for (size_t at = 0;
       plain && !function.empty() && (at = text.find(function, at)) != std::string::npos;) {
    at += function.size();
    if (!text.substr(at).starts_with("()")) text.insert(at, "()");
  }
  return text;
}

// A known divergence says what it is in known.json.
std::expected<void, std::string> DescribeKnown(const fs::path& folder, ExportRequest& request) {
  std::error_code status;
  if (!fs::exists(folder / "known.json", status)) return {};
  const auto text = files::ReadFile(folder / "known.json", kMaxJson);
  if (!text) return std::unexpected(text.error());
  const auto known = triage::ParseKnown(*text, folder.filename().string());
  if (!known) return std::unexpected(known.error());
  request.title = "Regression test: " + known->title;
  request.about.insert(request.about.begin(), InKernelStyle(known->reason, known->kernel_function));
  if (request.divergence) return {};
  report::ExportFocus focus;
  for (const uint8_t op : known->ops) {
    if (op != 0) focus.ops.push_back(static_cast<program::Op>(op));
  }
  for (const auto& component : known->components) {
    if (component) focus.components |= Bit(*component);
  }
  // "MXCSR of the image", "header XSTATE_BV of the image"
  if (!known->where.empty()) {
    const std::string& where = known->where.front();
    std::string field = where.substr(0, where.find(" of "));
    if (field.starts_with("header ")) field.erase(0, 7);
    const bool kept = focus.components != 0 && field != where;
    if (kept && focus.ops != std::vector{program::Op::kSetFpu}) focus.field = field;
  }
  request.focus = focus;
  return {};
}

}  // namespace

int Export(const ExportOptions& options, const Io& io) {
  ExportRequest request;
  std::error_code status;
  const bool folder = fs::is_directory(options.path, status);
  const fs::path path = TraceOrProgram(options.path);
  const auto name =
      folder ? triage::ReadFindingName(options.path) : std::unexpected(std::string("no folder"));
  const auto read = path.extension() == ".fpt" ? ReadTraceInto(path, request, name ? name->key : "")
                                               : ReadProgramInto(path, request);
  if (!read) return Fail(io, kBadInput, read.error());
  if (folder) {
    const auto described = DescribeKnown(options.path, request);
    if (!described) return Fail(io, kBadInput, described.error());
  }
  // What native has found is about the kernel's own swap of a thread's registers.
  const bool thread =
      request.platform.target == "native" || report::IsAboutAThread(request.program);
  const std::string format = !options.format.empty() ? options.format : thread ? "c" : "selftest";
  request.format = format == "selftest" ? report::ExportFormat::kSelftest
                   : thread             ? report::ExportFormat::kThread
                                        : report::ExportFormat::kC;
  const auto text = report::ExportC(request);
  if (!text) return Fail(io, kBadInput, fmt::format("{}: {}", path.string(), text.error()));
  nlohmann::json told = {
      {"file", options.output.string()}, {"format", format}, {"title", request.title}};
  if (options.output == "-") {
    told["text"] = *text;
    io.out(options.common.json ? Dump(told) : *text);
    return kAgrees;
  }
  if (auto written = files::WriteFile(options.output, *text); !written) {
    return Fail(io, kBadInput, written.error());
  }
  if (options.common.json) io.out(Dump(told));
  return kAgrees;
}

void AddExport(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command = app.add_subcommand(
      "export", "Write a finding or a program as a KVM selftest in C, or as a C file of its own");
  command->footer(
      "What the test expects comes from the model of the CPU and of KVM, never from what was "
      "seen.\n"
      "Of a finding only the observation that diverged is asserted; of a program every one of "
      "which\n"
      "the model allows exactly one value, on any machine that has what the program needs.\n"
      "docs/export.md says how to build and run the result.");
  command
      ->add_option("path", options->path,
                   "A finding, a program (.fps), a trace (.fpt) or a known divergence's folder")
      ->required();
  command->add_option("-o,--output", options->output, "The C file to write; - prints it")
      ->required();
  command
      ->add_option("--format", options->format,
                   "selftest: for tools/testing/selftests/kvm, what is written if nothing is "
                   "said; c: needs no kernel tree. A program with os.* steps, which are about a "
                   "thread and not a vCPU, is a test by ptrace in c, and c is what is written")
      ->check(CLI::IsMember({"selftest", "c"}));
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Export(*options, io); }; });
}

}  // namespace fpswap::cli
