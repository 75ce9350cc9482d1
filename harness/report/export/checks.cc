// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "harness/judge/context.h"
#include "harness/plan/vmm.h"
#include "harness/program/names.h"
#include "oracle/xstate/image.h"

namespace fpswap::report {
namespace {

using program::Op;
using program::Step;
using xstate::Component;

constexpr uint32_t kMxcsrHome = 24;

// Calls whose failure is told of them and shows later.
bool LosesSilently(Op op) { return judge::FailuresOf(op) != 0; }
bool LostSilently(const judge::Divergence& d) {
  return LosesSilently(static_cast<Op>(d.op)) && d.possible.empty() &&
         (d.relation == judge::Relation::kInitial || d.relation == judge::Relation::kStale);
}

// Which observations are asserted, and what of them: all, or what a divergence is about.
class Wanted {
 public:
  Wanted(const Prediction& prediction, const ExportRequest& request)
      : divergence_(request.divergence), focus_(request.focus) {
    const auto& steps = prediction.plan.effective.steps;
    later_ = steps.size();
    if (divergence_) {
      const judge::Divergence& d = *divergence_;
      // A fault of the system as a whole, or of law 6: whatever shows it.
      whole_ = d.op == 0 || d.law == judge::Law::kHealth;
      if (LostSilently(d)) later_ = d.step;
    } else if (focus_) {
      const auto call = std::ranges::find_if(
          steps, [this](const Step& s) { return LosesSilently(s.op) && IsOneOf(s.op); });
      later_ = static_cast<size_t>(call - steps.begin());
    }
  }

  bool At(size_t number, const Step& step) const {
    // A call that loses what it was given is shown by what is seen later.
    if (number >= later_) return true;
    if (divergence_) return whole_ || divergence_->step == number;
    return !focus_ || focus_->ops.empty() || IsOneOf(step.op);
  }
  // The divergence, if it is of bytes of this step.
  const judge::Divergence* Bytes(size_t number) const {
    if (!divergence_ || whole_ || divergence_->step != number) return nullptr;
    return divergence_->possible.empty() ? nullptr : &*divergence_;
  }
  // The divergence is of this step, and of something else than bytes: a fault, an errno.
  bool Other(size_t number) const {
    return divergence_ && divergence_->step == number && divergence_->possible.empty();
  }
  bool Has(const Field& field) const {
    if (!focus_) return true;
    if (!focus_->field.empty() && focus_->field != field.name) return false;
    return focus_->components == 0 || (focus_->components & Bit(field.component)) != 0;
  }
  // The bits of a bitmap of components.
  uint64_t bits() const {
    return focus_ && focus_->components != 0 ? focus_->components : ~uint64_t{0};
  }
  bool HasBitmap() const {
    return !focus_ || focus_->field.empty() || focus_->field == "XSTATE_BV";
  }

 private:
  bool IsOneOf(Op op) const { return std::ranges::find(focus_->ops, op) != focus_->ops.end(); }

  const std::optional<judge::Divergence>& divergence_;
  const std::optional<ExportFocus>& focus_;
  bool whole_ = false;
  size_t later_ = 0;  // all from this step on
};

// Whether the oracle, without what the judge supposed of the system it saw, calls the same right at
// the byte that differed (Divergence::possible begins at a multiple of 16; of kvm_fpu's XMM at 8
// more).
bool Contradicts(const judge::Divergence& d, const Foretold& told) {
  const bool fpu = static_cast<Op>(d.op) == Op::kGetFpu && d.offset >= 152;
  const size_t at = fpu ? (d.offset - 8) % 16 : d.offset % 16;
  if (at >= d.possible.size() || d.offset >= told.value.size()) return false;
  return ((told.value[d.offset] ^ d.possible[at]) & told.fixed[d.offset]) != 0;
}

bool Any(const std::vector<bool>& bytes, uint32_t at, uint32_t size) {
  for (uint32_t i = at; i < at + size && i < bytes.size(); ++i) {
    if (bytes[i]) return true;
  }
  return false;
}

// The check of a bitmap of components: bits that must be set, and those that the divergence is of.
std::optional<Check> BitmapCheck(const Field& field, const Foretold& bytes, uint64_t more,
                                 const Wanted& wanted) {
  if (!wanted.HasBitmap()) return {};
  const auto value = xstate::ReadAt<uint64_t>(bytes.value, field.offset);
  const uint64_t fixed = xstate::ReadAt<uint64_t>(bytes.fixed, field.offset);
  const uint64_t mask = fixed & (value | more) & wanted.bits();
  if (mask == 0) return {};
  Check check{field, std::vector<uint8_t>(8), std::vector<uint8_t>(8)};
  const uint64_t expected = value & mask;
  std::memcpy(check.expected.data(), &expected, 8);
  std::memcpy(check.mask.data(), &mask, 8);
  return check;
}

// Whether a difference at byte `at` of what was compared lies in this field.
bool Covers(const Field& f, const judge::Divergence* d) {
  return d != nullptr && d->offset >= f.offset && d->offset < f.offset + f.size;
}

std::vector<Check> FieldChecks(const std::vector<Field>& fields, const Foretold& bytes,
                               const ForetoldStep& step, const judge::Divergence* d, Seen seen,
                               const Wanted& wanted) {
  std::vector<Check> checks;
  for (const Field& f : fields) {
    const bool here = Covers(f, d);
    // The pointers of x87 say where the code lies, which is the test's own affair.
    if (!here && (f.name.starts_with("FIP") || f.name.starts_with("FDP"))) continue;
    if (f.name == "XSTATE_BV") {
      if (d != nullptr && !here) continue;
      if (auto check = BitmapCheck(f, bytes, here ? d->bits : 0, wanted)) checks.push_back(*check);
      continue;
    }
    if (d != nullptr && !here && (!d->has_component || d->component != f.component)) continue;
    if (!wanted.Has(f)) continue;
    const bool area = seen == Seen::kArea || seen == Seen::kFxArea;
    const bool always = seen == Seen::kFpu && f.home == kMxcsrHome;
    if (!here && !always && !Any(step.touched, f.home, f.size) &&
        !(area && Any(step.written, f.offset, f.size))) {
      continue;
    }
    if (!bytes.IsFixed(f.offset, f.size)) continue;
    const auto at = bytes.value.begin() + f.offset;
    checks.push_back({f, {at, at + f.size}, std::vector<uint8_t>(f.size, 0xff)});
  }
  return checks;
}

// What an instruction stored, as one field.
std::vector<Check> StoredChecks(const Step& step, const Foretold& bytes, const judge::Divergence* d,
                                const Wanted& wanted) {
  const auto size = static_cast<uint32_t>(bytes.value.size());
  if (size == 0) return {};
  Field field{StoredName(step), 0, 0, size, size <= 8, false, Component::kX87, 0};
  if (step.op == Op::kXgetbv && step.arg[0] == 1) {
    if (auto check = BitmapCheck(field, bytes, d != nullptr ? d->bits : 0, wanted)) return {*check};
    return {};
  }
  if (!bytes.IsFixed(0, size)) return {};
  return {{field, bytes.value, std::vector<uint8_t>(size, 0xff)}};
}

// Whether the slot of step `number` has been written in more than one way up to then: by a save of
// the other format, or at an offset that the program names. What a save leaves as it was is another
// piece of it where CPUID places components otherwise.
bool IsMixed(const std::vector<Step>& steps, size_t number) {
  const auto compacts = [](Op op) { return op == Op::kXsavec || op == Op::kXsaves; };
  const Step& save = steps[number];
  return std::any_of(steps.begin(), steps.begin() + static_cast<ptrdiff_t>(number),
                     [&](const Step& s) {
                       if (s.arg[0] != save.arg[0]) return false;
                       if (s.op == Op::kMemWrite) return s.arg[1] + 8 > xstate::kExtendedOffset;
                       if (s.op == Op::kMemFill)
                         return s.arg[1] + s.arg[2] > xstate::kExtendedOffset;
                       if (SeenAt(s) != Seen::kArea) return false;
                       return compacts(s.op) != compacts(save.op);
                     });
}

// Whether the save writes this component of an area: XSAVE what it is asked for, the others that
// only if it is in use.
bool Writes(const Step& save, Component c, const Foretold& area) {
  if ((save.arg[2] & Bit(c)) == 0) return false;
  if (save.op == Op::kXsave) return true;
  const size_t at = save.arg[1] + xstate::kHeaderOffset;
  return (xstate::ReadAt<uint64_t>(area.value, at) & xstate::ReadAt<uint64_t>(area.fixed, at) &
          Bit(c)) != 0;
}

std::vector<Check> ValueChecks(const Prediction& p, size_t number, const Wanted& wanted) {
  const judge::Divergence* d = wanted.Bytes(number);
  const Step& step = p.plan.effective.steps[number];
  const ForetoldStep& told = p.steps[number];
  const auto& cpuid = p.platform.guest.xsave;
  const Seen seen = SeenAt(step);
  switch (seen) {
    case Seen::kNothing:
      return {};
    case Seen::kValue:
      return StoredChecks(step, told.journal, d, wanted);
    case Seen::kArea: {
      // Offsets are counted from the slot's base, which the journal shows.
      const auto at = static_cast<uint32_t>(step.arg[1]);
      const uint64_t components = p.components | p.supervisor;
      const auto xcomp_bv = xstate::ReadAt<uint64_t>(told.journal.value, at + 520);
      // XSAVE and XSAVEOPT leave the XCOMP_BV of an area that was compacted before as it is.
      const bool compacted = step.op == Op::kXsavec || step.op == Op::kXsaves;
      auto fields = compacted && (xcomp_bv & xstate::kXcompBvCompacted) != 0
                        ? CompactedFields(cpuid, components, xcomp_bv)
                        : StandardFields(cpuid, p.components);
      if (IsMixed(p.plan.effective.steps, number)) {
        std::erase_if(fields, [&](const Field& f) {
          return f.extended && !Writes(step, f.component, told.journal);
        });
      }
      for (Field& f : fields) f.offset += at;
      return FieldChecks(fields, told.journal, told, d, seen, wanted);
    }
    case Seen::kFxArea: {
      auto fields = StandardFields(cpuid, 0);
      std::erase_if(fields, [](const Field& f) { return f.home >= xstate::kHeaderOffset; });
      return FieldChecks(fields, told.journal, told, d, seen, wanted);
    }
    case Seen::kImage:
      return FieldChecks(StandardFields(p.platform.host.xsave, p.components), told.data, told, d,
                         seen, wanted);
    case Seen::kFpu:
      return FieldChecks(FpuFields(), told.data, told, d, seen, wanted);
    case Seen::kXcrs: {
      const Field xcr0{"XCR0", 16, 0, 8, true, false, Component::kX87, 0};
      if (!told.data.IsFixed(16, 8)) return {};
      const auto at = told.data.value.begin() + 16;
      return {{xcr0, {at, at + 8}, std::vector<uint8_t>(8, 0xff)}};
    }
    case Seen::kMsr: {
      std::vector<Check> checks;
      const plan::MsrList list = plan::MsrsOf(step);
      for (uint32_t i = 0; i < list.count && static_cast<int>(i) < told.result; ++i) {
        if (!told.data.IsFixed(8 * i, 8)) continue;
        const auto name = program::kMsrNames[static_cast<size_t>(list.entry[i].msr)];
        const auto at = told.data.value.begin() + 8 * i;
        checks.push_back({{std::string(name), 8 * i, 0, 8, true, false, Component::kX87, 0},
                          {at, at + 8},
                          std::vector<uint8_t>(8, 0xff)});
      }
      return checks;
    }
  }
  return {};
}

// Nothing has a value to expect: then that the last instruction must not fault.
void AssertCompletion(const Prediction& p, std::vector<StepChecks>& all) {
  for (size_t i = p.known_until; i-- > 0;) {
    const program::StepRow& row = program::RowOf(p.plan.effective.steps[i]);
    const bool exits = row.op >= Op::kExitOut && row.op <= Op::kExitPageFault;
    const bool memory = row.op >= Op::kMemWrite && row.op <= Op::kMemHeader;
    const bool control = row.op == Op::kCr0Ts || row.op == Op::kCr4Bit;
    if (row.actor != program::Actor::kGuest || exits || memory || control) continue;
    if (p.steps[i].seen != 0 || row.journal == program::Journal::kNone) {
      all[i].fault = p.steps[i].faults == 0;
      return;
    }
  }
}

}  // namespace

bool ShowsAtItsStep(const judge::Divergence& d) {
  if (d.op == 0 || d.law == judge::Law::kHealth) return false;
  return !LostSilently(d);
}

Seen SeenAt(const Step& step) {
  switch (step.op) {
    case Op::kXsave:
    case Op::kXsavec:
    case Op::kXsaveopt:
    case Op::kXsaves:
      return Seen::kArea;
    case Op::kFxsave:
      return Seen::kFxArea;
    case Op::kGetXsave:
    case Op::kGetXsave2:
    case Op::kOsGetRegset:
      return Seen::kImage;
    case Op::kGetFpu:
      return Seen::kFpu;
    case Op::kGetXcrs:
      return Seen::kXcrs;
    case Op::kGetMsr:
    case Op::kGetMsrList:
      return Seen::kMsr;
    default:
      return program::RowOf(step).journal == program::Journal::kBytes ? Seen::kValue
                                                                      : Seen::kNothing;
  }
}

std::string StoredName(const Step& step) {
  switch (step.op) {
    case Op::kFstpTbyte:
      return "ST0";
    case Op::kFnstcw:
      return "FCW";
    case Op::kFnstsw:
      return "FSW";
    case Op::kMmxStore:
      return fmt::format("MM{}", step.arg[0]);
    case Op::kSseStore:
      return fmt::format("XMM{}", step.arg[0]);
    case Op::kStmxcsr:
      return "MXCSR";
    case Op::kVexStore256:
      return fmt::format("YMM{}", step.arg[0]);
    case Op::kEvexStore512:
      return fmt::format("ZMM{}", step.arg[0]);
    case Op::kKmovStore:
      return fmt::format("K{}", step.arg[0]);
    case Op::kBndmovStore:
      return fmt::format("BND{}", step.arg[0]);
    case Op::kRdpkru:
      return "PKRU";
    case Op::kXgetbv:
      return step.arg[0] == 1 ? "XINUSE" : "XCR0";
    case Op::kRdmsr:
      return std::string(program::kMsrNames[step.arg[0]]);
    case Op::kSttilecfg:
      return "TILECFG";
    case Op::kTilestored:
      return fmt::format("TMM{}", step.arg[0]);
    case Op::kExitMmioRead:
      return "MMIO";
    case Op::kExitCpuid:
      return "CPUID";
    default:
      return "";
  }
}

std::vector<StepChecks> ChooseChecks(const Prediction& p, const ExportRequest& request) {
  std::vector<StepChecks> all(p.steps.size());
  const Wanted wanted(p, request);
  for (size_t i = 0; i < p.known_until && i < p.steps.size(); ++i) {
    const ForetoldStep& told = p.steps[i];
    const Step& step = p.plan.effective.steps[i];
    StepChecks& checks = all[i];
    // Unasserted faults must still be survived: the guest's code says so (told.faults).
    if (!wanted.At(i, step)) continue;
    const bool faults = told.faults == p.runs && told.one_vector;
    const bool guest = program::RowOf(step).actor == program::Actor::kGuest;
    if (guest && (faults || (told.faults == 0 && wanted.Other(i)))) checks.fault = true;
    if (told.faults == 0) checks.values = ValueChecks(p, i, wanted);
    // What would not show the divergence is no test of it.
    if (const judge::Divergence* d = wanted.Bytes(i)) {
      const auto shows = [d](const Check& check) { return Covers(check.field, d); };
      const Foretold& bytes = guest ? told.journal : told.data;
      if (std::ranges::none_of(checks.values, shows) || Contradicts(*d, bytes)) {
        checks.values.clear();
      }
    }
    checks.exits = guest && told.exits != 0 && told.faults == 0;
    const bool refusal = told.result < 0 || (plan::SetsMsrs(step.op) && told.result == 0);
    checks.result = !guest && told.one_result && told.error != EINTR &&
                    (refusal || (wanted.Other(i) && !(wanted.Bytes(i) != nullptr)));
    // Calls that the library checks by itself need no check of ours.
    if ((wanted.Bytes(i) != nullptr)) checks.result = checks.fault = false;
  }
  // A value that is the same everywhere is asserted as such.
  for (const ShownAndStored& a : p.agreements) {
    const judge::Divergence* d = wanted.Bytes(a.shown);
    if (!wanted.At(a.shown, p.plan.effective.steps[a.shown]) || !wanted.Has(a.field)) continue;
    if (p.steps[a.shown].data.IsFixed(a.field.offset, a.field.size)) continue;
    if (d == nullptr || Covers(a.field, d)) all[a.stored].shown.push_back(a);
  }
  const bool none = std::ranges::all_of(all, &StepChecks::empty);
  if (none && !request.divergence) AssertCompletion(p, all);
  return all;
}

}  // namespace fpswap::report
