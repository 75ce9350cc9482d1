// SPDX-License-Identifier: GPL-2.0-or-later
//
// oracle/os by itself: expectations worked out from the kernel's sources. The same on the live
// kernel: tests/plan/native_runner_test.cc, tests/targets/native_test.cc.
#include <gtest/gtest.h>

#include "oracle/os/thread.h"
#include "oracle/xstate/image.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::os {
namespace {

using judge::Put;
using xstate::Bit;
using xstate::Component;

constexpr uint64_t kUser = 0x2e7;  // x87 SSE AVX AVX-512 PKRU
constexpr uint32_t kSize = 2696;   // Typical's PKRU ends there

class OsThread : public testing::Test {
 protected:
  OsThread() : features_(judge::TestFeatures(kUser)), thread_(features_, host_) {
    host_.xsave = features_.xsave;
    host_.supported = host_.user_features = kUser;
    thread_.cpu.xcr0 = kUser;
    thread_.cpu.cr4_pke = true;
    for (unsigned i = 0; i < 64; ++i) thread_.cpu.regs.zmm[3][i] = static_cast<uint8_t>(0x40 + i);
    thread_.cpu.regs.k[5] = 0x5555;
    thread_.cpu.regs.pkru = 0xc0;
    thread_.cpu.regs.mxcsr = 0x3f80;
  }

  std::vector<uint8_t> Frame() {
    std::vector<uint8_t> image(kSize);
    ExpectSigframe(thread_, {}, image);
    return image;
  }
  std::vector<uint8_t> Regset() {
    std::vector<uint8_t> image(kSize);
    ExpectRegset(thread_, {}, image);
    return image;
  }
  bool Ymm3IsThere() const { return thread_.cpu.regs.zmm[3][16] == 0x50; }

  cpu::Features features_;
  kvm::Host host_;
  kvm::Vcpu thread_;
};

template <typename T>
T At(const std::vector<uint8_t>& image, size_t at) {
  return xstate::ReadAt<T>(image, at);
}

TEST_F(OsThread, ImagesHaveTheSizeOfTheThreadsComponents) { EXPECT_EQ(ImageSize(host_), kSize); }

TEST_F(OsThread, AFramesSoftwareBytesSayWhatItHolds) {
  const auto image = Frame();
  EXPECT_EQ(At<uint32_t>(image, 464), 0x46505853u);
  EXPECT_EQ(At<uint32_t>(image, 468), kSize + 4);
  EXPECT_EQ(At<uint64_t>(image, 472), kUser);
  EXPECT_EQ(At<uint32_t>(image, 480), kSize);
  for (size_t i = 484; i < 512; ++i) EXPECT_EQ(image[i], 0) << i;
}

TEST_F(OsThread, AFrameAlwaysDeclaresX87AndSse) {
  thread_.cpu.regs = cpu::Registers{};
  const auto image = Frame();
  EXPECT_EQ(At<uint64_t>(image, 512), 3u);
  EXPECT_EQ(At<uint16_t>(image, 0), 0x37f);
  EXPECT_EQ(At<uint32_t>(image, 24), 0x1f80u);
}

TEST_F(OsThread, AFrameKeepsTheStacksBytesWhereNothingIsWritten) {
  std::vector<uint8_t> stack(kSize, 0xa5), image(kSize);
  Put<uint64_t>(stack, 512, 0);
  ExpectSigframe(thread_, stack, image);
  EXPECT_EQ(image[416], 0xa5) << "reserved";
  EXPECT_EQ(image[1000], 0xa5) << "where MPX would be";
  EXPECT_EQ(At<uint64_t>(image, 520), 0u) << "the header is cleared first";
  EXPECT_EQ(At<uint64_t>(image, 568), 0u);
}

TEST_F(OsThread, ARegsetsSoftwareBytesHoldXcr0Alone) {
  const auto image = Regset();
  EXPECT_EQ(At<uint64_t>(image, 464), kUser);
  for (size_t i = 472; i < 512; ++i) EXPECT_EQ(image[i], 0) << i;
}

TEST_F(OsThread, SetregsetWithoutPkruMakesItZero) {
  auto image = Regset();
  Put<uint64_t>(image, 512, At<uint64_t>(image, 512) & ~Bit(Component::kPkru));
  EXPECT_TRUE(SetRegset(thread_, image).ok());
  EXPECT_EQ(thread_.cpu.regs.pkru, 0u) << "KVM_SET_XSAVE would leave it alone";
  EXPECT_TRUE(Ymm3IsThere());
}

// Found on family 19h: the pointers of a regset, lost in the registers while FSW.ES=0, were still
// in the fpstate that XSAVES had no need to write.
TEST_F(OsThread, ARegsetMayShowX87AsItWasSetAndAFrameMayNot) {
  features_.amd = true;
  auto image = Regset();
  Put<uint64_t>(image, 512, 3);
  Put<uint16_t>(image, 32, 0x1234);
  Put<uint64_t>(image, 16, 0xabcd);  // FDP
  ASSERT_TRUE(SetRegset(thread_, image).ok());
  std::vector<uint8_t> out(kSize);
  kvm::Vcpu copy = thread_;
  ExpectRegset(copy, image, out);
  EXPECT_EQ(At<uint64_t>(out, 16), 0xabcdu);
  auto other = image;
  Put<uint64_t>(other, 16, 0xabce);
  ExpectRegset(copy, other, out);
  EXPECT_EQ(At<uint64_t>(out, 16), 0u) << "no other value";
  ExpectSigframe(thread_, image, out);
  EXPECT_EQ(At<uint64_t>(out, 16), 0u) << "XSAVE to the frame has no such optimisation";
  ASSERT_TRUE(Sigreturn(thread_, Frame()).ok());
  ExpectRegset(thread_, image, out);
  EXPECT_EQ(At<uint64_t>(out, 16), 0u) << "loaded from elsewhere since";
}

TEST_F(OsThread, SetregsetRefusesACompactedHeaderAndChangesNothing) {
  auto image = Regset();
  Put<uint64_t>(image, 520, kUser | 1ull << 63);
  Put<uint64_t>(image, 160, 77);
  EXPECT_EQ(SetRegset(thread_, image).error, EINVAL);
  EXPECT_EQ(thread_.cpu.regs.zmm[0][0], 0);
  EXPECT_EQ(thread_.cpu.regs.pkru, 0xc0u);
}

TEST_F(OsThread, SigreturnOfAFrameRestoresAllOfIt) {
  const auto image = Frame();
  const cpu::Registers before = thread_.cpu.regs;
  thread_.cpu.regs = cpu::Registers{};
  EXPECT_TRUE(Sigreturn(thread_, image).ok());
  EXPECT_EQ(thread_.cpu.regs.zmm, before.zmm);
  EXPECT_EQ(thread_.cpu.regs.k, before.k);
  EXPECT_EQ(thread_.cpu.regs.pkru, 0xc0u);
  EXPECT_EQ(thread_.cpu.regs.mxcsr, 0x3f80u);
}

TEST_F(OsThread, SigreturnInitialisesWhatSoftwareBytesDoNotAskFor) {
  auto image = Frame();
  Put<uint64_t>(image, 472, kUser & ~(Bit(Component::kAvx) | Bit(Component::kPkru)));
  EXPECT_TRUE(Sigreturn(thread_, image).ok());
  EXPECT_FALSE(Ymm3IsThere());
  EXPECT_EQ(thread_.cpu.regs.zmm[3][32], 0x60) << "ZMM_Hi256 was asked for";
  EXPECT_EQ(thread_.cpu.regs.pkru, 0u);
  EXPECT_EQ(thread_.cpu.regs.mxcsr, 0x3f80u) << "the kernel's initial image is compacted";
}

TEST_F(OsThread, InitialAvxTakesMxcsrAlongWhereTheKernelKeepsTheStandardFormat) {
  host_.compacted = false;
  auto image = Frame();
  Put<uint64_t>(image, 472, kUser & ~Bit(Component::kAvx));
  EXPECT_TRUE(Sigreturn(thread_, image).ok());
  EXPECT_EQ(thread_.cpu.regs.mxcsr, 0x1f80u);
}

TEST_F(OsThread, AFrameThatIsNoXsaveImageRestoresFxsavesPart) {
  struct {
    size_t offset;
    uint32_t value;
    bool full;
  } const kEdits[] = {
      {464, 0x46505852, false},  // magic1
      {480, 575, false},         // xstate_size less than legacy region and header
      {480, kSize + 1, false},   // more than the thread's
      {468, kSize - 1, false},   // extended_size less than xstate_size
      {468, kSize, true},        // it need not have room for magic2
      {480, 600, false},         // no magic2 there
      {480, kSize - 2, false},   // half of it at most
      {468, 0xffffffff, true},
  };
  for (const auto& edit : kEdits) {
    auto image = Frame();
    const cpu::Registers before = thread_.cpu.regs;
    Put<uint32_t>(image, edit.offset, edit.value);
    EXPECT_TRUE(Sigreturn(thread_, image).ok());
    EXPECT_EQ(Ymm3IsThere(), edit.full) << edit.offset << " " << edit.value;
    EXPECT_EQ(thread_.cpu.regs.k[5] == 0x5555, edit.full);
    EXPECT_EQ(thread_.cpu.regs.zmm[3][0], 0x40) << "XMM3 is FXSAVE's";
    EXPECT_EQ(thread_.cpu.regs.mxcsr, 0x3f80u);
    thread_.cpu.regs = before;
  }
}

TEST_F(OsThread, AShorterImageCountsWhereItsEndIsMarked) {
  auto image = Frame();
  Put<uint32_t>(image, 480, 576);
  Put<uint32_t>(image, 576, 0x46505845);
  EXPECT_TRUE(Sigreturn(thread_, image).ok());
  EXPECT_EQ(thread_.cpu.regs.k[5], 0x5555u) << "all that is asked for is restored, as ever";
}

TEST_F(OsThread, SigreturnTakesACompactedImage) {
  auto image = Frame();
  Put<uint64_t>(image, 512, Bit(Component::kOpmask));
  Put<uint64_t>(image, 520, Bit(Component::kOpmask) | 1ull << 63);
  Put<uint64_t>(image, 576 + 8 * 2, 0x1234);  // k2
  EXPECT_TRUE(Sigreturn(thread_, image).ok());
  EXPECT_EQ(thread_.cpu.regs.k[2], 0x1234u);
  EXPECT_EQ(thread_.cpu.regs.mxcsr, 0x1f80u) << "SDM 13.8.2: RFBM[1] without XSTATE_BV[1]";
}

TEST_F(OsThread, AFrameThatFaultsLeavesInitialState) {
  struct {
    size_t offset;
    uint64_t value;
  } const kBad[] = {{512, 1ull << 8}, {520, 1}, {528, 1}, {24, 0x10000}};
  for (const auto& bad : kBad) {
    auto image = Frame();
    const cpu::Registers before = thread_.cpu.regs;
    Put<uint64_t>(image, bad.offset, bad.value);
    EXPECT_EQ(Sigreturn(thread_, image).error, EFAULT) << bad.offset;
    EXPECT_EQ(thread_.cpu.regs.zmm[3][0], 0);
    EXPECT_EQ(thread_.cpu.regs.k[5], 0u);
    EXPECT_EQ(thread_.cpu.regs.mxcsr, 0x1f80u);
    EXPECT_EQ(thread_.cpu.regs.pkru, 0x55555554u) << "a new process's";
    thread_.cpu.regs = before;
  }
}

}  // namespace
}  // namespace fpswap::os
