// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap corpus: the care of folders of programs; harness/campaign/corpus.h does the work.
#include "harness/campaign/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "harness/campaign/platforms.h"
#include "harness/campaign/runner.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/program/suggest.h"
#include "harness/program/text.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

using campaign::Candidate;
using campaign::CorpusFolder;
using nlohmann::json;
using Verb = CorpusOptions::Verb;
using Clock = std::chrono::steady_clock;

// A line every two seconds, of what takes longer.
class Teller {
 public:
  Teller(const Io& io, std::string what) : io_(io), what_(std::move(what)) {}
  void operator()(size_t done, size_t all) {
    if (Clock::now() - told_ < std::chrono::seconds(2)) return;
    told_ = Clock::now();
    io_.err(fmt::format("  {} of {} programs {}\n", done, all, what_));
  }

 private:
  const Io& io_;
  std::string what_;
  Clock::time_point told_ = Clock::now();
};

// Where states are reached, and with --run what runs the programs.
struct Where {
  std::unique_ptr<campaign::Runner> runner;
  std::optional<trace::Platform> everything;
  const trace::Platform& platform() const { return everything ? *everything : runner->platform(); }
};

std::expected<Where, targets::Unavailable> Find(const CorpusOptions& options) {
  Where where;
  if (options.common.target.empty()) {
    where.everything = campaign::EverythingPlatform();
    return where;
  }
  auto target = campaign::Open(options.common.target, options.common.TargetOptions());
  if (!target) return std::unexpected(target.error());
  where.runner = campaign::MakeRunner(std::move(*target));
  return where;
}

// What the manifest says of edges of the kernel, a platform.
struct ByEdges {
  size_t programs = 0, edges = 0;
  size_t alone = 0;  // programs that are of no other use
};
std::map<std::string, ByEdges> EdgesOf(const std::vector<Candidate>& programs) {
  std::map<std::string, ByEdges> all;
  for (const Candidate& each : programs) {
    for (const auto& [label, edges] : each.note.kernel_edges) {
      ByEdges& by = all[label];
      ++by.programs;
      by.edges += edges;
      by.alone += each.note.platforms.empty() && each.note.signatures.empty();
    }
  }
  return all;
}

json EdgesJson(const std::vector<Candidate>& programs) {
  json all = json::object();
  for (const auto& [label, by] : EdgesOf(programs)) {
    all[label] = {{"programs", by.programs}, {"edges", by.edges}, {"alone", by.alone}};
  }
  return all;
}

std::string EdgesText(const std::vector<Candidate>& programs) {
  std::string text;
  for (const auto& [label, by] : EdgesOf(programs)) {
    text += fmt::format("{} edges of the kernel on {} ({} programs, {} of them for these alone)\n",
                        by.edges, program::Quote(label), by.programs, by.alone);
  }
  return text;
}

// What was passed over is said, and is exit code 2 whatever else went well.
ExitCode TellErrors(const Io& io, const campaign::Candidates& candidates) {
  for (const std::string& error : candidates.errors) {
    io.err(fmt::format("fpswap: passed over: {}\n", error));
  }
  return ExitOf(0, candidates.errors.size());
}

size_t BytesOf(const std::vector<Candidate>& programs) {
  size_t sum = 0;
  for (const Candidate& each : programs) sum += each.bytes.size();
  return sum;
}

int Change(const CorpusOptions& options, CorpusFolder& folder, const Io& io) {
  const bool minimize = options.verb == Verb::kMinimize, import = options.verb == Verb::kImport;
  campaign::Candidates from;
  if (!minimize) {
    auto read = campaign::ReadCandidates(options.from);
    if (!read) return Fail(io, kBadInput, read.error());
    from = std::move(*read);
  }
  Where where;
  campaign::RunCandidates run;
  std::optional<campaign::PendingBeside> pending;
  if (!import) {
    auto found = Find(options);
    if (!found) return FailUnavailable(io, options.common.target, found.error());
    where = std::move(*found);
    if (options.run) {
      auto kept = BeforeRunning(folder.path(), where.platform(), io);
      if (!kept) return Fail(io, kBadInput, kept.error());
      pending.emplace(std::move(*kept));
      run = campaign::RunWith(*where.runner, [&pending](std::span<const program::Program> batch) {
        return pending->Write(batch);
      });
    }
  }
  const size_t before = folder.entries().programs.size();
  const size_t read = minimize ? folder.entries().read : from.read;
  const Teller teller(io, "looked at");
  const auto changed = minimize ? folder.Minimise(where.platform(), run, teller)
                                : folder.Add(std::move(from.programs),
                                             import ? nullptr : &where.platform(), run, teller);
  if (!changed) return Fail(io, kBadInput, changed.error());
  const std::vector<Candidate>& now = folder.entries().programs;
  if (options.common.json) {
    io.out(Dump({{"corpus", folder.path().string()},
                 {"read", read},
                 {"before", before},
                 {"added", changed->added},
                 {"removed", changed->removed},
                 {"programs", now.size()},
                 {"bytes", BytesOf(now)},
                 {"kernel_edges", EdgesJson(now)},
                 {"platform", import ? json() : json(campaign::PlatformLabel(where.platform()))},
                 {"passed_over", from.errors.size() + folder.entries().errors.size()}}));
  } else if (minimize) {
    io.out(fmt::format("{}: {} programs, {} bytes, of {} files; {} files removed\n",
                       folder.path().string(), now.size(), BytesOf(now), read, changed->removed) +
           EdgesText(now));
  } else {
    io.out(fmt::format("{}: {} of {} programs added; now {} programs, {} bytes\n",
                       folder.path().string(), changed->added, read, now.size(), BytesOf(now)) +
           EdgesText(now));
  }
  const ExitCode first = TellErrors(io, folder.entries());
  return std::max(first, TellErrors(io, from));
}

int Stats(const CorpusOptions& options, CorpusFolder& folder, const Io& io) {
  const auto where = Find(options);
  if (!where) return FailUnavailable(io, options.common.target, where.error());
  std::vector<Candidate>& programs = folder.entries().programs;
  const auto cover =
      campaign::FindCover(programs, where->platform(), nullptr, Teller(io, "looked at"));
  if (!cover) return Fail(io, kBadInput, cover.error());
  size_t steps = 0, most = 0, several = 0, unknown = 0;
  std::map<std::string, size_t> platforms, signatures;
  for (const Candidate& each : programs) {
    steps += each.steps;
    most = std::max<size_t>(most, each.steps);
    several += each.vcpus > 1;
    unknown += each.note == campaign::CorpusNote{};
    for (const auto& [label, states] : each.note.platforms) ++platforms[label];
    for (const std::string& key : each.note.signatures) ++signatures[key];
  }
  const auto needed = std::count(cover->chosen.begin(), cover->chosen.end(), true);
  const std::string label = campaign::PlatformLabel(where->platform());
  if (options.common.json) {
    io.out(Dump({{"corpus", folder.path().string()},
                 {"files", folder.entries().read},
                 {"programs", programs.size()},
                 {"bytes", BytesOf(programs)},
                 {"steps", steps},
                 {"most_steps", most},
                 {"several_vcpus", several},
                 {"platform", label},
                 {"states", cover->reached},
                 {"needed", needed},
                 {"not_in_manifest", unknown},
                 {"platforms", platforms},
                 {"signatures", signatures},
                 {"kernel_edges", EdgesJson(programs)},
                 {"passed_over", folder.entries().errors.size()}}));
    return TellErrors(io, folder.entries());
  }
  std::string text = fmt::format(
      "{}: {} programs in {} files, {} bytes, {} steps ({} at most), {} with several vCPUs\n"
      "{} states on {}; {} programs suffice for them\n",
      folder.path().string(), programs.size(), folder.entries().read, BytesOf(programs), steps,
      most, several, cover->reached, label, needed);
  for (const auto& [name, count] : platforms) {
    text += fmt::format("interesting on {} ({} programs)\n", name, count);
  }
  text += EdgesText(programs);
  for (const auto& [key, count] : signatures) {
    text += fmt::format("signature {} ({} programs)\n", key, count);
  }
  if (unknown > 0) {
    text +=
        fmt::format("not known where: {} programs; `fpswap corpus minimize` finds out\n", unknown);
  }
  io.out(text);
  return TellErrors(io, folder.entries());
}

std::string TextOf(const Candidate& program) {
  std::string text;
  for (const auto& [label, states] : program.note.platforms) {
    text += fmt::format("# {} states first reached on {}\n", states, label);
  }
  for (const auto& [label, edges] : program.note.kernel_edges) {
    text += fmt::format("# {} edges of the kernel first reached on {}\n", edges, label);
  }
  for (const std::string& key : program.note.signatures) text += fmt::format("# shows {}\n", key);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c != '\n' && (c < ' ' || c > '~'); }, '?');
  return text + program::PrintText(program::Decode(program.bytes));
}

int ExportCorpus(const CorpusOptions& options, CorpusFolder& folder, const Io& io) {
  std::error_code status;
  fs::create_directories(options.output, status);
  if (status) {
    return Fail(io, kBadInput, fmt::format("{}: {}", options.output.string(), status.message()));
  }
  Teller teller(io, "written");
  const std::vector<Candidate>& programs = folder.entries().programs;
  for (size_t i = 0; i < programs.size(); ++i) {
    const fs::path path = options.output / campaign::CorpusName(programs[i].bytes);
    const auto written =
        options.format == "text"
            ? files::WriteFile(fs::path(path.string() + ".fps"),
                               files::AsBytes(TextOf(programs[i])), files::Sync::kLater)
            : files::WriteFile(path, programs[i].bytes, files::Sync::kLater);
    if (!written) return Fail(io, kBadInput, written.error());
    teller(i + 1, programs.size());
  }
  if (options.common.json) {
    io.out(Dump({{"corpus", folder.path().string()},
                 {"output", options.output.string()},
                 {"format", options.format},
                 {"programs", programs.size()},
                 {"passed_over", folder.entries().errors.size()}}));
  } else {
    io.out(fmt::format("{} programs written to {}\n", programs.size(), options.output.string()));
  }
  return TellErrors(io, folder.entries());
}

}  // namespace

int Corpus(const CorpusOptions& options, const Io& io) {
  if (options.run && options.common.target.empty()) {
    return Fail(io, kBadInput, "--run needs --target: what to run the programs on");
  }
  const bool make = options.verb == Verb::kMerge || options.verb == Verb::kImport;
  auto folder = CorpusFolder::Open(options.corpus, make);
  if (!folder) return Fail(io, kBadInput, folder.error());
  if (options.verb == Verb::kStats) return Stats(options, *folder, io);
  if (options.verb == Verb::kExport) return ExportCorpus(options, *folder, io);
  return Change(options, *folder, io);
}

void AddCorpus(CLI::App& app, Chosen& chosen) {
  CLI::App* corpus =
      app.add_subcommand("corpus", "Folders of programs: merge, minimize, stats, import, export");
  corpus->require_subcommand(1);
  corpus->footer(
      "A corpus is a folder of programs in byte form, as `fpswap fuzz --corpus` keeps it, and\n"
      "manifest.json: on which platforms an entry was interesting. Interesting is what reaches a\n"
      "state of the oracle, shows a signature, or reaches an edge of the kernel, that no shorter\n"
      "program does. States are simulated: on a machine that has everything, or as on --target.\n"
      "Signatures and edges are seen where programs run (--run; edges where the kernel has KCOV);\n"
      "without, what the manifest says of them counts.\n\n"
      "Examples:\n"
      "  fpswap corpus import C corpus/seeds         the seeds as a corpus to start from\n"
      "  fpswap corpus merge C findings other        what others have and C does not\n"
      "  fpswap corpus export C -o D --format bytes  for libFuzzer's -merge or afl-cmin");
  struct Row {
    Verb verb;
    const char *name, *what;
  };
  static constexpr Row kRows[] = {
      {Verb::kMerge, "merge", "Add what reaches something that the corpus does not"},
      {Verb::kMinimize, "minimize",
       "Keep the shortest program for each state, signature and kernel edge"},
      {Verb::kStats, "stats", "What a corpus holds and reaches"},
      {Verb::kImport, "import", "Add all programs, in text or byte form, as they are"},
      {Verb::kExport, "export", "Write all programs in text or byte form"}};
  for (const Row& row : kRows) {
    auto options = std::make_shared<CorpusOptions>();
    options->verb = row.verb;
    options->common.target = "";
    CLI::App* command = corpus->add_subcommand(row.name, row.what);
    command->add_option("corpus", options->corpus, "Folder of the corpus")->required();
    if (row.verb == Verb::kMerge || row.verb == Verb::kImport) {
      command
          ->add_option("from", options->from,
                       "Corpora, programs, findings, or queues of AFL++ (byte-form files are those "
                       "named by a hash or id:...)")
          ->required();
    }
    if (row.verb == Verb::kExport) {
      command->add_option("-o,--output", options->output, "Folder to write to")->required();
      command->add_option("--format", options->format, "text (.fps) or bytes")
          ->check(CLI::IsMember({"text", "bytes"}))
          ->capture_default_str();
    }
    if (row.verb == Verb::kMerge || row.verb == Verb::kMinimize) {
      command->add_flag("--run", options->run,
                        "Run each program on --target: signatures count like states, and edges of "
                        "the kernel where it counts them (KCOV)");
      AddEndangerHost(*command, options->common);
    }
    if (row.verb != Verb::kImport && row.verb != Verb::kExport) {
      AddTarget(*command, options->common);
    }
    AddJson(*command, options->common);
    command->callback(
        [options, &chosen] { chosen = [options](const Io& io) { return Corpus(*options, io); }; });
  }
}

}  // namespace fpswap::cli
