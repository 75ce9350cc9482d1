// SPDX-License-Identifier: GPL-2.0-or-later
//
// Views over the bytes of XSAVE images, standard and compacted (SDM vol. 1, 13.4). Bounded and
// total: images and layouts may come from a trace that someone made up, so every accessor is
// defined for a span of any size; what lies outside reads as zero or as an empty span, and a write
// outside does nothing.
//
// A view owns nothing; it is a span and may be copied. Thread safety: that of the bytes.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

#include "oracle/xstate/component.h"
#include "oracle/xstate/layout.h"

namespace fpswap::xstate {

static_assert(std::endian::native == std::endian::little, "image bytes are copied as they are");

// The value of type T at `offset`, 0 where it doesn't lie wholly inside.
template <typename T>
T ReadAt(std::span<const uint8_t> bytes, size_t offset) {
  T value{};
  if (offset <= bytes.size() && bytes.size() - offset >= sizeof(T)) {
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
  }
  return value;
}

template <typename T>
void WriteAt(std::span<uint8_t> bytes, size_t offset, T value) {
  if (offset <= bytes.size() && bytes.size() - offset >= sizeof(T)) {
    std::memcpy(bytes.data() + offset, &value, sizeof(T));
  }
}

// `size` bytes at `offset`, empty where they don't lie wholly inside.
template <typename Byte>
std::span<Byte> Slice(std::span<Byte> bytes, uint64_t offset, uint64_t size) {
  if (offset > bytes.size() || bytes.size() - offset < size) return {};
  return bytes.subspan(offset, size);
}

// Calls f(Component, offset, size) for each component i >= 2 of `mask`, in ascending order: at its
// standard offset.
template <typename F>
void ForEachStandard(const XsaveCpuid& cpuid, uint64_t mask, F&& f) {
  mask &= ((uint64_t{1} << kComponentCount) - 1) & ~kX87Sse;
  for (; mask != 0; mask &= mask - 1) {
    const int i = std::countr_zero(mask);
    if (!cpuid.sub[i].supervisor) f(Component(i), cpuid.sub[i].offset, cpuid.sub[i].size);
  }
}

// The same for components of `mask`, at their offsets in the compacted format of `xcomp_bv`.
template <typename F>
void ForEachCompacted(const XsaveCpuid& cpuid, uint64_t xcomp_bv, uint64_t mask, F&& f) {
  xcomp_bv &= ((uint64_t{1} << kComponentCount) - 1) & ~kX87Sse;
  uint64_t offset = kExtendedOffset;
  for (; xcomp_bv != 0; xcomp_bv &= xcomp_bv - 1) {
    const int i = std::countr_zero(xcomp_bv);
    const XsaveCpuid::Sub& sub = cpuid.sub[i];
    if (sub.align64) offset = (offset + 63) & ~uint64_t{63};
    if ((mask >> i) & 1) f(Component(i), offset, sub.size);
    offset += sub.size;
  }
}

class ImageView {
 public:
  explicit ImageView(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  std::span<const uint8_t> bytes() const { return bytes_; }
  uint64_t xstate_bv() const { return ReadAt<uint64_t>(bytes_, kHeaderOffset); }
  uint64_t xcomp_bv() const { return ReadAt<uint64_t>(bytes_, kHeaderOffset + 8); }
  bool compacted() const { return (xcomp_bv() & kXcompBvCompacted) != 0; }
  // Whether all header bytes in [first, last] (0-63) are zero.
  bool HeaderIsZero(unsigned first, unsigned last) const;

  uint16_t fcw() const { return ReadAt<uint16_t>(bytes_, 0); }
  uint16_t fsw() const { return ReadAt<uint16_t>(bytes_, 2); }
  uint32_t mxcsr() const { return ReadAt<uint32_t>(bytes_, 24); }
  std::span<const uint8_t> st(unsigned i) const { return i < 8 ? At(32 + 16 * i, 10) : At(0, 0); }
  std::span<const uint8_t> xmm(unsigned i) const {
    return i < 16 ? At(160 + 16 * i, 16) : At(0, 0);
  }

  // The place of `c` (i >= 2) in the format that the image is in, whether or not XSTATE_BV has it.
  // Empty: x87 and SSE, no place in this format, or not wholly inside.
  std::span<const uint8_t> component(const XsaveCpuid& cpuid, Component c) const;
  // Whether `component` holds state: its XSTATE_BV bit is set.
  bool present(Component c) const { return (xstate_bv() & Bit(c)) != 0; }

 private:
  std::span<const uint8_t> At(uint32_t offset, uint32_t size) const {
    return Slice(bytes_, offset, size);
  }
  std::span<const uint8_t> bytes_;
};

// As ImageView, for writing.
class MutableImage {
 public:
  explicit MutableImage(std::span<uint8_t> bytes) : bytes_(bytes) {}

  ImageView view() const { return ImageView(bytes_); }
  std::span<uint8_t> bytes() const { return bytes_; }
  void set_xstate_bv(uint64_t v) const { WriteAt(bytes_, kHeaderOffset, v); }
  void set_xcomp_bv(uint64_t v) const { WriteAt(bytes_, kHeaderOffset + 8, v); }
  void set_fcw(uint16_t v) const { WriteAt(bytes_, 0, v); }
  void set_mxcsr(uint32_t v) const { WriteAt(bytes_, 24, v); }
  std::span<uint8_t> component(const XsaveCpuid& cpuid, Component c) const;
  // Zeros with FCW 37FH and MXCSR 1F80H; XSTATE_BV 0, standard format.
  void SetInitial() const;

 private:
  std::span<uint8_t> bytes_;
};

// Bytes that save instructions may write and that are no state: what they hold then is not
// architectural (Zen 4 writes zeros to all but 416-463, which it leaves alone). Byte 5 and 416-463;
// the upper 48 bits of ST slots; in the forms without REX.W (`wide` false) also 14-15 and 22-23.
bool IsReservedLegacyByte(uint32_t offset, bool wide);

}  // namespace fpswap::xstate
