// SPDX-License-Identifier: GPL-2.0-or-later
//
// Plans to bytes and back. An agent does what an accepted plan says without looking again, so
// whatever indexes memory is checked here.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "harness/plan/plan.h"
#include "harness/plan/plan_layout.h"
#include "harness/plan/wire.h"
#include "oracle/xstate/layout.h"

namespace fpswap {
namespace {

using program::Op;
using program::Step;
using wire::PlanAction;
using wire::PlanCode;
using wire::PlanHead;
using wire::PlanStep;

template <typename T>
void AppendStruct(std::vector<uint8_t>& out, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

// REQUIRES: `from` is long enough.
template <typename T>
T TakeStruct(std::span<const uint8_t>& from) {
  T value;
  std::memcpy(&value, from.data(), sizeof(T));
  from = from.subspan(sizeof(T));
  return value;
}

// Where an operation's arguments index memory of the agent: argument number, or -1.
struct IndexArgs {
  Op op;
  int8_t slot = -1, image = -1, offset = -1, length = -1;
};
constexpr IndexArgs kIndexArgs[] = {
    {.op = Op::kXsave, .slot = 0, .offset = 1},
    {.op = Op::kXsavec, .slot = 0, .offset = 1},
    {.op = Op::kXsaveopt, .slot = 0, .offset = 1},
    {.op = Op::kXsaves, .slot = 0, .offset = 1},
    {.op = Op::kXrstor, .slot = 0, .offset = 1},
    {.op = Op::kXrstors, .slot = 0, .offset = 1},
    {.op = Op::kFxsave, .slot = 0, .offset = 1},
    {.op = Op::kFxrstor, .slot = 0, .offset = 1},
    {.op = Op::kMemWrite, .slot = 0, .offset = 1},
    {.op = Op::kMemFill, .slot = 0, .offset = 1, .length = 2},
    {.op = Op::kMemHeader, .slot = 0},
    {.op = Op::kGetXsave, .image = 0},
    {.op = Op::kGetXsave2, .image = 0},
    {.op = Op::kSetXsave, .image = 0},
    {.op = Op::kImageInit, .image = 0},
    {.op = Op::kImageWrite, .image = 0, .offset = 1},
    {.op = Op::kImageFill, .image = 0, .offset = 1, .length = 2},
    {.op = Op::kOsGetRegset, .image = 0},
    {.op = Op::kOsSetRegset, .image = 0},
    {.op = Op::kOsSigframe, .image = 0},
    {.op = Op::kOsSigreturn, .image = 0},
};

bool ArgsInRange(const Step& step) {
  const auto* row = std::ranges::find(kIndexArgs, step.op, &IndexArgs::op);
  if (row == std::end(kIndexArgs)) return true;
  const auto arg = [&](int8_t number) {
    return number < 0 ? 0 : step.arg[static_cast<size_t>(number)];
  };
  const uint64_t limit = row->image >= 0 ? xstate::kMaxAreaSize : plan::kSlotSize;
  const uint64_t offset = arg(row->offset), length = row->length < 0 ? 8 : arg(row->length);
  return arg(row->slot) < program::kSlotCount && arg(row->image) < program::kImageCount &&
         offset < limit && length <= limit - offset;
}

// Null, or what is wrong with the head.
const char* CheckHead(const PlanHead& head) {
  if (head.steps > program::kMaxSteps) return "plan: more steps than a program may have";
  if (head.actions > program::kMaxSteps) return "plan: more actions than steps";
  if (head.vcpus < 1 || head.vcpus > program::kMaxVcpus) return "plan: the number of vCPUs";
  if (head.code_size > plan::kCodeSize) return "plan: the code is too long";
  if (head.literal_size > plan::kLiteralSize) return "plan: the literals are too long";
  if (head.area_size > xstate::kMaxAreaSize) return "plan: the area is larger than any can be";
  const size_t size = sizeof(head) + head.steps * (sizeof(PlanStep) + sizeof(PlanCode)) +
                      head.actions * sizeof(PlanAction) + head.code_size + head.literal_size;
  return size == head.size ? nullptr : "plan: its parts don't add up to its size";
}

const char* CheckSteps(const wire::PlanView& view) {
  for (const Step& step : view.steps) {
    if (step.vcpu >= view.vcpus) return "plan: a step of a vCPU that is not there";
    if (!ArgsInRange(step)) return "plan: a step outside its slot or image";
  }
  return nullptr;
}

const char* CheckRows(const wire::PlanView& view) {
  for (const PlanCode& row : view.rows) {
    // Zeros for VMM and host steps; a guest step has code, and its instruction in it or behind it.
    if (row.code > view.code.size() || row.instruction > view.code.size() ||
        row.instruction < row.code) {
      return "plan: a step's code is outside the plan's";
    }
    if (row.journal > plan::kJournalSize || row.journal_bytes > plan::kJournalSize - row.journal) {
      return "plan: a step's journal place is outside the journal";
    }
  }
  return nullptr;
}

// Actions cover steps in order, each at most once. The steps of a run are the same vCPU's and their
// code ascends, so that an agent can tell a step by an address.
const char* CheckActions(const wire::PlanView& view) {
  size_t next = 0;
  for (const PlanAction& a : view.actions) {
    const bool run = a.kind == static_cast<uint8_t>(plan::ActionKind::kRun);
    if (!run && a.kind != static_cast<uint8_t>(plan::ActionKind::kStep)) {
      return "plan: an unknown kind of action";
    }
    if (a.first < next || a.last < a.first || a.last >= view.steps.size() ||
        (!run && a.first != a.last)) {
      return "plan: the steps of an action";
    }
    if (a.vcpu >= view.vcpus || (a.cpl != 0 && a.cpl != 3)) return "plan: an action's vCPU or CPL";
    for (size_t i = a.first; i <= a.last; ++i) {
      if (view.steps[i].vcpu != a.vcpu) return "plan: an action with steps of another vCPU";
      if (!run) continue;
      if (view.rows[i].code >= view.code.size()) return "plan: a guest step without code";
      if (i > a.first && view.rows[i].code <= view.rows[i - 1].code) {
        return "plan: the code of a run does not ascend";
      }
    }
    next = size_t{a.last} + 1;
  }
  return nullptr;
}

}  // namespace

namespace plan {

void AppendPlan(const Plan& plan, std::vector<uint8_t>& out) {
  PlanHead head{.magic = wire::kPlanMagic,
                .size = 0,
                .features = plan.effective.features,
                .xcr0 = plan.xcr0,
                .area_size = plan.area_size,
                .vcpus = plan.effective.vcpus,
                .pke = plan.effective.pke,
                .spoils_vcpu = plan.spoils_vcpu,
                .placement = static_cast<uint8_t>((plan.effective.own_vm ? 1 : 0) |
                                                  (plan.effective.own_thread ? 2 : 0)),
                .steps = static_cast<uint16_t>(plan.effective.steps.size()),
                .actions = static_cast<uint16_t>(plan.actions.size()),
                .code_size = static_cast<uint32_t>(plan.code.size()),
                .literal_size = static_cast<uint32_t>(plan.literals.size()),
                .pad2 = 0};
  head.size = static_cast<uint32_t>(
      sizeof(head) + head.steps * (sizeof(PlanStep) + sizeof(PlanCode)) +
      head.actions * sizeof(PlanAction) + plan.code.size() + plan.literals.size());
  out.reserve(out.size() + head.size);
  AppendStruct(out, head);
  for (const Step& step : plan.effective.steps) {
    PlanStep bytes{.op = static_cast<uint8_t>(step.op), .vcpu = step.vcpu, .pad = {}, .arg = {}};
    std::ranges::copy(step.arg, bytes.arg);
    AppendStruct(out, bytes);
  }
  for (const CodeRow& r : plan.rows) {
    AppendStruct(out, PlanCode{r.code, r.instruction, r.journal, r.journal_bytes});
  }
  for (const Action& a : plan.actions) {
    AppendStruct(out, PlanAction{static_cast<uint8_t>(a.kind), a.vcpu, a.cpl, 0, a.first, a.last});
  }
  out.insert(out.end(), plan.code.begin(), plan.code.end());
  out.insert(out.end(), plan.literals.begin(), plan.literals.end());
}

}  // namespace plan

namespace wire {

std::expected<PlanView, std::string> ReadPlan(std::span<const uint8_t>& bytes) {
  auto rest = bytes;
  bytes = {};  // until the size is known to be good, nothing behind this plan can be found
  if (rest.size() < sizeof(PlanHead)) return std::unexpected("plan: cut off in its head");
  const auto whole = rest;
  const auto head = TakeStruct<PlanHead>(rest);
  if (head.magic != kPlanMagic) return std::unexpected("plan: not a plan of this version");
  if (head.size < sizeof(head) || head.size > whole.size()) {
    return std::unexpected("plan: cut off, or its size is wrong");
  }
  bytes = whole.subspan(head.size);
  if (const char* error = CheckHead(head)) return std::unexpected(error);

  PlanView view{.features = head.features,
                .xcr0 = head.xcr0,
                .area_size = head.area_size,
                .vcpus = head.vcpus,
                .pke = head.pke != 0,
                .own_vm = (head.placement & 1) != 0,
                .own_thread = (head.placement & 2) != 0,
                .spoils_vcpu = head.spoils_vcpu != 0};
  view.steps.resize(head.steps);
  for (Step& step : view.steps) {
    const auto from = TakeStruct<PlanStep>(rest);
    step = {.op = static_cast<Op>(from.op), .vcpu = from.vcpu};
    std::ranges::copy(from.arg, step.arg.begin());
  }
  view.rows.resize(head.steps);
  for (PlanCode& row : view.rows) row = TakeStruct<PlanCode>(rest);
  view.actions.resize(head.actions);
  for (PlanAction& action : view.actions) action = TakeStruct<PlanAction>(rest);
  view.code = rest.first(head.code_size);
  view.literals = rest.subspan(head.code_size, head.literal_size);
  for (const char* error : {CheckSteps(view), CheckRows(view)}) {
    if (error != nullptr) return std::unexpected(error);
  }
  if (const char* error = CheckActions(view)) return std::unexpected(error);
  return view;
}

}  // namespace wire
}  // namespace fpswap
