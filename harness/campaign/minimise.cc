// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/minimise.h"

#include <algorithm>
#include <utility>

namespace fpswap::campaign {
namespace {

using program::Program;

// The smallest program so far, and how many more candidates may be tried.
class Search {
 public:
  Search(const Program& start, const Shows& shows, unsigned budget)
      : best_(start), shows_(shows), budget_(budget) {}

  const Program& best() const { return best_; }
  bool exhausted() const { return budget_ == 0; }

  // Takes `candidate` over if it is another program, valid and still shows the divergence.
  bool Try(const Program& candidate) {
    if (budget_ == 0 || candidate == best_ || !program::IsValid(candidate)) return false;
    --budget_;
    if (!shows_(candidate)) return false;
    best_ = candidate;
    return true;
  }

 private:
  Program best_;
  const Shows& shows_;
  unsigned budget_;
};

// Drops runs of `length` steps, the last ones first: what comes after the divergence is of no use.
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

bool OneVcpu(Search& search) {
  Program candidate = search.best();
  candidate.vcpus = 1;
  candidate.own_vm = candidate.own_thread = false;
  for (program::Step& step : candidate.steps) step.vcpu = 0;
  return search.Try(candidate);
}

// All in one VM, all on one thread, and no vCPU that does nothing.
bool SimplerPlacement(Search& search) {
  bool helped = false;
  for (bool Program::* field : {&Program::own_vm, &Program::own_thread}) {
    Program candidate = search.best();
    candidate.*field = false;
    helped |= search.Try(candidate);
  }
  for (unsigned vcpu = search.best().vcpus; vcpu-- > 0;) {
    Program candidate = search.best();
    const auto idle = [&](const program::Step& step) { return step.vcpu != vcpu; };
    if (candidate.vcpus == 1 || !std::ranges::all_of(candidate.steps, idle)) continue;
    --candidate.vcpus;
    for (program::Step& step : candidate.steps)
      step.vcpu = static_cast<uint8_t>(step.vcpu - (step.vcpu > vcpu));
    helped |= search.Try(candidate);
  }
  return helped;
}

// Puts each argument back to what the text form may leave out.
bool SimplifyArguments(Search& search) {
  bool helped = false;
  for (size_t i = 0; i < search.best().steps.size(); ++i) {
    const program::StepRow& row = program::RowOf(search.best().steps[i]);
    for (unsigned arg = 0; arg < program::kArgCount && !search.exhausted(); ++arg) {
      using enum program::ArgKind;
      // Patterns and raw bytes stay: zeros there often hide the difference by making it look right.
      const auto kind = row.args[arg].kind;
      if (kind == kNone || kind == kPattern || kind == kBytes) continue;
      Program candidate = search.best();
      candidate.steps[i].arg[arg] = row.args[arg].fallback;
      helped |= search.Try(candidate);
    }
  }
  return helped;
}

// Takes components away from XCR0 and from what the guest is offered.
bool FewerFeatures(Search& search) {
  bool helped = false;
  for (unsigned bit = 2; bit < 20; ++bit) {
    const uint64_t keep = ~(uint64_t{1} << bit);
    Program candidate = search.best();
    candidate.features &= keep;
    candidate.xcr0 &= keep;
    helped |= search.Try(candidate);
  }
  return helped;
}

}  // namespace

Program Minimise(const Program& program, const Shows& shows, unsigned budget) {
  Search search(program, shows, budget);
  for (bool helped = true; helped && !search.exhausted();) {
    helped = false;
    for (auto* pass : {DropSteps, OneVcpu, SimplerPlacement, SimplifyArguments, FewerFeatures}) {
      helped |= pass(search);
    }
  }
  return search.best();
}

}  // namespace fpswap::campaign
