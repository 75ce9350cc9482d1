// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/finding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/campaign/platforms.h"
#include "tests/campaign/fakes.h"

namespace fpswap::triage {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::ProgramOf;
using fpswap::testing::TemporaryFolder;
using program::Op;

Finding FindingWith(std::initializer_list<Op> ops) {
  Finding finding;
  finding.verdict.divergences.push_back(fpswap::testing::SomeDivergence());
  finding.signature = SignatureOf(finding.verdict.divergences[0]);
  finding.trace.platform = campaign::EverythingPlatform();
  finding.trace.program = ProgramOf(ops);
  return finding;
}

std::string Name(unsigned number) { return FindingName(FindingWith({}).signature, number); }

Written Write(const fs::path& findings, std::initializer_list<Op> ops) {
  const auto written = WriteFinding(findings, FindingWith(ops));
  EXPECT_TRUE(written.has_value()) << written.error();
  return written.value_or(Written{});
}

TEST(Finding, OfOneSignatureThereIsOneForEachThingThatItNeeds) {
  const TemporaryFolder folder;
  const auto write = [&](std::initializer_list<Op> ops) {
    const Written written = Write(folder.path(), ops);
    return std::pair(written.name, written.added);
  };
  EXPECT_EQ(write({Op::kExitOut, Op::kFninit}), std::pair(Name(1), true));
  EXPECT_EQ(write({Op::kExitOut, Op::kHostDirty}), std::pair(Name(1), false)) << "it has the exit";
  EXPECT_EQ(write({Op::kHostDirty}), std::pair(Name(2), true));
  EXPECT_EQ(write({Op::kFninit}), std::pair(Name(3), true)) << "it needs neither";
  EXPECT_EQ(write({Op::kVzeroall}), std::pair(Name(3), false));
  EXPECT_EQ(write({Op::kMigrate}), std::pair(Name(4), true));
  EXPECT_EQ(write({Op::kXsetbv}), std::pair(Name(1), false)) << "as many as are kept";
  const auto facts = ReadFinding(folder.path() / Name(2));
  ASSERT_TRUE(facts) << facts.error();
  EXPECT_EQ(facts->name, Name(2));
  EXPECT_EQ(facts->triggers, "host.dirty");
  EXPECT_EQ(facts->key, FindingWith({}).signature.Key()) << "the signature is the same";
}

TEST(Finding, ThePlaceOfOneThatIsGoneIsTakenAgain) {
  const TemporaryFolder folder;
  Write(folder.path(), {Op::kExitOut});
  Write(folder.path(), {Op::kHostDirty});
  fs::remove_all(folder.path() / Name(1));
  EXPECT_EQ(Write(folder.path(), {Op::kMigrate}).name, Name(1));
  EXPECT_EQ(FindingsOf(folder.path(), FindingWith({}).signature).size(), 2u);
}

TEST(Finding, OfManyWorkersOneWritesEach) {
  const TemporaryFolder folder;
  constexpr int kWorkers = 8;
  for (int worker = 0; worker < kWorkers; ++worker) {
    if (fork() != 0) continue;
    int added = Write(folder.path(), {Op::kExitOut}).added;
    added += Write(folder.path(), {Op::kHostDirty}).added;
    _exit(added);
  }
  int added = 0, status = 0;
  while (wait(&status) > 0) added += WEXITSTATUS(status);
  EXPECT_EQ(added, 2);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    names.push_back(entry.path().filename());
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAre(Name(1), Name(2)));
}

}  // namespace
}  // namespace fpswap::triage
