// SPDX-License-Identifier: GPL-2.0-or-later
//
// Known divergences: places where the system under test is wrong and somebody has said why. Each is
// a folder of corpus/known with known.json (the predicate below), program.fps (shows it) and a
// README. The oracle is never widened for them; they are only reported apart.
//
// known.json, one object; every key that is not marked optional must be there, no other may be:
//
//   "title"      one line
//   "reason"     why it is wrong, and what is at fault
//   "kernel_function"  the function at fault ("" where it is not the kernel's)
//   "law"        "model", ... (judge::LawName), or a list
//   "step"       a step's name, or a list of names; "none" for a divergence of no step
//   "component"  a component's name, a list, or null for a divergence of no component
//   "relation"   a relation's name (judge::RelationName), or a list
//   "where"      the exact place, or a list, or "where_regex": a pattern that matches all of it
//   "cause"      optional: the condition of the defect, which the judge has found to hold
//                (judge::Divergence::cause); "law", "step" and "where" are optional then
//   "initial"    optional: whether the component had to be in its initial state
//   "possible_value", "seen_value"  optional: the two values, where values and not bytes differ, as
//                numbers: of a fault its vector, plus 256 times its error code
//   "possible_hex", "seen_hex"  optional: patterns for the bytes, as lower-case hex
//   "endangers_host"  optional: true where its program takes the machine down. `fpswap run`,
//                `minimize` and fuzz --seeds leave such a program alone outside of a lab
//   "platform"   an object with at least one of "target", "vendor_module", "cpu_vendor" ("amd",
//                "other"), "cpu_family" (CPUID's display family), "compacted", "pkru" (the host has
//                it enabled), "xfd" (the CPU has it), "kernel": {"from": "6.1", "before": "6.19"}
//
// A Known is immutable after parsing: thread safe. Errors are sentences naming file and key.
#pragma once

#include <compare>
#include <expected>
#include <filesystem>
#include <optional>
#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/judge/verdict.h"
#include "harness/trace/platform.h"

namespace fpswap::triage {

struct KernelVersion {
  unsigned major = 0, minor = 0, patch = 0;
  auto operator<=>(const KernelVersion&) const = default;
};
// Reads the front of `uname -r`: "6.18.3-cloud-amd64" is 6.18.3. Nothing if it starts otherwise.
std::optional<KernelVersion> ParseKernelVersion(std::string_view release);

struct PlatformCondition {
  std::optional<std::string> target, vendor_module, cpu_vendor;
  std::optional<uint32_t> cpu_family;
  std::optional<bool> compacted, pkru, xfd;
  std::optional<KernelVersion> kernel_from, kernel_before;  // [from, before)
  bool Holds(const trace::Platform& platform) const;
};

struct Known {
  std::string name;  // the folder's
  std::string title, reason, kernel_function;
  std::optional<std::string> cause;
  std::vector<judge::Law> laws;  // empty: any, as are `ops`
  std::vector<uint8_t> ops;
  std::vector<std::optional<xstate::Component>> components;
  std::vector<judge::Relation> relations;
  std::optional<bool> initial;
  bool endangers_host = false;
  std::optional<uint64_t> possible_value, seen_value;
  std::vector<std::string> where;
  std::optional<std::regex> where_regex, possible_regex, seen_regex;
  PlatformCondition platform;
  std::filesystem::path folder;

  bool Matches(const judge::Divergence& divergence, const trace::Platform& on) const;
};

std::expected<Known, std::string> ParseKnown(std::string_view json, std::string_view name);

// All entries of `folder` (corpus/known), by name. A folder without known.json is refused: an entry
// that is not read would silence nothing and look as if it did.
std::expected<std::vector<Known>, std::string> LoadKnown(const std::filesystem::path& folder);

// The first entry that matches; null: none, so it is new.
const Known* FirstMatch(std::span<const Known> known, const judge::Divergence& divergence,
                        const trace::Platform& on);

// A verdict's divergences told apart. It is a known one only if every divergence in it is.
struct Sorted {
  std::vector<const Known*> known;  // entries matched, each once; point into the span given
  std::optional<size_t> first_new;  // index of the first divergence that no entry matches
};
Sorted Sort(const judge::Verdict& verdict, const trace::Platform& platform,
            std::span<const Known> known);

}  // namespace fpswap::triage
