// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle/xstate/image.h"

#include <algorithm>

namespace fpswap::xstate {
namespace {

struct Place {
  uint64_t offset = 0, size = 0;
};

// Where `c` lies in `image`; size 0 where nowhere.
Place PlaceOf(ImageView image, const XsaveCpuid& cpuid, Component c) {
  Place place;
  const auto take = [&](Component, uint64_t offset, uint64_t size) { place = {offset, size}; };
  if (image.compacted()) {
    ForEachCompacted(cpuid, image.xcomp_bv(), Bit(c), take);
  } else {
    ForEachStandard(cpuid, Bit(c), take);
    // Offset 0 is CPUID's answer for a component that the machine doesn't have.
    if (place.offset < kExtendedOffset) place.size = 0;
  }
  return place;
}

}  // namespace

bool ImageView::HeaderIsZero(unsigned first, unsigned last) const {
  const auto part = Slice(bytes_, kHeaderOffset + first, last - first + 1);
  return std::ranges::all_of(part, [](uint8_t b) { return b == 0; });
}

std::span<const uint8_t> ImageView::component(const XsaveCpuid& cpuid, Component c) const {
  const Place place = PlaceOf(*this, cpuid, c);
  return Slice(bytes_, place.offset, place.size);
}

std::span<uint8_t> MutableImage::component(const XsaveCpuid& cpuid, Component c) const {
  const Place place = PlaceOf(view(), cpuid, c);
  return Slice(bytes_, place.offset, place.size);
}

void MutableImage::SetInitial() const {
  std::ranges::fill(bytes_, uint8_t{0});
  set_fcw(0x37f);
  set_mxcsr(0x1f80);
}

bool IsReservedLegacyByte(uint32_t offset, bool wide) {
  if (offset == 5 || (offset >= 416 && offset < 464)) return true;
  if (offset >= 32 && offset < 160) return offset % 16 >= 10;
  return !wide && (offset == 14 || offset == 15 || offset == 22 || offset == 23);
}

}  // namespace fpswap::xstate
