// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest's memory: plan.h's map, and in its system pages what makes it a long-mode machine: page
// tables, GDT, IDT with a stub for each vector, and for each vCPU a TSS and a stack.
//
// Every vector goes to the vCPU's stack through IST 1, from any CPL, so the frame of a fault always
// lies at the same place. A stub says its vector by OUT; nothing returns by IRET (kvm_pvm's
// emulated CPL 0 can't): the VMM sets the registers anew.
//
// Not thread safe.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <optional>
#include <span>

#include "harness/plan/plan.h"
#include "harness/plan/wire.h"
#include "kvm-runner/posix.h"

namespace fpswap::kvm {

// What an exception pushed.
struct ExceptionFrame {
  uint64_t rip = 0;
  uint32_t error_code = 0;
};

class GuestMemory {
 public:
  GuestMemory();
  bool ok() const { return mapping_.ok(); }

  // REQUIRES: the range lies within plan.h's guest memory.
  uint8_t* At(uint64_t guest_physical) const {
    return mapping_.data() + (guest_physical - plan::kGuestBase);
  }
  uint8_t* host() const { return mapping_.data(); }

  // Puts `plan` in place and clears what it may read before it has written it. `vcpu`: the one that
  // has this memory to itself; none: all share it.
  void Load(const wire::PlanView& plan, std::optional<unsigned> vcpu);
  std::span<const uint8_t> Journal(const wire::PlanCode& row) const {
    return {At(plan::kJournalBase + row.journal), row.journal_bytes};
  }
  ExceptionFrame Frame(unsigned vcpu, uint8_t vector) const;

 private:
  void BuildPageTables();
  void BuildDescriptors();

  Mapping mapping_;
};

// Makes `sregs` (as a fresh vCPU has them) those of vCPU number `vcpu` in long mode at CPL 3, with
// `cr4` beside PAE.
void MakeLongMode(kvm_sregs& sregs, unsigned vcpu, uint64_t cr4);
// CS and SS of `cpl`, which is 0 or 3.
void SetCpl(kvm_sregs& sregs, unsigned cpl);
// RIP, RSP and RFLAGS to begin at `rip`; every other register 0.
kvm_regs RegsAt(uint64_t rip, unsigned vcpu, unsigned cpl);

inline constexpr uint64_t kCr4Osfxsr = 1 << 9, kCr4Osxmmexcpt = 1 << 10, kCr4Osxsave = 1 << 18,
                          kCr4Pke = 1 << 22;

}  // namespace fpswap::kvm
