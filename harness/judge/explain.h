// SPDX-License-Identifier: GPL-2.0-or-later
//
// From a mismatch to a divergence: names the place, classifies how the value seen relates to what
// was possible, and puts it into words. Only for what is reported; may allocate.
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <vector>

#include "harness/judge/mismatch.h"
#include "harness/judge/verdict.h"
#include "harness/judge/world.h"
#include "harness/trace/platform.h"

namespace fpswap::judge {

// What a value is looked for in, to say whose it is. Images are in the host's standard format.
using Image = std::vector<uint8_t>;
// What the host's side had in its registers: a pattern laid out as a standard-format image.
struct HostPattern {
  uint16_t pattern = 0;
  std::string whose;  // "what the VMM's thread had in its own registers"
  // No other step of the program has this number, so that its bytes can only be the host's.
  bool only_hosts = false;
};
struct Surroundings {
  std::vector<Image> before;          // what the vCPU itself may have held earlier in the program
  std::vector<unsigned> before_step;  // beside `before`: the step after which it first did
  bool any_pointers =
      false;     // FOP, FIP and FDP were open at some time: they may have held anything
  Image now;     // what it should be
  Image memory;  // the slot that the step names, as it was before the step
  std::vector<Image> others;      // the other vCPUs'
  std::vector<Image> given;       // the VMM's image buffers, which it may have set into any vCPU
  std::vector<HostPattern> host;  // what was in registers on the host's side
};

// Bytes too plain to be recognised elsewhere prove nothing by being found.
bool IsTelling(std::span<const uint8_t> bytes);
// Whether `image` has these bytes at `at`; total.
bool HasAt(std::span<const uint8_t> image, size_t at, std::span<const uint8_t> bytes);

// All of a vCPU's state as an image.
Image ImageOf(const kvm::Vcpu& vcpu);

// A cause: see CauseOf.
inline constexpr char kMxcsrLeftOut[] = "mxcsr-left-out";

struct Explained {
  const trace::Platform& platform;
  const program::Step* step;  // null for none
  uint16_t number;
  const cpu::Cpu* cpu;            // of the world the mismatch is against
  std::span<const uint8_t> seen;  // all bytes compared, where there were any
  // Conditions of known defects (CauseOf in explain.cc).
  // AVX has been initial while ZMM_Hi256 was not, at this step or before.
  bool avx_under_zmm = false;
  // The fpstate's XSTATE_BV lacks PKRU whatever its value, and KVM_GET_XSAVE goes by that.
  bool pkru_left_out = false;
  // A migration took this vCPU's image while that was so, and its PKRU was the one of now.
  bool pkru_lost = false;
  // This image, or the one that a migration took, has neither SSE nor AVX, so that KVM_GET_XSAVE of
  // a host that keeps the standard format left MXCSR out.
  bool mxcsr_left_out = false;
  // A KVM_GET_FPU that is not right behind a KVM_SET_FPU: nobody can tell what was in those bytes.
  bool fpu_of_old = false;
  const World* world = nullptr;  // that the mismatch is against
};

// Of the first register, field or bit of a bitmap that differs.
Divergence Explain(const Explained& what, const Mismatch& mismatch, const Surroundings& around);
// Makes that one the same in `seen`, which is all that was seen. REQUIRES: bytes differ.
void TakeAway(const Explained& what, const Mismatch& mismatch, std::span<uint8_t> seen);

// Law 4: `before` and `after` are standard-format images of the VMM thread's registers.
Divergence ExplainCanary(const trace::Platform& platform, const program::Step* step,
                         uint16_t number, uint64_t components, std::span<const uint8_t> before,
                         std::span<const uint8_t> after, const Surroundings& around);

// Law 2, told at the call that is to blame: `failure` is one of the bits of context.h.
Divergence ExplainFailure(const program::Step& step, uint16_t number, unsigned failure);

// Law 1: the guest runs with an XCR0 that it was not given, seen at step `number`.
Divergence ExplainXcr0(const trace::Platform& platform, const plan::Plan& plan, uint16_t number);
Divergence ExplainPke(const plan::Plan& plan, uint16_t number);

// Law 6.
Divergence ExplainHealth(const program::Step* step, uint16_t number, Relation relation,
                         std::string where, std::string words);

}  // namespace fpswap::judge
