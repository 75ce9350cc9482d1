// SPDX-License-Identifier: GPL-2.0-or-later
//
// The registers seen as components: one row a component says how it is stored, loaded, initialised
// and tested. x87 is in x87_state.cc.
#include <algorithm>
#include <cstring>

#include "oracle/cpu/cpu.h"
#include "oracle/xstate/image.h"

namespace fpswap::cpu {
namespace {

using xstate::Bit;
using Bytes = std::span<uint8_t>;
using ConstBytes = std::span<const uint8_t>;

// What the row of a component does. `Store` fills `out`, whose size is the component's as CPUID
// says: what lies past the registers is zero, what doesn't fit is left out.
struct Access {
  bool (*is_zero)(const Registers&);
  void (*clear)(Registers&);
  void (*store)(const Registers&, Bytes out);
  void (*load)(Registers&, ConstBytes in);
};

// Registers that lie together in `Registers` as in the XSAVE area.
template <auto kMember>
struct Plain {
  static constexpr size_t kSize = sizeof(Registers{}.*kMember);
  static bool IsZero(const Registers& r) {
    static constexpr std::remove_cvref_t<decltype(Registers{}.*kMember)> kZero{};
    return std::memcmp(&(r.*kMember), &kZero, kSize) == 0;
  }
  static void Clear(Registers& r) { r.*kMember = {}; }
  static void Store(const Registers& r, Bytes out) {
    const size_t n = std::min(out.size(), kSize);
    std::memcpy(out.data(), &(r.*kMember), n);
    std::memset(out.data() + n, 0, out.size() - n);
  }
  static void Load(Registers& r, ConstBytes in) {
    r.*kMember = {};
    std::memcpy(&(r.*kMember), in.data(), std::min(in.size(), kSize));
  }
  static constexpr Access kAccess{IsZero, Clear, Store, Load};
};

// Bytes [kBegin, kBegin + kBytes) of 16 vector registers from kFirst on (SDM 13.5.2, 3, 6).
template <unsigned kFirst, unsigned kBegin, unsigned kBytes>
struct Vectors {
  static bool IsZero(const Registers& r) {
    for (unsigned i = 0; i < 16; ++i) {
      uint64_t words[kBytes / 8];
      std::memcpy(words, r.zmm[kFirst + i].data() + kBegin, kBytes);
      uint64_t any = 0;
      for (uint64_t w : words) any |= w;
      if (any != 0) return false;
    }
    return true;
  }
  static void Clear(Registers& r) {
    for (unsigned i = 0; i < 16; ++i) std::memset(r.zmm[kFirst + i].data() + kBegin, 0, kBytes);
  }
  static void Store(const Registers& r, Bytes out) {
    for (unsigned i = 0; i < 16; ++i) {
      if ((i + 1) * kBytes > out.size()) break;
      std::memcpy(out.data() + i * kBytes, r.zmm[kFirst + i].data() + kBegin, kBytes);
    }
    if (out.size() > 16 * kBytes)
      std::memset(out.data() + 16 * kBytes, 0, out.size() - 16 * kBytes);
  }
  static void Load(Registers& r, ConstBytes in) {
    for (unsigned i = 0; i < 16; ++i) {
      if ((i + 1) * kBytes > in.size()) break;
      std::memcpy(r.zmm[kFirst + i].data() + kBegin, in.data() + i * kBytes, kBytes);
    }
  }
  static constexpr Access kAccess{IsZero, Clear, Store, Load};
};

using Xmm = Vectors<0, 0, 16>;

// SDM 13.5.5.2: BNDCFGU, BNDSTATUS. Loading drops the reserved bits 11:2 of BNDCFGU and makes its
// base canonical; it doesn't fault.
struct Bndcsr {
  static bool IsZero(const Registers& r) { return (r.bndcfgu | r.bndstatus) == 0; }
  static void Clear(Registers& r) { r.bndcfgu = r.bndstatus = 0; }
  static void Store(const Registers& r, Bytes out) {
    std::memset(out.data(), 0, out.size());
    xstate::WriteAt(out, 0, r.bndcfgu);
    xstate::WriteAt(out, 8, r.bndstatus);
  }
  static void Load(Registers& r, ConstBytes in) {
    const uint64_t raw = xstate::ReadAt<uint64_t>(in, 0) & ~uint64_t{0xffc};
    r.bndcfgu = static_cast<uint64_t>(static_cast<int64_t>(raw << 16) >> 16);
    r.bndstatus = xstate::ReadAt<uint64_t>(in, 8);
  }
  static constexpr Access kAccess{IsZero, Clear, Store, Load};
};

// SDM 13.5.7: bytes 7:4 are not used. Sapphire Rapids leaves them as they are (measured).
struct Pkru : Plain<&Registers::pkru> {
  static void Store(const Registers& r, Bytes out) { xstate::WriteAt(out, 0, r.pkru); }
  static constexpr Access kAccess{IsZero, Clear, Store, Load};
};

// SDM 13.5.14: an illegal TILECFG is not a fault: XRSTOR then initialises it, and leaves TILEDATA.
struct Tilecfg : Plain<&Registers::tilecfg> {
  static void Load(Registers& r, ConstBytes in) {
    Plain::Load(r, in);
    if (!Cpu::TilecfgIsLegal(r.tilecfg)) r.tilecfg = {};
  }
  static constexpr Access kAccess{IsZero, Clear, Store, Load};
};

// SDM 13.5.14: always all 8 KiB, whatever TILECFG says.
struct Tiles {
  static bool IsZero(const Registers& r) { return r.tiledata.IsZero(); }
  static void Clear(Registers& r) { r.tiledata.Clear(); }
  static void Store(const Registers& r, Bytes out) {
    const ConstBytes bytes = r.tiledata.Bytes();
    const size_t n = std::min(out.size(), bytes.size());
    std::memcpy(out.data(), bytes.data(), n);
    std::memset(out.data() + n, 0, out.size() - n);
  }
  static void Load(Registers& r, ConstBytes in) { r.tiledata.Load(in); }
  static constexpr Access kAccess{IsZero, Clear, Store, Load};
};

// By bit number; null where no registers are kept (see ComponentRow::modelled), or x87.
constexpr std::array<const Access*, xstate::kComponentCount> kAccess = [] {
  std::array<const Access*, xstate::kComponentCount> t{};
  const auto row = [&t](Component c) -> const Access*& { return t[static_cast<unsigned>(c)]; };
  row(Component::kSse) = &Xmm::kAccess;
  row(Component::kAvx) = &Vectors<0, 16, 16>::kAccess;
  row(Component::kBndregs) = &Plain<&Registers::bnd>::kAccess;
  row(Component::kBndcsr) = &Bndcsr::kAccess;
  row(Component::kOpmask) = &Plain<&Registers::k>::kAccess;
  row(Component::kZmmHi256) = &Vectors<0, 32, 32>::kAccess;
  row(Component::kHi16Zmm) = &Vectors<16, 0, 64>::kAccess;
  row(Component::kPkru) = &Pkru::kAccess;
  row(Component::kCetU) = &Plain<&Registers::cet_u>::kAccess;
  row(Component::kCetS) = &Plain<&Registers::cet_s>::kAccess;
  row(Component::kTilecfg) = &Tilecfg::kAccess;
  row(Component::kTiledata) = &Tiles::kAccess;
  return t;
}();

const Access* AccessOf(Component c) {
  const auto i = static_cast<unsigned>(c);
  return i < kAccess.size() ? kAccess[i] : nullptr;
}

bool X87IsInitial(const X87& x) {
  static constexpr X87 kInitial;
  // FCS and FDS may have become 0 in a swap (Choices::ResolvePointers), so they decide nothing.
  const bool pointers = !x.pointers_known || (x.fop == 0 && x.fip == 0 && x.fdp == 0);
  return pointers && x.fcw == kInitial.fcw && x.fsw == 0 && x.ftw == 0 &&
         std::memcmp(&x.st, &kInitial.st, sizeof(x.st)) == 0;
}

constexpr std::array<uint8_t, Tiledata::kSize> kZeroTiles{};

}  // namespace

Tiledata& Tiledata::operator=(const Tiledata& other) {
  if (other.used_ && this != &other) bytes_ = other.bytes_;
  used_ = other.used_;
  return *this;
}

ConstBytes Tiledata::Bytes() const { return used_ ? bytes_ : kZeroTiles; }

void Tiledata::Load(ConstBytes in) {
  const size_t n = std::min(in.size(), kSize);
  std::memcpy(bytes_.data(), in.data(), n);
  std::memset(bytes_.data() + n, 0, kSize - n);
  used_ = true;
}

std::span<uint8_t, Tiledata::kSize> Tiledata::Write() {
  if (!used_) bytes_.fill(0);
  used_ = true;
  return bytes_;
}

bool Tiledata::IsZero() const {
  return !used_ || std::memcmp(bytes_.data(), kZeroTiles.data(), kSize) == 0;
}

bool Cpu::IsInitial(Component c) const {
  if (c == Component::kX87) return X87IsInitial(regs.x87);
  const Access* access = AccessOf(c);
  return access == nullptr || access->is_zero(regs);
}

void Cpu::Initialise(Component c) {
  Touch(c);
  if (c == Component::kX87) {
    regs.x87 = X87{};
  } else if (const Access* access = AccessOf(c)) {
    access->clear(regs);
  }
}

void Cpu::StoreComponent(Component c, Bytes out) const {
  const Access* access = AccessOf(c);
  if (access != nullptr && !out.empty()) access->store(regs, out);
}

void Cpu::LoadComponent(Component c, ConstBytes in) {
  const Access* access = AccessOf(c);
  if (access == nullptr || in.empty()) return;
  Touch(c);
  access->load(regs, in);
}

void Cpu::StoreXmm(Bytes legacy) const {
  const Bytes out = xstate::Slice(legacy, 160, 256);
  if (!out.empty()) Xmm::Store(regs, out);
}

void Cpu::LoadXmm(ConstBytes legacy) {
  Touch(Component::kSse);
  Xmm::Load(regs, xstate::Slice(legacy, 160, 256));
}

void Cpu::SetMxcsr(uint32_t value) {
  regs.mxcsr = value;
  xrstor_info.unmodified &= ~kMxcsrUnmodified;
}

// SDM 13.6. IA32_XFD hides a component from XSAVE*, which then act as if XINUSE were 0 (13.14).
uint64_t Cpu::Xinuse(uint64_t mask, bool for_save, Choices& choices) const {
  uint64_t xinuse = 0;
  mask &= (uint64_t{1} << xstate::kComponentCount) - 1;
  if (for_save) mask &= ~(xfd & xcr0);
  for (; mask != 0; mask &= mask - 1) {
    const auto c = Component(std::countr_zero(mask));
    if (!IsInitial(c) || choices.InitialIsInUse(c)) xinuse |= Bit(c);
  }
  return xinuse;
}

}  // namespace fpswap::cpu
