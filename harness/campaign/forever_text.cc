// SPDX-License-Identifier: GPL-2.0-or-later
//
// The status of a run without an end, for people's scripts and for Prometheus.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "harness/campaign/forever.h"

namespace fpswap::campaign {
namespace {

using nlohmann::json;

double Rate(const Progress& progress) {
  return progress.seconds > 0 ? static_cast<double>(progress.programs) / progress.seconds : 0;
}

// A label's value: Prometheus wants backslash, quote and newline escaped, and nothing else.
std::string Label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    c == '\n' ? out += "\\n" : out += c;
  }
  return out;
}

}  // namespace

std::string StatusToJson(const ForeverStatus& status) {
  const Progress& p = status.progress;
  return json{{"state", status.state},
              {"target", status.target},
              {"kernel", status.kernel},
              {"cpu", status.cpu},
              {"version", status.version},
              {"findings", status.findings},
              {"started", status.started},
              {"updated", status.updated},
              {"rounds", p.rounds},
              {"early_rounds", status.early_rounds},
              {"seconds", p.seconds},
              {"programs", p.programs},
              {"programs_per_second", Rate(p)},
              {"states", p.reached},
              {"corpus", p.corpus},
              {"new", p.new_found},
              {"known", p.known_found},
              {"restarts", p.restarts},
              {"unsaved", p.unsaved},
              {"disk_mib", status.disk_mib},
              {"disk_bound_mib", status.disk_bound_mib},
              {"memory_mib", status.memory_mib},
              {"memory_bound_mib", status.memory_bound_mib},
              {"removed", status.removed},
              {"judged_again", status.judged},
              {"changes", status.changes},
              {"said", status.said}}
             .dump(1, ' ', false, json::error_handler_t::replace) +
         "\n";
}

std::string StatusToMetrics(const ForeverStatus& status) {
  const Progress& p = status.progress;
  const std::string labels =
      fmt::format("target=\"{}\",findings=\"{}\"", Label(status.target), Label(status.findings));
  std::string text;
  const auto add = [&](const char* name, const char* type, const char* help, double value,
                       const std::string& more = "") {
    text += fmt::format("# HELP fpswap_{0} {1}\n# TYPE fpswap_{0} {2}\nfpswap_{0}{{{3}{4}}} {5}\n",
                        name, help, type, labels, more, value);
  };
  const auto number = [](auto value) { return static_cast<double>(value); };
  add("info", "gauge", "Always 1; what runs, and where.", 1,
      fmt::format(",version=\"{}\",kernel=\"{}\",cpu=\"{}\"", Label(status.version),
                  Label(status.kernel), Label(status.cpu)));
  add("fuzzing", "gauge", "1 while programs run, 0 between rounds, while waiting and when stopped.",
      number(status.state == "fuzzing"));
  add("updated_timestamp_seconds", "gauge", "When this was written.", number(status.updated));
  add("programs_total", "counter", "Programs run and judged.", number(p.programs));
  add("worker_restarts_total", "counter", "Workers that died and were started again.",
      number(p.restarts));
  add("rounds_total", "counter", "Rounds begun.", number(p.rounds));
  add("early_rounds_total", "counter", "Rounds that a bound on memory or disk ended.",
      number(status.early_rounds));
  add("new_divergences", "gauge", "Distinct divergences that are not known, since the start.",
      number(p.new_found));
  add("known_divergences", "gauge", "Distinct known divergences seen since the start.",
      number(p.known_found));
  add("unsaved_findings_total", "counter", "Findings that could not be written.",
      number(p.unsaved));
  add("states", "gauge", "States of the oracle reached in this round.", number(p.reached));
  add("disk_bytes", "gauge", "Findings and corpus on the disk.",
      number(status.disk_mib * (1u << 20)));
  add("disk_bound_bytes", "gauge", "What they may take.",
      number(status.disk_bound_mib * (1u << 20)));
  add("memory_bytes", "gauge", "Resident memory of workers and agents.",
      number(status.memory_mib * (1u << 20)));
  add("memory_bound_bytes", "gauge", "What they may take; a round ends there.",
      number(status.memory_bound_mib * (1u << 20)));
  add("judged_changes", "gauge", "What came out differently when last judged again.",
      number(status.changes));
  return text;
}

}  // namespace fpswap::campaign
