// SPDX-License-Identifier: GPL-2.0-or-later
#include "unicorn-runner/plants.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace fpswap::unicorn {
namespace {

// A fault resets MXCSR while flush-to-zero is on.
void LoseMxcsr(uc_engine* uc, unsigned /*faults*/) {
  constexpr uint32_t kInitial = 0x1f80, kFlushToZero = 0x8000;
  uint32_t mxcsr = 0;
  uc_reg_read(uc, UC_X86_REG_MXCSR, &mxcsr);
  if ((mxcsr & kFlushToZero) == 0) return;
  uc_reg_write(uc, UC_X86_REG_MXCSR, &kInitial);
}

// The second fault of a program adds 1 to TOP, so that every ST(i) is its neighbour.
void RotateStack(uc_engine* uc, unsigned faults) {
  constexpr uint16_t kTop = 0x3800, kOne = 0x800;
  if (faults != 2) return;
  uint16_t fsw = 0;
  uc_reg_read(uc, UC_X86_REG_FPSW, &fsw);
  fsw = static_cast<uint16_t>((fsw & ~kTop) | ((fsw + kOne) & kTop));
  uc_reg_write(uc, UC_X86_REG_FPSW, &fsw);
}

// A fault zeroes the upper half of XMM9 if XMM8 is zero.
void CutXmm9(uc_engine* uc, unsigned /*faults*/) {
  std::array<uint64_t, 2> xmm8{}, xmm9{};
  uc_reg_read(uc, UC_X86_REG_XMM8, xmm8.data());
  uc_reg_read(uc, UC_X86_REG_XMM9, xmm9.data());
  if ((xmm8[0] | xmm8[1]) != 0) return;
  xmm9[1] = 0;
  uc_reg_write(uc, UC_X86_REG_XMM9, xmm9.data());
}

constexpr PlantRow kPlants[] = {
    {"mxcsr-lost-on-fault", "A fault makes MXCSR 1F80H while FTZ is set.", LoseMxcsr},
    {"st-rotated-after-faults", "The second fault of a program adds 1 to TOP.", RotateStack},
    {"xmm9-cut-on-fault", "A fault zeroes the upper half of XMM9 while XMM8 is zero.", CutXmm9},
};

}  // namespace

std::span<const PlantRow> PlantTable() { return kPlants; }

const PlantRow* FindPlant(std::string_view name) {
  const auto found = std::ranges::find(kPlants, name, &PlantRow::name);
  return found == std::end(kPlants) ? nullptr : found;
}

}  // namespace fpswap::unicorn
