// SPDX-License-Identifier: GPL-2.0-or-later
//
// What is #GP outside CPL 0, on this CPU and on the model.
#include <gtest/gtest.h>

#include <algorithm>

#include "oracle/xstate/image.h"
#include "tests/oracle/cpu_rules.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(probe_cpl3_xsetbv, "xor %ecx, %ecx\n  xsetbv");
FPSWAP_WITNESS(probe_cpl3_xsaves, "xsaves64 (%rsi)");
FPSWAP_WITNESS(probe_cpl3_xrstors, "xrstors64 (%rsi)");
FPSWAP_WITNESS(probe_cpl3_rdmsr, "mov $0xda0, %ecx\n  rdmsr");
FPSWAP_WITNESS(probe_cpl3_wrmsr, "mov $0xda0, %ecx\n  wrmsr");
FPSWAP_WITNESS(probe_cpl3_clts, "clts");

namespace fpswap::cpu::testing {
namespace {

TEST(PrivilegeWitness, SystemInstructionsFaultOutsideCpl0) {
  if (!Host().features.xsave.xsaves) GTEST_SKIP() << "this CPU lacks XSAVES";
  const uint64_t xcr0 = Host().xcr0;
  const struct {
    const char* name;
    WitnessFunction function;
    Result (*model)(Cpu& cpu);
  } cases[] = {
      {"XSETBV", probe_cpl3_xsetbv, [](Cpu& cpu) { return cpu.Xsetbv(0, cpu.xcr0); }},
      {"XSAVES", probe_cpl3_xsaves,
       [](Cpu& cpu) {
         std::vector<uint8_t> area = Area();
         FixedChoices choices;
         return cpu.Xsave(SaveForm::kXsaves, area, kArea, cpu.xcr0, true, choices);
       }},
      {"XRSTORS", probe_cpl3_xrstors,
       [](Cpu& cpu) { return cpu.Xrstors(EmptyImage(cpu.xcr0), kArea, cpu.xcr0, true); }},
      {"RDMSR", probe_cpl3_rdmsr,
       [](Cpu& cpu) {
         uint64_t value = 0;
         return cpu.Rdmsr(Cpu::kMsrXss, &value);
       }},
      {"WRMSR", probe_cpl3_wrmsr, [](Cpu& cpu) { return cpu.Wrmsr(Cpu::kMsrXss, 0); }},
      {"CLTS", probe_cpl3_clts, [](Cpu& cpu) { return cpu.MovCr0Ts(false); }},
  };
  for (const auto& each : cases) {
    Probe probe;
    std::ranges::copy(EmptyImage(xcr0), probe.memory().begin());
    EXPECT_EQ(probe.Run(each.function, xcr0), kGP) << each.name;
    Cpu cpu = HostModel();
    EXPECT_EQ(each.model(cpu), (Fault{kGP, 0})) << each.name;
  }
}

}  // namespace
}  // namespace fpswap::cpu::testing
