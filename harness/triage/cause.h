// SPDX-License-Identifier: GPL-2.0-or-later
//
// Findings that probably have one cause. A signature says where a divergence showed; one bug shows
// at many places, so it leaves many. What the bug needs is in the smallest program: the steps that
// do something to the state from outside. docs/signatures.md has the rule, the close cases and how
// often it is wrong.
//
// Pure functions; thread safe.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "harness/judge/verdict.h"
#include "harness/program/program.h"

namespace fpswap::triage {

// What a value that differs looks like, from far: one bug has several relations.
std::string_view RelationFamily(judge::Relation relation);  // "lost", "foreign", ...

// The names of the steps of `program` that may have done it: disturbances, exits, migrations,
// writes of XCRs and MSRs; if there are none, those that set a whole state; each once, sorted,
// joined by '+'. "" if none is there.
std::string Triggers(const program::Program& program);

// Whether what needs `triggers` may have the cause of what needs `fewer` (both as Triggers() gives
// them): it has all of them. What needs nothing is no part of what needs something: what it needs
// was not seen.
bool MayShareCause(std::string_view fewer, std::string_view triggers);

// Whether `program` has all the steps that `triggers` names. A program that was not made smaller
// has more kinds of them than its Triggers() tells. None: that it has none.
bool HasTriggers(const program::Program& program, std::string_view triggers);

// What is known of a finding for this.
struct Evidence {
  std::string name;      // the finding's
  std::string effect;    // "avx lost": the component and family of the first new divergence
  std::string triggers;  // as Triggers() gives them
  std::string plant;     // findings of two plants are never one
  size_t steps = 0;
};

// By finding's name, a title that all findings of one cause have: "avx lost after host.cpu". A
// finding belongs to the cause of the smallest finding that has its effect and needs no step that
// it lacks.
std::map<std::string, std::string> GroupByCause(std::vector<Evidence> findings);

}  // namespace fpswap::triage
