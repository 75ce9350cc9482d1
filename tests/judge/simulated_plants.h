// SPDX-License-Identifier: GPL-2.0-or-later
//
// Bugs in what the KVM at hand may lack, AMX, IA32_XFD, permission and CET, each planted in a
// simulated vCPU made of the CPU model, and the platform that has it.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>

#include "harness/judge/simulator.h"
#include "harness/plan/vmm.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::judge::simulated {

using cpu::Cpu;
using program::Op;
using xstate::Component;

inline bool IsExit(Op op) { return op >= Op::kExitOut && op <= Op::kExitPageFault; }

// The first vCPU's CPU: programs of the generator have one.
inline Cpu& CpuOf(World& world) { return world.vcpu[0].cpu; }

inline std::span<uint8_t> TileRow(Cpu& cpu, unsigned tile, unsigned row) {
  return cpu.regs.tiledata.Write().subspan(tile * 1024 + row * 64, 64);
}

inline constexpr Plant kPlants[] = {
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

inline trace::Platform PlatformFor(const Plant& plant) {
  trace::Platform platform = TestPlatform(0x602e7);
  platform.can.reset(static_cast<uint8_t>(Op::kRaw));
  if (std::string_view(plant.name) == "permission-ignored") {
    platform.guest = LimitFeatures(platform.guest, ~xstate::kAmx);
    platform.guest_perm &= ~xstate::kAmx;
    platform.xsave_size = kvm::kGetXsaveSize;
  }
  return platform;
}

}  // namespace fpswap::judge::simulated
