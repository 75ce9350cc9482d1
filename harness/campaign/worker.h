// SPDX-License-Identifier: GPL-2.0-or-later
//
// One fuzzing job, whatever engine drives it: takes programs in byte form, simulates them for the
// engine's feedback, and runs them in batches on a thread of its own, so that programs are made
// while others run. Divergences are looked into on that thread.
//
// What is made depends on seed and corpus alone; what runs lags behind by up to two batches. Where
// the kernel counts what is reached of it, each program is run before the next one is made.
//
// Thread safety: the public functions are used by one thread (the engine's).
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/campaign/reach_table.h"
#include "harness/campaign/runner.h"
#include "harness/triage/known.h"

namespace fpswap::campaign {

struct WorkerOptions {
  std::string target;
  targets::Options target_options;
  std::filesystem::path findings;  // findings go here
  std::filesystem::path run;       // the run's own folder: counters, pending programs, results
  std::filesystem::path corpus;    // byte-form programs, read and added to
  std::filesystem::path known;     // corpus/known, or "" for none
  unsigned job = 0;
  uint64_t seed = 0;
  uint64_t runs = 0;  // programs to make, those of earlier lives of this job included; 0: no limit
  unsigned batch = 48;
  // What the measurement of the generator turns off (ci/measure-generator).
  bool guided = true;   // the engine sees what is reached
  bool ours = true;     // programs are mutated as programs; else as the engine mutates any bytes
  std::string version;  // of fpswap, for findings
};

// For the way through the environment to an engine's process.
std::string ToJson(const WorkerOptions& options);
std::expected<WorkerOptions, std::string> WorkerOptionsFromJson(std::string_view json);
inline constexpr const char* kWorkerVariable = "FPSWAP_WORKER";
// Names the file where AFL++'s mutator finds the platform that its target has opened.
inline constexpr const char* kAflPlatformVariable = "FPSWAP_AFL_PLATFORM";

// What a job leaves in the run's folder, and how it is read back: by the supervisor, and by the
// next life of the job.
struct JobResult {
  ReachTable reach;
  std::map<std::string, uint64_t> known_seen, new_seen;
  // Edges of the kernel that a program reached first, by its CorpusName; and PlatformLabel of
  // where.
  std::map<std::string, uint64_t> kernel_edges;
  std::string platform;
};
std::filesystem::path JobResultPath(const std::filesystem::path& run, unsigned job);
std::filesystem::path JobStatsPath(const std::filesystem::path& run, unsigned job);
std::expected<JobResult, std::string> ReadJobResult(const std::filesystem::path& path);
std::expected<void, std::string> WriteJobResult(const std::filesystem::path& path,
                                                const JobResult& result);

class Worker {
 public:
  // Exit status of a worker's process.
  enum Exit { kDone = 0, kUnavailable = 3, kBroken = 4 };

  // Opens the target, unless `runner` is given.
  static std::expected<std::unique_ptr<Worker>, targets::Unavailable> Open(
      const WorkerOptions& options, std::unique_ptr<Runner> runner = nullptr);
  ~Worker();

  const WorkerOptions& options() const;
  const trace::Platform& platform() const;

  // Takes the program that `bytes` mean; sets `counters` (kCounters bytes) for what it reaches.
  void OneInput(std::span<const uint8_t> bytes, std::span<uint8_t> counters);
  // Another program in byte form, at most `limit` bytes, made from `bytes` (and `other`).
  std::vector<uint8_t> Mutate(std::span<const uint8_t> bytes, uint64_t seed, size_t limit) const;
  std::vector<uint8_t> Cross(std::span<const uint8_t> bytes, std::span<const uint8_t> other,
                             uint64_t seed, size_t limit) const;

  // True when nothing more is to be made: told to stop, all made, or something failed.
  bool stopped() const;
  // Runs what was handed over, writes the result and returns the process's exit status.
  Exit Finish();

  // Tells every Worker of this process to stop; async-signal-safe.
  static void StopAll();

 private:
  struct Impl;
  explicit Worker(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fpswap::campaign
