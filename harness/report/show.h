// SPDX-License-Identifier: GPL-2.0-or-later
//
// A program step by step: each step's guest code disassembled, what was trimmed, and divergences
// beside the step they are of. As text and as JSON. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "harness/judge/verdict.h"
#include "harness/plan/plan.h"
#include "harness/report/disassemble.h"

namespace fpswap::report {

struct ShownStep {
  program::Step step;
  std::vector<Instruction> code;  // empty for VMM and host steps
  // Index in `code` of the instruction under test; what is around it loads operands and journals.
  size_t under_test = 0;
  std::vector<size_t> divergences;  // indices in the verdict
};

struct Shown {
  program::Program program;
  std::vector<ShownStep> steps;  // of the effective program
  std::vector<plan::Trim> trims;
  judge::Verdict verdict;
};

Shown Describe(const plan::Plan& plan, const judge::Verdict& verdict);
std::string ShownText(const Shown& shown);
std::string ShownJson(const Shown& shown);

}  // namespace fpswap::report
