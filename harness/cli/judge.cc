// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap judge: recorded traces, judged again. Needs no target.
#include "harness/judge/judge.h"

#include <fmt/format.h>

#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/trace/trace.h"

namespace fpswap::cli {

int Judge(const JudgeOptions& options, const Io& io) {
  auto listed = files::List(options.paths);
  if (!listed) return Fail(io, kBadInput, listed.error());
  // A file that is named outright is read as a trace whatever its name.
  for (const auto& path : options.paths) {
    std::error_code status;
    if (std::filesystem::is_regular_file(path, status) && path.extension() != ".fpt") {
      listed->traces.push_back(path);
    }
  }
  if (listed->traces.empty()) {
    return Fail(io, kBadInput, "no trace there: .fpt files or findings are expected");
  }
  const auto known = LoadKnown(options.common, io);
  if (!known) return Fail(io, kBadInput, known.error());
  auto results = nlohmann::json::array();
  std::vector<std::string> errors;
  unsigned bad = 0, fresh = 0;
  for (const auto& path : listed->traces) {
    const auto trace = ReadTraceFile(path);
    if (!trace) {
      ++bad;
      errors.push_back(trace.error());
      io.err(trace.error() + "\n");
      continue;
    }
    const judge::Verdict verdict = judge::JudgeTrace(*trace);
    Told told = Tell(verdict, trace->platform, *known);
    fresh += told.is_new;
    told.json["file"] = path.string();
    told.json["target"] = trace->platform.name();
    results.push_back(told.json);
    if (options.common.json) continue;
    const char* result = told.is_new ? "DIVERGES" : verdict.ok() ? "agrees" : "known divergence";
    io.out(fmt::format("{}: {} ({} steps on {}, {} observations compared)\n{}", path.string(),
                       result, trace->program.steps.size(), trace->platform.name(), verdict.checks,
                       told.text));
  }
  if (options.common.json) {
    io.out(Dump({{"traces", results.size()},
                 {"new", fresh},
                 {"bad", bad},
                 {"errors", errors},
                 {"results", results}}));
  }
  return ExitOf(fresh, bad);
}

void AddJudge(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<JudgeOptions>();
  CLI::App* command =
      app.add_subcommand("judge", "Judge recorded traces; needs no target and no KVM");
  command->add_option("traces", options->paths, "Traces (.fpt), findings, or folders of them")
      ->required();
  AddKnown(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Judge(*options, io); }; });
}

}  // namespace fpswap::cli
