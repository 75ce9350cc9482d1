// SPDX-License-Identifier: GPL-2.0-or-later
//
// Platforms and targets as a campaign chooses them.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <string_view>

#include "harness/program/generate.h"
#include "harness/targets/target.h"
#include "harness/trace/platform.h"

namespace fpswap::campaign {

// A machine that has everything: for showing and simulating programs where no target is at hand.
trace::Platform EverythingPlatform();

// Opens `name`; "auto" is the first of TargetNames() that opens. The reason of a failure names each
// target that was tried.
std::expected<std::unique_ptr<targets::Target>, targets::Unavailable> Open(
    std::string_view name, const targets::Options& options);

// What to draw so that little is trimmed on `platform`, which must outlive the profile.
program::Profile ProfileFor(const trace::Platform& platform);

}  // namespace fpswap::campaign
