// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap minimize: the smallest program that still shows a divergence.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "harness/campaign/minimise.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/runner.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/program/text.h"
#include "harness/triage/finding.h"
#include "harness/triage/signature.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

// Runs from which it is told how often a divergence shows.
constexpr unsigned kRuns = 10;
// A candidate that shows it as often as the program did is missed at most this often.
constexpr double kMissed = 0.01;
constexpr unsigned kMaxTries = 60;

struct Wanted {
  std::string key;
  std::string name;
};

bool Has(const judge::Verdict& verdict, const Wanted& wanted) {
  return std::ranges::any_of(verdict.divergences, [&](const judge::Divergence& divergence) {
    return triage::SignatureOf(divergence).Key() == wanted.key;
  });
}

// The divergence to keep, where no finding names it: the first new one, else the first.
std::optional<Wanted> FirstOf(const judge::Verdict& verdict, const trace::Platform& platform,
                              std::span<const triage::Known> known) {
  if (verdict.ok()) return {};
  const size_t first = triage::Sort(verdict, platform, known).first_new.value_or(0);
  const auto signature = triage::SignatureOf(verdict.divergences[first]);
  return Wanted{signature.Key(), signature.Name()};
}

class Minimizer {
 public:
  Minimizer(const MinimizeOptions& options, const Io& io, campaign::Runner& runner,
            campaign::PendingBeside& pending)
      : options_(options), io_(io), runner_(runner), pending_(pending) {}

  int Go(program::Program program, std::optional<Wanted> wanted, const fs::path& out);

 private:
  // What the smallest program did when it last showed it, beside `out`: what is shown and exported
  // of a finding from then on.
  std::expected<void, std::string> WriteTrace(const fs::path& out) const;
  // What is run is on disk first: where it takes the machine down it is found there.
  std::expected<campaign::Ran, std::string> RunKept(const program::Program& program);
  // Whether `program` shows it in `tries` runs; nothing where the target is gone.
  bool Shows(const program::Program& program, unsigned tries);
  unsigned Count(const program::Program& program);
  void Tell(const campaign::MinimisePass& pass, unsigned tried, const program::Program& best);

  const MinimizeOptions& options_;
  const Io& io_;
  campaign::Runner& runner_;
  campaign::PendingBeside& pending_;
  Wanted wanted_;
  bool of_finding_ = false;
  std::string failed_;                  // why the target is gone
  std::optional<campaign::Ran> shown_;  // the last run that showed it
  Clock::time_point told_ = Clock::now();
};

std::expected<campaign::Ran, std::string> Minimizer::RunKept(const program::Program& program) {
  if (auto kept = pending_.Write({&program, 1}); !kept) return std::unexpected(kept.error());
  return campaign::RunOne(runner_, program);
}

bool Minimizer::Shows(const program::Program& program, unsigned tries) {
  for (unsigned i = 0; i < tries && failed_.empty(); ++i) {
    auto ran = RunKept(program);
    if (!ran) failed_ = ran.error();
    if (ran && Has(ran->verdict, wanted_)) {
      shown_ = std::move(*ran);
      return true;
    }
  }
  return false;
}

std::expected<void, std::string> Minimizer::WriteTrace(const fs::path& out) const {
  const trace::Trace trace = {.platform = runner_.platform(),
                              .program = shown_->plan.effective,
                              .trims = shown_->plan.trims,
                              .records = shown_->records};
  return files::WriteFile(fs::path(out).replace_extension(".fpt"), trace::WriteTrace(trace));
}

unsigned Minimizer::Count(const program::Program& program) {
  unsigned count = 0;
  for (unsigned i = 0; i < kRuns; ++i) count += Shows(program, 1);
  return count;
}

void Minimizer::Tell(const campaign::MinimisePass& pass, unsigned tried,
                     const program::Program& best) {
  if (options_.common.json || Clock::now() - told_ < std::chrono::seconds(2)) return;
  told_ = Clock::now();
  io_.err(fmt::format("  {:5} tried, {:2} steps; {}: {}\n", tried, best.steps.size(), pass.name,
                      pass.what));
}

int Minimizer::Go(program::Program program, std::optional<Wanted> wanted, const fs::path& out) {
  auto first = RunKept(program);
  if (!first) return Fail(io_, kUnavailable, first.error());
  const auto known = LoadKnown(options_.common, io_);
  if (!known) return Fail(io_, kBadInput, known.error());
  of_finding_ = wanted.has_value();
  if (!wanted) wanted = FirstOf(first->verdict, runner_.platform(), *known);
  if (!wanted) {
    return Fail(io_, kBadInput,
                fmt::format("nothing diverges here: there is nothing to keep\n  fpswap run {} "
                            "--target {} tells what was compared",
                            options_.path.string(), runner_.platform().name()));
  }
  wanted_ = *wanted;
  program = first->plan.effective;
  const size_t steps_before = program.steps.size();
  unsigned count = Count(program);
  if (!failed_.empty()) return Fail(io_, kUnavailable, failed_);
  if (count == 0) {
    return Fail(io_, kBadInput,
                fmt::format("{} did not show in {} runs on {}: there is nothing to keep",
                            wanted_.name, kRuns, runner_.platform().name()));
  }
  // Where it comes and goes, a candidate is run until it would have shown. The estimate is on the
  // low side: one run less than was counted.
  const double rate = count == kRuns ? 1 : std::max(0.5, count - 1.0) / kRuns;
  const unsigned tries =
      count == kRuns
          ? 1u
          : std::min(kMaxTries,
                     static_cast<unsigned>(std::ceil(std::log(kMissed) / std::log(1 - rate))));
  const double missed = count == kRuns ? 0 : std::pow(1 - rate, tries);
  if (!options_.common.json) {
    io_.err(fmt::format("keeping {}, which shows in {} of {} runs{}\n", wanted_.name, count, kRuns,
                        tries == 1 ? ""
                                   : fmt::format(": {} runs a candidate, so that one which shows "
                                                 "it as often is missed in {:.1f} % of cases",
                                                 tries, 100 * missed)));
  }
  // What a run before this one had reached.
  std::error_code status;
  if (fs::exists(out, status)) {
    const auto before = files::ReadProgram(out);
    if (!before) return Fail(io_, kBadInput, before.error());
    if (before->steps.size() <= program.steps.size() && Shows(*before, tries)) {
      program = *before;
      if (!options_.common.json) {
        io_.err(fmt::format("going on from {} ({} steps)\n", out.string(), program.steps.size()));
      }
    }
  }
  std::string unwritten;
  std::map<std::string, unsigned> helped;
  const auto keep = [&](const campaign::MinimisePass& pass, unsigned tried,
                        const program::Program& best, bool better) {
    Tell(pass, tried, best);
    if (!better) return;
    ++helped[std::string(pass.name)];
    auto written = files::WriteFile(out, program::PrintText(best));
    unwritten = written ? "" : written.error();
  };
  const campaign::Minimised result =
      campaign::Minimise(program, [&](const program::Program& p) { return Shows(p, tries); },
                         {.budget = options_.budget, .only = options_.pass, .progress = keep});
  if (!failed_.empty()) {
    return Fail(io_, kUnavailable,
                fmt::format("{}\n  what was reached is in {}; start again to go "
                            "on from there",
                            failed_, out.string()));
  }
  if (auto written = files::WriteFile(out, program::PrintText(result.program)); !written) {
    return Fail(io_, kBadInput, written.error());
  }
  count = Count(result.program);
  // A flaky one may not have shown again: then there is no run of it to keep.
  if (of_finding_ && count > 0) {
    if (auto written = WriteTrace(out); !written) return Fail(io_, kBadInput, written.error());
  }
  if (options_.common.json) {
    io_.out(Dump({{"signature", wanted_.key},
                  {"name", wanted_.name},
                  {"steps_before", steps_before},
                  {"steps", result.program.steps.size()},
                  {"vcpus", result.program.vcpus},
                  {"tried", result.tried},
                  {"done", result.done},
                  {"runs_a_candidate", tries},
                  {"missed", missed},
                  {"shows", count},
                  {"of", kRuns},
                  {"passes", helped},
                  {"file", out.string()},
                  {"program", program::PrintText(result.program)}}));
  } else {
    io_.out(program::PrintText(result.program));
    io_.err(fmt::format(
        "{} steps of {} are left after {} candidates{}; it shows in {} of {} runs\n"
        "  written to {}\n",
        result.program.steps.size(), steps_before, result.tried,
        result.done ? ", and no pass helps any more" : " (--budget ended it; start again to go on)",
        count, kRuns, out.string()));
  }
  return kAgrees;
}

}  // namespace

int Minimize(const MinimizeOptions& options, const Io& io) {
  std::error_code status;
  fs::path file = options.path, out;
  std::optional<Wanted> wanted;
  if (fs::is_directory(file, status)) {
    const auto of = triage::ReadFindingName(file);
    if (!of) return Fail(io, kBadInput, of.error());
    if (of->key.empty()) {
      return Fail(io, kBadInput, (file / "verdict.json").string() + ": has no \"signature\"");
    }
    wanted = Wanted{of->key, of->name};
    out = file / "minimized.fps";
    file /= "program.fps";
  } else {
    out = fs::path(file).replace_extension(".min.fps");
  }
  if (options.out) out = *options.out;
  if (const std::string why = WhyRefused(file, options.common); !why.empty()) {
    return Fail(io, kBadInput, why);
  }
  auto program = files::ReadProgram(file);
  if (!program) return Fail(io, kBadInput, program.error());
  auto target = campaign::Open(options.common.target, options.common.TargetOptions());
  if (!target) return FailUnavailable(io, options.common.target, target.error());
  const auto runner = campaign::MakeRunner(std::move(*target));
  auto pending = BeforeRunning(out, runner->platform(), io);
  if (!pending) return Fail(io, kBadInput, pending.error());
  return Minimizer(options, io, *runner, *pending).Go(std::move(*program), std::move(wanted), out);
}

void AddMinimize(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<MinimizeOptions>();
  CLI::App* command = app.add_subcommand(
      "minimize", "Make a program as small as can be while it keeps showing its divergence");
  std::string passes = "Passes, repeated until none helps:\n";
  for (const campaign::MinimisePass& pass : campaign::MinimisePasses()) {
    passes += fmt::format("  {:18} {}\n", pass.name, pass.what);
  }
  command->footer(
      passes +
      "\nA finding keeps its signature, a file its first divergence that is not known.\n"
      "Each smaller program is written at once; started again, it goes on from there. What is "
      "about\n"
      "to run is on disk before, in OUTPUT.running; where the machine goes down with it, the next\n"
      "start keeps it in OUTPUT.interrupted.");
  command->add_option("path", options->path, "A finding, or a program (.fps)")->required();
  command->add_option("-o,--output", options->out,
                      "Where to write it (default: minimized.fps in the finding, FILE.min.fps)");
  command->add_option("--budget", options->budget, "Programs tried at most")
      ->check(CLI::Range(1u, 10'000'000u))
      ->capture_default_str();
  command->add_option("--pass", options->pass, "Only this pass")
      ->check(CLI::Validator(
          [](const std::string& name) {
            for (const auto& pass : campaign::MinimisePasses()) {
              if (pass.name == name) return std::string();
            }
            return fmt::format("there is no pass \"{}\"", name);
          },
          ""));
  AddTarget(*command, options->common);
  AddEndangerHost(*command, options->common);
  AddKnown(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Minimize(*options, io); }; });
}

}  // namespace fpswap::cli
