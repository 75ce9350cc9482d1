// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "harness/judge/verdict.h"
#include "harness/program/step.h"

namespace fpswap::judge {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 7> kLawNames = {
    "none", "model", "coherence", "round_trip", "isolation", "refusal", "health"};
constexpr std::array<std::string_view, 12> kRelationNames = {
    "other",    "stale",   "initial",     "invented", "shifted", "anothers",
    "accepted", "refused", "wrong_error", "hang",     "died",    "complained"};

json ToJson(const Divergence& d) {
  const program::StepRow* row = program::FindStep(static_cast<program::Op>(d.op));
  json out = {{"law", LawName(d.law)},
              {"step", d.step},
              {"op", row != nullptr ? row->name : std::string_view("none")},
              {"relation", RelationName(d.relation)},
              {"initial", d.initial},
              {"where", d.where},
              {"offset", d.offset},
              {"possible", HexOf(d.possible)},
              {"seen", HexOf(d.seen)},
              {"bits", fmt::format("{:#x}", d.bits)},
              {"rule", d.rule},
              {"cause", d.cause},
              {"words", d.words},
              {"origin", d.origin}};
  if (d.possible_value) out["possible_value"] = fmt::format("{:#x}", *d.possible_value);
  if (d.seen_value) out["seen_value"] = fmt::format("{:#x}", *d.seen_value);
  out["component"] = d.has_component ? json(xstate::RowOf(d.component).name) : json(nullptr);
  return out;
}

}  // namespace

std::string_view LawName(Law law) {
  const auto i = static_cast<size_t>(law);
  return i < kLawNames.size() ? kLawNames[i] : kLawNames[0];
}

std::string_view RelationName(Relation relation) {
  const auto i = static_cast<size_t>(relation);
  return i < kRelationNames.size() ? kRelationNames[i] : kRelationNames[0];
}

std::string HexOf(std::span<const uint8_t> bytes) {
  std::string out;
  for (const uint8_t b : bytes) out += fmt::format("{:02x}", b);
  return out;
}

std::string VerdictToJson(const Verdict& verdict) {
  json laws = json::array(), divergences = json::array();
  for (unsigned law = 1; law < kLawNames.size(); ++law) {
    if ((verdict.laws >> law) & 1) laws.push_back(kLawNames[law]);
  }
  for (const Divergence& d : verdict.divergences) divergences.push_back(ToJson(d));
  const json out = {{"ok", verdict.ok()},
                    {"unknown", verdict.unknown},
                    {"cut", verdict.cut != nullptr ? json(verdict.cut) : json()},
                    {"cut_at", verdict.cut_at},
                    {"checks", verdict.checks},
                    {"laws", std::move(laws)},
                    {"divergences", std::move(divergences)}};
  // Words may quote an agent's text, which may be anything.
  return out.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace fpswap::judge
