// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/origin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/judge/place.h"
#include "harness/program/program.h"
#include "oracle/xstate/layout.h"

namespace fpswap::judge {
namespace {

using ::testing::HasSubstr;

constexpr size_t kXmm3 = 160 + 3 * 16, kXmm5 = 160 + 5 * 16;

// 16 bytes of a pattern, for each `p` others.
std::vector<uint8_t> Value(uint16_t p) {
  std::vector<uint8_t> bytes(16);
  program::FillPattern(p, bytes);
  return bytes;
}

class Origin : public ::testing::Test {
 protected:
  Origin() {
    platform_.host.xsave = xstate::XsaveCpuid::Typical(0xe7, 0);
    around_.now = Empty();
  }
  Image Empty() const { return Image(platform_.host.xsave.max_size); }
  Image With(size_t at, const std::vector<uint8_t>& value) const {
    Image image = Empty();
    std::ranges::copy(value, image.begin() + static_cast<ptrdiff_t>(at));
    return image;
  }
  std::string Of(const std::vector<uint8_t>& seen, size_t home = kXmm5) const {
    return OriginOf(seen, home, around_, platform_);
  }
  trace::Platform platform_;
  Surroundings around_;
};

TEST_F(Origin, AnotherRegisterOfTheVcpuIsNamed) {
  around_.now = With(kXmm3, Value(7));
  EXPECT_EQ(Of(Value(7)), "it is what XMM3 of this vCPU holds");
}

TEST_F(Origin, AnEarlierValueIsToldWithItsStep) {
  around_.before = {Empty(), With(kXmm5, Value(7)), With(kXmm3, Value(8))};
  around_.before_step = {0, 4, 6};
  EXPECT_THAT(Of(Value(7)), HasSubstr("the same register of this vCPU held after step 4"));
  EXPECT_THAT(Of(Value(8)), HasSubstr("XMM3 of this vCPU held after step 6"));
}

TEST_F(Origin, AnotherVcpuAndTheVmmsImagesAreTold) {
  around_.others = {With(kXmm3, Value(7))};
  around_.given = {With(kXmm3, Value(8))};
  EXPECT_EQ(Of(Value(7)), "it is what XMM3 of another vCPU holds");
  EXPECT_EQ(Of(Value(8)), "it is in an image that the VMM holds");
}

TEST_F(Origin, TheHostsOwnRegistersAreRecognised) {
  program::Program program;
  program.steps.push_back({.op = program::Op::kHostDirty, .arg = {0x1234}});
  program::MakeValid(program);
  plan::Plan plan;
  plan.effective = program;
  around_.host = HostPatterns(plan, 1);
  Image left = Empty();
  program::FillPattern(0x1234, left);
  const std::vector<uint8_t> leak(left.begin() + kXmm5, left.begin() + kXmm5 + 16);
  EXPECT_THAT(Of(leak), HasSubstr("of step 0 (host.dirty) left in the registers"));
  program::FillPattern(0x4341, left);
  EXPECT_THAT(Of({left.begin() + kXmm3, left.begin() + kXmm3 + 16}, kXmm3),
              HasSubstr("what the VMM's thread had in its own registers"));
  EXPECT_EQ(HostPatterns(plan, 0).size() + 1, HostPatterns(plan, 1).size()) << "not yet done";
}

TEST_F(Origin, AFlippedBitIsNobodysValue) {
  around_.now = With(kXmm5, Value(7));
  around_.host = HostPatterns({}, 0);
  auto seen = Value(7);
  seen[3] ^= 0x40;
  EXPECT_EQ(Of(seen), "it is what was due but for 1 bit");
}

TEST_F(Origin, NobodysBytesAreSaidToBeAndPlainOnesProveNothing) {
  EXPECT_EQ(Of(Value(9)), "") << "the host's side is not known";
  around_.host = HostPatterns({}, 0);
  EXPECT_THAT(Of(Value(9)), HasSubstr("it may be an earlier program's"));
  EXPECT_EQ(Of(std::vector<uint8_t>(16, 0)), "");
  EXPECT_EQ(Of(std::vector<uint8_t>(16, 0xff)), "");
}

TEST_F(Origin, BytesWithoutAPlaceOfTheirOwnAreFoundToo) {
  around_.before = {With(kXmm3, Value(7))};
  around_.before_step = {2};
  EXPECT_THAT(Of(Value(7), kNoHome), HasSubstr("XMM3 of this vCPU held after step 2"));
}

}  // namespace
}  // namespace fpswap::judge
