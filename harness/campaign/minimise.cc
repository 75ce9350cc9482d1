// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/minimise.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace fpswap::campaign {
namespace {

using program::ArgKind;
using program::Op;
using program::Program;
using program::Step;

// The smallest program so far, and how many more candidates may be tried.
class Search {
 public:
  Search(const Program& start, const Shows& shows, const MinimiseOptions& options)
      : best_(start), shows_(shows), options_(options) {}

  const Program& best() const { return best_; }
  bool exhausted() const { return tried_ >= options_.budget; }
  unsigned tried() const { return tried_; }
  void Enter(const MinimisePass& pass) { pass_ = &pass; }

  // Takes `candidate` over if it is another program, valid and still shows the divergence.
  bool Try(const Program& candidate) {
    if (exhausted() || candidate == best_ || !program::IsValid(candidate)) return false;
    ++tried_;
    const bool better = shows_(candidate);
    if (better) best_ = candidate;
    if (options_.progress) options_.progress(*pass_, tried_, best_, better);
    return better;
  }

  // The same with step `i` changed.
  bool TryStep(size_t i, const Step& step) {
    Program candidate = best_;
    candidate.steps[i] = step;
    return Try(candidate);
  }

 private:
  Program best_;
  const Shows& shows_;
  const MinimiseOptions& options_;
  const MinimisePass* pass_ = nullptr;
  unsigned tried_ = 0;
};

// Runs of `length` steps, the last ones first: what comes after the divergence is of no use.
bool DropSteps(Search& search) {
  bool helped = false;
  for (size_t length = std::max<size_t>(1, search.best().steps.size() / 2); length > 0;
       length /= 2) {
    for (size_t end = search.best().steps.size(); end > 0 && !search.exhausted();) {
      const size_t first = end > length ? end - length : 0;
      Program candidate = search.best();
      candidate.steps.erase(candidate.steps.begin() + static_cast<ptrdiff_t>(first),
                            candidate.steps.begin() + static_cast<ptrdiff_t>(end));
      helped |= search.Try(candidate);
      end = first;
    }
  }
  return helped;
}

// Two steps that need each other, as a set and its undoing: neither can go alone.
bool DropPairs(Search& search) {
  bool helped = false;
  for (size_t i = search.best().steps.size(); i-- > 1 && !search.exhausted();) {
    for (size_t j = i; j-- > 0 && !search.exhausted();) {
      if (i >= search.best().steps.size()) break;
      Program candidate = search.best();
      candidate.steps.erase(candidate.steps.begin() + static_cast<ptrdiff_t>(i));
      candidate.steps.erase(candidate.steps.begin() + static_cast<ptrdiff_t>(j));
      helped |= search.Try(candidate);
    }
  }
  return helped;
}

// What hangs on the number of exits has them from anything that ends the guest's turn.
bool OneExit(Search& search) {
  bool helped = false;
  for (size_t i = search.best().steps.size(); i-- > 1 && !search.exhausted();) {
    Program candidate = search.best();
    const Step exit{.op = Op::kExitOut, .vcpu = candidate.steps[i].vcpu};
    candidate.steps[i - 1] = exit;
    candidate.steps.erase(candidate.steps.begin() + static_cast<ptrdiff_t>(i));
    helped |= search.Try(candidate);
  }
  return helped;
}

// One vCPU, else all in one VM, all on one thread, and none that does nothing.
bool FewerVcpus(Search& search) {
  if (search.best().vcpus == 1) return false;
  Program one = search.best();
  one.vcpus = 1;
  one.own_vm = one.own_thread = false;
  for (Step& step : one.steps) step.vcpu = 0;
  if (search.Try(one)) return true;
  bool helped = false;
  for (bool Program::* field : {&Program::own_vm, &Program::own_thread}) {
    Program candidate = search.best();
    candidate.*field = false;
    helped |= search.Try(candidate);
  }
  for (unsigned vcpu = search.best().vcpus; vcpu-- > 0;) {
    Program candidate = search.best();
    const auto idle = [&](const Step& step) { return step.vcpu != vcpu; };
    if (candidate.vcpus == 1 || !std::ranges::all_of(candidate.steps, idle)) continue;
    --candidate.vcpus;
    for (Step& step : candidate.steps)
      step.vcpu = static_cast<uint8_t>(step.vcpu - (step.vcpu > vcpu));
    helped |= search.Try(candidate);
  }
  // What two do may be done by one of them.
  for (unsigned vcpu = search.best().vcpus; vcpu-- > 1;) {
    Program candidate = search.best();
    if (vcpu >= candidate.vcpus) continue;
    for (Step& step : candidate.steps) step.vcpu = step.vcpu == vcpu ? uint8_t{0} : step.vcpu;
    helped |= search.Try(candidate);
  }
  return helped;
}

// Components out of XCR0 and of what the guest is offered; CR4.PKE as it is by default.
bool FewerFeatures(Search& search) {
  bool helped = false;
  for (unsigned bit = 2; bit < 20; ++bit) {
    const uint64_t keep = ~(uint64_t{1} << bit);
    Program candidate = search.best();
    candidate.features &= keep;
    candidate.xcr0 &= keep;
    helped |= search.Try(candidate);
  }
  Program candidate = search.best();
  candidate.pke = Program().pke;
  return search.Try(candidate) || helped;
}

// A step that does less, or what readers know better, in the place of one that does more. What is
// simpler for several is tried from the simplest on.
struct Weaker {
  Op op, simpler;
  // Of each argument of `simpler`: the argument of `op` that it is, or -1, its fallback.
  std::array<int8_t, program::kArgCount> from;
};
constexpr std::array<int8_t, program::kArgCount> kSame = {0, 1, 2, 3}, kNone = {-1, -1, -1, -1};
constexpr Weaker kWeaker[] = {
    {Op::kExitMmioRead, Op::kExitOut, kNone},
    {Op::kExitMmioWrite, Op::kExitOut, kNone},
    {Op::kExitMmioVector, Op::kExitOut, kNone},
    {Op::kExitCpuid, Op::kExitOut, kNone},
    {Op::kExitHlt, Op::kExitOut, kNone},
    {Op::kExitMsr, Op::kExitOut, kNone},
    {Op::kExitPageFault, Op::kExitOut, kNone},
    {Op::kGetXsave2, Op::kGetXsave, kSame},
    {Op::kGetMsrList, Op::kGetMsr, kSame},
    {Op::kSetMsrList, Op::kSetMsr, kSame},
    // The guest's own write, if it does not matter whose it is: one bug is then one trigger.
    {Op::kSetXcrsList, Op::kXsetbv, {-1, 1, -1, -1}},
    {Op::kSetXcrs, Op::kXsetbv, {-1, 2, -1, -1}},
    {Op::kSetMsr, Op::kWrmsr, kSame},
    {Op::kXsaves, Op::kXsave, kSame},
    {Op::kXsaveopt, Op::kXsave, kSame},
    {Op::kXsavec, Op::kXsave, kSame},
    {Op::kXrstors, Op::kXrstor, kSame},
    {Op::kHostPreempt, Op::kHostDirty, kSame},
    {Op::kHostFork, Op::kHostDirty, kSame},
};

bool WeakerSteps(Search& search) {
  bool helped = false;
  for (size_t i = 0; i < search.best().steps.size(); ++i) {
    for (const Weaker& weaker : kWeaker) {
      if (search.best().steps[i].op != weaker.op) continue;
      Step step = search.best().steps[i];
      step.op = weaker.simpler;
      const program::StepRow& row = program::RowOf(step);
      for (unsigned arg = 0; arg < program::kArgCount; ++arg) {
        const int8_t from = row.args[arg].kind == ArgKind::kNone ? int8_t{-1} : weaker.from[arg];
        step.arg[arg] = from < 0 ? row.args[arg].fallback
                                 : search.best().steps[i].arg[static_cast<unsigned>(from)];
      }
      helped |= search.TryStep(i, step);
    }
  }
  return helped;
}

// Each argument back to what the text form may leave out.
bool DefaultArguments(Search& search) {
  bool helped = false;
  for (size_t i = 0; i < search.best().steps.size(); ++i) {
    const program::StepRow& row = program::RowOf(search.best().steps[i]);
    for (unsigned arg = 0; arg < program::kArgCount && !search.exhausted(); ++arg) {
      // Lengths have a pass of their own, raw bytes are no numbers, and a pattern's default is as
      // good as any.
      const auto kind = row.args[arg].kind;
      if (kind == ArgKind::kNone || kind == ArgKind::kBytes || kind == ArgKind::kLength) continue;
      Step step = search.best().steps[i];
      step.arg[arg] = row.args[arg].fallback;
      helped |= search.TryStep(i, step);
    }
  }
  return helped;
}

// Numbers with fewer bits, one bit less at a time; masks keep what is needed of them.
bool FewerBits(Search& search) {
  bool helped = false;
  for (size_t i = 0; i < search.best().steps.size(); ++i) {
    const program::StepRow& row = program::RowOf(search.best().steps[i]);
    for (unsigned arg = 0; arg < program::kArgCount; ++arg) {
      using enum ArgKind;
      const auto kind = row.args[arg].kind;
      if (kind != kMask && kind != kU8 && kind != kU16 && kind != kU32 && kind != kU64) continue;
      if (search.best().steps[i].arg[arg] == row.args[arg].fallback) continue;
      // Half of the bits first.
      for (const unsigned width : {32u, 16u, 8u, 4u, 1u}) {
        for (unsigned low = 0; low < 64 && !search.exhausted(); low += width) {
          const uint64_t bits = ((uint64_t{1} << width) - 1) << low;
          Step step = search.best().steps[i];
          if ((step.arg[arg] & bits) == 0) continue;
          step.arg[arg] &= ~bits;
          helped |= search.TryStep(i, step);
        }
      }
    }
  }
  return helped;
}

// Edits of images and areas down to the bytes that matter.
bool FewerBytes(Search& search) {
  bool helped = false;
  for (size_t i = 0; i < search.best().steps.size(); ++i) {
    const Op op = search.best().steps[i].op;
    if (op != Op::kImageFill && op != Op::kMemFill) continue;
    for (uint64_t cut = search.best().steps[i].arg[2] / 2; cut > 0 && !search.exhausted();
         cut /= 2) {
      for (const bool front : {false, true}) {
        // As often as it helps: what matters is rarely in the middle.
        for (;;) {
          Step step = search.best().steps[i];
          if (step.arg[2] <= cut) break;
          step.arg[2] -= cut;
          if (front) step.arg[1] += cut;
          if (!search.TryStep(i, step)) break;
          helped = true;
        }
      }
    }
  }
  return helped;
}

// The smallest register, slot and image numbers, the same for all steps that share one.
bool Renumber(Search& search) {
  using enum ArgKind;
  const auto is_register = [](ArgKind kind) {
    return kind == kReg8 || kind == kReg16 || kind == kReg32 || kind == kReg4;
  };
  const std::array<std::function<bool(ArgKind)>, 3> classes = {
      is_register, [](ArgKind kind) { return kind == kSlot; },
      [](ArgKind kind) { return kind == kImage; }};
  bool helped = false;
  for (const auto& of_class : classes) {
    const auto each = [&](Program& program, const auto& visit) {
      for (Step& step : program.steps) {
        if (step.op == Op::kRaw) continue;
        const program::StepRow& row = program::RowOf(step);
        for (unsigned arg = 0; arg < program::kArgCount; ++arg) {
          if (of_class(row.args[arg].kind)) visit(step.arg[arg]);
        }
      }
    };
    for (uint64_t number = 31; number > 0 && !search.exhausted(); --number) {
      Program candidate = search.best();
      uint32_t used = 0;
      each(candidate, [&](uint64_t& value) { used |= 1u << value; });
      const auto smallest = static_cast<uint64_t>(std::countr_one(used));
      if ((used >> number & 1) == 0 || smallest >= number) continue;
      each(candidate, [&](uint64_t& value) { value = value == number ? smallest : value; });
      helped |= search.Try(candidate);
    }
  }
  return helped;
}

struct PassRow {
  MinimisePass pass;
  bool (*run)(Search&);
};
constexpr PassRow kPasses[] = {
    {{"drop-steps", "leaves steps out"}, DropSteps},
    {{"fewer-vcpus", "one vCPU, VM and thread"}, FewerVcpus},
    {{"weaker-steps", "the plainest exit, save and disturbance"}, WeakerSteps},
    {{"default-arguments", "arguments as they are when not given"}, DefaultArguments},
    {{"fewer-features", "less in the guest's CPUID and XCR0"}, FewerFeatures},
    {{"fewer-bytes", "edits of images down to the bytes that matter"}, FewerBytes},
    {{"fewer-bits", "numbers and masks with fewer bits"}, FewerBits},
    {{"renumber", "the smallest registers, slots and images"}, Renumber},
    {{"drop-pairs", "leaves out two steps that need each other"}, DropPairs},
    {{"one-exit", "a plain exit in the place of two neighbours"}, OneExit},
};
constexpr auto kNames = [] {
  std::array<MinimisePass, std::size(kPasses)> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kPasses[i].pass;
  return names;
}();

}  // namespace

std::span<const MinimisePass> MinimisePasses() { return kNames; }

Minimised Minimise(const Program& program, const Shows& shows, const MinimiseOptions& options) {
  Search search(program, shows, options);
  bool helped = true;
  while (helped && !search.exhausted()) {
    helped = false;
    for (const PassRow& row : kPasses) {
      if (!options.only.empty() && row.pass.name != options.only) continue;
      search.Enter(row.pass);
      helped |= row.run(search);
    }
  }
  return {.program = search.best(), .tried = search.tried(), .done = !helped};
}

}  // namespace fpswap::campaign
