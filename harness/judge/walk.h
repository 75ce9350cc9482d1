// SPDX-License-Identifier: GPL-2.0-or-later
//
// The walk of a plan through the worlds, step by step, with records to compare or without.
//
// Thread safety: none. Keeps its buffers from program to program; allocates only to report.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "harness/judge/context.h"
#include "harness/judge/explain.h"
#include "harness/judge/judge.h"
#include "oracle/worlds/worlds.h"

namespace fpswap::judge {

// What may be wrong with the system under test as a whole. Assumed only to tell one such fault from
// the many differences it makes: a walk that fails is tried again under each (judge.cc), and if it
// gets further, the hypothesis is the divergence.
enum class Hypothesis : uint8_t {
  kNone,
  // The guest runs with the host's XCR0, whatever it was given (kvm_load_guest_xsave_state).
  kHostXcr0,
};

// Whether one of `action`'s steps is raw code.
bool HasRaw(const plan::Plan& plan, const plan::Action& action);

class Walk {
 public:
  explicit Walk(const trace::Platform& platform);

  void Assume(Hypothesis hypothesis) { hypothesis_ = hypothesis; }
  // The step at which the last walk could not go on; kNowhere if it went to the end.
  static constexpr unsigned kNowhere = ~0u;
  unsigned stopped_at() const { return stopped_at_; }

  // Walks all of `plan` as far as it can be judged. `records` null: a simulation. Fills the model's
  // part of `verdict` (null in a simulation).
  void Go(const plan::Plan& plan, const SortedRecords* records, ReachSink* reach, Verdict* verdict);

  // The states vCPU `vcpu` went through before step `until`, from a walk of the same records; for
  // saying where a value comes from. The last one is as it was when the walk stopped.
  std::vector<Image> States(const plan::Plan& plan, const SortedRecords& records, unsigned until,
                            unsigned vcpu);
  // The first world's state as the last walk left it.
  const World& world() const { return worlds_[0]; }

 private:
  enum class Next : uint8_t { kGoOn, kStop };
  struct Blame {
    uint16_t step = 0;
    unsigned variant = 0;
  };

  void Actions(const plan::Plan& plan);
  void Begin(const plan::Plan& plan, const SortedRecords* records, Verdict* verdict);
  Next DoStep(const plan::Action& action, uint16_t number);
  Next Guest(const plan::Action& action, uint16_t number);
  Next Vmm(uint16_t number);
  Next GetFpu(uint16_t number);
  Context MakeContext(World& world, uint16_t number);
  void ExchangeXcr0(uint16_t number, bool before);

  bool BranchSetFpu(uint16_t number);  // false: no room
  Next GiveUp();
  bool BranchTiles(const program::Step& step);  // false: no room
  bool BranchAmxTs(const program::Step& step);  // the same
  Next Settle(uint16_t number, bool any, bool harmless);
  void MergeWorlds();
  bool OneBlame() const;
  void SettleBlame();
  void ReportBlame();
  void NoteBlame(const Blame& what);
  void Report(uint16_t number, size_t world, Mismatch& m);
  void NoteLaws(uint16_t number, bool guest);
  void NoteEffects(uint16_t number);
  void NoteAvxUnderZmm(unsigned vcpu);
  void PrepareReach(uint16_t number);
  void EmitReach(uint16_t number);
  bool DiedBefore(uint16_t number) const;

  const trace::Platform& platform_;
  Hypothesis hypothesis_ = Hypothesis::kNone;
  unsigned stopped_at_ = kNowhere;
  kvm::Host host_;
  cpu::Features limited_;
  uint64_t limited_mask_ = 0;
  std::array<cpu::Features, program::kMaxVcpus> changed_;
  worlds::Worlds<World> worlds_;
  std::array<Mismatch, worlds::Worlds<World>::kMax> mismatches_;
  std::array<unsigned, worlds::Worlds<World>::kMax> fpu_variants_{};
  std::vector<Blame> blames_;  // blame n is blames_[n - 1]
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
  std::optional<unsigned> until_;
  std::vector<Image>* states_ = nullptr;
  unsigned states_of_ = 0;
};

inline constexpr size_t kMaxDivergences = 16;

}  // namespace fpswap::judge
