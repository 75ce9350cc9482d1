// SPDX-License-Identifier: GPL-2.0-or-later
//
// Can bugs be found in what the KVM at hand may lack: AMX, IA32_XFD, permission, CET? Each is
// planted in a simulated vCPU made of the CPU model, and generated programs are run there and
// judged until one diverges. docs/planted-bugs-simulated.md has the numbers, which are the same
// everywhere for they follow from the seeds; FPSWAP_REBASE=1 in the environment writes them.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "harness/judge/simulator.h"
#include "harness/plan/vmm.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::judge {
namespace {

using cpu::Cpu;
using program::Op;
using xstate::Component;

constexpr unsigned kSeeds = 5, kMostPrograms = 100000;
const std::string kPage = FPSWAP_SOURCE_DIR "/docs/planted-bugs-simulated.md";

bool IsExit(Op op) { return op >= Op::kExitOut && op <= Op::kExitPageFault; }

// The first vCPU's CPU: programs of the generator have one.
Cpu& CpuOf(World& world) { return world.vcpu[0].cpu; }

std::span<uint8_t> TileRow(Cpu& cpu, unsigned tile, unsigned row) {
  return cpu.regs.tiledata.Write().subspan(tile * 1024 + row * 64, 64);
}

constexpr Plant kPlants[] = {
    {"tile-row-lost", "An exit clears row 7 of TMM2.", nullptr,
     [](const program::Step& step, World& world) {
       Cpu& cpu = CpuOf(world);
       if (!IsExit(step.op) || cpu.IsInitial(Component::kTiledata)) return;
       std::ranges::fill(TileRow(cpu, 2, 7), uint8_t{0});
     }},
    {"tiles-swapped", "Moving the thread to another CPU exchanges row 0 of TMM3 and TMM4.", nullptr,
     [](const program::Step& step, World& world) {
       Cpu& cpu = CpuOf(world);
       if (step.op != Op::kHostCpu || cpu.IsInitial(Component::kTiledata)) return;
       std::ranges::swap_ranges(TileRow(cpu, 3, 0), TileRow(cpu, 4, 0));
     }},
    {"tiles-initialised-without-xfd",
     "KVM_RUN with immediate_exit makes the tiles initial, though IA32_XFD is 0.", nullptr,
     [](const program::Step& step, World& world) {
       Cpu& cpu = CpuOf(world);
       if (step.op == Op::kRunImmediate && cpu.xfd == 0) cpu.Initialise(Component::kTiledata);
     }},
    {"xfd-forgotten-on-migration", "IA32_XFD is 0 after a migration.", nullptr,
     [](const program::Step& step, World& world) {
       if (step.op == Op::kMigrate) CpuOf(world).xfd = 0;
     }},
    {"msrs-behind-refused-one",
     "KVM_SET_MSRS of a list whose first entry is refused takes the second.", nullptr,
     [](const program::Step& step, World& world) {
       if (step.op != Op::kSetMsrList) return;
       const plan::MsrList list = plan::MsrsOf(step);
       const auto set = [&](kvm::Vcpu& vcpu, unsigned i) {
         return vcpu.SetMsr(program::MsrIndex(list.entry[i].msr), list.entry[i].value).result == 1;
       };
       kvm::Vcpu trial = world.vcpu[0];
       if (!set(trial, 0)) set(world.vcpu[0], 1);
     }},
    {"xfd-err-cleared", "An exit clears IA32_XFD_ERR.", nullptr,
     [](const program::Step& step, World& world) {
       if (IsExit(step.op)) CpuOf(world).xfd_err = 0;
     }},
    {"permission-ignored",
     "KVM_SET_XSAVE takes XTILE_DATA for a vCPU whose process has no permission for it.",
     [](kvm::Host& host) { host.user_features |= host.dynamic; }, nullptr},
    {"cet-swapped", "A migration exchanges IA32_PL0_SSP and IA32_PL1_SSP.", nullptr,
     [](const program::Step& step, World& world) {
       auto& cet = CpuOf(world).regs.cet_s;
       if (step.op == Op::kMigrate) std::swap(cet[0], cet[1]);
     }},
    {"s-cet-lost", "A signal in KVM_RUN clears IA32_S_CET.", nullptr,
     [](const program::Step& step, World& world) {
       if (step.op == Op::kHostSignal) CpuOf(world).s_cet = 0;
     }},
};

trace::Platform PlatformFor(const Plant& plant) {
  trace::Platform platform = TestPlatform(0x602e7);
  platform.can.reset(static_cast<uint8_t>(Op::kRaw));
  if (std::string_view(plant.name) == "permission-ignored") {
    platform.guest = LimitFeatures(platform.guest, ~xstate::kAmx);
    platform.guest_perm &= ~xstate::kAmx;
    platform.xsave_size = kvm::kGetXsaveSize;
  }
  return platform;
}

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
