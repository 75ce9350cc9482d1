// SPDX-License-Identifier: GPL-2.0-or-later
//
// Starts a fuzzing run's workers, watches over them and sums up what they did. It never touches the
// target itself: whatever happens to a worker, the run goes on and what was about to run is kept.
//
// The run's own folder (run_folder.h) is removed at the end. One that another run left because it
// was killed, or took the machine with it, is salvaged at the next start: the programs that were
// about to run become a folder FINDINGS/interrupted-... What can't be salvaged stays where it is,
// and nothing is run until it can. How the run went, and how often it saw what, goes to the
// findings store as it goes on (harness/triage/store.h).
//
// Thread safety: none; one Supervisor a process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/campaign/reach_table.h"
#include "harness/campaign/run_folder.h"
#include "harness/campaign/stats.h"
#include "harness/campaign/worker.h"
#include "harness/triage/store.h"

namespace fpswap::campaign {

// What is known while it runs, and at the end.
struct Progress {
  double seconds = 0;
  uint64_t made = 0, programs = 0, reached = 0, edges = 0, corpus = 0, new_found = 0,
           known_found = 0, trimmed = 0, unsaved = 0;
  unsigned jobs = 0, restarts = 0, rounds = 0;
  uint64_t hash = 0;  // over the programs made; with one job, the same for the same seed
  uint64_t peak_rss_mib = 0;
  bool starting = true;
  bool waiting = false;   // for the next round: this one could not go on
  std::string last_said;  // the last of Summary::errors, while the run goes on
};

// A run without an end is cut into rounds: the workers come to an end and new ones go on with the
// corpus, which is what bounds their memory.
struct Rounds {
  double seconds = 0;  // 0: there are none, the run is one piece
  // Before the first round and after each, while no worker runs. An error ends the run.
  std::function<std::expected<void, std::string>()> between;
  // True ends this round at once. Called several times a second.
  std::function<bool(const Progress&)> over;
  // After a round that could not go on (the machine to test is gone), in seconds; doubled each time
  // up to the second.
  double wait = 10, longest_wait = 600;
};

struct FuzzOptions {
  WorkerOptions worker;  // its `job` and `run` are set here; `runs` and `seed` are the whole run's
  double seconds = 0;    // 0: no limit
  bool until_new = false;  // end at the first new divergence
  unsigned jobs = 1;
  std::filesystem::path engine;    // fpswap-fuzzer, fpswap-afl; "" for the plain engine in `self`
  std::filesystem::path afl_fuzz;  // with fpswap-afl, what drives it
  std::filesystem::path self;      // the fpswap command
  bool keep_corpus = false;        // worker.corpus was given by the user; else it lives in the run
  std::string kernel, cpu;         // of the machine that the target runs on, for the store
  Rounds rounds;
};

struct Summary {
  Progress progress;
  ReachTable reach;
  std::map<std::string, uint64_t> known_seen, new_seen;  // programs, by name
  std::vector<std::filesystem::path> interrupted;        // folders of what was about to run
  // How workers died, with the number of times: "was killed by signal 11 (Segmentation fault)".
  // Whatever a program does, a worker that dies is a defect of fpswap's, or somebody killed it.
  std::map<std::string, uint64_t> worker_deaths;
  // Why the run came to an end early, what was lost; the last kMaxErrors of them.
  std::vector<std::string> errors;
  static constexpr size_t kMaxErrors = 200;
  bool unavailable = false;  // a worker could not open the target
  bool failed = false;       // the run could not go on (`errors` says why)
};

class Supervisor {
 public:
  // Starts one worker and gives its process id; -1 with errno. Null: fork and exec of the engine.
  using Launch = std::function<pid_t(const WorkerOptions&, unsigned restart)>;
  using Show = std::function<void(const Progress&)>;

  explicit Supervisor(FuzzOptions options, Launch launch = nullptr);

  // Runs to the end. `show` is called several times a second. An error: the run could not begin.
  std::expected<Summary, std::string> Run(const Show& show);

  // Ends the run in good order; async-signal-safe. It holds for what this process runs from the
  // making of a Supervisor on, before Run() too.
  static void Interrupt();
  static bool Interrupted();

 private:
  struct Job {
    WorkerOptions options;
    SharedStats stats;
    pid_t process = -1;  // -1: not running
    unsigned starts = 0;
    unsigned deaths = 0;  // in a row, without a program run in between
    uint64_t programs_at_start = 0;
  };
  std::expected<void, std::string> Prepare();
  std::expected<void, std::string> OpenStore();
  std::expected<void, std::string> BeginRun();
  void NoteProgress(const Progress& progress, Summary& summary);
  std::expected<void, std::string> Start(Job& job);
  void RunRounds(Summary& summary, const Show& show);
  void RunRound(Summary& summary, const Show& show);
  void Wait(double seconds, const Summary& summary, const Show& show);
  void ReapEnded(Summary& summary);
  void Reap(Job& job, int status, Summary& summary);
  std::expected<void, std::string> Salvage(const std::filesystem::path& run, unsigned job,
                                           Summary& summary);
  std::expected<void, std::string> SalvageFile(const std::filesystem::path& pending,
                                               const std::filesystem::path& folder,
                                               Summary& summary);
  std::expected<void, std::string> SalvageOldRuns(Summary& summary);
  // Puts the queues of AFL++ in `run` into the corpus, and what it saw crash into FINDINGS.
  void ShareQueues(const std::filesystem::path& run, bool last, Summary& summary);
  // Tells the corpus of the edges of the kernel that the jobs of `run` saw programs reach.
  void NoteEdges(const std::filesystem::path& run, Summary& summary);
  bool Over(const Progress& progress) const;
  Progress Measure() const;
  Progress Measure(const Summary& summary) const;  // with what was said
  void StopWorkers(Summary& summary, const Show& show);
  std::expected<void, std::string> NoteAbandoned(const std::filesystem::path& run);
  void SumUp(Summary& summary);

  FuzzOptions options_;
  Launch launch_;
  std::optional<RunFolder> run_;
  bool keep_run_ = false;  // it holds programs that could not be saved elsewhere
  std::vector<Job> jobs_;
  std::optional<triage::Store> store_;
  int64_t run_id_ = 0;  // in the store
  bool noting_ = true;  // false: the store failed, which was said
  double noted_ = 0;    // when, by Progress::seconds
  double started_ = 0, shared_ = 0;
  unsigned restarts_ = 0, rounds_ = 0;
  unsigned interrupted_ = 0;
};

// Where the AFL++ jobs of a run have their queues: a folder each.
std::filesystem::path AflOut(const std::filesystem::path& run);

// Starts an engine's process for `options` (the default Launch).
pid_t LaunchEngine(const FuzzOptions& fuzz, const WorkerOptions& options, unsigned restart);

}  // namespace fpswap::campaign
