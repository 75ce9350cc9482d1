// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <fpswap_commit.h>

#include <algorithm>

#include "harness/campaign/engine.h"
#include "harness/cli/common.h"
#include "harness/program/suggest.h"

namespace fpswap::cli {
namespace {

constexpr const char* kFooter = R"(Exit codes:
  0  everything agrees, or only known divergences were seen
  1  a new divergence, whatever else went wrong
  2  bad input or usage, a disk that can't be written, or a worker of fpswap's own that died
  3  the target is not available here (fpswap doctor says why)
With --json there is one object on standard output in any case; where there is no result it is
{"error": "why", "exit": code}.

Examples:
  fpswap doctor                            what this machine can test
  fpswap fuzz --time 60                    fuzz the best target for a minute
  fpswap run corpus/known                  run programs, a verdict each
  fpswap show findings/NAME                a finding step by step
  fpswap export findings/NAME -o test.c    a finding as a KVM selftest
  fpswap reach findings                    what the last fuzzing run exercised
  fpswap report findings -o report.html    all of it as one page
  fpswap corpus minimize C                 only the programs of a corpus that add something)";

// What to say where `word` is no subcommand.
std::optional<std::string> WrongSubcommand(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* each : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (each->get_name() == word) return {};
    if (!each->get_group().empty()) names.push_back(each->get_name());  // else it is for no user
  }
  const std::vector<std::string_view> views(names.begin(), names.end());
  return fmt::format("there is no subcommand {}{}\n  `fpswap --help` lists them",
                     program::Quote(word), program::Suggest(word, views));
}

}  // namespace

std::string Version() {
  const std::string_view commit = FPSWAP_COMMIT;
  return fmt::format("{}{}{}", FPSWAP_VERSION, commit.empty() ? "" : " ", commit);
}

int Main(const std::vector<std::string>& arguments, const Io& given) {
  Io io = given;
  io.json = std::ranges::find(arguments, "--json") != arguments.end();
  CLI::App app("fpswap: a differential fuzzer for KVM's swapping of guest FPU state", "fpswap");
  app.footer(kFooter);
  app.set_version_flag("--version", "fpswap " FPSWAP_VERSION);
  app.require_subcommand(1);
  Chosen chosen;
  AddDoctor(app, chosen);
  AddFuzz(app, chosen);
  AddRun(app, chosen);
  AddJudge(app, chosen);
  AddShow(app, chosen);
  AddReach(app, chosen);
  AddMinimize(app, chosen);
  AddExport(app, chosen);
  AddCorpus(app, chosen);
  AddReport(app, chosen);
  // The plain engine's process, started by `fuzz`.
  app.add_subcommand("fuzz-worker")->group("")->callback([&] {
    chosen = [](const Io&) { return campaign::PlainEngineMain(); };
  });
  if (!arguments.empty() && !arguments[0].starts_with('-')) {
    if (const auto wrong = WrongSubcommand(app, arguments[0])) return Fail(io, kBadInput, *wrong);
  }
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp& help) {
    const auto subcommands = app.get_subcommands();
    io.out(subcommands.empty() ? app.help() : subcommands.front()->help());
    return kAgrees;
  } catch (const CLI::CallForVersion& version) {
    io.out(std::string(version.what()) + "\n");
    return kAgrees;
  } catch (const CLI::ParseError& error) {
    const auto subcommands = app.get_subcommands();
    const std::string name = subcommands.empty() ? "" : " " + subcommands.front()->get_name();
    return Fail(io, kBadInput,
                fmt::format("{}\n  `fpswap{} --help` lists what can be given", error.what(), name));
  }
  return chosen(io);
}

}  // namespace fpswap::cli
