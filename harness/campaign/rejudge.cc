// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/rejudge.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/files/files.h"
#include "harness/plan/plan.h"
#include "harness/trace/trace.h"
#include "harness/triage/finding.h"
#include "harness/triage/signature.h"

namespace fpswap::campaign {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using Error = std::unexpected<std::string>;
using Status = std::expected<void, std::string>;

constexpr size_t kMaxTrace = 256u << 20;
constexpr size_t kAtOnce = 1024;  // programs in memory
constexpr unsigned kTries = 5;    // of a finding that does not show: as many as confirm one
constexpr const char* kDiverges = "diverges";

// What `verdict` says of the divergence with this signature. The same signature may be a new one
// and a known one: then it is new.
std::string OutcomeOf(const judge::Verdict& verdict, const trace::Platform& platform,
                      std::span<const triage::Known> known, const std::string& signature) {
  std::string outcome = verdict.ok() ? "agrees" : "";
  bool new_one = false;
  for (const judge::Divergence& divergence : verdict.divergences) {
    const triage::Known* entry = triage::FirstMatch(known, divergence, platform);
    new_one |= entry == nullptr;
    if (triage::SignatureOf(divergence).Key() != signature) continue;
    if (entry == nullptr) return kDiverges;
    outcome = "known " + entry->name;
  }
  if (!outcome.empty()) return outcome;
  if (new_one) return "diverges otherwise";
  return "known " + triage::FirstMatch(known, verdict.divergences.front(), platform)->name;
}

json WithJson(const JudgedWith& with) {
  return {{"build", with.build},
          {"version", with.version},
          {"known", with.known},
          {"target", with.target},
          {"kernel", with.kernel},
          {"cpu", with.cpu},
          {"vendor_module", with.vendor_module}};
}

struct Stored {
  fs::path folder;
  triage::FindingFacts facts;
};

std::vector<Stored> FindingsIn(const fs::path& findings) {
  std::vector<Stored> stored;
  std::error_code status;
  for (fs::directory_iterator it(findings, status), end; !status && it != end;
       it.increment(status)) {
    if (it->path().filename().string().starts_with('.')) continue;
    auto facts = triage::ReadFindingName(it->path());
    if (facts && !facts->key.empty()) stored.push_back({it->path(), std::move(*facts)});
  }
  std::ranges::sort(stored, {}, &Stored::folder);
  return stored;
}

std::string JudgeStored(const Stored& finding, std::span<const triage::Known> known) {
  const auto text = files::ReadFile(finding.folder / "trace.fpt", kMaxTrace);
  if (!text) return "can't be read";
  const auto trace = trace::ReadTrace(files::AsBytes(*text));
  if (!trace) return "can't be read";
  return OutcomeOf(judge::JudgeTrace(*trace), trace->platform, known, finding.facts.key);
}

std::expected<std::string, std::string> RunStored(const Stored& finding,
                                                  std::span<const triage::Known> known,
                                                  Runner& runner) {
  const auto program = files::ReadProgram(triage::SmallestProgram(finding.folder));
  if (!program) return std::string("can't be read");
  std::string outcome;
  for (unsigned i = 0; i < kTries; ++i) {
    const auto ran = RunOne(runner, *program);
    if (!ran) return Error(ran.error());
    if (ran->plan.effective.steps.empty()) return std::string("can't run here");
    outcome = OutcomeOf(ran->verdict, runner.platform(), known, finding.facts.key);
    if (outcome == kDiverges) break;
  }
  return outcome;
}

std::set<std::string> ShownBy(const judge::Verdict& verdict, const trace::Platform& platform,
                              std::span<const triage::Known> known) {
  std::set<std::string> shown;
  for (const judge::Divergence& divergence : verdict.divergences) {
    const triage::Known* entry = triage::FirstMatch(known, divergence, platform);
    shown.insert(entry != nullptr ? "known " + entry->name : triage::SignatureOf(divergence).Key());
  }
  return shown;
}

using Shown = std::map<std::string, std::set<std::string>>;

Status RunCorpus(const JudgeAgainOptions& options, const Shown& done, Runner& runner,
                 Shown& shown) {
  const fs::path folders[] = {options.corpus};
  auto listed = files::List(folders);
  if (!listed) return Error(listed.error());
  std::vector<fs::path> paths;
  for (fs::path& path : listed->encoded) {
    const auto before = done.find(path.filename());
    before == done.end() ? paths.push_back(std::move(path)) : void(shown.insert(*before));
  }
  for (size_t first = 0; first < paths.size(); first += kAtOnce) {
    if (options.stop && options.stop()) return Error("it was told to stop");
    std::vector<plan::Plan> plans;
    std::vector<std::string> names;
    for (size_t i = first; i < std::min(first + kAtOnce, paths.size()); ++i) {
      const auto program = files::ReadEncoded(paths[i]);
      if (!program) continue;  // whoever cares for the corpus says so
      plans.push_back(plan::MakePlan(*program, runner.platform()));
      names.push_back(paths[i].filename());
    }
    std::vector<const plan::Plan*> pointers;
    for (const plan::Plan& plan : plans) pointers.push_back(&plan);
    const auto ran =
        RunInBatches(runner, pointers,
                     [&](size_t index, std::span<const uint8_t>, const judge::Verdict& verdict) {
                       shown[names[index]] = ShownBy(verdict, runner.platform(), options.known);
                     });
    if (!ran) return Error(ran.error());
  }
  return {};
}

}  // namespace

std::expected<Judged, std::string> JudgeAgain(const JudgeAgainOptions& options,
                                              const JudgedWith& with, const Judged& before,
                                              Runner& runner) {
  const Judged none;
  const Judged& done = before.with == with ? before : none;
  Judged judged{.with = with, .traces = {}, .runs = {}, .corpus = {}};
  for (const Stored& finding : FindingsIn(options.findings)) {
    if (options.stop && options.stop()) return Error("it was told to stop");
    const std::string name = finding.folder.filename();
    const auto trace = done.traces.find(name), run = done.runs.find(name);
    judged.traces[name] =
        trace != done.traces.end() ? trace->second : JudgeStored(finding, options.known);
    if (run != done.runs.end()) judged.runs.insert(*run);
    if (run != done.runs.end() || finding.facts.target != with.target ||
        finding.facts.plant != options.plant) {
      continue;
    }
    auto ran = RunStored(finding, options.known, runner);
    if (!ran) return Error(ran.error());
    judged.runs[name] = std::move(*ran);
  }
  if (auto ran = RunCorpus(options, done.corpus, runner, judged.corpus); !ran) {
    return Error(ran.error());
  }
  return judged;
}

std::vector<Change> Changes(const Judged& before, const Judged& after) {
  std::vector<Change> changes;
  const auto findings = [&](const auto& old, const auto& now, const char* how) {
    for (const auto& [name, outcome] : now) {
      const auto was = old.find(name);
      const std::string earlier = was == old.end() ? kDiverges : was->second;
      if (earlier != outcome) {
        changes.push_back({fmt::format("finding {}, {}", name, how), earlier, outcome});
      }
    }
  };
  findings(before.traces, after.traces, "as recorded");
  findings(before.runs, after.runs, "run again");
  // By divergence, not by program: one mended bug changes thousands of programs.
  std::map<std::string, std::vector<std::string>> gone, come;
  for (const auto& [name, shown] : after.corpus) {
    const auto was = before.corpus.find(name);
    if (was == before.corpus.end()) continue;
    for (const std::string& each : was->second) {
      if (!shown.contains(each)) gone[each].push_back(name);
    }
    for (const std::string& each : shown) {
      if (!was->second.contains(each)) come[each].push_back(name);
    }
  }
  const auto corpus = [&](const auto& programs, bool now) {
    for (const auto& [shown, names] : programs) {
      const std::string none = "not shown";
      changes.push_back({fmt::format("corpus, {} programs ({})", names.size(), names.front()),
                         now ? none : shown, now ? shown : none});
    }
  };
  corpus(gone, false);
  corpus(come, true);
  return changes;
}

std::string ChangesToJson(const JudgedWith& before, const JudgedWith& after,
                          std::span<const Change> changes, int64_t when) {
  json list = json::array();
  for (const Change& each : changes) {
    list.push_back({{"what", each.what}, {"before", each.before}, {"after", each.after}});
  }
  return json{
      {"when", when}, {"from", WithJson(before)}, {"to", WithJson(after)}, {"changes", list}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string JudgedToJson(const Judged& judged) {
  return json{{"format", 1},
              {"with", WithJson(judged.with)},
              {"traces", judged.traces},
              {"runs", judged.runs},
              {"corpus", judged.corpus}}
             .dump(0, ' ', false, json::error_handler_t::replace) +
         "\n";
}

std::expected<Judged, std::string> JudgedFromJson(std::string_view text) {
  const json object = json::parse(text, nullptr, false);
  Judged judged;
  try {
    if (object.at("format") != 1) return Error("\"format\" is to be 1");
    const json& with = object.at("with");
    for (const auto& [into, key] : {std::pair(&judged.with.build, "build"),
                                    {&judged.with.version, "version"},
                                    {&judged.with.known, "known"},
                                    {&judged.with.target, "target"},
                                    {&judged.with.kernel, "kernel"},
                                    {&judged.with.cpu, "cpu"},
                                    {&judged.with.vendor_module, "vendor_module"}}) {
      *into = with.at(key).get<std::string>();
    }
    judged.traces = object.at("traces").get<std::map<std::string, std::string>>();
    judged.runs = object.at("runs").get<std::map<std::string, std::string>>();
    judged.corpus = object.at("corpus").get<Shown>();
  } catch (const json::exception& e) {
    return Error(fmt::format("not what was judged last time: {}", e.what()));
  }
  return judged;
}

}  // namespace fpswap::campaign
