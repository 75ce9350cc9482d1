// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/corpus.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "harness/campaign/platforms.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/program/generate.h"
#include "harness/program/text.h"
#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::Agrees;
using fpswap::testing::FakeRunner;
using fpswap::testing::ProgramOf;
using fpswap::testing::TemporaryFolder;
using program::Op;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class CorpusTest : public ::testing::Test {
 protected:
  fs::path Corpus() const { return folder_.path() / "corpus"; }
  void Put(const fs::path& folder, const std::string& name, const program::Program& program) const {
    fs::create_directories(folder);
    ASSERT_TRUE(files::WriteFile(folder / name, program::Encode(program)));
  }
  // Drawn programs, each in a file of the corpus named as an engine names it.
  void Draw(unsigned count) const {
    program::Rng rng(7);
    const program::Profile profile = ProfileFor(platform_);
    for (unsigned i = 0; i < count; ++i) {
      const program::Program program = program::Generate(rng, profile);
      Put(Corpus(), CorpusName(program::Encode(program)), program);
    }
  }
  CorpusFolder Opened() const {
    auto folder = CorpusFolder::Open(Corpus(), true);
    if (!folder) ADD_FAILURE() << folder.error();
    return std::move(*folder);
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(Corpus())) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  // Programs of so many FNINITs. Of several the longer ones reach no state that the shortest does
  // not.
  void PutFninits(std::initializer_list<size_t> counts) const {
    for (const size_t count : counts) Put(Corpus(), NameOf(count), Fninits(count));
  }
  static program::Program Fninits(size_t count) {
    program::Program program;
    program.steps.assign(count, {.op = Op::kFninit, .arg = {}});
    program::MakeValid(program);
    return program;
  }
  static std::string NameOf(size_t fninits) {
    return CorpusName(program::Encode(Fninits(fninits)));
  }
  // Which programs of FNINITs are in the corpus, by their numbers of steps.
  std::vector<unsigned> Steps() const {
    std::vector<unsigned> steps;
    auto folder = Opened();
    for (const Candidate& each : folder.entries().programs) steps.push_back(each.steps);
    return steps;
  }
  static std::expected<void, std::string> Keep(std::span<const program::Program>) { return {}; }

  const TemporaryFolder folder_;
  const trace::Platform platform_ = EverythingPlatform();
};

TEST_F(CorpusTest, MinimisingKeepsEveryStateAndTheShortestProgramForIt) {
  Draw(300);
  // Of these the longer adds nothing.
  PutFninits({5, 6});
  CorpusFolder folder = Opened();
  std::vector<Candidate> before = folder.entries().programs;
  const auto all = FindCover(before, platform_, nullptr, nullptr);
  const auto changed = folder.Minimise(platform_, nullptr, nullptr);
  ASSERT_TRUE(changed) << changed.error();
  EXPECT_GT(changed->removed, 0u);
  std::vector<Candidate> after = folder.entries().programs;
  const auto kept = FindCover(after, platform_, nullptr, nullptr);
  EXPECT_EQ(kept->reached, all->reached);
  // What is dropped adds nothing to what is no longer than it.
  for (const Candidate& each : before) {
    if (std::ranges::find(after, each.bytes, &Candidate::bytes) != after.end()) continue;
    std::vector<Candidate> shorter;
    std::ranges::copy_if(after, std::back_inserter(shorter),
                         [&](const Candidate& c) { return c < each; });
    const auto without = FindCover(shorter, platform_, nullptr, nullptr);
    shorter.push_back(each);
    EXPECT_EQ(FindCover(shorter, platform_, nullptr, nullptr)->reached, without->reached);
  }
}

TEST_F(CorpusTest, MinimisingTwiceChangesNothingMore) {
  Draw(100);
  EXPECT_TRUE(Opened().Minimise(platform_, nullptr, nullptr));
  const auto files = Files();
  const auto text = files::ReadFile(Corpus() / "manifest.json", 1 << 20);
  const auto again = Opened().Minimise(platform_, nullptr, nullptr);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->removed, 0u);
  EXPECT_EQ(Files(), files);
  EXPECT_EQ(files::ReadFile(Corpus() / "manifest.json", 1 << 20), text);
}

TEST_F(CorpusTest, TheSameProgramUnderTwoNamesIsKeptOnce) {
  const auto program = ProgramOf({Op::kFninit});
  Put(Corpus(), std::string(16, 'a'), program);
  Put(Corpus(), std::string(40, 'b'), program);
  EXPECT_TRUE(Opened().Minimise(platform_, nullptr, nullptr));
  EXPECT_THAT(Opened().entries().programs, SizeIs(1));
  EXPECT_EQ(Opened().entries().read, 1u);
}

TEST_F(CorpusTest, WhatWasInterestingOnAnotherPlatformStays) {
  const auto small = ProgramOf({Op::kFninit}), large = ProgramOf({Op::kFninit, Op::kFninit});
  Put(Corpus(), std::string(16, 'a'), small);
  Put(Corpus(), std::string(16, 'b'), large);
  const auto longest = ProgramOf({Op::kFninit, Op::kFninit, Op::kFninit});
  Put(Corpus(), std::string(16, 'c'), longest);
  Manifest manifest;
  manifest[std::string(16, 'c')].platforms["kvm: another CPU"] = 3;
  ASSERT_TRUE(files::WriteFile(Corpus() / "manifest.json", ManifestToJson(manifest)));
  EXPECT_TRUE(Opened().Minimise(platform_, nullptr, nullptr));
  const CorpusFolder folder = Opened();
  ASSERT_TRUE(folder.manifest().contains(std::string(16, 'c')));
  EXPECT_EQ(folder.manifest().at(std::string(16, 'c')).platforms.at("kvm: another CPU"), 3u);
  EXPECT_TRUE(
      folder.manifest().at(std::string(16, 'a')).platforms.contains(PlatformLabel(platform_)));
}

TEST_F(CorpusTest, ASignatureKeepsItsShortestProgram) {
  const auto make = [](std::initializer_list<Op> ops, const char* signature) {
    const auto program = ProgramOf(ops);
    return Candidate{.bytes = program::Encode(program),
                     .steps = static_cast<unsigned>(ops.size()),
                     .files = {},
                     .note = {.platforms = {}, .signatures = {signature}, .kernel_edges = {}},
                     .edges = {}};
  };
  std::vector<Candidate> from = {make({Op::kFninit}, "a"), make({Op::kFninit, Op::kFninit}, "b"),
                                 make({Op::kFninit, Op::kFninit, Op::kFninit}, "b"),
                                 make({Op::kFninit, Op::kFninit, Op::kFninit, Op::kFninit}, "c")};
  EXPECT_TRUE(Opened().Add(from, nullptr, nullptr, nullptr));
  EXPECT_TRUE(Opened().Minimise(platform_, nullptr, nullptr));
  std::map<std::string, unsigned> steps;
  auto folder = Opened();
  for (const Candidate& each : folder.entries().programs) {
    for (const std::string& key : each.note.signatures) steps[key] = each.steps;
  }
  EXPECT_EQ(steps, (std::map<std::string, unsigned>{{"a", 1}, {"b", 2}, {"c", 4}}));
}

// A kernel that counts: each program of FNINITs reaches edge 0, and one for each beyond the second.
std::vector<uint16_t> EdgesOfFninits(const program::Program& program) {
  std::vector<uint16_t> edges = {0};
  for (size_t i = 2; i < program.steps.size(); ++i) edges.push_back(static_cast<uint16_t>(i));
  return edges;
}

TEST_F(CorpusTest, AnEdgeOfTheKernelKeepsAProgramWhoseStatesAreAllCovered) {
  FakeRunner runner(Agrees);
  const std::string label = PlatformLabel(runner.platform());
  PutFninits({2, 3, 5, 6});
  runner.set_edges([](const program::Program& program) {
    auto edges = EdgesOfFninits(program);
    if (program.steps.size() == 6) edges.pop_back();  // what the one before it reaches
    return edges;
  });
  size_t kept_pending = 0;
  const auto keep = [&](std::span<const program::Program> batch) {
    kept_pending += batch.size();
    return Keep(batch);
  };
  const auto changed = Opened().Minimise(runner.platform(), RunWith(runner, keep), nullptr);
  ASSERT_TRUE(changed) << changed.error();
  EXPECT_EQ(kept_pending, runner.ran()) << "each run was on disk before";
  EXPECT_THAT(Steps(), ElementsAre(2, 3, 5));
  const Manifest manifest = Opened().manifest();
  EXPECT_EQ(manifest.at(NameOf(2)).kernel_edges.at(label), 1u);
  EXPECT_EQ(manifest.at(NameOf(3)).kernel_edges.at(label), 1u);
  EXPECT_EQ(manifest.at(NameOf(5)).kernel_edges.at(label), 2u);
  EXPECT_TRUE(manifest.at(NameOf(5)).platforms.empty());
  // Where nothing runs the manifest is believed, here and elsewhere.
  EXPECT_EQ(Opened().Minimise(runner.platform(), nullptr, nullptr)->removed, 0u);
  EXPECT_EQ(Opened().Minimise(platform_, nullptr, nullptr)->removed, 0u);
  // Run again it is measured anew.
  runner.set_edges([](const program::Program&) { return std::vector<uint16_t>{0}; });
  EXPECT_TRUE(Opened().Minimise(runner.platform(), RunWith(runner, Keep), nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2));
}

TEST_F(CorpusTest, WithoutEdgesTheSameProgramsAreDropped) {
  PutFninits({2, 3, 5, 6});
  FakeRunner runner(Agrees);
  EXPECT_TRUE(Opened().Minimise(runner.platform(), RunWith(runner, Keep), nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2));
  EXPECT_EQ(runner.ran(), 4u) << "where nobody counts nothing is run twice";
}

TEST_F(CorpusTest, AnEdgeThatOnlyOneOfTwoRunsReachesKeepsNothing) {
  for (const bool in_first : {true, false}) {
    PutFninits({2, 3, 4});
    FakeRunner runner(Agrees);
    std::map<size_t, unsigned> runs;
    runner.set_edges([&](const program::Program& program) {
      const size_t steps = program.steps.size();
      std::vector<uint16_t> edges = {0};
      if ((++runs[steps] == 1) == in_first) edges.push_back(static_cast<uint16_t>(steps));
      return edges;
    });
    EXPECT_TRUE(Opened().Minimise(runner.platform(), RunWith(runner, Keep), nullptr));
    EXPECT_THAT(Steps(), ElementsAre(2)) << in_first;
    // Again only those that had something new: all three, or only the first.
    EXPECT_EQ(runner.ran(), in_first ? 6u : 4u);
  }
}

TEST_F(CorpusTest, AnEdgeThatAKeptProgramReachedOnceKeepsNoOther) {
  PutFninits({2, 3});
  FakeRunner runner(Agrees);
  unsigned runs_of_two = 0;
  runner.set_edges([&](const program::Program& program) -> std::vector<uint16_t> {
    if (program.steps.size() == 2 && ++runs_of_two == 1) return {0};
    return {0, 7};  // the second run of the shorter one, each of the longer
  });
  EXPECT_TRUE(Opened().Minimise(runner.platform(), RunWith(runner, Keep), nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2));
  // A dropped one takes nothing with it.
  PutFninits({2, 3, 4});
  std::map<size_t, unsigned> runs;
  runner.set_edges([&](const program::Program& program) -> std::vector<uint16_t> {
    const size_t steps = program.steps.size();
    if (steps == 2 || (steps == 3 && ++runs[steps] == 2)) return {0};
    return {0, 7};  // the first run of the second, each of the third
  });
  EXPECT_TRUE(Opened().Minimise(runner.platform(), RunWith(runner, Keep), nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2, 4));
}

TEST_F(CorpusTest, MergingTakesWhatReachesMoreOfTheKernel) {
  PutFninits({2});
  const fs::path other = folder_.path() / "other";
  for (const size_t steps : {3u, 4u, 5u}) Put(other, NameOf(steps), Fninits(steps));
  Manifest manifest;
  const std::string label = PlatformLabel(platform_);
  manifest[NameOf(3)].platforms[label] = 9;
  manifest[NameOf(4)].kernel_edges[label] = 9;
  manifest[NameOf(5)].kernel_edges["another kernel"] = 8;
  ASSERT_TRUE(files::WriteFile(other / "manifest.json", ManifestToJson(manifest)));
  const auto from = ReadCandidates(std::vector<fs::path>{other});
  ASSERT_TRUE(from);
  FakeRunner runner(Agrees);
  runner.set_edges([](const program::Program&) { return std::vector<uint16_t>{0}; });
  EXPECT_TRUE(Opened().Add(from->programs, &runner.platform(), RunWith(runner, Keep), nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2, 5)) << "what ran here is known, what ran elsewhere is told";
  EXPECT_TRUE(Opened().Add(from->programs, &platform_, nullptr, nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2, 4, 5)) << "where nothing runs all are told";
  runner.set_edges(EdgesOfFninits);
  EXPECT_TRUE(Opened().Add(from->programs, &runner.platform(), RunWith(runner, Keep), nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2, 4, 5)) << "what is here reaches edges 2 to 4 already";
  EXPECT_EQ(Opened().manifest().at(NameOf(4)).kernel_edges.at(label), 2u);
}

TEST_F(CorpusTest, WhatAFuzzingRunSawIsNotedOfEntriesThatAreUnknownThere) {
  PutFninits({2, 3, 4});
  EXPECT_TRUE(files::WriteFile(
      Corpus() / "manifest.json",
      ManifestToJson(
          {{NameOf(3), {.platforms = {{"p", 1}}, .signatures = {}, .kernel_edges = {}}},
           {NameOf(4), {.platforms = {{"q", 1}}, .signatures = {}, .kernel_edges = {}}}})));
  const std::map<std::string, uint64_t> saw = {
      {NameOf(2), 5}, {NameOf(3), 6}, {NameOf(4), 1u << 20}, {NameOf(5), 7}, {"../x", 8}};
  EXPECT_TRUE(Opened().NoteEdges("p", saw));
  const Manifest manifest = Opened().manifest();
  ASSERT_THAT(manifest, SizeIs(3));
  EXPECT_EQ(manifest.at(NameOf(2)).kernel_edges.at("p"), 5u);
  EXPECT_TRUE(manifest.at(NameOf(3)).kernel_edges.empty());
  EXPECT_EQ(manifest.at(NameOf(4)).kernel_edges.at("p"), 1u << 16) << "as many as there can be";
  EXPECT_TRUE(Opened().Minimise(platform_, nullptr, nullptr));
  EXPECT_THAT(Steps(), ElementsAre(2, 3, 4));
}

TEST_F(CorpusTest, MergingAddsOnlyWhatReachesSomethingNew) {
  Draw(50);
  auto same = ReadCandidates(std::vector<fs::path>{Corpus()});
  const size_t before = Files().size();
  auto changed = Opened().Add(same->programs, &platform_, nullptr, nullptr);
  ASSERT_TRUE(changed);
  EXPECT_EQ(changed->added, 0u);
  const fs::path other = folder_.path() / "queue";
  Put(other, "id:000001,src:000000", ProgramOf({Op::kInit, Op::kInit, Op::kInit}));
  Put(other, "README.txt", {});
  const auto queue = ReadCandidates(std::vector<fs::path>{other});
  ASSERT_THAT(queue->programs, SizeIs(1)) << "a queue of AFL++, and other files passed over";
  changed = Opened().Add(queue->programs, &platform_, nullptr, nullptr);
  ASSERT_TRUE(changed);
  EXPECT_EQ(changed->added, 1u);
  EXPECT_EQ(Files().size(), before + 2) << "it, and the manifest";
}

TEST_F(CorpusTest, AManifestThatIsNoneIsRefusedByName) {
  fs::create_directories(Corpus());
  const auto error_of = [&](std::string_view text) {
    EXPECT_TRUE(files::WriteFile(Corpus() / "manifest.json", text));
    const auto folder = CorpusFolder::Open(Corpus(), false);
    return folder ? std::string("none") : folder.error();
  };
  EXPECT_THAT(error_of("["), HasSubstr("manifest.json: not a manifest: a JSON object"));
  EXPECT_THAT(error_of("{\"format\": 2, \"entries\": {}}"), HasSubstr("\"format\" is to be 1"));
  EXPECT_THAT(error_of("{\"format\": 1, \"entries\": []}"), HasSubstr("\"entries\" is to be"));
  EXPECT_THAT(error_of("{\"format\": 1, \"entries\": {\"../x\": 5}}"),
              HasSubstr("entry \"../x\": an object was expected"));
  EXPECT_THAT(
      error_of(R"({"format": 1, "entries": {"a": {"platforms": {"p": -1}, "signatures": []}}})"),
      HasSubstr("entry \"a\": the states of platform \"p\" are to be a number"));
  EXPECT_THAT(error_of(R"({"format": 1, "entries": {"a": {"platforms": {}, "signatures": [1]}}})"),
              HasSubstr("\"signatures\" is to be a list of texts"));
  const auto with_edges = [&](std::string_view edges) {
    return error_of(fmt::format(
        R"({{"format": 1, "entries": {{"a": {{"platforms": {{}}, "signatures": [], "kernel_edges": {}}}}}}})",
        edges));
  };
  for (const char* none : {"3", "[]", "null", "\"p\""}) {
    EXPECT_THAT(with_edges(none),
                HasSubstr("entry \"a\": \"kernel_edges\" is to be an object of numbers"));
  }
  for (const char* number :
       {"-1", "1.5", "65537", "1e9", "\"1\"", "null", "{}", "18446744073709551616"}) {
    EXPECT_THAT(
        with_edges(fmt::format("{{\"p\": {}}}", number)),
        HasSubstr("the edges of the kernel of platform \"p\" are to be a number up to 65536"));
  }
  EXPECT_EQ(with_edges(R"({"p": 65536})"), "none");
  EXPECT_EQ(error_of(ManifestToJson({})), "none");
}

TEST_F(CorpusTest, AManifestIsReadAsItWasWrittenAndAnOlderOneAsItWas) {
  const Manifest manifest = {
      {"a", {.platforms = {{"p", 3}}, .signatures = {"s"}, .kernel_edges = {{"p", 1}, {"q", 7}}}},
      {"b", {.platforms = {}, .signatures = {"s", "t"}, .kernel_edges = {}}}};
  EXPECT_EQ(ManifestFromJson(ManifestToJson(manifest)), manifest);
  const auto older = ManifestFromJson(
      R"({"format": 1, "entries": {"b": {"platforms": {}, "signatures": ["t", "s"]}}})");
  ASSERT_TRUE(older) << older.error();
  EXPECT_EQ(older->at("b"), manifest.at("b"));
  // What is of no use to an older version is not written for it.
  EXPECT_THAT(ManifestToJson(*older), Not(HasSubstr("kernel_edges")));
}

TEST_F(CorpusTest, AManifestThatWasDamagedIsAnErrorOrAnotherManifest) {
  const std::string text = ManifestToJson(
      {{"a", {.platforms = {{"p", 3}}, .signatures = {"s"}, .kernel_edges = {{"p", 65536}}}}});
  size_t errors = 0;
  const auto check = [&](const std::string& damaged) {
    const auto read = ManifestFromJson(damaged);
    if (!read) {
      ++errors;
      EXPECT_THAT(read.error(), Not(IsEmpty()));
    } else {
      EXPECT_EQ(ManifestFromJson(ManifestToJson(*read)), *read) << damaged;
    }
  };
  for (size_t at = 0; at < text.size(); ++at) {
    check(text.substr(0, at));
    for (const char put : {'\0', '"', '}', ']', '-', '9', '\x80'}) {
      std::string damaged = text;
      damaged[at] = put;
      check(damaged);
    }
  }
  EXPECT_GT(errors, text.size());
}

TEST_F(CorpusTest, AnEntryThatIsTooLargeIsPassedOverAndLeftAlone) {
  Put(Corpus(), std::string(16, 'a'), ProgramOf({Op::kFninit}));
  ASSERT_TRUE(files::WriteFile(Corpus() / std::string(16, 'f'), std::string(5000, 'x')));
  CorpusFolder folder = Opened();
  ASSERT_THAT(folder.entries().errors, SizeIs(1));
  EXPECT_THAT(folder.entries().errors[0], HasSubstr("larger than 4096 bytes"));
  EXPECT_TRUE(folder.Minimise(platform_, nullptr, nullptr));
  EXPECT_TRUE(fs::exists(Corpus() / std::string(16, 'f')));
}

TEST_F(CorpusTest, TwoAtOnceKeepOutOfEachOthersWay) {
  const CorpusFolder first = Opened();
  const auto second = CorpusFolder::Open(Corpus(), false);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error(), HasSubstr("another `fpswap corpus` works on it"));
}

TEST_F(CorpusTest, ANameOutsideTheFolderInTheManifestTouchesNothing) {
  Draw(20);
  ASSERT_TRUE(files::WriteFile(folder_.path() / std::string(16, 'e'), "outside"));
  Manifest manifest;
  manifest["../" + std::string(16, 'e')];
  ASSERT_TRUE(files::WriteFile(Corpus() / "manifest.json", ManifestToJson(manifest)));
  EXPECT_TRUE(Opened().Minimise(platform_, nullptr, nullptr));
  EXPECT_TRUE(fs::exists(folder_.path() / std::string(16, 'e')));
  EXPECT_FALSE(Opened().manifest().contains("../" + std::string(16, 'e')));
}

}  // namespace
}  // namespace fpswap::campaign
