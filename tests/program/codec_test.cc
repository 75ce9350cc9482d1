// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/codec.h"

#include <gtest/gtest.h>

#include "harness/program/text.h"
#include "tests/program/samples.h"

namespace fpswap::program {
namespace {

std::vector<uint8_t> RandomBytes(Rng& rng, size_t size) {
  std::vector<uint8_t> bytes(size);
  // Small numbers often: they are opcodes.
  for (uint8_t& byte : bytes) {
    byte = static_cast<uint8_t>(rng.OneIn(2) ? rng.Next() : rng.Below(160));
  }
  return bytes;
}

TEST(Codec, DecodingAnEncodedProgramGivesItBack) {
  Rng rng(1);
  for (int n = 0; n < 5000; ++n) {
    const Program p = AnyProgram(rng);
    const auto bytes = Encode(p);
    ASSERT_LE(bytes.size(), kMaxEncodedSize);
    ASSERT_EQ(Decode(bytes), p) << PrintText(p);
  }
}

TEST(Codec, EveryByteStringDecodesToAValidProgramWithOneEncoding) {
  Rng rng(2);
  for (int n = 0; n < 20000; ++n) {
    const auto bytes = RandomBytes(rng, rng.Below(300));
    const Program p = Decode(bytes);
    ASSERT_TRUE(IsValid(p));
    const auto encoded = Encode(p);
    ASSERT_EQ(Decode(encoded), p);
    ASSERT_EQ(Encode(Decode(encoded)), encoded);
  }
}

TEST(Codec, NothingIsAProgramWithoutSteps) {
  const Program p = Decode({});
  EXPECT_TRUE(IsValid(p));
  EXPECT_EQ(p.features, 0u);
  EXPECT_EQ(p.vcpus, 1);
  EXPECT_TRUE(p.steps.empty());
}

TEST(Codec, CutShortZerosFollow) {
  const Program whole{.steps = {Step{.op = Op::kMemFill, .arg = {3, 0x1ff, 12288, 0xabcd}}}};
  const auto bytes = Encode(whole);
  const Program cut = Decode(std::span(bytes).first(bytes.size() - 4));
  ASSERT_EQ(cut.steps.size(), 1u);
  EXPECT_EQ(cut.steps[0].arg, (std::array<uint64_t, kArgCount>{3, 0x1ff, 1, 0}));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_TRUE(IsValid(Decode(std::span(bytes).first(size))));
  }
}

TEST(Codec, BytesThatAreNoOpcodeAreSkipped) {
  auto bytes = Encode(Program{});
  bytes.insert(bytes.end(), {0, 255, 19, static_cast<uint8_t>(Op::kFninit), 0, 0});
  const Program p = Decode(bytes);
  ASSERT_EQ(p.steps.size(), 1u);
  EXPECT_EQ(p.steps[0].op, Op::kFninit);
}

TEST(Codec, NumbersOutOfRangeWrap) {
  auto bytes = Encode(Program{});
  bytes.insert(bytes.end(), {static_cast<uint8_t>(Op::kSseLoad), 0xf3, 0x34, 0x12});
  EXPECT_EQ(Decode(bytes).steps.at(0), (Step{.op = Op::kSseLoad, .arg = {3, 0x1234}}));
}

TEST(Codec, HugeInputIsReadToTheBoundOnly) {
  const std::vector<uint8_t> huge(64 << 20, static_cast<uint8_t>(Op::kFninit));
  const Program p = Decode(huge);
  EXPECT_TRUE(IsValid(p));
  EXPECT_EQ(p.steps.size(), kMaxSteps);
}

// Saved corpora are these bytes.
TEST(Codec, TheByteFormNeverChanges) {
  const Program p{.features = 7,
                  .xcr0 = 3,
                  .pke = true,
                  .vcpus = 2,
                  .steps = {Step{.op = Op::kFldcw, .vcpu = 1, .arg = {0x37f}},
                            Step{.op = Op::kXrstor, .arg = {2, 8, 0x102, 1}},
                            Step{.op = Op::kRaw, .arg = {2, 0x0b0f}},
                            Step{.op = Op::kImageFill, .arg = {1, 0x210, 16, 5}}}};
  const std::vector<uint8_t> bytes = {
      1,   3, 7,    0,    0,    0,  0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,  // header
      3,   1, 0x7f, 3,                                                   // x87.fldcw
      64,  0, 2,    8,    2,    1,  0, 0, 0, 0, 0, 0, 1,                 // xrstor
      86,  0, 1,    0x0f, 0x0b,                                          // raw
      125, 0, 1,    0x10, 2,    15, 0, 5, 0,                             // vmm.image_fill
  };
  EXPECT_EQ(Encode(p), bytes);
  EXPECT_EQ(Decode(bytes), p);
}

TEST(Codec, WhereVcpusLiveIsInTheHeadersByte) {
  Program p{.features = 0, .xcr0 = 0, .pke = false, .vcpus = 3, .own_vm = true};
  EXPECT_EQ(Encode(p)[1], 2 << 1 | 8);
  p.own_vm = false;
  p.own_thread = true;
  EXPECT_EQ(Encode(p)[1], 2 << 1 | 16);
  EXPECT_EQ(Decode(Encode(p)), p);
}

TEST(Validity, EachRuleIsChecked) {
  const Program good{.vcpus = 2, .steps = {Step{.op = Op::kSseLoad, .vcpu = 1, .arg = {15, 7}}}};
  EXPECT_TRUE(IsValid(good));
  const auto broken = [&](auto change) {
    Program p = good;
    change(p);
    EXPECT_FALSE(IsValid(p));
    MakeValid(p);
    EXPECT_TRUE(IsValid(p));
  };
  broken([](Program& p) { p.vcpus = 0; });
  broken([](Program& p) { p.vcpus = kMaxVcpus + 1; });
  broken([](Program& p) { p.steps[0].vcpu = 2; });
  broken([](Program& p) { p.steps[0].op = static_cast<Op>(0); });
  broken([](Program& p) { p.steps[0].arg[0] = 16; });
  broken([](Program& p) { p.steps[0].arg[1] = 0x10000; });
  broken([](Program& p) { p.steps[0].arg[2] = 1; });
  broken([](Program& p) { p.steps.resize(kMaxSteps + 1); });
  broken([](Program& p) { p.steps[0] = Step{.op = Op::kRaw}; });
  broken([](Program& p) { p.steps[0] = Step{.op = Op::kRaw, .arg = {16}}; });
  broken([](Program& p) { p.steps[0] = Step{.op = Op::kRaw, .arg = {1, 0x100}}; });
  broken([](Program& p) { p.steps[0] = Step{.op = Op::kRaw, .arg = {15, 0, uint64_t{1} << 56}}; });
  broken([](Program& p) { p.steps[0] = Step{.op = Op::kRaw, .arg = {1, 1, 0, 1}}; });
}

TEST(Validity, MakingValidKeepsWhatIsValid) {
  Rng rng(5);
  for (int n = 0; n < 2000; ++n) {
    const Program p = AnyProgram(rng);
    ASSERT_TRUE(IsValid(p));
    Program same = p;
    MakeValid(same);
    ASSERT_EQ(same, p);
  }
}

TEST(Validity, AnyFieldsAreBroughtIntoRange) {
  Rng rng(6);
  for (int n = 0; n < 5000; ++n) {
    Program p{.vcpus = static_cast<uint8_t>(rng.Next())};
    for (uint64_t k = rng.Below(100); k != 0; --k) {
      p.steps.push_back(Step{.op = static_cast<Op>(rng.Next()),
                             .vcpu = static_cast<uint8_t>(rng.Next()),
                             .arg = {rng.Next(), rng.Next(), rng.Next(), rng.Next()}});
    }
    MakeValid(p);
    ASSERT_TRUE(IsValid(p));
  }
}

}  // namespace
}  // namespace fpswap::program
