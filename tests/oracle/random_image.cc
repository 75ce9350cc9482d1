// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/oracle/random_image.h"

#include <algorithm>

#include "oracle/xstate/image.h"

namespace fpswap::cpu::testing {
namespace {

using xstate::Bit;
using xstate::MutableImage;
using xstate::Slice;
using xstate::WriteAt;

// All zero, one byte, or all random: each is another case for XINUSE.
void FillSome(Random& random, std::span<uint8_t> out) {
  if (out.empty()) return;
  std::ranges::fill(out, uint8_t{0});
  switch (random.Below(4)) {
    case 0:
      return;
    case 1:
      out[random.Below(out.size())] = static_cast<uint8_t>(random.Next());
      return;
    default:
      random.Fill(out);
  }
}

void FillX87(Random& random, std::span<uint8_t> image) {
  const bool initial = random.OneIn(4);
  if (initial) {
    std::ranges::fill(Slice(image, 0, 24), uint8_t{0});
    std::ranges::fill(Slice(image, 32, 128), uint8_t{0});
    WriteAt(image, 0, uint16_t{0x37f});
    return;
  }
  random.Fill(Slice(image, 0, 24));
  FillSome(random, Slice(image, 32, 128));
  // Half of the time no exception is pending, so that x87 instructions get anywhere.
  if (random.OneIn(2)) WriteAt(image, 0, static_cast<uint16_t>(random.Next() | 0x3f));
  if (random.OneIn(4)) WriteAt(image, 2, static_cast<uint16_t>(random.Below(8) << 11));
  if (random.OneIn(4)) WriteAt(image, 4, uint16_t{0});
  if (random.OneIn(8)) WriteAt(image, 4, uint16_t{0xff});
}

void FillExtended(Random& random, Component c, std::span<uint8_t> out) {
  FillSome(random, out);
  if (out.empty()) return;
  if (c == Component::kTilecfg) FillTilecfg(random, out);
  // Denying key 0 would end the test; XSAVE's own accesses count too.
  if (c == Component::kPkru) out[0] &= 0xfc;
}

void FillMxcsr(Random& random, const Features& features, std::span<uint8_t> image) {
  const auto value = static_cast<uint32_t>(random.Next()) & features.mxcsr_mask;
  WriteAt(image, 24, random.OneIn(3) ? 0x1f80 : value);
}

void FillComponents(Random& random, const Features& features, std::span<uint8_t> image) {
  FillX87(random, image);
  FillMxcsr(random, features, image);
  FillSome(random, Slice(image, 160, 256));
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    FillExtended(random, Component(i), MutableImage(image).component(features.xsave, Component(i)));
  }
}

}  // namespace

void FillTilecfg(Random& random, std::span<uint8_t> out) {
  random.Fill(out);
  if (out.size() < 64 || random.OneIn(8)) return;
  std::ranges::fill(out, uint8_t{0});
  out[0] = 1;
  if (random.OneIn(8)) out[1] = static_cast<uint8_t>(random.Below(18));  // start_row
  const bool alike = random.OneIn(3);  // and square in dwords: any three can be multiplied
  const bool dwords = !random.OneIn(4);
  const uint64_t size = 1 + random.Below(16);
  for (unsigned i = 0; i < 8; ++i) {
    if (random.OneIn(alike ? 32 : 4)) continue;
    const uint64_t colsb = dwords ? 4 * (1 + random.Below(16)) : 1 + random.Below(64);
    out[16 + 2 * i] = static_cast<uint8_t>(alike ? 4 * size : colsb);
    out[48 + i] = static_cast<uint8_t>(alike ? size : 1 + random.Below(16));
  }
}

uint64_t Random::Next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

void Random::Fill(std::span<uint8_t> out) {
  for (size_t i = 0; i < out.size(); i += 8) {
    const uint64_t word = Next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, out.size() - i));
  }
}

uint64_t Random::Mask() {
  switch (Below(4)) {
    case 0:
      return ~uint64_t{0};
    case 1:
      return uint64_t{1} << Below(20);
    case 2:
      return Next() | Next();
    default:
      return Next();
  }
}

void FillStandardImage(Random& random, const Features& features, uint64_t mask,
                       std::span<uint8_t> image) {
  random.Fill(image);
  std::ranges::fill(Slice(image, xstate::kHeaderOffset, 24), uint8_t{0});
  const uint64_t xstate_bv = mask & random.Mask();
  FillComponents(random, features, image);
  MutableImage(image).set_xstate_bv(xstate_bv);
}

void FillCompactedImage(Random& random, const Features& features, uint64_t mask,
                        std::span<uint8_t> image) {
  random.Fill(image);
  std::ranges::fill(Slice(image, xstate::kHeaderOffset, 64), uint8_t{0});
  const uint64_t xcomp_bv = mask & random.Mask();
  MutableImage(image).set_xcomp_bv(xcomp_bv | xstate::kXcompBvCompacted);
  FillComponents(random, features, image);
  MutableImage(image).set_xstate_bv(xcomp_bv & random.Mask());
}

}  // namespace fpswap::cpu::testing
