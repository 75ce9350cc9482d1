// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a run without an end needs beside a Supervisor: bounds on disk and memory, a status file and
// metrics, and that what is stored is judged again when the kernel, the oracle or the known
// divergences are new. docs/forever.md has it from the user's side.
//
// In the folder of findings it writes, whole each time: status.json, fpswap.prom (Prometheus's text
// format, for node_exporter's textfile collector), judged.json (rejudge.h); and adds to
// changes.jsonl, a line for each time that something was judged differently.
//
// Thread safety: none; one Keeper a folder of findings, which it locks.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/campaign/rejudge.h"
#include "harness/campaign/supervisor.h"
#include "harness/targets/target.h"

namespace fpswap::campaign {

struct KeepOptions {
  std::filesystem::path findings, corpus;
  std::filesystem::path known;  // corpus/known, or ""
  std::string target;
  targets::Options target_options;
  std::string version, build;  // as JudgedWith has them
  uint64_t disk_mib = 4096, memory_mib = 1024;
  double every = 5;  // seconds between two measurements, each of which writes the status
  // What gives runners of the target; null: the target is opened.
  std::function<std::expected<std::unique_ptr<Runner>, std::string>()> open;
};

// What there is to say of the run.
struct ForeverStatus {
  std::string state;  // "starting", "tidying", "judging again", "fuzzing", "waiting", "stopped"
  std::string target, kernel, cpu, version, findings;
  int64_t started = 0, updated = 0, judged = 0;  // seconds since 1970
  Progress progress;
  uint64_t disk_mib = 0, disk_bound_mib = 0, memory_mib = 0, memory_bound_mib = 0;
  unsigned early_rounds = 0;      // that a bound ended
  size_t removed = 0;             // folders that had to go for the bound
  size_t changes = 0;             // when last judged again
  std::vector<std::string> said;  // the last few sentences for people
};
std::string StatusToJson(const ForeverStatus& status);
// Prometheus's text format.
std::string StatusToMetrics(const ForeverStatus& status);

// Blocks in use below `paths`, in bytes; each file once.
uint64_t DiskUse(const std::vector<std::filesystem::path>& paths);
// Resident memory of all processes below `process`, in bytes, it itself left out.
uint64_t MemoryBelow(pid_t process);

class Keeper {
 public:
  using Say = std::function<void(std::string_view sentence)>;
  // An error: another one keeps this folder, or it can't be written.
  static std::expected<std::unique_ptr<Keeper>, std::string> Open(KeepOptions options, Say say);
  ~Keeper();

  // Rounds::between. Makes the corpus smaller, removes what may go, oldest first, until the disk's
  // bound holds (programs of interrupted workers, never findings), and judges again what is to be.
  // An error: the bound can't be held.
  std::expected<void, std::string> Between();
  // Measures, writes the status; true if a bound says that this round is over.
  bool Note(const Progress& progress);
  void End(const Summary& summary);

  const ForeverStatus& status() const { return status_; }

 private:
  Keeper(KeepOptions options, Say say, int lock);
  void Tell(std::string sentence);
  void Write();
  void State(std::string_view state);
  std::expected<void, std::string> KeepDiskBound();
  void MakeCorpusSmaller(const trace::Platform& platform);
  void JudgeAgainIfNew(Runner& runner);
  void AddChanges(const Judged& before, const Judged& after, const std::vector<Change>& changes);

  KeepOptions options_;
  Say say_;
  int lock_;
  ForeverStatus status_;
  double measured_ = -1e9, disk_measured_ = -1e9;  // by a clock that only goes forward
  bool over_ = false;
};

}  // namespace fpswap::campaign
