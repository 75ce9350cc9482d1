// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/plan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>

#include "harness/plan/emit.h"
#include "harness/plan/trim.h"
#include "harness/plan/unicorn_limits.h"
#include "harness/plan/vmm.h"
#include "oracle/xstate/layout.h"

namespace fpswap::plan {
namespace {

using program::Op;
using program::Program;
using program::Step;
using program::StepRow;
using trace::Platform;

// What a vCPU does not forget, so that no later program may have it. Everything else is set anew
// before each program.
// What spoils a vCPU by what the platform is; what spoils it anywhere is kvm-runner's table
// (start.cc). On VMX the first non-zero write of IA32_XFD ends its interception for good, and the
// fpstate grows by XTILE_DATA and stays so. Guests without XFD are refused the write.
bool SpoilsVcpu(const Step& step, const cpu::Features& guest) {
  if (!guest.xsave.xfd) return false;
  if (step.op == Op::kWrmsr) return step.arg[0] == static_cast<uint64_t>(program::Msr::kXfd);
  if (!SetsMsrs(step.op)) return false;
  const MsrList msrs = MsrsOf(step);
  return std::ranges::any_of(msrs.Entries(),
                             [](const MsrEntry& e) { return e.msr == program::Msr::kXfd; });
}

uint32_t AreaSize(const xstate::XsaveCpuid& cpuid, uint64_t features) {
  // XSAVES with IA32_XSS components may need more than the standard format, which has none.
  const uint32_t size =
      std::max(xstate::StandardSize(cpuid, features),
               cpuid.xsavec ? xstate::CompactedSize(cpuid, features | cpuid.xss) : 0);
  constexpr uint32_t kMisalignment = 64;  // `at`
  return std::min<uint32_t>(size + kMisalignment, kSlotSize);
}

constexpr uint32_t RoundUp(uint32_t value, uint32_t to) { return (value + to - 1) / to * to; }

// Hands out places in the literals and in the journal.
class Layout {
 public:
  explicit Layout(uint32_t area_size) : area_size_(area_size) {}

  // Nothing if there is no room left; `reason` says of what.
  std::optional<Placement> Place(const Step& step, const StepRow& row, const char*& reason) {
    const uint32_t bytes = LiteralBytes(step);
    const uint32_t align = std::bit_ceil(std::clamp(bytes, 16u, 64u));
    Placement place{.literal = RoundUp(literals_, align),
                    .journal = journal_,
                    .journal_bytes = JournalBytes(row)};
    if (place.literal + bytes > kLiteralSize) {
      reason = "the plan has no room for more literals";
      return std::nullopt;
    }
    if (place.journal + place.journal_bytes > kJournalSize) {
      reason = "the plan has no room for more journal";
      return std::nullopt;
    }
    if (bytes != 0) literals_ = place.literal + bytes;
    // Each place a cache line of its own.
    journal_ = RoundUp(journal_ + place.journal_bytes, 64);
    return place;
  }

  uint32_t literals() const { return literals_; }

 private:
  uint32_t JournalBytes(const StepRow& row) const {
    switch (row.journal) {
      case program::Journal::kNone:
        return 0;
      case program::Journal::kBytes:
        return row.journal_bytes;
      case program::Journal::kArea:
        return area_size_;
    }
    return 0;
  }

  uint32_t area_size_;
  uint32_t literals_ = 0, journal_ = 0;
};

using Placements = std::array<Placement, program::kMaxSteps>;

// Fills plan.effective.steps and plan.trims; gives the places of the steps that stay.
Placements TrimSteps(const Program& program, const Platform& platform, Plan& plan) {
  Placements places;
  Layout layout(plan.area_size);
  std::optional<UnicornLimits> unicorn;
  HostSparer sparer(platform);
  if (platform.target == "unicorn") unicorn.emplace(platform.guest, plan.effective.pke);
  Program& effective = plan.effective;
  effective.steps.reserve(program.steps.size());
  for (uint16_t number = 0; number < program.steps.size(); ++number) {
    Step step = program.steps[number];
    const StepRow& row = program::RowOf(step);
    if (auto reason = WhyTrimmed(step, row, platform)) {
      plan.trims.push_back({number, std::move(*reason)});
      continue;
    }
    if (auto reason = sparer.WhyNot(step)) {
      plan.trims.push_back({number, std::move(*reason)});
      continue;
    }
    Confine(step, platform);
    const Layout before = layout;
    const char* full = nullptr;
    auto place = layout.Place(step, row, full);
    if (!place) {
      plan.trims.push_back({number, full});
      continue;
    }
    if (const UnicornDefect* defect = unicorn ? unicorn->Meets(step) : nullptr) {
      layout = before;
      plan.trims.push_back({number, std::string(defect->reason)});
      continue;
    }
    place->number = static_cast<uint16_t>(effective.steps.size());
    places[place->number] = *place;
    plan.spoils_vcpu |= SpoilsVcpu(step, platform.guest);
    sparer.Note(step);
    effective.steps.push_back(step);
  }
  plan.literals.resize(layout.literals());
  return places;
}

// Runs of guest steps are as long as can be, for exits hide things. Raw code is a run of its own:
// what comes before it has been recorded when it takes over.
void ListActions(Plan& plan) {
  const auto& steps = plan.effective.steps;
  const auto raw = [&](uint16_t i) { return steps[i].op == program::Op::kRaw; };
  for (uint16_t i = 0; i < steps.size(); ++i) {
    const StepRow& row = program::RowOf(steps[i]);
    const Action action{
        .kind = row.actor == program::Actor::kGuest ? ActionKind::kRun : ActionKind::kStep,
        .vcpu = steps[i].vcpu,
        .cpl = static_cast<uint8_t>(row.cpl0 ? 0 : 3),
        .first = i,
        .last = i};
    if (action.kind == ActionKind::kRun && !plan.actions.empty()) {
      Action& before = plan.actions.back();
      if (before.kind == action.kind && before.vcpu == action.vcpu && before.cpl == action.cpl &&
          !raw(i) && !raw(before.last)) {
        before.last = i;
        continue;
      }
    }
    plan.actions.push_back(action);
  }
}

void WriteCode(const Placements& places, bool by_return, Plan& plan) {
  // With room behind the last step for CodeWriter's fixed-size copies.
  std::array<uint8_t, program::kMaxSteps * kMaxStepCode + 64> buffer;
  Emitter emitter(buffer);
  const auto& steps = plan.effective.steps;
  plan.rows.resize(steps.size());
  for (const Action& action : plan.actions) {
    if (action.kind != ActionKind::kRun) continue;
    for (size_t i = action.first; i <= action.last; ++i) {
      plan.rows[i] = emitter.Emit(steps[i], places[i]);
      if (const uint32_t bytes = LiteralBytes(steps[i]); bytes != 0) {
        FillLiteral(steps[i], std::span(plan.literals).subspan(places[i].literal, bytes));
      }
    }
    if (by_return) {
      emitter.EndByReturn();
    } else {
      emitter.EndByOut(action.last);
    }
  }
  plan.code.assign(buffer.begin(), buffer.begin() + emitter.size());
}

}  // namespace

Plan MakePlan(const Program& program, const Platform& platform) {
  Plan plan;
  plan.effective = LimitSetUp(program, platform);
  plan.xcr0 = plan.effective.xcr0;
  plan.area_size = AreaSize(platform.guest.xsave, plan.effective.features);
  const Placements places = TrimSteps(program, platform, plan);
  if (auto reason = WhySetUpChanged(program, plan.effective, platform)) {
    plan.trims.push_back({kSetUp, std::move(*reason)});
  }
  ListActions(plan);
  WriteCode(places, !platform.HasVmm(), plan);
  return plan;
}

}  // namespace fpswap::plan
