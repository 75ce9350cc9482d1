// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/show.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "harness/program/text.h"

namespace fpswap::report {
namespace {

using nlohmann::json;

// Where the code of step `i` ends: where the next piece of code begins, or at the end of all of it.
size_t CodeEnd(const plan::Plan& plan, size_t i) {
  size_t end = plan.code.size();
  for (const plan::CodeRow& row : plan.rows) {
    if (row.code > plan.rows[i].code) end = std::min<size_t>(end, row.code);
  }
  return end;
}

std::string_view OpinionName(SecondOpinion opinion) {
  switch (opinion) {
    case SecondOpinion::kAgrees:
      return "agrees";
    case SecondOpinion::kDisagrees:
      return "disagrees";
    case SecondOpinion::kUnknown:
      return "unknown";
  }
  return "";
}

std::string InstructionText(const Instruction& instruction, bool under_test) {
  std::string text =
      fmt::format("     {} {:08x}  {:<26} {}\n", under_test ? '>' : ' ', instruction.address,
                  judge::HexOf(instruction.bytes), instruction.text);
  if (instruction.opinion == SecondOpinion::kDisagrees) {
    text += fmt::format("       !! Capstone reads: {}\n", instruction.second);
  }
  if (instruction.opinion == SecondOpinion::kUnknown) {
    text.insert(text.size() - 1, "    (not known to Capstone)");
  }
  return text;
}

json InstructionJson(const Instruction& instruction) {
  json object = {{"address", instruction.address},
                 {"bytes", judge::HexOf(instruction.bytes)},
                 {"text", instruction.text},
                 {"capstone", OpinionName(instruction.opinion)}};
  if (instruction.opinion == SecondOpinion::kDisagrees) {
    object["capstone_text"] = instruction.second;
  }
  return object;
}

}  // namespace

Shown Describe(const plan::Plan& plan, const judge::Verdict& verdict) {
  const Disassembler disassembler;
  Shown shown{.program = plan.effective, .steps = {}, .trims = plan.trims, .verdict = verdict};
  for (size_t i = 0; i < plan.effective.steps.size(); ++i) {
    ShownStep step{.step = plan.effective.steps[i], .code = {}, .divergences = {}};
    const bool guest = program::RowOf(step.step).actor == program::Actor::kGuest;
    if (guest && i < plan.rows.size() && plan.rows[i].code < plan.code.size()) {
      const size_t begin = plan.rows[i].code;
      const auto code = std::span(plan.code).subspan(begin, CodeEnd(plan, i) - begin);
      step.code = disassembler.Decode(code, plan::kCodeBase + begin);
      const auto under_test =
          std::find_if(step.code.begin(), step.code.end(), [&](const Instruction& instruction) {
            return instruction.address == plan::kCodeBase + plan.rows[i].instruction;
          });
      step.under_test = static_cast<size_t>(under_test - step.code.begin());
    }
    for (size_t d = 0; d < verdict.divergences.size(); ++d) {
      if (verdict.divergences[d].step == i) step.divergences.push_back(d);
    }
    shown.steps.push_back(std::move(step));
  }
  return shown;
}

std::string ShownText(const Shown& shown) {
  std::string text =
      fmt::format("features {}  xcr0 {}  vcpus {}\n", program::PrintMask(shown.program.features),
                  program::PrintMask(shown.program.xcr0), shown.program.vcpus);
  if (shown.program.own_vm) text += "each vCPU in a VM of its own\n";
  if (shown.program.own_thread) text += "each vCPU run by a thread of its own\n";
  for (size_t i = 0; i < shown.steps.size(); ++i) {
    const ShownStep& step = shown.steps[i];
    text += fmt::format("{:3}  {}\n", i, program::PrintStep(step.step));
    for (size_t n = 0; n < step.code.size(); ++n) {
      text += InstructionText(step.code[n], n == step.under_test);
    }
    for (size_t d : step.divergences) {
      const judge::Divergence& divergence = shown.verdict.divergences[d];
      text += fmt::format("  ** {}: {}\n", judge::LawName(divergence.law), divergence.words);
      if (!divergence.origin.empty()) {
        text += fmt::format("     origin: {}\n", divergence.origin);
      }
      if (!divergence.rule.empty()) text += fmt::format("     rule: {}\n", divergence.rule);
    }
  }
  for (const plan::Trim& trim : shown.trims) {
    if (trim.step == plan::kSetUp) {
      text += fmt::format("changed: {}\n", trim.reason);
      continue;
    }
    text += fmt::format("trimmed: step {} of the program as given: {}\n", trim.step, trim.reason);
  }
  return text;
}

std::string ShownJson(const Shown& shown) {
  json steps = json::array();
  for (const ShownStep& step : shown.steps) {
    json code = json::array();
    for (const Instruction& instruction : step.code) code.push_back(InstructionJson(instruction));
    json object = {{"step", program::PrintStep(step.step)}, {"divergences", step.divergences}};
    if (!step.code.empty()) {
      object["code"] = std::move(code);
      object["under_test"] = step.under_test;
    }
    steps.push_back(std::move(object));
  }
  json trims = json::array();
  for (const plan::Trim& trim : shown.trims) {
    trims.push_back({{"step", trim.step}, {"reason", trim.reason}});
  }
  json object = {{"features", program::PrintMask(shown.program.features)},
                 {"xcr0", program::PrintMask(shown.program.xcr0)},
                 {"vcpus", shown.program.vcpus},
                 {"own_vm", shown.program.own_vm},
                 {"own_thread", shown.program.own_thread},
                 {"steps", std::move(steps)},
                 {"trims", std::move(trims)}};
  object["verdict"] = json::parse(judge::VerdictToJson(shown.verdict), nullptr, false);
  return object.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace fpswap::report
