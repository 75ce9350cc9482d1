// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap run: programs from files, a verdict each.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "harness/campaign/platforms.h"
#include "harness/campaign/runner.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/trace/trace.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

struct Loaded {
  fs::path path;
  program::Program program;
  plan::Plan plan;
};

class Replay {
 public:
  Replay(const RunOptions& options, const Io& io, std::span<const triage::Known> known)
      : options_(options), io_(io), known_(known) {}

  // Reads the programs; those that can't be read are told and counted as bad.
  void Load(const files::Listed& listed);
  bool empty() const { return loaded_.empty(); }
  // Why none is there: the sentences about those that were not read, or refused.
  const std::vector<std::string>& errors() const { return errors_; }
  unsigned bad() const { return bad_; }
  std::vector<std::pair<fs::path, program::Program>> Programs() const {
    std::vector<std::pair<fs::path, program::Program>> programs;
    for (const Loaded& each : loaded_) programs.emplace_back(each.path, each.program);
    return programs;
  }
  // Runs what was loaded, in order, in batches. REQUIRES: done before what follows.
  std::expected<void, std::string> RunAll(campaign::Runner& runner);
  // Known divergences that these programs are the reproducers of and that did not show.
  void TellNotShown();
  // The summary and the exit code. `error`: why the target went away before all had run, "" if not.
  int Finish(const std::string& error);

 private:
  void Done(const Loaded& loaded, std::span<const uint8_t> records, const judge::Verdict& verdict);
  void SaveTrace(const Loaded& loaded, std::span<const uint8_t> records);

  const RunOptions& options_;
  const Io& io_;
  campaign::Runner* runner_ = nullptr;
  std::span<const triage::Known> known_;
  std::vector<Loaded> loaded_;
  json results_ = json::array(), not_shown_ = json::array();
  std::vector<std::string> shown_, errors_, refused_;
  unsigned ran_ = 0, bad_ = 0, new_ = 0, known_programs_ = 0, nothing_ran_ = 0;
};

void Replay::Load(const files::Listed& listed) {
  const auto load = [&](const fs::path& path, auto read) {
    if (const std::string why = WhyRefused(path, options_.common); !why.empty()) {
      refused_.push_back(path.string());
      errors_.push_back(why);
      io_.err(fmt::format("fpswap: {}\n", why));
      return;
    }
    auto program = read(path);
    if (!program) {
      ++bad_;
      errors_.push_back(program.error());
      io_.err(program.error() + "\n");
      return;
    }
    loaded_.push_back({path, std::move(*program), {}});
  };
  for (const fs::path& path : listed.programs) load(path, files::ReadProgram);
  for (const fs::path& path : listed.encoded) load(path, files::ReadEncoded);
}

void Replay::SaveTrace(const Loaded& loaded, std::span<const uint8_t> records) {
  fs::path path = *options_.trace;
  if (loaded_.size() > 1) {
    std::error_code status;
    fs::create_directories(path, status);
    // The whole path in the name: finding folders all call their program the same.
    std::string name = loaded.path.lexically_normal().string();
    std::replace(name.begin(), name.end(), '/', '_');
    path /= name + ".fpt";
  }
  const std::vector<uint8_t> bytes =
      trace::WriteTrace({.platform = runner_->platform(),
                         .program = loaded.plan.effective,
                         .trims = loaded.plan.trims,
                         .records = {records.begin(), records.end()}});
  if (auto written = files::WriteFile(path, bytes); !written) {
    ++bad_;
    io_.err(fmt::format("fpswap: {}\n", written.error()));
  }
}

void Replay::Done(const Loaded& loaded, std::span<const uint8_t> records,
                  const judge::Verdict& verdict) {
  Told told = Tell(verdict, runner_->platform(), known_);
  ++ran_;
  new_ += told.is_new;
  known_programs_ += !told.is_new && !verdict.ok();
  // Nothing was compared, so nothing agrees.
  const bool nothing_ran = verdict.ok() && loaded.plan.effective.steps.empty();
  nothing_ran_ += nothing_ran;
  shown_.insert(shown_.end(), told.known.begin(), told.known.end());
  if (options_.trace) SaveTrace(loaded, records);
  if (options_.common.json) {
    told.json["file"] = loaded.path.string();
    if (nothing_ran) told.json["result"] = "nothing ran";
    told.json["trims"] = TrimsJson(loaded.program, loaded.plan);
    results_.push_back(std::move(told.json));
    return;
  }
  if (nothing_ran) {
    io_.out(fmt::format("{}: nothing of it can run here\n{}", loaded.path.string(),
                        TellTrims(loaded.program, loaded.plan)));
    return;
  }
  const char* result = told.is_new ? "DIVERGES" : verdict.ok() ? "agrees" : "known divergence";
  io_.out(fmt::format("{}: {} ({} steps, {} observations compared{})\n{}{}", loaded.path.string(),
                      result, loaded.plan.effective.steps.size(), verdict.checks,
                      verdict.cut != nullptr
                          ? fmt::format("; then only isolation and health, from step {} on: {}",
                                        verdict.cut_at, verdict.cut)
                          : "",
                      told.text, TellTrims(loaded.program, loaded.plan)));
}

std::expected<void, std::string> Replay::RunAll(campaign::Runner& runner) {
  runner_ = &runner;
  std::vector<const plan::Plan*> plans;
  for (Loaded& loaded : loaded_) {
    loaded.plan = plan::MakePlan(loaded.program, runner.platform());
    plans.push_back(&loaded.plan);
  }
  return campaign::RunInBatches(
      runner, plans,
      [&](size_t index, std::span<const uint8_t> records, const judge::Verdict& verdict) {
        Done(loaded_[index], records, verdict);
      });
}

void Replay::TellNotShown() {
  for (const triage::Known& entry : known_) {
    if (!entry.platform.Holds(runner_->platform())) continue;
    if (std::find(shown_.begin(), shown_.end(), entry.name) != shown_.end()) continue;
    std::error_code status;
    const bool ran = std::any_of(loaded_.begin(), loaded_.end(), [&](const Loaded& loaded) {
      return fs::equivalent(loaded.path.parent_path(), entry.folder, status);
    });
    if (!ran) continue;
    not_shown_.push_back(entry.name);
    if (options_.common.json) continue;
    io_.out(
        fmt::format("known divergence {} did not show, though its platform condition holds "
                    "here: fixed? then narrow the condition in {}\n",
                    entry.name, (entry.folder / "known.json").string()));
  }
}

int Replay::Finish(const std::string& error) {
  const unsigned agree = ran_ - new_ - known_programs_ - nothing_ran_;
  const size_t programs = loaded_.size() + refused_.size(), not_run = programs - ran_;
  if (options_.common.json) {
    if (!error.empty()) errors_.push_back(error);
    io_.out(Dump({{"target", runner_->platform().name()},
                  {"programs", programs},
                  {"agree", agree},
                  {"new", new_},
                  {"known", known_programs_},
                  {"nothing_ran", nothing_ran_},
                  {"not_run", not_run},
                  {"refused", refused_},
                  {"bad", bad_},
                  {"errors", errors_},
                  {"known_not_shown", not_shown_},
                  {"results", results_}}));
  } else {
    const auto some = [](size_t count, const char* what) {
      return count > 0 ? fmt::format(", {} {}", count, what) : "";
    };
    io_.out(fmt::format("{} programs on {}: {} agree, {} known, {} new{}{}{}\n", programs,
                        runner_->platform().name(), agree, known_programs_, new_,
                        some(nothing_ran_, "can't run here"), some(not_run, "not run"),
                        some(bad_, "could not be read or written")));
  }
  // What was seen counts, whatever became of the target afterwards.
  if (!error.empty() && new_ == 0) return kUnavailable;
  return ExitOf(new_, bad_);
}

}  // namespace

int Run(const RunOptions& options, const Io& io) {
  const auto listed = files::List(options.paths);
  if (!listed) return Fail(io, kBadInput, listed.error());
  if (listed->programs.empty() && listed->encoded.empty()) {
    return Fail(io, kBadInput, "no program there: .fps files, findings or a corpus are expected");
  }
  const auto known = LoadKnown(options.common, io);
  if (!known) return Fail(io, kBadInput, known.error());
  Replay replay(options, io, *known);
  replay.Load(*listed);
  if (replay.empty()) {
    if (io.json) io.out(ErrorJson(fmt::format("{}", fmt::join(replay.errors(), "\n")), kBadInput));
    return kBadInput;
  }
  if (options.common.target.find(',') != std::string::npos) {
    if (options.trace) return Fail(io, kBadInput, "--trace is for one target");
    return Compare(options, replay.Programs(), replay.bad(), io);
  }
  auto target = campaign::Open(options.common.target, options.common.TargetOptions());
  if (!target) return FailUnavailable(io, options.common.target, target.error());
  const auto runner = campaign::MakeRunner(std::move(*target));
  if (auto status = replay.RunAll(*runner); !status) {
    io.err(fmt::format("fpswap: {}\n", status.error()));
    return replay.Finish(status.error());
  }
  replay.TellNotShown();
  return replay.Finish("");
}

void AddRun(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand(
      "run",
      "Run programs and judge what was observed; on several targets (--target A,B), "
      "also show where they differ");
  command->add_option("paths", options->paths, "Programs (.fps), findings, or folders of them")
      ->required();
  command->add_option("--trace", options->trace,
                      "Write what was observed: a file, or a folder where several programs run");
  AddTarget(*command, options->common);
  AddEndangerHost(*command, options->common);
  AddKnown(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Run(*options, io); }; });
}

}  // namespace fpswap::cli
