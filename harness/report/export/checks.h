// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a test asserts at each step: chosen from the prediction, with or without a divergence that
// it is to show.
//
// Private to harness/report/export.
#pragma once

#include <string>
#include <vector>

#include "harness/report/export/export.h"
#include "harness/report/export/fields.h"
#include "harness/report/export/predict.h"

namespace fpswap::report {

// One value, or registers side by side that are expected to hold what lies side by side elsewhere.
struct Check {
  Field field;
  std::vector<uint8_t> expected, mask;  // `mask` has the bits that count
};

struct StepChecks {
  std::vector<Check> values;          // in what the guest stored, or what the call gave
  std::vector<ShownAndStored> shown;  // by calls before: what the guest stores here
  bool fault = false;                 // the vector, or that there is none
  bool result = false;                // the call's result and errno
  bool exits = false;                 // the data of exits
  bool empty() const { return values.empty() && shown.empty() && !fault && !result && !exits; }
};

// What the bytes of a step are, as the judge has it.
enum class Seen { kNothing, kValue, kArea, kFxArea, kImage, kFpu, kXcrs, kMsr };
Seen SeenAt(const program::Step& step);

// Whether a divergence is seen at the step that it is told of: not where it is one of the system as
// a whole, or of a call whose loss shows later.
bool ShowsAtItsStep(const judge::Divergence& divergence);

// The checks of all steps.
std::vector<StepChecks> ChooseChecks(const Prediction& prediction, const ExportRequest& request);

// What a guest step stores: "XMM3", and the bytes of it. "" for none.
std::string StoredName(const program::Step& step);

}  // namespace fpswap::report
