// SPDX-License-Identifier: GPL-2.0-or-later
//
// What each save and restore instruction does with one component, for every value of its bits in
// RFBM, XINUSE, XSTATE_BV and XCOMP_BV: tables in the manual's words (SDM vol. 1, 13.7-13.12),
// against this CPU and against the model.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "oracle/xstate/image.h"
#include "tests/oracle/cpu_rules.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(probe_xsave64, "xsave64 (%rsi)");
FPSWAP_WITNESS(probe_xsaveopt64, "xsaveopt64 (%rsi)");
FPSWAP_WITNESS(probe_xsavec64, "xsavec64 (%rsi)");
FPSWAP_WITNESS(probe_xrstor64, "xrstor64 (%rsi)");

namespace fpswap::cpu::testing {
namespace {

using xstate::XsaveCpuid;
using Bytes = std::vector<uint8_t>;
using State = std::map<unsigned, Bytes>;  // by component; absent: initial

constexpr uint8_t kOldByte = 0xcc;

// In a row: what XSTATE_BV[i] becomes ('0', '1' or 'k'ept) and what component i's bytes become
// ('s'tate, 'i'nitial value, 'o'ld content).
struct SaveRow {
  const char* name;
  SaveForm form;
  WitnessFunction function;
  const char* not_requested;  // RFBM[i]=0
  const char* not_in_use;     // RFBM[i]=1, XINUSE[i]=0
  const char* in_use;         // RFBM[i]=1, XINUSE[i]=1
};
const SaveRow kSaveTable[] = {
    {"XSAVE", SaveForm::kXsave, probe_xsave64, "ko", "0i", "1s"},
    {"XSAVEOPT", SaveForm::kXsaveopt, probe_xsaveopt64, "ko", "0o", "1s"},
    {"XSAVEC", SaveForm::kXsavec, probe_xsavec64, "0o", "0o", "1s"},
    {"XSAVES", SaveForm::kXsaves, nullptr, "0o", "0o", "1s"},
};

bool IsCompacted(SaveForm form) { return form == SaveForm::kXsavec || form == SaveForm::kXsaves; }

// Contents of component `i` that no load changes, another for each `salt` and at each offset.
Bytes Contents(const XsaveCpuid& cpuid, unsigned i, unsigned salt) {
  const auto c = Component(i);
  const size_t size = c == Component::kX87   ? 128
                      : c == Component::kSse ? 256
                                             : std::max(cpuid.sub[i].size, 8u);
  Bytes bytes(size);
  for (size_t at = 0; at < size; ++at) {
    bytes[at] = static_cast<uint8_t>(1 + 37 * i + 11 * at + 5 * (at >> 8) + 101 * salt);
  }
  const std::span<uint8_t> all(bytes);
  if (c == Component::kPkru) {
    bytes.resize(4);
    bytes[0] &= 0xfc;  // key 0 stays open: the test itself is data
  } else if (c == Component::kX87) {
    for (size_t at = 0; at < size; ++at) bytes[at] = at % 16 < 10 ? bytes[at] : 0;
  } else if (c == Component::kBndcsr) {
    std::fill(bytes.begin() + 16, bytes.end(), uint8_t{0});
    xstate::WriteAt(all, 0, 0x00007fff12340003u + 0x1000 * uint64_t{salt});
  } else if (c == Component::kTilecfg) {
    std::ranges::fill(bytes, uint8_t{0});
    bytes[0] = 1;
    bytes[16] = static_cast<uint8_t>(8 + salt);
    bytes[48] = static_cast<uint8_t>(3 + salt);
  } else if (c == Component::kCetU || c == Component::kCetS) {
    for (size_t at = 0; at < size; at += 8) xstate::WriteAt(all, at, 0x10000 * (at + 8 + salt));
    if (c == Component::kCetU) xstate::WriteAt(all, 0, uint64_t{1 + salt});
  }
  return bytes;
}

Bytes InitialContents(const XsaveCpuid& cpuid, unsigned i) {
  return Bytes(Contents(cpuid, i, 0).size(), 0);
}

// Where component `i` lies: CPUID's offset, or the sum of what comes before it in XCOMP_BV.
uint32_t PlaceOf(const XsaveCpuid& cpuid, unsigned i, bool compacted, uint64_t xcomp_bv) {
  if (i == 0) return 32;
  if (i == 1) return 160;
  if (!compacted) return cpuid.sub[i].offset;
  uint32_t at = 576;
  for (unsigned n = 2; n <= i; ++n) {
    if (((xcomp_bv >> n) & 1) == 0) continue;
    while (cpuid.sub[n].align64 && at % 64 != 0) ++at;
    if (n < i) at += cpuid.sub[n].size;
  }
  return at;
}

Bytes Read(std::span<const uint8_t> area, uint32_t at, size_t size) {
  return {area.begin() + at, area.begin() + at + static_cast<ptrdiff_t>(size)};
}

// Writes an image of `state`; XSTATE_BV and XCOMP_BV are as said.
void WriteImage(const XsaveCpuid& cpuid, const State& state, uint64_t xstate_bv, uint64_t xcomp_bv,
                std::span<uint8_t> out) {
  std::ranges::fill(out.first(xstate::kMaxAreaSize), uint8_t{0});
  const xstate::MutableImage image(out);
  image.SetInitial();
  for (const auto& [i, bytes] : state) {
    const uint32_t at = PlaceOf(cpuid, i, xcomp_bv != 0, xcomp_bv);
    std::ranges::copy(bytes, out.begin() + at);
  }
  image.set_xstate_bv(xstate_bv);
  image.set_xcomp_bv(xcomp_bv);
}

std::vector<unsigned> ComponentsOf(uint64_t mask) {
  std::vector<unsigned> all;
  for (unsigned i = 0; i < xstate::kComponentCount; ++i) {
    if (((mask >> i) & 1) != 0) all.push_back(i);
  }
  return all;
}

// A CPU: the real one, or the model.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual const XsaveCpuid& cpuid() const = 0;
  virtual uint64_t components() const = 0;
  virtual bool Has(const SaveRow& row) const = 0;
  // Saves `state` over `area`.
  virtual void Save(const SaveRow& row, const State& state, uint64_t rfbm, Bytes& area) = 0;
  // Restores `image` over `state`; what component `i` then is.
  virtual Bytes Restore(bool supervisor, const State& state, const Bytes& image, uint64_t rfbm,
                        unsigned i) = 0;
};

class RealCpu : public Machine {
 public:
  const XsaveCpuid& cpuid() const override { return Host().features.xsave; }
  uint64_t components() const override { return Host().xcr0; }
  bool Has(const SaveRow& row) const override {
    if (row.form == SaveForm::kXsaveopt) return cpuid().xsaveopt;
    if (row.form == SaveForm::kXsavec) return cpuid().xsavec;
    return row.function != nullptr;
  }
  void Save(const SaveRow& row, const State& state, uint64_t rfbm, Bytes& area) override {
    Start(state);
    std::ranges::copy(area, probe_.memory().begin());
    EXPECT_EQ(probe_.Run(row.function, rfbm), -1);
    area.assign(probe_.memory().begin(), probe_.memory().begin() + xstate::kMaxAreaSize);
  }
  Bytes Restore(bool, const State& state, const Bytes& image, uint64_t rfbm, unsigned i) override {
    Start(state);
    std::ranges::copy(image, probe_.memory().begin());
    EXPECT_EQ(probe_.Run(probe_xrstor64, rfbm), -1);
    return Read(probe_.out(), PlaceOf(cpuid(), i, false, 0), Contents(cpuid(), i, 0).size());
  }

 private:
  void Start(const State& state) {
    uint64_t in_use = 0;
    for (const auto& [i, bytes] : state) in_use |= uint64_t{1} << i;
    WriteImage(cpuid(), state, in_use, 0, probe_.in());
  }
  Probe probe_;
};

class Model : public Machine {
 public:
  const XsaveCpuid& cpuid() const override { return features_.xsave; }
  uint64_t components() const override { return kAllUser | kAllSupervisor; }
  bool Has(const SaveRow&) const override { return true; }
  void Save(const SaveRow& row, const State& state, uint64_t rfbm, Bytes& area) override {
    Cpu cpu = Start(state);
    FixedChoices choices;
    EXPECT_EQ(cpu.Xsave(row.form, area, kArea, rfbm, true, choices), std::nullopt);
  }
  Bytes Restore(bool supervisor, const State& state, const Bytes& image, uint64_t rfbm,
                unsigned i) override {
    Cpu cpu = Start(state);
    EXPECT_EQ(
        supervisor ? cpu.Xrstors(image, kArea, rfbm, true) : cpu.Xrstor(image, kArea, rfbm, true),
        std::nullopt);
    Bytes area = Area(0);
    cpu.StoreX87(area, true);
    cpu.StoreXmm(area);
    if (i < 2) return Read(area, PlaceOf(cpuid(), i, false, 0), i == 0 ? 128 : 256);
    Bytes out(cpuid().sub[i].size);
    cpu.StoreComponent(Component(i), out);
    out.resize(Contents(cpuid(), i, 0).size());
    return out;
  }

 private:
  Cpu Start(const State& state) const {
    Cpu cpu = Supervisor(features_);
    Bytes legacy = EmptyImage();
    for (const auto& [i, bytes] : state) {
      if (i >= 2) {
        cpu.LoadComponent(Component(i), bytes);
      } else {
        std::ranges::copy(bytes, legacy.begin() + PlaceOf(cpuid(), i, false, 0));
      }
    }
    cpu.LoadX87(legacy, true);
    cpu.LoadXmm(legacy);
    return cpu;
  }
  Features features_ = Everything();
};

// The state with component `i` in use or not and every other component as `others` says.
State StateWith(const Machine& machine, unsigned i, bool in_use, bool others, unsigned salt) {
  State state;
  for (const unsigned n : ComponentsOf(machine.components())) {
    if (n == i ? in_use : others) state[n] = Contents(machine.cpuid(), n, salt);
  }
  return state;
}

void CheckSave(Machine& machine, const SaveRow& row, unsigned i, unsigned combination) {
  const bool requested = (combination & 1) != 0, in_use = (combination & 2) != 0;
  const bool old_bit = (combination & 4) != 0, others = (combination & 8) != 0;
  const uint64_t bit = uint64_t{1} << i;
  uint64_t enabled = machine.components();
  if (row.form != SaveForm::kXsaves) enabled &= machine.cpuid().xcr0;
  const uint64_t rfbm = (others ? enabled & ~bit : 0) | (requested ? bit : 0);
  const State state = StateWith(machine, i, in_use, others, 1);
  Bytes area = Area(kOldByte);
  xstate::MutableImage(area).set_xstate_bv(old_bit ? bit : 0);
  machine.Save(row, state, rfbm, area);

  const xstate::ImageView image(area);
  const bool seen_bit = (image.xstate_bv() & bit) != 0;
  // An initial component may count as in use (13.6): the row is the one that the CPU chose.
  const char* expected = !requested           ? row.not_requested
                         : in_use || seen_bit ? row.in_use
                                              : row.not_in_use;
  const bool bit_expected = expected[0] == 'k' ? old_bit : expected[0] == '1';
  EXPECT_EQ(seen_bit, bit_expected) << "XSTATE_BV[" << i << "]";
  const bool compacted = IsCompacted(row.form);
  EXPECT_EQ(image.xcomp_bv(), compacted ? rfbm | xstate::kXcompBvCompacted : 0xcccccccccccccccc);
  const Bytes contents =
      in_use ? Contents(machine.cpuid(), i, 1) : InitialContents(machine.cpuid(), i);
  const uint32_t at = PlaceOf(machine.cpuid(), i, compacted, rfbm);
  if (compacted && !requested && i >= 2) {
    // It has no place; nothing lies behind the last component that has one.
    EXPECT_EQ(area[PlaceOf(machine.cpuid(), xstate::kComponentCount, true, rfbm)], kOldByte);
    return;
  }
  Bytes seen = Read(area, at, contents.size());
  if (i == 0 && expected[1] != 'o') {
    for (size_t n = 0; n < seen.size(); ++n) seen[n] = n % 16 < 10 ? seen[n] : 0;  // pad bytes
  }
  const Bytes old(contents.size(), kOldByte);
  const Bytes& due = expected[1] == 'o'   ? old
                     : expected[1] == 's' ? contents
                                          : InitialContents(machine.cpuid(), i);
  EXPECT_EQ(seen, due) << "bytes of component " << i;
}

void CheckSaves(Machine& machine) {
  for (const SaveRow& row : kSaveTable) {
    if (!machine.Has(row)) continue;
    for (const unsigned i : ComponentsOf(machine.components())) {
      const bool supervisor = machine.cpuid().sub[i].supervisor;
      if (supervisor && row.form != SaveForm::kXsaves) continue;
      for (unsigned combination = 0; combination < 16; ++combination) {
        SCOPED_TRACE(std::string(row.name) + ", component " + std::to_string(i) + ", combination " +
                     std::to_string(combination));
        CheckSave(machine, row, i, combination);
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(ComponentTableWitness, TheCpuSavesEachComponentAsItsBitsSay) {
  RealCpu cpu;
  CheckSaves(cpu);
}

TEST(ComponentTable, TheModelSavesEachComponentAsItsBitsSay) {
  Model model;
  CheckSaves(model);
}

// Each bit of x87's fields alone takes x87 out of its initial configuration (13.6), but for bits
// that are not kept: FCW's 15:13, 7 and 6, FSW.ES and FSW.B, FOP's 15:11.
TEST(ComponentTable, EachBitOfX87TakesItOutOfItsInitialConfiguration) {
  const Features features = Everything();
  const auto dropped = [](unsigned byte, unsigned bit) {
    if (byte == 0) return bit == 6 || bit == 7;
    if (byte == 1) return bit >= 5;
    if (byte == 2 || byte == 3) return bit == 7;
    return byte == 7 && bit >= 3;
  };
  for (unsigned byte = 0; byte < 160; ++byte) {
    if (byte == 5 || (byte >= 24 && byte < 32) || (byte >= 32 && byte % 16 >= 10)) continue;
    for (unsigned bit = 0; bit < 8; ++bit) {
      Cpu cpu = Supervisor(features);
      Bytes image = EmptyImage();
      image[byte] ^= static_cast<uint8_t>(1u << bit);
      cpu.LoadX87(image, true);
      EXPECT_EQ(cpu.IsInitial(Component::kX87), dropped(byte, bit))
          << "byte " << byte << ", bit " << bit;
    }
  }
}

// Restoring is the same in all three instructions: what becomes of the register, by RFBM[i] and
// XSTATE_BV[i]: 'k'ept, 'i'nitial, 'l'oaded. XCOMP_BV[i] must be 1 where XSTATE_BV[i] is, and else
// says nothing.
constexpr char kRestoreTable[2][2] = {{'k', 'k'}, {'i', 'l'}};

enum class RestoreForm { kStandard, kCompacted, kSupervisor };

void CheckRestore(Machine& machine, RestoreForm form, unsigned i, unsigned combination) {
  const bool requested = (combination & 1) != 0, present = (combination & 2) != 0;
  const bool in_use = (combination & 4) != 0, others = (combination & 8) != 0;
  const bool listed = present || (combination & 16) != 0;
  const uint64_t bit = uint64_t{1} << i;
  uint64_t enabled = machine.components();
  if (form != RestoreForm::kSupervisor) enabled &= machine.cpuid().xcr0;
  const uint64_t rest = others ? enabled & ~bit : 0;
  const uint64_t xcomp_bv =
      form == RestoreForm::kStandard ? 0 : xstate::kXcompBvCompacted | rest | (listed ? bit : 0);
  const State before = StateWith(machine, i, in_use, others, 1);
  State given;
  for (const unsigned n : ComponentsOf(rest | (listed ? bit : 0))) {
    given[n] = Contents(machine.cpuid(), n, 2);
  }
  Bytes image = Area(0);
  WriteImage(machine.cpuid(), given, rest | (present ? bit : 0), xcomp_bv, image);
  const Bytes after = machine.Restore(form == RestoreForm::kSupervisor, before, image,
                                      rest | (requested ? bit : 0), i);
  const Bytes initial = InitialContents(machine.cpuid(), i);
  const char expected = kRestoreTable[requested][present];
  const Bytes due = expected == 'l'             ? Contents(machine.cpuid(), i, 2)
                    : expected == 'k' && in_use ? Contents(machine.cpuid(), i, 1)
                                                : initial;
  EXPECT_EQ(after, due) << "component " << i;
}

void CheckRestores(Machine& machine, std::initializer_list<RestoreForm> forms) {
  for (const RestoreForm form : forms) {
    if (form != RestoreForm::kStandard && !machine.cpuid().xsavec) continue;
    for (const unsigned i : ComponentsOf(machine.components())) {
      if (machine.cpuid().sub[i].supervisor && form != RestoreForm::kSupervisor) continue;
      for (unsigned combination = 0; combination < 32; ++combination) {
        SCOPED_TRACE("form " + std::to_string(static_cast<int>(form)) + ", component " +
                     std::to_string(i) + ", combination " + std::to_string(combination));
        CheckRestore(machine, form, i, combination);
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(ComponentTableWitness, TheCpuRestoresEachComponentAsItsBitsSay) {
  RealCpu cpu;
  CheckRestores(cpu, {RestoreForm::kStandard, RestoreForm::kCompacted});
}

TEST(ComponentTable, TheModelRestoresEachComponentAsItsBitsSay) {
  Model model;
  CheckRestores(model, {RestoreForm::kStandard, RestoreForm::kCompacted, RestoreForm::kSupervisor});
}

}  // namespace
}  // namespace fpswap::cpu::testing
