// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/reach_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/report/html.h"
#include "harness/triage/signature.h"

namespace fpswap::report {
namespace {

using campaign::ReachTable;
using Cells = std::map<uint8_t, std::map<uint8_t, uint64_t>>;  // [row][column]

std::string ComponentName(uint8_t component) {
  if (component >= xstate::kComponentCount) return "none";
  return std::string(xstate::RowOf(static_cast<xstate::Component>(component)).name);
}

std::string Table(const Cells& cells, std::string (*column_name)(uint8_t)) {
  std::set<uint8_t> columns;
  for (const auto& [row, counts] : cells) {
    for (const auto& [column, count] : counts) columns.insert(column);
  }
  std::vector<std::pair<uint8_t, size_t>> widths;
  std::string text = fmt::format("{:20}", "step");
  for (uint8_t column : columns) {
    const std::string name = column_name(column);
    widths.emplace_back(column, std::max<size_t>(6, name.size() + 1));
    text += fmt::format("{:>{}}", name, widths.back().second);
  }
  text += '\n';
  for (const auto& [row, counts] : cells) {
    text += fmt::format("{:20}", triage::OpName(row));
    for (const auto& [column, width] : widths) {
      const auto found = counts.find(column);
      text += fmt::format("{:>{}}", found == counts.end() ? "." : ShortCount(found->second), width);
    }
    text += '\n';
  }
  return text;
}

// What the platform can do, by step and component, and nothing did.
std::string NeverRan(const Cells& cells, const trace::Platform& platform) {
  const auto& guest = platform.guest.xsave;
  std::string text;
  for (const program::StepRow& row : program::StepTable()) {
    if (!plan::CanRun(row, platform)) continue;
    const auto found = cells.find(static_cast<uint8_t>(row.op));
    if (found == cells.end()) {
      text += fmt::format("  {}\n", row.name);
      continue;
    }
    std::string missing;
    for (unsigned i = 0; i < xstate::kComponentCount; ++i) {
      const auto c = static_cast<xstate::Component>(i);
      const bool there = (row.components & (guest.xcr0 | guest.xss) & Bit(c)) != 0;
      if (there && !found->second.contains(static_cast<uint8_t>(i))) {
        missing += fmt::format(" {}", xstate::RowOf(c).name);
      }
    }
    if (!missing.empty()) text += fmt::format("  {} with{}\n", row.name, missing);
  }
  return text.empty() ? "Every step ran with every component that this platform can do\n"
                      : "Can be done here and never ran:\n" + text;
}

std::string LawsChecked(const ReachTable& table) {
  std::string text = "\nLaws checked, in programs:";
  for (unsigned law = 1; law <= 6; ++law) {
    text += fmt::format(" {} {}", judge::LawName(static_cast<judge::Law>(law)), table.laws()[law]);
  }
  return text + fmt::format("\n{} programs judged by isolation and health alone (raw bytes)\n",
                            table.unknown());
}

}  // namespace

std::string ReachText(const ReachTable& table, const trace::Platform* platform) {
  Cells by_component, by_exit, by_state, by_outcome, by_vcpus;
  for (const auto& [row, count] : table.Rows()) {
    by_component[row.op][row.component] += count;
    by_exit[row.op][row.exit] += count;
    by_state[row.op][row.state] += count;
    by_outcome[row.op][row.outcome] += count;
    by_vcpus[row.op][row.vcpus] += count;
  }
  const uint64_t simulated = table.programs() - std::min(table.programs(), table.judged());
  std::string text;
  if (table.judged() > 0) {
    text += fmt::format("{} programs run and judged, {} observations compared\n", table.judged(),
                        table.checks());
  }
  if (simulated > 0) {
    text +=
        fmt::format("{} programs simulated: what they would exercise; nothing ran\n", simulated);
  }
  text += "\n";
  text += "Step x component\n" + Table(by_component, ComponentName);
  text += "\nStep x state of the component\n" +
          Table(by_state, [](uint8_t state) { return std::string(campaign::StateName(state)); });
  text += "\nStep x way of the last exit before it\n" + Table(by_exit, triage::OpName);
  text += "\nStep x outcome\n" + Table(by_outcome, campaign::OutcomeName);
  text += "\nStep x number of vCPUs\n" +
          Table(by_vcpus, [](uint8_t vcpus) { return std::to_string(vcpus); });
  if (platform != nullptr) text += "\n" + NeverRan(by_component, *platform);
  if (table.judged() > 0) text += LawsChecked(table);
  text += table.trims().empty() ? "Nothing was trimmed\n" : "\nTrimmed\n";
  for (const auto& [trim, count] : table.trims()) {
    text += fmt::format("{:>8}  {:20} {}\n", count, trim.first, trim.second);
  }
  return text;
}

}  // namespace fpswap::report
