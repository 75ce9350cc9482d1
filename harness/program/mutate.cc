// SPDX-License-Identifier: GPL-2.0-or-later
//
// Mutation: a table of small changes, one to four of which are applied; and crossover.
#include <algorithm>

#include "harness/program/arg.h"
#include "harness/program/builder.h"
#include "harness/program/generate.h"
#include "harness/program/header.h"
#include "harness/program/idioms.h"

namespace fpswap::program {
namespace {

// What a mutation works on.
struct Context {
  Program& p;
  Rng& rng;
  const Profile& profile;
  const Palette& palette;

  // A place to insert before: 0 to the number of steps.
  size_t Gap() const { return rng.Below(p.steps.size() + 1); }
  Step& AnyStep() const { return p.steps[rng.Below(p.steps.size())]; }
  Builder BuilderAt(size_t gap) const {
    Builder b(rng, profile, palette, p, std::span(p.steps).first(gap));
    if (p.vcpus > 1) b.OnAnyVcpu();
    return b;
  }
  void Insert(size_t gap, std::span<const Step> steps) const {
    p.steps.insert(p.steps.begin() + gap, steps.begin(), steps.end());
  }
};

// A run of 1 to 8 steps, short ones more often. Empty only in an empty program.
struct Range {
  size_t begin = 0, size = 0;
};
Range AnyRange(const Context& c) {
  const size_t count = c.p.steps.size();
  if (count == 0) return {};
  const size_t begin = c.rng.Below(count);
  const size_t size = 1 + c.rng.Below(1 + c.rng.Below(8));
  return {begin, std::min(size, count - begin)};
}
std::vector<Step> Copy(const Context& c, Range range) {
  const auto begin = c.p.steps.begin() + range.begin;
  return {begin, begin + range.size};
}
void Erase(const Context& c, Range range) {
  const auto begin = c.p.steps.begin() + range.begin;
  c.p.steps.erase(begin, begin + range.size);
}

void InsertStep(const Context& c) {
  const size_t gap = c.Gap();
  Builder b = c.BuilderAt(gap);
  b.AddAny();
  c.Insert(gap, b.steps());
}

void InsertIdiom(const Context& c) {
  const size_t gap = c.Gap();
  Builder b = c.BuilderAt(gap);
  if (!AddIdiom(b)) b.AddAny();
  c.Insert(gap, b.steps());
}

// What most often makes a difference: something that swaps the state, in the middle.
void InsertSwap(const Context& c) {
  const size_t gap = c.Gap();
  Builder b = c.BuilderAt(gap);
  c.rng.OneIn(2) ? b.Exit() : b.Disturb();
  c.Insert(gap, b.steps());
}

void DeleteSteps(const Context& c) { Erase(c, AnyRange(c)); }

// Looks less: drops one step that only observes.
void DeleteLook(const Context& c) {
  const auto looks = [](const Step& step) {
    return RowOf(step).journal != Journal::kNone || step.op == Op::kGetXsave ||
           step.op == Op::kGetXsave2 || step.op == Op::kOsGetRegset || step.op == Op::kOsSigframe;
  };
  const auto count = static_cast<uint64_t>(std::ranges::count_if(c.p.steps, looks));
  uint64_t left = c.rng.Below(count);
  for (auto it = c.p.steps.begin(); it != c.p.steps.end(); ++it) {
    if (looks(*it) && left-- == 0) {
      c.p.steps.erase(it);
      return;
    }
  }
}

void DuplicateSteps(const Context& c) {
  const std::vector<Step> copy = Copy(c, AnyRange(c));
  c.Insert(c.Gap(), copy);
}

void MoveSteps(const Context& c) {
  const Range range = AnyRange(c);
  const std::vector<Step> copy = Copy(c, range);
  Erase(c, range);
  c.Insert(c.Gap(), copy);
}

void SwapSteps(const Context& c) {
  if (c.p.steps.empty()) return;
  Step& step = c.AnyStep();
  std::swap(step, c.AnyStep());
}

void ReplaceStep(const Context& c) {
  if (c.p.steps.empty()) return InsertStep(c);
  Builder b = c.BuilderAt(0);
  if (!b.AddAny()) return;
  Step& step = c.AnyStep();
  const uint8_t vcpu = step.vcpu;
  step = b.steps().front();
  step.vcpu = vcpu;
}

bool SameShape(const StepRow& a, const StepRow& b) {
  for (unsigned i = 0; i < kArgCount; ++i) {
    if (a.args[i].kind != b.args[i].kind) return false;
  }
  return ArgCount(a) != 0;
}

// Another instruction with the same arguments: XSAVEC for XSAVE, GET_XSAVE2 for GET_XSAVE.
void ChangeOp(const Context& c) {
  if (c.p.steps.empty()) return;
  Step& step = c.AnyStep();
  const StepRow& row = RowOf(step);
  const auto fits = [&](const StepRow& other) {
    return other.op != row.op && c.palette.Has(other.op) && SameShape(row, other);
  };
  uint64_t left = c.rng.Below(static_cast<uint64_t>(std::ranges::count_if(StepTable(), fits)));
  for (const StepRow& other : StepTable()) {
    if (fits(other) && left-- == 0) {
      step.op = other.op;
      return;
    }
  }
}

void ChangeRaw(Step& step, Rng& rng) {
  if (rng.OneIn(4)) step.arg[0] = 1 + rng.Below(kMaxRaw);  // what is cut off, MakeValid clears
  const auto at = static_cast<unsigned>(rng.Below(step.arg[0]));
  SetRawByte(step, at, static_cast<uint8_t>(rng.Next()));
}

// One argument: a neighbour, one bit, anything, an end of the range, or a likely value.
void ChangeArg(const Context& c) {
  if (c.p.steps.empty()) return;
  Step& step = c.AnyStep();
  const StepRow& row = RowOf(step);
  const unsigned count = ArgCount(row);
  if (count == 0) return;
  if (step.op == Op::kRaw) return ChangeRaw(step, c.rng);
  const auto i = static_cast<unsigned>(c.rng.Below(count));
  const KindRow& kind = RowOf(row.args[i].kind);
  uint64_t& value = step.arg[i];
  switch (c.rng.Below(6)) {
    case 0:
      value += c.rng.OneIn(2) ? uint64_t{1} : ~uint64_t{0};
      break;
    case 1:
      value ^= uint64_t{1} << c.rng.Below(8 * kind.bytes);
      break;
    case 2:
      value = c.rng.Next();
      break;
    case 3:
      value = c.rng.OneIn(2) ? kind.min : kind.max;
      break;
    default:
      value = Draw(c.rng, c.profile).Arg(row, i);
  }
  value = Wrap(kind.kind, value);
}

// All uses of one slot or image become another's: what belongs together stays so.
void RenamePlace(const Context& c) {
  const ArgKind kind = c.rng.OneIn(2) ? ArgKind::kSlot : ArgKind::kImage;
  const uint64_t from = c.rng.Below(kSlotCount), to = c.rng.Below(kSlotCount);
  const size_t first = c.rng.OneIn(2) ? 0 : c.Gap();
  static_assert(kSlotCount == kImageCount);
  for (size_t n = first; n < c.p.steps.size(); ++n) {
    Step& step = c.p.steps[n];
    if (RowOf(step).args[0].kind == kind && step.arg[0] == from) step.arg[0] = to;
  }
}

void ChangeHeader(const Context& c) {
  Program drawn;
  DrawHeader(drawn, c.rng, c.profile);
  switch (c.rng.Below(4)) {
    case 0:
      c.p.features = drawn.features;
      c.p.xcr0 = drawn.xcr0;
      break;
    case 1:
      c.p.xcr0 = drawn.xcr0;
      break;
    case 2:
      c.p.xcr0 = c.p.features;
      break;
    default:
      c.p.pke = !c.p.pke;
  }
}

// Other steps for one of the vCPUs, another number of them, or another place for them.
void ChangeVcpu(const Context& c) {
  if (c.profile.vcpus == 1 || c.p.steps.empty()) return ChangeArg(c);
  if (c.p.vcpus == 1 || c.rng.OneIn(4)) {
    c.p.vcpus = static_cast<uint8_t>(1 + c.rng.Below(c.profile.vcpus));
    if (c.p.vcpus == 1) c.p.own_vm = c.p.own_thread = false;
  }
  if (c.p.vcpus > 1 && c.rng.OneIn(4)) {
    bool& placement = c.rng.OneIn(2) ? c.p.own_vm : c.p.own_thread;
    placement = !placement;
  }
  const auto vcpu = static_cast<uint8_t>(c.rng.Below(c.p.vcpus));
  const Range range = AnyRange(c);
  for (size_t n = 0; n < range.size; ++n) c.p.steps[range.begin + n].vcpu = vcpu;
}

void Cut(const Context& c) { c.p.steps.resize(c.rng.Below(c.p.steps.size() + 1)); }

struct Mutation {
  uint8_t weight;
  void (*run)(const Context&);
};
constexpr Mutation kMutations[] = {
    {16, InsertStep},    {14, InsertIdiom}, {14, InsertSwap},  {16, DeleteSteps}, {4, DeleteLook},
    {8, DuplicateSteps}, {8, MoveSteps},    {6, SwapSteps},    {8, ReplaceStep},  {10, ChangeOp},
    {34, ChangeArg},     {6, RenamePlace},  {5, ChangeHeader}, {4, ChangeVcpu},   {1, Cut},
};
constexpr uint64_t kTotalWeight = [] {
  uint64_t total = 0;
  for (const Mutation& m : kMutations) total += m.weight;
  return total;
}();

void MutateOnce(const Context& c) {
  uint64_t left = c.rng.Below(kTotalWeight);
  for (const Mutation& m : kMutations) {
    if (left < m.weight) return m.run(c);
    left -= m.weight;
  }
}

}  // namespace

void Mutate(Program& p, Rng& rng, const Profile& profile) {
  const Palette palette(profile);
  const Program before = p;
  const Context c{p, rng, profile, palette};
  for (uint64_t n = 1 + rng.Below(1 + rng.Below(4)); n != 0; --n) MutateOnce(c);
  // A mutation without effect wastes a run.
  for (int n = 0; n < 8 && p == before; ++n) MutateOnce(c);
  MakeValid(p);
}

Program Crossover(const Program& a, const Program& b, Rng& rng) {
  Program child = rng.OneIn(2) ? a : b;  // the header
  child.vcpus = std::max(a.vcpus, b.vcpus);
  child.steps.assign(a.steps.begin(), a.steps.begin() + rng.Below(a.steps.size() + 1));
  const size_t begin = rng.Below(b.steps.size() + 1);
  // One point: the rest of `b`. Two points: a part of `b`, then the rest of `a`.
  const bool two = rng.OneIn(2);
  const size_t end = two ? begin + rng.Below(b.steps.size() - begin + 1) : b.steps.size();
  const size_t resume = child.steps.size() + rng.Below(a.steps.size() - child.steps.size() + 1);
  child.steps.insert(child.steps.end(), b.steps.begin() + begin, b.steps.begin() + end);
  if (two) child.steps.insert(child.steps.end(), a.steps.begin() + resume, a.steps.end());
  MakeValid(child);
  return child;
}

}  // namespace fpswap::program
