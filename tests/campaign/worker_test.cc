// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "harness/campaign/corpus.h"
#include "harness/campaign/engine.h"
#include "harness/campaign/feedback.h"
#include "harness/campaign/pending.h"
#include "harness/campaign/run_folder.h"
#include "harness/campaign/stats.h"
#include "harness/campaign/supervisor.h"
#include "harness/files/files.h"
#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::Agrees;
using fpswap::testing::Contains;
using fpswap::testing::FakeRunner;
using fpswap::testing::SomeDivergence;
using fpswap::testing::TemporaryFolder;
using program::Op;
using program::Program;
using ::testing::HasSubstr;

WorkerOptions OptionsIn(const fs::path& folder, uint64_t runs) {
  WorkerOptions options;
  options.findings = folder / "findings";
  options.run = folder / "findings" / ".run";
  options.corpus = folder / "corpus";
  options.seed = 7;
  options.runs = runs;
  options.batch = 16;
  for (const auto& each : {options.run, options.corpus}) fs::create_directories(each);
  return options;
}

struct Outcome {
  Worker::Exit exit = Worker::kBroken;
  uint64_t made = 0, programs = 0, hash = 0, corpus = 0;
  std::string error;
};

Outcome RunPlain(const WorkerOptions& options, std::unique_ptr<Runner> runner) {
  Outcome outcome;
  auto worker = Worker::Open(options, std::move(runner));
  if (!worker) {
    outcome.error = worker.error().reason;
    return outcome;
  }
  outcome.exit = RunPlainEngine(**worker, options);
  const auto stats = SharedStats::Map(JobStatsPath(options.run, options.job));
  if (!stats) return outcome;
  outcome.made = (*stats)->made;
  outcome.programs = (*stats)->programs;
  outcome.hash = (*stats)->hash;
  outcome.corpus = (*stats)->corpus;
  outcome.error = (*stats)->error;
  return outcome;
}

judge::Verdict VzeroallDiverges(const Program& program) {
  judge::Verdict verdict;
  if (Contains(program, Op::kVzeroall)) verdict.divergences.push_back(SomeDivergence());
  return verdict;
}

TEST(Worker, RunsExactlyTheProgramsAskedForTheLastBatchIncluded) {
  const TemporaryFolder folder;
  const Outcome outcome =
      RunPlain(OptionsIn(folder.path(), 101), std::make_unique<FakeRunner>(Agrees));
  EXPECT_EQ(outcome.exit, Worker::kDone) << outcome.error;
  EXPECT_EQ(outcome.made, 101u);
  EXPECT_EQ(outcome.programs, 101u);
  EXPECT_GT(outcome.corpus, 0u);
}

TEST(Worker, SameSeedGivesTheSameProgramsWhateverTheTargetDoes) {
  const TemporaryFolder a, b, c;
  auto slow = std::make_unique<FakeRunner>(VzeroallDiverges);
  slow->set_before([] { usleep(100); });
  const Outcome first = RunPlain(OptionsIn(a.path(), 300), std::make_unique<FakeRunner>(Agrees));
  const Outcome second = RunPlain(OptionsIn(b.path(), 300), std::move(slow));
  EXPECT_EQ(first.hash, second.hash);
  WorkerOptions other = OptionsIn(c.path(), 300);
  other.seed = 8;
  EXPECT_NE(RunPlain(other, std::make_unique<FakeRunner>(Agrees)).hash, first.hash);
}

TEST(Worker, ProgramsThatReachMoreOfTheKernelAreKept) {
  const TemporaryFolder folder, without;
  // Each program reaches an edge of its own, which the model knows nothing of.
  uint16_t edge = 0;
  auto counting = std::make_unique<FakeRunner>(Agrees);
  counting->set_edges([&](const Program&) { return std::vector<uint16_t>{edge++}; });
  const WorkerOptions options = OptionsIn(folder.path(), 300);
  ASSERT_EQ(RunPlain(options, std::move(counting)).corpus, 300u);
  EXPECT_EQ((*SharedStats::Map(JobStatsPath(options.run, 0)))->edges, 300u);
  const auto result = ReadJobResult(JobResultPath(options.run, 0));
  ASSERT_TRUE(result) << result.error();
  EXPECT_EQ(result->platform, PlatformLabel(EverythingPlatform()));
  uint64_t edges = 0;
  for (const auto& [name, count] : result->kernel_edges) {
    EXPECT_EQ(name.size(), 16u);
    edges += count;
  }
  EXPECT_EQ(edges, 300u);
  const Outcome by_model =
      RunPlain(OptionsIn(without.path(), 300), std::make_unique<FakeRunner>(Agrees));
  EXPECT_LT(by_model.corpus, 300u);
}

TEST(Worker, TheResultOfAnOlderVersionIsRead) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "job-0.json";
  const std::string rest = "\n" + ReachTable{}.ToJson() + "\n";
  ASSERT_TRUE(files::WriteFile(path, R"({"known": {"k": 1}, "new": {}})" + rest));
  const auto read = ReadJobResult(path);
  ASSERT_TRUE(read) << read.error();
  EXPECT_EQ(read->known_seen.at("k"), 1u);
  EXPECT_TRUE(read->kernel_edges.empty());
  ASSERT_TRUE(
      files::WriteFile(path, R"({"known": {}, "new": {}, "kernel_edges": {"k": -1}})" + rest));
  EXPECT_FALSE(ReadJobResult(path));
}

TEST(Worker, WhereTheKernelCountsEachProgramHasRunBeforeTheNextIsMade) {
  const TemporaryFolder folder;
  const WorkerOptions options = OptionsIn(folder.path(), 0);
  auto runner = std::make_unique<FakeRunner>(Agrees);
  const FakeRunner& counting = *runner;
  runner->set_edges([](const Program&) { return std::vector<uint16_t>{3, 3, 9}; });
  auto worker = Worker::Open(options, std::move(runner));
  ASSERT_TRUE(worker) << worker.error().reason;
  std::vector<uint8_t> model(kCounters), first(kCounters), second(kCounters);
  (*worker)->OneInput({}, first);
  EXPECT_EQ(counting.ran(), 1u);
  (*worker)->OneInput({}, second);
  EXPECT_EQ(counting.ran(), 2u);
  EXPECT_EQ(first, second);
  Feedback(model).KernelEdges(counting.kernel_edges());
  for (size_t i = 0; i < kCounters; ++i) {
    if (model[i] != 0) {
      EXPECT_EQ(first[i], 1) << i;
    }
  }
  EXPECT_EQ((*worker)->Finish(), Worker::kDone);
  EXPECT_EQ((*SharedStats::Map(JobStatsPath(options.run, 0)))->edges, 2u);
}

TEST(Worker, FindsADivergenceAndGoesOn) {
  const TemporaryFolder folder;
  const WorkerOptions options = OptionsIn(folder.path(), 2000);
  const Outcome outcome = RunPlain(options, std::make_unique<FakeRunner>(VzeroallDiverges));
  EXPECT_EQ(outcome.programs, 2000u);
  const auto result = ReadJobResult(JobResultPath(options.run, 0));
  ASSERT_TRUE(result) << result.error();
  ASSERT_EQ(result->new_seen.size(), 1u);
  EXPECT_EQ(result->reach.programs(), 2000u);
  const fs::path finding = options.findings / result->new_seen.begin()->first;
  EXPECT_EQ(files::ReadProgram(finding / "program.fps")->steps.size(), 1u);
}

TEST(Worker, CountsOnInItsNextLife) {
  const TemporaryFolder folder;
  WorkerOptions options = OptionsIn(folder.path(), 100);
  RunPlain(options, std::make_unique<FakeRunner>(VzeroallDiverges));
  options.runs = 150;
  const Outcome outcome = RunPlain(options, std::make_unique<FakeRunner>(VzeroallDiverges));
  EXPECT_EQ(outcome.programs, 150u);
  EXPECT_EQ(ReadJobResult(JobResultPath(options.run, 0))->reach.programs(), 150u);
}

TEST(Worker, RunsNothingThatIsNotOnDiskFirst) {
  const TemporaryFolder folder;
  const WorkerOptions options = OptionsIn(folder.path(), 100);
  fs::create_symlink("/dev/full", options.run / "pending-0-0.bin");
  auto runner = std::make_unique<FakeRunner>(Agrees);
  const Outcome outcome = RunPlain(options, std::move(runner));
  EXPECT_EQ(outcome.exit, Worker::kBroken);
  EXPECT_EQ(outcome.programs, 0u);
  EXPECT_THAT(outcome.error, HasSubstr("free some space"));
}

TEST(Worker, PendingProgramsAreOnDiskWhileTheyRun) {
  const TemporaryFolder folder;
  const WorkerOptions options = OptionsIn(folder.path(), 64);
  auto runner = std::make_unique<FakeRunner>(Agrees);
  runner->set_before([&] { EXPECT_TRUE(fs::exists(options.run / "pending-0-0.bin")); });
  EXPECT_EQ(RunPlain(options, std::move(runner)).programs, 64u);
  EXPECT_FALSE(fs::exists(options.run / "pending-0-0.bin")) << "removed at a clean end";
}

TEST(WorkerOptions, ComeThroughTheEnvironmentAsTheyWere) {
  const TemporaryFolder folder;
  WorkerOptions options = OptionsIn(folder.path(), 5);
  options.target = "kvm";
  options.target_options = {.runner_dir = "/a \"b\"", .plant = "p", .hang_ms = 77};
  options.known = "/k";
  const auto back = WorkerOptionsFromJson(ToJson(options));
  ASSERT_TRUE(back) << back.error();
  EXPECT_EQ(ToJson(*back), ToJson(options));
  EXPECT_EQ(back->target_options.runner_dir, "/a \"b\"");
  for (const char* bad : {"", "{}", "[]", "{\"target\":1}"})
    EXPECT_FALSE(WorkerOptionsFromJson(bad));
}

// --- the supervisor, its workers forked with a fake target
// ------------------------------------------

size_t FoldersOfRuns(const fs::path& findings) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(findings)) {
    count += entry.path().filename().string().starts_with(".run");
  }
  return count;
}

struct Supervised {
  Summary summary;
  unsigned starts = 0;
};

// `sabotage` is called in each worker before each program, with the number of restarts before it.
Supervised Supervise(const fs::path& folder, uint64_t runs, unsigned jobs, double seconds,
                     const std::function<void(unsigned restart)>& sabotage,
                     const FakeRunner::Rule& rule = Agrees) {
  FuzzOptions options;
  options.worker.findings = folder / "findings";
  options.worker.runs = runs;
  options.worker.batch = 16;
  options.jobs = jobs;
  options.seconds = seconds;
  Supervised result;
  Supervisor supervisor(options, [&](const WorkerOptions& worker_options, unsigned restart) {
    ++result.starts;
    const pid_t child = fork();
    if (child != 0) return child;
    auto runner = std::make_unique<FakeRunner>(rule);
    runner->set_before([&, restart] { sabotage(restart); });
    auto worker = Worker::Open(worker_options, std::move(runner));
    _exit(worker ? static_cast<int>(RunPlainEngine(**worker, worker_options)) : 3);
  });
  auto summary = supervisor.Run(nullptr);
  if (!summary) {
    ADD_FAILURE() << summary.error();
  } else {
    result.summary = std::move(*summary);
  }
  return result;
}

TEST(Supervisor, SumsUpItsWorkersAndCleansUpAfterThem) {
  const TemporaryFolder folder;
  const auto run = Supervise(folder.path(), 1001, 2, 0, [](unsigned) {}, VzeroallDiverges);
  EXPECT_EQ(run.summary.progress.programs, 1001u);
  EXPECT_EQ(run.summary.reach.programs(), 1001u);
  EXPECT_EQ(run.summary.new_seen.size(), 1u);
  EXPECT_EQ(run.summary.progress.restarts, 0u);
  EXPECT_TRUE(run.summary.errors.empty()) << run.summary.errors.front();
  EXPECT_TRUE(fs::exists(folder.path() / "findings" / "reach.json"));
  EXPECT_EQ(FoldersOfRuns(folder.path() / "findings"), 0u);
}

TEST(Supervisor, RestartsAWorkerThatIsKilledAndKeepsWhatItWasRunning) {
  const TemporaryFolder folder;
  const auto run = Supervise(folder.path(), 400, 1, 0, [n = 0](unsigned restart) mutable {
    if (restart == 0 && ++n == 70) kill(getpid(), SIGKILL);
  });
  EXPECT_EQ(run.starts, 2u);
  EXPECT_EQ(run.summary.progress.restarts, 1u);
  // Two batches may have been handed over and not run: they are kept, not lost.
  EXPECT_EQ(run.summary.progress.made, 400u);
  EXPECT_GE(run.summary.progress.programs, 400u - 3 * 16);
  ASSERT_FALSE(run.summary.interrupted.empty());
  EXPECT_TRUE(fs::exists(run.summary.interrupted[0] / "0000.fps"));
  EXPECT_THAT(run.summary.errors.front(), HasSubstr("killed by signal 9"));
  EXPECT_THAT(run.summary.worker_deaths,
              ::testing::ElementsAre(::testing::Pair("was killed by signal 9 (Killed)", 1u)));
}

TEST(Supervisor, GivesUpOnAWorkerThatDiesEachTimeBeforeItRunsAnything) {
  const TemporaryFolder folder;
  const auto run = Supervise(folder.path(), 400, 1, 0, [](unsigned) { _exit(9); });
  EXPECT_TRUE(run.summary.failed);
  EXPECT_LE(run.starts, 10u);
  EXPECT_THAT(run.summary.errors.back(), HasSubstr("without running a program"));
}

TEST(Supervisor, EndsInTimeAndWhenInterrupted) {
  const TemporaryFolder folder;
  const auto by_time = Supervise(folder.path(), 0, 1, 0.3, [](unsigned) {});
  EXPECT_GT(by_time.summary.progress.programs, 0u);
  EXPECT_LT(by_time.summary.progress.seconds, 10);
  std::signal(SIGALRM, [](int) { Supervisor::Interrupt(); });
  ualarm(300000, 0);
  const auto interrupted = Supervise(folder.path(), 0, 2, 0, [](unsigned) {});
  std::signal(SIGALRM, SIG_DFL);
  EXPECT_GT(interrupted.summary.progress.programs, 0u);
  EXPECT_TRUE(interrupted.summary.errors.empty());
}

TEST(Supervisor, SalvagesWhatARunLeftThatIsGone) {
  const TemporaryFolder folder;
  const fs::path findings = folder.path() / "findings";
  // A supervisor that dies in the middle, as on a power cut: its workers with it.
  const pid_t child = fork();
  if (child == 0) {
    Supervise(folder.path(), 0, 1, 0, [n = 0](unsigned) mutable {
      if (++n < 50) return;
      kill(getppid(), SIGKILL);
      kill(getpid(), SIGKILL);
    });
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  usleep(100000);  // the worker kills itself after its parent
  const auto run = Supervise(folder.path(), 10, 1, 0, [](unsigned) {});
  ASSERT_FALSE(run.summary.interrupted.empty());
  EXPECT_TRUE(files::ReadProgram(run.summary.interrupted[0] / "0000.fps"));
  EXPECT_EQ(FoldersOfRuns(findings), 0u);
}

TEST(Supervisor, TellsTheStoreHowTheRunWentAndWhatItSaw) {
  const TemporaryFolder folder;
  const auto run = Supervise(folder.path(), 1001, 2, 0, [](unsigned) {}, VzeroallDiverges);
  auto store = triage::Store::Open(folder.path() / "findings");
  ASSERT_TRUE(store) << store.error();
  const auto runs = store->Runs();
  ASSERT_TRUE(runs && runs->size() == 1);
  EXPECT_EQ(runs->front().programs, 1001u);
  EXPECT_EQ(runs->front().facts.jobs, 2u);
  const auto seen = store->Sightings();
  ASSERT_TRUE(seen && seen->size() == 1);
  EXPECT_EQ(seen->front().name, run.summary.new_seen.begin()->first);
  EXPECT_EQ(seen->front().programs, run.summary.new_seen.begin()->second);
  EXPECT_TRUE(store->Findings()->contains(seen->front().name));
  EXPECT_FALSE(store->Samples(runs->front().id)->empty());
}

TEST(Supervisor, RunsNothingWhereTheStoreIsDamagedAndSaysWhatToDo) {
  const TemporaryFolder folder;
  const fs::path findings = folder.path() / "findings";
  fs::create_directories(findings);
  ASSERT_TRUE(files::WriteFile(findings / triage::Store::kFile, std::string(4096, 'x')));
  FuzzOptions options;
  options.worker.findings = findings;
  Supervisor supervisor(options, [](const WorkerOptions&, unsigned) -> pid_t {
    ADD_FAILURE() << "a worker was started";
    return -1;
  });
  const auto summary = supervisor.Run(nullptr);
  ASSERT_FALSE(summary);
  EXPECT_THAT(summary.error(), HasSubstr("delete it: it is made again from the findings"));
}

TEST(Supervisor, NotesWhatAKilledRunHadCounted) {
  const TemporaryFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    Supervise(
        folder.path(), 0, 1, 0,
        [n = 0](unsigned) mutable {
          if (++n < 2000) return;
          kill(getppid(), SIGKILL);
          kill(getpid(), SIGKILL);
        },
        VzeroallDiverges);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  usleep(100000);  // the worker kills itself after its parent
  Supervise(folder.path(), 10, 1, 0, [](unsigned) {});
  auto store = triage::Store::Open(folder.path() / "findings");
  ASSERT_TRUE(store) << store.error();
  const auto runs = store->Runs();
  ASSERT_TRUE(runs && runs->size() == 2);
  EXPECT_GT(runs->front().programs, 0u);
  const auto seen = store->Sightings();
  ASSERT_TRUE(seen && !seen->empty());
  EXPECT_EQ(seen->front().run, runs->front().id);
  EXPECT_GT(seen->front().programs, 0u);
}

// What a run leaves that is killed while a program runs.
void LeaveRun(const fs::path& run, const Program& program) {
  fs::create_directories(run);
  ASSERT_TRUE(files::WriteFile(run / "lock", ""));
  ASSERT_TRUE(SharedStats::Map(JobStatsPath(run, 0)));
  ASSERT_TRUE(PendingFile(run, 0, false).Write({&program, 1}));
}

// In a container each run may have the process id of the one before it.
TEST(Supervisor, SalvagesARunThatHadThisProcessId) {
  const TemporaryFolder folder;
  const Program program = fpswap::testing::ProgramOf({Op::kVzeroall});
  LeaveRun(folder.path() / "findings" / (".run-" + std::to_string(getpid())), program);
  const auto run = Supervise(folder.path(), 40, 1, 0, [](unsigned) {});
  ASSERT_EQ(run.summary.interrupted.size(), 1u);
  EXPECT_EQ(files::ReadProgram(run.summary.interrupted[0] / "0000.fps").value(), program);
}

// Its process may be in another PID namespace, where no process id of it means anything here.
TEST(Supervisor, LeavesARunAloneThatLives) {
  const TemporaryFolder folder;
  const fs::path other = folder.path() / "findings" / ".run-99999999";
  LeaveRun(other, {});
  {
    const auto lives = RunLock::Share(other);
    ASSERT_TRUE(lives) << lives.error();
    EXPECT_TRUE(Supervise(folder.path(), 40, 1, 0, [](unsigned) {}).summary.interrupted.empty());
    EXPECT_TRUE(fs::exists(other / "pending-0-0.bin"));
  }
  EXPECT_EQ(Supervise(folder.path(), 40, 1, 0, [](unsigned) {}).summary.interrupted.size(), 1u);
  EXPECT_FALSE(fs::exists(other));
}

// Nothing can be written while this lives: a disk that is full.
class FullDisk {
 public:
  FullDisk() {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit none{.rlim_cur = 0, .rlim_max = before_.rlim_max};
    std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
};

TEST(Supervisor, RunsNothingUntilWhatAnEarlierRunLeftIsSaved) {
  const TemporaryFolder folder;
  const fs::path findings = folder.path() / "findings", old = findings / ".run-old";
  LeaveRun(old, {});
  FuzzOptions options;
  options.worker.findings = findings;
  {
    Supervisor supervisor(options, [](const WorkerOptions&, unsigned) -> pid_t {
      ADD_FAILURE() << "a worker was started";
      return -1;
    });
    std::string error;
    {
      const FullDisk full;
      const auto summary = supervisor.Run(nullptr);
      if (!summary) error = summary.error();
    }
    EXPECT_THAT(error, HasSubstr("could not be saved and stay in " + old.string()));
  }
  EXPECT_TRUE(ReadPending(old / "pending-0-0.bin"));
  const auto run = Supervise(folder.path(), 40, 1, 0, [](unsigned) {});
  ASSERT_EQ(run.summary.interrupted.size(), 1u);
  EXPECT_TRUE(files::ReadProgram(run.summary.interrupted[0] / "0000.fps"));
  EXPECT_FALSE(fs::exists(old));
}

TEST(Supervisor, KeepsItsFolderWhereAWorkersProgramsCannotBeSaved) {
  const TemporaryFolder folder;
  const fs::path findings = folder.path() / "findings";
  FuzzOptions options;
  options.worker.findings = findings;
  options.worker.batch = 16;
  std::unique_ptr<FullDisk> full;
  {
    Supervisor supervisor(options, [&](const WorkerOptions& worker_options, unsigned restart) {
      EXPECT_EQ(restart, 0u) << "started again it would write over what was about to run";
      const pid_t child = fork();
      if (child != 0) {
        full = std::make_unique<FullDisk>();  // the supervisor's, not the worker's
        return child;
      }
      auto runner = std::make_unique<FakeRunner>(Agrees);
      runner->set_before([] { kill(getpid(), SIGKILL); });
      auto worker = Worker::Open(worker_options, std::move(runner));
      _exit(worker ? static_cast<int>(RunPlainEngine(**worker, worker_options)) : 3);
    });
    const auto summary = supervisor.Run(nullptr);
    full.reset();
    ASSERT_TRUE(summary) << summary.error();
    EXPECT_TRUE(summary->failed);
    EXPECT_TRUE(summary->interrupted.empty());
  }
  EXPECT_EQ(FoldersOfRuns(findings), 1u);
  EXPECT_FALSE(Supervise(folder.path(), 40, 1, 0, [](unsigned) {}).summary.interrupted.empty());
  EXPECT_EQ(FoldersOfRuns(findings), 0u);
}

TEST(Supervisor, CountsAFindingThatCannotBeWritten) {
  const TemporaryFolder folder;
  const auto run = Supervise(
      folder.path(), 400, 1, 0, [](unsigned) {},
      [](const Program& program) {
        judge::Verdict verdict = VzeroallDiverges(program);
        // No folder can have a name that long.
        for (judge::Divergence& d : verdict.divergences) d.cause = std::string(256, 'x');
        return verdict;
      });
  EXPECT_GT(run.summary.progress.unsaved, 0u);
  EXPECT_EQ(run.summary.progress.new_found, 1u);
  EXPECT_TRUE(run.summary.new_seen.empty()) << "there is no folder to name";
}

TEST(Supervisor, CountsNewDivergencesOfAJobWhoseResultCannotBeRead) {
  const TemporaryFolder folder;
  bool first = true;
  const auto run = Supervise(
      folder.path(), 400, 1, 0,
      [&](unsigned) {
        if (!std::exchange(first, false)) return;
        for (const auto& entry : fs::directory_iterator(folder.path() / "findings")) {
          if (entry.is_directory()) fs::create_directory(entry.path() / "job-0.json");
        }
      },
      VzeroallDiverges);
  EXPECT_EQ(run.summary.progress.new_found, 1u);
  EXPECT_FALSE(run.summary.errors.empty());
}

TEST(RunFolder, OfEachRunIsItsOwn) {
  const TemporaryFolder folder;
  const auto one = MakeRunFolder(folder.path() / "findings"),
             two = MakeRunFolder(folder.path() / "findings");
  ASSERT_TRUE(one && two);
  EXPECT_NE(one->path, two->path);
  EXPECT_TRUE(AbandonedRuns(folder.path() / "findings").empty());
}

}  // namespace
}  // namespace fpswap::campaign
