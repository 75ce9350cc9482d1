// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the campaign's tests put in the place of a target and a judge, and other helpers.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "harness/campaign/platforms.h"
#include "harness/campaign/runner.h"
#include "harness/trace/record.h"

namespace fpswap::testing {

// A folder that is gone when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "fpswap-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline judge::Divergence SomeDivergence() {
  judge::Divergence divergence;
  divergence.law = judge::Law::kModel;
  divergence.step = 1;
  divergence.op = static_cast<uint8_t>(program::Op::kGetXsave);
  divergence.has_component = true;
  divergence.component = xstate::Component::kAvx;
  divergence.relation = judge::Relation::kStale;
  divergence.where = "YMM5[255:128] byte 3";
  divergence.possible = {1, 2, 3};
  divergence.seen = {9, 8, 7};
  divergence.words = "YMM5 was to be 010203 and was 090807";
  return divergence;
}

// Verdicts by rule, from the program alone.
class FakeRunner : public campaign::Runner {
 public:
  using Rule = std::function<judge::Verdict(const program::Program&)>;
  explicit FakeRunner(Rule rule) : rule_(std::move(rule)) {}

  const trace::Platform& platform() const override { return platform_; }
  std::expected<void, std::string> Run(std::span<const plan::Plan* const> plans,
                                       judge::ReachSink* /*reach*/, const Done& done) override {
    std::vector<uint8_t> records;
    const trace::EndRecord end{};
    trace::AppendRecord(records, trace::RecordKind::kEnd, 0, 0,
                        {reinterpret_cast<const uint8_t*>(&end), sizeof end});
    for (size_t i = 0; i < plans.size(); ++i) {
      ++ran_;
      if (before_ != nullptr) before_();
      if (edges_ != nullptr) reached_ = edges_(plans[i]->effective);
      done(i, records, rule_(plans[i]->effective));
    }
    return {};
  }
  std::span<const uint16_t> kernel_edges() const override { return reached_; }
  size_t ran() const { return ran_; }
  // A kernel that counts what is reached of it.
  void set_edges(std::function<std::vector<uint16_t>(const program::Program&)> edges) {
    edges_ = std::move(edges);
    platform_.kernel_coverage = true;
  }
  trace::Platform& mutable_platform() { return platform_; }
  void set_before(std::function<void()> before) { before_ = std::move(before); }

 private:
  trace::Platform platform_ = campaign::EverythingPlatform();
  Rule rule_;
  std::function<void()> before_;
  std::function<std::vector<uint16_t>(const program::Program&)> edges_;
  std::vector<uint16_t> reached_;
  size_t ran_ = 0;
};

inline judge::Verdict Agrees(const program::Program&) { return {}; }

inline bool Contains(const program::Program& program, program::Op op) {
  for (const program::Step& step : program.steps) {
    if (step.op == op) return true;
  }
  return false;
}

inline program::Program ProgramOf(std::initializer_list<program::Op> ops) {
  program::Program program;
  for (program::Op op : ops) program.steps.push_back({.op = op, .arg = {}});
  program::MakeValid(program);
  return program;
}

}  // namespace fpswap::testing
