// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

#include "harness/program/step.h"

namespace fpswap::program {
namespace {

std::vector<uint8_t> Pattern(uint16_t p, size_t size) {
  std::vector<uint8_t> bytes(size);
  FillPattern(p, bytes);
  return bytes;
}

constexpr uint16_t kSome[] = {2, 3, 4, 0x1234, 0x8000, 0xfffe, 0xffff};

TEST(Pattern, ZeroIsAllZerosAndOneIsAllOnes) {
  EXPECT_EQ(Pattern(0, 600), std::vector<uint8_t>(600, 0x00));
  EXPECT_EQ(Pattern(1, 600), std::vector<uint8_t>(600, 0xff));
}

TEST(Pattern, DiffersAtEveryOffsetOfAWindow) {
  for (unsigned p = 2; p < 0x10000; p += 7) {
    const auto bytes = Pattern(static_cast<uint16_t>(p), 256);
    EXPECT_EQ(std::set(bytes.begin(), bytes.end()).size(), 256u) << "pattern " << p;
  }
}

TEST(Pattern, DiffersBetweenWindowsAtEveryOffset) {
  for (uint16_t p : kSome) {
    const auto bytes = Pattern(p, 12288);
    for (size_t i = 0; i < 256; ++i) {
      std::set<uint8_t> seen;
      for (size_t at = i; at < bytes.size(); at += 256) seen.insert(bytes[at]);
      EXPECT_EQ(seen.size(), 48u) << "pattern " << p << " offset " << i;
    }
  }
}

TEST(Pattern, NoShiftOfALargeComponentGoesUnseen) {
  for (uint16_t p : kSome) {
    const auto bytes = Pattern(p, 12288);
    for (size_t shift = 1; shift < 8192; ++shift) {
      size_t equal = 0;
      for (size_t i = 0; i < 1024; ++i) equal += bytes[i] == bytes[i + shift];
      EXPECT_LT(equal, 64u) << "pattern " << p << " shifted by " << shift;
    }
  }
}

TEST(Pattern, NoTwoPatternsAgreeOnARegisterOf8Bytes) {
  std::set<std::vector<uint8_t>> seen;
  for (unsigned p = 0; p < 0x10000; ++p) seen.insert(Pattern(static_cast<uint16_t>(p), 8));
  EXPECT_EQ(seen.size(), 0x10000u);
}

TEST(Pattern, AShorterFillIsAPrefixOfALongerOne) {
  const auto whole = Pattern(0x1234, 1000);
  for (size_t size : {0, 1, 10, 255, 256, 257, 999}) {
    EXPECT_EQ(Pattern(0x1234, size), std::vector(whole.begin(), whole.begin() + size));
  }
}

// Saved corpora and recorded traces hold pattern numbers, not bytes: these never change.
TEST(Pattern, BytesOfAPatternAreTheSameForEver) {
  EXPECT_EQ(Pattern(2, 8), (std::vector<uint8_t>{0x4b, 0x50, 0x04, 0xfb, 0x81, 0x85, 0x09, 0xb6}));
  EXPECT_EQ(Pattern(0x1234, 8),
            (std::vector<uint8_t>{0x3a, 0xf2, 0xda, 0x15, 0xd1, 0x1b, 0x8c, 0xc2}));
}

TEST(MsrIndex, IsTheManualsNumber) {
  EXPECT_EQ(MsrIndex(Msr::kXss), 0xda0u);
  EXPECT_EQ(MsrIndex(Msr::kXfd), 0x1c4u);
  EXPECT_EQ(MsrIndex(Msr::kXfdErr), 0x1c5u);
}

}  // namespace
}  // namespace fpswap::program
