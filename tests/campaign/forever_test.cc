// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/forever.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "harness/campaign/corpus.h"
#include "harness/campaign/engine.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "tests/campaign/fakes.h"

namespace fpswap::campaign {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::Agrees;
using fpswap::testing::FakeRunner;
using fpswap::testing::ProgramOf;
using fpswap::testing::SomeDivergence;
using fpswap::testing::TemporaryFolder;
using nlohmann::json;
using program::Op;
using program::Program;
using ::testing::Contains;
using ::testing::HasSubstr;

judge::Verdict VzeroallDiverges(const Program& program) {
  judge::Verdict verdict;
  if (fpswap::testing::Contains(program, Op::kVzeroall)) {
    verdict.divergences.push_back(SomeDivergence());
  }
  return verdict;
}

class Forever : public ::testing::Test {
 protected:
  fs::path Findings() const { return folder_.path() / "findings"; }
  fs::path Corpus() const { return folder_.path() / "corpus"; }
  KeepOptions Options(FakeRunner::Rule rule = Agrees) const {
    KeepOptions options;
    options.findings = Findings();
    options.corpus = Corpus();
    options.target = "everything";
    options.version = "0.1.0";
    options.build = "b";
    options.every = 0;
    options.open = [rule]() -> std::expected<std::unique_ptr<Runner>, std::string> {
      return std::make_unique<FakeRunner>(rule);
    };
    return options;
  }
  std::unique_ptr<Keeper> Open(KeepOptions options) {
    auto keeper = Keeper::Open(
        std::move(options), [this](std::string_view said) { said_ += std::string(said) + "\n"; });
    if (!keeper) {
      ADD_FAILURE() << keeper.error();
      return nullptr;
    }
    return std::move(*keeper);
  }
  json StatusFile() const {
    return json::parse(files::ReadFile(Findings() / "status.json", 1u << 20).value_or(""), nullptr,
                       false);
  }
  void Fill(const fs::path& folder, size_t mib) const {
    fs::create_directories(folder);
    std::ofstream(folder / "bytes") << std::string(mib << 20, 'x');
  }
  const TemporaryFolder folder_;
  std::string said_;
};

TEST_F(Forever, RemovesTheOldestOfWhatIsNoFindingUntilTheDiskIsWithinItsBound) {
  KeepOptions options = Options();
  options.disk_mib = 5;
  const auto keeper = Open(std::move(options));
  ASSERT_TRUE(keeper);
  Fill(Findings() / "interrupted-1-0-0", 3);
  Fill(Findings() / "interrupted-2-0-0", 2);
  Fill(Findings() / "0123abcd-model-xsave-avx-stale", 2);
  const auto long_ago = fs::file_time_type::clock::now() - std::chrono::hours(1);
  fs::last_write_time(Findings() / "interrupted-1-0-0", long_ago);
  const auto kept = keeper->Between();
  EXPECT_TRUE(kept) << kept.error();
  EXPECT_FALSE(fs::exists(Findings() / "interrupted-1-0-0"));
  EXPECT_TRUE(fs::exists(Findings() / "interrupted-2-0-0"));
  EXPECT_TRUE(fs::exists(Findings() / "0123abcd-model-xsave-avx-stale"));
  EXPECT_THAT(said_, HasSubstr("interrupted-1-0-0 was removed"));
}

TEST_F(Forever, StopsRatherThanRemoveAFinding) {
  KeepOptions options = Options();
  options.disk_mib = 1;
  const auto keeper = Open(std::move(options));
  ASSERT_TRUE(keeper);
  Fill(Findings() / "0123abcd-model-xsave-avx-stale", 3);
  const auto kept = keeper->Between();
  ASSERT_FALSE(kept);
  EXPECT_THAT(kept.error(), HasSubstr("Findings are never removed by themselves"));
  EXPECT_TRUE(fs::exists(Findings() / "0123abcd-model-xsave-avx-stale" / "bytes"));
  EXPECT_TRUE(keeper->Note({})) << "the round would have ended too";
}

TEST_F(Forever, ARoundEndsWhereWorkersTakeTooMuchMemory) {
  KeepOptions options = Options();
  options.memory_mib = 40;
  const auto keeper = Open(std::move(options));
  ASSERT_TRUE(keeper);
  EXPECT_FALSE(keeper->Note({}));
  int ready[2], end[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(end), 0);
  const pid_t worker = fork();
  if (worker == 0) {
    const pid_t agent = fork();
    if (agent == 0) {
      const std::string memory(64u << 20, 'x');
      (void)!write(ready[1], &memory[7], 1);
      close(end[1]);
      char byte = 0;
      (void)!read(end[0], &byte, 1);
      _exit(memory[byte] == 'x' ? 0 : 1);
    }
    close(end[1]);
    waitpid(agent, nullptr, 0);
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_TRUE(keeper->Note({}));
  EXPECT_GE(keeper->status().memory_mib, 64u);
  for (int fd : {ready[0], ready[1], end[0], end[1]}) close(fd);
  waitpid(worker, nullptr, 0);
  EXPECT_TRUE(keeper->Note({})) << "over until the round has ended";
  ASSERT_TRUE(keeper->Between());
  EXPECT_FALSE(keeper->Note({}));
  EXPECT_EQ(keeper->status().early_rounds, 1u);
}

TEST_F(Forever, OnlyOneKeepsAFolder) {
  const auto keeper = Open(Options());
  const auto second = Keeper::Open(Options(), nullptr);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error(), HasSubstr("another `fpswap fuzz --forever` runs there"));
}

TEST_F(Forever, JudgesAgainWhenTheCommandIsAnotherAndWritesWhatChanged) {
  fs::create_directories(Corpus());
  const auto bytes = program::Encode(ProgramOf({Op::kVzeroall}));
  ASSERT_TRUE(files::WriteFile(Corpus() / CorpusName(bytes), bytes));
  ASSERT_TRUE(Open(Options())->Between());
  EXPECT_FALSE(fs::exists(Findings() / "changes.jsonl"));
  KeepOptions later = Options(VzeroallDiverges);
  later.build = "c";
  ASSERT_TRUE(Open(std::move(later))->Between());
  const auto text = files::ReadFile(Findings() / "changes.jsonl", 1u << 20);
  ASSERT_TRUE(text) << text.error();
  const json line = json::parse(*text, nullptr, false);
  ASSERT_EQ(line["changes"].size(), 1u) << *text;
  EXPECT_EQ(line["from"]["build"], "b");
  EXPECT_EQ(line["to"]["build"], "c");
  EXPECT_EQ(line["changes"][0]["before"], "not shown");
  EXPECT_THAT(said_, HasSubstr("not shown, now model|vmm.get_xsave|avx|stale"));
}

TEST_F(Forever, SaysWhatItDoesInAFileAndInMetrics) {
  KeepOptions options = Options();
  options.target = "lab:a\"b\\c";
  const auto keeper = Open(std::move(options));
  ASSERT_TRUE(keeper->Between());
  Progress progress;
  progress.programs = 123;
  progress.starting = false;
  progress.last_said = "worker 0 was killed";
  keeper->Note(progress);
  const json status = StatusFile();
  EXPECT_EQ(status["state"], "fuzzing");
  EXPECT_EQ(status["programs"], 123);
  EXPECT_THAT(status["said"].dump(), HasSubstr("worker 0 was killed"));
  const auto metrics = files::ReadFile(Findings() / "fpswap.prom", 1u << 20);
  ASSERT_TRUE(metrics) << metrics.error();
  // Prometheus's text format: each sample has a HELP and a TYPE before it, labels are escaped.
  const std::regex sample(
      R"re(fpswap_\w+\{target="lab:a\\"b\\\\c",findings="[^"]*"(,\w+="[^"]*")*\} [0-9.e+]+)re");
  std::istringstream lines(*metrics);
  size_t samples = 0;
  for (std::string help, type, line; std::getline(lines, help);) {
    ASSERT_TRUE(std::getline(lines, type) && std::getline(lines, line));
    const std::string name = line.substr(0, line.find('{'));
    EXPECT_THAT(help, ::testing::StartsWith("# HELP " + name + " "));
    EXPECT_THAT(type, ::testing::MatchesRegex("# TYPE " + name + " (gauge|counter)"));
    EXPECT_TRUE(std::regex_match(line, sample)) << line;
    ++samples;
  }
  EXPECT_GT(samples, 10u);
  EXPECT_THAT(*metrics, HasSubstr("\nfpswap_programs_total{target=\"lab:a\\\"b\\\\c\""));
  keeper->End({});
  EXPECT_EQ(StatusFile()["state"], "stopped");
}

// The rounds, with workers that are processes.
struct Rounded {
  Summary summary;
  std::vector<uint64_t> programs;  // before each round
};

Rounded RunRounds(const fs::path& folder, unsigned rounds, const FakeRunner::Rule& rule,
                  const std::function<bool(unsigned start)>& opens) {
  FuzzOptions options;
  options.worker.findings = folder / "findings";
  options.worker.corpus = folder / "corpus";
  options.worker.batch = 16;
  options.keep_corpus = true;
  options.rounds.seconds = 0.8;  // some programs have what `rule` asks for, on a busy machine too
  options.rounds.wait = 0.1;
  Rounded result;
  Progress last;
  options.rounds.between = [&]() -> std::expected<void, std::string> {
    result.programs.push_back(last.programs);
    if (result.programs.size() > rounds) Supervisor::Interrupt();
    return {};
  };
  Supervisor supervisor(options, [&](const WorkerOptions& worker_options, unsigned start) {
    const pid_t child = fork();
    if (child != 0) return child;
    if (!opens(start)) _exit(Worker::kUnavailable);
    auto worker = Worker::Open(worker_options, std::make_unique<FakeRunner>(rule));
    _exit(worker ? static_cast<int>(RunPlainEngine(**worker, worker_options)) : 3);
  });
  auto summary = supervisor.Run([&](const Progress& progress) { last = progress; });
  EXPECT_TRUE(summary) << summary.error();
  if (summary) result.summary = std::move(*summary);
  return result;
}

TEST_F(Forever, RoundsGoOnWithWhatTheLastOneLeftAndNothingIsLostBetweenThem) {
  const auto run = RunRounds(folder_.path(), 3, VzeroallDiverges, [](unsigned) { return true; });
  ASSERT_EQ(run.programs.size(), 4u);
  EXPECT_EQ(run.summary.progress.rounds, 3u);
  EXPECT_LT(run.programs[1], run.programs[2]);
  EXPECT_LT(run.programs[2], run.programs[3]);
  EXPECT_EQ(run.summary.progress.made, run.summary.progress.programs) << "each made was run";
  EXPECT_EQ(run.summary.reach.programs(), run.summary.progress.programs);
  EXPECT_EQ(run.summary.new_seen.size(), 1u);
  EXPECT_TRUE(run.summary.errors.empty()) << run.summary.errors.front();
  EXPECT_TRUE(run.summary.interrupted.empty());
}

TEST_F(Forever, EntriesThatReachMoreOfTheKernelStayInTheCorpusOverTheRounds) {
  FuzzOptions options;
  options.worker.findings = Findings();
  options.worker.corpus = Corpus();
  options.keep_corpus = true;
  unsigned rounds = 0;
  options.rounds.seconds = 3600;
  options.rounds.over = [&](const Progress& progress) { return progress.programs >= 200 * rounds; };
  // What a program reaches of the kernel says nothing of the model's states.
  const auto runner = [] {
    auto counting = std::make_unique<FakeRunner>(Agrees);
    counting->set_edges([](const Program& program) {
      const auto name = std::stoull(CorpusName(program::Encode(program)), nullptr, 16);
      return std::vector<uint16_t>{static_cast<uint16_t>(name % 4096)};
    });
    return counting;
  };
  KeepOptions keep = Options();
  keep.open = [&]() -> std::expected<std::unique_ptr<Runner>, std::string> { return runner(); };
  const auto keeper = Open(std::move(keep));
  options.rounds.between = [&] {
    if (++rounds > 2) Supervisor::Interrupt();
    return keeper->Between();
  };
  Supervisor supervisor(options, [&](const WorkerOptions& worker_options, unsigned) {
    const pid_t child = fork();
    if (child != 0) return child;
    auto worker = Worker::Open(worker_options, runner());
    _exit(worker ? static_cast<int>(RunPlainEngine(**worker, worker_options)) : 3);
  });
  const auto summary = supervisor.Run(nullptr);
  ASSERT_TRUE(summary) << summary.error();
  EXPECT_TRUE(summary->errors.empty()) << summary->errors.front();
  size_t alone = 0;
  auto corpus = CorpusFolder::Open(Corpus(), false);
  ASSERT_TRUE(corpus) << corpus.error();
  for (const Candidate& each : corpus->entries().programs) {
    alone += each.note.platforms.empty() && !each.note.kernel_edges.empty();
  }
  EXPECT_GT(alone, 0u) << "all went that the model's states do not need";
}

TEST_F(Forever, WaitsForATargetThatIsGoneAndGoesOn) {
  const auto run = RunRounds(folder_.path(), 3, Agrees, [](unsigned start) { return start != 1; });
  EXPECT_EQ(run.summary.progress.rounds, 3u);
  ASSERT_EQ(run.programs.size(), 4u);
  EXPECT_EQ(run.programs[1], run.programs[2]) << "the second round could run nothing";
  EXPECT_LT(run.programs[2], run.programs[3]);
  EXPECT_FALSE(run.summary.unavailable) << "it is there again";
}

TEST_F(Forever, ARunEndsWhereWhatIsBetweenRoundsFails) {
  FuzzOptions options;
  options.worker.findings = Findings();
  options.rounds.seconds = 1;
  options.rounds.between = []() -> std::expected<void, std::string> {
    return std::unexpected(std::string("the disk is full"));
  };
  Supervisor supervisor(options, [](const WorkerOptions&, unsigned) -> pid_t {
    ADD_FAILURE() << "a worker was started";
    return -1;
  });
  const auto summary = supervisor.Run(nullptr);
  ASSERT_TRUE(summary);
  EXPECT_TRUE(summary->failed);
  EXPECT_THAT(summary->errors, Contains("the disk is full"));
}

}  // namespace
}  // namespace fpswap::campaign
