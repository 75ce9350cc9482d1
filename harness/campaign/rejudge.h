// SPDX-License-Identifier: GPL-2.0-or-later
//
// What is stored, judged again: after a new oracle or a new kernel, what was a divergence may be
// none any more, or a known one, and what agreed may diverge. Findings' traces are judged again as
// they were recorded, findings' programs and the corpus are run again, and what came out
// differently from last time is listed.
//
// Thread safety: no shared state.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/campaign/runner.h"
#include "harness/triage/known.h"

namespace fpswap::campaign {

// With what it was judged. Another one is the reason to do it again.
struct JudgedWith {
  std::string build;    // a hash of the command's own file: any change of the oracle is one of it
  std::string version;  // of fpswap, for the reader
  std::string known;    // a hash of corpus/known
  std::string target, kernel, cpu, vendor_module;
  bool operator==(const JudgedWith&) const = default;
};

struct Judged {
  JudgedWith with;
  // By finding's name, what came of it: "diverges", "known NAME", "diverges otherwise", "agrees",
  // "can't be read", "can't run here". Of its trace as recorded, and of its program run again.
  std::map<std::string, std::string> traces, runs;
  // By the name of the corpus's entry, what it showed: signatures and "known NAME"; empty: it
  // agrees.
  std::map<std::string, std::set<std::string>> corpus;
};
std::string JudgedToJson(const Judged& judged);
std::expected<Judged, std::string> JudgedFromJson(std::string_view json);

// What differs: "finding NAME, as recorded", "diverges", "known kvm-set-fpu-lost".
struct Change {
  std::string what, before, after;
};

struct JudgeAgainOptions {
  std::filesystem::path findings, corpus;
  std::span<const triage::Known> known;
  std::string plant;           // findings of another are not run
  std::function<bool()> stop;  // true: come to an end
};
// Everything there is, by `with` and on `runner`; what is in `before` is not judged again if that
// was judged with the same. What it runs is on disk already. An error: it did not come to its end,
// for the target can't run any more or because of `stop`.
std::expected<Judged, std::string> JudgeAgain(const JudgeAgainOptions& options,
                                              const JudgedWith& with, const Judged& before,
                                              Runner& runner);

// Findings by name, then what programs of the corpus, those that are in both, showed before and
// show now. A finding that `before` does not have diverged when it was found.
std::vector<Change> Changes(const Judged& before, const Judged& after);
// One line, with when it was and from what to what.
std::string ChangesToJson(const JudgedWith& before, const JudgedWith& after,
                          std::span<const Change> changes, int64_t when);

}  // namespace fpswap::campaign
