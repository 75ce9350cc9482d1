// SPDX-License-Identifier: GPL-2.0-or-later
//
// The worker's options and results as JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "harness/campaign/worker.h"
#include "harness/files/files.h"

namespace fpswap::campaign {
namespace {

using nlohmann::json;
using Counts = std::map<std::string, uint64_t>;

constexpr size_t kMaxResultSize = 256u << 20;

std::expected<Counts, std::string> CountsFrom(const json& object, const char* key) {
  Counts counts;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_object()) return std::unexpected("no counts");
  for (const auto& [name, count] : it->items()) {
    if (!count.is_number_unsigned()) return std::unexpected("a count is not a number");
    counts[name] = count.get<uint64_t>();
  }
  return counts;
}

}  // namespace

std::string ToJson(const WorkerOptions& options) {
  const json object = {{"target", options.target},
                       {"runner_dir", options.target_options.runner_dir},
                       {"plant", options.target_options.plant},
                       {"hang_ms", options.target_options.hang_ms},
                       {"endanger_host", options.target_options.endanger_host},
                       {"findings", options.findings.string()},
                       {"run", options.run.string()},
                       {"corpus", options.corpus.string()},
                       {"known", options.known.string()},
                       {"job", options.job},
                       {"seed", options.seed},
                       {"runs", options.runs},
                       {"batch", options.batch},
                       {"guided", options.guided},
                       {"ours", options.ours},
                       {"version", options.version}};
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::expected<WorkerOptions, std::string> WorkerOptionsFromJson(std::string_view text) {
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return std::unexpected("not a JSON object");
  WorkerOptions options;
  try {
    options.target = object.at("target").get<std::string>();
    options.target_options.runner_dir = object.at("runner_dir").get<std::string>();
    options.target_options.plant = object.at("plant").get<std::string>();
    options.target_options.hang_ms = object.at("hang_ms").get<unsigned>();
    options.target_options.endanger_host = object.at("endanger_host").get<bool>();
    options.findings = object.at("findings").get<std::string>();
    options.run = object.at("run").get<std::string>();
    options.corpus = object.at("corpus").get<std::string>();
    options.known = object.at("known").get<std::string>();
    options.job = object.at("job").get<unsigned>();
    options.seed = object.at("seed").get<uint64_t>();
    options.runs = object.at("runs").get<uint64_t>();
    options.batch = object.at("batch").get<unsigned>();
    options.guided = object.at("guided").get<bool>();
    options.ours = object.at("ours").get<bool>();
    options.version = object.at("version").get<std::string>();
  } catch (const json::exception& e) {
    return std::unexpected(e.what());
  }
  if (options.batch == 0 || options.batch > 4096) return std::unexpected("batch out of range");
  return options;
}

std::filesystem::path JobResultPath(const std::filesystem::path& run, unsigned job) {
  return run / fmt::format("job-{}.json", job);
}

std::filesystem::path JobStatsPath(const std::filesystem::path& run, unsigned job) {
  return run / fmt::format("job-{}.stats", job);
}

// A line of counts, then the table.
std::expected<JobResult, std::string> ReadJobResult(const std::filesystem::path& path) {
  auto text = files::ReadFile(path, kMaxResultSize);
  if (!text) return std::unexpected(text.error());
  const auto bad = [&](const std::string& why) {
    return std::unexpected(fmt::format("{}: not a job's result: {}", path.string(), why));
  };
  const size_t line = text->find('\n');
  if (line == std::string::npos) return bad("one line");
  const json object = json::parse(std::string_view(*text).substr(0, line), nullptr, false);
  if (!object.is_object()) return bad("no counts");
  auto known_seen = CountsFrom(object, "known"), new_seen = CountsFrom(object, "new");
  if (!known_seen || !new_seen) return bad("no counts");
  auto reach = ReachTable::FromJson(std::string_view(*text).substr(line));
  if (!reach) return bad(reach.error());
  // Of a run that an older version left: there are none.
  auto edges = object.contains("kernel_edges") ? CountsFrom(object, "kernel_edges") : Counts{};
  if (!edges) return bad("no counts");
  const auto platform = object.find("platform");
  return JobResult{.reach = std::move(*reach),
                   .known_seen = std::move(*known_seen),
                   .new_seen = std::move(*new_seen),
                   .kernel_edges = std::move(*edges),
                   .platform = platform != object.end() && platform->is_string()
                                   ? platform->get<std::string>()
                                   : std::string()};
}

std::expected<void, std::string> WriteJobResult(const std::filesystem::path& path,
                                                const JobResult& result) {
  const json counts = {{"known", result.known_seen},
                       {"new", result.new_seen},
                       {"kernel_edges", result.kernel_edges},
                       {"platform", result.platform}};
  return files::WriteFile(path, counts.dump(-1, ' ', false, json::error_handler_t::replace) + "\n" +
                                    result.reach.ToJson() + "\n");
}

}  // namespace fpswap::campaign
