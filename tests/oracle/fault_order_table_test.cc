// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which fault comes first, for every combination of reasons: each instruction has its reasons in
// the order of the manual's exception lists (SDM vol. 2), and the first that holds is the one.
#include <gtest/gtest.h>

#include <string>

#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

using Encoding = Cpu::Encoding;

// Reasons, as bits of a combination and as letters of a row: no CR4.'O'SXSAVE, no CR4.OSF'X'SR,
// CR0.'T'S, 'C'PL 3, 'M'isaligned, a bad 'V'alue (header, XCR0, ECX or MXCSR), a pending x87
// 'E'xception.
constexpr char kReasons[] = "OXTCMVE";

int VectorOf(char reason) {
  switch (reason) {
    case 'O':
    case 'X':
      return kUD;
    case 'T':
      return kNM;
    case 'E':
      return kMF;
    default:
      return kGP;
  }
}

struct Case {
  bool bad_value, misaligned;
  uint64_t address() const { return kArea + (misaligned ? 8 : 0); }
  std::vector<uint8_t> Image(uint64_t xcomp_bv) const {
    std::vector<uint8_t> image = EmptyImage(xcomp_bv);
    if (bad_value) xstate::MutableImage(image).set_xstate_bv(uint64_t{1} << 40);
    return image;
  }
};

template <SaveForm kForm>
Result RunXsave(Cpu& cpu, const Case& c) {
  std::vector<uint8_t> area = Area();
  FixedChoices choices;
  const Result fault = cpu.Xsave(kForm, area, c.address(), ~uint64_t{0}, true, choices);
  EXPECT_TRUE(!fault || area == Area()) << "a fault leaves memory alone";
  return fault;
}
Result RunXrstor(Cpu& cpu, const Case& c) {
  return cpu.Xrstor(c.Image(0), c.address(), ~uint64_t{0}, true);
}
Result RunXrstors(Cpu& cpu, const Case& c) {
  return cpu.Xrstors(c.Image(7), c.address(), ~uint64_t{0}, true);
}
Result RunXsetbv(Cpu& cpu, const Case& c) { return cpu.Xsetbv(0, c.bad_value ? 4 : 7); }
Result RunXsetbvEcx(Cpu& cpu, const Case& c) { return cpu.Xsetbv(c.bad_value ? 1 : 0, 7); }
Result RunXgetbv(Cpu& cpu, const Case& c) {
  FixedChoices choices;
  uint64_t value = 0;
  return cpu.Xgetbv(c.bad_value ? 2 : 1, &value, choices);
}
Result RunFxsave(Cpu& cpu, const Case& c) {
  std::vector<uint8_t> area = Area();
  FixedChoices choices;
  return cpu.Fxsave(area, c.address(), true, choices);
}
Result RunFxrstor(Cpu& cpu, const Case& c) {
  std::vector<uint8_t> image = EmptyImage();
  xstate::MutableImage(image).set_mxcsr(c.bad_value ? 0x80000000 : 0x1f80);
  return cpu.Fxrstor(image, c.address(), true);
}
Result RunLdmxcsr(Cpu& cpu, const Case& c) { return cpu.Ldmxcsr(c.bad_value ? ~0u : 0x1f80); }
Result RunWrmsr(Cpu& cpu, const Case& c) {
  return cpu.Wrmsr(Cpu::kMsrXfd, c.bad_value ? 1 : 0x40000);
}
Result RunMovCr0(Cpu& cpu, const Case&) { return cpu.MovCr0Ts(true); }
Result RunFchs(Cpu& cpu, const Case&) { return cpu.Fchs(0); }
Result RunFninit(Cpu& cpu, const Case&) { return cpu.Fninit(); }
Result RunFnclex(Cpu& cpu, const Case&) { return cpu.Fnclex(); }
Result RunEmms(Cpu& cpu, const Case&) { return cpu.Emms(); }

const struct {
  const char* name;
  Result (*run)(Cpu& cpu, const Case& c);
  const char* reasons;  // in their order
} kInstructions[] = {
    {"XSAVE", RunXsave<SaveForm::kXsave>, "OTM"},
    {"XSAVEOPT", RunXsave<SaveForm::kXsaveopt>, "OTM"},
    {"XSAVEC", RunXsave<SaveForm::kXsavec>, "OTM"},
    {"XSAVES", RunXsave<SaveForm::kXsaves>, "OTCM"},
    {"XRSTOR", RunXrstor, "OTMV"},
    {"XRSTORS", RunXrstors, "OTCMV"},
    {"XSETBV, bad value", RunXsetbv, "OCV"},
    {"XSETBV, bad ECX", RunXsetbvEcx, "OCV"},
    {"XGETBV", RunXgetbv, "OV"},
    {"FXSAVE", RunFxsave, "TM"},
    {"FXRSTOR", RunFxrstor, "TMV"},
    {"LDMXCSR", RunLdmxcsr, "XTV"},
    {"WRMSR", RunWrmsr, "CV"},
    {"MOV CR0", RunMovCr0, "C"},
    {"FCHS", RunFchs, "TE"},
    {"FNINIT", RunFninit, "T"},
    {"FNCLEX", RunFnclex, "T"},
    {"EMMS", RunEmms, "TE"},
};

TEST(FaultOrderTable, TheFirstReasonOfTheManualsListIsTheFault) {
  const Features features = Everything();
  for (const auto& instruction : kInstructions) {
    for (unsigned combination = 0; combination < 1u << 7; ++combination) {
      const auto holds = [&](char reason) {
        return ((combination >> std::string_view(kReasons).find(reason)) & 1) != 0;
      };
      Cpu cpu = Supervisor(features);
      cpu.cr4_osxsave = !holds('O');
      cpu.cr4_osfxsr = !holds('X');
      cpu.cr0_ts = holds('T');
      cpu.cpl = holds('C') ? 3 : 0;
      if (holds('E')) cpu.regs.x87.fcw = 0x340, cpu.regs.x87.fsw = 1;
      int due = -1;
      for (const char* r = instruction.reasons; *r != 0 && due < 0; ++r) {
        if (holds(*r)) due = VectorOf(*r);
      }
      const Result fault = instruction.run(cpu, {holds('V'), holds('M')});
      EXPECT_EQ(fault ? int{fault->vector} : -1, due)
          << instruction.name << ", combination " << combination;
    }
  }
}

// What each encoding needs of XCR0 and CR4.OSFXSR (SDM vol. 1, 13.3; vol. 2, 2.4 and 2.6): #UD
// where it is missing, #NM by CR0.TS after that.
TEST(FaultOrderTable, EachVectorEncodingNeedsItsEnablesAndNoOthers) {
  constexpr uint64_t kNone = 0, kAvx = 0x6, kAvx512 = 0xe6;
  const struct {
    const char* name;
    Result (*run)(Cpu& cpu);
    uint64_t xcr0;
    bool osfxsr;
  } rows[] = {
      {"MMX", [](Cpu& c) { return c.CheckVector(Encoding::kMmx); }, kNone, false},
      {"SSE", [](Cpu& c) { return c.CheckVector(Encoding::kSse); }, kNone, true},
      {"VEX.128", [](Cpu& c) { return c.CheckVector(Encoding::kVex128); }, kAvx, false},
      {"VEX.256", [](Cpu& c) { return c.CheckVector(Encoding::kVex256); }, kAvx, false},
      {"EVEX.128", [](Cpu& c) { return c.CheckVector(Encoding::kEvex128); }, kAvx512, false},
      {"EVEX.256", [](Cpu& c) { return c.CheckVector(Encoding::kEvex256); }, kAvx512, false},
      {"EVEX.512", [](Cpu& c) { return c.CheckVector(Encoding::kEvex512); }, kAvx512, false},
      {"opmask", [](Cpu& c) { return c.CheckOpmask(); }, kAvx512, false},
  };
  const Features features = Everything();
  for (const auto& row : rows) {
    for (const uint64_t xcr0 : {0x1ull, 0x3ull, 0x7ull, 0x1full, 0xe7ull, 0x602ffull}) {
      for (unsigned n = 0; n < 8; ++n) {
        Cpu cpu = Supervisor(features);
        cpu.xcr0 = xcr0;
        cpu.cr4_osxsave = (n & 1) != 0;
        cpu.cr4_osfxsr = (n & 2) != 0;
        cpu.cr0_ts = (n & 4) != 0;
        const bool enabled = (xcr0 & row.xcr0) == row.xcr0 && (row.xcr0 == 0 || cpu.cr4_osxsave) &&
                             (!row.osfxsr || cpu.cr4_osfxsr);
        const int due = !enabled ? int{kUD} : cpu.cr0_ts ? int{kNM} : -1;
        const Result fault = row.run(cpu);
        EXPECT_EQ(fault ? int{fault->vector} : -1, due)
            << row.name << ", XCR0 " << std::hex << xcr0 << ", combination " << n;
      }
    }
  }
}

}  // namespace
}  // namespace fpswap::cpu::testing
