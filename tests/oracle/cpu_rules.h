// SPDX-License-Identifier: GPL-2.0-or-later
//
// A CPU with everything, for rules that the CPU at hand may not show.
#pragma once

#include <vector>

#include "oracle/cpu/cpu.h"
#include "oracle/xstate/image.h"

namespace fpswap::cpu::testing {

inline constexpr uint64_t kAllUser = 0x602ff, kAllSupervisor = 0x1800;
inline constexpr uint64_t kArea = 0x10040000;  // an address that is aligned to 64

inline Features Everything() {
  Features f;
  f.xsave = xstate::XsaveCpuid::Typical(kAllUser, kAllSupervisor);
  f.fcs_fds_zero = true;
  f.avx = f.avx2 = f.avx512f = f.avx512bw = f.avx512dq = f.avx512vl = true;
  f.mpx = f.pku = f.amx_tile = f.amx_int8 = f.cet_ss = f.cet_ibt = true;
  return f;
}

// At CPL 0, with all of XCR0 and IA32_XSS enabled.
inline Cpu Supervisor(const Features& features) {
  Cpu cpu(features);
  cpu.cpl = 0;
  cpu.xcr0 = features.xsave.xcr0;
  cpu.xss = features.xsave.xss;
  cpu.cr4_pke = true;
  return cpu;
}

// Gives the same answer to every question, and counts them.
class FixedChoices : public Choices {
 public:
  explicit FixedChoices(bool in_use = false, bool omit = false) : in_use_(in_use), omit_(omit) {}
  bool InitialIsInUse(Component) override { return in_use_; }
  bool OmitUnmodified(Component c) override {
    omittable |= xstate::Bit(c);
    return omit_;
  }
  void ResolvePointers(X87& x87) override {
    ++resolved;
    if (answer != nullptr) x87 = *answer;
  }

  uint64_t omittable = 0;  // components that were asked about
  int resolved = 0;
  const X87* answer = nullptr;

 private:
  bool in_use_, omit_;
};

// An area of a byte that no state has.
inline std::vector<uint8_t> Area(uint8_t fill = 0xcc) {
  return std::vector<uint8_t>(xstate::kMaxAreaSize, fill);
}

// A valid image with nothing in it: standard, or compacted with this XCOMP_BV.
inline std::vector<uint8_t> EmptyImage(uint64_t xcomp_bv = 0) {
  std::vector<uint8_t> area = Area(0);
  const xstate::MutableImage image(area);
  image.SetInitial();
  if (xcomp_bv != 0) image.set_xcomp_bv(xcomp_bv | xstate::kXcompBvCompacted);
  return area;
}

}  // namespace fpswap::cpu::testing
