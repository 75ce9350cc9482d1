// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/palette.h"

#include "oracle/xstate/component.h"

namespace fpswap::program {
namespace {

// What a row's instructions need of XCR0; without it they could only fault.
uint64_t FeaturesOf(Needs needs) {
  switch (needs) {
    case Needs::kAvx:
    case Needs::kAvx2:
      return Bit(xstate::Component::kAvx);
    case Needs::kAvx512f:
    case Needs::kAvx512vl:
    case Needs::kAvx512bw:
      return xstate::kAvx512;
    case Needs::kMpx:
      return xstate::kMpx;
    case Needs::kPku:
      return Bit(xstate::Component::kPkru);
    case Needs::kAmxTile:
    case Needs::kAmxInt8:
      return xstate::kAmx;
    default:
      return 0;
  }
}

bool Allows(const Profile& profile, const StepRow& row) {
  if ((row.actor == Actor::kVmm || row.actor == Actor::kSystem) && !profile.vmm) return false;
  if (row.actor == Actor::kHost && !profile.host) return false;
  if (row.cpl0 && !profile.cpl0) return false;
  const uint64_t needed = FeaturesOf(row.needs);
  if ((profile.features & needed) != needed) return false;
  return profile.allowed == nullptr || profile.allowed(row, profile.allowed_context);
}

// Families of steps: rows whose names have the same first part ("x87", "vmm"), by the number of a
// row's family, in table order.
struct Families {
  std::array<uint8_t, 256> of_op{};
  unsigned count = 0;
};

Families FindFamilies() {
  Families families;
  std::string_view last;
  for (const StepRow& row : StepTable()) {
    const std::string_view part = row.name.substr(0, row.name.find('.'));
    if (part != last) ++families.count, last = part;
    families.of_op[static_cast<uint8_t>(row.op)] = static_cast<uint8_t>(families.count - 1);
  }
  return families;
}

}  // namespace

Palette::Palette(const Profile& profile) {
  for (const StepRow& row : StepTable()) {
    allowed_[static_cast<uint8_t>(row.op)] = Allows(profile, row);
  }
}

const StepRow* Palette::Pick(Rng& rng) const {
  uint64_t total = 0;
  for (const StepRow& row : StepTable()) total += Has(row.op) ? row.weight : 0;
  uint64_t left = rng.Below(total);
  for (const StepRow& row : StepTable()) {
    if (!Has(row.op)) continue;
    if (left < row.weight) return &row;
    left -= row.weight;
  }
  return nullptr;
}

Op Palette::PickOf(std::span<const Op> ops, Rng& rng) const {
  uint64_t count = 0;
  for (Op op : ops) count += Has(op);
  uint64_t left = rng.Below(count);
  for (Op op : ops) {
    if (Has(op) && left-- == 0) return op;
  }
  return kNoOp;
}

Palette Palette::Thinned(Rng& rng) const {
  static const Families kFamilies = FindFamilies();
  const uint64_t kept = rng.Next() | rng.Next();  // each family with 3 in 4
  Palette thinned = *this;
  for (const StepRow& row : StepTable()) {
    const auto op = static_cast<uint8_t>(row.op);
    if (((kept >> (kFamilies.of_op[op] % 64)) & 1) == 0) thinned.allowed_[op] = false;
  }
  return thinned.Empty() ? *this : thinned;
}

}  // namespace fpswap::program
