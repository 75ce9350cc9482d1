// SPDX-License-Identifier: GPL-2.0-or-later
//
// The walk of a plan through the worlds, step by step, with records to compare or without.
//
// Thread safety: none. Keeps its buffers from program to program; allocates only to report.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "harness/judge/context.h"
#include "harness/judge/explain.h"
#include "harness/judge/judge.h"
#include "oracle/worlds/worlds.h"

namespace fpswap::judge {

// What may be wrong with the system under test as a whole: a set of these. Assumed only to tell one
// such fault from the many differences it makes: a walk that fails is tried again under each set
// (judge.cc), and if it gets further, the hypotheses are the divergences.
enum Hypothesis : unsigned {
  // The guest runs with the host's XCR0, whatever it was given (kvm_load_guest_xsave_state).
  kHostXcr0 = 1,
  // The guest runs with the host's CR4.PKE: PKRU is enforced where the guest has not enabled it.
  kHostPke = 2,
};

class Walk {
 public:
  explicit Walk(const trace::Platform& platform);

  // A set of Hypothesis, for the walks that follow.
  void Assume(unsigned hypotheses);

  // From here on each divergence comes with all bytes that were compared.
  void KeepCompared();

  // Walks all of `plan` as far as it can be judged. `records` null: a simulation. Fills the model's
  // part of `verdict` (null in a simulation).
  void Go(const plan::Plan& plan, const SortedRecords* records, ReachSink* reach, Verdict* verdict);

  // Adds to `around` what vCPU `vcpu` may have held before step `until`, from a walk of the same
  // records; for saying where a value comes from.
  void States(const plan::Plan& plan, const SortedRecords& records, unsigned until, unsigned vcpu,
              Surroundings& around);
  // The first world's state as the last walk left it.
  const World& world() const { return worlds_[0]; }
  // Gives back room that the last walk's worlds took; its first world is still there.
  void Release() { worlds_.Reset(); }

 private:
  enum class Next : uint8_t { kGoOn, kStop };
  struct Blame {
    uint16_t step = 0;
    unsigned failures = 0;
  };

  void Actions(const plan::Plan& plan);
  void Begin(const plan::Plan& plan, const SortedRecords* records, Verdict* verdict);
  Next DoStep(const plan::Action& action, uint16_t number);
  Next Guest(const plan::Action& action, uint16_t number);
  Next Vmm(uint16_t number);
  Next GetFpu(uint16_t number);
  void Clear(size_t i);  // mismatches_[i]
  Context MakeContext(World& world, uint16_t number);
  void ExchangeXcr0(uint16_t number, bool before);
  void AddHostLayout();
  bool ShowsPkruNotKept(const Context& c) const;
  bool CpuidShows(uint16_t number, uint64_t xcr0) const;

  bool BranchFailures(uint16_t number);  // false: no room
  Next GiveUp(uint16_t number);
  bool BranchTiles(const program::Step& step);   // false: no room
  bool BranchHabits(const program::Step& step);  // the same
  bool BranchHabit(const program::Step& step, std::optional<bool> cpu::Cpu::* habit,
                   bool (*is_open)(const cpu::Cpu&));
  Next Settle(uint16_t number, bool any, bool harmless);
  void MergeWorlds();
  bool OneBlame() const;
  void SettleBlame();
  void ReportBlame();
  void KeepBlamed(unsigned blame);
  void NoteBlame(const Blame& what);
  Explained Against(uint16_t number, size_t world) const;
  void Report(uint16_t number, size_t world, Mismatch& m);
  void NoteState(unsigned number);
  void NoteZeros(Surroundings& around, unsigned number) const;
  void NoteLaws(uint16_t number, bool guest);
  void NoteEffects(uint16_t number);
  void NoteAvxUnderZmm(uint16_t number);
  void NotePkruLeftOut(const program::Step& step, bool failed);
  void NotePkruIsBack(uint16_t number, bool failed);
  void NoteMxcsrLeftOut(const program::Step& step, bool failed);
  bool MxcsrLeftOut(uint16_t number, const cpu::Cpu& cpu) const;
  void PrepareReach(uint16_t number);
  void EmitReach(uint16_t number);
  bool DiedBefore(uint16_t number) const;

  const trace::Platform& platform_;
  unsigned hypotheses_ = 0;
  kvm::Host host_;
  cpu::Features limited_;
  std::optional<uint64_t> limited_mask_;
  std::array<cpu::Features, program::kMaxVcpus> changed_;
  worlds::Worlds<World> worlds_;
  std::array<Mismatch, worlds::Worlds<World>::kMax> mismatches_;
  std::array<Compared, worlds::Worlds<World>::kMax> all_;  // beside `mismatches_`
  bool keep_compared_ = false;
  std::array<unsigned, worlds::Worlds<World>::kMax> failures_{};
  std::vector<Blame> blames_;      // blame n is blames_[n - 1]
  std::unique_ptr<Walk> history_;  // made when first needed; its worlds are large
  std::array<uint8_t, kScratch> scratch_;
  uint32_t area_bytes_ = 0;

  // Of the walk under way.
  const plan::Plan* plan_ = nullptr;
  const SortedRecords* records_ = nullptr;
  ReachSink* reach_ = nullptr;
  Verdict* verdict_ = nullptr;
  uint8_t last_exit_ = 0;
  // Of the step under way, for reach.
  uint8_t outcome_ = 0;
  uint32_t reach_xcr0_ = 0;
  uint64_t reach_components_ = 0;
  std::array<uint8_t, xstate::kComponentCount> reach_states_{};
  // What a difference in this vCPU's state would break: law 3 or 5 after a round trip or a refusal
  // that nothing has looked at yet; kModel is none.
  std::array<Law, program::kMaxVcpus> suspect_{};
  std::array<bool, program::kMaxVcpus> avx_under_zmm_{};
  // KVM_GET_XSAVE would leave PKRU or MXCSR out; and the value that a migration has lost so, the
  // initial one where it has lost none (see CauseOf in explain.cc).
  std::array<bool, program::kMaxVcpus> pkru_left_out_{}, mxcsr_left_out_{};
  std::array<uint32_t, program::kMaxVcpus> pkru_lost_{}, mxcsr_lost_{};
  // By vCPU: the KVM_SET_FPU since which nothing but looks has been done.
  std::array<std::optional<uint16_t>, program::kMaxVcpus> fpu_given_{};
  // By thread of the VMM: its own PKRU is 0. By vCPU: the thread that runs it.
  std::array<bool, program::kMaxVcpus> vmm_pkru_0_{};
  std::array<uint8_t, program::kMaxVcpus> thread_of_{};
  std::optional<unsigned> until_;
  Surroundings* states_ = nullptr;
  unsigned states_of_ = 0;
};

}  // namespace fpswap::judge
