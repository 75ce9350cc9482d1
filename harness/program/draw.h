// SPDX-License-Identifier: GPL-2.0-or-later
//
// Drawing the numbers in programs: mostly values that an expert would choose at that place, now and
// then a neighbour, a boundary or anything at all.
//
// Thread safety: used by one thread with its Rng.
#pragma once

#include <cstdint>

#include "harness/program/generate.h"

namespace fpswap::program {

class Draw {
 public:
  // `rng` and `profile` are not owned and outlive the Draw.
  Draw(Rng& rng, const Profile& profile) : rng_(rng), profile_(profile) {}

  Rng& rng() { return rng_; }
  uint64_t features() const { return profile_.features | 1; }

  uint64_t Pattern();
  // XCR0 values: LegalMask keeps to SDM 13.3's rules, Xcr0 breaks them at times.
  uint64_t LegalMask(uint64_t within);
  uint64_t Xcr0(uint64_t within);
  uint64_t Rfbm();
  // A subset of `mask`: all, none, one bit, all but one, or any.
  uint64_t Subset(uint64_t mask);
  uint64_t XstateBv();
  // XCOMP_BV to go with an XSTATE_BV: compacted and covering it mostly.
  uint64_t XcompBv(uint64_t xstate_bv);
  uint64_t Mxcsr();
  uint64_t Fcw();
  // Bits 1:0 clear but for one in 64: with them set the guest loses its own data.
  uint64_t Pkru();
  uint64_t Supervisor() { return Subset(profile_.supervisor); }
  // An MSR's name: CET's where the guest has it, and now and then elsewhere.
  uint64_t MsrName();
  // A value for it: IA32_U_CET and IA32_S_CET flags, shadow stack pointers, bits of components.
  uint64_t MsrValue(Msr msr);
  bool HasCet() const { return (profile_.supervisor & 0x1800) != 0; }
  // Op::kLdtilecfg's shapes of eight tiles: legal whatever they are.
  uint64_t Tiles();
  uint64_t Offset();
  uint64_t Length();
  // 8 bytes to write at `offset` of an XSAVE area.
  uint64_t AreaValue(uint64_t offset);
  uint64_t AnyNumber();

  // A value for argument `i` of `row`.
  uint64_t Arg(const StepRow& row, unsigned i);
  // A step of `row` with all its arguments drawn.
  Step StepOf(const StepRow& row);

 private:
  uint64_t ByKind(ArgKind kind);
  uint64_t Small(uint64_t usual, uint64_t max);
  void Raw(Step& step);

  Rng& rng_;
  const Profile& profile_;
};

}  // namespace fpswap::program
