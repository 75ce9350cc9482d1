// SPDX-License-Identifier: GPL-2.0-or-later
//
// A plan: a program resolved for one platform. Nothing is left to decide or to parse: machine code,
// literals, and a list of actions. Its wire form is what agents (kvm-runner, native-runner,
// unicorn-runner) take.
//
// The guest's memory, the same addresses in a KVM guest (guest-virtual = guest-physical) and in the
// native child, so that the same machine code runs in both:
//
//   kCodeBase     code of the plan, read and execute
//   kLiteralBase  constants the code loads, read only
//   kSlotBase     kSlotCount areas of kSlotSize for XSAVE images and the like, zero at the start
//   kJournalBase  the journal: what steps wrote, one place for each step
//   kMmioBase     nothing there (KVM_EXIT_MMIO)
//   kAbsentBase   not mapped by the guest's page tables (#PF)
//
// The journal. After its instruction each step that produces bytes copies them with integer
// instructions to a place of its own in the journal. So what a save instruction chose (XSTATE_BV,
// what it left out) is observed exactly, without an exit and without touching a vector register.
// A step whose row says Journal::kArea journals the first `area_size` bytes of its slot, counted
// from the slot's base whatever `at` is; FXSAVE (Journal::kBytes, 512) the 512 bytes at slot + at.
//
// Each guest step begins at its own code offset and relies on no general register of another step,
// so an agent goes on after a fault by entering at the next step.
//
// How code leaves the guest: OUT to a port below with EAX = step number (kEndPort: the run's last
// step). The native and unicorn targets have no exits: there a run ends with a jump to kReturnPad,
// which the agent maps. MMIO goes to kMmioBase, accesses to an absent page to kAbsentBase, each +
// 16 * step number. Every run is entered with RFLAGS.DF and RFLAGS.AC clear.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/program/program.h"
#include "harness/trace/platform.h"

namespace fpswap::plan {

inline constexpr uint64_t kGuestBase = 0x10000000;
inline constexpr uint64_t kSystemBase = kGuestBase;  // page tables, GDT, IDT, TSS, stubs
inline constexpr uint64_t kSystemSize = 0x10000;
inline constexpr uint64_t kCodeBase = kGuestBase + 0x10000;
inline constexpr uint64_t kCodeSize = 0x10000;
inline constexpr uint64_t kLiteralBase = kGuestBase + 0x20000;
inline constexpr uint64_t kLiteralSize = 0x20000;
inline constexpr uint64_t kSlotBase = kGuestBase + 0x40000;
inline constexpr uint64_t kSlotSize = 0x4000;
inline constexpr uint64_t kJournalBase = kGuestBase + 0x60000;
inline constexpr uint64_t kJournalSize = 0xc0000;
inline constexpr uint64_t kGuestSize = 0x120000;
inline constexpr uint64_t kMmioBase = 0x20000000;  // one page
inline constexpr uint64_t kAbsentBase = 0x30000000;

inline constexpr uint64_t kReturnPad = kSystemBase;  // native, unicorn: where a run ends

inline constexpr uint16_t kEndPort = 0xe0;             // end of a run of guest steps
inline constexpr uint16_t kExitPort = 0xe1;            // Op::kExitOut
inline constexpr uint16_t kFaultPort = 0xe2;           // exception stubs: AL = vector
inline constexpr uint32_t kExitMsrIndex = 0x4b564dff;  // Op::kExitMsr, filtered to user space

// Where a guest step lies.
struct CodeRow {
  uint32_t code = 0;           // offset from kCodeBase of its first byte
  uint32_t instruction = 0;    // offset of the instruction under test
  uint32_t journal = 0;        // offset from kJournalBase
  uint32_t journal_bytes = 0;  // 0: none
};

enum class ActionKind : uint8_t {
  kRun = 1,   // run guest steps [first, last] at `cpl`, to the OUT kEndPort
  kStep = 2,  // do the VMM or host step `first`
};

struct Action {
  ActionKind kind = ActionKind::kRun;
  uint8_t vcpu = 0;
  uint8_t cpl = 3;
  uint16_t first = 0, last = 0;  // step numbers, inclusive
};

inline constexpr uint16_t kSetUp = UINT16_MAX;
struct Trim {
  uint16_t step =
      0;  // number in the program as given; kSetUp: its header lines, which were changed
  std::string reason;
};

// Step numbers in a plan, and in the trace it gives, are those of the effective program.
struct Plan {
  program::Program effective;  // the program less what was trimmed
  std::vector<Trim> trims;
  std::vector<uint8_t> code;
  std::vector<uint8_t> literals;
  std::vector<CodeRow> rows;  // one for each effective step; zeros for VMM and host steps
  std::vector<Action> actions;
  uint64_t xcr0 = 1;       // at the start: effective.xcr0 limited to the guest's
  uint32_t area_size = 0;  // bytes of a slot that a Journal::kArea step journals
  // The vCPU can't be used for another program afterwards, because of what this platform is: see
  // plan.cc. What spoils a vCPU on any platform is the agent's to know (kvm-runner/start.cc).
  bool spoils_vcpu = false;
};

// Resolves `program` for `platform`. Total: what can't run is trimmed with its reason. The
// effective program is what runs, so that resolving it again trims nothing and gives the same
// bytes: `features` is limited to what the guest can be given, `xcr0` to `features`, both to what
// XSETBV would accept, and the `length` of a fill to the slot's or image's end.
Plan MakePlan(const program::Program& program, const trace::Platform& platform);

// Whether a CPU described by `features` has what a step needs.
bool Has(const cpu::Features& features, program::Needs needs);
// Whether the platform's guests can be made to run steps of this kind.
bool CanRun(const program::StepRow& row, const trace::Platform& platform);

// The state every program starts from, on every target: CR0.TS 0; CR4.OSFXSR, OSXMMEXCPT and
// OSXSAVE set, CR4.PKE as the program says where there is PKU; XCR0 as above; IA32_XSS, IA32_XFD,
// IA32_XFD_ERR and the MSRs of CET 0; every component initial (MXCSR 1F80H, PKRU 0); slots zero;
// each image buffer of the VMM an initial image (FCW 37FH, MXCSR 1F80H, all else 0). `native` can't
// choose XCR0, CR4 and MSRs: steps that would change them are trimmed, and XCR0 is the host's.

// Appends the byte form that wire::ReadPlan reads; at most kMaxPlanBytes.
inline constexpr size_t kMaxPlanBytes = 1 << 20;
void AppendPlan(const Plan& plan, std::vector<uint8_t>& out);

}  // namespace fpswap::plan
