// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/investigate.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <ctime>
#include <utility>

#include "harness/campaign/minimise.h"
#include "harness/triage/cause.h"

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

std::vector<triage::Signature> Investigator::Note(const judge::Verdict& verdict,
                                                  const program::Program& program) {
  const triage::Sorted sorted = triage::Sort(verdict, runner_.platform(), known_);
  for (const triage::Known* entry : sorted.known) ++known_seen_[entry->name];
  std::map<std::string, triage::Signature> fresh;  // each once
  for (const judge::Divergence& divergence : verdict.divergences) {
    if (IsKnown(divergence)) continue;
    triage::Signature signature = triage::SignatureOf(divergence);
    fresh.emplace(signature.Name(), std::move(signature));
  }
  if (fresh.empty()) return {};
  std::vector<triage::Signature> unseen;
  for (auto& [name, signature] : fresh) {
    auto at = seen_.find(name);
    if (const auto waits = waiting_.find(name); waits != waiting_.end()) {
      ++waits->second;
      continue;
    }
    if (at == seen_.end()) {
      if (new_count() >= kMaxSignatures) continue;
      auto findings = triage::FindingsOf(options_.findings, signature);
      if (findings.empty()) {
        waiting_[name] = 1;
        unseen.push_back(std::move(signature));
        continue;
      }
      at = seen_.emplace(name, Seen{.findings = std::move(findings)}).first;
    }
    Seen& seen = at->second;
    const auto of = std::ranges::find_if(
        seen.findings, [&](const auto& one) { return triage::HasTriggers(program, one.triggers); });
    if (of != seen.findings.end()) {
      ++new_seen_[of->name];
    } else if (seen.looked_into > 0) {
      ++seen.looked_into;
    } else if (const bool due = std::has_single_bit(seen.unexplained + 1) &&
                                seen.findings.size() < triage::kMaxOfASignature;
               due && TimeForTheNext() > options_.least) {
      ++seen.unexplained;
      seen.looked_into = 1;
      unseen.push_back(std::move(signature));
    } else {
      if (!due) ++seen.unexplained;
      ++new_seen_[seen.findings.front().name];
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
    unsigned repeats = 0, reruns = 0;
    for (; reruns < options_.reruns && !over(); ++reruns) repeats += shows(program);
    // Without time for it, what the program did that it was made of stands.
    if (reruns == 0) return;
    finding.repeats = repeats;
    finding.reruns = reruns;
  };
  confirm(ran.plan.effective);
  bool smallest_known = false;
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
    const Minimised smallest =
        Minimise(ran.plan.effective, in_a_few, {.budget = options_.budget / tries});
    smallest_known = smallest.done && !over();
    if (!(smallest.program == ran.plan.effective)) confirm(smallest.program);
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
  const auto seen = seen_.find(wanted.Name());
  const auto count = [&](const std::string& name) {
    if (const auto waited = waiting_.extract(wanted.Name()); !waited.empty()) {
      new_seen_[name] += waited.mapped();
    }
    if (seen != seen_.end()) new_seen_[name] += std::exchange(seen->second.looked_into, 0);
  };
  // With more steps than it needs one may seem to be another bug that is none.
  if (seen != seen_.end() && !smallest_known) {
    count(seen->second.findings.front().name);
    return status;
  }
  const auto written = triage::WriteFinding(options_.findings, std::move(finding));
  if (!written) {
    write_error_ = fmt::format("a finding could not be written: {}", written.error());
    waiting_.erase(wanted.Name());
    if (seen != seen_.end()) seen->second.looked_into = 0;
    return status;
  }
  count(written->name);
  auto there = triage::FindingsOf(options_.findings, wanted);
  if (there.empty()) {
    seen_.erase(wanted.Name());  // somebody has taken it away
  } else {
    seen_[wanted.Name()].findings = std::move(there);
  }
  return status;
}

}  // namespace fpswap::campaign
