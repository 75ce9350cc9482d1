// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/predict.h"

#include <algorithm>
#include <cstring>

#include "harness/judge/context.h"
#include "harness/judge/explain.h"
#include "harness/judge/simulator.h"
#include "harness/plan/vmm.h"
#include "harness/report/export/checks.h"
#include "oracle/xstate/image.h"

namespace fpswap::report {
namespace {

using program::Needs;
using program::Op;
using program::Step;
using xstate::Bit;
using xstate::Component;

constexpr unsigned kRunsOfEach = 24;
constexpr uint64_t kKnown = (uint64_t{1} << xstate::kComponentCount) - 1;

uint64_t ComponentsOf(Needs needs) {
  constexpr uint64_t kAvx = Bit(Component::kAvx);
  switch (needs) {
    case Needs::kAvx:
    case Needs::kAvx2:
      return kAvx;
    case Needs::kAvx512f:
    case Needs::kAvx512vl:
    case Needs::kAvx512bw:
      return kAvx | xstate::kAvx512;
    case Needs::kMpx:
      return xstate::kMpx;
    case Needs::kPku:
      return Bit(Component::kPkru);
    case Needs::kAmxTile:
    case Needs::kAmxInt8:
      return xstate::kAmx;
    default:
      return 0;
  }
}

// The components whose bytes a piece of a standard-format image is.
uint64_t ComponentsAt(const xstate::XsaveCpuid& cpuid, uint64_t at, uint64_t size) {
  uint64_t mask = 0;
  xstate::ForEachStandard(cpuid, cpuid.xcr0, [&](Component c, uint64_t offset, uint64_t bytes) {
    if (at < offset + bytes && offset < at + size) mask |= Bit(c);
  });
  return mask;
}

bool IsOfXfd(program::Msr msr) { return msr == program::Msr::kXfd || msr == program::Msr::kXfdErr; }

// The components that a step names: by what it is, by its masks, by where in an image it writes.
// "All" names none.
uint64_t Named(const Step& step, const xstate::XsaveCpuid& cpuid) {
  const program::StepRow& row = program::RowOf(step);
  uint64_t mask = ComponentsOf(row.needs);
  for (unsigned i = 0; i < program::kArgCount; ++i) {
    if (row.args[i].kind == program::ArgKind::kMask && step.arg[i] != ~uint64_t{0}) {
      mask |= step.arg[i];
    }
  }
  switch (step.op) {
    case Op::kRdmsr:
    case Op::kWrmsr:
      if (IsOfXfd(static_cast<program::Msr>(step.arg[0]))) mask |= xstate::kAmx;
      break;
    case Op::kGetMsr:
    case Op::kSetMsr:
    case Op::kGetMsrList:
    case Op::kSetMsrList: {
      const plan::MsrList msrs = plan::MsrsOf(step);
      for (const plan::MsrEntry& entry : msrs.Entries()) {
        if (IsOfXfd(entry.msr)) mask |= xstate::kAmx;
      }
      break;
    }
    case Op::kImageWrite:
      mask |= ComponentsAt(cpuid, step.arg[1], 8);
      if (step.arg[1] == xstate::kHeaderOffset) mask |= step.arg[2];
      break;
    case Op::kImageFill:
      mask |= ComponentsAt(cpuid, step.arg[1], step.arg[2]);
      break;
    case Op::kMemWrite:
      if (step.arg[1] == xstate::kHeaderOffset) mask |= step.arg[2];
      break;
    default:
      break;
  }
  return mask & kKnown;
}

// Components come in groups: XSETBV takes all of one or none.
uint64_t WithGroups(uint64_t mask) {
  if ((mask & xstate::kAvx512) != 0) mask |= xstate::kAvx512 | Bit(Component::kAvx);
  for (const uint64_t group : {xstate::kMpx, xstate::kAmx}) {
    if ((mask & group) != 0) mask |= group;
  }
  return mask | xstate::kX87Sse;
}

// `all` less what is not in `components`.
trace::Platform Machine(const trace::Platform& all, ExportFormat format, uint64_t components,
                        uint64_t supervisor) {
  trace::Platform p = all;
  p.target = format == ExportFormat::kThread ? "native" : "kvm";
  p.guest_fixed = false;
  p.xcr0_loaded = true;
  p.can.set();
  p.cannot.clear();
  for (cpu::Features* f : {&p.host, &p.guest}) {
    auto sub = f->xsave.sub;
    *f = judge::LimitFeatures(*f, components);
    f->xsave.sub = sub;  // the layout stays
    f->xsave.xss &= supervisor;
    // What an instruction needs, the test requires.
    f->xsave.xsaveopt = f->xsave.xsavec = f->xsave.xgetbv1 = f->xsave.xsaves = true;
    f->xsave.xfd = (components & xstate::kAmx) != 0;
  }
  p.host_xcr0 = p.guest_supp = p.guest_perm = p.guest.xsave.xcr0;
  p.xsave_size = std::max(4096u, p.host.xsave.max_size);
  p.vcpus = program::kMaxVcpus;
  return p;
}

// What differs from machine to machine and from run to run.
struct Variant {
  bool amd, fcs_fds_zero, xsave_err_ptr, compacted, everything;
};
constexpr Variant kVariants[] = {
    {false, false, true, true, false}, {false, true, true, true, true},
    {true, false, true, true, false},  {true, false, false, false, true},
    {false, false, true, false, true},
};

void Meet(Foretold& f, std::span<const uint8_t> seen, bool first) {
  if (first) {
    f.value.assign(seen.begin(), seen.end());
    f.fixed.assign(seen.size(), 0xff);
    return;
  }
  // An area or an image is as long as the machine's components make it.
  const size_t size = std::min(f.value.size(), seen.size());
  f.value.resize(size);
  f.fixed.resize(size);
  for (size_t i = 0; i < size; ++i) f.fixed[i] &= static_cast<uint8_t>(~(f.value[i] ^ seen[i]));
}

void MeetStep(const judge::StepRecords& seen, ForetoldStep& step) {
  if (!seen.Any()) return;
  const bool first = step.seen++ == 0;
  if (seen.has_fault) {
    trace::FaultRecord fault{};
    trace::ReadHead(seen.fault, fault);
    if (step.faults++ != 0 && fault.vector != step.vector) step.one_vector = false;
    step.vector = fault.vector;
    step.pkru_fault |= fault.vector == cpu::kPF && (fault.error_code & judge::kPfPk) != 0;
  }
  step.exits = seen.exits;
  for (unsigned i = 0; i < std::min<unsigned>(seen.exits, 2); ++i) {
    trace::ExitRecord exit{};
    trace::ReadHead(seen.exit[i], exit);
    Meet(step.exit_data[i], {reinterpret_cast<const uint8_t*>(&exit.data), sizeof(exit.data)},
         first);
    step.exit_where[i] = exit.where;
    step.exit_size[i] = exit.size;
  }
  if (seen.has_journal) Meet(step.journal, seen.journal, step.seen - step.faults == 1);
  if (!seen.has_ioctl) return;
  trace::IoctlRecord returned{};
  trace::ReadHead(seen.ioctl, returned);
  if (!first && (returned.result != step.result || returned.error != step.error)) {
    step.one_result = false;
  }
  step.result = returned.result;
  step.error = returned.error;
  Meet(step.data, seen.ioctl.subspan(sizeof(returned)), first);
}

// Which bytes are, or may be left over from what was, no longer initial.
void Touch(std::span<const uint8_t> image, std::vector<bool>& touched) {
  for (size_t i = 0; i < std::min(image.size(), touched.size()); ++i) {
    const bool initial = i == 0    ? image[i] == 0x7f
                         : i == 1  ? image[i] == 3
                         : i == 24 ? image[i] == 0x80
                         : i == 25 ? image[i] == 0x1f
                                   : image[i] == 0;
    if (!initial) touched[i] = true;
  }
}

void TouchSlot(std::span<const uint8_t> slot, std::vector<bool>& written) {
  for (size_t i = 0; i < std::min(slot.size(), written.size()); ++i) {
    if (slot[i] != 0) written[i] = true;
  }
}

bool GivesImage(Op op) { return op == Op::kSetXsave || op == Op::kOsSetRegset; }

// Whether `later` puts something else where `shown` left what it gave.
bool Overwrites(const Step& later, const Step& shown) {
  if (SeenAt(shown) == Seen::kFpu) return later.op == Op::kGetFpu;
  const program::StepRow& row = program::RowOf(later);
  return !GivesImage(later.op) && row.args[0].kind == program::ArgKind::kImage &&
         later.arg[0] == shown.arg[0];
}

// What a call shows and the guest stores: by the register's name, its next store alone.
std::vector<ShownAndStored> MayAgree(const std::vector<Step>& steps, const Prediction& p) {
  std::vector<ShownAndStored> agreements;
  for (size_t shown = 0; shown < steps.size(); ++shown) {
    const Seen seen = SeenAt(steps[shown]);
    if (seen != Seen::kImage && seen != Seen::kFpu) continue;
    auto fields =
        seen == Seen::kFpu ? FpuFields() : StandardFields(p.platform.host.xsave, p.components);
    for (size_t i = shown + 1; i < steps.size(); ++i) {
      if (Overwrites(steps[i], steps[shown])) break;
      if (SeenAt(steps[i]) != Seen::kValue || steps[i].vcpu != steps[shown].vcpu) continue;
      const auto field = std::ranges::find(fields, StoredName(steps[i]), &Field::name);
      if (field == fields.end()) continue;
      agreements.push_back({shown, i, *field});
      fields.erase(field);
    }
  }
  return agreements;
}

void MeetAgreement(const judge::SortedRecords& records, ShownAndStored& a) {
  const auto& call = records.Of(static_cast<unsigned>(a.shown));
  const auto& store = records.Of(static_cast<unsigned>(a.stored));
  const size_t at = sizeof(trace::IoctlRecord) + a.field.offset;
  a.always = a.always && call.has_ioctl && store.has_journal && !store.has_fault &&
             store.journal.size() == a.field.size && call.ioctl.size() >= at + a.field.size &&
             std::ranges::equal(store.journal, call.ioctl.subspan(at, a.field.size));
}

}  // namespace

bool Foretold::IsFixed(size_t at, size_t size) const {
  if (at + size > fixed.size()) return false;
  return std::all_of(fixed.begin() + static_cast<ptrdiff_t>(at),
                     fixed.begin() + static_cast<ptrdiff_t>(at + size),
                     [](uint8_t b) { return b == 0xff; });
}

Prediction Predict(const program::Program& given, const trace::Platform& platform,
                   ExportFormat format) {
  Prediction p;
  program::Program program = given;
  // A thread's XCR0 is the kernel's.
  const bool thread = format == ExportFormat::kThread;
  const auto& layout = platform.host.xsave;
  uint64_t named = 0;
  for (const Step& step : program.steps) named |= Named(step, layout);
  const bool own_xcr0 = !thread && program.xcr0 != program::kAllFeatures;
  if (own_xcr0) named |= program.xcr0;
  const uint64_t has = platform.guest.xsave.xcr0;
  p.components = WithGroups(named & has);
  p.supervisor = thread ? 0 : named & platform.guest.xsave.xss;
  p.absent = named & ~has & program::kAllFeatures;
  // Where the program tells the vCPU its CPUID, what it began with counts; else it has what it
  // needs.
  const bool tells =
      std::ranges::find(program.steps, Op::kSetCpuid, &Step::op) != program.steps.end();
  program.features = tells ? given.features & p.components : program::kAllFeatures;
  if (!own_xcr0) program.xcr0 = p.components;
  program.xcr0 &= p.components & program.features;

  // Raw code ends what can be known.
  const auto raw = std::ranges::find(program.steps, Op::kRaw, &Step::op);
  p.known_until = static_cast<size_t>(raw - program.steps.begin());

  p.platform = Machine(platform, format, p.components, p.supervisor);
  p.plan = plan::MakePlan(program, p.platform);
  p.steps.resize(program.steps.size());
  program.steps.resize(p.known_until);

  p.agreements = MayAgree(program.steps, p);

  program::Rng rng(1);
  std::vector<bool> touched(xstate::kMaxAreaSize), written(plan::kSlotSize);
  bool first = true;
  for (const Variant& v : kVariants) {
    // Tiles are a guest's only where the VMM has asked for them.
    const uint64_t others = (p.components & xstate::kAmx) != 0 ? 0 : xstate::kAmx;
    trace::Platform machine =
        Machine(platform, format, v.everything ? ~(p.absent | others) : p.components, p.supervisor);
    for (cpu::Features* f : {&machine.host, &machine.guest}) {
      f->amd = v.amd;
      f->fcs_fds_zero = v.fcs_fds_zero;
      f->xsave_err_ptr = v.xsave_err_ptr;
    }
    machine.compacted = v.compacted;
    judge::Simulator simulator(machine);
    plan::Plan plan = plan::MakePlan(program, machine);
    if (plan.effective.steps.size() != program.steps.size()) continue;
    if (format == ExportFormat::kSelftest) {
      for (plan::Action& action : plan.actions) action.cpl = 0;
    }
    simulator.after_step = [&](uint16_t number, const judge::World& world) {
      if (!first) return;
      const Step& step = program.steps[number];
      p.steps[number].touched = touched;
      p.steps[number].written = written;
      for (const auto& vm : world.slot) {
        for (const auto& slot : vm) TouchSlot(slot.Bytes(), written);
      }
      for (unsigned i = 0; i < world.vcpus; ++i) Touch(judge::ImageOf(world.vcpu[i]), touched);
      if (GivesImage(step.op)) {
        Touch(world.image[step.arg[0] % program::kImageCount].Bytes(), touched);
      }
    };
    for (unsigned run = 0; run < kRunsOfEach; ++run) {
      for (plan::CodeRow& row : plan.rows)
        row.instruction = static_cast<uint32_t>(rng.Below(0x8000));
      const std::vector<uint8_t> records = simulator.Run(plan, rng);
      judge::SortedRecords sorted;
      sorted.Sort(plan, records);
      for (size_t i = 0; i < program.steps.size(); ++i) {
        MeetStep(sorted.Of(static_cast<unsigned>(i)), p.steps[i]);
      }
      for (ShownAndStored& a : p.agreements) MeetAgreement(sorted, a);
      first = false;
      ++p.runs;
    }
  }
  std::erase_if(p.agreements, [](const ShownAndStored& a) { return !a.always; });
  return p;
}

}  // namespace fpswap::report
