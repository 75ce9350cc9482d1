// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap run --target A,B,...: where targets differ on the same programs.
#include "harness/campaign/compare.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "harness/campaign/platforms.h"
#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/program/text.h"

namespace fpswap::cli {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

constexpr const char* kNotRun = "not run";

struct Side {
  std::string name;
  std::unique_ptr<campaign::Runner> runner;
};

// One program on all sides.
struct Row {
  fs::path path;
  program::Program program;  // what all can run
  std::vector<campaign::Common::LeftOut> left_out;
  std::vector<std::vector<uint8_t>> records;
  std::vector<std::string> verdicts;  // "agrees", "known", "NEW"; "not run" where a side went away
  // Against the first side, by side from the second on.
  std::vector<std::optional<campaign::Difference>> differences;
  bool Differs() const {
    return std::ranges::any_of(differences, [](const auto& d) { return d.has_value(); });
  }
  bool Ran(size_t side) const { return verdicts[side] != kNotRun; }
  bool RanOnAll() const { return std::ranges::find(verdicts, kNotRun) == verdicts.end(); }
  bool New() const { return std::ranges::find(verdicts, "NEW") != verdicts.end(); }
};

std::expected<void, std::string> RunOn(Side& side, std::span<const triage::Known> known,
                                       std::vector<Row>& rows) {
  std::vector<plan::Plan> plans;
  for (const Row& row : rows) {
    plans.push_back(plan::MakePlan(row.program, side.runner->platform()));
  }
  std::vector<const plan::Plan*> pointers;
  for (const plan::Plan& plan : plans) pointers.push_back(&plan);
  return campaign::RunInBatches(
      *side.runner, pointers,
      [&](size_t index, std::span<const uint8_t> records, const judge::Verdict& verdict) {
        rows[index].records.emplace_back(records.begin(), records.end());
        const bool fresh =
            triage::Sort(verdict, side.runner->platform(), known).first_new.has_value();
        rows[index].verdicts.emplace_back(fresh ? "NEW" : verdict.ok() ? "agrees" : "known");
      });
}

std::string Bytes(const std::vector<uint8_t>& bytes) {
  return bytes.empty() ? "nothing" : fmt::format("{:02x}", fmt::join(bytes, " "));
}

std::string StepText(const Row& row, uint16_t step) {
  if (step >= row.program.steps.size()) return fmt::format("step {}", step);
  return fmt::format("step {} ({})", step, program::PrintStep(row.program.steps[step]));
}

std::string RowText(const Row& row, std::span<const Side> sides, size_t width) {
  std::string text = fmt::format("{:{}}", row.path.string(), width);
  for (size_t i = 0; i < sides.size(); ++i) {
    const bool differs = i > 0 && row.differences[i - 1].has_value();
    text += fmt::format("  {:{}}", row.verdicts[i] + (differs ? " *" : ""), sides[i].name.size());
  }
  text += '\n';
  for (const auto& [side, step, reason] : row.left_out) {
    text += fmt::format("  left out on all: {}: {}: {}\n", program::PrintStep(step),
                        sides[side].name, reason);
  }
  for (size_t i = 1; i < sides.size(); ++i) {
    const auto& d = row.differences[i - 1];
    if (!d) continue;
    text += fmt::format("  * {}, {} from byte {} on: {} has {}, {} has {}\n",
                        StepText(row, d->step), d->what, d->offset, sides[0].name, Bytes(d->first),
                        sides[i].name, Bytes(d->second));
  }
  return text;
}

json RowJson(const Row& row, std::span<const Side> sides) {
  json verdicts = json::object(), differences = json::array();
  for (size_t i = 0; i < sides.size(); ++i) verdicts[sides[i].name] = row.verdicts[i];
  for (size_t i = 1; i < sides.size(); ++i) {
    const auto& d = row.differences[i - 1];
    if (!d) continue;
    differences.push_back({{"step", d->step},
                           {"op", StepText(row, d->step)},
                           {"what", d->what},
                           {"offset", d->offset},
                           {sides[0].name, Bytes(d->first)},
                           {sides[i].name, Bytes(d->second)}});
  }
  json left_out = json::array();
  for (const auto& [side, step, reason] : row.left_out) {
    left_out.push_back(
        {{"step", program::PrintStep(step)}, {"target", sides[side].name}, {"reason", reason}});
  }
  return {{"file", row.path.string()},
          {"verdicts", verdicts},
          {"left_out", left_out},
          {"differences", differences}};
}

}  // namespace

int Compare(const RunOptions& options,
            const std::vector<std::pair<fs::path, program::Program>>& programs, unsigned bad,
            const Io& io) {
  const auto known = LoadKnown(options.common, io);
  if (!known) return Fail(io, kBadInput, known.error());
  std::vector<Side> sides;
  for (const std::string& name : TargetNames(options.common.target)) {
    auto target = campaign::Open(name, options.common.TargetOptions());
    if (!target) return FailUnavailable(io, name, target.error());
    sides.push_back({name, campaign::MakeRunner(std::move(*target))});
  }
  std::vector<const trace::Platform*> platforms;
  for (const Side& side : sides) platforms.push_back(&side.runner->platform());
  std::vector<Row> rows;
  for (const auto& [path, program] : programs) {
    auto [common, left_out] = campaign::CommonProgram(program, platforms);
    rows.push_back({.path = path, .program = std::move(common), .left_out = std::move(left_out)});
  }
  std::string gone;  // why a side went away
  for (Side& side : sides) {
    if (!options.common.json)
      io.err(fmt::format("{} programs on {} ...\n", rows.size(), side.name));
    if (auto ran = RunOn(side, *known, rows); !ran) {
      io.err(fmt::format("fpswap: {}: {}\n", side.name, ran.error()));
      gone += fmt::format("{}{}: {}", gone.empty() ? "" : "; ", side.name, ran.error());
    }
    // What ran before it went away counts.
    for (Row& row : rows) {
      row.records.resize(static_cast<size_t>(&side - sides.data()) + 1);
      row.verdicts.resize(row.records.size(), kNotRun);
    }
  }
  size_t differ = 0, fresh = 0, width = 0, nothing = 0, not_run = 0, same = 0;
  for (Row& row : rows) {
    for (size_t i = 1; i < sides.size(); ++i) {
      row.differences.emplace_back();
      if (row.Ran(0) && row.Ran(i)) {
        row.differences.back() = campaign::FirstDifference(row.records[0], row.records[i]);
      }
    }
    not_run += !row.RanOnAll();
    differ += row.Differs();
    fresh += row.New();
    nothing += row.program.steps.empty();
    same += row.RanOnAll() && !row.Differs() && !row.program.steps.empty();
    width = std::max(width, row.path.string().size());
  }
  if (options.common.json) {
    json list = json::array(), names = json::array();
    for (const Side& side : sides) names.push_back(side.name);
    for (const Row& row : rows) list.push_back(RowJson(row, sides));
    io.out(Dump({{"targets", names},
                 {"programs", rows.size()},
                 {"differ", differ},
                 {"new", fresh},
                 {"nothing_in_common", nothing},
                 {"not_run", not_run},
                 {"errors", gone.empty() ? json::array() : json::array({gone})},
                 {"results", list}}));
  } else {
    std::string text = fmt::format("{:{}}", "", width);
    for (const Side& side : sides) text += "  " + side.name;
    text += '\n';
    for (const Row& row : rows) text += RowText(row, sides, width);
    text += fmt::format("{} programs: {} differ, {} the same on all{}{}; {} with new divergences\n",
                        rows.size(), differ, same,
                        nothing > 0 ? fmt::format(", {} with no step in common", nothing) : "",
                        not_run > 0 ? fmt::format(", {} not run on all", not_run) : "", fresh);
    io.out(text);
  }
  if (!gone.empty() && differ + fresh == 0) return kUnavailable;
  return ExitOf(differ + fresh, bad);
}

}  // namespace fpswap::cli
