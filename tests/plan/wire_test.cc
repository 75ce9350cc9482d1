// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "harness/plan/plan_layout.h"
#include "tests/plan/plan_testing.h"

namespace fpswap::wire {
namespace {

using plan_testing::DrawProgram;
using plan_testing::RichKvm;
using testing::HasSubstr;

std::vector<uint8_t> Bytes(std::string_view text) { return {text.begin(), text.end()}; }

std::vector<uint8_t> SomePlan() {
  std::mt19937_64 random(7);
  std::vector<uint8_t> bytes;
  plan::AppendPlan(plan::MakePlan(DrawProgram(20, random), RichKvm()), bytes);
  return bytes;
}

TEST(Crc32c, GivesThePublishedCheckValues) {
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0)), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(std::vector<uint8_t>(32, 0xff)), 0x62a8ab43u);
  EXPECT_EQ(Crc32c({}), 0u);
}

TEST(FrameReader, GivesFramesBackWhateverTheChunks) {
  std::vector<uint8_t> stream;
  AppendFrame(stream, FrameType::kHello, {});
  AppendFrame(stream, FrameType::kPlans, Bytes("one"));
  AppendFrame(stream, FrameType::kError, std::vector<uint8_t>(5000, 0x46));
  for (const size_t chunk : {1u, 3u, 16u, 17u, 100000u}) {
    FrameReader reader;
    std::vector<std::pair<FrameType, size_t>> seen;
    for (size_t at = 0; at < stream.size(); at += chunk) {
      reader.Feed(std::span(stream).subspan(at, std::min(chunk, stream.size() - at)));
      while (const auto f = reader.Next()) seen.emplace_back(f->type, f->payload.size());
    }
    EXPECT_THAT(seen, testing::ElementsAre(std::pair(FrameType::kHello, 0u),
                                           std::pair(FrameType::kPlans, 3u),
                                           std::pair(FrameType::kError, 5000u)));
    EXPECT_EQ(reader.skipped_bytes(), 0u);
  }
}

TEST(FrameReader, FindsItsPlaceAgainBehindGarbageAndBrokenFrames) {
  std::vector<uint8_t> stream = Bytes("FPgarbageFPSW and a false magic: ");
  const size_t garbage = stream.size();
  std::vector<uint8_t> broken;
  AppendFrame(broken, FrameType::kHello, Bytes("payload"));
  broken.back() ^= 1;
  stream.insert(stream.end(), broken.begin(), broken.end());
  AppendFrame(stream, FrameType::kBatchDone, Bytes("good"));
  FrameReader reader;
  reader.Feed(stream);
  const auto frame = reader.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->type, FrameType::kBatchDone);
  EXPECT_EQ(std::string(frame->payload.begin(), frame->payload.end()), "good");
  EXPECT_EQ(reader.skipped_bytes(), garbage + broken.size());
  EXPECT_FALSE(reader.Next());
}

TEST(FrameReader, RefusesALengthOverTheLimit) {
  std::vector<uint8_t> stream;
  AppendFrame(stream, FrameType::kHello, {});
  const uint32_t length = kMaxFrame + 1;
  std::memcpy(&stream[8], &length, sizeof(length));
  AppendFrame(stream, FrameType::kBatchDone, {});
  FrameReader reader;
  reader.Feed(stream);
  const auto frame = reader.Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->type, FrameType::kBatchDone);
}

TEST(ReadPlan, GivesBackWhatAppendPlanWrote) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    program::Program program = DrawProgram(round % 65, random);
    program.own_vm = round % 2 != 0;
    program.own_thread = round % 3 != 0;
    const plan::Plan plan = plan::MakePlan(program, RichKvm());
    std::vector<uint8_t> bytes;
    plan::AppendPlan(plan, bytes);
    ASSERT_LE(bytes.size(), plan::kMaxPlanBytes);
    std::span<const uint8_t> rest = bytes;
    const auto view = ReadPlan(rest);
    ASSERT_TRUE(view) << view.error();
    EXPECT_TRUE(rest.empty());
    EXPECT_EQ(view->features, plan.effective.features);
    EXPECT_EQ(view->xcr0, plan.xcr0);
    EXPECT_EQ(view->area_size, plan.area_size);
    EXPECT_EQ(view->pke, plan.effective.pke);
    EXPECT_EQ(view->vcpus, plan.effective.vcpus);
    EXPECT_EQ(view->own_vm, plan.effective.own_vm);
    EXPECT_EQ(view->own_thread, plan.effective.own_thread);
    EXPECT_EQ(view->spoils_vcpu, plan.spoils_vcpu);
    EXPECT_EQ(view->steps, plan.effective.steps);
    EXPECT_TRUE(std::ranges::equal(view->code, plan.code));
    EXPECT_TRUE(std::ranges::equal(view->literals, plan.literals));
    ASSERT_EQ(view->actions.size(), plan.actions.size());
    ASSERT_EQ(view->rows.size(), plan.rows.size());
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      EXPECT_EQ(view->rows[i].instruction, plan.rows[i].instruction);
      EXPECT_EQ(view->rows[i].journal, plan.rows[i].journal);
    }
  }
}

TEST(ReadPlan, RefusesEveryTruncation) {
  const auto bytes = SomePlan();
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::span<const uint8_t> rest = std::span(bytes).first(size);
    EXPECT_FALSE(ReadPlan(rest)) << size << " of " << bytes.size() << " bytes";
  }
}

TEST(ReadPlan, PassesOverARefusedPlanWhoseSizeIsGood) {
  auto bytes = SomePlan();
  const size_t first = bytes.size();
  const auto second = SomePlan();
  bytes.insert(bytes.end(), second.begin(), second.end());
  bytes[offsetof(PlanHead, vcpus)] = 77;
  std::span<const uint8_t> rest = bytes;
  const auto refused = ReadPlan(rest);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error(), HasSubstr("vCPUs"));
  EXPECT_EQ(rest.size(), bytes.size() - first);
  EXPECT_TRUE(ReadPlan(rest));
}

// Whatever is accepted after damage must still be within plan.h's bounds.
TEST(ReadPlan, AcceptsNothingOutOfBoundsWhateverBytesAreDamaged) {
  const auto good = SomePlan();
  std::mt19937_64 random(3);
  const size_t head = sizeof(PlanHead) + 20 * (sizeof(PlanStep) + sizeof(PlanCode));
  for (int round = 0; round < 200000; ++round) {
    auto bytes = good;
    for (uint64_t n = 1 + random() % 3; n > 0; --n) {
      bytes[random() % std::min(bytes.size(), head)] = static_cast<uint8_t>(random());
    }
    std::span<const uint8_t> rest = bytes;
    const auto view = ReadPlan(rest);
    if (!view) continue;
    ASSERT_LE(view->code.size(), plan::kCodeSize);
    ASSERT_LE(view->area_size, xstate::kMaxAreaSize);
    for (const PlanCode& row : view->rows) {
      ASSERT_LE(uint64_t{row.journal} + row.journal_bytes, plan::kJournalSize);
      ASSERT_LE(row.instruction, view->code.size());
    }
    for (const PlanAction& action : view->actions) ASSERT_LT(action.last, view->steps.size());
    for (const program::Step& step : view->steps) {
      ASSERT_LT(step.vcpu, view->vcpus);
      if (step.op == program::Op::kMemFill) {
        ASSERT_LT(step.arg[0], program::kSlotCount);
        ASSERT_LE(step.arg[1] + step.arg[2], plan::kSlotSize);
      }
    }
  }
}

TEST(ReadPlan, RefusesAnAreaLargerThanTheBuffersForOne) {
  for (const uint32_t size : {xstate::kMaxAreaSize, xstate::kMaxAreaSize + 1}) {
    auto bytes = SomePlan();
    std::memcpy(&bytes[offsetof(PlanHead, area_size)], &size, sizeof(size));
    std::span<const uint8_t> rest = bytes;
    EXPECT_EQ(ReadPlan(rest).has_value(), size == xstate::kMaxAreaSize) << size;
  }
}

TEST(ReadPlan, RefusesFillsThatLeaveTheirSlotOrImage) {
  using program::Op;
  for (const Op op : {Op::kMemFill, Op::kImageFill}) {
    plan::Plan plan;
    plan.effective.steps = {plan_testing::Do(op, 0, 12000, 12000, 5)};
    plan.rows.resize(1);
    std::vector<uint8_t> bytes;
    plan::AppendPlan(plan, bytes);
    std::span<const uint8_t> rest = bytes;
    const auto view = ReadPlan(rest);
    ASSERT_FALSE(view);
    EXPECT_THAT(view.error(), HasSubstr("slot or image"));
  }
}

}  // namespace
}  // namespace fpswap::wire
