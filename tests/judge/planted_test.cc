// SPDX-License-Identifier: GPL-2.0-or-later
//
// Can bugs be found in what the KVM at hand may lack (simulated_plants.h)? Generated programs are
// run on a simulated vCPU that has the bug and judged until one diverges.
// docs/planted-bugs-simulated.md has the numbers, which are the same everywhere for they follow
// from the seeds; FPSWAP_REBASE=1 in the environment writes them.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "tests/judge/simulated_plants.h"

namespace fpswap::judge {
namespace {

using program::Op;
using simulated::kPlants;
using simulated::PlatformFor;

constexpr unsigned kSeeds = 5, kMostPrograms = 100000;
const std::string kPage = FPSWAP_SOURCE_DIR "/docs/planted-bugs-simulated.md";

// Programs up to the first that diverges; kMostPrograms + 1 if none does.
unsigned ProgramsUntilFound(const Plant& plant, uint64_t seed) {
  const trace::Platform platform = PlatformFor(plant);
  program::Profile profile;
  profile.features = platform.guest.xsave.xcr0;
  profile.supervisor = platform.guest.xsave.xss;
  // A vCPU is no thread of a system's: those steps are native's.
  profile.allowed = [](const program::StepRow& row, const void*) {
    return row.op != Op::kRaw && row.actor != program::Actor::kSystem;
  };
  Judge judge(platform);
  Simulator simulator(platform, &plant);
  program::Rng rng(seed);
  for (unsigned n = 1; n <= kMostPrograms; ++n) {
    program::Program program = program::Generate(rng, profile);
    program.vcpus = 1;
    program::MakeValid(program);
    const plan::Plan plan = plan::MakePlan(program, platform);
    if (!judge.Check(plan, simulator.Run(plan, rng)).ok()) return n;
  }
  return kMostPrograms + 1;
}

std::string ReadPage() {
  std::ifstream in(kPage);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(PlantedInSimulation, IsFoundByGeneratedProgramsWithEverySeed) {
  std::string page =
      "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->\n"
      "# Planted bugs, simulated\n\n"
      "Bugs in AMX, IA32_XFD, permission and CET, which the KVM at hand may lack, are planted in "
      "a\n"
      "vCPU made of the CPU model. Programs come from the generator alone, without a corpus or\n"
      "feedback; the number is the median of five seeds up to the first program that diverges.\n"
      "Written by `FPSWAP_REBASE=1 test_judge --gtest_filter='PlantedInSimulation.*'`;\n"
      "[planted-bugs.md](planted-bugs.md) has the bugs planted in agents.\n\n"
      "| plant | what it does | found | programs |\n|---|---|---|---|\n";
  const std::string before = ReadPage();
  for (const Plant& plant : kPlants) {
    std::vector<unsigned> programs;
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      programs.push_back(ProgramsUntilFound(plant, seed));
      EXPECT_LE(programs.back(), kMostPrograms) << plant.name << ", seed " << seed;
    }
    std::ranges::sort(programs);
    page += fmt::format("| `{}` | {} | {} of {} | {} |\n", plant.name, plant.what,
                        std::ranges::count_if(programs, [](auto n) { return n <= kMostPrograms; }),
                        kSeeds, programs[kSeeds / 2]);
    // The numbers are those of the generator when they were written; the list is always complete.
    EXPECT_NE(before.find(fmt::format("| `{}` | {} |", plant.name, plant.what)), before.npos)
        << kPage << " lacks " << plant.name << "; FPSWAP_REBASE=1 writes it";
  }
  if (std::getenv("FPSWAP_REBASE") != nullptr) std::ofstream(kPage) << page;
}

}  // namespace
}  // namespace fpswap::judge
