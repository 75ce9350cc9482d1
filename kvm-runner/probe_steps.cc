// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/probe.h"
namespace fpswap::kvm {
void ProbeSteps(Host&, trace::Platform&,
                const std::function<void(const wire::PlanView&, std::vector<uint8_t>&)>&) {}
}  // namespace fpswap::kvm
