// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/walk.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace fpswap::judge {
namespace {

using program::Op;
using xstate::Bit;
using xstate::Component;

constexpr uint64_t kKnown = (uint64_t{1} << xstate::kComponentCount) - 1;

kvm::Host HostOf(const trace::Platform& platform) {
  kvm::Host host;
  host.xsave = platform.host.xsave;
  host.supported = platform.guest_supp | xstate::kX87Sse;
  // fpu_user_cfg.default_features, plus what the guest's CPUID enables of the dynamic ones.
  uint64_t dynamic = 0;
  for (unsigned i = 0; i < xstate::kComponentCount; ++i) {
    if (platform.host.xsave.sub[i].xfd) dynamic |= uint64_t{1} << i;
  }
  const uint64_t user = platform.host_xcr0 | xstate::kX87Sse;
  host.user_features = (user & ~dynamic) | (user & dynamic & platform.guest.xsave.xcr0);
  host.mxcsr_mask = platform.host.mxcsr_mask;
  host.image_size = std::clamp(platform.xsave_size, kvm::kGetXsaveSize, kvm::kMaxImage);
  host.compacted = platform.compacted;
  return host;
}

// Steps whose failure leaves the model's state intact: judging goes on behind them.
bool IsHarmless(Op op) {
  return op == Op::kGetFpu || op == Op::kGetMpState || op == Op::kExitCpuid;
}

// Calls that set something, and so may be refused (law 5).
bool Sets(Op op) {
  return op == Op::kSetXsave || op == Op::kSetFpu || op == Op::kSetXcrs || op == Op::kSetMsr ||
         op == Op::kSetCpuid || op == Op::kOsSetRegset;
}

// ReachEvent::outcome: 0 done, 1 + vector, or 128 with the low bits of errno.
uint8_t OutcomeOfVector(uint8_t vector) { return static_cast<uint8_t>(1 + (vector & 31)); }
uint8_t OutcomeOfErrno(int error) {
  return error == 0 ? uint8_t{0} : static_cast<uint8_t>(128 | (error & 127));
}

uint8_t OutcomeOf(const Outcome& outcome) {
  if (outcome.page.errors != 0) return OutcomeOfVector(cpu::kPF);
  return outcome.fault ? OutcomeOfVector(outcome.fault->vector) : uint8_t{0};
}

uint8_t OutcomeOf(const StepRecords& seen) {
  trace::FaultRecord fault;
  if (seen.has_fault && trace::ReadHead(seen.fault, fault)) return OutcomeOfVector(fault.vector);
  trace::IoctlRecord record;
  if (seen.has_ioctl && trace::ReadHead(seen.ioctl, record)) return OutcomeOfErrno(record.error);
  return 0;
}

// ReachEvent::state.
uint8_t StateClass(const cpu::Cpu& cpu, Component c) {
  const uint64_t enabled = xstate::RowOf(c).supervisor ? cpu.xss : cpu.xcr0;
  if ((cpu.unknown & Bit(c)) != 0) return 4;
  if ((enabled & Bit(c)) == 0) return 0;
  if ((cpu.xfd & Bit(c)) != 0) return 3;
  return cpu.IsInitial(c) ? 1 : 2;
}

bool IsFullLook(Op op) {
  return op == Op::kGetXsave || op == Op::kGetXsave2 || op == Op::kXsave || op == Op::kXsavec ||
         op == Op::kXsaves || op == Op::kOsGetRegset || op == Op::kOsSigframe;
}

}  // namespace

bool HasRaw(const plan::Plan& plan, const plan::Action& action) {
  for (size_t i = action.first; i <= action.last && i < plan.effective.steps.size(); ++i) {
    if (plan.effective.steps[i].op == Op::kRaw) return true;
  }
  return false;
}

Walk::Walk(const trace::Platform& platform) : platform_(platform), host_(HostOf(platform)) {}

void Walk::Begin(const plan::Plan& plan, const SortedRecords* records, Verdict* verdict) {
  plan_ = &plan;
  records_ = records;
  verdict_ = verdict;
  last_exit_ = 0;
  stopped_at_ = kNowhere;
  suspect_.fill(Law::kModel);
  avx_under_zmm_.fill(false);
  blames_.clear();
  const uint64_t mask = platform_.guest_fixed ? ~uint64_t{0} : plan.effective.features;
  if (limited_mask_ != mask) {
    limited_ = LimitFeatures(platform_.guest, mask);
    limited_mask_ = mask;
  }
  // How far a save can write: the larger of the formats, from wherever it begins.
  const auto& x = platform_.guest.xsave;
  area_bytes_ = std::max(xstate::StandardSize(x, x.xcr0 & kKnown),
                         xstate::CompactedSize(x, (x.xcr0 | x.xss) & kKnown));
  worlds_.Reset();
  worlds_[0].Reset(plan, limited_, host_);
}

void Walk::Go(const plan::Plan& plan, const SortedRecords* records, ReachSink* reach,
              Verdict* verdict) {
  reach_ = reach;
  Begin(plan, records, verdict);
  Actions(plan);
  SettleBlame();
}

void Walk::Actions(const plan::Plan& plan) {
  for (const plan::Action& action : plan.actions) {
    if (action.kind == plan::ActionKind::kRun && HasRaw(plan, action)) {
      // The journals of a run are read at its end or its next exit: raw code may have reached them.
      if (verdict_ != nullptr) verdict_->unknown = true;
      return;
    }
    for (uint16_t i = action.first; i <= action.last && i < plan.effective.steps.size(); ++i) {
      if (until_ && i >= *until_) return;
      if (DiedBefore(i) || DoStep(action, i) == Next::kStop) return;
      if (states_ != nullptr) {
        Image now = ImageOf(worlds_[0].vcpu[states_of_]);
        if (states_->empty() || states_->back() != now) states_->push_back(std::move(now));
      }
    }
  }
}

std::vector<Image> Walk::States(const plan::Plan& plan, const SortedRecords& records,
                                unsigned until, unsigned vcpu) {
  std::vector<Image> states;
  states_ = &states;
  states_of_ = vcpu;
  until_ = until;
  Go(plan, &records, nullptr, nullptr);
  states_ = nullptr;
  until_.reset();
  return states;
}

// A program that did not end well has no records from its last step on that could be judged.
bool Walk::DiedBefore(uint16_t number) const {
  if (records_ == nullptr) return false;
  if (!records_->has_end()) return !records_->Of(number).Any();
  const bool done = records_->end().reason == static_cast<uint8_t>(trace::EndReason::kDone);
  return !done && number >= records_->end_step();
}

Context Walk::MakeContext(World& world, uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  kvm::Vcpu& vcpu = world.vcpu[step.vcpu % program::kMaxVcpus];
  return {.platform = platform_,
          .plan = *plan_,
          .step = step,
          .number = number,
          .seen = records_ != nullptr ? &records_->Of(number) : nullptr,
          .world = world,
          .vcpu = vcpu,
          .cpu = vcpu.cpu,
          .scratch = scratch_,
          .area_bytes = area_bytes_};
}

// Instructions of the guest meet the XCR0 in force, the VMM and XSETBV the one that KVM keeps.
void Walk::ExchangeXcr0(uint16_t number, bool before) {
  const program::Step& step = plan_->effective.steps[number];
  const bool kept = program::RowOf(step).actor != program::Actor::kGuest || step.op == Op::kXsetbv;
  for (size_t i = 0; i < worlds_.size(); ++i) {
    World& world = worlds_[i];
    for (unsigned v = 0; v < world.vcpus; ++v) {
      uint64_t& xcr0 = world.vcpu[v].cpu.xcr0;
      if (kept && !before) world.kvm_xcr0[v] = xcr0;
      xcr0 = kept && before ? world.kvm_xcr0[v] : platform_.host_xcr0;
    }
  }
}

Walk::Next Walk::DoStep(const plan::Action& action, uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  if (reach_ != nullptr) PrepareReach(number);
  if (hypothesis_ == Hypothesis::kHostXcr0) ExchangeXcr0(number, true);
  const Next next = step.op == Op::kGetFpu                  ? GetFpu(number)
                    : action.kind == plan::ActionKind::kRun ? Guest(action, number)
                                                            : Vmm(number);
  if (hypothesis_ == Hypothesis::kHostXcr0) ExchangeXcr0(number, false);
  if (reach_ != nullptr) EmitReach(number);
  if (next == Next::kStop) return next;
  if (worlds_[0].vcpu[step.vcpu].cpu.unknown != 0) {
    if (verdict_ != nullptr) verdict_->unknown = true;
    return Next::kStop;
  }
  NoteEffects(number);
  NoteAvxUnderZmm(step.vcpu);
  return Next::kGoOn;
}

// See CauseOf in explain.cc. Once a context switch has brought stale bytes into some registers,
// writes to others do not take them away, so what held once counts for the rest of the program.
void Walk::NoteAvxUnderZmm(unsigned vcpu) {
  if (!platform_.host.amd || avx_under_zmm_[vcpu]) return;
  const cpu::Cpu& cpu = worlds_[0].vcpu[vcpu].cpu;
  avx_under_zmm_[vcpu] = !cpu.IsInitial(Component::kZmmHi256) && cpu.IsInitial(Component::kAvx);
}

Walk::Next Walk::Guest(const plan::Action& action, uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  const GuestFunction function = GuestFunctionOf(step.op);
  if (function == nullptr) return Next::kStop;  // raw code, which Go has seen to
  const size_t worlds = worlds_.size();
  XfdOfWorlds xfd;
  const bool any = worlds_.Prune([&](size_t i) {
    Context c = MakeContext(worlds_[i], number);
    c.cpu.cpl = action.cpl;
    c.vcpu.has_run = true;
    xfd[i] = c.cpu.xfd;
    mismatches_[i] = Mismatch{};
    const Outcome outcome = function(c);
    if (i == 0) outcome_ = OutcomeOf(outcome);
    return CompareGuest(c, outcome, mismatches_[i]);
  });
  NoteLaws(number, true);
  if (any && worlds_.size() == worlds && step.op == Op::kWrmsr) BranchTiles(step, worlds, xfd);
  return Settle(number, any, IsHarmless(step.op));
}

// More worlds than there is room for: nothing that follows could be called wrong.
Walk::Next Walk::GiveUp() {
  if (verdict_ != nullptr) verdict_->unknown = true;
  for (size_t i = 0; i < worlds_.size(); ++i) worlds_.set_blame(i, 0);
  return Next::kStop;
}

Walk::Next Walk::Vmm(uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  fpu_variants_.fill(0);
  if (step.op == Op::kSetFpu && records_ != nullptr && !BranchSetFpu(number)) return GiveUp();
  const size_t worlds = worlds_.size();
  XfdOfWorlds xfd;
  const bool any = worlds_.Prune([&](size_t i) {
    Context c = MakeContext(worlds_[i], number);
    xfd[i] = c.cpu.xfd;
    mismatches_[i] = Mismatch{};
    const bool allowed = DoVmmStep(c, changed_, fpu_variants_[i], mismatches_[i]);
    if (i == 0) outcome_ = OutcomeOfErrno(c.model_errno);
    return allowed;
  });
  NoteLaws(number, false);
  if (any && worlds_.size() == worlds && step.op == Op::kSetMsr) BranchTiles(step, worlds, xfd);
  return Settle(number, any, IsHarmless(step.op));
}

// KVM_GET_FPU changes nothing and is judged in three parts, each right if any world allows it. It
// decides nothing about worlds: KVM fills it from bytes that need not be the guest's.
Walk::Next Walk::GetFpu(uint16_t number) {
  const Next next = Vmm(number);
  if (next == Next::kStop || records_ == nullptr || !records_->Of(number).has_ioctl) return next;
  trace::IoctlRecord record;
  trace::ReadHead(records_->Of(number).ioctl, record);
  if (record.result != 0) return next;
  for (const FpuPart part : {FpuPart::kX87, FpuPart::kXmm, FpuPart::kMxcsr}) {
    const auto allows = [&](size_t i) {
      Context c = MakeContext(worlds_[i], number);
      mismatches_[i] = Mismatch{};
      return CompareFpu(c, part, mismatches_[i]);
    };
    bool right = false;
    for (size_t i = 0; i < worlds_.size() && !right; ++i) right = allows(i);
    if (right) continue;
    // Told against a world in which the component is initial, if it may be so: then the bytes are
    // nobody's state.
    const Component c = part == FpuPart::kX87 ? Component::kX87 : Component::kSse;
    const size_t wrong = worlds::Nearest(worlds_.size(), [&](size_t i) {
      return std::pair(!MakeContext(worlds_[i], number).cpu.IsInitial(c), worlds_.blame(i) != 0);
    });
    allows(wrong);
    Report(number, wrong, mismatches_[wrong]);
  }
  return next;
}

// Worlds in which KVM_SET_FPU does not keep its promise, to be blamed on it if only they are left.
bool Walk::BranchSetFpu(uint16_t number) {
  MergeWorlds();
  const size_t before = worlds_.size();
  for (size_t i = 0; i < before; ++i) {
    for (unsigned variant = 1; variant < kFpuVariants; ++variant) {
      const Context c = MakeContext(worlds_[i], number);
      if (!FpuVariantDiffers(c, variant)) continue;
      const size_t copy = worlds_.Branch(i);
      if (copy == worlds::Worlds<World>::kMax) return false;
      fpu_variants_[copy] = variant;
      if (worlds_.blame(copy) == 0) {
        blames_.push_back({number, variant});
        worlds_.set_blame(copy, static_cast<unsigned>(blames_.size()));
      }
    }
  }
  return true;
}

// IA32_XFD has let components go that hold something: they are as they were, or initial if the host
// has saved the state meanwhile (fpu_sync_guest_vmexit_xfd_state; SDM 13.14).
void Walk::BranchTiles(const program::Step& step, size_t worlds, const XfdOfWorlds& xfd) {
  for (size_t i = 0; i < worlds; ++i) {
    const cpu::Cpu& cpu = worlds_[i].vcpu[step.vcpu].cpu;
    for (uint64_t freed = xfd[i] & ~cpu.xfd & kKnown; freed != 0; freed &= freed - 1) {
      const auto c = static_cast<Component>(std::countr_zero(freed));
      if (cpu.IsInitial(c)) continue;
      const size_t copy = worlds_.Branch(i);
      if (copy != worlds::Worlds<World>::kMax) worlds_[copy].vcpu[step.vcpu].cpu.Initialise(c);
    }
  }
}

// What is to be said when the worlds have been asked.
Walk::Next Walk::Settle(uint16_t number, bool any, bool harmless) {
  if (!any) {
    // Against a world without blame, if there is one, for it says what was right.
    const size_t nearest = worlds::Nearest(worlds_.size(), [&](size_t i) {
      return std::pair(worlds_.blame(i) != 0, mismatches_[i].differing);
    });
    // If every world was blamed already, that failure is what comes first.
    if (worlds_.blame(nearest) != 0) {
      NoteBlame(blames_[worlds_.blame(nearest) - 1]);
      for (size_t i = 0; i < worlds_.size(); ++i) worlds_.set_blame(i, 0);
    }
    Report(number, nearest, mismatches_[nearest]);
    if (harmless) return Next::kGoOn;
    stopped_at_ = number;
    return Next::kStop;
  }
  // As long as several ways of failing are left, what is seen later tells which it was.
  if (OneBlame()) ReportBlame();
  return Next::kGoOn;
}

// Worlds that have become the same are one, and without blame if one of them is.
void Walk::MergeWorlds() {
  if (worlds_.size() == 1) return;
  for (size_t i = 1; i < worlds_.size() && worlds_.blame(0) != 0; ++i) {
    if (worlds_.blame(i) == 0) worlds_.Swap(0, i);
  }
  std::vector<std::vector<Image>> seen;
  worlds_.Prune([&](size_t i) {
    std::vector<Image> now;
    for (unsigned v = 0; v < worlds_[i].vcpus; ++v) now.push_back(ImageOf(worlds_[i].vcpu[v]));
    const bool is_new = std::ranges::find(seen, now) == seen.end();
    if (is_new) seen.push_back(std::move(now));
    return is_new;
  });
}

// Whether nothing is left but worlds in which one call has failed its promise in one way.
bool Walk::OneBlame() const {
  for (size_t i = 0; i < worlds_.size(); ++i) {
    if (worlds_.blame(i) == 0 || worlds_.blame(i) != worlds_.blame(0)) return false;
  }
  return true;
}

// The program is over and several ways of failing are left: the least of them.
void Walk::SettleBlame() {
  if (worlds_.AnyBlameless()) return;
  const size_t least = worlds::Nearest(worlds_.size(), [&](size_t i) {
    return std::popcount(blames_[worlds_.blame(i) - 1].variant);
  });
  worlds_.Swap(0, least);
  ReportBlame();
}

// Only worlds in which a call has failed its promise are left: says so, and goes on in the first,
// as if that call had been meant to do what it did.
void Walk::ReportBlame() {
  const unsigned blame = worlds_.blame(0);
  const Blame what = blames_[blame - 1];
  worlds_.Prune([&](size_t i) { return worlds_.blame(i) == blame; });
  for (size_t i = 0; i < worlds_.size(); ++i) worlds_.set_blame(i, 0);
  NoteBlame(what);
}

void Walk::NoteBlame(const Blame& what) {
  if (verdict_ == nullptr) return;
  for (unsigned bit = 1; bit < kFpuVariants; bit <<= 1) {
    if ((what.variant & bit) == 0 || verdict_->divergences.size() >= kMaxDivergences) continue;
    verdict_->divergences.push_back(
        ExplainSetFpu(plan_->effective.steps[what.step], what.step, bit));
  }
}

void Walk::Report(uint16_t number, size_t world, Mismatch& m) {
  if (verdict_ == nullptr || verdict_->divergences.size() >= kMaxDivergences) return;
  const program::Step& step = plan_->effective.steps[number];
  const Law suspect = suspect_[step.vcpu];
  if (m.place != Place::kNone && suspect != Law::kModel && !IsHarmless(step.op)) m.law = suspect;
  Surroundings around;
  if (m.place != Place::kNone && m.relation == Relation::kOther && m.size >= 8) {
    // Where the value comes from is worth a second walk.
    Walk history(platform_);
    history.Assume(hypothesis_);
    around.before = history.States(*plan_, *records_, number, step.vcpu);
    around.now = ImageOf(worlds_[world].vcpu[step.vcpu]);
    for (unsigned i = 0; i < worlds_[world].vcpus; ++i) {
      if (i != step.vcpu) around.others.push_back(ImageOf(worlds_[world].vcpu[i]));
    }
    // The present value is not an old one.
    std::erase(around.before, around.now);
  }
  const StepRecords& seen = records_->Of(number);
  const Explained what{platform_,
                       &step,
                       number,
                       &worlds_[world].vcpu[step.vcpu].cpu,
                       seen.has_journal ? seen.journal : std::span<const uint8_t>{},
                       avx_under_zmm_[step.vcpu]};
  verdict_->divergences.push_back(Explain(what, m, around));
}

void Walk::NoteLaws(uint16_t number, bool guest) {
  if (verdict_ == nullptr || records_ == nullptr) return;
  const StepRecords& seen = records_->Of(number);
  const program::Step& step = plan_->effective.steps[number];
  if (!seen.Any()) return;
  ++verdict_->checks;
  const auto note = [&](Law law) { verdict_->laws |= static_cast<uint8_t>(1u << unsigned(law)); };
  note(guest ? Law::kModel : Law::kCoherence);
  if (step.op == Op::kMigrate) note(Law::kRoundTrip);
  if (IsFullLook(step.op)) note(suspect_[step.vcpu]);
}

// What a step that was found right means for the next difference.
void Walk::NoteEffects(uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  if (step.op >= Op::kExitOut && step.op <= Op::kExitPageFault) {
    last_exit_ = static_cast<uint8_t>(step.op);
  }
  if (step.op == Op::kMigrate) suspect_.fill(Law::kRoundTrip);
  if (records_ == nullptr) return;
  const StepRecords& seen = records_->Of(number);
  if (IsFullLook(step.op) && (seen.has_journal || seen.ioctl.size() > 8)) {
    suspect_[step.vcpu] = Law::kModel;
  }
  if (!Sets(step.op) || !seen.has_ioctl) return;
  trace::IoctlRecord record;
  trace::ReadHead(seen.ioctl, record);
  const bool counts = step.op == Op::kSetMsr;
  if (record.result < 0 || (counts && record.result == 0)) {
    suspect_[step.vcpu] = Law::kRefusal;
  } else if (step.op == Op::kSetXsave || step.op == Op::kOsSetRegset) {
    const ImageSource source = worlds_[0].source[step.arg[0] % program::kImageCount];
    if (source.from_get && source.vcpu == step.vcpu) suspect_[step.vcpu] = Law::kRoundTrip;
  }
}

// The states of the step's components as it finds them.
void Walk::PrepareReach(uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  const cpu::Cpu& cpu = worlds_[0].vcpu[step.vcpu].cpu;
  outcome_ = 0;
  reach_xcr0_ = static_cast<uint32_t>(cpu.xcr0);
  reach_components_ = program::RowOf(step).components & kKnown &
                      (cpu.features->xsave.xcr0 | cpu.features->xsave.xss);
  for (uint64_t left = reach_components_; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    reach_states_[i] = StateClass(cpu, static_cast<Component>(i));
  }
}

void Walk::EmitReach(uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  ReachEvent event{.op = static_cast<uint8_t>(step.op),
                   .component = 255,
                   .state = 0,
                   .exit = last_exit_,
                   .outcome = records_ != nullptr ? OutcomeOf(records_->Of(number)) : outcome_,
                   .xcr0 = reach_xcr0_};
  if (reach_components_ == 0) return reach_->Reach(event);
  for (uint64_t left = reach_components_; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    event.component = static_cast<uint8_t>(i);
    event.state = reach_states_[i];
    reach_->Reach(event);
  }
}

}  // namespace fpswap::judge
