// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/campaign/platforms.h"
#include "harness/program/text.h"
#include "harness/trace/record.h"

namespace fpswap::campaign {
namespace {

using trace::RecordKind;

std::vector<uint8_t> EndingAt(uint16_t step, trace::EndReason reason) {
  std::vector<uint8_t> records;
  const trace::EndRecord end{.reason = static_cast<uint8_t>(reason)};
  trace::AppendRecord(records, RecordKind::kEnd, 0, step,
                      {reinterpret_cast<const uint8_t*>(&end), sizeof end});
  return records;
}

TEST(FirstDifference, AProgramThatIsDoneIsDoneWhereverTheAgentPutsIt) {
  const auto first = EndingAt(0, trace::EndReason::kDone),
             last = EndingAt(2, trace::EndReason::kDone),
             died = EndingAt(2, trace::EndReason::kAgentDied),
             died_sooner = EndingAt(1, trace::EndReason::kAgentDied);
  EXPECT_FALSE(FirstDifference(first, last));
  EXPECT_TRUE(FirstDifference(last, died));
  EXPECT_TRUE(FirstDifference(died, died_sooner));
}

TEST(CommonProgram, TellsWhatIsLeftOutAndForWhom) {
  const trace::Platform all = EverythingPlatform();
  trace::Platform fewer = all;
  fewer.can.reset(static_cast<uint8_t>(program::Op::kSetFpu));
  const auto program = program::ParseText("fpswap 1\nsse.load\nvmm.set_fpu\nsse.store\n");
  ASSERT_TRUE(program);
  const trace::Platform* const platforms[] = {&all, &fewer};
  const Common common = CommonProgram(*program, platforms);
  EXPECT_EQ(common.program.steps.size(), 2u);
  ASSERT_EQ(common.left_out.size(), 1u);
  EXPECT_EQ(common.left_out[0].platform, 1u);
  EXPECT_EQ(common.left_out[0].step, program->steps[1]);
  EXPECT_FALSE(common.left_out[0].reason.empty());
}

}  // namespace
}  // namespace fpswap::campaign
