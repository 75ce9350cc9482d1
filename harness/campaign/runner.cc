// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/runner.h"

#include <algorithm>

namespace fpswap::campaign {
namespace {

class TargetRunner : public Runner {
 public:
  explicit TargetRunner(std::unique_ptr<targets::Target> target)
      : target_(std::move(target)), judge_(target_->platform()) {}

  const trace::Platform& platform() const override { return target_->platform(); }

  std::expected<void, std::string> Run(std::span<const plan::Plan* const> plans,
                                       judge::ReachSink* reach, const Done& done) override {
    return target_->Run(plans, [&](size_t index, std::span<const uint8_t> records) {
      done(index, records, judge_.Check(*plans[index], records, reach));
    });
  }

  std::span<const uint16_t> kernel_edges() const override { return target_->kernel_edges(); }

 private:
  std::unique_ptr<targets::Target> target_;
  judge::Judge judge_;  // keeps a reference to the target's platform
};

}  // namespace

std::expected<void, std::string> RunInBatches(Runner& runner,
                                              std::span<const plan::Plan* const> plans,
                                              const Runner::Done& done) {
  constexpr size_t kBatch = 64;
  for (size_t first = 0; first < plans.size(); first += kBatch) {
    const auto status =
        runner.Run(plans.subspan(first, std::min(kBatch, plans.size() - first)), nullptr,
                   [&](size_t index, std::span<const uint8_t> records,
                       const judge::Verdict& verdict) { done(first + index, records, verdict); });
    if (!status) return status;
  }
  return {};
}

std::unique_ptr<Runner> MakeRunner(std::unique_ptr<targets::Target> target) {
  return std::make_unique<TargetRunner>(std::move(target));
}

std::expected<Ran, std::string> RunOne(Runner& runner, const program::Program& program,
                                       judge::ReachSink* reach) {
  Ran ran{.plan = plan::MakePlan(program, runner.platform()), .records = {}, .verdict = {}};
  const plan::Plan* const plans[] = {&ran.plan};
  auto status = runner.Run(
      plans, reach, [&](size_t, std::span<const uint8_t> records, const judge::Verdict& verdict) {
        ran.records.assign(records.begin(), records.end());
        ran.verdict = verdict;
      });
  if (!status) return std::unexpected(status.error());
  return ran;
}

}  // namespace fpswap::campaign
