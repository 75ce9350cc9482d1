// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/files/files.h"
#include "tests/campaign/fakes.h"

namespace fpswap::triage {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::TemporaryFolder;
using ::testing::HasSubstr;

// Store::Open() with a failure of the test where there is none.
Store Opened(const fs::path& findings) {
  auto store = Store::Open(findings);
  if (!store) {
    ADD_FAILURE() << store.error();
    std::abort();
  }
  return std::move(*store);
}

void WriteFolder(const fs::path& findings, const std::string& name, const std::string& verdict) {
  fs::create_directories(findings / name);
  ASSERT_TRUE(files::WriteFile(findings / name / "verdict.json", verdict));
}

Finding SomeFinding(const std::string& where) {
  Finding finding;
  finding.verdict.divergences.push_back(fpswap::testing::SomeDivergence());
  finding.verdict.divergences[0].where = where;
  finding.signature = SignatureOf(finding.verdict.divergences[0]);
  finding.trace.platform = campaign::EverythingPlatform();
  finding.trace.platform.kernel = "6.12.1";
  finding.trace.program = fpswap::testing::ProgramOf({program::Op::kVzeroall});
  finding.reruns = 5;
  finding.repeats = 4;
  finding.version = "0.1.0 abc";
  finding.found = 1'700'000'000;
  finding.after = 4242;
  return finding;
}

RunFacts SomeRun(const std::string& folder) {
  return {.folder = folder,
          .target = "kvm",
          .kernel = "6.12",
          .cpu = "a CPU",
          .version = "0.1.0",
          .plant = "",
          .seed = UINT64_MAX,
          .jobs = 2,
          .began = 1000};
}

bool IsWhole(const fs::path& findings) {
  sqlite3* database = nullptr;
  sqlite3_open((findings / Store::kFile).c_str(), &database);
  std::string answer;
  const auto take = [](void* into, int, char** values, char**) {
    *static_cast<std::string*>(into) += values[0];
    return 0;
  };
  sqlite3_exec(database, "PRAGMA integrity_check", take, &answer, nullptr);
  sqlite3_close(database);
  return answer == "ok";
}

TEST(Store, GivesBackWhatARunNoted) {
  const TemporaryFolder folder;
  {
    Store store = Opened(folder.path());
    const auto run = store.BeginRun(SomeRun(".run-a"));
    ASSERT_TRUE(run) << run.error();
    EXPECT_TRUE(store.Note(*run, {.now = 1010,
                                  .seconds = 10,
                                  .programs = 500,
                                  .states = 70,
                                  .known = {{"k", 3}},
                                  .fresh = {{"f", 1}}}));
    EXPECT_TRUE(store.Note(*run, {.now = 1020,
                                  .seconds = 20,
                                  .programs = 900,
                                  .states = 90,
                                  .known = {{"k", 3}},
                                  .fresh = {{"f", 7}, {"g", 1}}}));
  }
  Store store = Opened(folder.path());
  const auto runs = store.Runs();
  ASSERT_TRUE(runs) << runs.error();
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ((*runs)[0].facts.seed, UINT64_MAX);
  EXPECT_EQ((*runs)[0].facts.kernel, "6.12");
  EXPECT_EQ((*runs)[0].programs, 900u);
  EXPECT_EQ((*runs)[0].ended, 1020);
  const auto seen = store.Sightings();
  ASSERT_TRUE(seen) << seen.error();
  ASSERT_EQ(seen->size(), 3u);
  EXPECT_EQ((*seen)[0].name, "f");
  EXPECT_FALSE((*seen)[0].known);
  EXPECT_EQ((*seen)[0].programs, 7u);
  EXPECT_EQ((*seen)[0].first, 1010);
  EXPECT_EQ((*seen)[0].last, 1020);
  EXPECT_EQ((*seen)[0].after, 500u);
  EXPECT_TRUE((*seen)[2].known);
  EXPECT_EQ((*seen)[2].last, 1010) << "not seen since";
  const auto samples = store.Samples((*runs)[0].id);
  ASSERT_TRUE(samples) << samples.error();
  EXPECT_EQ(samples->size(), 2u);
}

TEST(Store, KeepsABoundedNumberOfSamplesThatStillSpanTheRun) {
  const TemporaryFolder folder;
  Store store = Opened(folder.path());
  const auto run = store.BeginRun(SomeRun(".run-a"));
  ASSERT_TRUE(run);
  for (unsigned i = 1; i <= Store::kMaxSamples + 40; ++i) {
    ASSERT_TRUE(store.Note(*run, {.now = i, .seconds = double(i), .programs = i}));
  }
  const auto samples = store.Samples(*run);
  ASSERT_TRUE(samples);
  EXPECT_LE(samples->size(), Store::kMaxSamples);
  EXPECT_GE(samples->size(), Store::kMaxSamples / 2);
  EXPECT_EQ(samples->front().seconds, 1);
  for (unsigned i = 0; i < Store::kSampledRuns; ++i) ASSERT_TRUE(store.BeginRun(SomeRun("later")));
  EXPECT_TRUE(store.Samples(*run)->empty());
  EXPECT_EQ(store.Runs()->size(), 1u + Store::kSampledRuns);
}

TEST(Store, FoldersAreTheTruthAndTheIndexFollowsThem) {
  const TemporaryFolder folder;
  ASSERT_TRUE(WriteFinding(folder.path(), SomeFinding("YMM5[255:128] of the image")).value().added);
  const std::string name = SomeFinding("YMM5[255:128] of the image").signature.Name();
  {
    Store store = Opened(folder.path());
    EXPECT_EQ(store.Index().value(), 1u);
    EXPECT_EQ(store.Index().value(), 0u) << "read once";
  }
  fs::remove(folder.path() / Store::kFile);
  Store store = Opened(folder.path());
  ASSERT_TRUE(WriteFinding(folder.path(), SomeFinding("MXCSR of the image")).value().added);
  EXPECT_EQ(store.Index().value(), 2u);
  const auto findings = store.Findings();
  ASSERT_TRUE(findings) << findings.error();
  ASSERT_TRUE(findings->contains(name));
  const FindingFacts& facts = findings->at(name);
  EXPECT_EQ(facts.key, "model|vmm.get_xsave|avx|stale|YMM#[255:128] of the image");
  EXPECT_EQ(facts.name, name);
  EXPECT_EQ(facts.law, "model");
  EXPECT_EQ(facts.component, "avx");
  EXPECT_EQ(facts.kernel, "6.12.1");
  EXPECT_EQ(facts.version, "0.1.0 abc");
  EXPECT_EQ(facts.found, 1'700'000'000);
  EXPECT_EQ(facts.after, 4242u);
  EXPECT_EQ(facts.steps, 1u);
  EXPECT_EQ(facts.repeats, 4u);
  fs::remove_all(folder.path() / name);
  EXPECT_EQ(store.Index().value(), 0u);
  EXPECT_EQ(store.Findings()->size(), 1u);
}

TEST(Store, IndexReadsAFolderAgainThatWasWrittenAgain) {
  const TemporaryFolder folder;
  Store store = Opened(folder.path());
  WriteFolder(folder.path(), "a", R"({"signature": "one"})");
  EXPECT_EQ(store.Index().value(), 1u);
  usleep(20'000);
  WriteFolder(folder.path(), "a", R"({"signature": "two"})");
  EXPECT_EQ(store.Index().value(), 1u);
  EXPECT_EQ(store.Findings()->at("a").key, "two");
}

TEST(Store, HostileFoldersAreIndexedWithoutHarm) {
  const TemporaryFolder folder;
  Store store = Opened(folder.path());
  WriteFolder(folder.path(), "'; DROP TABLE run; --", R"({"signature": "'); DROP TABLE run; --"})");
  WriteFolder(folder.path(), "not json", "\xff\xfe{");
  WriteFolder(folder.path(), "types", R"({"signature": 7, "divergence": -1, "divergences": {},
      "found": 1e300, "after": 18446744073709551615, "reruns": [], "target": null})");
  WriteFolder(folder.path(), "large", std::string((1 << 20) + 1, ' '));
  fs::create_directories(folder.path() / "folder" / "verdict.json");
  fs::create_symlink("loop", folder.path() / "loop");
  EXPECT_EQ(store.Index().value(), 3u);
  const auto findings = store.Findings();
  ASSERT_TRUE(findings) << findings.error();
  EXPECT_EQ(findings->at("'; DROP TABLE run; --").key, "'); DROP TABLE run; --");
  EXPECT_EQ(findings->at("types").after, uint64_t{INT64_MAX});
  EXPECT_TRUE(store.Runs());
}

TEST(Store, RefusesWhatIsNoDatabaseOfItsAndSaysWhatToDo) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / Store::kFile;
  const auto error = [&] {
    const auto store = Store::Open(folder.path());
    return store ? std::string() : store.error();
  };
  ASSERT_TRUE(files::WriteFile(path, std::string(5000, 'x')));
  EXPECT_THAT(error(), HasSubstr(path.string() + ": file is not a database; delete it"));
  fs::remove(path);
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &other), SQLITE_OK);
  sqlite3_exec(other, "CREATE TABLE run(id)", nullptr, nullptr, nullptr);
  sqlite3_close(other);
  EXPECT_THAT(error(), HasSubstr("its tables are not those of this fpswap; delete it"));
  fs::remove(path);
  fs::create_directory(path);
  EXPECT_THAT(error(), HasSubstr(path.string()));
}

// Each page of a good database overwritten in its turn: an error or an answer, never a crash.
TEST(Store, DamageAnywhereIsAnErrorOrHarmless) {
  const TemporaryFolder folder;
  ASSERT_TRUE(WriteFinding(folder.path(), SomeFinding("MXCSR of the image")).value().added);
  {
    Store store = Opened(folder.path());
    const auto run = store.BeginRun(SomeRun(".run-a"));
    ASSERT_TRUE(store.Note(*run, {.now = 5, .seconds = 1, .fresh = {{"a", 1}}}));
    ASSERT_TRUE(store.Index());
  }
  const std::string good = files::ReadFile(folder.path() / Store::kFile, 1 << 24).value();
  unsigned errors = 0;
  for (size_t at = 0; at < good.size(); at += 512) {
    std::string bad = good;
    for (size_t i = at; i < std::min(at + 512, bad.size()); ++i) {
      bad[i] = static_cast<char>(bad[i] ^ static_cast<char>(0x5a + i));
    }
    ASSERT_TRUE(files::WriteFile(folder.path() / Store::kFile, bad));
    auto store = Store::Open(folder.path());
    if (!store) {
      ++errors;
      EXPECT_THAT(store.error(), HasSubstr("delete it"));
      continue;
    }
    const bool read = store->Index() && store->Findings() && store->Runs() && store->Sightings();
    errors += !read;
  }
  EXPECT_GT(errors, 0u);
}

TEST(Store, TwoProcessesWriteAtOnceAndNothingIsLost) {
  const TemporaryFolder folder;
  constexpr unsigned kProcesses = 3, kNotes = 40;
  for (unsigned p = 0; p < kProcesses; ++p) {
    if (fork() != 0) continue;
    auto store = Store::Open(folder.path());
    if (!store) _exit(1);
    const auto run = store->BeginRun(SomeRun(fmt::format(".run-{}", p)));
    if (!run) _exit(2);
    for (unsigned i = 1; i <= kNotes; ++i) {
      const std::map<std::string, uint64_t> fresh = {{"both", i}, {fmt::format("own-{}", p), i}};
      if (!store->Note(*run, {.now = i, .seconds = double(i), .programs = i, .fresh = fresh})) {
        _exit(3);
      }
      if (!store->Index()) _exit(4);
    }
    _exit(0);
  }
  for (unsigned p = 0; p < kProcesses; ++p) {
    int status = -1;
    wait(&status);
    EXPECT_EQ(status, 0);
  }
  Store store = Opened(folder.path());
  EXPECT_EQ(store.Runs()->size(), kProcesses);
  const auto seen = store.Sightings();
  ASSERT_EQ(seen->size(), 2u * kProcesses);
  for (const Sighting& each : *seen) EXPECT_EQ(each.programs, kNotes);
}

TEST(Store, KillAtAnyTimeLosesNothingThatWasNoted) {
  const TemporaryFolder folder;
  for (unsigned round = 1; round <= 10; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto store = Store::Open(folder.path());
      const auto run = store->BeginRun(SomeRun(fmt::format(".run-{}", round)));
      for (uint64_t i = 1;; ++i) {
        if (!store->Note(*run, {.now = 1, .seconds = double(i), .programs = i})) _exit(1);
        if (write(pipe_ends[1], &i, sizeof i) != sizeof i) _exit(1);
      }
    }
    close(pipe_ends[1]);
    uint64_t noted = 0, last = 0;
    while (noted < 5 * round && read(pipe_ends[0], &noted, sizeof noted) == sizeof noted) {
    }
    kill(child, SIGKILL);
    while (read(pipe_ends[0], &last, sizeof last) == sizeof last) noted = last;
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    Store store = Opened(folder.path());
    EXPECT_GE(store.Runs()->back().programs, noted);
    EXPECT_EQ(store.Runs()->size(), round);
  }
  EXPECT_TRUE(IsWhole(folder.path()));
}

TEST(Store, FullDiskIsAnErrorAndWhatWasNotedStays) {
  const TemporaryFolder folder;
  Store store = Opened(folder.path());
  const auto run = store.BeginRun(SomeRun(".run-a"));
  ASSERT_TRUE(store.Note(*run, {.now = 5, .seconds = 1, .programs = 11}));
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &none);
  const auto noted = store.Note(*run, {.now = 6, .seconds = 2, .programs = 22});
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_DFL);
  ASSERT_FALSE(noted);
  EXPECT_THAT(noted.error(), HasSubstr("free some space"));
  EXPECT_EQ(store.Runs()->back().programs, 11u);
  EXPECT_TRUE(store.Note(*run, {.now = 6, .seconds = 2, .programs = 22}));
  EXPECT_TRUE(IsWhole(folder.path()));
}

TEST(Store, ACopyServesWhereTheFolderCannotBeWritten) {
  const TemporaryFolder folder;
  WriteFolder(folder.path(), "a", R"({"signature": "one"})");
  {
    Store store = Opened(folder.path());
    ASSERT_TRUE(store.BeginRun(SomeRun(".run-a")));
  }
  const std::string before = files::ReadFile(folder.path() / Store::kFile, 1 << 24).value();
  auto copy = Store::OpenCopy(folder.path());
  ASSERT_TRUE(copy) << copy.error();
  EXPECT_EQ(copy->Runs()->size(), 1u);
  EXPECT_EQ(copy->Index().value(), 1u);
  EXPECT_EQ(files::ReadFile(folder.path() / Store::kFile, 1 << 24).value(), before);
  fs::remove(folder.path() / Store::kFile);
  EXPECT_EQ(Store::OpenCopy(folder.path())->Index().value(), 1u);
  EXPECT_FALSE(fs::exists(folder.path() / Store::kFile));
}

}  // namespace
}  // namespace fpswap::triage
