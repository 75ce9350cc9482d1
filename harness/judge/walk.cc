// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/walk.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <tuple>

#include "harness/judge/origin.h"
#include "harness/plan/vmm.h"
#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using program::Op;
using xstate::Bit;
using xstate::Component;

constexpr uint64_t kKnown = (uint64_t{1} << xstate::kComponentCount) - 1;

// Steps that show something else than the guest's XSAVE-managed state.
bool ShowsOther(Op op) {
  return op == Op::kGetFpu || op == Op::kGetMpState || op == Op::kExitCpuid;
}

// Steps that change nothing of the vCPU's: whatever they showed, judging goes on behind them.
bool IsHarmless(Op op) { return ShowsOther(op) || op == Op::kGetXsave || op == Op::kGetXsave2; }

// Calls that set something, and so may be refused (law 5).
bool Sets(Op op) {
  return op == Op::kSetXsave || op == Op::kSetFpu || op == Op::kSetXcrs || op == Op::kSetXcrsList ||
         op == Op::kSetCpuid || op == Op::kOsSetRegset || plan::SetsMsrs(op);
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
  trace::HostRecord host;
  if (seen.has_host && trace::ReadHead(seen.host, host)) return OutcomeOfErrno(host.error);
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

bool IsAmx(Op op) { return op >= Op::kLdtilecfg && op <= Op::kTdpbuud; }

// Instructions with a VEX prefix that write a vector register.
bool IsVexWrite(Op op) {
  return op == Op::kVexLoad128 || op == Op::kVexLoad256 || op == Op::kVexPxor256 ||
         op == Op::kVzeroupper || op == Op::kVzeroall;
}

// ZMM16-31 are one component, what is below them three.
uint64_t OfRegister(uint64_t reg) {
  const uint64_t high = Bit(Component::kHi16Zmm);
  return reg >= 16 ? high : ~high;
}

// Which components a step concerns, of those that its kind can (StepRow::components): reach must
// not count what this one leaves alone.
uint64_t Concerned(const program::Step& step, const World& world) {
  const cpu::Cpu& cpu = world.vcpu[step.vcpu].cpu;
  switch (step.op) {
    case Op::kXsave:
    case Op::kXsavec:
    case Op::kXsaveopt:
    case Op::kXrstor:
      return step.arg[2] & cpu.xcr0;
    case Op::kXsaves:
    case Op::kXrstors:
      return step.arg[2] & (cpu.xcr0 | cpu.xss);
    case Op::kEvexLoad128:
    case Op::kEvexLoad256:
    case Op::kEvexLoad512:
    case Op::kEvexStore512:
      return OfRegister(step.arg[0]);
    case Op::kEvexPxor512:
      return OfRegister(step.arg[0]) | OfRegister(step.arg[1]) | OfRegister(step.arg[2]);
    case Op::kXsetbv:
      return step.arg[1] ^ cpu.xcr0;
    case Op::kSetXsave:
      return xstate::ImageView(world.image[step.arg[0] % program::kImageCount].Bytes()).xstate_bv();
    default:
      return ~uint64_t{0};
  }
}

bool IsFullLook(Op op) {
  return op == Op::kGetXsave || op == Op::kGetXsave2 || op == Op::kXsave || op == Op::kXsavec ||
         op == Op::kXsaves || op == Op::kOsGetRegset || op == Op::kOsSigframe;
}

// Whether two worlds agree in what the images of their vCPUs do not show. If the images are the
// same too, they will never be told apart: what memory holds has been seen.
bool SameBesidesImages(const World& a, const World& b) {
  for (unsigned v = 0; v < a.vcpus; ++v) {
    const kvm::Vcpu &x = a.vcpu[v], &y = b.vcpu[v];
    const cpu::Registers &r = x.cpu.regs, &s = y.cpu.regs;
    const bool same =
        x.cpu.xcr0 == y.cpu.xcr0 && x.cpu.xss == y.cpu.xss && x.cpu.xfd == y.cpu.xfd &&
        x.cpu.xfd_err == y.cpu.xfd_err && x.cpu.amx_heeds_ts == y.cpu.amx_heeds_ts &&
        x.cpu.vex_clears_disabled_zmm == y.cpu.vex_clears_disabled_zmm &&
        x.cpu.s_cet == y.cpu.s_cet && r.cet_u == s.cet_u && r.cet_s == s.cet_s &&
        x.cpu.unknown == y.cpu.unknown && r.x87.pointers_known == s.x87.pointers_known &&
        r.x87.selectors_known == s.x87.selectors_known && r.mxcsr == s.mxcsr &&
        r.tilecfg == s.tilecfg && std::ranges::equal(r.tiledata.Bytes(), s.tiledata.Bytes());
    if (!same) return false;
  }
  return true;
}

constexpr uint64_t kSseOrAvx = Bit(Component::kSse) | Bit(Component::kAvx);

}  // namespace

Walk::Walk(const trace::Platform& platform) : platform_(platform), host_(HostOf(platform)) {}

void Walk::Assume(unsigned hypotheses) {
  hypotheses_ = hypotheses;
  limited_mask_.reset();
}

void Walk::Begin(const plan::Plan& plan, const SortedRecords* records, Verdict* verdict) {
  plan_ = &plan;
  records_ = records;
  verdict_ = verdict;
  last_exit_ = 0;
  suspect_.fill(Law::kModel);
  avx_under_zmm_.fill(false);
  pkru_left_out_.fill(false);
  pkru_lost_.fill(0);
  mxcsr_left_out_.fill(false);
  fpu_given_.fill({});
  mxcsr_lost_.fill(cpu::kInitialMxcsr);
  vmm_pkru_0_.fill(false);
  for (uint8_t i = 0; i < program::kMaxVcpus; ++i) {
    thread_of_[i] = plan.effective.own_thread ? i : uint8_t{0};
  }
  blames_.clear();
  const uint64_t mask = platform_.guest_fixed ? ~uint64_t{0} : plan.effective.features;
  if (limited_mask_ != mask) {
    limited_ = LimitFeatures(platform_.guest, mask);
    limited_mask_ = mask;
    if ((hypotheses_ & kHostXcr0) != 0) AddHostLayout();
  }
  // How far a save can write: the larger of the formats, from wherever it begins.
  const bool host_xcr0 = (hypotheses_ & kHostXcr0) != 0;
  const auto& x = host_xcr0 ? limited_.xsave : platform_.guest.xsave;
  const uint64_t xcr0 = host_xcr0 ? platform_.host_xcr0 : x.xcr0;
  area_bytes_ = std::max(xstate::StandardSize(x, xcr0 & kKnown),
                         xstate::CompactedSize(x, (xcr0 | x.xss) & kKnown));
  worlds_.Reset();
  worlds_[0].Reset(plan, limited_, host_);
  if ((hypotheses_ & kHostPke) != 0) {
    for (unsigned v = 0; v < worlds_[0].vcpus; ++v) worlds_[0].vcpu[v].cpu.cr4_pke = true;
  }
}

// Components that only the host's XCR0 has: instructions under it work on them, CPUID tells the
// guest nothing of them.
void Walk::AddHostLayout() {
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    auto& sub = limited_.xsave.sub[i];
    if (sub.size == 0) sub = platform_.host.xsave.sub[i];
  }
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
    if (plan.effective.steps[action.first].op == Op::kRaw) {
      if (reach_ != nullptr) PrepareReach(action.first), EmitReach(action.first);
      if (verdict_ != nullptr) verdict_->Cut("raw code", action.first, true);
      return;
    }
    for (uint16_t i = action.first; i <= action.last && i < plan.effective.steps.size(); ++i) {
      if (until_ && i >= *until_) return;
      if (DiedBefore(i) || DoStep(action, i) == Next::kStop) return;
      if (states_ != nullptr) {
        NoteState(i);
      }
    }
  }
}

void Walk::States(const plan::Plan& plan, const SortedRecords& records, unsigned until,
                  unsigned vcpu, Surroundings& around) {
  states_ = &around;
  states_of_ = vcpu;
  if ((plan.effective.features & HostOf(platform_).dynamic) != 0) NoteZeros(around, 0);
  until_ = until;
  Go(plan, &records, nullptr, nullptr);
  states_ = nullptr;
  until_.reset();
}

// A guest with tiles has another fpstate from the KVM_SET_CPUID2 on that gives it these, for the
// larger images. It begins as zeros, FCW and MXCSR too (fpstate_realloc).
void Walk::NoteZeros(Surroundings& around, unsigned number) const {
  if (!platform_.HasVmm()) return;
  around.before.emplace_back(host_.image_size);
  around.before_step.push_back(number);
}

// What a vCPU has held: its registers, and what a SET gave it, which the kernel's buffer may keep
// whether or not it counts. The reserved byte beside the abridged FTW is no part of struct kvm_fpu.
void Walk::NoteState(unsigned number) {
  const program::Step& step = plan_->effective.steps[number];
  const auto note = [&](Image image) {
    if (std::ranges::find(states_->before, image) != states_->before.end()) return;
    states_->before.push_back(std::move(image));
    states_->before_step.push_back(number);
  };
  if (step.vcpu == states_of_ && step.op == Op::kSetXsave) {
    const auto given = worlds_[0].image[step.arg[0] % program::kImageCount].Bytes();
    Image image(given.begin(), given.begin() + host_.image_size);
    image[5] = 0;
    note(std::move(image));
  }
  if (step.vcpu == states_of_ && step.op == Op::kSetFpu) {
    std::array<uint8_t, plan::kFpuSize> fpu;
    plan::FillFpu(step, fpu);
    Image given(host_.image_size);
    kvm::CopyFpuX87(fpu, given);
    kvm::CopyFpuXmm(fpu, given);
    given[5] = 0;
    note(std::move(given));
  }
  if (step.op == Op::kSetCpuid && worlds_[0].vcpu[states_of_].enabled_dynamic != 0) {
    NoteZeros(*states_, number);
  }
  for (size_t i = 0; i < worlds_.size(); ++i) {
    const kvm::Vcpu& vcpu = worlds_[i].vcpu[states_of_];
    note(ImageOf(vcpu));
    states_->any_pointers |= !vcpu.cpu.regs.x87.pointers_known;
  }
}

// A program that did not end well has no records from its last step on that could be judged.
bool Walk::DiedBefore(uint16_t number) const {
  if (records_ == nullptr) return false;
  if (!records_->has_end()) return !records_->Of(number).Any();
  return !records_->done() && number >= records_->end_step();
}

void Walk::KeepCompared() { keep_compared_ = true; }

void Walk::Clear(size_t i) {
  mismatches_[i] = Mismatch{};
  all_[i].possible.clear();
  all_[i].seen.clear();
  mismatches_[i].all = &all_[i];
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
          .area_bytes = area_bytes_,
          .host_pke = (hypotheses_ & kHostPke) != 0};
}

// KVM saves the guest's PKRU at an exit only if the guest's own XCR0 or CR4 has it
// (kvm_load_host_xsave_state). Where the host's are in force the guest can load and feel one that
// is not kept, and any exit, an interrupt's too, may put another in its place.
bool Walk::ShowsPkruNotKept(const Context& c) const {
  const uint64_t kept = (hypotheses_ & kHostXcr0) != 0 ? c.world.kvm_xcr0[c.step.vcpu] : c.cpu.xcr0;
  return c.host_pke && c.cpu.cpl == 3 && (kept & Bit(Component::kPkru)) == 0 &&
         c.cpu.PkruDenies(true) && c.seen != nullptr && c.seen->has_journal && !c.seen->has_fault;
}

// Whether a CPUID of the guest gave the size that belongs to `xcr0`.
bool Walk::CpuidShows(uint16_t number, uint64_t xcr0) const {
  if (records_ == nullptr || records_->Of(number).journal.size() < 8) return false;
  uint32_t ebx;
  std::memcpy(&ebx, records_->Of(number).journal.data() + 4, 4);
  return ebx == xstate::StandardSize(limited_.xsave, xcr0);
}

// Instructions of the guest meet the XCR0 in force, the VMM and XSETBV the one that KVM keeps; so
// does CPUID where the CPU can make it fault to KVM (CPUID faulting).
void Walk::ExchangeXcr0(uint16_t number, bool before) {
  const program::Step& step = plan_->effective.steps[number];
  const bool always =
      program::RowOf(step).actor != program::Actor::kGuest || step.op == Op::kXsetbv;
  for (size_t i = 0; i < worlds_.size(); ++i) {
    World& world = worlds_[i];
    for (unsigned v = 0; v < world.vcpus; ++v) {
      uint64_t& xcr0 = world.vcpu[v].cpu.xcr0;
      const bool kept =
          always || (step.op == Op::kExitCpuid && CpuidShows(number, world.kvm_xcr0[v]));
      if (kept && !before) world.kvm_xcr0[v] = xcr0;
      xcr0 = kept && before ? world.kvm_xcr0[v] : platform_.host_xcr0;
    }
  }
}

Walk::Next Walk::DoStep(const plan::Action& action, uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  if (reach_ != nullptr) PrepareReach(number);
  if ((hypotheses_ & kHostXcr0) != 0) ExchangeXcr0(number, true);
  const Next next = step.op == Op::kGetFpu                  ? GetFpu(number)
                    : action.kind == plan::ActionKind::kRun ? Guest(action, number)
                                                            : Vmm(number);
  if ((hypotheses_ & kHostXcr0) != 0) ExchangeXcr0(number, false);
  if (reach_ != nullptr) EmitReach(number);
  if (next == Next::kStop) return next;
  if (worlds_[0].vcpu[step.vcpu].cpu.unknown != 0) {
    if (verdict_ != nullptr) verdict_->Cut("the state is not defined", number, true);
    return Next::kStop;
  }
  NoteEffects(number);
  NoteAvxUnderZmm(number);
  return Next::kGoOn;
}

// See CauseOf in explain.cc. Once a context switch has brought stale bytes into some registers,
// writes to others do not take them away; what writes all of them does.
void Walk::NoteAvxUnderZmm(uint16_t number) {
  if (!platform_.host.amd) return;
  const program::Step& step = plan_->effective.steps[number];
  const bool faulted = records_ != nullptr && records_->Of(number).has_fault;
  const cpu::Cpu& cpu = worlds_[0].vcpu[step.vcpu].cpu;
  bool& held = avx_under_zmm_[step.vcpu];
  const bool loads = (step.op == Op::kXrstor || step.op == Op::kXrstors) &&
                     (step.arg[2] & cpu.xcr0 & Bit(Component::kAvx)) != 0;
  const bool writes_all = loads || step.op == Op::kVzeroupper || step.op == Op::kVzeroall;
  if (writes_all && !faulted) held = false;
  held |= !cpu.IsInitial(Component::kZmmHi256) && cpu.IsInitial(Component::kAvx);
}

// KVM_SET_XSAVE of an image without PKRU leaves the guest's PKRU alone and takes the bit out of the
// fpstate's XSTATE_BV, which KVM_GET_XSAVE goes by until the guest has run again. Each run leaves
// the bit as the VMM's own PKRU has it, for that is in the register when the fpstate is saved.
void Walk::NotePkruLeftOut(const program::Step& step, bool failed) {
  const uint64_t pkru = Bit(Component::kPkru);
  const bool runs = program::RowOf(step).actor == program::Actor::kGuest;
  uint8_t& thread = thread_of_[step.vcpu];
  if (step.op == Op::kHostThread) {
    thread = static_cast<uint8_t>(step.arg[0] % program::kMaxVcpus);
  }
  // Of the value, the agent leaves key 0 allowed. Threads begin with another one than 0.
  if (step.op == Op::kHostPkru) {
    vmm_pkru_0_[thread] = (static_cast<uint32_t>(step.arg[0]) & ~3u) == 0;
  }
  if (runs || step.op == Op::kRunImmediate) pkru_left_out_[step.vcpu] = vmm_pkru_0_[thread];
  if (step.op == Op::kSetXsave && !failed && (platform_.host_xcr0 & pkru) != 0) {
    const auto image = worlds_[0].image[step.arg[0] % program::kImageCount].Bytes();
    pkru_left_out_[step.vcpu] = !xstate::ImageView(image).present(Component::kPkru);
  }
  for (unsigned i = 0; step.op == Op::kMigrate && i < worlds_[0].vcpus; ++i) {
    if (!worlds_[0].SameVm(i, step.vcpu)) continue;
    if (pkru_left_out_[i]) pkru_lost_[i] = worlds_[0].vcpu[i].cpu.regs.pkru;
    pkru_left_out_[i] = false;
  }
}

// A PKRU that a migration has lost shows until the guest gets another, or is seen to have the old
// one.
void Walk::NotePkruIsBack(uint16_t number, bool failed) {
  const program::Step& step = plan_->effective.steps[number];
  uint32_t& lost = pkru_lost_[step.vcpu];
  if (lost == 0) return;
  const StepRecords& seen = records_->Of(number);
  bool back = false;
  if (seen.has_fault) {
    trace::FaultRecord fault{};
    trace::ReadHead(seen.fault, fault);
    back = fault.vector == cpu::kPF && (fault.error_code & kPfPk) != 0;
  } else if (step.op == Op::kXrstor || step.op == Op::kXrstors) {
    const uint64_t rfbm = step.arg[2] & worlds_[0].vcpu[step.vcpu].cpu.xcr0;
    back = (rfbm & Bit(Component::kPkru)) != 0;
  } else if (step.op == Op::kRdpkru) {
    back = seen.journal.size() >= 4 && xstate::ReadAt<uint32_t>(seen.journal, 0) == lost;
  } else if (step.op == Op::kSetXsave) {
    const auto image = worlds_[0].image[step.arg[0] % program::kImageCount].Bytes();
    back = !failed && xstate::ImageView(image).present(Component::kPkru);
  } else {
    back = step.op == Op::kWrpkru;
  }
  if (back) lost = 0;
}

// XSAVE's standard form writes MXCSR and not the bit of SSE where XMM is initial (SDM 13.7), and
// KVM_SET_XSAVE of an image with neither SSE nor AVX leaves the fpstate's MXCSR.
void Walk::NoteMxcsrLeftOut(const program::Step& step, bool failed) {
  if (host_.compacted) return;
  const bool runs = program::RowOf(step).actor == program::Actor::kGuest;
  const cpu::Cpu& cpu = worlds_[0].vcpu[step.vcpu].cpu;
  if (runs || step.op == Op::kRunImmediate) {
    mxcsr_left_out_[step.vcpu] = cpu.IsInitial(Component::kSse) && cpu.IsInitial(Component::kAvx);
  }
  if (step.op == Op::kSetXsave && !failed) {
    const auto image = worlds_[0].image[step.arg[0] % program::kImageCount].Bytes();
    mxcsr_left_out_[step.vcpu] = (xstate::ImageView(image).xstate_bv() & kSseOrAvx) == 0;
  }
  for (unsigned i = 0; step.op == Op::kMigrate && i < worlds_[0].vcpus; ++i) {
    if (!worlds_[0].SameVm(i, step.vcpu)) continue;
    if (mxcsr_left_out_[i]) mxcsr_lost_[i] = worlds_[0].vcpu[i].cpu.regs.mxcsr;
  }
}

// Whether that is what a difference in MXCSR comes from.
bool Walk::MxcsrLeftOut(uint16_t number, const cpu::Cpu& cpu) const {
  if (host_.compacted) return false;
  const program::Step& step = plan_->effective.steps[number];
  if (step.op == Op::kGetXsave || step.op == Op::kGetXsave2) {
    const StepRecords& seen = records_->Of(number);
    if (!seen.has_ioctl) return false;
    const xstate::ImageView image(seen.ioctl.subspan(sizeof(trace::IoctlRecord)));
    if ((image.xstate_bv() & kSseOrAvx) == 0) return true;
  }
  const uint32_t lost = mxcsr_lost_[step.vcpu];
  return lost != cpu::kInitialMxcsr && lost == cpu.regs.mxcsr;
}

Walk::Next Walk::Guest(const plan::Action& action, uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  const GuestFunction function = GuestFunctionOf(step.op);
  if (function == nullptr) return Next::kStop;  // raw code, which Go has seen to
  if (records_ != nullptr && !BranchHabits(step)) return GiveUp(number);
  const bool any = worlds_.Prune([&](size_t i) {
    Context c = MakeContext(worlds_[i], number);
    c.cpu.cpl = action.cpl;
    c.vcpu.has_run = true;
    c.world.xfd_before = c.cpu.xfd;
    Clear(i);
    if (ShowsPkruNotKept(c)) {
      c.cpu.regs.pkru = 0;  // or another value that allows it: judging ends behind this step
      c.cpu.unknown |= Bit(Component::kPkru);
    }
    const Outcome outcome = function(c);
    if (i == 0) outcome_ = OutcomeOf(outcome);
    return CompareGuest(c, outcome, mismatches_[i]);
  });
  NoteLaws(number, true);
  if (any && step.op == Op::kWrmsr && !BranchTiles(step)) return GiveUp(number);
  return Settle(number, any, IsHarmless(step.op));
}

// More worlds than there is room for: nothing that follows could be called wrong.
Walk::Next Walk::GiveUp(uint16_t number) {
  if (verdict_ != nullptr) verdict_->Cut("too much is possible", number, true);
  for (size_t i = 0; i < worlds_.size(); ++i) worlds_.set_blame(i, 0);
  return Next::kStop;
}

Walk::Next Walk::Vmm(uint16_t number) {
  const program::Step& step = plan_->effective.steps[number];
  failures_.fill(0);
  if (records_ != nullptr && !BranchFailures(number)) return GiveUp(number);
  const uint64_t enabled = worlds_[0].vcpu[step.vcpu].enabled_dynamic;
  const bool any = worlds_.Prune([&](size_t i) {
    Context c = MakeContext(worlds_[i], number);
    c.world.xfd_before = c.cpu.xfd;
    Clear(i);
    const bool allowed = DoVmmStep(c, changed_, failures_[i], mismatches_[i]);
    if (i == 0) outcome_ = OutcomeOfErrno(c.model_errno);
    return allowed;
  });
  NoteLaws(number, false);
  // The XSTATE_BV of a fpstate that has grown is 0, PKRU's bit too (NotePkruLeftOut).
  if (worlds_[0].vcpu[step.vcpu].enabled_dynamic != enabled) pkru_left_out_[step.vcpu] = true;
  if (any && plan::SetsMsrs(step.op) && !BranchTiles(step)) return GiveUp(number);
  return Settle(number, any, IsHarmless(step.op));
}

// KVM_GET_FPU changes nothing and is judged in three parts, each right if any world allows it. It
// decides nothing about worlds: KVM fills it from bytes that need not be the guest's. Right behind
// a KVM_SET_FPU they are the ones that it was given, whatever the guest will find of them.
Walk::Next Walk::GetFpu(uint16_t number) {
  const Next next = Vmm(number);
  if (next == Next::kStop || records_ == nullptr || !records_->Of(number).has_ioctl) return next;
  trace::IoctlRecord record;
  trace::ReadHead(records_->Of(number).ioctl, record);
  if (record.result != 0) return next;
  const uint8_t vcpu = plan_->effective.steps[number].vcpu;
  for (const FpuPart part : {FpuPart::kX87, FpuPart::kXmm, FpuPart::kMxcsr}) {
    const auto allows = [&](size_t i) {
      Context c = MakeContext(worlds_[i], number);
      Clear(i);
      return CompareFpu(c, part, mismatches_[i]);
    };
    if (fpu_given_[vcpu] && part != FpuPart::kMxcsr) {
      kvm::Vcpu& now = worlds_[0].vcpu[vcpu];
      const kvm::Vcpu kept = now;
      std::array<uint8_t, plan::kFpuSize> given;
      plan::FillFpu(plan_->effective.steps[*fpu_given_[vcpu]], given);
      now.SetFpuX87(given);
      now.SetFpuXmm(given);
      if (!allows(0)) Report(number, 0, mismatches_[0]);
      now = kept;
      continue;
    }
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

// Worlds in which a call does not keep its promise, to be blamed on it if only they are left.
bool Walk::BranchFailures(uint16_t number) {
  const unsigned all = FailuresOf(plan_->effective.steps[number].op);
  if (all == 0) return true;
  MergeWorlds();
  const size_t before = worlds_.size();
  for (size_t i = 0; i < before; ++i) {
    for (unsigned failures = 1; failures <= all; ++failures) {
      const Context c = MakeContext(worlds_[i], number);
      if ((failures & ~all) != 0 || !FailuresDiffer(c, failures)) continue;
      const size_t copy = worlds_.Branch(i);
      if (copy == worlds::Worlds<World>::kMax) return false;
      failures_[copy] = failures;
      if (worlds_.blame(copy) == 0) {
        blames_.push_back({number, failures});
        worlds_.set_blame(copy, static_cast<unsigned>(blames_.size()));
      }
    }
  }
  return true;
}

// IA32_XFD has let components go that hold something: they are as they were, or initial if the host
// has saved the state meanwhile (fpu_sync_guest_vmexit_xfd_state; SDM 13.14). What was initial when
// it was disabled still is.
bool Walk::BranchTiles(const program::Step& step) {
  const size_t before = worlds_.size();
  for (size_t i = 0; i < before; ++i) {
    const cpu::Cpu& cpu = worlds_[i].vcpu[step.vcpu].cpu;
    const uint64_t was = worlds_[i].xfd_before & kKnown, is = cpu.xfd & kKnown;
    uint64_t& held = worlds_[i].held_under_xfd[step.vcpu];
    for (uint64_t set = is & ~was; set != 0; set &= set - 1) {
      const auto c = static_cast<Component>(std::countr_zero(set));
      if (!cpu.IsInitial(c)) held |= Bit(c);
    }
    const uint64_t let_go = was & ~is & held;
    held &= is;
    for (uint64_t freed = let_go; freed != 0; freed &= freed - 1) {
      const auto c = static_cast<Component>(std::countr_zero(freed));
      if (cpu.IsInitial(c)) continue;
      const size_t copy = worlds_.Branch(i);
      if (copy == worlds::Worlds<World>::kMax) return false;
      worlds_[copy].vcpu[step.vcpu].cpu.Initialise(c);
    }
  }
  return true;
}

// What CPUs may do in two ways, and each always in one: settled by the first instruction that hangs
// on it. Whether AMX instructions heed CR0.TS (the fault alone does not always tell, for IA32_XFD
// may give the same); whether VEX reaches what XCR0 disables (which shows much later).
bool Walk::BranchHabits(const program::Step& step) {
  if (IsAmx(step.op)) {
    return BranchHabit(step, &cpu::Cpu::amx_heeds_ts,
                       [](const cpu::Cpu& cpu) { return cpu.cr0_ts && !cpu.amx_heeds_ts; });
  }
  if (!IsVexWrite(step.op)) return true;
  return BranchHabit(step, &cpu::Cpu::vex_clears_disabled_zmm,
                     [](const cpu::Cpu& cpu) { return cpu.VexReachIsOpen(); });
}

bool Walk::BranchHabit(const program::Step& step, std::optional<bool> cpu::Cpu::* habit,
                       bool (*is_open)(const cpu::Cpu&)) {
  const size_t before = worlds_.size();
  for (size_t i = 0; i < before; ++i) {
    const auto settle = [habit](World& world, bool value) {
      for (unsigned v = 0; v < world.vcpus; ++v) world.vcpu[v].cpu.*habit = value;
    };
    if (!is_open(worlds_[i].vcpu[step.vcpu].cpu)) continue;
    const size_t copy = worlds_.Branch(i);
    if (copy == worlds::Worlds<World>::kMax) return false;
    settle(worlds_[i], false);
    settle(worlds_[copy], true);
  }
  return true;
}

// What is to be said when the worlds have been asked.
Walk::Next Walk::Settle(uint16_t number, bool any, bool harmless) {
  if (!any) {
    // Against a world without blame, if there is one, for it says what was right. But one look may
    // show two failures: if what one call has lost leaves but a register that differs, both are
    // told.
    size_t nearest = worlds::Nearest(worlds_.size(), [&](size_t i) {
      const bool blamed = worlds_.blame(i) != 0;
      const uint32_t left = mismatches_[i].differing;
      return std::tuple(blamed && (left == 0 || left > 16), left, blamed);
    });
    // A call may have failed in more ways than one. Of those ways one that leaves a difference with
    // a known condition, if there is one. Against one that did not fail, only where no more than
    // the same register differs: two known faults that meet there are no third one.
    const auto has_cause = [&](size_t i) {
      return !Explain(Against(number, i), mismatches_[i], {}).cause.empty();
    };
    const auto same_register = [&](size_t i) {
      const Mismatch &one = mismatches_[i], &other = mismatches_[nearest];
      constexpr uint32_t kRegister = 16;  // bytes
      return one.place == other.place && one.window == other.window && one.differing <= kRegister;
    };
    if (records_ != nullptr && !has_cause(nearest)) {
      for (size_t i = 0; i < worlds_.size(); ++i) {
        const bool differs = worlds_.blame(i) != 0 && mismatches_[i].differing != 0;
        if (!differs || (worlds_.blame(nearest) == 0 && !same_register(i)) || !has_cause(i))
          continue;
        nearest = i;
        break;
      }
    }
    const Mismatch m = mismatches_[nearest];
    // An instruction that faults has done nothing, by whichever vector.
    const bool faulted = std::string_view(m.what) == kFault && m.relation == Relation::kWrongError;
    // What is wrong in the same way whichever way the call failed says nothing of that way.
    const auto says_nothing = [&](size_t i) {
      const Mismatch& other = mismatches_[i];
      return worlds_.blame(i) != 0 && std::string_view(other.what) == m.what &&
             other.relation == m.relation && other.expected == m.expected &&
             other.actual == m.actual;
    };
    bool open = faulted;
    for (size_t i = 0; i < worlds_.size(); ++i) open = open && says_nothing(i);
    // If every world was blamed already, that failure is what comes first.
    const unsigned blame = open ? 0 : worlds_.blame(nearest);
    if (blame != 0) NoteBlame(blames_[blame - 1]);
    Report(number, nearest, mismatches_[nearest]);
    if (blame != 0) KeepBlamed(blame);
    if (harmless || faulted) return Next::kGoOn;
    if (verdict_ != nullptr) verdict_->Cut("the divergence", number, false);
    return Next::kStop;
  }
  // As long as several ways of failing are left, what is seen later tells which it was.
  if (OneBlame()) ReportBlame();
  return Next::kGoOn;
}

// Worlds that have become the same are one, and without blame if one of them is.
void Walk::MergeWorlds() {
  if (worlds_.size() == 1) return;
  for (size_t i = 0, blameless = 0; i < worlds_.size(); ++i) {
    if (worlds_.blame(i) == 0) worlds_.Swap(i, blameless++);
  }
  std::vector<std::vector<Image>> kept;  // of world k, by vCPU
  worlds_.Prune([&](size_t i) {
    std::vector<Image> images;
    for (unsigned v = 0; v < worlds_[i].vcpus; ++v) images.push_back(ImageOf(worlds_[i].vcpu[v]));
    for (size_t k = 0; k < kept.size(); ++k) {
      if (images == kept[k] && SameBesidesImages(worlds_[k], worlds_[i])) return false;
    }
    kept.push_back(std::move(images));
    return true;
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
    return std::popcount(blames_[worlds_.blame(i) - 1].failures);
  });
  worlds_.Swap(0, least);
  ReportBlame();
}

// Only worlds in which a call has failed its promise are left: says so, and goes on in the first,
// as if that call had been meant to do what it did.
void Walk::ReportBlame() {
  const unsigned blame = worlds_.blame(0);
  KeepBlamed(blame);
  NoteBlame(blames_[blame - 1]);
}

// What is told of that call is so from here on.
void Walk::KeepBlamed(unsigned blame) {
  worlds_.Prune([&](size_t i) { return worlds_.blame(i) == blame; });
  for (size_t i = 0; i < worlds_.size(); ++i) worlds_.set_blame(i, 0);
}

void Walk::NoteBlame(const Blame& what) {
  if (verdict_ == nullptr) return;
  for (unsigned left = what.failures; left != 0; left &= left - 1) {
    const unsigned failure = left & (~left + 1);
    verdict_->Add(ExplainFailure(plan_->effective.steps[what.step], what.step, failure));
  }
}

// What is known of the step, with the mismatch against this world.
Explained Walk::Against(uint16_t number, size_t world) const {
  const program::Step& step = plan_->effective.steps[number];
  const StepRecords& seen = records_->Of(number);
  const cpu::Cpu& cpu = worlds_[world].vcpu[step.vcpu].cpu;
  const auto data = seen.ioctl.subspan(std::min(seen.ioctl.size(), sizeof(trace::IoctlRecord)));
  return {platform_,
          &step,
          number,
          &cpu,
          seen.has_journal ? seen.journal : data,
          avx_under_zmm_[step.vcpu],
          pkru_left_out_[step.vcpu],
          pkru_lost_[step.vcpu] != 0 && pkru_lost_[step.vcpu] == cpu.regs.pkru,
          MxcsrLeftOut(number, cpu),
          step.op == Op::kGetFpu && !fpu_given_[step.vcpu],
          &worlds_[world]};
}

void Walk::Report(uint16_t number, size_t world, Mismatch& m) {
  if (verdict_ == nullptr) return;
  const program::Step& step = plan_->effective.steps[number];
  const Law suspect = suspect_[step.vcpu];
  if (m.place != Place::kNone && suspect != Law::kModel && !ShowsOther(step.op)) m.law = suspect;
  Surroundings around;
  if (m.place != Place::kNone && m.relation == Relation::kOther && m.size >= 8) {
    // Where the value comes from is worth a second walk.
    if (!history_) history_ = std::make_unique<Walk>(platform_);
    history_->Assume(hypotheses_);
    history_->States(*plan_, *records_, number, step.vcpu, around);
    around.now = ImageOf(worlds_[world].vcpu[step.vcpu]);
    if (m.place == Place::kArea) {
      const unsigned slot = static_cast<unsigned>(step.arg[0]) % program::kSlotCount;
      const auto bytes = history_->worlds_[0].Slot(step.vcpu, slot).Bytes();
      around.memory.assign(bytes.begin(), bytes.end());
    }
    history_->Release();
    for (unsigned i = 0; i < worlds_[world].vcpus; ++i) {
      if (i != step.vcpu) around.others.push_back(ImageOf(worlds_[world].vcpu[i]));
    }
    for (unsigned i = 0; i < program::kImageCount && !around.others.empty(); ++i) {
      // The buffer that this very step has filled shows what is to be explained.
      const bool filled = IsFullLook(step.op) && i == step.arg[0] % program::kImageCount &&
                          program::RowOf(step).actor != program::Actor::kGuest;
      if (filled) continue;
      const auto bytes = worlds_[world].image[i].Bytes().first(host_.image_size);
      around.given.emplace_back(bytes.begin(), bytes.end());
    }
    // The present value is not an old one.
    const auto now = std::ranges::find(around.before, around.now);
    if (now != around.before.end()) {
      around.before_step.erase(around.before_step.begin() + (now - around.before.begin()));
      around.before.erase(now);
    }
    around.host = HostPatterns(*plan_, number);
  }
  const Explained what = Against(number, world);
  if (m.place == Place::kNone || m.all == nullptr || m.all->seen.empty()) {
    return verdict_->Add(Explain(what, m, around));
  }
  // What is known of one register must not hide what the next one shows.
  const Compared& all = *m.all;
  std::vector<uint8_t> left = all.seen;
  Mismatch next = m;
  do {
    Divergence d = Explain(what, next, around);
    if (keep_compared_) d.compared = {m.place, all.possible, all.seen};
    verdict_->Add(std::move(d));
    TakeAway(what, next, left);
    next.all = nullptr;
  } while (!SameBytes(all.possible, left, next, m.phase));
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
  if (step.op == Op::kMigrate) {
    for (unsigned i = 0; i < worlds_[0].vcpus; ++i) {
      if (worlds_[0].SameVm(i, step.vcpu)) suspect_[i] = Law::kRoundTrip;
    }
  }
  if (records_ == nullptr) return;
  const StepRecords& seen = records_->Of(number);
  trace::IoctlRecord result{};
  const bool called = seen.has_ioctl && trace::ReadHead(seen.ioctl, result);
  const bool failed = !called || result.result < 0;
  NotePkruLeftOut(step, failed);
  NotePkruIsBack(number, failed);
  NoteMxcsrLeftOut(step, failed);
  if (!IsHarmless(step.op)) fpu_given_.fill({});
  if (step.op == Op::kSetFpu && called && result.result == 0) fpu_given_[step.vcpu] = number;
  if (IsFullLook(step.op) && (seen.has_journal || seen.ioctl.size() > 8)) {
    suspect_[step.vcpu] = Law::kModel;
  }
  if (!Sets(step.op) || !seen.has_ioctl) return;
  trace::IoctlRecord record;
  trace::ReadHead(seen.ioctl, record);
  // A list of MSRs may have been refused in part.
  const auto msrs = static_cast<int>(plan::MsrsOf(step).count);
  if (record.result < msrs) {
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
                      (cpu.features->xsave.xcr0 | cpu.features->xsave.xss) &
                      Concerned(step, worlds_[0]);
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
                   .xcr0 = reach_xcr0_,
                   .vcpus = plan_->effective.vcpus};
  if (reach_components_ == 0) return reach_->Reach(event);
  for (uint64_t left = reach_components_; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    event.component = static_cast<uint8_t>(i);
    event.state = reach_states_[i];
    reach_->Reach(event);
  }
}

}  // namespace fpswap::judge
