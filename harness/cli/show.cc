// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap show: a program, a trace or a finding step by step.
#include "harness/report/show.h"

#include <fmt/format.h>

#include "harness/campaign/platforms.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/judge/judge.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

std::expected<report::Shown, std::string> ShowTrace(const fs::path& path) {
  const auto trace = ReadTraceFile(path);
  if (!trace) return std::unexpected(trace.error());
  const plan::Plan plan = plan::MakePlan(trace->program, trace->platform);
  report::Shown shown = report::Describe(plan, judge::JudgeTrace(*trace));
  shown.trims = trace->trims;  // of the program as it was given when it ran
  return shown;
}

}  // namespace

int Show(const ShowOptions& options, const Io& io) {
  const fs::path path = TraceOrProgram(options.path);
  std::expected<report::Shown, std::string> shown;
  if (path.extension() == ".fpt") {
    shown = ShowTrace(path);
  } else {
    auto program = files::ReadProgram(path);
    if (!program) return Fail(io, kBadInput, program.error());
    trace::Platform platform = campaign::EverythingPlatform();
    if (!options.common.target.empty()) {
      auto target = campaign::Open(options.common.target, options.common.TargetOptions());
      if (!target) return FailUnavailable(io, options.common.target, target.error());
      platform = (*target)->platform();
    }
    shown = report::Describe(plan::MakePlan(*program, platform), {});
  }
  if (!shown) return Fail(io, kBadInput, shown.error());
  io.out(options.common.json ? report::ShownJson(*shown) + "\n" : report::ShownText(*shown));
  return kAgrees;
}

void AddShow(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<ShowOptions>();
  options->common.target.clear();
  CLI::App* command = app.add_subcommand(
      "show", "Show a program step by step with its machine code and its divergences");
  command->footer(
      "'>' marks the instruction under test; what is around it loads operands and keeps the "
      "journal.\n"
      "Code is disassembled by Zydis. Where Capstone reads it otherwise the line says so.");
  command->add_option("path", options->path, "A program (.fps), a trace (.fpt) or a finding")
      ->required();
  AddTarget(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Show(*options, io); }; });
}

}  // namespace fpswap::cli
