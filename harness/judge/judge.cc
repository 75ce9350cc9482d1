// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "harness/judge/explain.h"
#include "harness/judge/simulator.h"
#include "harness/judge/walk.h"
#include "harness/plan/vmm.h"
#include "harness/program/text.h"
#include "harness/trace/kernel_log.h"
#include "oracle/xstate/image.h"

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

// Why KVM_RUN came back for good: the exit it left for its last step, if it left one.
std::optional<trace::ExitRecord> LastExit(const SortedRecords& records, const plan::Plan& plan) {
  if (records.end_step() >= plan.effective.steps.size()) return {};
  const StepRecords& seen = records.Of(records.end_step());
  if (seen.exits == 0) return {};
  trace::ExitRecord exit;
  trace::ReadHead(seen.exit[seen.exits - 1u], exit);
  return exit;
}

// Raw code may be what KVM's emulator can't do (KVM_INTERNAL_ERROR_EMULATION, its documented
// answer: Documentation/virt/kvm/api.rst, KVM_EXIT_INTERNAL_ERROR), and may shut its vCPU down.
bool IsRawCodesOwnEnd(const trace::ExitRecord& exit) {
  constexpr uint32_t kShutdown = 8, kInternalError = 17, kEmulation = 1;
  return exit.reason == kShutdown || (exit.reason == kInternalError && exit.suberror == kEmulation);
}

std::string_view Text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Where the kernel complains, and so one cause for all programs that make it.
std::string WhereOf(const trace::Splat& splat) {
  return fmt::format("{} in {}", splat.kind, splat.place.empty() ? "no function" : splat.place);
}

// What the kernel logged while the program ran.
void JudgeKernelLog(const plan::Plan& plan, const SortedRecords& records, Verdict& verdict) {
  for (const trace::Splat& splat : trace::FindSplats(Text(records.kernel_log()))) {
    if (splat.ours == trace::Splat::Ours::kNo) continue;  // stays in the trace, for a reader
    verdict.Add(ExplainHealth(StepOf(plan, records.end_step()), records.end_step(),
                              Relation::kComplained, WhereOf(splat),
                              fmt::format("While the program ran the kernel logged \"{}\"; {}.",
                                          splat.headline, trace::OursText(splat.ours))));
  }
}

// Whether a vCPU is run after the VMM has made its IA32_XFD disable tiles, between runs, that are
// in use: the state that the kernel then loads has them (fpu_update_guest_xfd clears them only
// while the guest's state is the thread's own), and its XRSTORS raises #NM.
class XfdOverTiles {
 public:
  // `world` as the step left it; null: its vCPU may be in any state.
  void Note(const program::Step& step, const World* world) {
    using enum program::Op;
    bool& armed = armed_[step.vcpu];
    bool& in_use = in_use_[step.vcpu];
    const plan::MsrList msrs = plan::MsrsOf(step);
    for (const plan::MsrEntry& entry : msrs.Entries()) {
      if (!plan::SetsMsrs(step.op) || entry.msr != program::Msr::kXfd) continue;
      // Not one behind a refused entry.
      const uint64_t now = world == nullptr ? entry.value : world->vcpu[step.vcpu].cpu.xfd;
      if (((now ^ entry.value) & kTiles) == 0) armed = in_use && (entry.value & kTiles) != 0;
    }
    // What these leave is another call's affair.
    if (step.op == kSetXsave || step.op == kInit || step.op == kMigrate) armed = false;
    const auto actor = program::RowOf(step).actor;
    found_ |= armed && (actor == program::Actor::kGuest || step.op == kRunImmediate);
    // A KVM_RUN that completes the last exit and does no more leaves none to be completed.
    const bool none_left = step.op == kMigrate || step.op == kRunImmediate;
    ran_[step.vcpu] = !none_left && (ran_[step.vcpu] || actor == program::Actor::kGuest);
    in_use = world == nullptr || InUse(step, *world, in_use);
  }
  // With the run that the agent makes at the end, which completes a vCPU's last exit.
  bool found() const {
    bool at_end = false;
    for (unsigned i = 0; i < program::kMaxVcpus; ++i) at_end |= armed_[i] && ran_[i];
    return found_ || at_end;
  }

 private:
  static constexpr uint64_t kTiles = Bit(xstate::Component::kTiledata);

  // Tiles of zeros are in use as well, if they were loaded.
  static bool InUse(const program::Step& step, const World& world, bool before) {
    const cpu::Cpu& cpu = world.vcpu[step.vcpu].cpu;
    if (!cpu.IsInitial(xstate::Component::kTiledata)) return true;
    const auto has = [](std::span<const uint8_t> area) {
      return (xstate::ImageView(area).xstate_bv() & kTiles) != 0;
    };
    switch (step.op) {
      case program::Op::kTilezero:
      case program::Op::kTileloadd:
        return before || !cpu.IsInitial(xstate::Component::kTilecfg);
      case program::Op::kXrstor:
      case program::Op::kXrstors:
        return (step.arg[2] & kTiles) == 0
                   ? before
                   : has(world.Slot(step.vcpu, step.arg[0]).Bytes().subspan(step.arg[1] % 64));
      case program::Op::kSetXsave:
        return has(world.image[step.arg[0] % program::kImageCount].Bytes());
      case program::Op::kTilerelease:
      case program::Op::kInit:
        return false;
      default:
        return before;
    }
  }

  std::array<bool, program::kMaxVcpus> in_use_{}, armed_{}, ran_{};
  bool found_ = false;
};

// A lost agent leaves no records, so the program is gone through as the model would run it, with
// some of the choices that it has. What code of any bytes would leave behind nobody knows.
bool XfdSetOverTiles(const trace::Platform& platform, const plan::Plan& plan) {
  const auto is_raw = [](const program::Step& s) { return s.op == program::Op::kRaw; };
  if (std::ranges::any_of(plan.effective.steps, is_raw)) {
    XfdOverTiles any;
    for (const program::Step& step : plan.effective.steps) any.Note(step, nullptr);
    return any.found();
  }
  constexpr uint64_t kTries = 8;
  for (uint64_t seed = 1; seed <= kTries; ++seed) {
    XfdOverTiles one;
    Simulator simulator(platform);
    simulator.after_step = [&](uint16_t number, const World& world) {
      one.Note(plan.effective.steps[number], &world);
    };
    program::Rng rng(seed);
    simulator.Run(plan, rng);
    if (one.found()) return true;
  }
  return false;
}

// The agent was lost: with it, where it is a machine of its own, that machine. The last fatal thing
// that its console says is the reason, else the last thing.
void JudgeDeath(const trace::Platform& platform, const plan::Plan& plan,
                const SortedRecords& records, Verdict& verdict) {
  const std::string_view text = Text(records.end_text());
  const size_t line = std::min(text.find('\n'), text.size());
  std::string where = "agent";
  std::string words =
      fmt::format("The agent was lost with this program: {}.", text.substr(0, line));
  const auto splats = trace::FindSplats(text.substr(line));
  const trace::Splat* last = nullptr;
  for (const trace::Splat& splat : splats) {
    if (last == nullptr || splat.fatal || !last->fatal) last = &splat;
  }
  if (last != nullptr) {
    where = WhereOf(*last);
    words += fmt::format(" Its machine's console says \"{}\".", last->headline);
  }
  // The agent had no time to say at which step; so none is named, lest one crash is a finding
  // for each way to begin a program.
  Divergence died =
      ExplainHealth(nullptr, records.end_step(), Relation::kDied, std::move(where), words);
  const bool nm = last != nullptr && last->place == "restore_fpregs_from_fpstate" &&
                  last->headline.find("#NM") != std::string::npos;
  if (nm && XfdSetOverTiles(platform, plan)) died.cause = "xfd-set-over-tiles";
  verdict.Add(std::move(died));
}

void JudgeEnd(const trace::Platform& platform, const plan::Plan& plan, const SortedRecords& records,
              Verdict& verdict) {
  const uint16_t number = records.end_step();
  const program::Step* step = StepOf(plan, number);
  const auto report = [&](Relation relation, const char* where, std::string words) {
    verdict.Add(ExplainHealth(step, number, relation, where, std::move(words)));
  };
  const int error = records.end().error;
  const bool raw = step != nullptr && step->op == program::Op::kRaw;
  switch (static_cast<EndReason>(records.end().reason)) {
    case EndReason::kDone:
      return;
    case EndReason::kHang:
      // Raw code may well loop for ever; that it could be stopped is all that is asked.
      if (raw) return;
      return report(Relation::kHang, "KVM_RUN",
                    fmt::format("The program hung in {} and was stopped{}.", InStep(plan, number),
                                records.end().hangs > 0 ? ", as it did when it ran before" : ""));
    case EndReason::kVcpuDead: {
      const auto exit = LastExit(records, plan);
      if (raw && exit && IsRawCodesOwnEnd(*exit)) return;
      std::string words =
          fmt::format("The vCPU could not go on at {}: errno {}", InStep(plan, number), error);
      if (exit) words += fmt::format(", exit reason {}, suberror {}", exit->reason, exit->suberror);
      return report(Relation::kDied, "KVM_RUN", words + ".");
    }
    case EndReason::kSetupFailed:
      return report(
          Relation::kDied, "start of the program",
          fmt::format("The vCPU could not be brought to its starting state: {} (errno {}).",
                      Text(records.end_text()), error));
    case EndReason::kAgentDied:
      return JudgeDeath(platform, plan, records, verdict);
  }
  report(Relation::kDied, "records",
         fmt::format("The records end for an unknown reason, {}.", records.end().reason));
}

// Whether `a` explains something that `b` can't, and fails at nothing earlier. Both are of the same
// records. What concerns struct kvm_fpu is weighed last: the calls go wrong by themselves, and a
// state that happens to hide it proves nothing.
bool ExplainsMore(const Verdict& a, const Verdict& b) {
  const auto of_fpu = [](const Divergence& d) {
    return d.op == static_cast<uint8_t>(program::Op::kSetFpu) ||
           d.op == static_cast<uint8_t>(program::Op::kGetFpu);
  };
  const auto others = [&](const Verdict& v) {
    std::vector<const Divergence*> list;
    for (const Divergence& d : v.divergences) {
      if (!of_fpu(d)) list.push_back(&d);
    }
    return list;
  };
  const auto same = [](const Divergence* x, const Divergence* y) {
    return x->step == y->step && x->where == y->where && x->relation == y->relation;
  };
  const auto of_a = others(a), of_b = others(b);
  const auto [at_a, at_b] = std::ranges::mismatch(of_a, of_b, same);
  if (at_a == of_a.end() && at_b == of_b.end()) {
    return a.divergences.size() < b.divergences.size();
  }
  return at_b != of_b.end() && (at_a == of_a.end() || (*at_b)->step < (*at_a)->step);
}

}  // namespace

struct Judge::Impl {
  explicit Impl(const trace::Platform& p) : platform(p), walk(platform) {}

  const trace::Platform platform;
  Walk walk;
  std::unique_ptr<Walk> supposing;  // made when first needed
  bool keep_compared = false;
  SortedRecords records;

  // Where the walk failed: is it a fault that the probe has found in this system as a whole? If
  // that explains what was seen up to there and further, it is the divergence, and judging goes on
  // under it.
  void TryHypotheses(const plan::Plan& plan, Verdict& verdict);

  void JudgeCanaries(const plan::Plan& plan, Verdict& verdict);
};

void Judge::Impl::TryHypotheses(const plan::Plan& plan, Verdict& verdict) {
  if (verdict.ok() || platform.xcr0_loaded) return;
  if (!supposing) {
    supposing = std::make_unique<Walk>(platform);
    if (keep_compared) supposing->KeepCompared();
  }
  // A KVM that does not load the guest's XCR0 does not load its CR4 either.
  const bool pke = (platform.host_xcr0 & Bit(xstate::Component::kPkru)) != 0;
  unsigned found = 0;
  const uint16_t shown = verdict.divergences[0].step;
  const uint32_t checks = verdict.checks;
  const uint8_t laws = verdict.laws;
  for (const unsigned hypotheses :
       {unsigned{kHostXcr0}, unsigned{kHostPke}, kHostXcr0 | kHostPke}) {
    if ((hypotheses & kHostPke) != 0 && !pke) continue;
    supposing->Assume(hypotheses);
    Verdict other;
    other.laws = laws;
    supposing->Go(plan, &records, nullptr, &other);
    supposing->Release();
    if (!ExplainsMore(other, verdict)) continue;
    found = hypotheses;
    other.checks += checks;
    verdict = std::move(other);
  }
  auto& told = verdict.divergences;
  if ((found & kHostPke) != 0) told.insert(told.begin(), ExplainPke(plan, shown));
  if ((found & kHostXcr0) != 0) told.insert(told.begin(), ExplainXcr0(platform, plan, shown));
}

void Judge::Impl::JudgeCanaries(const plan::Plan& plan, Verdict& verdict) {
  for (const plan::Action& action : plan.actions) {
    const bool runs = action.kind == plan::ActionKind::kRun ||
                      plan.effective.steps[action.first].op == program::Op::kRunImmediate;
    if (!runs || !platform.HasVmm()) continue;
    // What ran has records, or the program came to its end.
    bool ran = records.done();
    for (unsigned i = action.first; i <= action.last && !ran; ++i) ran = records.Of(i).Any();
    if (ran) verdict.laws |= 1u << static_cast<unsigned>(Law::kIsolation);
  }
  for (const trace::RecordView& record : records.canaries()) {
    trace::CanaryRecord canary;
    trace::ReadHead(record.bytes, canary);
    const auto both = record.bytes.subspan(sizeof(canary));
    const auto before = both.first(both.size() / 2), after = both.subspan(both.size() / 2);
    Surroundings around;
    const World& world = walk.world();
    const unsigned ran = record.vcpu % world.vcpus;
    around.now = ImageOf(world.vcpu[ran]);
    for (unsigned i = 0; i < world.vcpus; ++i) {
      if (i != ran) around.others.push_back(ImageOf(world.vcpu[i]));
    }
    Divergence changed = ExplainCanary(platform, StepOf(plan, record.step), record.step,
                                       canary.components, before, after, around);
    if (keep_compared) {
      changed.compared = {
          Place::kImage, {before.begin(), before.end()}, {after.begin(), after.end()}};
    }
    verdict.Add(std::move(changed));
  }
}

Judge::Judge(const trace::Platform& platform) : impl_(std::make_unique<Impl>(platform)) {}
Judge::~Judge() = default;

void Judge::KeepCompared() {
  impl_->keep_compared = true;
  impl_->walk.KeepCompared();
}

Verdict Judge::Check(const plan::Plan& plan, std::span<const uint8_t> bytes, ReachSink* reach) {
  Verdict verdict;
  SortedRecords& records = impl_->records;
  records.Sort(plan, bytes);
  verdict.laws = 1u << static_cast<unsigned>(Law::kHealth);
  ++verdict.checks;
  impl_->walk.Go(plan, &records, reach, &verdict);
  impl_->TryHypotheses(plan, verdict);
  impl_->JudgeCanaries(plan, verdict);
  JudgeKernelLog(plan, records, verdict);
  if (records.has_end()) JudgeEnd(impl_->platform, plan, records, verdict);
  if (const RecordProblem& problem = records.problem(); problem.what != nullptr) {
    verdict.Add(ExplainHealth(
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
