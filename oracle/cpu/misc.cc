// SPDX-License-Identifier: GPL-2.0-or-later
//
// PKRU (SDM vol. 3, 4.6.2; vol. 2, RDPKRU and WRPKRU) and CR0.TS.
#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {

// They look at CR4.PKE, not at XCR0[9] and CR0.TS.
Result Cpu::Rdpkru(uint32_t ecx, uint32_t* value) {
  if (!cr4_pke) return Fault{kUD, 0};
  if (ecx != 0) return Fault{kGP, 0};
  *value = regs.pkru;
  return std::nullopt;
}

Result Cpu::Wrpkru(uint32_t ecx, uint32_t edx, uint32_t value) {
  if (!cr4_pke) return Fault{kUD, 0};
  if (ecx != 0 || edx != 0) return Fault{kGP, 0};
  Touch(Component::kPkru);
  regs.pkru = value;
  return std::nullopt;
}

Result Cpu::MovCr0Ts(bool ts) {
  if (cpl != 0) return Fault{kGP, 0};
  cr0_ts = ts;
  return std::nullopt;
}

// AD is bit 0 and WD bit 1 of key 0.
bool Cpu::PkruDenies(bool write) const {
  return cr4_pke && ((regs.pkru & 1) != 0 || (write && (regs.pkru & 2) != 0));
}

}  // namespace fpswap::cpu
