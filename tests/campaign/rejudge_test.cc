// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/rejudge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/campaign/corpus.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/trace/trace.h"
#include "harness/triage/finding.h"
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
using ::testing::IsEmpty;
using ::testing::SizeIs;

class Rejudge : public ::testing::Test {
 protected:
  fs::path Findings() const { return folder_.path() / "findings"; }
  fs::path Corpus() const { return folder_.path() / "corpus"; }
  void SetUp() override {
    fs::create_directories(Findings());
    fs::create_directories(Corpus());
  }
  std::string Put(const Program& program) const {
    const auto bytes = program::Encode(program);
    const std::string name = CorpusName(bytes);
    EXPECT_TRUE(files::WriteFile(Corpus() / name, bytes));
    return name;
  }
  // A finding whose trace has no records, so that the judge finds nothing in it.
  std::string Find(const std::string& target = "everything") const {
    triage::Finding finding;
    finding.trace.platform = EverythingPlatform();
    finding.trace.platform.target = target;
    finding.trace.program = ProgramOf({Op::kVzeroall});
    finding.verdict.divergences.push_back(SomeDivergence());
    finding.signature = triage::SignatureOf(SomeDivergence());
    EXPECT_TRUE(triage::WriteFinding(Findings(), finding).value_or(triage::Written{}).added);
    return finding.signature.Name();
  }
  Judged Judge(FakeRunner& runner, const JudgedWith& with, const Judged& before = {},
               std::span<const triage::Known> known = {}) const {
    auto judged = JudgeAgain(
        {.findings = Findings(), .corpus = Corpus(), .known = known, .plant = "", .stop = nullptr},
        with, before, runner);
    if (!judged) {
      ADD_FAILURE() << judged.error();
      return {};
    }
    return std::move(*judged);
  }
  static JudgedWith With(const FakeRunner& runner, const std::string& kernel) {
    return {.build = "b",
            .version = "0.1.0",
            .known = "k",
            .target = runner.platform().name(),
            .kernel = kernel,
            .cpu = "a CPU",
            .vendor_module = ""};
  }
  const TemporaryFolder folder_;
};

judge::Verdict VzeroallDiverges(const Program& program) {
  judge::Verdict verdict;
  if (Contains(program, Op::kVzeroall)) verdict.divergences.push_back(SomeDivergence());
  return verdict;
}

judge::Verdict FninitDivergesToo(const Program& program) {
  judge::Verdict verdict;
  if (Contains(program, Op::kFninit)) verdict.divergences.push_back(SomeDivergence());
  return verdict;
}

const triage::Known& AvxIsKnown() {
  static const auto known = triage::ParseKnown(
      R"({"title": "t", "reason": "r", "kernel_function": "f", "law": "model",
          "step": "vmm.get_xsave", "component": "avx", "relation": "stale",
          "where_regex": "YMM.*", "platform": {"target": "simulated"}})",
      "ymm-is-stale");
  if (!known) ADD_FAILURE() << known.error();
  return *known;
}

TEST_F(Rejudge, ListsWhatADivergenceAndTheCorpusDoOnAnotherKernel) {
  FakeRunner old_kernel(VzeroallDiverges), new_kernel(FninitDivergesToo);
  const std::string finding = Find(old_kernel.platform().name());
  const std::string one = Put(ProgramOf({Op::kVzeroall})), other = Put(ProgramOf({Op::kFninit}));
  Put(ProgramOf({Op::kSseLoad}));
  const Judged before = Judge(old_kernel, With(old_kernel, "6.1"));
  EXPECT_EQ(before.runs.at(finding), "diverges");
  EXPECT_THAT(before.corpus.at(one), SizeIs(1));
  EXPECT_THAT(before.corpus.at(other), IsEmpty());
  const Judged after = Judge(new_kernel, With(new_kernel, "6.2"), before);
  EXPECT_EQ(after.runs.at(finding), "agrees");
  const auto changes = Changes(before, after);
  ASSERT_THAT(changes, SizeIs(3));
  EXPECT_EQ(changes[0].what, "finding " + finding + ", run again");
  EXPECT_EQ(changes[0].before, "diverges");
  EXPECT_EQ(changes[0].after, "agrees");
  const std::string shown = triage::SignatureOf(SomeDivergence()).Key();
  EXPECT_EQ(changes[1].what, "corpus, 1 programs (" + one + ")");
  EXPECT_EQ(changes[1].before, shown);
  EXPECT_EQ(changes[1].after, "not shown");
  EXPECT_EQ(changes[2].what, "corpus, 1 programs (" + other + ")");
  EXPECT_EQ(changes[2].before, "not shown");
  EXPECT_EQ(changes[2].after, shown);
}

TEST_F(Rejudge, RunsOnlyWhatIsNewWhereNothingElseIs) {
  FakeRunner runner(VzeroallDiverges);
  Find(runner.platform().name());
  Put(ProgramOf({Op::kVzeroall}));
  const Judged before = Judge(runner, With(runner, "6.1"));
  const size_t ran = runner.ran();
  EXPECT_EQ(ran, 2u);
  Put(ProgramOf({Op::kFninit}));
  const Judged after = Judge(runner, With(runner, "6.1"), before);
  EXPECT_EQ(runner.ran(), ran + 1);
  EXPECT_THAT(after.corpus, SizeIs(2));
  EXPECT_THAT(Changes(before, after), IsEmpty());
  const auto read = JudgedFromJson(JudgedToJson(after));
  ASSERT_TRUE(read) << read.error();
  EXPECT_EQ(read->with, after.with);
  EXPECT_EQ(read->corpus, after.corpus);
  EXPECT_EQ(read->runs, after.runs);
}

TEST_F(Rejudge, SaysWhatIsKnownNow) {
  FakeRunner runner(VzeroallDiverges);
  const std::string finding = Find(runner.platform().name());
  const Judged before = Judge(runner, With(runner, "6.1"));
  JudgedWith with = With(runner, "6.1");
  with.known = "another";
  const Judged after = Judge(runner, with, before, std::span(&AvxIsKnown(), 1));
  EXPECT_EQ(after.runs.at(finding), "known ymm-is-stale");
}

TEST_F(Rejudge, ATraceInWhichTheOracleFindsNothingAnyMoreIsTold) {
  FakeRunner runner(VzeroallDiverges);
  const std::string finding = Find("kvm");
  const Judged judged = Judge(runner, With(runner, "6.1"));
  EXPECT_EQ(judged.traces.at(finding), "diverges otherwise")
      << "its records are missing, which is a divergence of another signature";
  EXPECT_TRUE(judged.runs.empty()) << "it is another target's";
  fs::remove(Findings() / finding / "trace.fpt");
  EXPECT_EQ(Judge(runner, With(runner, "6.2")).traces.at(finding), "can't be read");
}

TEST_F(Rejudge, ComesToAnEndWhenToldTo) {
  FakeRunner runner(VzeroallDiverges);
  Put(ProgramOf({Op::kVzeroall}));
  const auto judged = JudgeAgain({.findings = Findings(),
                                  .corpus = Corpus(),
                                  .known = {},
                                  .plant = "",
                                  .stop = [] { return true; }},
                                 With(runner, "6.1"), {}, runner);
  EXPECT_FALSE(judged);
  EXPECT_EQ(runner.ran(), 0u);
}

TEST_F(Rejudge, RefusesWhatItDidNotWrite) {
  EXPECT_FALSE(JudgedFromJson(""));
  EXPECT_FALSE(JudgedFromJson("{}"));
  EXPECT_FALSE(JudgedFromJson(R"({"format": 1, "with": 3})"));
}

}  // namespace
}  // namespace fpswap::campaign
