// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/files/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "harness/campaign/pending.h"
#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::ProgramOf;
using fpswap::testing::TemporaryFolder;
using program::Op;
using ::testing::HasSubstr;

TEST(ReadFile, RefusesWhatIsTooLargeMissingOrNoFile) {
  const TemporaryFolder folder;
  ASSERT_TRUE(files::WriteFile(folder.path() / "a", "0123456789"));
  EXPECT_EQ(files::ReadFile(folder.path() / "a", 10).value_or("error"), "0123456789");
  EXPECT_THAT(files::ReadFile(folder.path() / "a", 9).error(), HasSubstr("larger than 9 bytes"));
  EXPECT_THAT(files::ReadFile(folder.path() / "b", 9).error(), HasSubstr("No such file"));
  EXPECT_THAT(files::ReadFile(folder.path(), 9).error(), HasSubstr("not a file"));
  EXPECT_FALSE(files::ReadFile("/dev/zero", 9));
}

TEST(WriteFile, LeavesNothingBehindWhenItFails) {
  const TemporaryFolder folder;
  EXPECT_FALSE(files::WriteFile(folder.path() / "none" / "a", "x"));
  fs::create_directory(folder.path() / "taken");
  EXPECT_FALSE(files::WriteFile(folder.path() / "taken", "x"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(List, FindsProgramsTracesAndCorporaAndPassesOverTheRest) {
  const TemporaryFolder folder;
  fs::create_directories(folder.path() / "finding");
  fs::create_directories(folder.path() / ".run-1");
  const std::string hash(40, 'a');
  for (const char* name : {"b.fps", "a.fps", "finding/trace.fpt", "finding/README.md",
                           ".run-1/hidden.fps", hash.c_str()}) {
    ASSERT_TRUE(files::WriteFile(folder.path() / name, "x"));
  }
  const fs::path paths[] = {folder.path()};
  const auto listed = files::List(paths);
  ASSERT_TRUE(listed) << listed.error();
  ASSERT_EQ(listed->programs.size(), 2u);
  EXPECT_EQ(listed->programs[0].filename(), "a.fps");
  EXPECT_EQ(listed->traces.size(), 1u);
  EXPECT_EQ(listed->encoded.size(), 1u);
  const fs::path missing[] = {folder.path() / "missing.fps"};
  EXPECT_THAT(files::List(missing).error(), HasSubstr("missing.fps: no such file"));
}

TEST(ReadProgram, NamesFileLineAndColumn) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "bad.fps";
  ASSERT_TRUE(files::WriteFile(path, "fpswap 1\nxsvae slot=1\n"));
  const auto program = files::ReadProgram(path);
  ASSERT_FALSE(program);
  EXPECT_THAT(program.error(), HasSubstr(path.string() + ":2:1:"));
}

TEST(PendingFile, GivesBackTheLastTwoBatchesAsWritten) {
  const TemporaryFolder folder;
  PendingFile pending(folder.path(), 3, /*sync=*/true);
  const std::vector<program::Program> first = {ProgramOf({Op::kFninit}),
                                               ProgramOf({Op::kVzeroall})};
  const std::vector<program::Program> second = {ProgramOf({Op::kEmms})};
  const std::vector<program::Program> third = {ProgramOf({Op::kFchs})};
  for (const auto* batch : {&first, &second}) ASSERT_TRUE(pending.Write(*batch));
  EXPECT_EQ(ReadPending(folder.path() / "pending-3-0.bin").value(), first);
  EXPECT_EQ(ReadPending(folder.path() / "pending-3-1.bin").value(), second);
  ASSERT_TRUE(pending.Write(third));  // shorter than what it overwrites
  EXPECT_EQ(ReadPending(folder.path() / "pending-3-0.bin").value(), third);
  pending.Remove();
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(PendingFile, SaysThatNothingMayRunWhereItCannotBeWritten) {
  const TemporaryFolder folder;
  PendingFile pending(folder.path() / "gone", 0, true);
  const program::Program program;
  EXPECT_FALSE(pending.Write({&program, 1}));
}

TEST(PendingFile, FullDiskIsAnErrorThatSaysWhatToDo) {
  const TemporaryFolder folder;
  fs::create_symlink("/dev/full", folder.path() / "pending-0-0.bin");
  PendingFile pending(folder.path(), 0, false);
  const program::Program program;
  const auto written = pending.Write({&program, 1});
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error(), HasSubstr("No space left"));
  EXPECT_THAT(written.error(), HasSubstr("free some space"));
}

TEST(PendingBeside, KeepsWhatItsPredecessorWasAboutToRunAndGoesWithItsCommand) {
  const TemporaryFolder folder;
  const fs::path place = folder.path() / "small.fps", running = place.string() + ".running";
  const auto program = ProgramOf({program::Op::kFninit, program::Op::kSseLoad});
  const pid_t child = fork();
  if (child == 0) {  // a command that is killed
    auto pending = PendingBeside::Open(place, true);
    _exit(pending && pending->Write({&program, 1}) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(ReadPending(running / "pending-0-0.bin").value().at(0), program);
  for (unsigned time = 0; time < 2; ++time) {
    auto pending = PendingBeside::Open(place, true);
    ASSERT_TRUE(pending) << pending.error();
    ASSERT_EQ(pending->saved().size(), time == 0 ? 1u : 0u);
    if (time > 0) break;
    EXPECT_EQ(pending->saved()[0], fs::path(place.string() + ".interrupted") / "0000.fps");
    EXPECT_EQ(files::ReadProgram(pending->saved()[0]).value(), program);
  }
  EXPECT_FALSE(fs::exists(running));
  EXPECT_FALSE(PendingBeside::Open(folder.path() / "none" / "x.fps", true));
}

TEST(ReadPending, RefusesTornAndGarbageFiles) {
  const TemporaryFolder folder;
  PendingFile pending(folder.path(), 0, false);
  const std::vector<program::Program> batch = {ProgramOf({Op::kFninit, Op::kVzeroall})};
  ASSERT_TRUE(pending.Write(batch));
  const fs::path path = folder.path() / "pending-0-0.bin";
  const std::string whole = files::ReadFile(path, 1 << 20).value();
  const size_t used = whole.find_last_not_of('\0') + 1;
  for (size_t cut = 0; cut < used; ++cut) {
    ASSERT_TRUE(files::WriteFile(path, whole.substr(0, cut)));
    EXPECT_FALSE(ReadPending(path)) << "cut at " << cut;
  }
  for (size_t at = 0; at < used; ++at) {
    std::string torn = whole;
    torn[at] = static_cast<char>(torn[at] ^ 0x40);
    ASSERT_TRUE(files::WriteFile(path, torn));
    EXPECT_FALSE(ReadPending(path)) << "changed at " << at;
  }
}

}  // namespace
}  // namespace fpswap::campaign
