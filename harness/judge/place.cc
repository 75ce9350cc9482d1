// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/place.h"

#include <fmt/format.h>

#include <bit>

#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using program::Op;
using xstate::Component;

// A byte's name less its number within the register, so that sightings of one bug look alike.
std::string RegisterName(const xstate::XsaveCpuid& cpuid, uint32_t offset, Component& component) {
  const xstate::ByteName name = xstate::NameOfByte(cpuid, offset);
  component = name.component;
  std::string text = name.text;
  const size_t byte = text.rfind(" byte ");
  if (byte != std::string::npos) text.resize(byte);
  return text;
}

// The first differing bit of a bitmap of components at `at` of the bytes compared.
void NameBitmap(const Mismatch& m, uint32_t at, PlaceName& name) {
  const uint32_t begin = at - m.window;
  if (at < m.window || begin + 8 > m.size) return;
  uint64_t possible, seen;
  std::memcpy(&possible, m.possible.data() + begin, 8);
  std::memcpy(&seen, m.seen.data() + begin, 8);
  if (possible == seen) return;
  name.is_bitmap = true;
  const auto bit = static_cast<unsigned>(std::countr_zero(possible ^ seen));
  name.bit_lost = ((possible >> bit) & 1) != 0;
  name.has_component = bit < xstate::kComponentCount;
  if (name.has_component) name.component = static_cast<Component>(bit);
}

// A byte of a standard-format image.
void NameStandard(const xstate::XsaveCpuid& cpuid, uint32_t offset, uint32_t window, const char* of,
                  PlaceName& name) {
  name.where = RegisterName(cpuid, offset, name.component) + of;
  name.has_component = true;
  name.home = window;
  name.exact = offset;
}

bool SavesCompacted(Op op) { return op == Op::kXsavec || op == Op::kXsaves; }

// A byte of an area, in the format that the instruction writes (XSAVE and XSAVEOPT leave an old
// XCOMP_BV as it is, whatever it says): translated to the standard offset, if it has one.
void NameArea(const Explained& what, const Mismatch& m, PlaceName& name) {
  const auto& cpuid = what.platform.guest.xsave;
  constexpr const char* kOf = " of the area";
  const xstate::ImageView area(what.seen);
  if (m.offset >= xstate::kHeaderOffset && m.offset < xstate::kExtendedOffset) {
    NameStandard(cpuid, m.offset, m.window, kOf, name);
    name.has_component = false;
    name.home = name.exact = kNoHome;
    if (m.offset < xstate::kHeaderOffset + 8) NameBitmap(m, xstate::kHeaderOffset, name);
    return;
  }
  if (!SavesCompacted(what.step->op) || m.offset < xstate::kExtendedOffset) {
    return NameStandard(cpuid, m.offset, m.window, kOf, name);
  }
  const uint64_t components = area.xcomp_bv() & ~xstate::kXcompBvCompacted;
  name.where = fmt::format("byte {}{}", m.offset, kOf);
  xstate::ForEachCompacted(
      cpuid, components, components, [&](Component c, uint64_t at, uint64_t size) {
        if (m.offset < at || m.offset - at >= size) return;
        const auto& row = cpuid.sub[static_cast<unsigned>(c)];
        const auto within = static_cast<uint32_t>(m.offset - at);
        name.has_component = true;
        name.component = c;
        if (row.supervisor) {
          name.where = std::string(xstate::RowOf(c).name) + kOf;
          return;
        }
        name.where = RegisterName(cpuid, row.offset + within, name.component) + kOf;
        if (m.window >= at) name.home = row.offset + (m.window - at);
      });
}

// struct kvm_fpu: st_space, the first 24 bytes of the legacy region, xmm_space, MXCSR.
void NameFpu(const Explained& what, const Mismatch& m, PlaceName& name) {
  const auto legacy = [](uint32_t at) -> uint32_t {
    if (at < 128) return at + 32;
    if (at < 152) return at - 128;
    if (at < 408) return at - 152 + 160;
    return 24 + (at - 408);
  };
  NameStandard(what.platform.host.xsave, legacy(m.offset), legacy(m.window), " of kvm_fpu", name);
  if (m.offset >= 408) {
    name.where = m.offset < 412 ? "MXCSR of kvm_fpu" : "padding of kvm_fpu";
  }
  // Where the window begins before its register's part of the struct, it has no home of its own.
  if (legacy(m.window) + (m.offset - m.window) != legacy(m.offset)) name.home = kNoHome;
}

// Where byte `offset` of a stored vector register lies in a standard-format image.
size_t InImage(const xstate::XsaveCpuid& cpuid, uint64_t reg, uint32_t offset) {
  const auto at = [&](Component c) { return cpuid.sub[static_cast<size_t>(c)].offset; };
  if (reg >= 16) return at(Component::kHi16Zmm) + 64 * (reg - 16) + offset;
  if (offset >= 32) return at(Component::kZmmHi256) + 32 * reg + offset - 32;
  if (offset >= 16) return at(Component::kAvx) + 16 * reg + offset - 16;
  return 160 + 16 * reg + offset;
}

// What an instruction stored: the register it names.
void NameStored(const Explained& what, const Mismatch& m, PlaceName& name) {
  const program::StepRow& row = program::RowOf(*what.step);
  name.where = fmt::format("value stored by {}", row.name);
  const uint64_t reg = what.step->arg[0];
  const uint64_t components = row.components;
  name.has_component = components != 0;
  switch (what.step->op) {
    case Op::kVexStore256:
      name.component = m.offset < 16 ? Component::kSse : Component::kAvx;
      name.exact = InImage(what.platform.host.xsave, reg, m.offset);
      break;
    case Op::kSseStore:
      name.component = Component::kSse;
      name.exact = InImage(what.platform.host.xsave, reg, m.offset);
      break;
    case Op::kEvexStore512:
      name.component = reg >= 16        ? Component::kHi16Zmm
                       : m.offset >= 32 ? Component::kZmmHi256
                       : m.offset >= 16 ? Component::kAvx
                                        : Component::kSse;
      name.exact = InImage(what.platform.host.xsave, reg, m.offset);
      break;
    case Op::kBndmovStore:
      name.component = Component::kBndregs;
      break;
    case Op::kXgetbv:
      name.has_component = false;
      NameBitmap(m, 0, name);
      break;
    case Op::kRdmsr:
    case Op::kSetCpuid:
    case Op::kGetMpState:
      name.has_component = false;
      break;
    default:
      if (name.has_component) {
        name.component = static_cast<Component>(std::countr_zero(components));
      }
  }
}

}  // namespace

PlaceName NamePlace(const Explained& what, const Mismatch& m) {
  PlaceName name;
  switch (m.place) {
    case Place::kImage:
      NameStandard(what.platform.host.xsave, m.offset, m.window, " of the image", name);
      if (m.offset >= xstate::kHeaderOffset && m.offset < xstate::kExtendedOffset) {
        name.has_component = false;
        name.home = name.exact = kNoHome;
        if (m.offset < xstate::kHeaderOffset + 8) NameBitmap(m, xstate::kHeaderOffset, name);
      }
      break;
    case Place::kArea:
      NameArea(what, m, name);
      break;
    case Place::kFxArea:
      NameStandard(what.platform.guest.xsave, m.offset, m.window, " of the FXSAVE area", name);
      break;
    case Place::kFpu:
      NameFpu(what, m, name);
      break;
    case Place::kXcrs:
      name.where = m.offset >= 16 && m.offset < 24 ? "XCR0 of kvm_xcrs" : "struct kvm_xcrs";
      if (m.offset >= 16 && m.offset < 24) NameBitmap(m, 16, name);
      break;
    case Place::kMsr:
      name.where = "value of KVM_GET_MSRS";
      break;
    case Place::kCpuid: {
      static constexpr const char* kRegisters[] = {"EAX", "EBX", "ECX", "EDX"};
      name.where = fmt::format("{} of CPUID.(0DH,0)", kRegisters[(m.offset / 4) % 4]);
      break;
    }
    case Place::kExit:
      name.where = "data of the exit";
      if (what.step != nullptr && what.step->op == Op::kExitMmioVector) {
        name.has_component = true;
        name.component = Component::kSse;
      }
      break;
    case Place::kStored:
    case Place::kNone:
      NameStored(what, m, name);
      break;
  }
  return name;
}

}  // namespace fpswap::judge
