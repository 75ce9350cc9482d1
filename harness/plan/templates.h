// SPDX-License-Identifier: GPL-2.0-or-later
//
// The templates of single-instruction steps, cached for each thread. Private to harness/plan.
#pragma once

#include "harness/plan/encode.h"
#include "harness/program/step.h"

namespace fpswap::plan {

// The template of form number `form` (forms.h) with the registers and the REX.W form of `step`.
const Template& TemplateOf(int form, const program::Step& step);

}  // namespace fpswap::plan
