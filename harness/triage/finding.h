// SPDX-License-Identifier: GPL-2.0-or-later
//
// A finding: the folder in which a divergence is handed over.
//
//   NAME/program.fps    the smallest program known (what was trimmed is left out)
//   NAME/trace.fpt      what was observed, for `fpswap judge` anywhere
//   NAME/verdict.json   the divergences, the signature, how often it repeats
//   NAME/platform.json  where
//   NAME/README.md      what was possible, what was seen, how to repeat it
//   NAME/before/NN.fps  only where it does not repeat alone: the programs that ran before it
//
// NAME is the signature's. A second bug may have the signature of a first: what shows it without
// the steps that the first needs is another finding, NAME-2.
//
// A finding appears whole (written beside and renamed) or not at all; two workers that find the
// same at once leave one. Errors are sentences. No shared state.
#pragma once

#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "harness/judge/verdict.h"
#include "harness/trace/trace.h"
#include "harness/triage/signature.h"

namespace fpswap::triage {

struct Finding {
  Signature signature;
  unsigned number = 1;  // of those with this signature; WriteFinding gives it
  trace::Trace trace;
  judge::Verdict verdict;
  size_t divergence = 0;  // index in the verdict of the one that the signature is of
  // Index of the first one that is not known: what the others may follow from.
  size_t root = 0;
  unsigned reruns = 0;       // how often the program was run again alone
  unsigned repeats = 0;      // and showed the signature
  unsigned steps_found = 0;  // steps of the program before it was minimised
  std::string plant;         // a self-test of the harness: the planted bug, "" for none
  std::string version;       // of fpswap, "" if not known
  int64_t found = 0;         // when, in seconds since 1970; 0: not known
  uint64_t after = 0;        // programs that its job had run by then
  std::vector<program::Program> before;
};

constexpr unsigned kMaxOfASignature = 4;

// The folder's name of the finding with this signature and number.
std::string FindingName(const Signature& signature, unsigned number);

// The findings of a signature that are there.
struct OneOfASignature {
  std::string name;      // the folder's
  std::string triggers;  // as Triggers() of cause.h gives them
};
std::vector<OneOfASignature> FindingsOf(const std::filesystem::path& findings,
                                        const Signature& signature);

// The finding's folder, and whether it was written: not if one is there that may have its cause
// (MayShareCause), or kMaxOfASignature are.
struct Written {
  std::string name;
  bool added = false;
};
std::expected<Written, std::string> WriteFinding(const std::filesystem::path& findings,
                                                 Finding finding);

// What a finding's files say of it. Total: what they do not say is left empty.
struct FindingFacts {
  std::string key, name;             // Signature's, "" where it has none
  std::optional<size_t> divergence;  // index in the verdict of the one that the signature is of
  std::string law, op, component, relation, where, words, rule;  // that divergence's
  std::string target, kernel, cpu, plant, version;
  std::string effect, triggers;  // as triage::Evidence has them
  uint64_t steps = 0, reruns = 0, repeats = 0, after = 0;
  int64_t found = 0;
};
// Of verdict.json alone: all but kernel, cpu, steps and triggers. The error is that it can't be
// read.
std::expected<FindingFacts, std::string> ReadFindingName(const std::filesystem::path& folder);
// A finding's program: what `fpswap minimize` has left of it, if it was there.
std::filesystem::path SmallestProgram(const std::filesystem::path& finding);
// Of platform.json and of that program too.
std::expected<FindingFacts, std::string> ReadFinding(const std::filesystem::path& folder);

// The README's text.
std::string FindingReadme(const Finding& finding);
// VerdictToJson with "signature", "name", "target", "reruns", "repeats", "version", "found",
// "after" and, where there is one, "plant".
std::string FindingVerdictJson(const Finding& finding);

}  // namespace fpswap::triage
