// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/supervisor.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <thread>

#include "harness/campaign/corpus.h"
#include "harness/campaign/pending.h"
#include "harness/campaign/stats.h"
#include "harness/files/files.h"
#include "harness/program/text.h"
#include "harness/targets/lab.h"

namespace fpswap::campaign {
namespace fs = std::filesystem;
namespace {

using Status = std::expected<void, std::string>;

constexpr auto kTick = std::chrono::milliseconds(50);
// Seconds a worker has to come to an end. Its batch goes to its end first, in an emulated machine
// on a busy one a program or two a second.
constexpr double kGrace = 20, kLabGrace = 120;
constexpr double kShareEvery = 30;  // seconds
constexpr double kNoteEvery = 10;   // seconds between what the store is told
constexpr unsigned kMaxDeaths = 8;  // of one job without a program run in between

volatile std::sig_atomic_t interrupted_flag = 0;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The last lines of a log, for an error message.
std::string Tail(const fs::path& log) {
  auto text = files::ReadFile(log, 64u << 20);
  if (!text || text->empty()) return "";
  return text->substr(text->size() > 600 ? text->size() - 600 : 0);
}

// What the jobs of a run have left so far. A job without a result has run nothing for long.
std::vector<JobResult> ResultsOf(const fs::path& run) {
  std::vector<JobResult> results;
  std::error_code status;
  for (unsigned job = 0; fs::exists(JobStatsPath(run, job), status); ++job) {
    if (auto result = ReadJobResult(JobResultPath(run, job))) results.push_back(std::move(*result));
  }
  return results;
}

void AddCounts(const JobResult& result, triage::RunState& state) {
  for (const auto& [name, count] : result.known_seen) state.known[name] += count;
  for (const auto& [name, count] : result.new_seen) state.fresh[name] += count;
}

// Between rounds: what workers said long ago goes, so that a run of months fills no disk.
void TrimLogs(const fs::path& run) {
  constexpr uintmax_t kMaxLog = 1u << 20;
  std::error_code status;
  for (unsigned job = 0; fs::exists(JobStatsPath(run, job), status); ++job) {
    const fs::path log = run / fmt::format("job-{}.log", job);
    if (fs::file_size(log, status) > kMaxLog && !status) fs::resize_file(log, 0, status);
  }
}

std::string DescribeEnd(int status) {
  if (WIFSIGNALED(status)) {
    return fmt::format("was killed by signal {} ({})", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
  }
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

}  // namespace

void Supervisor::Interrupt() { interrupted_flag = 1; }
bool Supervisor::Interrupted() { return interrupted_flag != 0; }

Supervisor::Supervisor(FuzzOptions options, Launch launch)
    : options_(std::move(options)), launch_(std::move(launch)) {
  interrupted_flag = 0;
  if (!launch_) {
    launch_ = [this](const WorkerOptions& worker, unsigned restart) {
      return LaunchEngine(options_, worker, restart);
    };
  }
}

Status Supervisor::Prepare() {
  auto folder = MakeRunFolder(options_.worker.findings);
  if (!folder) return std::unexpected(folder.error());
  run_ = std::move(*folder);
  WorkerOptions worker = options_.worker;
  worker.run = run_->path;
  if (!options_.keep_corpus) worker.corpus = run_->path / "corpus";
  std::error_code status;
  fs::create_directories(worker.corpus, status);
  if (status) {
    return std::unexpected(fmt::format("{}: {}", worker.corpus.string(), status.message()));
  }
  for (unsigned i = 0; i < options_.jobs; ++i) {
    worker.job = i;
    const uint64_t runs = options_.worker.runs;
    worker.runs = runs == 0 ? 0 : runs / options_.jobs + (i < runs % options_.jobs);
    if (runs != 0 && worker.runs == 0) continue;
    auto stats = SharedStats::Map(JobStatsPath(run_->path, i));
    if (!stats) return std::unexpected(stats.error());
    jobs_.push_back(Job{.options = worker, .stats = std::move(*stats)});
  }
  return {};
}

Status Supervisor::OpenStore() {
  if (store_) return {};
  const fs::path& findings = options_.worker.findings;
  std::error_code status;
  fs::create_directories(findings, status);
  if (status) return std::unexpected(fmt::format("{}: {}", findings.string(), status.message()));
  auto store = triage::Store::Open(findings);
  if (!store) return std::unexpected(store.error());
  store_ = std::move(*store);
  return {};
}

Status Supervisor::BeginRun() {
  const WorkerOptions& worker = options_.worker;
  const auto id = store_->BeginRun({.folder = run_->path.filename().string(),
                                    .target = worker.target,
                                    .kernel = options_.kernel,
                                    .cpu = options_.cpu,
                                    .version = worker.version,
                                    .plant = worker.target_options.plant,
                                    .seed = worker.seed,
                                    .jobs = options_.jobs,
                                    .began = std::time(nullptr)});
  if (!id) return std::unexpected(id.error());
  run_id_ = *id;
  return {};
}

// A store that fails while a run goes on costs counts, not programs: it is said once.
void Supervisor::NoteProgress(const Progress& progress, Summary& summary) {
  if (!noting_) return;
  noted_ = progress.seconds;
  triage::RunState state{.now = std::time(nullptr),
                         .seconds = progress.seconds,
                         .programs = progress.programs,
                         .states = progress.reached};
  for (const JobResult& result : ResultsOf(run_->path)) AddCounts(result, state);
  if (auto noted = store_->Note(run_id_, state); !noted) {
    noting_ = false;
    summary.errors.push_back(noted.error());
  }
}

// What a run that was killed had counted since it last told the store.
Status Supervisor::NoteAbandoned(const fs::path& run) {
  const auto id = store_->FindRun(run.filename().string());
  if (!id) return std::unexpected(id.error());
  if (*id == 0) return {};
  triage::RunState state;
  std::error_code status;
  for (const JobResult& result : ResultsOf(run)) AddCounts(result, state);
  for (unsigned job = 0; fs::exists(JobStatsPath(run, job), status); ++job) {
    const auto stats = SharedStats::Map(JobStatsPath(run, job));
    if (!stats) continue;
    state.programs += (*stats)->programs;
    state.states = std::max<uint64_t>(state.states, (*stats)->reached);
  }
  return store_->NoteLast(*id, state);
}

Status Supervisor::Start(Job& job) {
  job.programs_at_start = job.stats->programs;
  job.stats->ready = 0;
  job.process = launch_(job.options, job.starts++);
  if (job.process >= 0) return {};
  return std::unexpected(fmt::format("a worker could not be started: {}", std::strerror(errno)));
}

// Keeps the programs that a dead worker was about to run. Only what is written elsewhere is
// removed.
Status Supervisor::Salvage(const fs::path& run, unsigned job, Summary& summary) {
  std::error_code ignored;
  const fs::path log = run / fmt::format("job-{}.log", job);
  for (unsigned each : {job, job + 1000}) {
    for (unsigned slot = 0; slot < 2; ++slot) {
      const fs::path pending = run / fmt::format("pending-{}-{}.bin", each, slot);
      if (!fs::exists(pending, ignored)) continue;
      fs::path folder;
      do {
        folder = options_.worker.findings /
                 fmt::format("interrupted-{}-{}-{}", std::time(nullptr), each, interrupted_++);
      } while (fs::exists(folder, ignored));
      if (auto saved = SalvageFile(pending, folder, summary); !saved) {
        fs::remove_all(folder, ignored);  // half of them: all are still in the pending file
        return std::unexpected(
            fmt::format("programs that were about to run when a worker or the machine went down "
                        "could not be saved and stay in {}: {}; free some space there and start "
                        "again",
                        run.string(), saved.error()));
      }
      fs::copy_file(log, folder / "worker.log", fs::copy_options::overwrite_existing, ignored);
      fs::remove(pending, ignored);
      summary.interrupted.push_back(folder);
    }
  }
  return {};
}

Status Supervisor::SalvageFile(const fs::path& pending, const fs::path& folder, Summary& summary) {
  std::error_code status;
  fs::create_directories(folder, status);
  if (status) return std::unexpected(fmt::format("{}: {}", folder.string(), status.message()));
  const auto programs = ReadPending(pending);
  if (!programs) {  // torn: whoever knows the format may still find something in it
    fs::rename(pending, folder / "pending.bin", status);
    if (status) return std::unexpected(fmt::format("{}: {}", folder.string(), status.message()));
    summary.errors.push_back(
        fmt::format("{} (now in {})", programs.error(), (folder / "pending.bin").string()));
    return {};
  }
  for (size_t i = 0; i < programs->size(); ++i) {
    auto written =
        files::WriteFile(folder / fmt::format("{:04}.fps", i), program::PrintText((*programs)[i]));
    if (!written) return written;
  }
  return {};
}

Status Supervisor::SalvageOldRuns(Summary& summary) {
  for (const RunFolder& run : AbandonedRuns(options_.worker.findings)) {
    std::error_code status;
    for (unsigned job = 0; job < 256; ++job) {
      if (!fs::exists(JobStatsPath(run.path, job), status)) continue;
      if (auto saved = Salvage(run.path, job, summary); !saved) return saved;
    }
    ShareQueues(run.path, /*last=*/true, summary);
    NoteEdges(run.path, summary);
    if (auto opened = OpenStore(); !opened) return opened;
    if (auto noted = NoteAbandoned(run.path); !noted) return noted;
    fs::remove_all(run.path, status);
  }
  return {};
}

void Supervisor::ShareQueues(const fs::path& run, bool last, Summary& summary) {
  std::error_code status;
  std::vector<fs::path> queues;
  const auto keep = [&](const fs::path& from, const fs::path& to) {
    fs::create_directories(to.parent_path(), status);
    fs::copy(from, to, fs::copy_options::recursive | fs::copy_options::skip_existing, status);
  };
  for (const auto& job : fs::directory_iterator(AflOut(run), status)) {
    if (fs::is_directory(job.path() / "queue", status)) queues.push_back(job.path() / "queue");
    const fs::path crashes = job.path() / "crashes";
    if (!fs::is_directory(crashes, status) || fs::is_empty(crashes, status)) continue;
    const fs::path kept =
        options_.worker.findings / fmt::format("crashes-{}", run.filename().string().substr(1));
    keep(crashes, kept);
    const std::string error =
        fmt::format("AFL++ saw the worker crash; programs in byte form are in {}", kept.string());
    if (std::ranges::find(summary.errors, error) == summary.errors.end()) {
      summary.errors.push_back(error);
      ++summary.worker_deaths["crashed under AFL++"];
    }
  }
  if (queues.empty() || !options_.keep_corpus) return;
  const auto share = [&]() -> Status {
    auto corpus = CorpusFolder::Open(options_.worker.corpus, true);
    if (!corpus) return std::unexpected(corpus.error());
    auto programs = ReadCandidates(queues);
    if (!programs) return std::unexpected(programs.error());
    auto added = corpus->Add(std::move(programs->programs), nullptr, nullptr, nullptr);
    if (!added) return std::unexpected(added.error());
    return {};
  };
  const Status shared = share();
  if (shared || !last) return;  // there is another time in half a minute
  const fs::path kept =
      options_.worker.findings / fmt::format("queues-{}", run.filename().string().substr(1));
  for (const fs::path& queue : queues) keep(queue, kept / queue.parent_path().filename());
  summary.errors.push_back(
      fmt::format("{}; AFL++'s queues are kept in {}: fpswap corpus import takes them",
                  shared.error(), kept.string()));
}

// For nothing but a run tells them: without, an entry that was kept for an edge looks useless.
void Supervisor::NoteEdges(const fs::path& run, Summary& summary) {
  if (!options_.keep_corpus) return;
  for (const JobResult& result : ResultsOf(run)) {
    if (result.kernel_edges.empty()) continue;
    const auto note = [&]() -> Status {
      auto corpus = CorpusFolder::Open(options_.worker.corpus, true);
      if (!corpus) return std::unexpected(corpus.error());
      return corpus->NoteEdges(result.platform, result.kernel_edges);
    };
    if (const auto noted = note(); !noted) {
      summary.errors.push_back(
          fmt::format("{}; the corpus does not know of the kernel's edges: fpswap corpus minimize "
                      "--run finds out",
                      noted.error()));
    }
  }
}

void Supervisor::Reap(Job& job, int status, Summary& summary) {
  job.process = -1;
  const fs::path log = run_->path / fmt::format("job-{}.log", job.options.job);
  // AFL++ ends well whatever its worker said.
  if (WIFEXITED(status) && WEXITSTATUS(status) == Worker::kDone && !job.stats->failed) return;
  if (WIFEXITED(status) && WEXITSTATUS(status) == Worker::kUnavailable) {
    summary.unavailable = true;
    summary.errors.push_back(job.stats->failed ? job.stats->error : Tail(log));
    return;
  }
  if (auto saved = Salvage(run_->path, job.options.job, summary); !saved) {
    // Started again it would write over them.
    keep_run_ = summary.failed = true;
    summary.errors.push_back(saved.error());
    return;
  }
  if (job.stats->failed) {  // it said why it can't go on: starting it again would not help
    summary.failed = true;
    summary.errors.push_back(job.stats->error);
    return;
  }
  // One that did not come to an end was killed by this process, which was said.
  const bool ours = job.stats->stop && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (!ours) ++summary.worker_deaths[DescribeEnd(status)];
  job.deaths = job.stats->programs > job.programs_at_start ? 1 : job.deaths + 1;
  if (interrupted_flag || job.stats->stop) return;
  if (job.deaths >= kMaxDeaths) {
    summary.failed = true;
    summary.errors.push_back(fmt::format("worker {} {} {} times without running a program: {}",
                                         job.options.job, DescribeEnd(status), job.deaths,
                                         Tail(log)));
    return;
  }
  ++restarts_;
  summary.errors.push_back(
      fmt::format("worker {} {} and was started again", job.options.job, DescribeEnd(status)));
  if (auto started = Start(job); !started) summary.errors.push_back(started.error());
}

Progress Supervisor::Measure() const {
  Progress sum;
  sum.seconds = Now() - started_;
  sum.restarts = restarts_;
  sum.rounds = rounds_;
  for (const Job& job : jobs_) {
    const Stats& stats = *job.stats;
    sum.made += stats.made;
    sum.programs += stats.programs;
    // Jobs reach and find much the same: the best one's figure, not the sum.
    sum.reached = std::max<uint64_t>(sum.reached, stats.reached);
    sum.edges = std::max<uint64_t>(sum.edges, stats.edges);
    sum.corpus += stats.corpus;
    sum.new_found = std::max<uint64_t>(sum.new_found, stats.new_found);
    sum.known_found = std::max<uint64_t>(sum.known_found, stats.known_found);
    sum.trimmed += stats.trimmed;
    sum.unsaved += stats.unsaved;
    sum.hash ^= stats.hash;
    sum.jobs += job.process >= 0;
    sum.starting = sum.starting && !stats.ready;
  }
  return sum;
}

Progress Supervisor::Measure(const Summary& summary) const {
  Progress progress = Measure();
  if (!summary.errors.empty()) progress.last_said = summary.errors.back();
  return progress;
}

bool Supervisor::Over(const Progress& progress) const {
  if (interrupted_flag || progress.jobs == 0) return true;
  const auto looks = [](const Job& job) { return job.stats->looking != 0; };
  if (options_.until_new && progress.new_found > 0 && std::ranges::none_of(jobs_, looks)) {
    return true;
  }
  return options_.seconds > 0 && progress.seconds >= options_.seconds;
}

// Tells the workers to come to an end and waits for them, for as long as is reasonable.
void Supervisor::StopWorkers(Summary& summary, const Show& show) {
  for (Job& job : jobs_) job.stats->stop = 1;
  const bool lab = options_.worker.target.starts_with(targets::kLabPrefix);
  const double grace = lab ? kLabGrace : kGrace;
  const double deadline = Now() + grace;
  while (Measure().jobs > 0) {
    ReapEnded(summary);
    if (Now() > deadline) {
      for (Job& job : jobs_) {
        if (job.process < 0) continue;
        summary.errors.push_back(fmt::format(
            "worker {} did not come to an end within {} s and was killed", job.options.job, grace));
        kill(job.process, SIGKILL);
        int status = 0;
        waitpid(job.process, &status, 0);
        Reap(job, status, summary);
      }
    }
    if (show) show(Measure());
    std::this_thread::sleep_for(kTick);
  }
}

void Supervisor::SumUp(Summary& summary) {
  summary.progress = Measure();
  for (const Job& job : jobs_) {
    auto result = ReadJobResult(JobResultPath(run_->path, job.options.job));
    if (!result) {
      if (job.stats->programs > 0) summary.errors.push_back(result.error());
      continue;
    }
    summary.reach.Merge(result->reach);
    for (const auto& [name, count] : result->known_seen) summary.known_seen[name] += count;
    for (const auto& [name, count] : result->new_seen) summary.new_seen[name] += count;
  }
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  summary.progress.peak_rss_mib = static_cast<uint64_t>(usage.ru_maxrss) / 1024;
  // A finding that could not be written, or a job's result that can't be read, is in no map.
  summary.progress.new_found =
      std::max<uint64_t>(summary.progress.new_found, summary.new_seen.size());
  summary.progress.known_found =
      std::max<uint64_t>(summary.progress.known_found, summary.known_seen.size());
  if (summary.progress.unsaved > 0) {
    summary.errors.push_back(
        fmt::format("{} findings could not be written to {}: is the disk full?",
                    summary.progress.unsaved, options_.worker.findings.string()));
  }
  if (summary.progress.programs > 0) {
    auto written =
        files::WriteFile(options_.worker.findings / "reach.json", summary.reach.ToJson());
    if (!written) summary.errors.push_back(written.error());
  }
  NoteProgress(summary.progress, summary);
  if (noting_) {
    if (auto indexed = store_->Index(); !indexed) summary.errors.push_back(indexed.error());
  }
  std::error_code ignored;
  if (!keep_run_) fs::remove_all(run_->path, ignored);
}

void Supervisor::ReapEnded(Summary& summary) {
  for (Job& job : jobs_) {
    int status = 0;
    if (job.process < 0 || waitpid(job.process, &status, WNOHANG) != job.process) continue;
    Reap(job, status, summary);
  }
}

// Until the whole run is over, or this round. The workers have ended then.
void Supervisor::RunRound(Summary& summary, const Show& show) {
  const Rounds& rounds = options_.rounds;
  const double began = Now();
  ++rounds_;
  for (Job& job : jobs_) {
    job.stats->stop = job.stats->failed = 0;
    job.deaths = 0;
    if (auto started = Start(job); !started) summary.errors.push_back(started.error());
  }
  for (Progress progress = Measure(summary); !Over(progress); progress = Measure(summary)) {
    if (show) show(progress);
    if (progress.seconds - noted_ >= kNoteEvery) NoteProgress(progress, summary);
    std::this_thread::sleep_for(kTick);
    ReapEnded(summary);
    if (Now() - shared_ > kShareEvery) {
      ShareQueues(run_->path, /*last=*/false, summary);
      shared_ = Now();
    }
    if (rounds.seconds > 0 && Now() - began >= rounds.seconds) break;
    if (rounds.over && rounds.over(progress)) break;
  }
  StopWorkers(summary, show);
}

void Supervisor::Wait(double seconds, const Summary& summary, const Show& show) {
  Progress progress = Measure(summary);
  progress.waiting = true;
  progress.starting = false;
  for (const double end = Now() + seconds; Now() < end && !interrupted_flag;) {
    progress.seconds = Now() - started_;
    if (show) show(progress);
    std::this_thread::sleep_for(kTick);
  }
}

void Supervisor::RunRounds(Summary& summary, const Show& show) {
  const Rounds& rounds = options_.rounds;
  double wait = rounds.wait;
  while (true) {
    summary.failed = summary.unavailable = false;
    if (rounds.between) {
      if (auto ready = rounds.between(); !ready) {
        summary.failed = true;
        summary.errors.push_back(ready.error());
        return;
      }
      if (interrupted_flag) return;
    }
    const uint64_t programs = Measure().programs;
    RunRound(summary, show);
    if (rounds.seconds > 0) NoteEdges(run_->path, summary);
    // What could not be saved would be written over.
    if (rounds.seconds == 0 || interrupted_flag || keep_run_) return;
    if (Measure().programs > programs) wait = rounds.wait;
    if (summary.failed || summary.unavailable) {
      Wait(wait, summary, show);
      wait = std::min(2 * wait, rounds.longest_wait);
      if (interrupted_flag) return;
    }
    TrimLogs(run_->path);
    if (summary.errors.size() > Summary::kMaxErrors) {
      summary.errors.erase(summary.errors.begin(), summary.errors.end() - Summary::kMaxErrors);
    }
  }
}

std::expected<Summary, std::string> Supervisor::Run(const Show& show) {
  Summary summary;
  if (auto saved = SalvageOldRuns(summary); !saved) return std::unexpected(saved.error());
  if (auto ready = Prepare(); !ready) return std::unexpected(ready.error());
  if (auto opened = OpenStore(); !opened) return std::unexpected(opened.error());
  if (auto begun = BeginRun(); !begun) return std::unexpected(begun.error());
  started_ = shared_ = Now();
  RunRounds(summary, show);
  ShareQueues(run_->path, /*last=*/true, summary);
  NoteEdges(run_->path, summary);
  SumUp(summary);
  return summary;
}

}  // namespace fpswap::campaign
