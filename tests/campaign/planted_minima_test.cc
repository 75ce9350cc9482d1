// SPDX-License-Identifier: GPL-2.0-or-later
//
// How small does minimising make a program? corpus/planted has for each bug that can be planted in
// an agent or a simulated vCPU the smallest program that a person has found to show it. With the
// bug it must diverge, without it not; lost among steps that have nothing to do with it, it must be
// found again by minimising: in another form, if there is one, but never in more steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "harness/campaign/minimise.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/runner.h"
#include "harness/files/files.h"
#include "harness/plan/wire.h"
#include "harness/program/text.h"
#include "harness/triage/known.h"
#include "harness/triage/signature.h"
#include "tests/judge/simulated_plants.h"

namespace fpswap::campaign {
namespace {
namespace fs = std::filesystem;
using program::Program;

const fs::path kFolder = FPSWAP_SOURCE_DIR "/corpus/planted";

// These show in a program only what an earlier program has left.
const std::set<std::string> kOfTwoPrograms = {"leftover-of-earlier-program",
                                              "high-zmm-of-another-program"};

struct Minimum {
  std::string target, plant;
  Program program;
};

std::vector<Minimum> Minima() {
  std::vector<Minimum> all;
  for (const auto& entry : fs::recursive_directory_iterator(kFolder)) {
    if (entry.path().extension() != ".fps") continue;
    const auto text = files::ReadFile(entry.path(), 1 << 16);
    const auto program = text ? program::ParseText(*text) : Program{};
    all.push_back({entry.path().parent_path().filename(), entry.path().stem(),
                   program ? *program : Program{}});
  }
  std::ranges::sort(all, {}, &Minimum::plant);
  return all;
}

// A vCPU made of the CPU model.
class SimulatedRunner : public Runner {
 public:
  SimulatedRunner(const judge::Plant& plant, bool planted)
      : platform_(judge::simulated::PlatformFor(plant)),
        judge_(platform_),
        simulator_(platform_, planted ? &plant : nullptr) {}

  const trace::Platform& platform() const override { return platform_; }
  std::expected<void, std::string> Run(std::span<const plan::Plan* const> plans,
                                       judge::ReachSink* reach, const Done& done) override {
    for (size_t i = 0; i < plans.size(); ++i) {
      program::Rng rng(1);
      const auto records = simulator_.Run(*plans[i], rng);
      done(i, records, judge_.Check(*plans[i], records, reach));
    }
    return {};
  }

 private:
  const trace::Platform platform_;
  judge::Judge judge_;
  judge::Simulator simulator_;
};

// `given`'s target, with the bug or without. One for each test: targets would wait for each other.
std::unique_ptr<Runner> OpenRunner(const Minimum& given, bool planted) {
  if (given.target == "simulated") {
    const auto plant = std::ranges::find(judge::simulated::kPlants, given.plant,
                                         [](const judge::Plant& one) { return one.name; });
    if (plant == std::end(judge::simulated::kPlants)) return nullptr;
    return std::make_unique<SimulatedRunner>(*plant, planted);
  }
  auto opened =
      Open(given.target, {.runner_dir = FPSWAP_BINARY_DIR, .plant = planted ? given.plant : ""});
  return opened ? MakeRunner(std::move(*opened)) : nullptr;
}

// The first divergence that is not known.
std::optional<triage::Signature> FirstNew(Runner& runner, const Program& program,
                                          std::span<const triage::Known> known) {
  const auto ran = RunOne(runner, program);
  if (!ran) return {};
  const auto first = triage::Sort(ran->verdict, runner.platform(), known).first_new;
  if (!first) return {};
  return triage::SignatureOf(ran->verdict.divergences[*first]);
}

// Each time: where the thread happens to be must not matter.
bool Shows(Runner& runner, const Program& program, const triage::Signature& wanted) {
  constexpr unsigned kTries = 3;
  for (unsigned i = 0; i < kTries; ++i) {
    const auto ran = RunOne(runner, program);
    if (!ran || std::ranges::none_of(ran->verdict.divergences, [&](const auto& divergence) {
          return triage::SignatureOf(divergence).Key() == wanted.Key();
        })) {
      return false;
    }
  }
  return true;
}

// `minimum` with generated steps before, between and behind its own.
Program Among(const Program& minimum, Runner& runner, program::Rng& rng) {
  const program::Profile profile = ProfileFor(runner.platform());
  Program noise = program::Generate(rng, profile);
  std::erase_if(noise.steps, [](const auto& step) { return step.op == program::Op::kRaw; });
  Program all = minimum;
  for (size_t n = std::min<size_t>(noise.steps.size(), 4 + rng.Below(16)); n > 0; --n) {
    program::Step step = noise.steps[n - 1];
    step.vcpu = static_cast<uint8_t>(rng.Below(minimum.vcpus));
    const auto at = static_cast<ptrdiff_t>(rng.Below(all.steps.size() + 1));
    all.steps.insert(all.steps.begin() + at, step);
  }
  program::MakeValid(all);
  return all;
}

class PlantedMinimum : public ::testing::TestWithParam<Minimum> {};

TEST_P(PlantedMinimum, IsReachedByMinimising) {
  const Minimum& given = GetParam();
  const Program& minimum = given.program;
  ASSERT_FALSE(minimum.steps.empty()) << "not a program";
  const auto known = triage::LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(known) << known.error();
  const auto sound = OpenRunner(given, false), broken = OpenRunner(given, true);
  if (!sound) GTEST_SKIP() << given.target << " can't be had here";
  ASSERT_TRUE(broken) << "no such bug can be planted";
  const auto plan = plan::MakePlan(minimum, broken->platform());
  if (!plan.trims.empty()) GTEST_SKIP() << "this machine can't: " << plan.trims[0].reason;
  const bool moves = std::ranges::any_of(
      minimum.steps, [](const auto& step) { return step.op == program::Op::kHostCpu; });
  if (moves && sysconf(_SC_NPROCESSORS_ONLN) < 2) GTEST_SKIP() << "there is one CPU";

  EXPECT_FALSE(FirstNew(*sound, minimum, *known)) << "diverges without the bug";
  const auto wanted = FirstNew(*broken, minimum, *known);
  ASSERT_TRUE(wanted) << "does not show the bug";

  // Most steps change what the bug hangs on, so that not every seed shows it.
  constexpr unsigned kSeeds = 500;
  const auto seeds = wire::Crc32c(std::vector<uint8_t>(given.plant.begin(), given.plant.end()));
  std::optional<Program> found;
  for (unsigned seed = 1; seed <= kSeeds && !found; ++seed) {
    program::Rng rng(seeds + seed);
    Program among = Among(minimum, *broken, rng);
    if (among.steps.size() >= minimum.steps.size() + 4 && Shows(*broken, among, *wanted)) {
      found = std::move(among);
    }
  }
  ASSERT_TRUE(found) << "none of " << kSeeds << " programs that have it shows it";
  const Minimised result = Minimise(
      *found, [&](const Program& program) { return Shows(*broken, program, *wanted); }, {});
  EXPECT_TRUE(result.done);
  EXPECT_LE(result.program.steps.size(), minimum.steps.size())
      << "made of\n"
      << program::PrintText(*found) << "was\n"
      << program::PrintText(result.program);
  EXPECT_LE(result.program.vcpus, minimum.vcpus);
}

std::string NameOf(const ::testing::TestParamInfo<Minimum>& at) {
  std::string name = at.param.target + "_" + at.param.plant;
  std::ranges::replace(name, '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Corpus, PlantedMinimum, ::testing::ValuesIn(Minima()), NameOf);

TEST(PlantedMinima, AreThereForEveryBugThatCanBePlanted) {
  const auto plants = targets::Plants({.runner_dir = FPSWAP_BINARY_DIR});
  ASSERT_TRUE(plants) << plants.error();
  std::set<std::string> there = kOfTwoPrograms, can;
  for (const Minimum& minimum : Minima()) there.insert(minimum.plant);
  for (const targets::Plant& plant : *plants) can.insert(plant.name);
  for (const judge::Plant& plant : judge::simulated::kPlants) can.insert(plant.name);
  // An agent that is not built here lists none.
  EXPECT_THAT(can, ::testing::IsSubsetOf(there));
}

}  // namespace
}  // namespace fpswap::campaign
