// SPDX-License-Identifier: GPL-2.0-or-later
//
// What becomes of a divergence: it is told from known ones, confirmed, minimised, and written as a
// finding unless one with its signature is there that may have its cause (cause.h). Fuzzing and
// replaying share it.
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
#include "harness/triage/finding.h"
#include "harness/triage/known.h"
#include "harness/triage/signature.h"

namespace fpswap::campaign {

class Investigator {
 public:
  struct Options {
    std::filesystem::path findings;
    std::string plant;
    std::string version;                   // of fpswap, for the finding
    std::function<uint64_t()> ran_so_far;  // programs, for the finding; null: not known
    unsigned reruns = 5;                   // to confirm
    unsigned budget = 300;                 // candidates of a minimisation
    // Time for confirming and minimising: `limit` for one signature, while all of them together
    // have taken no more than `limit` and `share` of the time since this Investigator began;
    // `least` for each beyond that. So a target that is broken throughout does not stop the
    // fuzzing.
    std::chrono::milliseconds limit{20'000}, least{1'000};
    double share = 0.25;
    std::function<bool()> stop;  // true: come to an end; null: never
  };
  // What was seen so far, by name: a known divergence's or a finding's, with the number of
  // programs.
  using Counts = std::map<std::string, uint64_t>;

  // `known` and `runner` outlive this.
  Investigator(Runner& runner, std::span<const triage::Known> known, Options options);

  // Counts a verdict on `program` that is not ok. The signatures in it to look into, each for
  // Investigate(): a common divergence does not hide a rare one behind it. They are those without a
  // finding, and those that `program` shows without what their findings need: another bug may be
  // behind it. Looking is dear, so it is done at the first such program, the second, the fourth
  // ..., while there is time for more than the least.
  std::vector<triage::Signature> Note(const judge::Verdict& verdict,
                                      const program::Program& program);

  // REQUIRES: Note(ran.verdict) gave `wanted`. `before` are the programs that ran before it in its
  // batch. Everything it runs is announced to `about_to_run` first; an error of it, or of the
  // runner, ends the investigation and is returned; what is known by then is written all the same,
  // but for another bug behind a signature that has its finding: that takes the smallest program.
  using AboutToRun = std::function<std::expected<void, std::string>(const program::Program&)>;
  std::expected<void, std::string> Investigate(const Ran& ran, const triage::Signature& wanted,
                                               std::span<const program::Program> before,
                                               const AboutToRun& about_to_run);

  // Why the finding of the last Investigate() could not be written, "" if it was. Its signature is
  // looked at again when next seen.
  const std::string& write_error() const { return write_error_; }

  const Counts& known_seen() const { return known_seen_; }
  // New ones that have their finding. A worker that is killed must not take the others for done.
  const Counts& new_seen() const { return new_seen_; }
  // The number of new ones, those included that wait for Investigate().
  size_t new_count() const { return new_seen_.size() + waiting_.size(); }
  // What an earlier life of this job had seen.
  void Restore(Counts known_seen, Counts new_seen);

 private:
  bool IsKnown(const judge::Divergence& divergence) const;
  // The index of the first divergence with this signature that no entry knows: one signature may
  // have both, and minimising must not slide from the new one to the known.
  std::optional<size_t> Find(const judge::Verdict& verdict, const triage::Signature& wanted) const;
  std::chrono::steady_clock::duration TimeForTheNext() const;

  Runner& runner_;
  std::span<const triage::Known> known_;
  Options options_;
  Counts known_seen_, new_seen_, waiting_;
  // Of a signature with findings, by its name.
  struct Seen {
    std::vector<triage::OneOfASignature> findings;
    uint64_t unexplained = 0;  // programs that lack what each of the findings needs
    uint64_t looked_into = 0;  // of these, those that Investigate() is still to count
  };
  std::map<std::string, Seen> seen_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::duration spent_{};
  std::string write_error_;
};

}  // namespace fpswap::campaign
