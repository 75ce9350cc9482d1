// SPDX-License-Identifier: GPL-2.0-or-later
//
// The guest's side of an exported test: each guest step as inline assembly, one function a vCPU.
//
// Private to harness/report/export.
#pragma once

#include <array>
#include <expected>
#include <string>
#include <vector>

#include "harness/report/export/checks.h"
#include "harness/report/export/data.h"
#include "harness/report/export/export.h"
#include "harness/report/export/predict.h"

namespace fpswap::report {

struct GuestCode {
  std::array<std::string, program::kMaxVcpus> body;  // by vCPU; lines indented by a tab
  std::array<bool, program::kMaxVcpus> uses_eax_edx{}, uses_value{};
  std::vector<std::string> stored;  // by step: the variable with what it stored, "" for none
  std::vector<std::string> vector;  // by step: the variable with the vector of its fault
  bool may_fault = false, copies = false, mmio = false;
};

// The error names the step that a guest of this format can't do.
std::expected<GuestCode, std::string> WriteGuest(const ExportRequest& request,
                                                 const Prediction& prediction,
                                                 const std::vector<StepChecks>& checks,
                                                 TestData& data);

// The variable of a slot, as a step's vCPU has it.
std::string AreaName(const program::Program& program, const program::Step& step);
// Lines of at most `room` characters.
std::vector<std::string> WrapWords(const std::string& text, size_t room);
// A comment of one or more lines, indented by `tabs`; "" for no text.
std::string CommentText(const std::string& text, unsigned tabs);

}  // namespace fpswap::report
