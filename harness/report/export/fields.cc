// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/fields.h"

#include <fmt/format.h>

#include <bit>
#include <string_view>

#include "oracle/xstate/image.h"

namespace fpswap::report {
namespace {

using xstate::Component;

// The name of a byte less its number within the field.
std::string FieldName(const xstate::XsaveCpuid& cpuid, uint32_t offset) {
  std::string text = xstate::NameOfByte(cpuid, offset).text;
  const size_t byte = text.rfind(" byte ");
  if (byte != std::string::npos) text.resize(byte);
  if (text.starts_with("header ")) text.erase(0, 7);
  return text;
}

// Not so bytes that hold no state.
bool IsListed(std::string_view name) {
  return !name.contains("reserved") && !name.contains("pad") && !name.contains("unused") &&
         name != "MXCSR_MASK" && name != "available to software" && name != "XCOMP_BV";
}

bool IsScalar(std::string_view name, uint32_t size) {
  return (size == 1 || size == 2 || size == 4 || size == 8) && !name.starts_with("ST");
}

// The fields of one stretch [home, home + size) of a standard-format image, which lies at `offset`
// of the bytes at hand.
void AddFields(const xstate::XsaveCpuid& cpuid, uint32_t home, uint32_t size, uint32_t offset,
               bool extended, Component component, std::vector<Field>& out) {
  for (uint32_t at = home; at < home + size;) {
    const std::string name = FieldName(cpuid, at);
    uint32_t end = at + 1;
    while (end < home + size && FieldName(cpuid, end) == name) ++end;
    if (IsListed(name)) {
      const Component of = extended ? component : xstate::NameOfByte(cpuid, at).component;
      // Of PKRU's eight bytes four are used.
      const uint32_t used = name == "PKRU" ? 4 : end - at;
      out.push_back(
          {name, offset + (at - home), at, used, IsScalar(name, used), extended, of, at - home});
    }
    at = end;
  }
}

}  // namespace

std::vector<Field> StandardFields(const xstate::XsaveCpuid& cpuid, uint64_t components) {
  std::vector<Field> fields;
  AddFields(cpuid, 0, xstate::kExtendedOffset, 0, false, Component::kX87, fields);
  xstate::ForEachStandard(cpuid, components, [&](Component c, uint64_t offset, uint64_t size) {
    const auto at = static_cast<uint32_t>(offset);
    AddFields(cpuid, at, static_cast<uint32_t>(size), at, true, c, fields);
  });
  return fields;
}

std::vector<Field> CompactedFields(const xstate::XsaveCpuid& cpuid, uint64_t components,
                                   uint64_t xcomp_bv) {
  std::vector<Field> fields;
  AddFields(cpuid, 0, xstate::kExtendedOffset, 0, false, Component::kX87, fields);
  xstate::ForEachCompacted(
      cpuid, xcomp_bv, components, [&](Component c, uint64_t offset, uint64_t size) {
        const auto& sub = cpuid.sub[static_cast<unsigned>(c)];
        if (sub.supervisor) {
          fields.push_back({std::string(xstate::RowOf(c).title), static_cast<uint32_t>(offset), 0,
                            static_cast<uint32_t>(size), false, true, c, 0});
        } else {
          AddFields(cpuid, sub.offset, static_cast<uint32_t>(size), static_cast<uint32_t>(offset),
                    true, c, fields);
        }
      });
  return fields;
}

std::vector<Field> FpuFields() {
  std::vector<Field> all = StandardFields({}, 0), fields;
  // struct kvm_fpu: fpr, the first 24 bytes of an image, xmm, mxcsr.
  for (Field f : all) {
    if (f.home >= xstate::kHeaderOffset) continue;
    f.offset = f.home == 24   ? 408
               : f.home < 24  ? f.home + 128
               : f.home < 160 ? f.home - 32
                              : f.home - 160 + 152;
    fields.push_back(f);
  }
  return fields;
}

std::string MaskName(Component component) {
  switch (component) {
    case Component::kX87:
      return "XFEATURE_MASK_FP";
    case Component::kSse:
      return "XFEATURE_MASK_SSE";
    case Component::kAvx:
      return "XFEATURE_MASK_YMM";
    case Component::kBndregs:
      return "XFEATURE_MASK_BNDREGS";
    case Component::kBndcsr:
      return "XFEATURE_MASK_BNDCSR";
    case Component::kOpmask:
      return "XFEATURE_MASK_OPMASK";
    case Component::kZmmHi256:
      return "XFEATURE_MASK_ZMM_Hi256";
    case Component::kHi16Zmm:
      return "XFEATURE_MASK_Hi16_ZMM";
    case Component::kPkru:
      return "XFEATURE_MASK_PKRU";
    case Component::kCetU:
      return "XFEATURE_MASK_CET_USER";
    case Component::kCetS:
      return "XFEATURE_MASK_CET_KERNEL";
    case Component::kTilecfg:
      return "XFEATURE_MASK_XTILE_CFG";
    case Component::kTiledata:
      return "XFEATURE_MASK_XTILE_DATA";
    default:
      return fmt::format("BIT_ULL({})", static_cast<unsigned>(component));
  }
}

std::string MaskText(uint64_t mask) {
  if (mask == 0) return "0";
  if (mask == ~uint64_t{0}) return "-1ull";
  std::string text;
  const auto add = [&](const std::string& name) { text += (text.empty() ? "" : " | ") + name; };
  uint64_t known = mask & ((uint64_t{1} << xstate::kComponentCount) - 1);
  for (; known != 0; known &= known - 1) {
    const auto c = static_cast<Component>(std::countr_zero(known));
    if ((xstate::kAvx512 & Bit(c)) != 0 && (mask & xstate::kAvx512) == xstate::kAvx512) {
      if (c == Component::kOpmask) add("XFEATURE_MASK_AVX512");
      continue;
    }
    if ((xstate::kAmx & Bit(c)) != 0 && (mask & xstate::kAmx) == xstate::kAmx) {
      if (c == Component::kTilecfg) add("XFEATURE_MASK_XTILE");
      continue;
    }
    add(MaskName(c));
  }
  for (uint64_t rest = mask >> xstate::kComponentCount << xstate::kComponentCount; rest != 0;
       rest &= rest - 1) {
    add(fmt::format("BIT_ULL({})", std::countr_zero(rest)));
  }
  return text;
}

}  // namespace fpswap::report
