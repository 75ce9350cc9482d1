// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/cli/common.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/files/files.h"
#include "harness/program/suggest.h"
#include "harness/targets/lab.h"
#include "harness/triage/signature.h"

namespace fpswap::cli {
namespace fs = std::filesystem;

fs::path OwnFolder() {
  std::error_code status;
  return fs::read_symlink("/proc/self/exe", status).parent_path();
}

targets::Options Common::TargetOptions() const {
  return {.runner_dir = OwnFolder().string(),
          .plant = plant,
          .hang_ms = hang_ms,
          .endanger_host = endanger_host};
}

int Fail(const Io& io, ExitCode code, std::string_view sentence) {
  io.err(fmt::format("fpswap: {}\n", sentence));
  if (io.json) io.out(ErrorJson(sentence, code));
  return code;
}

std::string ErrorJson(std::string_view sentence, ExitCode code) {
  return Dump({{"error", sentence}, {"exit", static_cast<int>(code)}});
}

int FailUnavailable(const Io& io, std::string_view target, const targets::Unavailable& why) {
  const std::string remedy =
      why.remedy.empty() ? "" : fmt::format("\n  what to do: {}", why.remedy);
  return Fail(io, kUnavailable,
              fmt::format("target {} is not available: {}{}\n  `fpswap doctor` tells what this "
                          "machine can test",
                          target, why.reason, remedy));
}

std::expected<trace::Trace, std::string> ReadTraceFile(const fs::path& path) {
  const auto bytes = files::ReadFile(path, trace::kMaxTraceSize);
  if (!bytes) return std::unexpected(bytes.error());
  auto trace = trace::ReadTrace(files::AsBytes(*bytes));
  if (!trace) return std::unexpected(fmt::format("{}: {}", path.string(), trace.error()));
  return trace;
}

fs::path TraceOrProgram(const fs::path& path) {
  std::error_code status;
  if (!fs::is_directory(path, status)) return path;
  for (const char* name : {"minimized.fpt", "trace.fpt"}) {
    if (fs::exists(path / name, status)) return path / name;
  }
  return path / "program.fps";
}

ExitCode ExitOf(size_t fresh, size_t bad) {
  if (fresh > 0) return kDiverges;
  return bad > 0 ? kBadInput : kAgrees;
}

std::optional<fs::path> FindKnown(const Common& common) {
  if (common.known) return common.known;
  const fs::path own = OwnFolder();
  for (const fs::path& folder :
       {own / "../corpus/known", own / "../share/fpswap/known", fs::path("corpus/known")}) {
    std::error_code status;
    if (fs::is_directory(folder, status)) return fs::canonical(folder, status);
  }
  return {};
}

std::expected<std::vector<triage::Known>, std::string> LoadKnown(const Common& common,
                                                                 const Io& io) {
  const auto folder = FindKnown(common);
  if (!folder) {
    io.err(
        "fpswap: no list of known divergences is here (corpus/known beside the build folder or in "
        "the current one): all that diverges counts as new; --known names one\n");
    return std::vector<triage::Known>{};
  }
  return triage::LoadKnown(*folder);
}

std::vector<std::string> TargetNames(const std::string& names) {
  std::vector<std::string> list;
  for (size_t begin = 0; begin <= names.size();) {
    const size_t end = std::min(names.find(',', begin), names.size());
    list.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

std::string WhyRefused(const fs::path& program, const Common& common) {
  if (common.endanger_host) return "";
  const bool labs = std::ranges::all_of(TargetNames(common.target), [](const std::string& name) {
    return name.starts_with(targets::kLabPrefix);
  });
  const fs::path folder = program.has_parent_path() ? program.parent_path() : ".";
  std::error_code status;
  if (labs || !fs::exists(folder / "known.json", status)) return "";
  const auto text = files::ReadFile(folder / "known.json", 1u << 16);
  const auto entry = text ? triage::ParseKnown(*text, (folder / "known.json").string())
                          : std::unexpected(text.error());
  if (!entry) return entry.error();  // what it may do is not known
  if (!entry->endangers_host) return "";
  return fmt::format(
      "{}: takes the machine down that it runs on ({}) and is left alone: run it in a lab "
      "(--target lab:amx, docs/labs.md), or give --endanger-host",
      program.string(), entry->title);
}

std::expected<campaign::PendingBeside, std::string> BeforeRunning(const fs::path& place,
                                                                  const trace::Platform& platform,
                                                                  const Io& io) {
  auto pending = campaign::PendingBeside::Open(place, platform.HasVmm());
  if (!pending) return pending;
  for (const fs::path& saved : pending->saved()) {
    io.err(
        fmt::format("fpswap: kept {}: it was about to run when this command was ended, or the "
                    "machine went down\n",
                    saved.string()));
  }
  return pending;
}

Told Tell(const judge::Verdict& verdict, const trace::Platform& platform,
          std::span<const triage::Known> known) {
  Told told;
  told.json = nlohmann::json::parse(judge::VerdictToJson(verdict), nullptr, false);
  if (!told.json.is_object()) told.json = nlohmann::json::object();
  const triage::Sorted sorted = triage::Sort(verdict, platform, known);
  told.is_new = sorted.first_new.has_value();
  for (const triage::Known* entry : sorted.known) told.known.push_back(entry->name);
  for (const judge::Divergence& divergence : verdict.divergences) {
    // The first that matches, as triage::Sort counts it.
    const triage::Known* entry = triage::FirstMatch(known, divergence, platform);
    const std::string which = entry == nullptr ? "NEW" : "known: " + entry->name;
    told.text += fmt::format("  {}  step {} {}: {}\n", which, divergence.step,
                             triage::OpName(divergence.op), divergence.words);
  }
  told.json["known"] = told.known;
  told.json["result"] = told.is_new ? "new" : verdict.ok() ? "agrees" : "known";
  if (sorted.first_new) {
    const auto signature = triage::SignatureOf(verdict.divergences[*sorted.first_new]);
    told.json["signature"] = signature.Key();
    told.json["name"] = signature.Name();
  }
  return told;
}

namespace {

std::string TrimmedStep(const program::Program& given, const plan::Trim& trim) {
  if (trim.step >= given.steps.size()) return "set-up";
  return triage::OpName(static_cast<uint8_t>(given.steps[trim.step].op));
}

}  // namespace

std::string TellTrims(const program::Program& given, const plan::Plan& plan) {
  std::string text;
  for (const plan::Trim& trim : plan.trims) {
    if (trim.step == plan::kSetUp) {
      text += fmt::format("  changed: {}\n", trim.reason);
      continue;
    }
    text += fmt::format("  trimmed: step {} {}: {}\n", trim.step, TrimmedStep(given, trim),
                        trim.reason);
  }
  return text;
}

nlohmann::json TrimsJson(const program::Program& given, const plan::Plan& plan) {
  auto trims = nlohmann::json::array();
  for (const plan::Trim& trim : plan.trims) {
    trims.push_back(
        {{"step", trim.step}, {"op", TrimmedStep(given, trim)}, {"reason", trim.reason}});
  }
  return trims;
}

std::string Dump(const nlohmann::json& json) {
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void AddJson(CLI::App& app, Common& common) {
  app.add_flag("--json", common.json, "Print the result as one JSON object on standard output");
}

namespace {

// "" for the name of a planted bug, else what is wrong with it.
std::string CheckPlant(const std::string& name) {
  const auto plants = targets::Plants({.runner_dir = OwnFolder().string()});
  if (!plants) return "";  // opening the target tells why there is no agent
  std::string list;
  for (const targets::Plant& plant : *plants) {
    if (plant.name == name) return "";
    list += fmt::format("\n  {:28} {}", plant.name, plant.sentence);
  }
  return fmt::format("there is no planted bug {}; there are{}", program::Quote(name), list);
}

}  // namespace

void AddTarget(CLI::App& app, Common& common) {
  app.add_option(
      "--target", common.target,
      "What to run on: kvm, native, unicorn, lab:NAME (docs/labs.md), or auto, the first of "
      "kvm, native and unicorn that this machine has");
  app.add_option("--plant", common.plant,
                 "Self-test of the harness: the agent breaks the vCPU in this way")
      ->check(CLI::Validator(CheckPlant, ""))
      ->group("Self-test");
  app.add_option("--hang-ms", common.hang_ms,
                 "A step that takes longer is stopped, and its program reported if it hangs again")
      ->check(CLI::Range(10u, 600000u))
      ->capture_default_str();
}

void AddEndangerHost(CLI::App& app, Common& common) {
  app.add_flag("--endanger-host", common.endanger_host,
               "Run also what is known to take this machine down; in a lab that is run anyway");
}

void AddKnown(CLI::App& app, Common& common) {
  app.add_option("--known", common.known,
                 "Folder of known divergences (default: corpus/known beside the build folder)")
      ->check(CLI::ExistingDirectory);
}

}  // namespace fpswap::cli
