// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>

#include "harness/campaign/corpus.h"
#include "harness/campaign/feedback.h"
#include "harness/campaign/investigate.h"
#include "harness/campaign/pending.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/run_folder.h"
#include "harness/campaign/stats.h"
#include "harness/files/files.h"
#include "harness/program/breed.h"
#include "harness/program/codec.h"

namespace fpswap::campaign {
namespace {

using Status = std::expected<void, std::string>;
constexpr auto kResultEvery = std::chrono::seconds(20);

volatile std::sig_atomic_t stop_all = 0;

struct Batch {
  std::vector<program::Program> given;
  std::vector<plan::Plan> plans;
};

uint64_t HashBytes(uint64_t hash, std::span<const uint8_t> bytes) {
  for (uint8_t b : bytes) hash = (hash ^ b) * 1099511628211u;  // FNV-1a
  return (hash ^ bytes.size()) * 1099511628211u;
}

}  // namespace

// The engine's thread makes batches; `runner_thread` runs, judges and looks into them. `queued` is
// the only thing handed over.
struct Worker::Impl {
  Impl(const WorkerOptions& options_given, std::unique_ptr<Runner> runner_given,
       SharedStats stats_given, RunLock lock_given, std::vector<triage::Known> known_given);
  ~Impl();

  void Hand(Batch batch);
  void HandWhatThereIs();
  void WaitUntilRun();
  void AddKernelEdges(std::span<uint8_t> counters);
  bool Stopped() const;

  void RunBatches();
  Status RunBatch(const Batch& batch);
  Status LookInto(const Batch& batch, size_t index, const Ran& ran,
                  const triage::Signature& wanted);
  void SaveResult();
  void PublishCounts();

  const WorkerOptions options;
  const std::unique_ptr<Runner> runner;
  const SharedStats stats;
  const RunLock run_lock;  // nobody clears up the run's folder while this lives
  const std::vector<triage::Known> known;
  const program::Profile profile;

  // The engine's thread.
  judge::Judge simulator;
  Batch filling;
  std::unique_ptr<Seen> seen = std::make_unique<Seen>();
  std::unique_ptr<Seen> seen_of_kernel = std::make_unique<Seen>();
  std::vector<uint8_t> untold;     // counters that an unguided engine does not get
  std::vector<uint8_t> of_kernel;  // counters

  // Between them.
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Batch> queued;
  std::vector<uint16_t> kernel_edges;  // of the last program that ran; read when nothing does
  bool busy = false, closed = false;

  // `pending` is the engine's thread's: a batch is written while the one before it runs. `alone` is
  // the runner's, for the programs of an investigation.
  PendingFile pending, alone;
  // The runner's thread.
  Investigator investigator;
  JobResult result;
  std::chrono::steady_clock::time_point saved = std::chrono::steady_clock::now();
  std::thread runner_thread;
};

Worker::Impl::Impl(const WorkerOptions& options_given, std::unique_ptr<Runner> runner_given,
                   SharedStats stats_given, RunLock lock_given,
                   std::vector<triage::Known> known_given)
    : options(options_given),
      runner(std::move(runner_given)),
      stats(std::move(stats_given)),
      run_lock(std::move(lock_given)),
      known(std::move(known_given)),
      profile(ProfileFor(runner->platform())),
      simulator(runner->platform()),
      pending(options.run, options.job, runner->platform().HasVmm()),
      alone(options.run, options.job + 1000, runner->platform().HasVmm()),
      investigator(*runner, known,
                   {.findings = options.findings,
                    .plant = options.target_options.plant,
                    .version = options.version,
                    .ran_so_far = [this] { return stats->programs.load(); },
                    .stop = [this] { return stop_all || stats->stop; }}) {
  if (auto earlier = ReadJobResult(JobResultPath(options.run, options.job))) {
    investigator.Restore(std::move(earlier->known_seen), std::move(earlier->new_seen));
    result.reach = std::move(earlier->reach);
    result.kernel_edges = std::move(earlier->kernel_edges);
  }
  result.platform = PlatformLabel(runner->platform());
  runner_thread = std::thread([this] { RunBatches(); });
}

Worker::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    closed = true;
  }
  changed.notify_all();
  if (runner_thread.joinable()) runner_thread.join();
}

bool Worker::Impl::Stopped() const {
  return stop_all || stats->stop || stats->failed ||
         (options.runs != 0 && stats->made >= options.runs);
}

// Waits until the batch before it runs, so at most one waits and one runs: the two slots of the
// pending file hold both.
void Worker::Impl::Hand(Batch batch) {
  if (batch.plans.empty() || stats->failed) return;
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return !queued; });
  lock.unlock();
  if (auto written = pending.Write(batch.given); !written) return stats.Fail(written.error());
  lock.lock();
  queued = std::move(batch);
  changed.notify_all();
}

void Worker::Impl::HandWhatThereIs() {
  Hand(std::move(filling));
  filling = {};
}

void Worker::Impl::WaitUntilRun() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return !queued && !busy; });
}

// Adds what the program that ran last reached of the kernel.
void Worker::Impl::AddKernelEdges(std::span<uint8_t> counters) {
  of_kernel.assign(kCounters, 0);
  Feedback(of_kernel).KernelEdges(kernel_edges);
  for (size_t i = 0; i < kCounters; ++i) counters[i] |= of_kernel[i];
  seen_of_kernel->Add(of_kernel);
  stats->edges = seen_of_kernel->count();
}

void Worker::Impl::RunBatches() {
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [&] { return queued || closed; });
    if (!queued) return;
    const Batch batch = std::move(*queued);
    queued.reset();
    busy = true;
    changed.notify_all();
    lock.unlock();
    if (!stats->failed) {
      if (auto status = RunBatch(batch); !status) stats.Fail(status.error());
    }
    lock.lock();
    busy = false;
    changed.notify_all();
  }
}

Status Worker::Impl::RunBatch(const Batch& batch) {
  std::vector<const plan::Plan*> plans;
  for (const plan::Plan& plan : batch.plans) plans.push_back(&plan);
  struct Divergent {
    size_t index;
    Ran ran;
    std::vector<triage::Signature> signatures;
  };
  std::vector<Divergent> divergent;
  const auto status = runner->Run(
      plans, &result.reach,
      [&](size_t index, std::span<const uint8_t> records, const judge::Verdict& verdict) {
        result.reach.Count(batch.given[index], batch.plans[index]);
        result.reach.Count(verdict);
        const auto edges = runner->kernel_edges();
        kernel_edges.assign(edges.begin(), edges.end());
        ++stats->programs;
        stats->trimmed += batch.plans[index].trims.size();
        if (verdict.ok()) return;
        auto unseen = investigator.Note(verdict, batch.plans[index].effective);
        if (unseen.empty()) return;
        divergent.push_back({index,
                             Ran{batch.plans[index], {records.begin(), records.end()}, verdict},
                             std::move(unseen)});
      });
  stats->looking = !divergent.empty();
  PublishCounts();
  for (const auto& [index, ran, signatures] : divergent) {
    for (const triage::Signature& wanted : signatures) {
      if (auto looked = LookInto(batch, index, ran, wanted); !looked) return looked;
    }
  }
  stats->looking = 0;
  if (std::chrono::steady_clock::now() - saved > kResultEvery) SaveResult();
  return status;
}

Status Worker::Impl::LookInto(const Batch& batch, size_t index, const Ran& ran,
                              const triage::Signature& wanted) {
  const auto before = std::span(batch.given).first(index);
  auto status = investigator.Investigate(ran, wanted, before, [&](const program::Program& program) {
    return alone.Write({&program, 1});
  });
  if (!investigator.write_error().empty()) {
    ++stats->unsaved;
    fmt::print(stderr, "{}\n", investigator.write_error());
  }
  SaveResult();
  return status;
}

void Worker::Impl::PublishCounts() {
  // Never less than before: one that could not be written, or was not looked into before an earlier
  // life of this job ended, was seen all the same.
  stats->new_found = std::max<uint64_t>(stats->new_found, investigator.new_count());
  stats->known_found = investigator.known_seen().size();
}

void Worker::Impl::SaveResult() {
  PublishCounts();
  result.known_seen = investigator.known_seen();
  result.new_seen = investigator.new_seen();
  saved = std::chrono::steady_clock::now();
  // A result that can't be saved costs statistics, not programs: the run goes on.
  const auto written = WriteJobResult(JobResultPath(options.run, options.job), result);
  if (!written) fmt::print(stderr, "{}\n", written.error());
}

Worker::Worker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Worker::~Worker() = default;

void Worker::StopAll() { stop_all = 1; }

std::expected<std::unique_ptr<Worker>, targets::Unavailable> Worker::Open(
    const WorkerOptions& options, std::unique_ptr<Runner> runner) {
  using No = std::unexpected<targets::Unavailable>;
  auto stats = SharedStats::Map(JobStatsPath(options.run, options.job));
  if (!stats) return No({stats.error(), "free some space or give another --findings folder"});
  auto lock = RunLock::Share(options.run);
  if (!lock) return No({lock.error(), "start the run again"});
  std::vector<triage::Known> known;
  if (!options.known.empty()) {
    auto loaded = triage::LoadKnown(options.known);
    if (!loaded) return No({loaded.error(), "mend the file, or give another --known folder"});
    known = std::move(*loaded);
  }
  if (!runner) {
    // The run's folder outlives this process, which engines leave by _exit, and is then removed.
    targets::Options target_options = options.target_options;
    target_options.console_folder = options.run.string();
    auto target = campaign::Open(options.target, target_options);
    if (!target) {
      stats->Fail(target.error().reason);
      return No(target.error());
    }
    runner = MakeRunner(std::move(*target));
  }
  (*stats)->looking = 0;
  (*stats)->corpus = 0;  // this life's, which begins with what the last one left
  (*stats)->ready = 1;
  return std::unique_ptr<Worker>(new Worker(std::make_unique<Impl>(
      options, std::move(runner), std::move(*stats), std::move(*lock), std::move(known))));
}

void Worker::OneInput(std::span<const uint8_t> bytes, std::span<uint8_t> engines_counters) {
  Impl& w = *impl_;
  if (stopped()) return;
  std::span<uint8_t> counters = engines_counters;
  if (!w.options.guided) {
    engines_counters[0] = 1;  // libFuzzer wants one
    w.untold.assign(kCounters, 0);
    counters = w.untold;
  }
  program::Program program = program::Decode(bytes);
  plan::Plan plan = plan::MakePlan(program, w.runner->platform());
  Feedback feedback(counters);
  feedback.Steps(plan.effective);
  w.simulator.Simulate(plan, feedback);
  const bool first = w.seen->Add(counters) > 0;
  w.stats->reached = w.seen->count();
  const std::vector<uint8_t> encoded = program::Encode(program);
  w.stats->hash = HashBytes(w.stats->hash, encoded);
  ++w.stats->made;
  w.filling.given.push_back(std::move(program));
  w.filling.plans.push_back(std::move(plan));
  const bool wait = w.runner->platform().kernel_coverage && w.options.guided;
  if (wait || w.filling.plans.size() >= w.options.batch) w.HandWhatThereIs();
  const unsigned edges = w.seen_of_kernel->count();
  if (wait) {
    w.WaitUntilRun();
    w.AddKernelEdges(counters);
  }
  const unsigned fresh = w.seen_of_kernel->count() - edges;
  // The runner's thread has nothing to do.
  if (fresh > 0) w.result.kernel_edges[CorpusName(encoded)] += fresh;
  if (first || fresh > 0) ++w.stats->corpus;
}

std::vector<uint8_t> Worker::Mutate(std::span<const uint8_t> bytes, uint64_t seed,
                                    size_t limit) const {
  program::Rng rng(seed);
  return program::MutateEncoded(bytes, rng, impl_->profile, limit);
}

std::vector<uint8_t> Worker::Cross(std::span<const uint8_t> bytes, std::span<const uint8_t> other,
                                   uint64_t seed, size_t limit) const {
  program::Rng rng(seed);
  return program::CrossEncoded(bytes, other, rng, limit);
}

const WorkerOptions& Worker::options() const { return impl_->options; }
const trace::Platform& Worker::platform() const { return impl_->runner->platform(); }

bool Worker::stopped() const { return impl_->Stopped(); }

Worker::Exit Worker::Finish() {
  Impl& w = *impl_;
  w.HandWhatThereIs();
  w.WaitUntilRun();
  w.SaveResult();
  if (w.stats->failed) return kBroken;
  w.pending.Remove();
  w.alone.Remove();
  return kDone;
}

}  // namespace fpswap::campaign
