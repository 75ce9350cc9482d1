// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "harness/judge/explain.h"
#include "harness/judge/walk.h"
#include "harness/program/text.h"

namespace fpswap::judge {
namespace {

using trace::EndReason;

const program::Step* StepOf(const plan::Plan& plan, uint16_t number) {
  return number < plan.effective.steps.size() ? &plan.effective.steps[number] : nullptr;
}

std::string InStep(const plan::Plan& plan, uint16_t number) {
  const program::Step* step = StepOf(plan, number);
  return step != nullptr ? fmt::format("step {} ({})", number, program::PrintStep(*step))
                         : std::string("no step");
}

bool Full(const Verdict& verdict) { return verdict.divergences.size() >= kMaxDivergences; }

// Why KVM_RUN came back for good, from the exit it left for its last step.
std::string LastExit(const SortedRecords& records, const plan::Plan& plan) {
  if (records.end_step() >= plan.effective.steps.size()) return "";
  const StepRecords& seen = records.Of(records.end_step());
  if (seen.exits == 0) return "";
  trace::ExitRecord exit;
  trace::ReadHead(seen.exit[seen.exits - 1u], exit);
  return fmt::format(", exit reason {}, suberror {}", exit.reason, exit.suberror);
}

// Whether step `number` is part of a run that has raw code in it.
bool InRunWithRaw(const plan::Plan& plan, uint16_t number) {
  return std::ranges::any_of(plan.actions, [&](const plan::Action& a) {
    return a.kind == plan::ActionKind::kRun && a.first <= number && number <= a.last &&
           HasRaw(plan, a);
  });
}

void JudgeEnd(const plan::Plan& plan, const SortedRecords& records, Verdict& verdict) {
  const uint16_t number = records.end_step();
  const program::Step* step = StepOf(plan, number);
  const auto report = [&](Relation relation, const char* where, std::string words) {
    if (!Full(verdict)) {
      verdict.divergences.push_back(ExplainHealth(step, number, relation, where, std::move(words)));
    }
  };
  const int error = records.end().error;
  switch (static_cast<EndReason>(records.end().reason)) {
    case EndReason::kDone:
      return;
    case EndReason::kHang:
      // Raw code may well loop for ever; that it could be stopped is all that is asked.
      if (InRunWithRaw(plan, number)) return;
      return report(Relation::kHang, "KVM_RUN",
                    fmt::format("The program hung in {} and was stopped.", InStep(plan, number)));
    case EndReason::kVcpuDead:
      return report(Relation::kDied, "KVM_RUN",
                    fmt::format("The vCPU could not go on at {}: errno {}{}.", InStep(plan, number),
                                error, LastExit(records, plan)));
    case EndReason::kSetupFailed: {
      const auto text = records.end_text();
      return report(
          Relation::kDied, "start of the program",
          fmt::format("The vCPU could not be brought to its starting state: {} (errno {}).",
                      std::string_view(reinterpret_cast<const char*>(text.data()), text.size()),
                      error));
    }
    case EndReason::kAgentDied:
      return report(Relation::kDied, "agent",
                    fmt::format("The agent died at {}.", InStep(plan, number)));
  }
  report(Relation::kDied, "records",
         fmt::format("The records end for an unknown reason, {}.", records.end().reason));
}

}  // namespace

struct Judge::Impl {
  explicit Impl(const trace::Platform& p) : platform(p), walk(platform) {}

  const trace::Platform platform;
  Walk walk;
  std::unique_ptr<Walk> supposing;  // made when first needed
  SortedRecords records;

  // Where the walk failed: is it a fault that the probe has found in this system as a whole? If
  // that explains what was seen up to there and further, it is the divergence, and judging goes on
  // under it.
  void TryHypotheses(const plan::Plan& plan, Verdict& verdict);

  void JudgeCanaries(const plan::Plan& plan, Verdict& verdict);
};

void Judge::Impl::TryHypotheses(const plan::Plan& plan, Verdict& verdict) {
  if (verdict.ok() || platform.xcr0_loaded) return;
  if (!supposing) supposing = std::make_unique<Walk>(platform);
  supposing->Assume(Hypothesis::kHostXcr0);
  Verdict other;
  other.laws = verdict.laws;
  supposing->Go(plan, &records, nullptr, &other);
  // Better is: further, or as far with less to say. What concerns struct kvm_fpu is weighed last:
  // the calls go wrong by themselves, and a state that happens to hide it proves nothing.
  const auto rank = [](const Walk& w, const Verdict& v) {
    const auto fpu = std::ranges::count_if(v.divergences, [](const Divergence& d) {
      return d.op == static_cast<uint8_t>(program::Op::kSetFpu) ||
             d.op == static_cast<uint8_t>(program::Op::kGetFpu);
    });
    return std::tuple(w.stopped_at(), fpu - std::ssize(v.divergences), -fpu);
  };
  if (rank(*supposing, other) <= rank(walk, verdict)) return;
  const uint16_t shown = verdict.divergences[0].step;
  other.checks += verdict.checks;
  other.divergences.insert(other.divergences.begin(), ExplainXcr0(platform, plan, shown));
  if (other.divergences.size() > kMaxDivergences) other.divergences.pop_back();
  verdict = std::move(other);
}

void Judge::Impl::JudgeCanaries(const plan::Plan& plan, Verdict& verdict) {
  for (const plan::Action& action : plan.actions) {
    const bool runs = action.kind == plan::ActionKind::kRun ||
                      plan.effective.steps[action.first].op == program::Op::kRunImmediate;
    if (runs && platform.HasVmm()) {
      verdict.laws |= 1u << static_cast<unsigned>(Law::kIsolation);
    }
  }
  for (const trace::RecordView& record : records.canaries()) {
    if (Full(verdict)) return;
    trace::CanaryRecord canary;
    trace::ReadHead(record.bytes, canary);
    const auto both = record.bytes.subspan(sizeof(canary));
    const auto before = both.first(both.size() / 2), after = both.subspan(both.size() / 2);
    Surroundings around;
    around.now = ImageOf(walk.world().vcpu[record.vcpu % walk.world().vcpus]);
    verdict.divergences.push_back(ExplainCanary(platform, StepOf(plan, record.step), record.step,
                                                canary.components, before, after, around));
  }
}

Judge::Judge(const trace::Platform& platform) : impl_(std::make_unique<Impl>(platform)) {}
Judge::~Judge() = default;

Verdict Judge::Check(const plan::Plan& plan, std::span<const uint8_t> bytes, ReachSink* reach) {
  Verdict verdict;
  SortedRecords& records = impl_->records;
  records.Sort(plan, bytes);
  verdict.laws = 1u << static_cast<unsigned>(Law::kHealth);
  ++verdict.checks;
  impl_->walk.Go(plan, &records, reach, &verdict);
  impl_->TryHypotheses(plan, verdict);
  impl_->JudgeCanaries(plan, verdict);
  if (records.has_end()) JudgeEnd(plan, records, verdict);
  if (const RecordProblem& problem = records.problem(); problem.what != nullptr && !Full(verdict)) {
    verdict.divergences.push_back(ExplainHealth(
        StepOf(plan, problem.step), problem.step, Relation::kDied, "records",
        fmt::format("The agent's records {} at {}.", problem.what, InStep(plan, problem.step))));
  }
  return verdict;
}

void Judge::Simulate(const plan::Plan& plan, ReachSink& reach) {
  impl_->walk.Go(plan, nullptr, &reach, nullptr);
}

Verdict JudgeTrace(const trace::Trace& trace) {
  Judge judge(trace.platform);
  return judge.Check(plan::MakePlan(trace.program, trace.platform), trace.records);
}

}  // namespace fpswap::judge
