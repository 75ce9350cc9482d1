// SPDX-License-Identifier: GPL-2.0-or-later
//
// IA32_XSS (SDM vol. 1, 13.3), IA32_XFD and IA32_XFD_ERR (13.14).
#include "oracle/cpu/cpu.h"

namespace fpswap::cpu {
namespace {

struct MsrRow {
  uint32_t index;
  bool xstate::XsaveCpuid::* enumerated;
  uint64_t Cpu::* value;
};
constexpr MsrRow kMsrs[] = {
    {Cpu::kMsrXss, &xstate::XsaveCpuid::xsaves, &Cpu::xss},
    {Cpu::kMsrXfd, &xstate::XsaveCpuid::xfd, &Cpu::xfd},
    {Cpu::kMsrXfdErr, &xstate::XsaveCpuid::xfd, &Cpu::xfd_err},
};

// #GP (as null) for an MSR that the processor doesn't have, or outside CPL 0.
const MsrRow* Find(const Cpu& cpu, uint32_t index) {
  if (cpu.cpl != 0) return nullptr;
  for (const MsrRow& row : kMsrs) {
    if (row.index == index && cpu.features->xsave.*row.enumerated) return &row;
  }
  return nullptr;
}

// The bits that may be set: CPUID.(0DH,1):EDX:ECX, and CPUID.(0DH,i):ECX[2] for user components.
uint64_t Writable(const xstate::XsaveCpuid& cpuid, uint32_t index) {
  if (index == Cpu::kMsrXss) return cpuid.xss;
  uint64_t mask = 0;
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    if (cpuid.sub[i].xfd) mask |= uint64_t{1} << i;
  }
  return mask & cpuid.xcr0;
}

}  // namespace

Result Cpu::Rdmsr(uint32_t msr, uint64_t* value) {
  const MsrRow* row = Find(*this, msr);
  if (row == nullptr) return Fault{kGP, 0};
  *value = this->*row->value;
  return std::nullopt;
}

Result Cpu::Wrmsr(uint32_t msr, uint64_t value) {
  const MsrRow* row = Find(*this, msr);
  if (row == nullptr || (value & ~Writable(features->xsave, msr)) != 0) return Fault{kGP, 0};
  this->*row->value = value;
  return std::nullopt;
}

}  // namespace fpswap::cpu
