// SPDX-License-Identifier: GPL-2.0-or-later
//
// The component table and both layouts, against sums made another way and against this CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"

namespace fpswap::xstate {
namespace {

TEST(Components, AreFoundByTheirShortNames) {
  for (const ComponentRow& row : Rows()) EXPECT_EQ(ComponentByName(row.name), row.id);
  EXPECT_EQ(ComponentByName("ymm"), std::nullopt);
}

TEST(Layout, TypicalPartsHaveTheSizesOfRealOnes) {
  // Cascade Lake without MPX, Zen 4's components, Sapphire Rapids.
  EXPECT_EQ(XsaveCpuid::Typical(0x7, 0).max_size, 832u);
  EXPECT_EQ(XsaveCpuid::Typical(0xe7, 0).max_size, 2688u);
  EXPECT_EQ(XsaveCpuid::Typical(0x2ff, 0).max_size, 2696u);
  EXPECT_EQ(XsaveCpuid::Typical(0x602e7, 0).max_size, 11008u);
  EXPECT_EQ(StandardSize(XsaveCpuid::Typical(0x602e7, 0), 3), 576u);
}

// Offsets for one XCOMP_BV, by walking bytes instead of components: each byte belongs to the first
// component whose turn it is.
std::vector<uint32_t> WalkedOffsets(const XsaveCpuid& cpuid, uint64_t xcomp_bv, uint32_t* end) {
  std::vector<uint32_t> offsets(kComponentCount, 0);
  uint32_t at = 576;
  for (unsigned i = 2; i < kComponentCount; ++i) {
    if (((xcomp_bv >> i) & 1) == 0) continue;
    while (cpuid.sub[i].align64 && at % 64 != 0) ++at;
    offsets[i] = at;
    for (uint32_t n = 0; n < cpuid.sub[i].size; ++n) ++at;
  }
  *end = at;
  return offsets;
}

void CheckEverySubset(const XsaveCpuid& cpuid) {
  const uint64_t all = (cpuid.xcr0 | cpuid.xss) & ~kX87Sse;
  for (uint64_t subset = all;; subset = (subset - 1) & all) {
    uint32_t end = 0;
    const std::vector<uint32_t> offsets = WalkedOffsets(cpuid, subset, &end);
    ASSERT_EQ(CompactedSize(cpuid, subset | 3), end) << std::hex << subset;
    unsigned seen = 0;
    ForEachCompacted(cpuid, subset, ~uint64_t{0}, [&](Component c, uint64_t at, uint64_t size) {
      ++seen;
      ASSERT_EQ(at, offsets[static_cast<unsigned>(c)]);
      ASSERT_EQ(at, CompactedOffset(cpuid, subset | kXcompBvCompacted, c));
      ASSERT_EQ(size, cpuid.sub[static_cast<unsigned>(c)].size);
    });
    ASSERT_EQ(seen, std::popcount(subset));
    if (subset == 0) break;
  }
}

TEST(Layout, PlacesTheComponentsOfEveryXcompBvOneAfterTheOther) {
  CheckEverySubset(XsaveCpuid::Typical(0x602ff, 0x1800));
  CheckEverySubset(cpu::testing::Host().features.xsave);
}

TEST(Layout, GivesTheSizesThatCpuidGives) {
  const XsaveCpuid& cpuid = cpu::testing::Host().features.xsave;
  EXPECT_EQ(StandardSize(cpuid, cpuid.xcr0), cpuid.max_size);
  if (!cpuid.xsaves) GTEST_SKIP() << "this CPU lacks XSAVES";
  uint32_t ebx = 0;
  asm volatile("cpuid" : "=b"(ebx) : "a"(0xd), "c"(1) : "edx");
  // EBX is for XCR0 | IA32_XSS as they are; IA32_XSS can't be read here, so one of its subsets.
  const uint64_t xcr0 = cpu::testing::Host().xcr0;
  std::vector<uint32_t> possible;
  for (uint64_t xss = cpuid.xss;; xss = (xss - 1) & cpuid.xss) {
    possible.push_back(CompactedSize(cpuid, xcr0 | xss));
    if (xss == 0) break;
  }
  EXPECT_NE(std::ranges::find(possible, ebx), possible.end()) << "EBX " << ebx;
}

TEST(Layout, SaturatesInsteadOfWrappingForHostileSizes) {
  XsaveCpuid cpuid = XsaveCpuid::Typical(0x602ff, 0);
  for (XsaveCpuid::Sub& sub : cpuid.sub) sub = {UINT32_MAX, UINT32_MAX, false, true, false};
  EXPECT_EQ(StandardSize(cpuid, ~uint64_t{0}), UINT32_MAX);
  EXPECT_EQ(CompactedSize(cpuid, ~uint64_t{0}), UINT32_MAX);
  EXPECT_EQ(CompactedOffset(cpuid, ~uint64_t{0}, Component::kApx), UINT32_MAX);
}

TEST(ByteNames, AreTheManualsForEachPartOfTheArea) {
  const XsaveCpuid cpuid = XsaveCpuid::Typical(0x602ff, 0);
  const struct {
    uint32_t offset;
    Component component;
    const char* text;
  } cases[] = {
      {0, Component::kX87, "FCW byte 0"},
      {24, Component::kSse, "MXCSR byte 0"},
      {32 + 2 * 16 + 4, Component::kX87, "ST2 byte 4"},
      {32 + 12, Component::kX87, "ST0 pad byte 12"},
      {160 + 15 * 16 + 1, Component::kSse, "XMM15 byte 1"},
      {512, Component::kX87, "header XSTATE_BV byte 0"},
      {527, Component::kX87, "header XCOMP_BV byte 7"},
      {576 + 5 * 16 + 3, Component::kAvx, "YMM5[255:128] byte 3"},
      {960 + 16, Component::kBndregs, "BND1 byte 0"},
      {1024 + 8, Component::kBndcsr, "BNDSTATUS byte 0"},
      {1088 + 63, Component::kOpmask, "k7 byte 7"},
      {1152 + 32, Component::kZmmHi256, "ZMM1[511:256] byte 0"},
      {1664 + 64 + 9, Component::kHi16Zmm, "ZMM17 byte 9"},
      {2688, Component::kPkru, "PKRU byte 0"},
      {2692, Component::kPkru, "pkru byte 4"},
      {2752 + 1, Component::kTilecfg, "tilecfg byte 1"},
      {2816 + 1024 + 7, Component::kTiledata, "TMM1 byte 7"},
      {11008, Component::kX87, "unused byte 11008"},
      {UINT32_MAX, Component::kX87, "unused byte 4294967295"},
  };
  for (const auto& c : cases) {
    const ByteName name = NameOfByte(cpuid, c.offset);
    EXPECT_STREQ(name.text, c.text);
    EXPECT_EQ(name.component, c.component) << c.text;
  }
}

// SDM vol. 1, tables 10-2 and 13-1: the fields of the legacy region, with and without REX.W. All
// else up to byte 463 is reserved; what is behind is not the processor's.
TEST(LegacyTable, EveryByteIsAFieldOrReserved) {
  const struct {
    unsigned begin, end;
  } fields[] = {{0, 5},      // FCW, FSW, FTW
                {6, 12},     // FOP, FIP[31:0]
                {12, 14},    // FCS or FIP
                {16, 20},    // FDP[31:0]
                {20, 22},    // FDS or FDP
                {24, 32},    // MXCSR, MXCSR_MASK
                {160, 416},  // XMM
                {464, 512}};
  for (const bool wide : {false, true}) {
    std::vector<bool> named(kLegacySize, false);
    for (const auto& f : fields) std::fill(named.begin() + f.begin, named.begin() + f.end, true);
    for (const unsigned pointer : {14u, 15u, 22u, 23u}) named[pointer] = wide;
    for (unsigned i = 0; i < 8; ++i) std::fill_n(named.begin() + 32 + 16 * i, 10, true);
    for (uint32_t at = 0; at < kLegacySize; ++at) {
      EXPECT_EQ(IsReservedLegacyByte(at, wide), !named[at]) << "byte " << at << ", wide " << wide;
    }
  }
}

TEST(Image, ViewsOfTooFewBytesAreEmptyAndReadAsZero) {
  const XsaveCpuid cpuid = XsaveCpuid::Typical(0x602ff, 0x1800);
  std::vector<uint8_t> bytes(kMaxAreaSize, 0xff);
  for (size_t size = 0; size <= bytes.size(); size += size < 1100 ? 1 : 97) {
    // An exact allocation, so that a sanitizer sees the first byte too far.
    std::vector<uint8_t> exact(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    const MutableImage image(exact);
    EXPECT_EQ(image.view().xstate_bv(), size >= 520 ? ~uint64_t{0} : 0);
    EXPECT_EQ(image.view().compacted(), size >= 528);
    EXPECT_EQ(image.view().st(7).size(), size >= 154 ? 10u : 0u);
    for (const ComponentRow& row : Rows()) {
      const auto view = image.view().component(cpuid, row.id);
      const auto part = image.component(cpuid, row.id);
      EXPECT_EQ(view.data(), part.data());
      for (uint8_t& b : part) b ^= 1;
    }
    image.set_xcomp_bv(0);
    image.set_mxcsr(0x1f80);
    for (const ComponentRow& row : Rows()) {
      const auto part = image.component(cpuid, row.id);
      EXPECT_TRUE(part.empty() || part.size() == row.size) << row.name;
      for (uint8_t& b : part) b ^= 1;
    }
    image.SetInitial();
    EXPECT_EQ(image.view().fcw(), size >= 2 ? 0x37f : 0);
  }
}

TEST(Image, HostileLayoutsGiveEmptySpans) {
  XsaveCpuid cpuid;
  for (XsaveCpuid::Sub& sub : cpuid.sub) sub = {UINT32_MAX, 0xfffffff0, false, true, false};
  std::vector<uint8_t> bytes(kMaxAreaSize, 0);
  const MutableImage image(bytes);
  for (const uint64_t xcomp_bv : {uint64_t{0}, ~uint64_t{0}}) {
    image.set_xcomp_bv(xcomp_bv);
    for (const ComponentRow& row : Rows()) EXPECT_TRUE(image.component(cpuid, row.id).empty());
  }
}

TEST(Image, FindsComponentsInTheFormatThatTheHeaderNames) {
  const XsaveCpuid cpuid = XsaveCpuid::Typical(0x602ff, 0x1800);
  std::vector<uint8_t> bytes(kMaxAreaSize, 0);
  const MutableImage image(bytes);
  EXPECT_EQ(image.component(cpuid, Component::kHi16Zmm).data() - bytes.data(), 1664);
  EXPECT_TRUE(image.component(cpuid, Component::kCetU).empty());
  EXPECT_TRUE(image.component(cpuid, Component::kSse).empty());
  image.set_xcomp_bv(kXcompBvCompacted |
                     (Component::kPkru | Component::kCetU | Component::kTilecfg));
  EXPECT_TRUE(image.component(cpuid, Component::kHi16Zmm).empty());
  EXPECT_EQ(image.component(cpuid, Component::kPkru).data() - bytes.data(), 576);
  EXPECT_EQ(image.component(cpuid, Component::kCetU).data() - bytes.data(), 584);
  EXPECT_EQ(image.component(cpuid, Component::kTilecfg).data() - bytes.data(), 640);
}

}  // namespace
}  // namespace fpswap::xstate
