// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap reach: what a run, a corpus or traces exercised.
#include <fmt/format.h>

#include "harness/campaign/platforms.h"
#include "harness/campaign/reach_table.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/judge/judge.h"
#include "harness/report/reach_text.h"
#include "harness/trace/trace.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxReachSize = 256u << 20;
using Status = std::expected<void, std::string>;

Status AddRunTable(const fs::path& path, campaign::ReachTable& table) {
  const auto text = files::ReadFile(path, kMaxReachSize);
  if (!text) return std::unexpected(text.error());
  const auto read = campaign::ReachTable::FromJson(*text);
  if (!read) return std::unexpected(fmt::format("{}: {}", path.string(), read.error()));
  table.Merge(*read);
  return {};
}

Status AddTrace(const fs::path& path, campaign::ReachTable& table) {
  const auto trace = ReadTraceFile(path);
  if (!trace) return std::unexpected(trace.error());
  const plan::Plan plan = plan::MakePlan(trace->program, trace->platform);
  judge::Judge judge(trace->platform);
  table.Count(trace->program, plan);
  table.Count(judge.Check(plan, trace->records, &table));
  return {};
}

// Simulated on `platform`: what these programs would reach there if the system agreed throughout.
Status AddPrograms(const files::Listed& listed, const trace::Platform& platform,
                   campaign::ReachTable& table) {
  judge::Judge judge(platform);
  const auto add = [&](const std::expected<program::Program, std::string>& program) -> Status {
    if (!program) return std::unexpected(program.error());
    const plan::Plan plan = plan::MakePlan(*program, platform);
    table.Count(*program, plan);
    judge.Simulate(plan, table);
    return {};
  };
  for (const fs::path& path : listed.programs) {
    if (auto added = add(files::ReadProgram(path)); !added) return added;
  }
  for (const fs::path& path : listed.encoded) {
    if (auto added = add(files::ReadEncoded(path)); !added) return added;
  }
  return {};
}

// A findings folder stands for the run that wrote it; everything else for the programs in it.
struct Sources {
  std::vector<fs::path> tables, others;
};
Sources Split(const std::vector<fs::path>& paths) {
  Sources sources;
  for (const fs::path& path : paths) {
    std::error_code status;
    if (fs::exists(path / "reach.json", status)) {
      sources.tables.push_back(path / "reach.json");
    } else if (path.extension() == ".json") {
      sources.tables.push_back(path);
    } else {
      sources.others.push_back(path);
    }
  }
  return sources;
}

}  // namespace

int Reach(const ReachOptions& options, const Io& io) {
  const Sources sources = Split(options.paths);
  campaign::ReachTable table;
  for (const fs::path& path : sources.tables) {
    if (auto added = AddRunTable(path, table); !added) return Fail(io, kBadInput, added.error());
  }
  const auto listed = files::List(sources.others);
  if (!listed) return Fail(io, kBadInput, listed.error());
  for (const fs::path& path : listed->traces) {
    if (auto added = AddTrace(path, table); !added) return Fail(io, kBadInput, added.error());
  }
  std::optional<trace::Platform> platform;
  if (!listed->programs.empty() || !listed->encoded.empty()) {
    auto target = campaign::Open(options.common.target, options.common.TargetOptions());
    if (!target && options.common.target != "auto") {
      return FailUnavailable(io, options.common.target, target.error());
    }
    platform = target ? (*target)->platform() : campaign::EverythingPlatform();
    if (auto added = AddPrograms(*listed, *platform, table); !added) {
      return Fail(io, kBadInput, added.error());
    }
    io.err(fmt::format("{} programs simulated as on {} ({})\n",
                       listed->programs.size() + listed->encoded.size(), platform->target,
                       platform->cpu));
  }
  if (!platform && options.common.target != "auto") {
    auto target = campaign::Open(options.common.target, options.common.TargetOptions());
    if (!target) return FailUnavailable(io, options.common.target, target.error());
    platform = (*target)->platform();
  }
  if (table.programs() == 0) {
    return Fail(io, kBadInput,
                "nothing there: programs, a corpus, traces or a folder of findings are expected");
  }
  io.out(options.common.json ? table.ToJson() + "\n"
                             : report::ReachText(table, platform ? &*platform : nullptr));
  return kAgrees;
}

void AddReach(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<ReachOptions>();
  CLI::App* command = app.add_subcommand(
      "reach", "Table of step x component x way of exit that a run or a corpus exercised");
  command->footer(
      "A folder of findings stands for the last fuzzing run that wrote there, traces for what was\n"
      "observed; programs and corpora are simulated as on the target's platform. With --target it\n"
      "is said as well what that target can do here and nothing did.");
  command->add_option("paths", options->paths, "Findings, a corpus, programs or traces")
      ->required();
  AddTarget(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Reach(*options, io); }; });
}

}  // namespace fpswap::cli
