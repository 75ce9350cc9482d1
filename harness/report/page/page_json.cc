// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "harness/report/page/page.h"

namespace fpswap::report {
namespace {

using nlohmann::json;

json MapJson(const ImageMap& map) {
  json registers = json::array();
  for (const DifferingRegister& each : map.differing) {
    registers.push_back({{"register", each.name},
                         {"offset", each.begin},
                         {"possible", judge::HexOf(each.possible)},
                         {"seen", judge::HexOf(each.seen)}});
  }
  return {{"of", PlaceTitle(map.place)}, {"size", map.seen.size()},
          {"bytes", map.bytes},          {"bits", map.bits},
          {"registers", map.registers},  {"differing", std::move(registers)}};
}

json GroupJson(const Group& group) {
  const triage::FindingFacts& f = group.facts;
  json agreements = json::array();
  for (const Agreement& each : group.agreements) {
    agreements.push_back({{"target", each.target},
                          {"kernel", each.kernel},
                          {"cpu", each.cpu},
                          {"version", each.version},
                          {"plant", each.plant},
                          {"ran", each.ran},
                          {"showed", each.showed},
                          {"recorded", each.recorded}});
  }
  json object = {{"name", f.name},
                 {"folder", group.folder},
                 {"signature", f.key},
                 {"cause", group.cause},
                 {"effect", f.effect},
                 {"triggers", f.triggers},
                 {"step", f.op},
                 {"law", f.law},
                 {"component", f.component},
                 {"relation", f.relation},
                 {"where", f.where},
                 {"words", f.words},
                 {"rule", f.rule},
                 {"plant", f.plant},
                 {"steps", f.steps},
                 {"reruns", f.reruns},
                 {"repeats", f.repeats},
                 {"programs", group.programs},
                 {"runs", group.runs},
                 {"first_seen", group.first},
                 {"last_seen", group.last},
                 {"after_programs", group.after},
                 {"seen_on", std::move(agreements)}};
  if (group.detail && group.detail->error.empty()) {
    object["still_found"] = group.detail->divergence.has_value();
    object["image"] = MapJson(group.detail->map);
  }
  return object;
}

json KnownJson(const Group& group) {
  json object = GroupJson(group);
  for (const char* key :
       {"cause", "effect", "triggers", "step", "folder", "signature", "law", "component",
        "relation", "where", "words", "rule", "plant", "steps", "reruns", "repeats"}) {
    object.erase(key);
  }
  object["title"] = group.title;
  object["reason"] = group.reason;
  object["kernel_function"] = group.kernel_function;
  return object;
}

json RunJson(const triage::StoredRun& run) {
  const triage::RunFacts& f = run.facts;
  return {{"target", f.target},       {"kernel", f.kernel},  {"cpu", f.cpu},
          {"version", f.version},     {"plant", f.plant},    {"seed", f.seed},
          {"jobs", f.jobs},           {"began", f.began},    {"ended", run.ended},
          {"programs", run.programs}, {"states", run.states}};
}

json SeriesJson(const Series& series) {
  json points = json::array();
  for (const Point& point : series.points) {
    points.push_back({{"seconds", point.seconds},
                      {"programs_per_second", point.rate},
                      {"states", point.states}});
  }
  return {{"target", series.target}, {"plant", series.plant}, {"points", std::move(points)}};
}

}  // namespace

std::string ReportJson(const ReportData& data) {
  json object = {{"findings", data.findings}, {"version", data.version},  {"time", data.now},
                 {"groups", json::array()},   {"known", json::array()},   {"runs", json::array()},
                 {"series", json::array()},   {"problems", data.problems}};
  for (const Group& group : data.groups) object["groups"].push_back(GroupJson(group));
  for (const Group& group : data.known) object["known"].push_back(KnownJson(group));
  for (const triage::StoredRun& run : data.runs) object["runs"].push_back(RunJson(run));
  for (const Series& series : data.series) object["series"].push_back(SeriesJson(series));
  object["reach"] = data.reach ? json::parse(data.reach->ToJson(), nullptr, false) : json();
  return object.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace fpswap::report
