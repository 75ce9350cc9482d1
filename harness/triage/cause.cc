// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/cause.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace fpswap::triage {
namespace {

using program::Op;

// What comes to the state from outside, or goes through the code under test.
bool Disturbs(Op op) {
  switch (op) {
    case Op::kXsetbv:
    case Op::kWrmsr:
    case Op::kCr0Ts:
    case Op::kCr4Bit:
    case Op::kRaw:
    case Op::kSetXcrs:
    case Op::kSetMsr:
    case Op::kSetXcrsList:
    case Op::kSetMsrList:
    case Op::kSetCpuid:
    case Op::kRunImmediate:
    case Op::kMigrate:
    case Op::kInit:
      return true;
    default:
      return (op >= Op::kExitOut && op <= Op::kExitPageFault) ||
             (op >= Op::kHostCpu && op <= Op::kHostOnline);
  }
}

// What sets a whole state. The minimiser leaves one in many programs only to have a state at all.
bool SetsAll(Op op) {
  switch (op) {
    case Op::kXrstor:
    case Op::kXrstors:
    case Op::kFxrstor:
    case Op::kSetXsave:
    case Op::kSetFpu:
    case Op::kOsSetRegset:
    case Op::kOsSigreturn:
      return true;
    default:
      return false;
  }
}

std::string NamesOf(const program::Program& program, bool (*wanted)(Op)) {
  std::set<std::string_view> names;
  for (const program::Step& step : program.steps) {
    if (wanted(step.op)) names.insert(program::RowOf(step).name);
  }
  return fmt::format("{}", fmt::join(names, "+"));
}

std::vector<std::string_view> Split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find('+'), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

}  // namespace

std::string_view RelationFamily(judge::Relation relation) {
  using enum judge::Relation;
  switch (relation) {
    case kInitial:
      return "lost";
    case kOther:
    case kStale:
    case kInvented:
    case kShifted:
    case kAnothers:
      return "foreign";
    case kAccepted:
    case kRefused:
    case kWrongError:
      return "answered wrongly";
    case kHang:
    case kDied:
    case kComplained:
      return "broken";
  }
  return "";
}

std::string Triggers(const program::Program& program) {
  std::string names = NamesOf(program, Disturbs);
  return names.empty() ? NamesOf(program, SetsAll) : names;
}

bool MayShareCause(std::string_view fewer, std::string_view triggers) {
  if (fewer.empty()) return triggers.empty();
  return std::ranges::includes(Split(triggers), Split(fewer));
}

bool HasTriggers(const program::Program& program, std::string_view triggers) {
  if (triggers.empty()) return Triggers(program).empty();
  return std::ranges::all_of(Split(triggers), [&](std::string_view name) {
    return std::ranges::any_of(program.steps, [&](const program::Step& step) {
      return program::RowOf(step).name == name;
    });
  });
}

std::map<std::string, std::string> GroupByCause(std::vector<Evidence> findings) {
  // Those that need least come first: they lead.
  const auto need = [](const Evidence& e) {
    return e.triggers.empty() ? 0 : 1 + std::ranges::count(e.triggers, '+');
  };
  std::ranges::sort(findings, [&](const Evidence& a, const Evidence& b) {
    return std::tuple(need(a), a.steps, std::string_view(a.name)) <
           std::tuple(need(b), b.steps, std::string_view(b.name));
  });
  struct Leader {
    std::string_view triggers;
    std::string title;
  };
  std::map<std::pair<std::string_view, std::string_view>, std::vector<Leader>> leaders;
  std::map<std::string, std::string> titles;
  for (const Evidence& each : findings) {
    auto& list = leaders[{each.effect, each.plant}];
    auto leader = std::ranges::find_if(
        list, [&](const Leader& one) { return MayShareCause(one.triggers, each.triggers); });
    if (leader == list.end()) {
      std::string title = each.effect;
      if (!each.triggers.empty()) {
        title += fmt::format(" after {}", fmt::join(Split(each.triggers), ", "));
      }
      if (!each.plant.empty()) title += fmt::format(" (plant {})", each.plant);
      list.push_back({each.triggers, std::move(title)});
      leader = list.end() - 1;
    }
    titles[each.name] = leader->title;
  }
  return titles;
}

}  // namespace fpswap::triage
