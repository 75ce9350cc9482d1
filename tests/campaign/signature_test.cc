// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/signature.h"

#include <gtest/gtest.h>

#include "tests/campaign/fakes.h"

namespace fpswap::triage {
namespace {

using fpswap::testing::SomeDivergence;

TEST(Signature, IsTheSameForAnotherRegisterAndAnotherByteOfTheSamePart) {
  judge::Divergence other = SomeDivergence();
  other.where = "YMM11[255:128] byte 0";
  other.step = 40;
  other.seen = {4};
  EXPECT_EQ(SignatureOf(SomeDivergence()).Key(), SignatureOf(other).Key());
  EXPECT_EQ(SignatureOf(SomeDivergence()).Name(), SignatureOf(other).Name());
}

TEST(Signature, DiffersByEachOfItsFields) {
  const std::string key = SignatureOf(SomeDivergence()).Key();
  judge::Divergence d = SomeDivergence();
  d.law = judge::Law::kCoherence;
  EXPECT_NE(SignatureOf(d).Key(), key);
  d = SomeDivergence();
  d.op = static_cast<uint8_t>(program::Op::kGetXsave2);
  EXPECT_NE(SignatureOf(d).Key(), key);
  d = SomeDivergence();
  d.component = xstate::Component::kOpmask;
  EXPECT_NE(SignatureOf(d).Key(), key);
  d = SomeDivergence();
  d.has_component = false;
  EXPECT_NE(SignatureOf(d).Key(), key);
  d = SomeDivergence();
  d.relation = judge::Relation::kInitial;
  EXPECT_NE(SignatureOf(d).Key(), key);
  d = SomeDivergence();
  d.where = "YMM5[127:0] byte 3";  // another part of the register
  EXPECT_NE(SignatureOf(d).Key(), key);
}

TEST(Signature, OfIsolationAndHealthIsTheSameAtEveryStep) {
  for (const judge::Law law : {judge::Law::kIsolation, judge::Law::kHealth}) {
    judge::Divergence d = SomeDivergence();
    d.law = law;
    const std::string key = SignatureOf(d).Key(), name = SignatureOf(d).Name();
    EXPECT_EQ(name.find("vmm.get_xsave"), std::string::npos) << name;
    d.op = static_cast<uint8_t>(program::Op::kXsave);
    EXPECT_EQ(SignatureOf(d).Key(), key);
    EXPECT_EQ(SignatureOf(d).Name(), name);
    d.component = xstate::Component::kOpmask;
    EXPECT_NE(SignatureOf(d).Key(), key);
  }
}

TEST(Signature, KeepsBitRangesAndDropsNumbersAndAddresses) {
  EXPECT_EQ(WhereClass("ZMM31[511:256] byte 12"), "ZMM#[511:256] byte #");
  EXPECT_EQ(WhereClass("MSR 0x1c4"), "MSR #");
  EXPECT_EQ(WhereClass("header XSTATE_BV"), "header XSTATE_BV");
  EXPECT_EQ(WhereClass(""), "");
}

TEST(Signature, NameIsAFolderNameWithWordsInIt) {
  judge::Divergence d = SomeDivergence();
  d.where = "../../etc/passwd 1";
  const std::string name = SignatureOf(d).Name();
  EXPECT_EQ(name.find('/'), std::string::npos) << name;
  EXPECT_NE(name.find("vmm.get_xsave"), std::string::npos) << name;
  EXPECT_NE(name.find("avx"), std::string::npos) << name;
}

TEST(Signature, OfANumberThatNoStepHasIsStillAName) { EXPECT_EQ(OpName(250), "op 250"); }

}  // namespace
}  // namespace fpswap::triage
