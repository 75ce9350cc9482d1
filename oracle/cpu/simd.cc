// SPDX-License-Identifier: GPL-2.0-or-later
//
// SSE, AVX, AVX-512 and opmask instructions, as far as they load, store and clear registers.
// When each is #UD or #NM: SDM vol. 2, 2.4 (SSE and VEX exception classes), 2.6 (EVEX, opmask);
// vol. 1, 13.3 for what XCR0 has to hold.
#include <algorithm>
#include <cstring>

#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {
namespace {

constexpr uint64_t kAvxState = Component::kSse | Component::kAvx;
constexpr uint64_t kAvx512State = kAvxState | xstate::kAvx512;

struct EncodingRow {
  bool Features::* feature;  // null: part of x86-64
  bool Features::* also;     // null: nothing more
  uint64_t xcr0;             // bits that XCR0 must have (with CR4.OSXSAVE), 0: not looked at
  bool osfxsr;               // CR4.OSFXSR must be set
  uint8_t registers;
  bool clears_rest;  // a write clears the register above its bytes
};

// By Cpu::Encoding.
constexpr EncodingRow kEncodings[] = {
    {nullptr, nullptr, 0, false, 8, false},                                    // kMmx
    {nullptr, nullptr, 0, true, 16, false},                                    // kSse
    {&Features::avx, nullptr, kAvxState, false, 16, true},                     // kVex128
    {&Features::avx, nullptr, kAvxState, false, 16, true},                     // kVex256
    {&Features::avx512f, &Features::avx512vl, kAvx512State, false, 32, true},  // kEvex128
    {&Features::avx512f, &Features::avx512vl, kAvx512State, false, 32, true},  // kEvex256
    {&Features::avx512f, nullptr, kAvx512State, false, 32, true},              // kEvex512
};

const EncodingRow& RowOf(Cpu::Encoding e) { return kEncodings[static_cast<unsigned>(e)]; }

bool Has(const Features& f, bool Features::* feature) { return feature == nullptr || f.*feature; }

bool XcrAllows(const Cpu& cpu, uint64_t xcr0) {
  return xcr0 == 0 || (cpu.cr4_osxsave && (cpu.xcr0 & xcr0) == xcr0);
}

}  // namespace

Result Cpu::CheckVector(Encoding e) {
  if (e == Encoding::kMmx) return CheckX87(/*waits_for_exceptions=*/true);
  const EncodingRow& row = RowOf(e);
  if (!Has(*features, row.feature) || !Has(*features, row.also)) return Fault{kUD, 0};
  if (row.osfxsr && !cr4_osfxsr) return Fault{kUD, 0};
  if (!XcrAllows(*this, row.xcr0)) return Fault{kUD, 0};
  if (cr0_ts) return Fault{kNM, 0};
  return NeedXfd(row.xcr0);
}

Result Cpu::WriteVector(Encoding e, unsigned reg, std::span<const uint8_t> value) {
  if (Result fault = CheckVector(e)) return fault;
  const EncodingRow& row = RowOf(e);
  if (reg >= row.registers) return Fault{kUD, 0};  // no such encoding
  auto& zmm = regs.zmm[reg];
  const size_t n = std::min(value.size(), zmm.size());
  std::memcpy(zmm.data(), value.data(), n);
  // An EVEX write has all of AVX-512 enabled.
  const bool clears_zmm = row.clears_rest && VexClearsZmmHi256();
  const size_t end = clears_zmm ? zmm.size() : size_t{32};
  if (row.clears_rest && n < end) std::memset(zmm.data() + n, 0, end - n);
  if (reg >= 16) {
    Touch(Component::kHi16Zmm);
    return std::nullopt;
  }
  Touch(Component::kSse);
  if (n > 16 || row.clears_rest) Touch(Component::kAvx);
  if (n > 32 || clears_zmm) Touch(Component::kZmmHi256);
  return std::nullopt;
}

// Clears bits MAXVL-1:128 of registers 0-15; 16-31 keep theirs (SDM vol. 2, VZEROUPPER).
Result Cpu::Vzeroupper() {
  if (Result fault = CheckVector(Encoding::kVex256)) return fault;
  Initialise(Component::kAvx);
  if (VexClearsZmmHi256()) Initialise(Component::kZmmHi256);
  return std::nullopt;
}

Result Cpu::Vzeroall() {
  if (Result fault = CheckVector(Encoding::kVex256)) return fault;
  Initialise(Component::kSse);
  Initialise(Component::kAvx);
  if (VexClearsZmmHi256()) Initialise(Component::kZmmHi256);
  return std::nullopt;
}

// VEX encoded, and yet all of AVX-512's state must be enabled. The steps are the 64-bit forms,
// which are AVX512BW.
Result Cpu::CheckOpmask() {
  if (!features->avx512f || !features->avx512bw) return Fault{kUD, 0};
  if (!XcrAllows(*this, kAvx512State)) return Fault{kUD, 0};
  if (cr0_ts) return Fault{kNM, 0};
  return NeedXfd(kAvx512State);
}

Result Cpu::WriteOpmask(unsigned k, uint64_t value) {
  if (Result fault = CheckOpmask()) return fault;
  Touch(Component::kOpmask);
  regs.k[k & 7] = value;
  return std::nullopt;
}

// SDM vol. 2, LDMXCSR: #UD, #NM, then #GP for reserved bits.
Result Cpu::Ldmxcsr(uint32_t value) {
  if (Result fault = CheckSse()) return fault;
  if (!MxcsrValid(value)) return Fault{kGP, 0};
  SetMxcsr(value);
  return std::nullopt;
}

}  // namespace fpswap::cpu
