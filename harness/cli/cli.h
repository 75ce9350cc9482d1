// SPDX-License-Identifier: GPL-2.0-or-later
//
// The `fpswap` command as a library: main/main.cc only calls Main. Each subcommand has a file of
// its name, a struct of its options, a function that does it and one that tells CLI11 about it.
//
// Results go to Io::out, everything for the user's eyes beside them (status, errors) to Io::err.
// With --json there is always one object on Io::out: where there is no result, {"error": "...",
// "exit": 2}, the sentence that stands on Io::err and the exit code.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/program/program.h"
#include "harness/targets/target.h"
#include "harness/triage/known.h"

namespace CLI {
class App;
}

namespace fpswap::cli {

enum ExitCode : int {
  kAgrees = 0,       // or only known divergences
  kDiverges = 1,     // a new divergence
  kBadInput = 2,     // or usage, a disk that can't be written, a worker of our own that died
  kUnavailable = 3,  // the target can't be had here
};

struct Io {
  std::function<void(std::string_view)> out, err;
  bool err_is_terminal = false;
  bool json = false;  // --json was given; set by Main
};

// What every subcommand understands.
struct Common {
  bool json = false;
  std::string target = "auto";
  std::string plant;
  unsigned hang_ms = 2000;
  bool endanger_host = false;
  std::optional<std::filesystem::path> known;  // nothing: FindKnown()
  targets::Options TargetOptions() const;
};

struct DoctorOptions {
  Common common;
};
struct FuzzArguments {
  Common common;
  double seconds = 0;
  uint64_t runs = 0;
  std::optional<uint64_t> seed;
  std::optional<std::filesystem::path> corpus, seeds;
  std::filesystem::path findings = "findings";
  bool until_new = false;
  bool forever = false;
  double round = 3600;
  uint64_t disk_mib = 4096, memory_mib = 0;  // 0: 1024 a job
  unsigned jobs = 1;
  unsigned batch = 48;
  std::string engine = "auto";
  std::string mutator = "programs";
  bool unguided = false;
};
struct RunOptions {
  Common common;
  std::vector<std::filesystem::path> paths;
  std::optional<std::filesystem::path> trace;
};
struct JudgeOptions {
  Common common;
  std::vector<std::filesystem::path> paths;
};
struct ShowOptions {
  Common common;  // target "": the program on a machine that has everything
  std::filesystem::path path;
};
struct MinimizeOptions {
  Common common;
  std::filesystem::path path;
  std::optional<std::filesystem::path> out;
  unsigned budget = 5000;
  std::string pass;  // "": all
};
struct ReachOptions {
  Common common;
  std::vector<std::filesystem::path> paths;
};

struct CorpusOptions {
  Common common;  // target "": states on a machine that has everything
  enum class Verb { kMerge, kMinimize, kStats, kImport, kExport } verb = Verb::kStats;
  std::filesystem::path corpus;
  std::vector<std::filesystem::path> from;  // merge, import
  std::filesystem::path output;             // export
  std::string format = "text";              // export
  bool run = false;                         // merge, minimize: run programs for their signatures
};

struct ExportOptions {
  Common common;
  std::filesystem::path path, output;
  std::string format;  // "": what suits the program
};

struct ReportOptions {
  Common common;
  std::filesystem::path findings, output = "report.html";
  size_t details = 100;
};

int Doctor(const DoctorOptions& options, const Io& io);
int Fuzz(const FuzzArguments& options, const Io& io);
int Run(const RunOptions& options, const Io& io);
// On each of several targets, and where they differ. `bad`: programs that could not be read.
int Compare(const RunOptions& options,
            const std::vector<std::pair<std::filesystem::path, program::Program>>& programs,
            unsigned bad, const Io& io);
int Judge(const JudgeOptions& options, const Io& io);
int Show(const ShowOptions& options, const Io& io);
int Reach(const ReachOptions& options, const Io& io);
int Minimize(const MinimizeOptions& options, const Io& io);
int Export(const ExportOptions& options, const Io& io);
int Corpus(const CorpusOptions& options, const Io& io);
int Report(const ReportOptions& options, const Io& io);

// Adds a subcommand to `app`; when it is chosen, `chosen` is what to do.
using Chosen = std::function<int(const Io&)>;
void AddDoctor(CLI::App& app, Chosen& chosen);
void AddFuzz(CLI::App& app, Chosen& chosen);
void AddRun(CLI::App& app, Chosen& chosen);
void AddJudge(CLI::App& app, Chosen& chosen);
void AddShow(CLI::App& app, Chosen& chosen);
void AddReach(CLI::App& app, Chosen& chosen);
void AddMinimize(CLI::App& app, Chosen& chosen);
void AddExport(CLI::App& app, Chosen& chosen);
void AddCorpus(CLI::App& app, Chosen& chosen);
void AddReport(CLI::App& app, Chosen& chosen);

// The whole command. The process's exit code.
int Main(const std::vector<std::string>& arguments, const Io& io);

}  // namespace fpswap::cli
