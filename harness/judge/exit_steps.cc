// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest steps that leave the guest, or would: what the VMM must see of them, and what it answers
// (plan/vmm.h).
#include <cstring>

#include "harness/judge/context.h"
#include "harness/plan/vmm.h"

namespace fpswap::judge {
namespace {

using program::Op;

constexpr char kExitRule[] = "Documentation/virt/kvm/api.rst: KVM_RUN";
constexpr char kPagingRule[] = "SDM vol. 3, 4.7: page faults";
constexpr char kCpuidRule[] = "SDM vol. 2: CPUID leaf 0DH";

uint64_t OwnAddress(const Context& c, uint64_t base) { return base + plan::kMmioStride * c.number; }

// What the VMM gives to reads of this step.
void FillAnswer(const Context& c, std::span<uint8_t> out) {
  program::FillPattern(static_cast<uint16_t>(c.number + 2), out);
}

PageFault MmioFault(const Context& c, bool write) {
  // No page is mapped there: KVM walks the guest's tables itself, by the guest's own CR4.
  if (c.host_pke) return {};
  return PkruFault(c, !write, write, OwnAddress(c, plan::kMmioBase),
                   OwnAddress(c, plan::kMmioBase) + plan::kMmioStride);
}

Outcome Mmio(Context& c, bool write) {
  Outcome o;
  o.rule = kExitRule;
  o.page = MmioFault(c, write);
  if (o.page.errors != 0) {
    o.rule = "SDM vol. 3, 4.6.2: protection keys";
    return o;
  }
  const auto size = static_cast<uint8_t>(1u << (c.step.arg[0] & 3));
  o.exits = 1;
  o.exit[0] = {kExitMmio, OwnAddress(c, plan::kMmioBase), write ? c.step.arg[1] : 0, size, write};
  if (!write) {
    // The register was zero before, and the load writes its low `size` bytes.
    std::memset(c.scratch.data(), 0, 8);
    FillAnswer(c, std::span(c.scratch).first(size));
    o.journal = std::span(c.scratch).first(8);
  }
  return o;
}

// MOVDQU of an XMM register: KVM splits 16 bytes into two accesses of 8 (emulator_read_write).
Outcome MmioVector(Context& c) {
  const bool write = c.step.arg[0] != 0;
  const auto reg = static_cast<unsigned>(c.step.arg[1]) % 16;
  Outcome o;
  o.rule = kExitRule;
  o.fault = c.cpu.CheckSse();
  if (o.fault) return o;
  o.page = MmioFault(c, write);
  if (o.page.errors != 0) return o;
  o.exits = 2;
  for (unsigned i = 0; i < 2; ++i) {
    ExpectedExit& exit = o.exit[i];
    exit = {kExitMmio, OwnAddress(c, plan::kMmioBase) + 8 * i, 0, 8, write};
    if (write) std::memcpy(&exit.data, c.cpu.regs.zmm[reg].data() + 8 * i, 8);
  }
  if (!write) {
    std::array<uint8_t, 16> answer;
    FillAnswer(c, answer);
    o.fault = c.cpu.WriteVector(cpu::Cpu::Encoding::kSse, reg, answer);
  }
  return o;
}

// CPUID.(0DH,0): EBX is the size for the XCR0 in force, which KVM keeps up to date
// (kvm_update_cpuid_runtime).
Outcome Cpuid(Context& c) {
  const auto& x = c.cpu.features->xsave;
  const std::array<uint32_t, 4> registers = {static_cast<uint32_t>(x.xcr0),
                                             xstate::StandardSize(x, c.cpu.xcr0), x.max_size,
                                             static_cast<uint32_t>(x.xcr0 >> 32)};
  std::memcpy(c.scratch.data(), registers.data(), 16);
  Outcome o;
  o.journal = std::span(c.scratch).first(16);
  o.place = Place::kCpuid;
  o.rule = kCpuidRule;
  return o;
}

Outcome VmmMsr(Context& c) {
  const bool write = c.step.arg[0] != 0;
  Outcome o;
  o.rule = kExitRule;
  o.exits = 1;
  o.exit[0] = {write ? kExitWrmsr : kExitRdmsr, plan::kExitMsrIndex, write ? c.step.arg[1] : 0, 8,
               write};
  if (write) {
    std::memcpy(c.scratch.data(), &c.step.arg[1], 8);  // EDX:EAX still
  } else {
    FillAnswer(c, std::span(c.scratch).first(8));
  }
  o.journal = std::span(c.scratch).first(8);
  return o;
}

Outcome AbsentPage(Context& c) {
  Outcome o;
  o.rule = kPagingRule;
  o.page.error[0] = (c.step.arg[0] != 0 ? 2u : 0u) | (c.cpu.cpl == 3 ? 4u : 0u);
  o.page.errors = 1;
  o.page.begin = OwnAddress(c, plan::kAbsentBase);
  o.page.end = o.page.begin + 1;
  return o;
}

}  // namespace

Outcome StepExit(Context& c) {
  Outcome o;
  o.rule = kExitRule;
  switch (c.step.op) {
    case Op::kExitMmioRead:
      return Mmio(c, false);
    case Op::kExitMmioWrite:
      return Mmio(c, true);
    case Op::kExitMmioVector:
      return MmioVector(c);
    case Op::kExitCpuid:
      return Cpuid(c);
    case Op::kExitMsr:
      return VmmMsr(c);
    case Op::kExitPageFault:
      return AbsentPage(c);
    case Op::kExitHlt:
      o.exits = 1;
      o.exit[0] = {kExitHlt, 0, 0, 0, false};
      return o;
    default:  // kExitOut
      o.exits = 1;
      o.exit[0] = {kExitIo, plan::kExitPort, c.number, 4, true};
      return o;
  }
}

}  // namespace fpswap::judge
