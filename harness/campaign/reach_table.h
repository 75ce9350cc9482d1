// SPDX-License-Identifier: GPL-2.0-or-later
//
// What was exercised: how often each step met each component in each state after each way of exit
// and with which outcome, what was trimmed and why, and which laws were checked. A clean run counts
// only with this table.
//
// Memory is bounded: the number of distinct rows is by the table of steps, reasons are capped.
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "harness/judge/judge.h"

namespace fpswap::campaign {

class ReachTable : public judge::ReachSink {
 public:
  struct Row {
    uint8_t op, component, state, exit, outcome, vcpus;  // as in judge::ReachEvent
    auto operator<=>(const Row&) const = default;
  };

  void Reach(const judge::ReachEvent& event) override;
  // Counts a program, what was trimmed from it and, where it was judged, the laws.
  void Count(const program::Program& given, const plan::Plan& plan);
  void Count(const judge::Verdict& verdict);
  void Merge(const ReachTable& other);

  uint64_t programs() const { return programs_; }
  uint64_t judged() const { return judged_; }
  uint64_t unknown() const { return unknown_; }  // judged by laws 4 and 6 alone
  uint64_t checks() const { return checks_; }
  uint64_t trimmed() const;
  const std::array<uint64_t, 8>& laws() const { return laws_; }  // programs, by law
  // By (name of step, reason).
  const std::map<std::pair<std::string, std::string>, uint64_t>& trims() const { return trims_; }
  std::map<Row, uint64_t> Rows() const;

  // As JSON, and back. Reading is total.
  std::string ToJson() const;
  static std::expected<ReachTable, std::string> FromJson(std::string_view text);

  static constexpr size_t kMaxReasons = 2048;

 private:
  std::unordered_map<uint64_t, uint64_t> rows_;  // a Row packed, its count
  std::map<std::pair<std::string, std::string>, uint64_t> trims_;
  std::array<uint64_t, 8> laws_{};
  uint64_t programs_ = 0, judged_ = 0, unknown_ = 0, checks_ = 0;
};

std::string_view StateName(uint8_t state);  // "absent", "initial", ...
std::string OutcomeName(uint8_t outcome);   // "done", "#GP", "errno 22"

}  // namespace fpswap::campaign
