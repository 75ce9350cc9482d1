// SPDX-License-Identifier: GPL-2.0-or-later
//
// What Unicorn gets wrong in steps that it does run: its known defects, all of them, each a row
// with the reason that a trimmed step is given (kDefects in unicorn_limits.cc). What it does not
// run at all is told by its agent (unicorn-runner/probe.cc).
//
// Nearly all of them depend on the state that a step meets: FSTP is right unless the stack is
// empty. So a step is trimmed only where it would meet the defect, and that is worked out with the
// oracle's CPU. Nothing is forgiven by this: should the model be wrong about a state, then a trim
// is missing or is one too many, and what does run is compared all the same.
//
// Private to harness/plan and its tests. Not thread safe.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "harness/program/program.h"
#include "oracle/cpu/cpu.h"

namespace fpswap::plan {

struct UnicornDefect {
  std::string_view name;
  std::string_view reason;  // a sentence
};
std::span<const UnicornDefect> UnicornDefects();

class UnicornLimits {
 public:
  // `features` are the guest's and outlive the object; `pke` is the program's.
  UnicornLimits(const cpu::Features& features, bool pke);

  // The defect that `step` would meet; null where there is none, and then the state goes on behind
  // the step. REQUIRES: a guest step that Unicorn runs, its arguments confined (trim.h).
  const UnicornDefect* Meets(const program::Step& step);

 private:
  // FXSAVE and FXRSTOR reach no further into a slot, nor does anything that matters to them.
  static constexpr size_t kSlotFront = 1024;
  using Slot = std::array<uint8_t, kSlotFront>;

  cpu::Result Apply(const program::Step& step, cpu::Cpu& cpu, Slot& slot);
  cpu::Result ApplyVector(const program::Step& step, cpu::Cpu& cpu);
  const UnicornDefect* Check(const program::Step& step, const cpu::Cpu& after,
                             const cpu::Result& fault) const;
  const UnicornDefect* CheckX87(const program::Step& step, const cpu::Cpu& after) const;
  const UnicornDefect* CheckFxsave(const program::Step& step) const;
  const UnicornDefect* CheckFxrstor(const program::Step& step, const cpu::Cpu& after) const;
  void NoteExponents(const program::Step& step, const cpu::Cpu& after);

  cpu::Cpu cpu_;
  std::array<Slot, program::kSlotCount> slots_{};
  bool had_gp_ = false;
  // By physical register: Unicorn's exponent is not what an MMX write has made it.
  uint8_t old_exponent_ = 0;
};

}  // namespace fpswap::plan
