// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the function of a step is given, and what it answers. A function computes, on one world,
// what the oracle allows for the step; walking, comparing and telling are others' work.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "harness/judge/mismatch.h"
#include "harness/judge/step_records.h"
#include "harness/judge/world.h"

namespace fpswap::judge {

inline constexpr uint32_t kPfPk = 0x20;  // of a page fault's error code: protection keys

// Numbers from <linux/kvm.h>, which a judge on another system does not have.
inline constexpr uint32_t kExitIo = 2, kExitHlt = 5, kExitMmio = 6, kExitRdmsr = 29,
                          kExitWrmsr = 30;

struct ExpectedExit {
  uint32_t reason = 0;
  uint64_t where = 0;
  uint64_t data = 0;  // compared in the low `size` bytes, for writes
  uint8_t size = 0;   // bytes of access; 0: any
  bool is_write = false;
};

// A page fault: the error codes that are possible, and where the address lies.
struct PageFault {
  uint32_t error[2] = {0, 0};
  unsigned errors = 0;
  uint64_t begin = 0, end = 0;
};

// What a guest step does, as one world has it.
struct Outcome {
  cpu::Result fault;  // by the instruction under test
  PageFault page;     // with errors != 0: instead of `fault`
  unsigned exits = 0;
  std::array<ExpectedExit, 2> exit{};
  std::span<const uint8_t> journal;  // of a step that completes; as long as the row says
  bool journal_open = false;         // the bytes can't be known: what was there before stays
  Place place = Place::kStored;      // what the journal's bytes are
  const char* rule = "";

  static Outcome Faults(const cpu::Fault& f, const char* rule) {
    Outcome o;
    o.fault = f;
    o.rule = rule;
    return o;
  }
};

// Journals and operands that are not slots: the longest is Op::kTileloadd's.
inline constexpr size_t kScratch = 4096;

struct Context {
  const trace::Platform& platform;
  const plan::Plan& plan;
  const program::Step& step;
  uint16_t number = 0;
  const StepRecords* seen = nullptr;  // null in a simulation
  World& world;
  kvm::Vcpu& vcpu;
  cpu::Cpu& cpu;
  std::array<uint8_t, kScratch>& scratch;
  int model_errno = 0;      // set by VMM steps: what the model says the call returns
  uint32_t area_bytes = 0;  // no save writes further into a slot, from where it begins
  bool host_pke = false;    // Hypothesis kHostPke (walk.h)

  const plan::CodeRow& row() const { return plan.rows[number]; }
  uint64_t rip() const { return plan::kCodeBase + row().instruction; }
  // The bytes of the step's journal as seen, or none.
  std::span<const uint8_t> journal() const {
    return seen != nullptr && seen->has_journal ? seen->journal : std::span<const uint8_t>{};
  }
};

// The function of a guest step; null for an operation that no function has (raw code).
using GuestFunction = Outcome (*)(Context&);
GuestFunction GuestFunctionOf(program::Op op);

// Parts of the table, by file.
Outcome StepXsave(Context& c, cpu::SaveForm form);
Outcome StepXrstor(Context& c, bool supervisor);
Outcome StepFxsave(Context& c);
Outcome StepFxrstor(Context& c);
Outcome StepMemory(Context& c);
Outcome StepExit(Context& c);
Outcome StepAmx(Context& c);

// Where a data access to a user page of the guest ends in #PF because of PKRU. Empty (errors 0)
// where it doesn't. All of the guest's data has protection key 0, and CR0.WP is set, so
// write-disable holds at CPL 0 as well (SDM vol. 3, 4.6.2).
PageFault PkruFault(const Context& c, bool reads, bool writes, uint64_t begin, uint64_t end);
inline PageFault JournalFault(const Context& c) {
  return PkruFault(c, false, true, plan::kJournalBase, plan::kJournalBase + plan::kJournalSize);
}
inline PageFault LiteralFault(const Context& c) {
  return PkruFault(c, true, false, plan::kLiteralBase, plan::kLiteralBase + plan::kLiteralSize);
}

// A VMM or host step on one world: computes, compares with the record and takes over what it shows.
// `changed` holds the features that KVM_SET_CPUID2 gives a vCPU. True if this world allows what was
// seen. `failures`: what the call is supposed to have failed in, of the bits below.
bool DoVmmStep(Context& c, std::array<cpu::Features, program::kMaxVcpus>& changed,
               unsigned failures, Mismatch& m);

// How a call may fail to do what it promises, or do what it must not, so that only later steps show
// it: KVM_SET_FPU loses a part of what it is given, KVM_SET_CPUID2 loses the state where it makes
// the fpstate grow.
inline constexpr unsigned kFpuLosesX87 = 1, kFpuLosesXmm = 2, kFpuLosesMxcsr = 4;
inline constexpr unsigned kCpuidLosesState = 8;
// Those that the step can show.
unsigned FailuresOf(program::Op op);
// Whether to fail in these differs from keeping the promise, given the state before the step.
bool FailuresDiffer(const Context& c, unsigned failures);

// Steps whose instruction stores into the journal itself: a page fault there is the instruction's.
bool StoresDirectly(program::Op op);

// Compares what was seen of a guest step with what a world has; true if it is allowed.
bool CompareGuest(Context& c, const Outcome& outcome, Mismatch& m);

// Parts of struct kvm_fpu that are judged each for itself.
enum class FpuPart : uint8_t { kX87, kXmm, kMxcsr };
bool CompareFpu(Context& c, FpuPart part, Mismatch& m);

}  // namespace fpswap::judge
