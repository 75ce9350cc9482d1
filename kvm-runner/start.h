// SPDX-License-Identifier: GPL-2.0-or-later
//
// Brings a vCPU, fresh or used, to the state every program starts from (plan.h), and knows when it
// can't be brought back. Not thread safe.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>

#include "harness/plan/wire.h"
#include "kvm-runner/vm.h"

namespace fpswap::kvm {

std::expected<void, std::string> BringToStart(const Host& host, const wire::PlanView& plan,
                                              Vcpu& vcpu);

// What running `plan` may leave behind in a vCPU (enum Stale).
unsigned StaleAfter(const wire::PlanView& plan);
// Whether it leaves something that no ioctl takes back: the VM is thrown away.
bool Spoils(const wire::PlanView& plan);
// Whether it needs vCPUs that have never run: KVM_SET_CPUID2 works on these alone.
bool NeedsFresh(const wire::PlanView& plan);
// Whether it needs a VM with an in-kernel APIC.
bool NeedsApic(const wire::PlanView& plan);
// Whether it needs a VM in which kExitMsrIndex exits.
bool NeedsMsrFilter(const wire::PlanView& plan);

// The initial image: FCW 37FH, MXCSR 1F80H, all else 0.
void InitialImage(std::span<uint8_t> image);

}  // namespace fpswap::kvm
