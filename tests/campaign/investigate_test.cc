// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/investigate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "harness/files/files.h"
#include "harness/trace/trace.h"
#include "harness/triage/cause.h"
#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::Contains;
using fpswap::testing::FakeRunner;
using fpswap::testing::ProgramOf;
using fpswap::testing::SomeDivergence;
using fpswap::testing::TemporaryFolder;
using program::Op;
using program::Program;
using ::testing::HasSubstr;
using ::testing::Not;

judge::Verdict VzeroallThenGetDiverges(const Program& program) {
  judge::Verdict verdict;
  if (Contains(program, Op::kVzeroall) && Contains(program, Op::kGetXsave)) {
    verdict.divergences.push_back(SomeDivergence());
  }
  return verdict;
}

Program Guilty() {
  return ProgramOf({Op::kFninit, Op::kVzeroall, Op::kEmms, Op::kGetXsave, Op::kFchs});
}

std::expected<void, std::string> NotAnnounced(const Program&) { return {}; }

// Runs `program`, notes and investigates it as a worker does.
std::expected<void, std::string> Handle(Investigator& investigator, FakeRunner& runner,
                                        const Program& program,
                                        std::span<const Program> before = {}) {
  auto ran = RunOne(runner, program);
  if (!ran) return std::unexpected(ran.error());
  if (ran->verdict.ok()) return {};
  for (const triage::Signature& wanted : investigator.Note(ran->verdict, program)) {
    if (auto status = investigator.Investigate(*ran, wanted, before, NotAnnounced); !status) {
      return status;
    }
  }
  return {};
}

std::vector<fs::path> FoldersIn(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) found.push_back(entry.path());
  return found;
}

TEST(Investigator, WritesAWholeFindingWithTheSmallestProgram) {
  const TemporaryFolder folder;
  FakeRunner runner(VzeroallThenGetDiverges);
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  const auto found = FoldersIn(folder.path());
  ASSERT_EQ(found.size(), 1u);
  const auto program = files::ReadProgram(found[0] / "program.fps");
  ASSERT_TRUE(program) << program.error();
  EXPECT_EQ(program->steps.size(), 2u);
  const auto bytes = files::ReadFile(found[0] / "trace.fpt", trace::kMaxTraceSize);
  ASSERT_TRUE(bytes);
  const auto trace = trace::ReadTrace(files::AsBytes(*bytes));
  ASSERT_TRUE(trace) << trace.error();
  EXPECT_EQ(trace->program, *program);
  const auto verdict =
      nlohmann::json::parse(files::ReadFile(found[0] / "verdict.json", 1 << 20).value());
  EXPECT_EQ(verdict["repeats"], 5);
  EXPECT_EQ(verdict["reruns"], 5);
  const std::string readme = files::ReadFile(found[0] / "README.md", 1 << 20).value();
  EXPECT_THAT(readme, HasSubstr("YMM5 was to be 010203 and was 090807"));
  EXPECT_THAT(readme, HasSubstr("fpswap run " + found[0].filename().string() + "/program.fps"));
  EXPECT_TRUE(fs::exists(found[0] / "platform.json"));
  EXPECT_FALSE(fs::exists(found[0] / "before"));
}

TEST(Investigator, LooksAtASignatureOnceAndCountsItsProgramsAfterwards) {
  const TemporaryFolder folder;
  FakeRunner runner(VzeroallThenGetDiverges);
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  const size_t ran = runner.ran();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  EXPECT_EQ(runner.ran(), ran + 3) << "no program more than those three";
  ASSERT_EQ(investigator.new_seen().size(), 1u);
  EXPECT_EQ(investigator.new_seen().begin()->second, 4u);
}

TEST(Investigator, LeavesAFindingOfAnEarlierRunAsItIsAndStillCountsIt) {
  const TemporaryFolder folder;
  FakeRunner runner(VzeroallThenGetDiverges);
  {
    Investigator earlier(runner, {}, {.findings = folder.path()});
    ASSERT_TRUE(Handle(earlier, runner, Guilty()));
  }
  const size_t ran = runner.ran();
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  EXPECT_EQ(runner.ran(), ran + 1);
  EXPECT_EQ(investigator.new_seen().size(), 1u);
  EXPECT_EQ(FoldersIn(folder.path()).size(), 1u);
}

TEST(Investigator, KeepsWhatRanBeforeWhereItDoesNotRepeatAlone) {
  const TemporaryFolder folder;
  bool first = true;
  FakeRunner runner([&](const Program& program) {
    if (!std::exchange(first, false)) return judge::Verdict{};
    return VzeroallThenGetDiverges(program);
  });
  Investigator investigator(runner, {}, {.findings = folder.path()});
  const std::vector<Program> before = {ProgramOf({Op::kFnclex}), ProgramOf({Op::kEmms})};
  ASSERT_TRUE(Handle(investigator, runner, Guilty(), before));
  const auto found = FoldersIn(folder.path());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(files::ReadProgram(found[0] / "before" / "01.fps").value(), before[1]);
  EXPECT_EQ(files::ReadProgram(found[0] / "program.fps")->steps.size(), 5u) << "not minimised";
  EXPECT_THAT(files::ReadFile(found[0] / "README.md", 1 << 20).value(),
              HasSubstr("not repeated in 5 runs"));
}

TEST(Investigator, SaysHowOftenAFlakyOneRepeatsAndStillMakesItSmaller) {
  const TemporaryFolder folder;
  unsigned count = 0;
  FakeRunner runner([&](const Program& program) {
    if (++count % 2 == 0) return judge::Verdict{};
    return VzeroallThenGetDiverges(program);
  });
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  const auto found = FoldersIn(folder.path());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(files::ReadProgram(found[0] / "program.fps")->steps.size(), 2u);
  const auto verdict =
      nlohmann::json::parse(files::ReadFile(found[0] / "verdict.json", 1 << 20).value());
  EXPECT_GT(verdict["repeats"], 0);
  EXPECT_LT(verdict["repeats"], 5);
}

TEST(Investigator, CountsKnownDivergencesWithoutWritingThem) {
  const TemporaryFolder folder;
  triage::Known known;
  known.name = "avx-stale";
  known.laws = {SomeDivergence().law};
  known.ops = {static_cast<uint8_t>(Op::kGetXsave)};
  known.components = {xstate::Component::kAvx};
  known.relations = {judge::Relation::kStale};
  known.where = {SomeDivergence().where};
  const std::vector<triage::Known> all = {known};
  FakeRunner runner(VzeroallThenGetDiverges);
  Investigator investigator(runner, all, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  EXPECT_EQ(investigator.known_seen().at("avx-stale"), 1u);
  EXPECT_TRUE(investigator.new_seen().empty());
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Investigator, AnnouncesEachProgramBeforeItRunsAndStopsWhereItCannot) {
  const TemporaryFolder folder;
  FakeRunner runner(VzeroallThenGetDiverges);
  Investigator investigator(runner, {}, {.findings = folder.path()});
  const auto ran = RunOne(runner, Guilty());
  ASSERT_TRUE(ran);
  const auto unseen = investigator.Note(ran->verdict, Guilty());
  ASSERT_EQ(unseen.size(), 1u);
  const size_t before = runner.ran();
  const auto status = investigator.Investigate(*ran, unseen[0], {}, [](const Program&) {
    return std::unexpected(std::string("disk full"));
  });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error(), "disk full");
  EXPECT_EQ(runner.ran(), before) << "nothing ran that was not announced";
  EXPECT_EQ(FoldersIn(folder.path()).size(), 1u) << "what was known by then is written";
}

TEST(Investigator, SaysSoWhenAFindingCannotBeWrittenAndLooksAgainNextTime) {
  const TemporaryFolder folder;
  ASSERT_TRUE(files::WriteFile(folder.path() / "file", "in the way"));
  FakeRunner runner(VzeroallThenGetDiverges);
  Investigator investigator(runner, {}, {.findings = folder.path() / "file" / "findings"});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  EXPECT_THAT(investigator.write_error(), HasSubstr("could not be written"));
  EXPECT_THAT(investigator.write_error(), Not(HasSubstr("/.")))
      << "the finding's own name, not that of a temporary file";
  EXPECT_EQ(investigator.Note(VzeroallThenGetDiverges(Guilty()), Guilty()).size(), 1u);
}

TEST(Investigator, WriteErrorIsOfTheLastFindingOnly) {
  const TemporaryFolder folder;
  ASSERT_TRUE(files::WriteFile(folder.path() / "findings", "in the way"));
  FakeRunner runner(VzeroallThenGetDiverges);
  Investigator investigator(runner, {}, {.findings = folder.path() / "findings"});
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  ASSERT_NE(investigator.write_error(), "");
  EXPECT_TRUE(investigator.new_seen().empty()) << "it has no finding";
  fs::remove(folder.path() / "findings");
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  EXPECT_EQ(investigator.write_error(), "");
  EXPECT_EQ(FoldersIn(folder.path() / "findings").size(), 1u);
}

// A common divergence first, and another one behind it.
judge::Verdict TwoDiverge(const Program& program) {
  judge::Verdict verdict = VzeroallThenGetDiverges(program);
  if (!Contains(program, Op::kFchs)) return verdict;
  verdict.divergences.push_back(SomeDivergence());
  verdict.divergences.back().law = judge::Law::kIsolation;
  return verdict;
}

TEST(Investigator, LooksAtEachNewDivergenceOfAVerdictNotOnlyTheFirst) {
  const TemporaryFolder folder;
  FakeRunner runner(TwoDiverge);
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner,
                     ProgramOf({Op::kVzeroall, Op::kGetXsave})));  // from here on it is "seen"
  ASSERT_TRUE(Handle(investigator, runner, Guilty()));
  EXPECT_EQ(investigator.new_seen().size(), 2u);
  EXPECT_EQ(FoldersIn(folder.path()).size(), 2u);
  EXPECT_EQ(
      investigator.new_seen().at(triage::SignatureOf(TwoDiverge(Guilty()).divergences[0]).Name()),
      2u);
}

// A worker is killed when one of two was looked into.
TEST(Investigator, WhatHasNoFindingYetIsNewAgainInTheNextLife) {
  const TemporaryFolder folder;
  FakeRunner runner(TwoDiverge);
  Investigator killed(runner, {}, {.findings = folder.path()});
  const auto ran = RunOne(runner, Guilty());
  ASSERT_TRUE(ran);
  const auto unseen = killed.Note(ran->verdict, Guilty());
  ASSERT_EQ(unseen.size(), 2u);
  ASSERT_TRUE(killed.Investigate(*ran, unseen[0], {}, NotAnnounced));
  EXPECT_EQ(killed.new_count(), 2u);
  Investigator next(runner, {}, {.findings = folder.path()});
  next.Restore(killed.known_seen(), killed.new_seen());
  const auto again = next.Note(ran->verdict, Guilty());
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0], unseen[1]);
}

// Two bugs with one signature: one needs an exit, the other the competitor.
judge::Verdict TwoBugs(const Program& program) {
  const bool one = Contains(program, Op::kExitOut), other = Contains(program, Op::kHostDirty);
  return one || other ? VzeroallThenGetDiverges(program) : judge::Verdict{};
}

Program With(std::initializer_list<Op> triggers) {
  Program program = Guilty();
  for (const Op op : triggers) program.steps.insert(program.steps.begin() + 2, {.op = op});
  return program;
}

TEST(Investigator, ABugDoesNotHideAnotherWithItsSignature) {
  const TemporaryFolder folder;
  FakeRunner runner(TwoBugs);
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, With({Op::kExitOut})));
  const size_t ran = runner.ran();
  ASSERT_TRUE(Handle(investigator, runner, With({Op::kExitOut, Op::kHostDirty})));
  EXPECT_EQ(runner.ran(), ran + 1) << "it has what the first needs";
  ASSERT_TRUE(Handle(investigator, runner, With({Op::kHostDirty, Op::kHostSignal})));
  const std::string name = triage::SignatureOf(SomeDivergence()).Name();
  EXPECT_EQ(investigator.new_seen(), (Investigator::Counts{{name, 2}, {name + "-2", 1}}));
  const auto second = files::ReadProgram(folder.path() / (name + "-2") / "program.fps");
  ASSERT_TRUE(second) << second.error();
  EXPECT_EQ(triage::Triggers(*second), "host.dirty");
  EXPECT_THAT(files::ReadFile(folder.path() / (name + "-2") / "README.md", 1 << 20).value(),
              HasSubstr("fpswap run " + name + "-2/program.fps"));
  // The next run knows both.
  Investigator next(runner, {}, {.findings = folder.path()});
  EXPECT_TRUE(next.Note(TwoBugs(With({Op::kHostDirty})), With({Op::kHostDirty})).empty());
  EXPECT_EQ(next.new_seen(), (Investigator::Counts{{name + "-2", 1}}));
}

// The finding could not be made smaller, so that it has triggers which it does not need.
TEST(Investigator, WhatIsNotMadeSmallToTheEndIsNoOtherBug) {
  const TemporaryFolder folder;
  FakeRunner runner(TwoBugs);
  Investigator investigator(runner, {}, {.findings = folder.path(), .budget = 3});
  ASSERT_TRUE(Handle(investigator, runner, With({Op::kExitOut})));
  ASSERT_TRUE(Handle(investigator, runner, With({Op::kHostDirty})));
  EXPECT_EQ(FoldersIn(folder.path()).size(), 1u);
}

// Its triggers come and go with the program, as where an earlier program matters.
TEST(Investigator, LooksForOthersLessAndLess) {
  const TemporaryFolder folder;
  bool alone = false;
  FakeRunner runner([&](const Program& program) {
    return alone ? judge::Verdict{} : VzeroallThenGetDiverges(program);
  });
  Investigator investigator(runner, {}, {.findings = folder.path()});
  ASSERT_TRUE(Handle(investigator, runner, With({Op::kExitOut})));
  alone = true;
  unsigned looked = 0;
  const Ran ran{plan::MakePlan(With({Op::kHostDirty}), runner.platform()),
                {},
                VzeroallThenGetDiverges(Guilty())};
  for (unsigned i = 1; i <= 100; ++i) {
    for (const auto& wanted : investigator.Note(ran.verdict, ran.plan.effective)) {
      ASSERT_TRUE(investigator.Investigate(ran, wanted, {}, NotAnnounced));
      ++looked;
    }
  }
  EXPECT_EQ(looked, 7u) << "1, 2, 4 ... 64";
  EXPECT_EQ(investigator.new_seen().begin()->second, 101u);
  EXPECT_EQ(investigator.new_count(), 1u);
}

// A target that is broken throughout: another signature each time.
TEST(Investigator, TakesItsShareOfTheTimeAndNoMore) {
  const TemporaryFolder folder;
  unsigned signature = 0;
  FakeRunner runner([&](const Program& program) {
    judge::Verdict verdict = VzeroallThenGetDiverges(program);
    for (judge::Divergence& d : verdict.divergences) d.where = std::string(signature, 'x');
    return verdict;
  });
  runner.set_before([] { usleep(5000); });
  using std::chrono::milliseconds;
  Investigator investigator(runner, {},
                            {.findings = folder.path(),
                             .limit = milliseconds(100),
                             .least = milliseconds(10),
                             .share = 0});
  Program large = Guilty();
  large.steps.resize(40, large.steps[0]);
  for (signature = 1; signature <= 6; ++signature) {
    ASSERT_TRUE(Handle(investigator, runner, large));
  }
  EXPECT_EQ(FoldersIn(folder.path()).size(), 6u) << "each has its finding";
  for (const fs::path& found : FoldersIn(folder.path())) {
    const std::string readme = files::ReadFile(found / "README.md", 1 << 20).value();
    EXPECT_THAT(readme, Not(HasSubstr("not run again"))) << "it was, before the time was over";
  }
  // 100 ms for the first, 10 ms for each other, at 5 ms a run; one may begin just before the end.
  EXPECT_LE(runner.ran(), (1 + 20 + 1) + 5 * (1 + 2 + 1));
}

}  // namespace
}  // namespace fpswap::campaign
