// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle/kvm/uabi.h"

#include <cstring>

#include "oracle/xstate/image.h"

namespace fpswap::kvm {
namespace {

using xstate::Bit;
using xstate::ReadAt;
using xstate::WriteAt;

constexpr uint32_t kMxcsrAt = 24, kMxcsrMaskAt = 28, kXmmAt = 160, kXmmSize = 256;
constexpr uint32_t kSwBytesAt = 464, kSwBytesUsed = 20;  // struct _fpx_sw_bytes less its padding
constexpr uint32_t kPointersAt = 6, kPointersSize = 18;  // FOP, FIP, FDP

// The legacy region of an image with this one component changed to what `raw` had.
struct Range {
  uint32_t begin, size;
};
// x87 without MXCSR and MXCSR_MASK, which lie in its midst.
constexpr Range kX87Ranges[] = {{0, 24}, {32, 128}};

bool Same(std::span<const uint8_t> a, std::span<const uint8_t> b, const Range& r) {
  return std::memcmp(a.data() + r.begin, b.data() + r.begin, r.size) == 0;
}

// Answers about x87's pointers from the 18 bytes seen (REX.W form).
class SeenPointers final : public cpu::Choices {
 public:
  explicit SeenPointers(std::span<const uint8_t> seen) : seen_(seen) {}
  bool InitialIsInUse(Component) override { return false; }
  bool OmitUnmodified(Component) override { return false; }
  void ResolvePointers(cpu::X87& x87) override {
    x87.fop = ReadAt<uint16_t>(seen_, kPointersAt);
    x87.fip = ReadAt<uint64_t>(seen_, kPointersAt + 2);
    x87.fdp = ReadAt<uint64_t>(seen_, kPointersAt + 10);
  }

 private:
  std::span<const uint8_t> seen_;
};

// Whether `c`, stored from `now`, would look like this image's had it just been loaded.
bool LoadsAs(const cpu::Cpu& now, Component c, std::span<const uint8_t> raw, uint32_t offset,
             uint32_t size) {
  cpu::Cpu other = now;
  std::array<uint8_t, xstate::kLegacySize> a{}, b{};
  if (c == Component::kX87) {
    now.StoreX87(b, true);
    other.LoadX87(raw, true);
    // The registers may have held fewer bits of FIP and FDP than were loaded.
    SeenPointers choices(b);
    other.ResolvePointers(true, choices);
    other.StoreX87(a, true);
    return a == b;
  }
  if (size > kMaxImage) return false;
  std::array<uint8_t, kMaxImage> x, y;
  other.LoadComponent(c, raw.subspan(offset, size));
  other.StoreComponent(c, std::span(x).first(size));
  now.StoreComponent(c, std::span(y).first(size));
  return std::memcmp(x.data(), y.data(), size) == 0;
}

// Shows a component as it was given by SET_XSAVE, where that is what was seen and still holds.
// Called only when the normalised form was not seen.
void TakeRaw(const Vcpu& vcpu, Component c, std::span<const Range> ranges,
             std::span<const uint8_t> seen, std::span<uint8_t> out) {
  if ((vcpu.raw.components & Bit(c)) == 0) return;
  const std::span<const uint8_t> raw = std::span(vcpu.raw.bytes).first(out.size());
  for (const Range& r : ranges) {
    if (!Same(seen, raw, r)) return;
  }
  if (!LoadsAs(vcpu.cpu, c, raw, ranges[0].begin, ranges[0].size)) return;
  for (const Range& r : ranges) std::memcpy(out.data() + r.begin, raw.data() + r.begin, r.size);
}

void TakeRawIfDifferent(const Vcpu& vcpu, Component c, std::span<const Range> ranges,
                        std::span<const uint8_t> seen, std::span<uint8_t> out) {
  for (const Range& r : ranges) {
    if (!Same(seen, out, r)) return TakeRaw(vcpu, c, ranges, seen, out);
  }
}

void StoreX87(Vcpu& vcpu, std::span<const uint8_t> seen, std::span<uint8_t> out) {
  vcpu.cpu.StoreX87(out, /*wide=*/true);
  if (seen.empty()) return;
  const bool same =
      std::memcmp(seen.data() + kPointersAt, out.data() + kPointersAt, kPointersSize) == 0;
  if (same && vcpu.cpu.regs.x87.pointers_known) return;
  SeenPointers choices(seen);
  vcpu.cpu.ResolvePointers(/*wide=*/true, choices);
  vcpu.cpu.StoreX87(out, /*wide=*/true);
}

// Bits of XSTATE_BV: set for what is in use, open for what is initial or hidden by XFD.
uint64_t ExpectXstateBv(const Vcpu& vcpu, std::span<const uint8_t> seen) {
  const uint64_t seen_bv = ReadAt<uint64_t>(seen, xstate::kHeaderOffset);
  uint64_t bv = 0;
  for (uint64_t left = vcpu.GuestComponents(); left != 0; left &= left - 1) {
    const uint64_t bit = left & -left;
    const auto c = static_cast<Component>(__builtin_ctzll(bit));
    if (!xstate::RowOf(c).modelled) continue;
    const bool open = vcpu.cpu.IsInitial(c) || (vcpu.cpu.xfd & bit) != 0;
    if (!open || (seen_bv & bit) != 0) bv |= bit;
  }
  // XSAVES saves SSE whenever MXCSR isn't 1F80H (SDM 13.11), which no choice of XINUSE prevents; in
  // a standard-format image MXCSR is shown if SSE or AVX is.
  return bv;
}

// What IA32_XFD disables and the image lacks was not saved (SDM 13.14). The image is what the guest
// gets back, so it is gone.
void DropHidden(Vcpu& vcpu, uint64_t bv) {
  for (uint64_t left = vcpu.GuestComponents() & vcpu.cpu.xfd & ~bv; left != 0; left &= left - 1) {
    const auto c = static_cast<Component>(__builtin_ctzll(left));
    if (!vcpu.cpu.IsInitial(c)) vcpu.cpu.Initialise(c);
  }
}

void ExpectLegacy(Vcpu& vcpu, uint64_t bv, std::span<const uint8_t> seen, std::span<uint8_t> out) {
  const Host& host = *vcpu.host;
  if ((bv & Bit(Component::kX87)) != 0) {
    StoreX87(vcpu, seen, out);
    if (!seen.empty()) TakeRawIfDifferent(vcpu, Component::kX87, kX87Ranges, seen, out);
  } else {
    WriteAt<uint16_t>(out, 0, 0x37f);  // copy_feature from init_fpstate
  }
  WriteAt(out, kMxcsrAt, vcpu.cpu.regs.mxcsr);
  const auto mask = ReadAt<uint32_t>(seen, kMxcsrMaskAt);
  const bool possible =
      mask == 0 || (vcpu.raw.mask && mask == ReadAt<uint32_t>(vcpu.raw.bytes, kMxcsrMaskAt));
  WriteAt(out, kMxcsrMaskAt, possible && !seen.empty() ? mask : host.mxcsr_mask);
  if ((bv & Bit(Component::kSse)) != 0) vcpu.cpu.StoreXmm(out);
  if (!seen.empty()) {
    std::memcpy(out.data() + kSwBytesAt, seen.data() + kSwBytesAt, kSwBytesUsed);
  }
}

}  // namespace

void ExpectXsave(Vcpu& vcpu, std::span<const uint8_t> seen, std::span<uint8_t> out) {
  std::memset(out.data(), 0, out.size());
  if (seen.size() != out.size()) seen = {};
  const uint64_t bv = ExpectXstateBv(vcpu, seen);
  if (!seen.empty()) DropHidden(vcpu, bv);
  ExpectLegacy(vcpu, bv, seen, out);
  WriteAt(out, xstate::kHeaderOffset, bv);
  for (uint64_t left = bv & ~xstate::kX87Sse; left != 0; left &= left - 1) {
    const auto c = static_cast<Component>(__builtin_ctzll(left));
    const auto& sub = vcpu.host->xsave.sub[static_cast<unsigned>(c)];
    const auto place = xstate::Slice(out, sub.offset, sub.size);
    if (place.empty()) continue;
    vcpu.cpu.StoreComponent(c, place);
    const Range range{sub.offset, sub.size};
    if (!seen.empty() && c != Component::kPkru) {  // PKRU is kept beside the image
      TakeRawIfDifferent(vcpu, c, {&range, 1}, seen, out);
    }
  }
}

void ExpectFpu(Vcpu& vcpu, std::span<const uint8_t> seen, std::span<uint8_t> out) {
  std::memset(out.data(), 0, out.size());
  std::array<uint8_t, xstate::kLegacySize> legacy{}, as_seen{};
  if (seen.size() == kFpuSize) {
    CopyFpuX87(seen, as_seen);
    CopyFpuXmm(seen, as_seen);
    // Reserved in an image, and no part of struct kvm_fpu.
    if ((vcpu.raw.components & Bit(Component::kX87)) != 0) as_seen[5] = vcpu.raw.bytes[5];
  }
  const std::span<const uint8_t> shown =
      seen.size() == kFpuSize ? std::span<const uint8_t>(as_seen) : std::span<const uint8_t>{};
  StoreX87(vcpu, shown, legacy);
  if (!shown.empty()) TakeRawIfDifferent(vcpu, Component::kX87, kX87Ranges, shown, legacy);
  legacy[5] = 0;
  vcpu.cpu.StoreXmm(legacy);
  std::memcpy(out.data(), legacy.data() + 32, 128);
  std::memcpy(out.data() + 128, legacy.data(), 24);
  std::memcpy(out.data() + 152, legacy.data() + kXmmAt, kXmmSize);
  WriteAt(out, 408, vcpu.cpu.regs.mxcsr);
}

void ExpectXcrs(const Vcpu& vcpu, std::span<uint8_t> out) {
  std::memset(out.data(), 0, out.size());
  WriteAt(out, 0, uint32_t{1});
  WriteAt(out, 16, vcpu.cpu.xcr0);
}

}  // namespace fpswap::kvm
