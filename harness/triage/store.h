// SPDX-License-Identifier: GPL-2.0-or-later
//
// The findings store: FINDINGS/findings.db beside the findings' folders. The folders are the truth;
// the database is an index of them, and what no folder can hold: which runs there were, how often
// each saw what, and how they went in time. So it may be deleted at any time: the index comes back
// from the folders, the counts begin again.
//
// Any number of processes may share one store: each call is a transaction that waits for others'
// for up to kBusyMs, and what a call has written stays, whatever ends the process. Everything read
// is checked: a database that anybody made up gives an error, or wrong counts, no more.
//
// Errors are sentences, which name the file and say what to do. Thread safety: none.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/triage/finding.h"

struct sqlite3;

namespace fpswap::triage {

// A fuzzing run: what does not change while it goes on.
struct RunFacts {
  std::string folder;  // its own folder's name, by which a run that was killed is found again
  std::string target, kernel, cpu, version, plant;
  uint64_t seed = 0, jobs = 1;
  int64_t began = 0;  // seconds since 1970
};

// How far it has come. `known` and `fresh`: programs by the name of a known divergence, of a
// finding.
struct RunState {
  int64_t now = 0;
  double seconds = 0;
  uint64_t programs = 0, states = 0;
  std::map<std::string, uint64_t> known, fresh;
};

struct StoredRun {
  RunFacts facts;
  int64_t id = 0, ended = 0;  // when it was last heard of
  uint64_t programs = 0, states = 0;
};

// What one run saw of one divergence.
struct Sighting {
  int64_t run = 0;
  std::string name;
  bool known = false;
  uint64_t programs = 0;        // that showed it
  int64_t first = 0, last = 0;  // when
  uint64_t after = 0;           // programs that the run had behind it when this was first noted
};

struct Sample {
  double seconds = 0;
  uint64_t programs = 0, states = 0;
};

class Store {
 public:
  static constexpr const char* kFile = "findings.db";
  static constexpr int kBusyMs = 10'000;
  // Samples kept of a run: when there are more, every other one goes.
  static constexpr unsigned kMaxSamples = 256;
  // Runs whose samples are kept; of older ones only the sums stay.
  static constexpr unsigned kSampledRuns = 256;

  // Opens FINDINGS/findings.db, makes it where it is not there.
  static std::expected<Store, std::string> Open(const std::filesystem::path& findings);
  // A copy in memory, where the folder can't be written to: nothing of it stays.
  static std::expected<Store, std::string> OpenCopy(const std::filesystem::path& findings);

  // The run's id.
  std::expected<int64_t, std::string> BeginRun(const RunFacts& run);
  // The last run that had this folder; 0 for none.
  std::expected<int64_t, std::string> FindRun(const std::string& folder);
  // Takes the whole state each time: what was noted before is replaced.
  std::expected<void, std::string> Note(int64_t run, const RunState& state);
  // The same for a run that was killed some time ago: `state` has no time, so none is changed.
  std::expected<void, std::string> NoteLast(int64_t run, RunState state);

  // Brings the index in line with the folders: each new or changed one is read, each that has gone
  // leaves. The number of folders that were read.
  std::expected<size_t, std::string> Index();
  // By folder's name.
  std::expected<std::map<std::string, FindingFacts>, std::string> Findings();
  std::expected<std::vector<StoredRun>, std::string> Runs();      // in the order they began
  std::expected<std::vector<Sighting>, std::string> Sightings();  // by name, then run
  std::expected<std::vector<Sample>, std::string> Samples(int64_t run);

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };
  Store(std::filesystem::path findings, sqlite3* database)
      : findings_(std::move(findings)), database_(database) {}
  static std::expected<Store, std::string> OpenAt(const std::filesystem::path& findings,
                                                  const std::string& name);
  std::expected<void, std::string> CheckSchema();
  std::expected<void, std::string> NoteIn(int64_t run, const RunState& state);
  std::expected<size_t, std::string> IndexIn();
  std::unexpected<std::string> Failed() const;

  std::filesystem::path findings_;
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace fpswap::triage
