// SPDX-License-Identifier: GPL-2.0-or-later
//
// Views of XSAVE images: any bytes under any CPUID leaf 0DH, as a trace may have it, stay within
// the image.
#include <algorithm>
#include <cstring>

#include "fuzz/hostile/hostile.h"
#include "oracle/xstate/image.h"

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;
using namespace fpswap::xstate;

// An input: u8 kind of CPUID, u64 XCR0, u64 IA32_XSS, and for kind 1 kComponentCount rows of u32
// size, u32 offset, u8 flags; then the image.
struct Row {
  uint32_t size, offset;
  uint8_t flags;
} __attribute__((packed));

std::vector<uint8_t> Seed(Rng& rng) {
  std::vector<uint8_t> out(17);
  const uint64_t xcr0 = rng.Next() & 0x602ff, xss = 0x1800;
  std::memcpy(&out[1], &xcr0, 8);
  std::memcpy(&out[9], &xss, 8);
  const size_t image = out.size();
  out.resize(image + 576 + rng.Below(3000), static_cast<uint8_t>(rng.Next()));
  const uint64_t header[2] = {xcr0, rng.OneIn(2) ? 0 : xcr0 | kXcompBvCompacted};
  std::memcpy(&out[image + kHeaderOffset], header, sizeof(header));
  return out;
}

// Takes a T off the front; zeros where there is too little.
template <typename T>
T Take(std::span<const uint8_t>& in) {
  T value{};
  const size_t n = std::min(sizeof(T), in.size());
  std::memcpy(&value, in.data(), n);
  in = in.subspan(n);
  return value;
}

XsaveCpuid TakeCpuid(std::span<const uint8_t>& in) {
  const auto kind = Take<uint8_t>(in);
  const auto xcr0 = Take<uint64_t>(in), xss = Take<uint64_t>(in);
  XsaveCpuid cpuid = XsaveCpuid::Typical(xcr0, xss);
  if (kind % 2 == 0) return cpuid;
  for (auto& sub : cpuid.sub) {
    const Row row = Take<Row>(in);
    sub = {row.size, row.offset, (row.flags & 1) != 0, (row.flags & 2) != 0, (row.flags & 4) != 0};
  }
  return cpuid;
}

bool Inside(std::span<const uint8_t> inner, std::span<const uint8_t> outer) {
  return inner.empty() || (inner.data() >= outer.data() &&
                           inner.data() + inner.size() <= outer.data() + outer.size());
}

// The sum of all that is read, so that no read is optimised away.
unsigned Sum(std::span<const uint8_t> bytes) {
  unsigned sum = 0;
  for (uint8_t b : bytes) sum += b;
  return sum;
}

unsigned Look(const XsaveCpuid& cpuid, std::span<const uint8_t> bytes) {
  const ImageView view(bytes);
  unsigned sum = view.fcw() + view.fsw() + view.mxcsr() + view.HeaderIsZero(8, 63);
  for (unsigned i = 0; i < 40; ++i) {
    Check(Inside(view.st(i), bytes) && Inside(view.xmm(i), bytes), "a register is inside");
    sum += Sum(view.st(i)) + Sum(view.xmm(i));
  }
  for (const ComponentRow& row : Rows()) {
    const auto component = view.component(cpuid, row.id);
    Check(Inside(component, bytes), "a component is inside");
    sum += Sum(component) + view.present(row.id);
  }
  return sum;
}

void Sizes(const XsaveCpuid& cpuid, uint64_t mask) {
  Check(StandardSize(cpuid, mask) >= 576, "an area holds at least its header");
  Check(CompactedSize(cpuid, mask) >= 576, "a compacted area holds at least its header");
  ForEachCompacted(cpuid, mask, mask, [&](Component c, uint64_t offset, uint64_t) {
    Check(CompactedOffset(cpuid, mask, c) == std::min<uint64_t>(offset, UINT32_MAX),
          "both ways to a compacted offset agree, up to the bound of the one");
  });
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  fpswap::hostile::DefaultMaxLen(argc, argv, "-max_len=16384");
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  return fpswap::hostile::MutateOrSeed({data, max}, size, seed, Seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::span<const uint8_t> in(data, size);
  const XsaveCpuid cpuid = TakeCpuid(in);
  // A copy of its own size, so that ASan sees the first byte outside.
  std::vector<uint8_t> bytes(in.begin(), in.end());
  volatile unsigned sum = Look(cpuid, bytes);
  static_cast<void>(sum);
  Sizes(cpuid, ImageView(bytes).xstate_bv());
  for (uint32_t offset = 0; offset < bytes.size() + 8; offset += 3) {
    const ByteName name = NameOfByte(cpuid, offset);
    Check(std::memchr(name.text, 0, sizeof(name.text)) != nullptr, "a name ends");
    Check(name.text[0] != 0, "every byte has a name");
  }

  const MutableImage image(bytes);
  image.set_xstate_bv(~uint64_t{0});
  image.set_xcomp_bv(0);
  for (const ComponentRow& row : Rows()) {
    const auto component = image.component(cpuid, row.id);
    Check(Inside(component, bytes), "a component to write is inside");
    std::ranges::fill(component, uint8_t{0xee});
  }
  image.SetInitial();
  sum = Look(cpuid, bytes);
  if (bytes.size() >= 576) Check(image.view().mxcsr() == 0x1f80, "an initial image is initial");
  return 0;
}
