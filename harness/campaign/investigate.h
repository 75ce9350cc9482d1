// SPDX-License-Identifier: GPL-2.0-or-later
//
// What becomes of a divergence: it is told from known ones, confirmed, minimised, and written as a
// finding unless one with its signature is there. Fuzzing and replaying share it.
//
// Thread safety: none; used by the thread that owns the Runner.
#pragma once

#include <chrono>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/campaign/runner.h"
#include "harness/triage/known.h"
#include "harness/triage/signature.h"

namespace fpswap::campaign {

class Investigator {
 public:
  struct Options {
    std::filesystem::path findings;
    std::string plant;
    unsigned reruns = 5;             // to confirm
    unsigned budget = 300;           // candidates of a minimisation
    std::chrono::seconds limit{20};  // for confirming and minimising one divergence
    std::function<bool()> stop;      // true: come to an end; null: never
  };
  // What was seen so far, by name: a known divergence's or a finding's, with the number of
  // programs.
  using Counts = std::map<std::string, uint64_t>;

  // `known` and `runner` outlive this.
  Investigator(Runner& runner, std::span<const triage::Known> known, Options options);

  // Counts a verdict that is not ok. True if its signature is new to this Investigator and needs
  // Investigate(); cheap otherwise.
  bool Note(const judge::Verdict& verdict);

  // REQUIRES: Note(ran.verdict) was true. `before` are the programs that ran before it in its
  // batch. Everything it runs is announced to `about_to_run` first; an error of it, or of the
  // runner, ends the investigation and is returned; what is known by then is written all the same.
  using AboutToRun = std::function<std::expected<void, std::string>(const program::Program&)>;
  std::expected<void, std::string> Investigate(const Ran& ran,
                                               std::span<const program::Program> before,
                                               const AboutToRun& about_to_run);

  // Why the last finding could not be written, "" if none failed. Its signature is looked at again
  // when next seen.
  const std::string& write_error() const { return write_error_; }

  const Counts& known_seen() const { return known_seen_; }
  const Counts& new_seen() const { return new_seen_; }
  void Restore(Counts known_seen, Counts new_seen);

 private:
  // The index of the first divergence with this signature.
  // The first divergence with this signature that no entry knows: one signature may have both, and
  // minimising must not slide from the new one to the known.
  std::optional<size_t> Find(const judge::Verdict& verdict, const triage::Signature& wanted) const;

  Runner& runner_;
  std::span<const triage::Known> known_;
  Options options_;
  Counts known_seen_, new_seen_;
  std::string write_error_;
};

}  // namespace fpswap::campaign
