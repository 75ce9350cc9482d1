// SPDX-License-Identifier: GPL-2.0-or-later
//
// Building a run of steps with an eye on what went before: which slots and images hold saved state,
// which registers are dirty. Idioms (idioms.h) are written against it.
//
// Thread safety: used by one thread.
#pragma once

#include <array>
#include <initializer_list>
#include <optional>
#include <vector>

#include "harness/program/draw.h"
#include "harness/program/palette.h"
#include "oracle/xstate/component.h"

namespace fpswap::program {

// What a reader of the steps so far would expect. A guess that serves the generator's taste: no
// faults are followed.
struct Scene {
  uint8_t standard = 0, compacted = 0, supervisor = 0;  // slots with images of these kinds, as bits
  uint8_t images = 0;                                   // image buffers that hold a GET, as bits
  uint64_t xcr0 = 1;
  uint32_t zmm = 0;        // vector registers loaded since they were last cleared
  uint8_t k = 0, bnd = 0;  // the same
  uint64_t tiles = 0;      // shapes of tiles as Op::kLdtilecfg last gave them; 0: not configured

  uint8_t saved() const { return static_cast<uint8_t>(standard | compacted | supervisor); }
  void Note(const Step& step);
};

// How often a program looks: state that is held lazily is only tested while nothing looks.
enum class Looks : uint8_t { kHardly, kSometimes, kOften };

class Builder {
 public:
  // `palette` is not owned and outlives the Builder. `before`: the steps that what is built will
  // follow. Steps go to vCPU 0 until it is told another.
  Builder(Rng& rng, const Profile& profile, const Palette& palette, const Program& program,
          std::span<const Step> before);

  Rng& rng() { return draw_.rng(); }
  Draw& draw() { return draw_; }
  const Scene& scene() const { return scenes_[vcpu_]; }
  std::vector<Step>& steps() { return steps_; }
  uint64_t features() const { return draw_.features(); }

  unsigned vcpus() const { return vcpus_; }
  unsigned vcpu() const { return vcpu_; }
  // Steps from now on are this vCPU's. REQUIRES: it is one of the program's.
  void OnVcpu(unsigned vcpu) { vcpu_ = static_cast<uint8_t>(vcpu); }
  void OnAnyVcpu() { OnVcpu(static_cast<unsigned>(rng().Below(vcpus_))); }
  // REQUIRES: vcpus() > 1.
  void OnAnotherVcpu() {
    OnVcpu((vcpu_ + 1 + static_cast<unsigned>(rng().Below(vcpus_ - 1))) % vcpus_);
  }
  // What another vCPU does between two steps of this one.
  void Elsewhere();

  bool Has(Op op) const { return palette_.Has(op); }
  // Appends a step; false, and nothing appended, where the palette lacks it. Arguments wrap.
  bool Add(Op op, std::initializer_list<uint64_t> args = {});
  // A step with drawn arguments. `ops`: one of these that is allowed.
  bool AddDrawn(Op op);
  bool AddOneOf(std::initializer_list<Op> ops);
  // Any step, by weight.
  bool AddAny();

  // A component this program cares for; never one that the profile lacks.
  xstate::Component Focus();
  // One register of `c` gets a pattern; is read; all that is dirty of `c` is brought to its initial
  // value (or, at times, only nearly all).
  void Load(xstate::Component c);
  void Store(xstate::Component c);
  void Clear(xstate::Component c);
  void LoadSome();   // 1 to 5 registers
  void ClearSome();  // 1 to 3 components

  // A tile that is configured, where there is one.
  uint64_t AnyTile();
  uint64_t AnySlot() { return rng().Below(kSlotCount); }
  uint64_t AnyImage() { return rng().Below(kImageCount); }
  // One that holds something, where there is one.
  uint64_t SavedSlot() { return Member(scene().saved(), kSlotCount); }
  uint64_t GotImage() { return Member(scene().images, kImageCount); }

  // Saves with some instruction; nothing where the palette has none.
  std::optional<uint64_t> Save(uint64_t slot, uint64_t rfbm);
  void Save();  // anywhere, with any RFBM
  // XRSTOR, or XRSTORS of what XSAVES saved.
  bool Restore(uint64_t slot, uint64_t rfbm);
  void Restore();                  // of what was saved, with any RFBM
  bool Get(uint64_t image);        // any call that gives an image
  void EditImage(uint64_t image);  // a few bytes of its contents changed

  void Exit();     // one way out of the guest and back
  void Disturb();  // something around a run: CPU, competitor, signal, swap, migration
  void Between();  // 0 to 3 of these
  // Looks at the state in some way, or doesn't, as this program's taste is.
  void Look();

 private:
  uint64_t Member(uint8_t set, uint64_t count);
  void StoreVector();
  void Note(const Step& step);

  Draw draw_;
  const Palette& palette_;
  std::array<Scene, kMaxVcpus> scenes_;
  uint8_t vcpus_, vcpu_ = 0;
  bool own_vm_;
  Looks looks_;
  uint64_t focus_;
  std::vector<Step> steps_;
};

}  // namespace fpswap::program
