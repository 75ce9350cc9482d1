// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/corpus.h"

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
using fpswap::testing::ProgramOf;
using fpswap::testing::TemporaryFolder;
using program::Op;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
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
  const TemporaryFolder folder_;
  const trace::Platform platform_ = EverythingPlatform();
};

TEST_F(CorpusTest, MinimisingKeepsEveryStateAndTheShortestProgramForIt) {
  Draw(300);
  // Of these the longer adds nothing.
  for (const size_t steps : {5u, 6u}) {
    program::Program program;
    program.steps.assign(steps, {.op = program::Op::kFninit});
    program::MakeValid(program);
    Put(Corpus(), CorpusName(program::Encode(program)), program);
  }
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
                     .note = {.platforms = {}, .signatures = {signature}}};
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
  EXPECT_EQ(error_of(ManifestToJson({})), "none");
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
