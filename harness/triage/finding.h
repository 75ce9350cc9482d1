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
// A finding appears whole (written beside and renamed) or not at all; two workers that find the
// same signature at once leave one. Errors are sentences. No shared state.
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
  trace::Trace trace;
  judge::Verdict verdict;
  size_t divergence = 0;     // index in the verdict of the one that the signature is of
  unsigned reruns = 0;       // how often the program was run again alone
  unsigned repeats = 0;      // and showed the signature
  unsigned steps_found = 0;  // steps of the program before it was minimised
  std::string plant;         // a self-test of the harness: the planted bug, "" for none
  std::vector<program::Program> before;
};

// True if it was written, false if a finding of that name was there already.
std::expected<bool, std::string> WriteFinding(const std::filesystem::path& findings,
                                              const Finding& finding);

// What a finding's verdict.json says the finding is of.
struct FindingName {
  std::string key, name;             // Signature's, "" where it has none
  std::optional<size_t> divergence;  // index in the verdict
};
// Total: what the file does not say is left empty. The error is that it can't be read.
std::expected<FindingName, std::string> ReadFindingName(const std::filesystem::path& folder);

// The README's text.
std::string FindingReadme(const Finding& finding);
// VerdictToJson with "signature", "name", "target", "reruns", "repeats" and, where there is one,
// "plant".
std::string FindingVerdictJson(const Finding& finding);

}  // namespace fpswap::triage
