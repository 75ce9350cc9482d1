// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/investigate.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "harness/campaign/minimise.h"
#include "harness/triage/finding.h"

namespace fpswap::campaign {
namespace {

using Status = std::expected<void, std::string>;
using Clock = std::chrono::steady_clock;

// Signatures kept apart by name: a target that is broken throughout must not fill the memory.
constexpr size_t kMaxSignatures = 4096;

}  // namespace

Investigator::Investigator(Runner& runner, std::span<const triage::Known> known, Options options)
    : runner_(runner), known_(known), options_(std::move(options)) {}

void Investigator::Restore(Counts known_seen, Counts new_seen) {
  known_seen_ = std::move(known_seen);
  new_seen_ = std::move(new_seen);
}

bool Investigator::IsKnown(const judge::Divergence& divergence) const {
  return triage::FirstMatch(known_, divergence, runner_.platform()) != nullptr;
}

std::optional<size_t> Investigator::Find(const judge::Verdict& verdict,
                                         const triage::Signature& wanted) const {
  for (size_t i = 0; i < verdict.divergences.size(); ++i) {
    const judge::Divergence& d = verdict.divergences[i];
    if (triage::SignatureOf(d) == wanted && !IsKnown(d)) return i;
  }
  return {};
}

Clock::duration Investigator::TimeForTheNext() const {
  const std::chrono::duration<double> elapsed = Clock::now() - began_;
  const auto allowed =
      std::chrono::duration_cast<Clock::duration>(options_.share * elapsed) + options_.limit;
  return std::clamp<Clock::duration>(allowed - spent_, options_.least, options_.limit);
}

std::vector<triage::Signature> Investigator::Note(const judge::Verdict& verdict) {
  const triage::Sorted sorted = triage::Sort(verdict, runner_.platform(), known_);
  for (const triage::Known* entry : sorted.known) ++known_seen_[entry->name];
  std::map<std::string, triage::Signature> fresh;  // each once
  for (const judge::Divergence& divergence : verdict.divergences) {
    if (IsKnown(divergence)) continue;
    triage::Signature signature = triage::SignatureOf(divergence);
    fresh.emplace(signature.Name(), std::move(signature));
  }
  std::vector<triage::Signature> unseen;
  for (auto& [name, signature] : fresh) {
    if (const auto seen = new_seen_.find(name); seen != new_seen_.end()) {
      ++seen->second;
    } else if (const auto waits = waiting_.find(name); waits != waiting_.end()) {
      ++waits->second;
    } else if (new_count() < kMaxSignatures) {
      std::error_code status;
      const bool done = std::filesystem::exists(options_.findings / name, status);
      (done ? new_seen_ : waiting_)[name] = 1;
      if (!done) unseen.push_back(std::move(signature));
    }
  }
  return unseen;
}

Status Investigator::Investigate(const Ran& ran, const triage::Signature& wanted,
                                 std::span<const program::Program> before,
                                 const AboutToRun& about_to_run) {
  write_error_.clear();
  Ran best = ran;
  Status status;
  const auto begin = Clock::now(), deadline = begin + TimeForTheNext();
  const auto over = [&] {
    return !status || (options_.stop && options_.stop()) || Clock::now() > deadline;
  };
  // Runs `program`; true if it shows the signature. `best` is the last run that did.
  const Shows shows = [&](const program::Program& program) {
    if (over()) return false;
    if (status = about_to_run(program); !status) return false;
    auto again = RunOne(runner_, program);
    if (!again) status = std::unexpected(again.error());
    if (!again || !Find(again->verdict, wanted)) return false;
    best = std::move(*again);
    return true;
  };
  triage::Finding finding;
  finding.found = std::time(nullptr);
  finding.after = options_.ran_so_far ? options_.ran_so_far() : 0;
  finding.steps_found = static_cast<unsigned>(ran.plan.effective.steps.size());
  const auto confirm = [&](const program::Program& program) {
    finding.repeats = finding.reruns = 0;
    while (finding.reruns < options_.reruns && !over()) {
      ++finding.reruns;
      finding.repeats += shows(program);
    }
  };
  confirm(ran.plan.effective);
  if (finding.repeats > 0) {
    const bool steady = finding.repeats == finding.reruns;
    // One that comes and goes would lose steps it needs, and takes several runs a candidate.
    const unsigned tries = steady ? 1 : 4;
    const Shows in_a_few = [&](const program::Program& program) {
      for (unsigned i = 0; i < tries; ++i) {
        if (shows(program)) return true;
      }
      return false;
    };
    const auto smallest =
        Minimise(ran.plan.effective, in_a_few, {.budget = options_.budget / tries}).program;
    if (!(smallest == ran.plan.effective)) confirm(smallest);
  }
  if (finding.repeats < finding.reruns) {
    finding.before.assign(before.begin(), before.end());
  }
  finding.signature = wanted;
  finding.divergence = Find(best.verdict, wanted).value_or(0);
  const auto& told = best.verdict.divergences;
  finding.root = static_cast<size_t>(
      std::ranges::find_if(told, [&](const judge::Divergence& d) { return !IsKnown(d); }) -
      told.begin());
  finding.plant = options_.plant;
  finding.version = options_.version;
  finding.verdict = std::move(best.verdict);
  finding.trace = {.platform = runner_.platform(),
                   .program = std::move(best.plan.effective),
                   .trims = ran.plan.trims,
                   .records = std::move(best.records)};
  spent_ += Clock::now() - begin;
  const auto written = triage::WriteFinding(options_.findings, finding);
  const auto counted = waiting_.extract(wanted.Name());
  if (!written) {
    write_error_ = fmt::format("a finding could not be written: {}", written.error());
  } else if (!counted.empty()) {
    new_seen_[counted.key()] += counted.mapped();
  }
  return status;
}

}  // namespace fpswap::campaign
