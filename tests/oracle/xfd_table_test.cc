// SPDX-License-Identifier: GPL-2.0-or-later
//
// IA32_XFD x XCR0 x CR0.TS x instruction (SDM vol. 1, 13.14), against a table of outcomes. No CPU
// with IA32_XFD was at hand: the table is the manual's and was written from it alone.
#include <gtest/gtest.h>

#include "oracle/xstate/image.h"
#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

using Encoding = Cpu::Encoding;
using xstate::ImageView;
using xstate::MutableImage;

constexpr uint64_t kTiledata = Bit(Component::kTiledata);
constexpr uint64_t kWithAmx = 0x602e7, kWithoutAmx = 0x2e7;

std::vector<uint8_t> WithTiles(bool present, uint64_t xcomp_bv) {
  std::vector<uint8_t> image = EmptyImage(xcomp_bv);
  const MutableImage view(image);
  const auto tiles = view.component(Everything().xsave, Component::kTiledata);
  std::ranges::fill(tiles, uint8_t{0x22});
  view.set_xstate_bv(present ? kTiledata : 0);
  return image;
}

// Runs on `cpu` and says what a save gave: '1' tiles in XSTATE_BV and stored, '0' neither.
Result Save(Cpu& cpu, SaveForm form, char* tiles) {
  std::vector<uint8_t> area = EmptyImage();
  FixedChoices choices(/*in_use=*/true);
  const Result fault = cpu.Xsave(form, area, kArea, kTiledata, true, choices);
  const bool compacted = ImageView(area).compacted();
  const bool stored = area[compacted ? 576 : 2816] == 0x77;
  const bool bit = (ImageView(area).xstate_bv() & kTiledata) != 0;
  *tiles = stored != bit ? '?' : bit ? '1' : '0';
  return fault;
}

// The same for a load: 'k'ept, 'l'oaded, 'i'nitialised.
char TilesAfter(const Cpu& cpu) {
  const uint8_t byte = cpu.regs.tiledata.Bytes()[8191];
  return byte == 0x77 ? 'k' : byte == 0x22 ? 'l' : byte == 0 ? 'i' : '?';
}
template <typename F>
Result Load(Cpu& cpu, char* tiles, F&& load) {
  const Result fault = load(cpu);
  *tiles = TilesAfter(cpu);
  return fault;
}

// An instruction and what comes of it: no fault "-", "NM" by CR0.TS, "XFD" for #NM with
// IA32_XFD_ERR set, "UD", "GP"; then the tiles. Columns: CR0.TS=1; TS=0 with XCR0[18:17]=0; TS=0
// with XCR0[18:17] set and IA32_XFD[18]=0; the same with IA32_XFD[18]=1.
struct Row {
  const char* name;
  Result (*run)(Cpu& cpu, char* tiles);
  const char* ts;
  const char* no_xcr0;
  const char* enabled;
  const char* disabled;
};

template <SaveForm kForm>
Result RunSave(Cpu& cpu, char* tiles) {
  return Save(cpu, kForm, tiles);
}
template <bool kPresent, bool kRequested>
Result RunXrstor(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) {
    return c.Xrstor(WithTiles(kPresent, 0), kArea, kRequested ? kTiledata : 7, true);
  });
}
template <bool kPresent, bool kRequested>
Result RunXrstorCompacted(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) {
    const std::vector<uint8_t> image = WithTiles(kPresent, kPresent ? kTiledata : 7);
    return c.Xrstor(image, kArea, kRequested ? kTiledata : 7, true);
  });
}
template <bool kPresent>
Result RunXrstors(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) {
    return c.Xrstors(WithTiles(kPresent, kPresent ? kTiledata : 7), kArea, kTiledata, true);
  });
}
Result RunXgetbv(Cpu& cpu, char* tiles) {
  FixedChoices choices;
  uint64_t value = 0;
  const Result fault = cpu.Xgetbv(1, &value, choices);
  *tiles = (value & kTiledata) != 0 ? '1' : '0';
  return fault;
}
template <Encoding kEncoding>
Result RunVector(Cpu& cpu, char* tiles) {
  *tiles = TilesAfter(cpu);
  return cpu.CheckVector(kEncoding);
}
Result RunOpmask(Cpu& cpu, char* tiles) {
  *tiles = TilesAfter(cpu);
  return cpu.CheckOpmask();
}
Result RunFninit(Cpu& cpu, char* tiles) {
  *tiles = TilesAfter(cpu);
  return cpu.Fninit();
}
Result RunFxrstor(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) { return c.Fxrstor(EmptyImage(), kArea, true); });
}
Result RunFxsave(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) {
    std::vector<uint8_t> area = EmptyImage();
    FixedChoices choices;
    return c.Fxsave(area, kArea, true, choices);
  });
}
Result RunLdmxcsr(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) { return c.Ldmxcsr(0x1f80); });
}
Result RunVzeroupper(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) { return c.Vzeroupper(); });
}
Result RunXsetbv(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) { return c.Xsetbv(0, kWithoutAmx); });
}
Result RunWrmsr(Cpu& cpu, char* tiles) {
  return Load(cpu, tiles, [](Cpu& c) { return c.Wrmsr(Cpu::kMsrXfd, kTiledata); });
}
Result RunRdpkru(Cpu& cpu, char* tiles) {
  *tiles = TilesAfter(cpu);
  uint32_t value = 0;
  return cpu.Rdpkru(0, &value);
}

// Tiles 0, 1 and 7 are configured (the last byte of tile 7 is the one that is looked at) and hold
// 77H; what a load brings is 22H.
std::array<uint8_t, 64> OneTile() {
  std::array<uint8_t, 64> config{};
  config[0] = 1;
  config[16 + 2 * 7] = 64;
  config[48 + 7] = 16;
  for (const unsigned tile : {0u, 1u}) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
  return config;
}
enum class Amx { kLdtilecfg, kSttilecfg, kTilerelease, kTileloadd, kTilestored, kTilezero, kTdp };
template <Amx kInstruction>
Result RunAmx(Cpu& cpu, char* tiles) {
  std::array<uint8_t, 64> config = OneTile();
  std::vector<uint8_t> memory(1024, 0x22);
  return Load(cpu, tiles, [&](Cpu& c) -> Result {
    switch (kInstruction) {
      case Amx::kLdtilecfg:
        return c.Ldtilecfg(config);
      case Amx::kSttilecfg:
        return c.Sttilecfg(config);
      case Amx::kTilerelease:
        return c.Tilerelease();
      case Amx::kTileloadd:
        return c.Tileloadd(7, memory, 64);
      case Amx::kTilestored:
        return c.Tilestored(7, memory, 64);
      case Amx::kTilezero:
        return c.Tilezero(7);
      default:
        return c.Tdp(Cpu::Dot::kSs, 0, 1, 7);  // the last byte, which is looked at, stays
    }
  });
}

const Row kTable[] = {
    // name, run, CR0.TS, XCR0 without AMX, enabled, disabled by IA32_XFD
    {"XSAVE", RunSave<SaveForm::kXsave>, "NM 0", "- 0", "- 1", "- 0"},
    {"XSAVEOPT", RunSave<SaveForm::kXsaveopt>, "NM 0", "- 0", "- 1", "- 0"},
    {"XSAVEC", RunSave<SaveForm::kXsavec>, "NM 0", "- 0", "- 1", "- 0"},
    {"XSAVES", RunSave<SaveForm::kXsaves>, "NM 0", "- 0", "- 1", "- 0"},
    {"XRSTOR loads", RunXrstor<true, true>, "NM k", "GP k", "- l", "XFD k"},
    {"XRSTOR initialises", RunXrstor<false, true>, "NM k", "- k", "- i", "- i"},
    {"XRSTOR of others", RunXrstor<true, false>, "NM k", "GP k", "- k", "- k"},
    {"XRSTOR compacted loads", RunXrstorCompacted<true, true>, "NM k", "GP k", "- l", "XFD k"},
    {"XRSTOR compacted initialises", RunXrstorCompacted<false, true>, "NM k", "- k", "- i", "- i"},
    {"XRSTOR compacted of others", RunXrstorCompacted<true, false>, "NM k", "GP k", "- k", "- k"},
    {"XRSTORS loads", RunXrstors<true>, "NM k", "GP k", "- l", "XFD k"},
    {"XRSTORS initialises", RunXrstors<false>, "NM k", "- k", "- i", "- i"},
    {"XGETBV(1)", RunXgetbv, "- 1", "- 0", "- 1", "- 1"},
    {"legacy SSE", RunVector<Encoding::kSse>, "NM k", "- k", "- k", "- k"},
    {"VEX.256", RunVector<Encoding::kVex256>, "NM k", "- k", "- k", "- k"},
    {"EVEX.512", RunVector<Encoding::kEvex512>, "NM k", "- k", "- k", "- k"},
    {"KMOVQ", RunOpmask, "NM k", "- k", "- k", "- k"},
    {"MMX", RunVector<Encoding::kMmx>, "NM k", "- k", "- k", "- k"},
    {"FNINIT", RunFninit, "NM k", "- k", "- k", "- k"},
    {"FXRSTOR", RunFxrstor, "NM k", "- k", "- k", "- k"},
    {"FXSAVE", RunFxsave, "NM k", "- k", "- k", "- k"},
    {"LDMXCSR", RunLdmxcsr, "NM k", "- k", "- k", "- k"},
    {"VZEROUPPER", RunVzeroupper, "NM k", "- k", "- k", "- k"},
    {"RDPKRU", RunRdpkru, "- k", "- k", "- k", "- k"},
    {"XSETBV", RunXsetbv, "- k", "- k", "- k", "- k"},
    {"WRMSR of IA32_XFD", RunWrmsr, "- k", "- k", "- k", "- k"},
};

// The same for AMX on a CPU that heeds CR0.TS there; the first column is not looked at on one that
// doesn't (which of them CPUs are is not settled).
const Row kAmxTable[] = {
    {"LDTILECFG", RunAmx<Amx::kLdtilecfg>, "NM k", "UD k", "- i", "- i"},
    {"STTILECFG", RunAmx<Amx::kSttilecfg>, "NM k", "UD k", "- k", "- k"},
    {"TILERELEASE", RunAmx<Amx::kTilerelease>, "NM k", "UD k", "- i", "- i"},
    {"TILELOADD", RunAmx<Amx::kTileloadd>, "NM k", "UD k", "- l", "XFD k"},
    {"TILESTORED", RunAmx<Amx::kTilestored>, "NM k", "UD k", "- k", "XFD k"},
    {"TILEZERO", RunAmx<Amx::kTilezero>, "NM k", "UD k", "- i", "XFD k"},
    {"TDPBSSD", RunAmx<Amx::kTdp>, "NM k", "UD k", "- k", "XFD k"},
};

std::string Told(const Result& fault, uint64_t xfd_err, char tiles) {
  std::string text = "-";
  if (fault) {
    text = fault->vector == kGP   ? "GP"
           : fault->vector == kUD ? "UD"
           : fault->vector == kNM ? "NM"
                                  : "?";
    if (xfd_err != 0) text = "XFD";
  } else if (xfd_err != 0) {
    text = "IA32_XFD_ERR without a fault";
  }
  return text + ' ' + tiles;
}

Cpu WithTiles(const Features& features, bool ts, bool amx, bool disabled) {
  Cpu cpu = Supervisor(features);
  cpu.LoadComponent(Component::kTiledata, std::vector<uint8_t>(8192, 0x77));
  cpu.cr0_ts = ts;
  cpu.xcr0 = amx ? kWithAmx : kWithoutAmx;
  cpu.xfd = disabled ? kTiledata : 0;
  return cpu;
}

TEST(XfdTable, EveryInstructionMeetsIa32XfdXcr0AndCr0TsAsTheManualSays) {
  const Features features = Everything();
  for (const Row& row : kTable) {
    for (unsigned n = 0; n < 8; ++n) {
      const bool ts = (n & 1) != 0, amx = (n & 2) != 0, disabled = (n & 4) != 0;
      Cpu cpu = WithTiles(features, ts, amx, disabled);
      char tiles = '?';
      const Result fault = row.run(cpu, &tiles);
      EXPECT_TRUE(cpu.xfd_err == 0 || cpu.xfd_err == kTiledata);
      std::string due = ts ? row.ts : !amx ? row.no_xcr0 : disabled ? row.disabled : row.enabled;
      // XGETBV(1) looks at XCR0 and at nothing else.
      if (std::string(row.name) == "XGETBV(1)" && !amx) due = row.no_xcr0;
      EXPECT_EQ(Told(fault, cpu.xfd_err, tiles), due)
          << row.name << ", CR0.TS " << ts << ", AMX in XCR0 " << amx << ", XFD " << disabled;
    }
  }
}

// #UD by XCR0 comes before #NM of both kinds.
TEST(XfdTable, AmxInstructionsMeetIa32XfdXcr0AndCr0TsAsTheManualSays) {
  const Features features = Everything();
  for (const Row& row : kAmxTable) {
    for (unsigned n = 0; n < 16; ++n) {
      const bool ts = (n & 1) != 0, amx = (n & 2) != 0, disabled = (n & 4) != 0;
      const bool heeds_ts = (n & 8) != 0;
      Cpu cpu = WithTiles(features, ts, amx, disabled);
      cpu.LoadComponent(Component::kTilecfg, OneTile());
      cpu.amx_heeds_ts = heeds_ts;
      char tiles = '?';
      const Result fault = row.run(cpu, &tiles);
      EXPECT_TRUE(cpu.xfd_err == 0 || cpu.xfd_err == kTiledata);
      const char* due = !amx             ? row.no_xcr0
                        : ts && heeds_ts ? row.ts
                        : disabled       ? row.disabled
                                         : row.enabled;
      EXPECT_EQ(Told(fault, cpu.xfd_err, tiles), due)
          << row.name << ", CR0.TS " << ts << " (heeded: " << heeds_ts << "), AMX in XCR0 " << amx
          << ", XFD " << disabled;
    }
  }
}

// The rule is about components, not about tiles: a part that could disable AVX-512's Hi16_ZMM (its
// CPUID says so) would fault on what needs it, and name it alone.
TEST(XfdTable, AnInstructionThatNeedsADisabledComponentNamesItInXfdErr) {
  Features features = Everything();
  features.xsave.sub[7].xfd = true;
  Cpu cpu = Supervisor(features);
  ASSERT_EQ(cpu.Wrmsr(Cpu::kMsrXfd, kTiledata | Bit(Component::kHi16Zmm)), std::nullopt);
  EXPECT_EQ(cpu.CheckVector(Encoding::kVex256), std::nullopt);
  EXPECT_EQ(cpu.xfd_err, 0u);
  EXPECT_EQ(cpu.CheckVector(Encoding::kEvex128), (Fault{kNM, 0}));
  EXPECT_EQ(cpu.xfd_err, Bit(Component::kHi16Zmm));
  // Hardware never clears it: an instruction that is allowed leaves it as it is.
  EXPECT_EQ(cpu.CheckVector(Encoding::kSse), std::nullopt);
  EXPECT_EQ(cpu.xfd_err, Bit(Component::kHi16Zmm));
  cpu.xcr0 = 7;
  EXPECT_EQ(cpu.CheckVector(Encoding::kEvex128), (Fault{kUD, 0}));
}

}  // namespace
}  // namespace fpswap::cpu::testing
