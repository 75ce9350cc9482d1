// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle/xstate/layout.h"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace fpswap::xstate {
namespace {

// x87 and SSE live in the legacy region; only bits from 2 on have a place of their own.
constexpr uint64_t kExtendedMask = ((uint64_t{1} << kComponentCount) - 1) & ~kX87Sse;

// Sizes may come from a hostile trace: sums are kept in 64 bits and saturate.
uint32_t Saturate(uint64_t bytes) {
  return static_cast<uint32_t>(std::min<uint64_t>(bytes, UINT32_MAX));
}

// The end of all components of `xcomp_bv` below bit `limit` (SDM 13.4.3): each begins where the one
// before ended, rounded up to 64 where its ECX[1] is set.
uint64_t CompactedEnd(const XsaveCpuid& cpuid, uint64_t xcomp_bv, unsigned limit) {
  uint64_t end = kExtendedOffset;
  uint64_t left = xcomp_bv & kExtendedMask & ((uint64_t{1} << limit) - 1);
  for (; left != 0; left &= left - 1) {
    const XsaveCpuid::Sub& sub = cpuid.sub[std::countr_zero(left)];
    if (sub.align64) end = (end + 63) & ~uint64_t{63};
    end += sub.size;
  }
  return end;
}

// A run of equal registers, or one named field, of an XSAVE area.
struct Field {
  uint32_t begin, end;  // bytes, within the legacy region or within the component
  uint32_t stride;      // bytes a register; 0: one field
  uint32_t slot;        // bytes from one register to the next, 0: as stride
  unsigned first;       // number of the first register
  const char* prefix;   // "YMM"
  const char* suffix;   // "[255:128]"
};

// SDM 13.5.1-13.5.2 and table 10-2 (layout in 64-bit mode with REX.W; else FCS and FDS take the
// upper halves of FIP and FDP).
constexpr Field kLegacyFields[] = {
    {0, 2, 0, 0, 0, "FCW", ""},
    {2, 4, 0, 0, 0, "FSW", ""},
    {4, 5, 0, 0, 0, "FTW", ""},
    {5, 6, 0, 0, 0, "reserved", ""},
    {6, 8, 0, 0, 0, "FOP", ""},
    {8, 12, 0, 0, 0, "FIP[31:0]", ""},
    {12, 16, 0, 0, 0, "FIP[63:32]/FCS", ""},
    {16, 20, 0, 0, 0, "FDP[31:0]", ""},
    {20, 24, 0, 0, 0, "FDP[63:32]/FDS", ""},
    {24, 28, 0, 0, 0, "MXCSR", ""},
    {28, 32, 0, 0, 0, "MXCSR_MASK", ""},
    {32, 160, 10, 16, 0, "ST", ""},
    {160, 416, 16, 16, 0, "XMM", ""},
    {416, 464, 0, 0, 0, "reserved", ""},
    {464, 512, 0, 0, 0, "available to software", ""},
};
constexpr Field kHeaderFields[] = {
    {0, 8, 0, 0, 0, "header XSTATE_BV", ""},
    {8, 16, 0, 0, 0, "header XCOMP_BV", ""},
    {16, 64, 0, 0, 0, "header reserved", ""},
};
constexpr Field kAvxFields[] = {{0, 256, 16, 16, 0, "YMM", "[255:128]"}};
constexpr Field kBndregsFields[] = {{0, 64, 16, 16, 0, "BND", ""}};
constexpr Field kBndcsrFields[] = {{0, 8, 0, 0, 0, "BNDCFGU", ""},
                                   {8, 16, 0, 0, 0, "BNDSTATUS", ""}};
constexpr Field kOpmaskFields[] = {{0, 64, 8, 8, 0, "k", ""}};
constexpr Field kZmmHi256Fields[] = {{0, 512, 32, 32, 0, "ZMM", "[511:256]"}};
constexpr Field kHi16ZmmFields[] = {{0, 1024, 64, 64, 16, "ZMM", ""}};
constexpr Field kPkruFields[] = {{0, 4, 0, 0, 0, "PKRU", ""}};
constexpr Field kTiledataFields[] = {{0, 8192, 1024, 1024, 0, "TMM", ""}};
constexpr Field kApxFields[] = {{0, 128, 8, 8, 16, "R", ""}};

struct ComponentFields {
  Component component;
  const Field* fields;
  unsigned count;
};
template <unsigned N>
constexpr ComponentFields Fields(Component c, const Field (&fields)[N]) {
  return {c, fields, N};
}
constexpr ComponentFields kComponentFields[] = {
    Fields(Component::kAvx, kAvxFields),           Fields(Component::kBndregs, kBndregsFields),
    Fields(Component::kBndcsr, kBndcsrFields),     Fields(Component::kOpmask, kOpmaskFields),
    Fields(Component::kZmmHi256, kZmmHi256Fields), Fields(Component::kHi16Zmm, kHi16ZmmFields),
    Fields(Component::kPkru, kPkruFields),         Fields(Component::kTiledata, kTiledataFields),
    Fields(Component::kApx, kApxFields),
};

// Writes the name of byte `offset` of the fields into `name`; false where no field has it.
bool NameField(const Field* fields, unsigned count, uint32_t offset, ByteName& name) {
  for (unsigned i = 0; i < count; ++i) {
    const Field& f = fields[i];
    if (offset < f.begin || offset >= f.end) continue;
    const uint32_t at = offset - f.begin;
    if (f.stride == 0) {
      std::snprintf(name.text, sizeof(name.text), "%s byte %u", f.prefix, at);
    } else {
      const unsigned reg = f.first + at / f.slot, byte = at % f.slot;
      std::snprintf(name.text, sizeof(name.text), "%s%u%s %s %u", f.prefix, reg, f.suffix,
                    byte < f.stride ? "byte" : "pad byte", byte);
    }
    return true;
  }
  return false;
}

Component LegacyComponent(uint32_t offset) {
  const bool sse = (offset >= 24 && offset < 32) || (offset >= 160 && offset < 416);
  return sse ? Component::kSse : Component::kX87;
}

}  // namespace

XsaveCpuid XsaveCpuid::Typical(uint64_t xcr0, uint64_t xss) {
  XsaveCpuid cpuid;
  cpuid.xcr0 = xcr0;
  cpuid.xss = xss;
  cpuid.xsaveopt = cpuid.xsavec = cpuid.xgetbv1 = cpuid.xsaves = true;
  for (const ComponentRow& row : Rows()) {
    if (((xcr0 | xss) & Bit(row.id)) == 0 || row.size == 0) continue;
    cpuid.sub[static_cast<unsigned>(row.id)] = {.size = row.size,
                                                .offset = row.standard_offset,
                                                .supervisor = row.supervisor,
                                                .align64 = row.align64,
                                                .xfd = row.xfd};
    cpuid.xfd = cpuid.xfd || row.xfd;
  }
  cpuid.max_size = StandardSize(cpuid, xcr0);
  return cpuid;
}

uint32_t StandardSize(const XsaveCpuid& cpuid, uint64_t mask) {
  uint64_t end = kExtendedOffset;
  for (uint64_t left = mask & kExtendedMask; left != 0; left &= left - 1) {
    const XsaveCpuid::Sub& sub = cpuid.sub[std::countr_zero(left)];
    if (sub.supervisor) continue;  // no place in the standard format (SDM 13.4.3)
    end = std::max(end, uint64_t{sub.offset} + sub.size);
  }
  return Saturate(end);
}

uint32_t CompactedOffset(const XsaveCpuid& cpuid, uint64_t xcomp_bv, Component c) {
  const unsigned i = static_cast<unsigned>(c);
  uint64_t offset = CompactedEnd(cpuid, xcomp_bv, i);
  if (cpuid.sub[i].align64) offset = (offset + 63) & ~uint64_t{63};
  return Saturate(offset);
}

uint32_t CompactedSize(const XsaveCpuid& cpuid, uint64_t xcomp_bv) {
  return Saturate(CompactedEnd(cpuid, xcomp_bv, kComponentCount));
}

ByteName NameOfByte(const XsaveCpuid& cpuid, uint32_t offset) {
  ByteName name{Component::kX87, {}};
  if (offset < kLegacySize) {
    name.component = LegacyComponent(offset);
    NameField(kLegacyFields, std::size(kLegacyFields), offset, name);
    return name;
  }
  if (offset < kExtendedOffset) {
    NameField(kHeaderFields, std::size(kHeaderFields), offset - kHeaderOffset, name);
    return name;
  }
  for (uint64_t left = cpuid.xcr0 & kExtendedMask; left != 0; left &= left - 1) {
    const ComponentRow& row = Rows()[std::countr_zero(left)];
    const XsaveCpuid::Sub& sub = cpuid.sub[static_cast<unsigned>(row.id)];
    if (offset < sub.offset || offset - sub.offset >= sub.size) continue;
    name.component = row.id;
    for (const ComponentFields& f : kComponentFields) {
      if (f.component == row.id && NameField(f.fields, f.count, offset - sub.offset, name)) {
        return name;
      }
    }
    std::snprintf(name.text, sizeof(name.text), "%.*s byte %u", static_cast<int>(row.name.size()),
                  row.name.data(), offset - sub.offset);
    return name;
  }
  std::snprintf(name.text, sizeof(name.text), "unused byte %u", offset);
  return name;
}

}  // namespace fpswap::xstate
