// SPDX-License-Identifier: GPL-2.0-or-later
//
// All rules about MXCSR (SDM vol. 1, 13.5.2, 13.6-13.12, 10.5, 11.6.4), as tables over RFBM[2:1],
// XSTATE_BV[2:1] and MXCSR, against this CPU and against the model.
#include <gtest/gtest.h>

#include "oracle/xstate/image.h"
#include "tests/oracle/cpu_rules.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(probe_mxcsr_xsave, "xsave64 (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_xsaveopt, "xsaveopt64 (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_xsavec, "xsavec64 (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_fxsave, "fxsave64 (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_xrstor, "xrstor64 (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_fxrstor, "fxrstor64 (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_ldmxcsr, "ldmxcsr (%rsi)");
FPSWAP_WITNESS(probe_mxcsr_xgetbv, "mov $1, %ecx\n  xgetbv\n  mov %eax, (%rsi)");

namespace fpswap::cpu::testing {
namespace {

using xstate::ImageView;
using xstate::WriteAt;

constexpr uint32_t kInitial = 0x1f80, kOther = 0x3f81, kGiven = 0x7f82;
constexpr uint32_t kUntouched = 0xcccccccc;

// Which of the four states a save starts from: XMM initial or not, MXCSR 1F80H or not.
struct Start {
  bool xmm_in_use;
  uint32_t mxcsr;
};
constexpr Start kStarts[] = {{false, kInitial}, {false, kOther}, {true, kInitial}, {true, kOther}};

// By RFBM[2:1], for the four states in their order: is MXCSR 's'tored or left alone ('-'); and
// XSTATE_BV[1], where '.' is "0, or 1 by a sticky XINUSE" (then the row is the one for XMM in use).
struct SaveRow {
  const char* name;
  SaveForm form;
  WitnessFunction function;
  const char* stored[4];
  const char* bit[4];
};
const SaveRow kSaves[] = {
    {"XSAVE",
     SaveForm::kXsave,
     probe_mxcsr_xsave,
     {"----", "ssss", "ssss", "ssss"},
     {"0000", "..11", "0000", "..11"}},
    {"XSAVEOPT",
     SaveForm::kXsaveopt,
     probe_mxcsr_xsaveopt,
     {"----", "ssss", "ssss", "ssss"},
     {"0000", "..11", "0000", "..11"}},
    {"XSAVEC",
     SaveForm::kXsavec,
     probe_mxcsr_xsavec,
     {"----", ".sss", "----", ".sss"},
     {"0000", ".111", "0000", ".111"}},
    {"XSAVES",
     SaveForm::kXsaves,
     nullptr,
     {"----", ".sss", "----", ".sss"},
     {"0000", ".111", "0000", ".111"}},
};

// By RFBM[2:1] and XSTATE_BV[2:1]: MXCSR is 'k'ept, 'l'oaded from memory or 'i'nitialised. A bad
// value in memory is #GP exactly where it would be loaded.
struct LoadRow {
  const char* name;
  bool compacted, supervisor;
  const char* by_rfbm[4];
};
const LoadRow kLoads[] = {
    {"XRSTOR, standard", false, false, {"kkkk", "llll", "llll", "llll"}},
    {"XRSTOR, compacted", true, false, {"kkkk", "ilil", "kkkk", "ilil"}},
    {"XRSTORS", true, true, {"kkkk", "ilil", "kkkk", "ilil"}},
};

std::vector<uint8_t> StartImage(const Start& start) {
  std::vector<uint8_t> image = EmptyImage();
  const xstate::MutableImage view(image);
  view.set_mxcsr(start.mxcsr);
  if (start.xmm_in_use) {
    image[160] = 7;
    view.set_xstate_bv(2);
  }
  return image;
}

// The image that is loaded: RFBM[2:1] and XSTATE_BV[2:1] are tried, all else is initial.
std::vector<uint8_t> GivenImage(const LoadRow& row, unsigned xstate_bv, uint32_t mxcsr) {
  std::vector<uint8_t> image = EmptyImage(row.compacted ? 7 : 0);
  const xstate::MutableImage view(image);
  view.set_xstate_bv(uint64_t{xstate_bv} << 1);
  view.set_mxcsr(mxcsr);
  return image;
}

struct Saved {
  uint32_t mxcsr, mask;
  bool bit;
};
Saved SavedIn(std::span<const uint8_t> area) {
  return {ImageView(area).mxcsr(), xstate::ReadAt<uint32_t>(area, 28),
          (ImageView(area).xstate_bv() & 2) != 0};
}

// An old image with nothing in it, so that all of XSTATE_BV is written or stays 0.
std::vector<uint8_t> OldArea() {
  std::vector<uint8_t> area = Area(0xcc);
  std::fill_n(area.begin() + xstate::kHeaderOffset, xstate::kHeaderSize, uint8_t{0});
  return area;
}

void ExpectSaved(const SaveRow& row, unsigned rfbm, unsigned n, uint32_t mask, const Saved& saved) {
  SCOPED_TRACE(std::string(row.name) + ", RFBM[2:1] " + std::to_string(rfbm) + ", state " +
               std::to_string(n));
  const char bit = row.bit[rfbm][n];
  EXPECT_TRUE(bit == '.' || saved.bit == (bit == '1')) << "XSTATE_BV[1] is " << saved.bit;
  const char stored = row.stored[rfbm][n];
  const bool is_stored = stored == '.' ? saved.bit : stored == 's';
  EXPECT_EQ(saved.mxcsr, is_stored ? kStarts[n].mxcsr : kUntouched);
  EXPECT_EQ(saved.mask, is_stored ? mask : kUntouched);
}

TEST(MxcsrTableWitness, TheCpuStoresMxcsrWhereTheTableSays) {
  Probe probe;
  const Features& features = Host().features;
  const uint64_t components = Host().xcr0;
  for (const SaveRow& row : kSaves) {
    const bool has = row.function != nullptr &&
                     (row.form != SaveForm::kXsavec || features.xsave.xsavec) &&
                     (row.form != SaveForm::kXsaveopt || features.xsave.xsaveopt);
    for (unsigned n = 0; has && n < 16; ++n) {
      if ((components & (uint64_t{n / 4} << 1)) != uint64_t{n / 4} << 1) continue;
      std::ranges::copy(StartImage(kStarts[n % 4]), probe.in().begin());
      std::ranges::copy(OldArea(), probe.memory().begin());
      ASSERT_EQ(probe.Run(row.function, uint64_t{n / 4} << 1), -1);
      ExpectSaved(row, n / 4, n % 4, features.mxcsr_mask, SavedIn(probe.memory()));
    }
  }
}

TEST(MxcsrTable, TheModelStoresMxcsrWhereTheTableSays) {
  const Features features = Everything();
  for (const SaveRow& row : kSaves) {
    for (unsigned n = 0; n < 16; ++n) {
      for (const bool sticky : {false, true}) {
        Cpu cpu = Supervisor(features);
        ASSERT_EQ(cpu.Xrstor(StartImage(kStarts[n % 4]), kArea, 2, true), std::nullopt);
        std::vector<uint8_t> area = OldArea();
        FixedChoices choices(sticky);
        ASSERT_EQ(cpu.Xsave(row.form, area, kArea + 64, uint64_t{n / 4} << 1, true, choices),
                  std::nullopt);
        ExpectSaved(row, n / 4, n % 4, features.mxcsr_mask, SavedIn(area));
      }
    }
  }
}

// What must come of a load: the vector or -1, and MXCSR.
struct Outcome {
  int vector;
  uint32_t mxcsr;
  bool operator==(const Outcome&) const = default;
};
void PrintTo(const Outcome& o, std::ostream* os) {
  *os << "vector " << o.vector << ", MXCSR " << std::hex << o.mxcsr;
}

Outcome Due(char what, uint32_t given, uint32_t mask) {
  const bool bad = (given & ~mask) != 0;
  if (what == 'l') return bad ? Outcome{kGP, kOther} : Outcome{-1, given};
  return {-1, what == 'i' ? kInitial : kOther};
}

// The values of MXCSR in memory: good, each single bit, and all ones.
std::vector<uint32_t> GivenValues() {
  std::vector<uint32_t> values = {kInitial, kGiven, 0, 0xffff, 0xffffffff};
  for (unsigned bit = 0; bit < 32; ++bit) values.push_back(kInitial ^ 1u << bit);
  return values;
}

Outcome OutcomeOf(Probe& probe, WitnessFunction function, uint64_t rfbm) {
  std::ranges::copy(StartImage({true, kOther}), probe.in().begin());
  const int vector = probe.Run(function, rfbm);
  return {vector, ImageView(probe.out()).mxcsr()};
}

Outcome OutcomeOf(const Result& fault, const Cpu& cpu) {
  return {fault ? int{fault->vector} : -1, cpu.regs.mxcsr};
}

TEST(MxcsrTableWitness, TheCpuLoadsMxcsrWhereTheTableSays) {
  Probe probe;
  for (const LoadRow& row : kLoads) {
    if (row.supervisor || (row.compacted && !Host().features.xsave.xsavec)) continue;
    for (unsigned n = 0; n < 16; ++n) {
      const uint64_t used = uint64_t{n / 4 | n % 4 | (row.compacted ? 3 : 0)} << 1;
      if ((Host().xcr0 & used) != used) continue;
      for (const uint32_t given : GivenValues()) {
        std::ranges::copy(GivenImage(row, n % 4, given), probe.memory().begin());
        EXPECT_EQ(OutcomeOf(probe, probe_mxcsr_xrstor, uint64_t{n / 4} << 1),
                  Due(row.by_rfbm[n / 4][n % 4], given, Host().features.mxcsr_mask))
            << row.name << ", RFBM[2:1] " << n / 4 << ", XSTATE_BV[2:1] " << n % 4 << ", given "
            << std::hex << given;
      }
    }
  }
}

TEST(MxcsrTable, TheModelLoadsMxcsrWhereTheTableSays) {
  const Features features = Everything();
  for (const LoadRow& row : kLoads) {
    for (unsigned n = 0; n < 16; ++n) {
      for (const uint32_t given : GivenValues()) {
        Cpu cpu = Supervisor(features);
        cpu.SetMxcsr(kOther);
        const std::vector<uint8_t> image = GivenImage(row, n % 4, given);
        const uint64_t rfbm = uint64_t{n / 4} << 1;
        const Result fault = row.supervisor ? cpu.Xrstors(image, kArea, rfbm, true)
                                            : cpu.Xrstor(image, kArea, rfbm, true);
        EXPECT_EQ(OutcomeOf(fault, cpu), Due(row.by_rfbm[n / 4][n % 4], given, features.mxcsr_mask))
            << row.name << ", RFBM[2:1] " << n / 4 << ", XSTATE_BV[2:1] " << n % 4;
      }
    }
  }
}

// FXRSTOR and LDMXCSR always load it, FXSAVE always stores it.
TEST(MxcsrTableWitness, FxsaveFxrstorAndLdmxcsrTakeItAlways) {
  Probe probe;
  const Features& features = Host().features;
  for (const uint32_t given : GivenValues()) {
    const Outcome due = Due('l', given, features.mxcsr_mask);
    Cpu cpu = HostModel();
    cpu.SetMxcsr(kOther);
    std::vector<uint8_t> image = EmptyImage();
    WriteAt(std::span(image), 24, given);
    EXPECT_EQ(OutcomeOf(cpu.Fxrstor(image, kArea, true), cpu), due);
    std::ranges::copy(image, probe.memory().begin());
    EXPECT_EQ(OutcomeOf(probe, probe_mxcsr_fxrstor, 0), due);
    cpu.SetMxcsr(kOther);
    EXPECT_EQ(OutcomeOf(cpu.Ldmxcsr(given), cpu), due);
    WriteAt(probe.memory(), 0, given);
    EXPECT_EQ(OutcomeOf(probe, probe_mxcsr_ldmxcsr, 0), due);
  }
  for (const Start& start : kStarts) {
    std::ranges::copy(StartImage(start), probe.in().begin());
    ASSERT_EQ(probe.Run(probe_mxcsr_fxsave, 0), -1);
    EXPECT_EQ(ImageView(probe.memory()).mxcsr(), start.mxcsr);
    EXPECT_EQ(xstate::ReadAt<uint32_t>(probe.memory(), 28), features.mxcsr_mask);
  }
}

// 13.6: XGETBV(1) reads bit 1 as 1 where MXCSR is not 1F80H, XMM initial or not.
TEST(MxcsrTableWitness, XgetbvReadsSseInUseForMxcsrAlone) {
  if (!Host().features.xsave.xgetbv1) GTEST_SKIP() << "this CPU lacks XGETBV(1)";
  Probe probe;
  for (const Start& start : kStarts) {
    std::ranges::copy(StartImage(start), probe.in().begin());
    ASSERT_EQ(probe.Run(probe_mxcsr_xgetbv, 0), -1);
    const bool seen = (probe.memory()[0] & 2) != 0;
    const bool must = start.xmm_in_use || start.mxcsr != kInitial;
    EXPECT_TRUE(seen || !must) << std::hex << start.mxcsr;
    Cpu cpu = HostModel();
    ASSERT_EQ(cpu.Xrstor(StartImage(start), kArea, 2, true), std::nullopt);
    FixedChoices choices;
    uint64_t value = 0;
    ASSERT_EQ(cpu.Xgetbv(1, &value, choices), std::nullopt);
    EXPECT_EQ((value & 2) != 0, must) << std::hex << start.mxcsr;
  }
}

}  // namespace
}  // namespace fpswap::cpu::testing
