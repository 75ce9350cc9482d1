// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle/xstate/component.h"

namespace fpswap::xstate {
namespace {

// Sizes and offsets: CPUID.(0DH,i) as parts with AMX and MPX-capable parts report it, and the
// kernel's arch/x86/include/asm/fpu/types.h. APX reuses the place of MPX (no part has both).
constexpr std::array<ComponentRow, kComponentCount> kRows = {{
    // id, name, title, kernel_name, size, standard_offset, supervisor, align64, xfd, modelled
    {Component::kX87, "x87", "x87 state", "FP", 0, 0, false, false, false, true},
    {Component::kSse, "sse", "SSE state", "SSE", 0, 0, false, false, false, true},
    {Component::kAvx, "avx", "AVX state (YMM_Hi128)", "YMM", 256, 576, false, false, false, true},
    {Component::kBndregs, "bndregs", "BNDREGS state (BND0-BND3)", "BNDREGS", 64, 960, false, false,
     false, true},
    {Component::kBndcsr, "bndcsr", "BNDCSR state (BNDCFGU, BNDSTATUS)", "BNDCSR", 64, 1024, false,
     false, false, true},
    {Component::kOpmask, "opmask", "opmask state (k0-k7)", "OPMASK", 64, 1088, false, false, false,
     true},
    {Component::kZmmHi256, "zmm_hi256", "ZMM_Hi256 state (ZMM0-15[511:256])", "ZMM_Hi256", 512,
     1152, false, false, false, true},
    {Component::kHi16Zmm, "hi16_zmm", "Hi16_ZMM state (ZMM16-31)", "Hi16_ZMM", 1024, 1664, false,
     false, false, true},
    {Component::kPt, "pt", "PT state", "PT_UNIMPLEMENTED_SO_FAR", 128, 0, true, false, false,
     false},
    {Component::kPkru, "pkru", "PKRU state", "PKRU", 8, 2688, false, false, false, true},
    {Component::kPasid, "pasid", "PASID state", "PASID", 8, 0, true, false, false, false},
    {Component::kCetU, "cet_u", "CET_U state", "CET_USER", 16, 0, true, false, false, true},
    {Component::kCetS, "cet_s", "CET_S state", "CET_KERNEL", 24, 0, true, false, false, true},
    {Component::kHdc, "hdc", "HDC state", "RSRVD_COMP_13", 8, 0, true, false, false, false},
    {Component::kUintr, "uintr", "UINTR state", "RSRVD_COMP_14", 48, 0, true, false, false, false},
    {Component::kLbr, "lbr", "LBR state", "LBR", 808, 0, true, false, false, false},
    {Component::kHwp, "hwp", "HWP state", "RSRVD_COMP_16", 8, 0, true, false, false, false},
    {Component::kTilecfg, "tilecfg", "XTILECFG state", "XTILE_CFG", 64, 2752, false, true, false,
     true},
    {Component::kTiledata, "tiledata", "XTILEDATA state", "XTILE_DATA", 8192, 2816, false, true,
     true, true},
    {Component::kApx, "apx", "APX_F state (R16-R31)", "APX", 128, 960, false, false, false, false},
}};

constexpr bool RowsAreInOrder() {
  for (unsigned i = 0; i < kComponentCount; ++i) {
    if (static_cast<unsigned>(kRows[i].id) != i) return false;
  }
  return true;
}
static_assert(RowsAreInOrder());

}  // namespace

const ComponentRow& RowOf(Component c) { return kRows.at(static_cast<unsigned>(c)); }

const std::array<ComponentRow, kComponentCount>& Rows() { return kRows; }

std::optional<Component> ComponentByName(std::string_view name) {
  for (const ComponentRow& row : kRows) {
    if (row.name == name) return row.id;
  }
  return std::nullopt;
}

}  // namespace fpswap::xstate
