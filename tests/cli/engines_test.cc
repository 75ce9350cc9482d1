// SPDX-License-Identifier: GPL-2.0-or-later
//
// `fpswap fuzz` with each engine, on `native`. Engines that were not built are skipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "harness/cli/cli.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "tests/campaign/fakes.h"
#include "tests/cli/command.h"

namespace fpswap::cli {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::ProgramOf;
using fpswap::testing::TemporaryFolder;
using nlohmann::json;
using program::Op;
using ::testing::HasSubstr;

class Engines : public ::testing::Test {
 protected:
  // Fuzzes native for some hundred programs; nothing where engine or target can't be had.
  std::optional<json> Fuzz(std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "fuzz", "--target",   "native",         "--runs",   "300",          "--seed",
        "1",    "--findings", Path("findings"), "--corpus", Path("corpus"), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = Command(arguments);
    exit_ = result.exit;
    err_ = result.err;
    if (exit_ == kUnavailable) return {};
    return json::parse(result.out, nullptr, false);
  }
  std::string Path(const char* name) const { return (folder_.path() / name).string(); }
  size_t InCorpus() const {
    const fs::path folders[] = {Path("corpus")};
    return files::List(folders).value_or(files::Listed{}).encoded.size();
  }
  const TemporaryFolder folder_;
  std::string err_;
  int exit_ = -1;
};

TEST_F(Engines, LibFuzzerThatIsNotGuidedKeepsNothing) {
  const auto guided = Fuzz({"--engine", "libfuzzer"});
  if (!guided) GTEST_SKIP() << err_;
  EXPECT_EQ(exit_, kAgrees) << err_;
  EXPECT_GT(InCorpus(), 20u);
  fs::remove_all(Path("corpus"));
  const auto unguided = Fuzz({"--engine", "libfuzzer", "--unguided"});
  ASSERT_TRUE(unguided);
  EXPECT_EQ((*unguided)["programs"], 300);
  EXPECT_LE(InCorpus(), 2u);
  EXPECT_GT((*unguided)["states"], 500) << "it is counted all the same";
}

TEST_F(Engines, BytesAreMutatedByLibFuzzerButNotByThePlainEngine) {
  const auto programs = Fuzz({"--engine", "libfuzzer"});
  if (!programs) GTEST_SKIP() << err_;
  fs::remove_all(Path("corpus"));
  const auto bytes = Fuzz({"--engine", "libfuzzer", "--mutator", "bytes"});
  ASSERT_TRUE(bytes);
  EXPECT_EQ((*bytes)["programs"], 300);
  EXPECT_LT((*bytes)["states"], (*programs)["states"]) << "bytes know nothing of steps";
  Fuzz({"--engine", "plain", "--mutator", "bytes"});
  EXPECT_EQ(exit_, kBadInput);
  EXPECT_THAT(err_, HasSubstr("--mutator bytes needs --engine libfuzzer or afl"));
}

TEST_F(Engines, AflRunsJobsThatShareTheirQueuesWithTheCorpus) {
  const auto seed = ProgramOf({Op::kFninit, Op::kSseLoad, Op::kSseStore});
  fs::create_directories(Path("corpus"));
  ASSERT_TRUE(files::WriteFile(Path("corpus/0123456789abcdef"), program::Encode(seed)));
  const auto summary = Fuzz({"--engine", "afl", "--jobs", "2"});
  if (!summary) GTEST_SKIP() << err_;
  EXPECT_EQ(exit_, kAgrees) << err_;
  EXPECT_EQ((*summary)["programs"], 300);
  EXPECT_EQ((*summary)["restarts"], 0);
  EXPECT_THAT((*summary)["errors"], ::testing::IsEmpty());
  EXPECT_GT(InCorpus(), 20u) << "what AFL++ found interesting";
}

}  // namespace
}  // namespace fpswap::cli
