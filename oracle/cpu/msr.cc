// SPDX-License-Identifier: GPL-2.0-or-later
//
// IA32_XSS (SDM vol. 1, 13.3), IA32_XFD and IA32_XFD_ERR (13.14), and the MSRs of CET (vol. 1,
// 17.2; vol. 4).
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

// Null for an MSR that the processor doesn't have, or that is CET's.
const MsrRow* Find(const Features& features, uint32_t index) {
  for (const MsrRow& row : kMsrs) {
    if (row.index == index && features.xsave.*row.enumerated) return &row;
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

// IA32_U_CET and IA32_S_CET hold flags, the others shadow stack pointers.
bool IsCetFlags(uint32_t msr) { return msr == Cpu::kMsrUCet || msr == Cpu::kMsrSCet; }
bool IsSsp(uint32_t msr) { return msr >= Cpu::kMsrPl0Ssp && msr <= Cpu::kMsrPl3Ssp; }

// WRMSR and XRSTORS ask for the widest address the processor can have, not for the one in use.
bool IsCanonical(const Features& features, uint64_t address) {
  const int unused = features.la57 ? 7 : 16;
  return static_cast<uint64_t>(static_cast<int64_t>(address << unused) >> unused) == address;
}

Component ComponentOf(uint32_t msr) {
  return msr == Cpu::kMsrUCet || msr == Cpu::kMsrPl3Ssp ? Component::kCetU : Component::kCetS;
}

}  // namespace

bool Cpu::HasCetMsr(const Features& f, uint32_t msr) {
  return (IsCetFlags(msr) && (f.cet_ss || f.cet_ibt)) || (IsSsp(msr) && f.cet_ss);
}

bool Cpu::CetMsrValid(const Features& f, uint32_t msr, uint64_t value) {
  if (!IsCanonical(f, value)) return false;
  if (IsSsp(msr)) return value % 4 == 0;
  constexpr uint64_t kReserved = 0x3c0, kShadowStack = 3, kSuppressAndTracker = 0xc00;
  uint64_t reserved = kReserved;
  if (!f.cet_ss) reserved |= kShadowStack;
  if (!f.cet_ibt) reserved |= ~kShadowStack;
  return (value & reserved) == 0 && (value & kSuppressAndTracker) != kSuppressAndTracker;
}

uint64_t* Cpu::CetRegister(uint32_t msr) {
  switch (msr) {
    case kMsrUCet:
      return &regs.cet_u[0];
    case kMsrPl3Ssp:
      return &regs.cet_u[1];
    case kMsrSCet:
      return &s_cet;
    case kMsrPl0Ssp:
    case kMsrPl1Ssp:
    case kMsrPl2Ssp:
      return &regs.cet_s[msr - kMsrPl0Ssp];
    default:
      return nullptr;
  }
}

Result Cpu::Rdmsr(uint32_t msr, uint64_t* value) {
  if (cpl != 0) return Fault{kGP, 0};
  if (const MsrRow* row = Find(*features, msr)) {
    *value = this->*row->value;
  } else if (HasCetMsr(*features, msr)) {
    *value = *CetRegister(msr);
  } else {
    return Fault{kGP, 0};
  }
  return std::nullopt;
}

Result Cpu::Wrmsr(uint32_t msr, uint64_t value) {
  if (cpl != 0) return Fault{kGP, 0};
  if (const MsrRow* row = Find(*features, msr)) {
    if ((value & ~Writable(features->xsave, msr)) != 0) return Fault{kGP, 0};
    this->*row->value = value;
  } else if (HasCetMsr(*features, msr) && CetMsrValid(*features, msr, value)) {
    *CetRegister(msr) = value;
    if (msr != kMsrSCet) Touch(ComponentOf(msr));
  } else {
    return Fault{kGP, 0};
  }
  return std::nullopt;
}

}  // namespace fpswap::cpu
