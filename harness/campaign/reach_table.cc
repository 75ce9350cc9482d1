// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/reach_table.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "harness/triage/signature.h"

namespace fpswap::campaign {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 5> kStates = {"absent", "initial", "in use", "disabled",
                                                     "unknown"};

uint64_t Pack(const ReachTable::Row& row) {
  return uint64_t{row.op} | uint64_t{row.component} << 8 | uint64_t{row.state} << 16 |
         uint64_t{row.exit} << 24 | uint64_t{row.outcome} << 32 | uint64_t{row.vcpus} << 40;
}

ReachTable::Row Unpack(uint64_t packed) {
  const auto byte = [packed](unsigned i) { return static_cast<uint8_t>(packed >> (8 * i)); };
  return {byte(0), byte(1), byte(2), byte(3), byte(4), byte(5)};
}

// A field of a JSON object as a number; nothing if it is missing or something else.
std::optional<uint64_t> Number(const json& object, const char* key, uint64_t limit = UINT64_MAX) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned()) return {};
  const auto value = it->get<uint64_t>();
  return value <= limit ? std::optional(value) : std::nullopt;
}

std::optional<std::pair<uint64_t, uint64_t>> RowFrom(const json& object) {
  if (!object.is_object()) return {};
  const auto op = Number(object, "op", 255), component = Number(object, "component_bit", 255),
             state = Number(object, "state", 255), exit = Number(object, "exit_op", 255),
             outcome = Number(object, "outcome", 255), count = Number(object, "count");
  // Tables written before there was more than one have no number of vCPUs.
  const auto vcpus = object.contains("vcpus") ? Number(object, "vcpus", program::kMaxVcpus)
                                              : std::optional<uint64_t>(1);
  if (!vcpus || !op || !component || !state || !exit || !outcome || !count) return {};
  const auto byte = [](uint64_t value) { return static_cast<uint8_t>(value); };
  return std::pair{
      Pack({byte(*op), byte(*component), byte(*state), byte(*exit), byte(*outcome), byte(*vcpus)}),
      *count};
}

json RowToJson(const ReachTable::Row& row, uint64_t count) {
  json object = {{"op", row.op},        {"component_bit", row.component}, {"state", row.state},
                 {"exit_op", row.exit}, {"outcome", row.outcome},         {"vcpus", row.vcpus},
                 {"count", count}};
  object["step"] = triage::OpName(row.op);
  object["state_name"] = StateName(row.state);
  object["exit"] = triage::OpName(row.exit);
  object["outcome_name"] = OutcomeName(row.outcome);
  if (row.component < xstate::kComponentCount) {
    object["component"] = xstate::RowOf(static_cast<xstate::Component>(row.component)).name;
  }
  return object;
}

}  // namespace

std::string_view StateName(uint8_t state) {
  return state < kStates.size() ? kStates[state] : std::string_view("other");
}

std::string OutcomeName(uint8_t outcome) {
  static constexpr std::pair<uint8_t, std::string_view> kVectors[] = {
      {cpu::kDE, "#DE"}, {cpu::kDB, "#DB"}, {cpu::kBP, "#BP"}, {cpu::kUD, "#UD"},
      {cpu::kNM, "#NM"}, {cpu::kDF, "#DF"}, {cpu::kSS, "#SS"}, {cpu::kGP, "#GP"},
      {cpu::kPF, "#PF"}, {cpu::kMF, "#MF"}, {cpu::kAC, "#AC"}, {cpu::kXM, "#XM"}};
  if (outcome == 0) return "done";
  if (outcome >= 128) return fmt::format("errno {}", outcome - 128);
  for (const auto& [vector, name] : kVectors) {
    if (vector + 1 == outcome) return std::string(name);
  }
  return fmt::format("vector {}", outcome - 1);
}

void ReachTable::Reach(const judge::ReachEvent& event) {
  ++rows_[Pack({event.op, event.component, event.state, event.exit, event.outcome, event.vcpus})];
}

void ReachTable::Count(const program::Program& given, const plan::Plan& plan) {
  ++programs_;
  for (const plan::Trim& trim : plan.trims) {
    const uint8_t op =
        trim.step < given.steps.size() ? static_cast<uint8_t>(given.steps[trim.step].op) : 0;
    std::pair key(triage::OpName(op), trim.reason);
    if (trims_.size() >= kMaxReasons && !trims_.contains(key)) key.second = "other reasons";
    ++trims_[key];
  }
}

void ReachTable::Count(const judge::Verdict& verdict) {
  ++judged_;
  unknown_ += verdict.unknown;
  checks_ += verdict.checks;
  for (unsigned law = 1; law < laws_.size(); ++law) laws_[law] += verdict.laws >> law & 1;
}

void ReachTable::Merge(const ReachTable& other) {
  for (const auto& [row, count] : other.rows_) rows_[row] += count;
  for (const auto& [trim, count] : other.trims_) trims_[trim] += count;
  for (size_t i = 0; i < laws_.size(); ++i) laws_[i] += other.laws_[i];
  programs_ += other.programs_;
  judged_ += other.judged_;
  unknown_ += other.unknown_;
  checks_ += other.checks_;
}

uint64_t ReachTable::trimmed() const {
  uint64_t sum = 0;
  for (const auto& [trim, count] : trims_) sum += count;
  return sum;
}

std::map<ReachTable::Row, uint64_t> ReachTable::Rows() const {
  std::map<Row, uint64_t> rows;
  for (const auto& [row, count] : rows_) rows[Unpack(row)] = count;
  return rows;
}

// Row by row: as one tree of JSON a table of a long run would take tens of MiB, every few seconds.
std::string ReachTable::ToJson() const {
  std::string text = fmt::format(
      "{{\n \"programs\": {},\n \"judged\": {},\n \"unknown\": {},\n \"checks\": {},\n \"rows\": [",
      programs_, judged_, unknown_, checks_);
  const auto append = [&text, first = true](const json& item) mutable {
    text += first ? "\n  " : ",\n  ";
    text += item.dump(-1, ' ', false, json::error_handler_t::replace);
    first = false;
  };
  for (auto rows = append; const auto& [row, count] : Rows()) rows(RowToJson(row, count));
  text += "],\n \"trims\": [";
  for (auto trims = append; const auto& [trim, count] : trims_) {
    trims({{"step", trim.first}, {"reason", trim.second}, {"count", count}});
  }
  json laws = json::object();
  for (unsigned law = 1; law <= 6; ++law) {
    laws[std::string(judge::LawName(static_cast<judge::Law>(law)))] = laws_[law];
  }
  return text + "],\n \"laws\": " + laws.dump() + "\n}";
}

std::expected<ReachTable, std::string> ReachTable::FromJson(std::string_view text) {
  ReachTable table;
  bool bad_row = false;
  // What stands in "rows" is taken as it is read, and not kept.
  bool in_rows = false;
  const auto take = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key) in_rows = parsed == "rows";
    const bool ends = event == json::parse_event_t::object_end ||
                      event == json::parse_event_t::array_end ||
                      event == json::parse_event_t::value;
    if (!in_rows || depth != 2 || !ends) return true;
    const auto row = RowFrom(parsed);
    bad_row |= !row;
    if (row) table.rows_[row->first] += row->second;
    return false;
  };
  const json object = json::parse(text, take, false);
  if (!object.is_object() || !object.contains("rows") || !object["rows"].is_array()) {
    return std::unexpected("not a reach table: an object with \"rows\" was expected");
  }
  if (bad_row) return std::unexpected("not a reach table: a row lacks a number");
  if (const auto trims = object.find("trims"); trims != object.end() && trims->is_array()) {
    for (const json& item : *trims) {
      const auto count = item.is_object() ? Number(item, "count") : std::nullopt;
      if (!count || !item.contains("step") || !item["step"].is_string() ||
          !item.contains("reason") || !item["reason"].is_string()) {
        return std::unexpected("not a reach table: a trim lacks step, reason or count");
      }
      table.trims_[{item["step"].get<std::string>(), item["reason"].get<std::string>()}] += *count;
    }
  }
  for (unsigned law = 1; law <= 6; ++law) {
    const std::string name(judge::LawName(static_cast<judge::Law>(law)));
    if (object.contains("laws") && object["laws"].is_object()) {
      table.laws_[law] = Number(object["laws"], name.c_str()).value_or(0);
    }
  }
  table.programs_ = Number(object, "programs").value_or(0);
  table.judged_ = Number(object, "judged").value_or(0);
  table.unknown_ = Number(object, "unknown").value_or(0);
  table.checks_ = Number(object, "checks").value_or(0);
  return table;
}

}  // namespace fpswap::campaign
