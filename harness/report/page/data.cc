// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/page/data.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <tuple>

#include "harness/files/files.h"
#include "harness/judge/judge.h"
#include "harness/triage/cause.h"
#include "harness/triage/signature.h"

namespace fpswap::report {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxReach = 256u << 20;
constexpr size_t kMaxPoints = 400;  // of a line

using Sightings = std::vector<triage::Sighting>;
using Runs = std::map<int64_t, const triage::StoredRun*>;
// Which programs a run's count may be compared with.
using PlatformKey = std::tuple<std::string, std::string, std::string, std::string, std::string>;

PlatformKey KeyOf(const triage::RunFacts& run) {
  return {run.target, run.kernel, run.cpu, run.version, run.plant};
}

// What all runs of a platform ran, by platform: the same for each group.
std::map<PlatformKey, uint64_t> ProgramsRun(const std::vector<triage::StoredRun>& runs) {
  std::map<PlatformKey, uint64_t> ran;
  for (const triage::StoredRun& run : runs) ran[KeyOf(run.facts)] += run.programs;
  return ran;
}

// What runs of the same target and plant had run before each run began.
std::map<int64_t, uint64_t> ProgramsBefore(const std::vector<triage::StoredRun>& runs) {
  std::map<std::pair<std::string, std::string>, uint64_t> so_far;
  std::map<int64_t, uint64_t> before;
  for (const triage::StoredRun& run : runs) {
    uint64_t& sum = so_far[{run.facts.target, run.facts.plant}];
    before[run.id] = sum;
    sum += run.programs;
  }
  return before;
}

struct Context {
  Runs runs;
  std::map<PlatformKey, uint64_t> ran;
  std::map<int64_t, uint64_t> before;
};

// `seen`: the sightings of this group alone.
void Count(Group& group, std::span<const triage::Sighting> seen, const Context& context) {
  std::map<PlatformKey, uint64_t> showed;
  for (const triage::Sighting& each : seen) {
    const auto run = context.runs.find(each.run);
    if (run == context.runs.end()) continue;
    group.programs += each.programs;
    ++group.runs;
    showed[KeyOf(run->second->facts)] += each.programs;
    if (group.first == 0 || each.first < group.first) {
      group.first = each.first;
      group.after = context.before.at(each.run) + each.after;
    }
    group.last = std::max(group.last, each.last);
  }
  // The finding itself knows best when it was found, and all that a lost store knew.
  const triage::FindingFacts& facts = group.facts;
  if (facts.found > 0 && (group.first == 0 || facts.found < group.first)) {
    group.first = facts.found;
    if (group.runs == 0) group.after = facts.after;
  }
  group.last = std::max(group.last, group.first);
  for (const auto& [key, programs] : context.ran) {
    const auto& [target, kernel, cpu, version, plant] = key;
    // A planted bug and a real one say nothing of each other.
    if (plant != facts.plant && !showed.contains(key)) continue;
    const auto count = showed.find(key);
    group.agreements.push_back({target, kernel, cpu, version, plant, programs,
                                count == showed.end() ? 0 : count->second, false});
  }
  if (group.runs == 0 && !facts.target.empty()) {
    group.agreements.push_back(
        {facts.target, facts.kernel, facts.cpu, facts.version, facts.plant, 0, 0, true});
  }
  std::ranges::sort(group.agreements, [](const Agreement& a, const Agreement& b) {
    return std::tie(b.showed, a.target, a.kernel, a.version) <
           std::tie(a.showed, b.target, b.kernel, b.version);
  });
}

// The divergence that the finding is of, as this fpswap judges the trace.
std::optional<size_t> FindDivergence(const judge::Verdict& verdict,
                                     const triage::FindingFacts& facts) {
  const auto& list = verdict.divergences;
  const auto is = [&](size_t i) { return triage::SignatureOf(list[i]).Key() == facts.key; };
  if (facts.divergence && *facts.divergence < list.size() && is(*facts.divergence)) {
    return facts.divergence;
  }
  for (size_t i = 0; i < list.size(); ++i) {
    if (is(i)) return i;
  }
  return {};
}

Detail DetailOf(const fs::path& folder, const triage::FindingFacts& facts) {
  Detail detail;
  const auto bytes = files::ReadFile(folder / "trace.fpt", trace::kMaxTraceSize);
  if (!bytes) {
    detail.error = bytes.error();
    return detail;
  }
  const auto trace = trace::ReadTrace(files::AsBytes(*bytes));
  if (!trace) {
    detail.error = fmt::format("{}: {}", (folder / "trace.fpt").string(), trace.error());
    return detail;
  }
  const plan::Plan plan = plan::MakePlan(trace->program, trace->platform);
  judge::Judge judge(trace->platform);
  judge.KeepCompared();
  detail.shown = Describe(plan, judge.Check(plan, trace->records));
  detail.shown.trims = trace->trims;
  detail.divergence = FindDivergence(detail.shown.verdict, facts);
  if (detail.divergence) {
    const auto& divergence = detail.shown.verdict.divergences[*detail.divergence];
    detail.map = MapOf(divergence.compared, trace->platform);
  }
  return detail;
}

// A long series with fewer points: rates are averaged, of states the last counts.
std::vector<Point> Thin(const std::vector<Point>& points) {
  if (points.size() <= kMaxPoints) return points;
  const size_t every = (points.size() + kMaxPoints - 1) / kMaxPoints;
  std::vector<Point> few;
  for (size_t i = 0; i < points.size(); i += every) {
    const size_t end = std::min(i + every, points.size());
    double programs = 0, seconds = 0;
    bool begins = false;
    for (size_t k = i; k < end; ++k) {
      const double lasted = points[k].seconds - (k > 0 ? points[k - 1].seconds : 0);
      programs += points[k].rate * lasted;
      seconds += lasted;
      begins |= points[k].begins;
    }
    few.push_back({.seconds = points[end - 1].seconds,
                   .rate = seconds > 0 ? programs / seconds : 0,
                   .states = points[end - 1].states,
                   .begins = begins});
  }
  return few;
}

std::expected<std::vector<Series>, std::string> CollectSeries(
    triage::Store& store, const std::vector<triage::StoredRun>& runs) {
  std::map<std::pair<std::string, std::string>, Series> all;
  for (const triage::StoredRun& run : runs) {
    const auto samples = store.Samples(run.id);
    if (!samples) return std::unexpected(samples.error());
    if (samples->empty()) continue;
    Series& series = all[{run.facts.target, run.facts.plant}];
    series.target = run.facts.target;
    series.plant = run.facts.plant;
    const double began = series.points.empty() ? 0 : series.points.back().seconds;
    triage::Sample last;
    bool begins = true;
    for (const triage::Sample& sample : *samples) {
      const double lasted = sample.seconds - last.seconds;
      if (!(lasted > 0) || sample.programs < last.programs) continue;
      series.points.push_back(
          {.seconds = began + sample.seconds,
           .rate = static_cast<double>(sample.programs - last.programs) / lasted,
           .states = sample.states,
           .begins = begins});
      begins = false;
      last = sample;
    }
  }
  std::vector<Series> list;
  for (auto& [key, series] : all) {
    series.points = Thin(series.points);
    if (!series.points.empty()) list.push_back(std::move(series));
  }
  return list;
}

void ReadReach(const fs::path& findings, ReportData& data) {
  const fs::path path = findings / "reach.json";
  std::error_code status;
  if (!fs::exists(path, status)) return;
  const auto text = files::ReadFile(path, kMaxReach);
  if (!text) return data.problems.push_back(text.error());
  auto table = campaign::ReachTable::FromJson(*text);
  if (!table) {
    return data.problems.push_back(fmt::format("{}: {}", path.string(), table.error()));
  }
  data.reach = std::move(*table);
}

// Says of each group which cause it has, and puts those of one cause together, smallest program
// first: causes that most programs showed come first.
void GroupCauses(std::vector<Group>& groups) {
  std::vector<triage::Evidence> evidence;
  for (const Group& group : groups) {
    const triage::FindingFacts& f = group.facts;
    // Of one whose folder has gone nothing is known.
    const std::string effect = f.effect.empty() ? f.name : f.effect;
    evidence.push_back({f.name, effect, f.triggers, f.plant, f.steps});
  }
  const auto titles = triage::GroupByCause(std::move(evidence));
  std::map<std::string, uint64_t> most;
  for (Group& group : groups) {
    group.cause = titles.at(group.facts.name);
    uint64_t& programs = most[group.cause];
    programs = std::max(programs, group.programs);
  }
  std::ranges::sort(groups, [&](const Group& a, const Group& b) {
    return std::tuple(most.at(b.cause), std::string_view(a.cause), a.facts.steps,
                      std::string_view(a.facts.name)) <
           std::tuple(most.at(a.cause), std::string_view(b.cause), b.facts.steps,
                      std::string_view(b.facts.name));
  });
}

// Each group with its own sightings: `sightings` are in the order of names.
void CollectGroups(std::map<std::string, triage::FindingFacts> findings, const Sightings& sightings,
                   std::span<const triage::Known> known, const Context& context, ReportData& data) {
  std::map<std::string, Sightings> fresh, expected;
  for (const triage::Sighting& each : sightings) {
    (each.known ? expected : fresh)[each.name].push_back(each);
  }
  for (auto& [folder, facts] : findings) {
    Group group;
    group.folder = folder;
    group.facts = std::move(facts);
    if (group.facts.name.empty()) group.facts.name = folder;
    const auto seen = fresh.extract(folder);
    Count(group, seen.empty() ? Sightings{} : seen.mapped(), context);
    data.groups.push_back(std::move(group));
  }
  for (const auto& [name, seen] : fresh) {  // the folder has gone
    Group group;
    group.facts.name = name;
    for (const triage::Sighting& each : seen) {
      const auto run = context.runs.find(each.run);
      if (run != context.runs.end()) group.facts.plant = run->second->facts.plant;
    }
    Count(group, seen, context);
    data.groups.push_back(std::move(group));
  }
  for (const auto& [name, seen] : expected) {
    Group group;
    group.facts.name = name;
    const auto entry = std::ranges::find(known, name, &triage::Known::name);
    if (entry != known.end()) {
      group.title = entry->title;
      group.reason = entry->reason;
      group.kernel_function = entry->kernel_function;
    }
    Count(group, seen, context);
    data.known.push_back(std::move(group));
  }
  GroupCauses(data.groups);
  std::ranges::sort(data.known, [](const Group& a, const Group& b) {
    return std::tie(b.programs, a.facts.name) < std::tie(a.programs, b.facts.name);
  });
}

// Whether a run of `fpswap fuzz` has left anything in this folder.
bool HoldsFindings(const fs::path& folder) {
  std::error_code status;
  for (const char* name : {triage::Store::kFile, "reach.json"}) {
    if (fs::exists(folder / name, status)) return true;
  }
  fs::directory_iterator each(folder, status);
  for (; !status && each != fs::directory_iterator(); each.increment(status)) {
    if (fs::exists(each->path() / "verdict.json", status)) return true;
  }
  return false;
}

}  // namespace

std::expected<ReportData, std::string> CollectReport(const ReportRequest& request) {
  const fs::path& findings = request.findings;
  std::error_code status;
  if (!fs::is_directory(findings, status)) {
    return std::unexpected(fmt::format("{}: not a folder of findings", findings.string()));
  }
  // Nothing is written into a folder that is somebody else's.
  if (!HoldsFindings(findings)) {
    return std::unexpected(fmt::format(
        "{}: no findings there, and no run: a folder that `fpswap fuzz` wrote to is expected",
        findings.string()));
  }
  const bool writable = access(findings.c_str(), W_OK) == 0;
  auto store = writable ? triage::Store::Open(findings) : triage::Store::OpenCopy(findings);
  if (!store) return std::unexpected(store.error());
  if (auto indexed = store->Index(); !indexed) return std::unexpected(indexed.error());
  ReportData data{.findings = findings.string(),
                  .version = request.version,
                  .now = std::time(nullptr),
                  .groups = {},
                  .known = {},
                  .runs = {},
                  .series = {},
                  .reach = {},
                  .problems = {}};
  auto facts = store->Findings();
  auto runs = store->Runs();
  const auto sightings = store->Sightings();
  if (!facts) return std::unexpected(facts.error());
  if (!runs) return std::unexpected(runs.error());
  if (!sightings) return std::unexpected(sightings.error());
  data.runs = std::move(*runs);
  Context context;
  for (const triage::StoredRun& run : data.runs) context.runs[run.id] = &run;
  context.ran = ProgramsRun(data.runs);
  context.before = ProgramsBefore(data.runs);
  CollectGroups(std::move(*facts), *sightings, request.known, context, data);
  auto series = CollectSeries(*store, data.runs);
  if (!series) return std::unexpected(series.error());
  data.series = std::move(*series);
  size_t told = 0;
  for (Group& group : data.groups) {
    if (group.folder.empty() || told++ >= request.details) continue;
    group.detail = DetailOf(findings / group.folder, group.facts);
    if (!group.detail->error.empty()) data.problems.push_back(group.detail->error);
  }
  ReadReach(findings, data);
  return data;
}

}  // namespace fpswap::report
