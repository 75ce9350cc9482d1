// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap fuzz: the options, the status line and the summary; harness/campaign does the work.
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <random>
#include <set>
#include <sstream>

#include "harness/campaign/corpus.h"
#include "harness/campaign/forever.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/supervisor.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/program/suggest.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

using campaign::Progress;
using campaign::Summary;
using nlohmann::json;

double Rate(const Progress& progress) {
  return progress.seconds > 0 ? static_cast<double>(progress.programs) / progress.seconds : 0;
}

// One line that is rewritten on a terminal, a line every few seconds elsewhere; every ten minutes
// where it goes on for ever, into a log.
class StatusLine {
 public:
  StatusLine(const Io& io, bool forever) : io_(io), pause_(forever ? 600 : 5) {}

  void Show(const Progress& progress) {
    const double every = io_.err_is_terminal ? 0.25 : pause_;
    if (shown_ > 0 && progress.seconds - shown_ < every) return;
    shown_ = progress.seconds + 1e-9;
    const std::string line = fmt::format(
        "{:5.0f} s  {} programs  {:.0f}/s  {} states{}  {} corpus  {} new  {} known  {} restarts",
        progress.seconds, progress.programs, Rate(progress), progress.reached,
        progress.edges == 0 ? "" : fmt::format("  {} kernel edges", progress.edges),
        progress.corpus, progress.new_found, progress.known_found, progress.restarts);
    const char* const text = progress.waiting    ? "waiting for the target ..."
                             : progress.starting ? "opening the target ..."
                                                 : line.c_str();
    io_.err(io_.err_is_terminal ? fmt::format("\r{}\x1b[K", text) : fmt::format("{}\n", text));
  }
  void End() {
    if (io_.err_is_terminal && shown_ > 0) io_.err("\n");
  }

 private:
  const Io& io_;
  const double pause_;
  double shown_ = 0;
};

json SummaryJson(const FuzzArguments& options, const std::string& target, uint64_t seed,
                 const Summary& summary) {
  const Progress& progress = summary.progress;
  json laws = json::object();
  for (unsigned law = 1; law <= 6; ++law) {
    laws[std::string(judge::LawName(static_cast<judge::Law>(law)))] = summary.reach.laws()[law];
  }
  std::set<uint8_t> steps;
  for (const auto& [row, count] : summary.reach.Rows()) steps.insert(row.op);
  json interrupted = json::array();
  for (const fs::path& path : summary.interrupted) interrupted.push_back(path.string());
  return {{"target", target},
          {"seed", seed},
          {"jobs", options.jobs},
          {"programs", progress.programs},
          {"seconds", progress.seconds},
          {"programs_per_second", Rate(progress)},
          {"new", progress.new_found},
          {"known", progress.known_found},
          {"findings", summary.new_seen},
          {"known_seen", summary.known_seen},
          {"states", progress.reached},
          {"kernel_edges", progress.edges},
          {"corpus", progress.corpus},
          {"restarts", progress.restarts},
          {"worker_deaths", summary.worker_deaths},
          {"trimmed", progress.trimmed},
          {"unsaved", progress.unsaved},
          {"peak_rss_mib", progress.peak_rss_mib},
          {"programs_hash", fmt::format("{:016x}", progress.hash)},
          {"reach",
           {{"rows", summary.reach.Rows().size()},
            {"steps", steps.size()},
            {"laws", laws},
            {"compared", summary.reach.checks()}}},
          {"interrupted", interrupted},
          {"errors", summary.errors}};
}

std::string SummaryText(const FuzzArguments& options, const std::string& target, uint64_t seed,
                        const Summary& summary) {
  const Progress& progress = summary.progress;
  std::string text = fmt::format(
      "{} programs on {} in {:.1f} s ({:.0f}/s), {} states reached{}, {} steps trimmed, seed {}\n",
      progress.programs, target, progress.seconds, Rate(progress), progress.reached,
      progress.edges == 0 ? "" : fmt::format(", {} edges of the kernel", progress.edges),
      progress.trimmed, seed);
  for (const auto& [name, count] : summary.known_seen) {
    text += fmt::format("known  {} ({} programs)\n", name, count);
  }
  for (const auto& [name, count] : summary.new_seen) {
    text += fmt::format("NEW    {} ({} programs)\n", (options.findings / name).string(), count);
  }
  for (const fs::path& path : summary.interrupted) {
    text += fmt::format("kept   {}: what was about to run when a worker or the machine went down\n",
                        path.string());
  }
  for (const auto& [how, count] : summary.worker_deaths) {
    text += fmt::format("DIED   a worker of fpswap's own {} ({} times)\n", how, count);
  }
  text += fmt::format("{} new, {} known divergences; `fpswap reach {}` tells what was exercised\n",
                      progress.new_found, progress.known_found, options.findings.string());
  return text;
}

// Puts the programs of a folder of .fps files into the corpus in byte form.
std::expected<size_t, std::string> TakeSeeds(const FuzzArguments& options, const Io& io) {
  const fs::path &seeds = *options.seeds, &corpus = *options.corpus;
  const fs::path folders[] = {seeds};
  const auto listed = files::List(folders);
  if (!listed) return std::unexpected(listed.error());
  std::error_code status;
  fs::create_directories(corpus, status);
  size_t taken = 0;
  for (const fs::path& path : listed->programs) {
    if (const std::string why = WhyRefused(path, options.common); !why.empty()) {
      io.err(fmt::format("fpswap: {}\n", why));
      continue;
    }
    ++taken;
    const auto program = files::ReadProgram(path);
    if (!program) return std::unexpected(program.error());
    const auto bytes = program::Encode(*program);
    const auto written = files::WriteFile(corpus / campaign::CorpusName(bytes), bytes);
    if (!written) return std::unexpected(written.error());
  }
  return taken;
}

// The engine's program, "" for the plain engine.
std::expected<fs::path, std::string> FindEngine(const FuzzArguments& options, const Io& io) {
  if (options.engine == "plain") return fs::path();
  std::error_code status;
  if (options.engine == "afl") {
    const fs::path afl = OwnFolder() / "fpswap-afl";
    if (fs::exists(afl, status)) return afl;
    return std::unexpected(fmt::format(
        "{} is not there: it is built where AFL++ is installed (on Debian: apt-get install afl++, "
        "then cmake again)",
        afl.string()));
  }
  const fs::path engine = OwnFolder() / "fpswap-fuzzer";
  if (fs::exists(engine, status)) return engine;
  if (options.engine == "libfuzzer") {
    return std::unexpected(
        fmt::format("{} is not there: it is built by clang only (cmake with "
                    "-DCMAKE_CXX_COMPILER=clang++-19), or use --engine plain",
                    engine.string()));
  }
  io.err(
      "fpswap: no libFuzzer engine here (built by clang only): the plain engine is used, which "
      "guides less well\n");
  return fs::path();
}

// afl-fuzz, searched for as a shell would.
std::expected<fs::path, std::string> FindAflFuzz() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path found = fs::path(folder) / "afl-fuzz";
    if (access(found.c_str(), X_OK) == 0) return found;
  }
  return std::unexpected(
      std::string("afl-fuzz is not in PATH: on Debian, apt-get install afl++ installs it"));
}

// Refuses what is no finite T above 0 by saying what was expected.
template <typename T>
CLI::Validator NumberAboveZero(const std::string& expected) {
  return CLI::Validator(
      [expected](const std::string& text) -> std::string {
        T value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool whole = error == std::errc() && end == text.data() + text.size();
        if (whole && value > 0 && value <= std::numeric_limits<T>::max()) return "";
        return fmt::format("{} is not {}", program::Quote(text), expected);
      },
      "");
}

// Of all that judges and is judged: any change of this fpswap is another one.
std::string BuildId() {
  const auto self = files::ReadFile(OwnFolder() / "fpswap", size_t{1} << 30);
  return self ? campaign::CorpusName(files::AsBytes(*self)) : "unknown";
}

std::expected<std::unique_ptr<campaign::Keeper>, std::string> Keep(const FuzzArguments& options,
                                                                   campaign::FuzzOptions& fuzz,
                                                                   const Io& io) {
  const campaign::WorkerOptions& worker = fuzz.worker;
  const uint64_t memory = options.memory_mib != 0 ? options.memory_mib : 1024 * options.jobs;
  auto keeper = campaign::Keeper::Open(
      {.findings = worker.findings,
       .corpus = worker.corpus,
       .known = worker.known,
       .target = worker.target,
       .target_options = worker.target_options,
       .version = worker.version,
       .build = BuildId(),
       .disk_mib = options.disk_mib,
       .memory_mib = memory,
       .open = nullptr},
      [&io](std::string_view sentence) { io.err(fmt::format("fpswap: {}\n", sentence)); });
  if (!keeper) return keeper;
  fuzz.rounds.seconds = options.round;
  fuzz.rounds.between = [keep = keeper->get()] { return keep->Between(); };
  fuzz.rounds.over = [keep = keeper->get()](const Progress& progress) {
    return keep->Note(progress);
  };
  return keeper;
}

int ExitOf(const Summary& summary) {
  // One that could not be written was seen all the same.
  if (summary.progress.new_found > 0 || summary.progress.unsaved > 0) return kDiverges;
  if (summary.unavailable) return kUnavailable;
  return summary.failed || !summary.worker_deaths.empty() ? kBadInput : kAgrees;
}

}  // namespace

int Fuzz(const FuzzArguments& options, const Io& io) {
  const auto known = LoadKnown(options.common, io);
  if (!known) return Fail(io, kBadInput, known.error());
  const auto engine = FindEngine(options, io);
  if (!engine) return Fail(io, kUnavailable, engine.error());
  fs::path afl_fuzz;
  if (options.engine == "afl") {
    const auto found = FindAflFuzz();
    if (!found) return Fail(io, kUnavailable, found.error());
    afl_fuzz = *found;
  }
  if (options.forever && options.engine == "afl") {
    return Fail(io, kBadInput,
                "--forever drives libFuzzer or the plain engine: AFL++ goes on with its queues, "
                "which nothing bounds");
  }
  if (options.mutator == "bytes" && engine->empty()) {
    return Fail(io, kBadInput,
                "the plain engine mutates programs only: --mutator bytes needs "
                "--engine libfuzzer or afl");
  }
  campaign::FuzzOptions fuzz;
  std::string target_name;
  {
    auto target = campaign::Open(options.common.target, options.common.TargetOptions());
    if (!target) return FailUnavailable(io, options.common.target, target.error());
    const trace::Platform& platform = (*target)->platform();
    target_name = platform.name();
    fuzz.kernel = platform.kernel;
    fuzz.cpu = platform.cpu;
  }
  const uint64_t seed = options.seed.value_or(std::random_device()());
  fuzz.worker.version = Version();
  fuzz.worker.target = target_name;
  fuzz.worker.target_options = options.common.TargetOptions();
  fuzz.worker.findings = fs::absolute(options.findings);
  fuzz.worker.known = FindKnown(options.common).value_or("");
  fuzz.worker.seed = seed;
  fuzz.worker.runs = options.runs;
  fuzz.worker.batch = options.batch;
  fuzz.keep_corpus = options.corpus.has_value();
  if (options.corpus) fuzz.worker.corpus = fs::absolute(*options.corpus);
  fuzz.seconds = options.seconds;
  fuzz.until_new = options.until_new;
  fuzz.jobs = options.jobs;
  fuzz.engine = *engine;
  fuzz.afl_fuzz = afl_fuzz;
  fuzz.worker.guided = !options.unguided;
  fuzz.worker.ours = options.mutator == "programs";
  fuzz.self = OwnFolder() / "fpswap";
  if (options.seeds) {
    if (!options.corpus) return Fail(io, kBadInput, "--seeds needs --corpus to put them in");
    const auto taken = TakeSeeds(options, io);
    if (!taken) return Fail(io, kBadInput, taken.error());
    io.err(fmt::format("{} seeds taken into {}\n", *taken, options.corpus->string()));
  }
  io.err(fmt::format("fuzzing {} with {} ({} jobs, seed {}); Ctrl-C ends with the summary\n",
                     target_name,
                     engine->empty()    ? "the plain engine"
                     : afl_fuzz.empty() ? "libFuzzer"
                                        : "AFL++",
                     options.jobs, seed));
  std::unique_ptr<campaign::Keeper> keeper;
  if (options.forever) {
    auto kept = Keep(options, fuzz, io);
    if (!kept) return Fail(io, kBadInput, kept.error());
    keeper = std::move(*kept);
  }
  campaign::Supervisor supervisor(fuzz);
  const auto interrupt = [](int) { campaign::Supervisor::Interrupt(); };
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  StatusLine line(io, options.forever);
  const auto summary = supervisor.Run([&](const Progress& progress) {
    line.Show(progress);
    if (keeper && progress.waiting) keeper->Note(progress);
  });
  line.End();
  if (keeper && summary) keeper->End(*summary);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  if (!summary) return Fail(io, kBadInput, summary.error());
  for (const std::string& error : summary->errors) io.err(fmt::format("fpswap: {}\n", error));
  io.out(options.common.json ? SummaryJson(options, target_name, seed, *summary).dump() + "\n"
                             : SummaryText(options, target_name, seed, *summary));
  return ExitOf(*summary);
}

void AddFuzz(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<FuzzArguments>();
  CLI::App* command = app.add_subcommand("fuzz", "Fuzz a target; divergences become findings");
  command->footer(
      "Ends after --time or --runs, whichever comes first, or with Ctrl-C. With --runs N, --jobs "
      "1\n"
      "and the same seed and corpus the programs are the same on every run. Programs are on disk\n"
      "before they run; what was about to run when something went down is kept in --findings,\n"
      "and a worker that died is exit code 2 even though it was started again.");
  CLI::Option* time =
      command->add_option("--time", options->seconds, "Seconds to fuzz")
          ->check(NumberAboveZero<double>("a number of seconds above 0, as in 60 or 0.5"));
  CLI::Option* runs =
      command->add_option("--runs", options->runs, "Programs to run")
          ->check(NumberAboveZero<uint64_t>("a number of programs above 0, as in 1000"));
  CLI::Option* until_new =
      command->add_flag("--until-new", options->until_new, "End at the first new divergence");
  CLI::Option* forever = command->add_flag(
      "--forever", options->forever,
      "Go on until SIGTERM or Ctrl-C, in rounds, within bounds (docs/forever.md)");
  command->add_option("--round", options->round, "Seconds of a round of --forever")
      ->check(NumberAboveZero<double>("a number of seconds above 0, as in 3600"))
      ->needs(forever)
      ->capture_default_str();
  command
      ->add_option("--disk", options->disk_mib,
                   "MiB that findings and corpus may take with --forever")
      ->check(NumberAboveZero<uint64_t>("a number of MiB above 0, as in 4096"))
      ->needs(forever)
      ->capture_default_str();
  command
      ->add_option("--memory", options->memory_mib,
                   "MiB that workers and agents may take with --forever (default: 1024 a job)")
      ->check(NumberAboveZero<uint64_t>("a number of MiB above 0, as in 1024"))
      ->needs(forever);
  command->add_option("--seed", options->seed, "Seed (default: drawn, and printed)")
      ->check([](const std::string& text) {
        return text.starts_with('-') ? std::string("a seed is a number from 0 on, as in 1") : "";
      });
  CLI::Option* corpus = command->add_option(
      "--corpus", options->corpus,
      "Folder of programs in byte form, read and added to (default: none is kept)");
  forever->needs(corpus)->excludes(time)->excludes(runs)->excludes(until_new);
  command->add_option("--seeds", options->seeds, "Folder of .fps files to add to --corpus first")
      ->check(CLI::ExistingDirectory);
  command->add_option("--findings", options->findings, "Folder that findings are written to")
      ->capture_default_str();
  command->add_option("--jobs", options->jobs, "Workers")
      ->check(CLI::Range(1u, 256u))
      ->capture_default_str();
  command->add_option("--batch", options->batch, "Programs handed to the target at once")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  command
      ->add_option("--engine", options->engine,
                   "libfuzzer, plain, afl (AFL++), or auto, the first of these two")
      ->check(CLI::IsMember({"auto", "libfuzzer", "plain", "afl"}))
      ->capture_default_str();
  command
      ->add_option("--mutator", options->mutator,
                   "programs, or bytes: the engine's own way with any bytes")
      ->check(CLI::IsMember({"programs", "bytes"}))
      ->group("Self-test")
      ->capture_default_str();
  command
      ->add_flag("--unguided", options->unguided,
                 "The engine is not told what states programs reach: each is drawn anew")
      ->group("Self-test");
  AddTarget(*command, options->common);
  AddEndangerHost(*command, options->common);
  AddKnown(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Fuzz(*options, io); }; });
}

}  // namespace fpswap::cli
