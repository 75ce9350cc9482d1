// SPDX-License-Identifier: GPL-2.0-or-later
//
// The byte form of a plan, as AppendPlan writes it and ReadPlan reads it: PlanHead, then `steps`
// PlanStep, `steps` PlanCode, `actions` PlanAction, the code, the literals. Little-endian, no
// padding between the parts. Private to harness/plan.
#pragma once

#include <cstdint>

#include "harness/plan/wire.h"

namespace fpswap::wire {

inline constexpr uint32_t kPlanMagic = 0x316e6c70;  // "pln1"

struct PlanHead {
  uint32_t magic;
  uint32_t size;  // of the whole plan, head included: what a reader skips when it refuses a plan
  uint64_t features;
  uint64_t xcr0;
  uint32_t area_size;
  uint8_t vcpus;
  uint8_t pke;
  uint8_t spoils_vcpu;
  uint8_t placement;  // bit 0 own_vm, bit 1 own_thread
  uint16_t steps;
  uint16_t actions;
  uint32_t code_size;
  uint32_t literal_size;
  uint32_t pad2;
};
static_assert(sizeof(PlanHead) == 48);

struct PlanStep {
  uint8_t op;
  uint8_t vcpu;
  uint8_t pad[6];
  uint64_t arg[program::kArgCount];
};
static_assert(sizeof(PlanStep) == 40);
static_assert(sizeof(PlanCode) == 16);
static_assert(sizeof(PlanAction) == 8);

}  // namespace fpswap::wire
