// SPDX-License-Identifier: GPL-2.0-or-later
//
// Finds out what this machine's KVM really offers: what it says of itself, and, for steps that some
// KVM can't run, by running each in a tiny program. Nothing is assumed of a vendor module's name.
#pragma once

#include <expected>
#include <functional>
#include <string>
#include <vector>

#include "harness/plan/wire.h"
#include "harness/trace/platform.h"
#include "kvm-runner/vm.h"

namespace fpswap::kvm {

// Opens /dev/kvm and fills `platform` but for `can`. With `ask_permission` it asks for the guest
// permission of dynamic components, before any vCPU exists. Errors say what to do.
std::expected<Host, std::string> ProbeHost(trace::Platform& platform, bool ask_permission = true);

// Fills `platform.can` and `cannot` by running programs with `run`.
void ProbeSteps(Host& host, trace::Platform& platform,
                const std::function<void(const wire::PlanView&, std::vector<uint8_t>&)>& run);

}  // namespace fpswap::kvm
