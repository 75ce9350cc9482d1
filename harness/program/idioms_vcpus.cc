// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/idioms.h"
#include "oracle/xstate/layout.h"

namespace fpswap::program {
namespace {

using xstate::Component;

constexpr uint64_t kEverything = ~uint64_t{0};

// Two vCPUs have the same register in use, take turns, and each finds its own.
void TakeTurns(Builder& b) {
  const Component c = b.Focus();
  const unsigned one = b.vcpu();
  b.Load(c);
  b.OnAnotherVcpu();
  const unsigned two = b.vcpu();
  b.Load(c);
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) {
    b.OnVcpu(one);
    if (b.rng().OneIn(2)) b.Exit();
    if (b.rng().OneIn(3)) b.Load(c);
    b.OnVcpu(two);
    if (b.rng().OneIn(2)) b.Exit();
  }
  if (b.rng().OneIn(2)) b.OnVcpu(one);
  b.Store(c);
  b.Look();
}

// One vCPU fills everything; another, which never did, must find its components initial.
void FullBesideEmpty(Builder& b) {
  b.LoadSome();
  b.LoadSome();
  b.Exit();
  b.OnAnotherVcpu();
  b.AddOneOf({Op::kExitOut, Op::kRunImmediate, Op::kXgetbv, Op::kExitCpuid});
  b.Save(b.AnySlot(), kEverything);
  b.Look();
}

// One vCPU migrates (with all of its VM) while another runs between.
void MigrateBeside(Builder& b) {
  const unsigned here = b.vcpu();
  b.LoadSome();
  b.Elsewhere();
  b.OnVcpu(here);
  b.AddDrawn(Op::kMigrate);
  b.Elsewhere();
  b.OnVcpu(here);
  b.Look();
}

// An image set on one vCPU between two runs of another: what it holds, and what is refused, is that
// one's alone.
void SetBeside(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.LoadSome();
  const unsigned here = b.vcpu();
  b.OnAnotherVcpu();
  if (b.rng().OneIn(2)) b.LoadSome();
  b.Get(image);
  if (b.rng().OneIn(2)) {
    b.Add(Op::kImageFill,
          {image, 160 + 16 * b.rng().Below(16), 16 + b.rng().Below(64), b.draw().Pattern()});
  }
  if (b.rng().OneIn(2)) b.Add(Op::kImageWrite, {image, xstate::kHeaderOffset + 8, 1});  // refused
  b.Add(Op::kSetXsave, {image});
  if (b.rng().OneIn(2)) b.Exit();
  b.OnVcpu(here);
  if (b.rng().OneIn(2)) b.Exit();
  b.rng().OneIn(2) ? b.Look() : static_cast<void>(b.Get(b.AnyImage()));
}

// One vCPU's state becomes another's, as when a snapshot is cloned; then they part.
void Clone(Builder& b) {
  const uint64_t image = b.AnyImage();
  b.LoadSome();
  b.Get(image);
  b.OnAnotherVcpu();
  b.Add(Op::kSetXsave, {image});
  b.rng().OneIn(2) ? b.LoadSome() : b.ClearSome();
  if (b.rng().OneIn(2)) b.Exit();
  b.Look();
  b.OnAnotherVcpu();
  b.Look();
}

// A task that moves between vCPUs: one saves it, another restores it and saves it again. In one VM
// the area is the same; in two each has its own.
void MoveTask(Builder& b) {
  const uint64_t slot = b.AnySlot();
  const uint64_t rfbm = b.rng().OneIn(2) ? kEverything : b.draw().Rfbm();
  b.LoadSome();
  b.Save(slot, rfbm);
  for (uint64_t n = 1 + b.rng().Below(3); n != 0; --n) {
    b.OnAnotherVcpu();
    b.Restore(slot, rfbm);
    if (b.rng().OneIn(2)) b.Load(b.Focus());
    b.Save(slot, rfbm);
  }
  b.Look();
}

// Different XCR0s side by side: the host's own must be back between.
void DifferentXcr0(Builder& b) {
  const unsigned here = b.vcpu();
  b.LoadSome();
  b.Add(Op::kXsetbv, {0, b.draw().LegalMask(b.features())});
  b.OnAnotherVcpu();
  b.LoadSome();
  b.Add(Op::kXgetbv, {0});
  b.Save(b.AnySlot(), kEverything);
  b.OnVcpu(here);
  b.Add(Op::kXgetbv, {0});
  b.AddOneOf({Op::kGetXcrs, Op::kExitCpuid, Op::kXsave, Op::kXsavec});
}

// What happens to one vCPU's thread, and what another's finds.
void ThreadsAside(Builder& b) {
  const unsigned here = b.vcpu();
  b.LoadSome();
  b.Exit();
  b.AddOneOf({Op::kHostCpu, Op::kHostThread, Op::kHostThread, Op::kHostPreempt, Op::kHostSignal,
              Op::kHostPkru, Op::kHostDirty});
  if (b.rng().OneIn(2)) b.Exit();
  b.Elsewhere();
  b.OnVcpu(here);
  if (b.rng().OneIn(2)) b.Exit();
  b.Look();
}

constexpr Idiom kIdioms[] = {
    {"take_turns", 60, Op{}, TakeTurns},
    {"full_beside_empty", 40, Op{}, FullBesideEmpty},
    {"migrate_beside", 20, Op::kMigrate, MigrateBeside},
    {"set_beside", 40, Op::kSetXsave, SetBeside},
    {"clone", 30, Op::kSetXsave, Clone},
    {"move_task", 30, Op::kXrstor, MoveTask},
    {"different_xcr0", 20, Op::kXsetbv, DifferentXcr0},
    {"threads_aside", 30, Op::kHostThread, ThreadsAside},
};

}  // namespace

std::span<const Idiom> VcpuIdioms() { return kIdioms; }

}  // namespace fpswap::program
