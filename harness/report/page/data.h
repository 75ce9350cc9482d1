// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the report tells: the findings store, the findings' traces judged again, and the reach of
// the last run, put together. How it is told is page.h.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/campaign/reach_table.h"
#include "harness/report/image_map.h"
#include "harness/report/show.h"
#include "harness/triage/known.h"
#include "harness/triage/store.h"

namespace fpswap::report {

// On one platform with one fpswap: how many programs ran there, and how many showed the divergence.
struct Agreement {
  std::string target, kernel, cpu, version, plant;
  uint64_t ran = 0, showed = 0;
  bool recorded = false;  // no run counted it: it is where the finding's trace is from
};

// A finding from the inside: its trace, judged by this fpswap.
struct Detail {
  Shown shown;
  std::optional<size_t> divergence;  // index in the verdict; nothing: this fpswap sees none
  ImageMap map;
  std::string error;  // why there is none of this
};

// All sightings of one signature, or of one known divergence.
struct Group {
  std::string folder;          // of the finding, below the findings' folder; "" where it has gone
  triage::FindingFacts facts;  // of a known one only `name`
  std::string cause;           // groups that have it are probably of one bug; "" for a known one
  std::string title, reason, kernel_function;  // of a known one, where its entry is at hand
  uint64_t programs = 0;                       // that showed it
  size_t runs = 0;
  int64_t first = 0, last = 0;  // 0: not known
  uint64_t after = 0;  // programs run, on this target with this plant, until it was first seen
  std::vector<Agreement> agreements;
  std::optional<Detail> detail;  // of as many as were asked for
};

// One line of a chart: the runs of one target, one after another.
struct Point {
  double seconds = 0;  // of fuzzing, from the first run on
  double rate = 0;     // programs a second since the point before it
  uint64_t states = 0;
  bool begins = false;  // a run
};
struct Series {
  std::string target, plant;
  std::vector<Point> points;
};

struct ReportData {
  std::string findings;  // as the user named the folder
  std::string version;
  int64_t now = 0;
  std::vector<Group> groups, known;  // causes of most programs first
  std::vector<triage::StoredRun> runs;
  std::vector<Series> series;
  std::optional<campaign::ReachTable> reach;  // of the last run
  std::vector<std::string> problems;          // what could not be read
};

struct ReportRequest {
  std::filesystem::path findings;
  std::string version;
  size_t details = 100;  // findings shown from the inside
  std::span<const triage::Known> known;
};

// Indexes the store first. What of it can't be read is among the problems; an error is that there
// is no such folder or that its store is damaged.
std::expected<ReportData, std::string> CollectReport(const ReportRequest& request);

}  // namespace fpswap::report
