// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/builder.h"

#include <bit>

#include "harness/program/arg.h"

namespace fpswap::program {

using xstate::Component;

namespace {

// Components for which there are steps that load them.
constexpr uint64_t kLoadable = xstate::kX87Sse | Bit(Component::kAvx) | xstate::kMpx |
                               xstate::kAvx512 | Bit(Component::kPkru) | xstate::kAmx;
constexpr uint32_t kLowZmm = 0xffff;

// A random member of a set of bits; `set` must not be empty.
unsigned RandomBit(uint64_t set, Rng& rng) {
  for (uint64_t skip = rng.Below(static_cast<uint64_t>(std::popcount(set))); skip != 0; --skip) {
    set &= set - 1;
  }
  return static_cast<unsigned>(std::countr_zero(set));
}

uint32_t OneBit(uint64_t n) { return uint32_t{1} << (n & 31); }

}  // namespace

void Scene::Note(const Step& step) {
  const auto slot = static_cast<uint8_t>(1u << (step.arg[0] & 7));
  const auto& arg = step.arg;
  const auto holds = [&](uint8_t& now) {
    standard &= static_cast<uint8_t>(~slot);
    compacted &= static_cast<uint8_t>(~slot);
    supervisor &= static_cast<uint8_t>(~slot);
    now |= slot;
  };
  switch (step.op) {
    case Op::kXsave:
    case Op::kXsaveopt:
    case Op::kFxsave:
      return holds(standard);
    case Op::kXsavec:
      return holds(compacted);
    case Op::kXsaves:
      return holds(supervisor);
    case Op::kGetXsave:
    case Op::kGetXsave2:
    case Op::kOsGetRegset:
    case Op::kOsSigframe:
      images |= slot;
      return;
    case Op::kXsetbv:
      if (arg[0] == 0) xcr0 = arg[1];
      return;
    case Op::kSetXcrs:
      if (arg[0] != 0 && arg[1] == 0) xcr0 = arg[2];
      return;
    case Op::kSetXcrsList:
      if (arg[0] == 0 || arg[2] == 0) xcr0 = arg[0] == 0 ? arg[1] : arg[3];
      return;
    case Op::kSseLoad:
    case Op::kVexLoad128:
    case Op::kVexLoad256:
    case Op::kEvexLoad128:
    case Op::kEvexLoad256:
    case Op::kEvexLoad512:
      zmm = arg[1] == 0 ? zmm & ~OneBit(arg[0]) : zmm | OneBit(arg[0]);
      return;
    case Op::kSsePxor:  // keeps the upper part
      return;
    case Op::kVexPxor256:
    case Op::kEvexPxor512:
      zmm = arg[1] == arg[2] ? zmm & ~OneBit(arg[0]) : zmm | OneBit(arg[0]);
      return;
    case Op::kVzeroall:
      zmm &= ~kLowZmm;
      return;
    case Op::kKmovLoad:
      k = static_cast<uint8_t>(arg[1] == 0 ? k & ~slot : k | slot);
      return;
    case Op::kKxor:
      k = static_cast<uint8_t>(arg[1] == arg[2] ? k & ~slot : k | slot);
      return;
    case Op::kBndmovLoad:
      bnd = static_cast<uint8_t>(arg[1] == 0 ? bnd & ~slot : bnd | slot);
      return;
    case Op::kLdtilecfg:
      tiles = arg[0] == 1 && arg[3] == 0 ? arg[1] : 0;
      return;
    case Op::kTilerelease:
      tiles = 0;
      return;
    case Op::kXrstor:
    case Op::kXrstors:
    case Op::kOsSetRegset:
    case Op::kOsSigreturn:
    case Op::kSetXsave:  // anything may be in any register now
      zmm = ~uint32_t{0};
      k = 0xff;
      return;
    default:
      return;
  }
}

Builder::Builder(Rng& rng, const Profile& profile, const Palette& palette, const Program& program,
                 std::span<const Step> before)
    : draw_(rng, profile), palette_(palette), vcpus_(program.vcpus), own_vm_(program.own_vm) {
  for (Scene& each : scenes_) each.xcr0 = program.xcr0;
  for (const Step& step : before) Note(step);
  looks_ = static_cast<Looks>(rng.Below(3));
  const uint64_t loadable = profile.features & kLoadable;
  focus_ = rng.OneIn(2) ? loadable : loadable & rng.Next();
  if (focus_ == 0) focus_ = Component::kX87 | Component::kSse;
}

// Image buffers are the VMM's, and slots all of a VM's vCPUs'.
void Builder::Note(const Step& step) {
  Scene& here = scenes_[step.vcpu];
  here.Note(step);
  if (vcpus_ == 1) return;
  for (Scene& each : scenes_) {
    each.images = here.images;
    if (own_vm_) continue;
    each.standard = here.standard;
    each.compacted = here.compacted;
    each.supervisor = here.supervisor;
  }
}

void Builder::Elsewhere() {
  const unsigned here = vcpu_;
  OnAnotherVcpu();
  switch (rng().Below(8)) {
    case 0:
      Load(Focus());
      break;
    case 1:
      LoadSome();
      Exit();
      break;
    case 2:
      Restore();
      break;
    case 3:
      Add(Op::kSetXsave, {GotImage()});
      break;
    case 4:
      AddOneOf({Op::kXsetbv, Op::kSetXcrs, Op::kHostPkru, Op::kWrpkru});
      break;
    case 5:
      AddOneOf({Op::kRunImmediate, Op::kGetMpState, Op::kGetXsave, Op::kHostThread});
      break;
    case 6:
      Look();
      break;
    default:
      Exit();
  }
  OnVcpu(here);
}

bool Builder::Add(Op op, std::initializer_list<uint64_t> args) {
  if (!palette_.Has(op)) return false;
  Step step{.op = op, .vcpu = vcpu_};
  const StepRow& row = RowOf(step);
  unsigned i = 0;
  for (uint64_t value : args) {
    step.arg[i] = Wrap(row.args[i].kind, value);
    ++i;
  }
  // Lengths have no zero.
  for (; i < kArgCount; ++i) step.arg[i] = Wrap(row.args[i].kind, row.args[i].fallback);
  Note(step);
  steps_.push_back(step);
  return true;
}

bool Builder::AddDrawn(Op op) {
  if (!palette_.Has(op)) return false;
  steps_.push_back(draw_.StepOf(*FindStep(op)));
  steps_.back().vcpu = vcpu_;
  Note(steps_.back());
  return true;
}

bool Builder::AddOneOf(std::initializer_list<Op> ops) {
  return AddDrawn(palette_.PickOf(ops, rng()));
}

bool Builder::AddAny() {
  const StepRow* row = palette_.Pick(rng());
  return row != nullptr && AddDrawn(row->op);
}

Component Builder::Focus() { return static_cast<Component>(RandomBit(focus_, rng())); }

void Builder::Load(Component c) {
  const uint64_t pattern = draw_.Pattern();
  switch (c) {
    case Component::kX87:
      AddOneOf({Op::kFldTbyte, Op::kFldTbyte, Op::kFldTbyte, Op::kMmxMovq, Op::kFldcw});
      return;
    case Component::kSse:
      AddOneOf({Op::kSseLoad, Op::kSseLoad, Op::kVexLoad128, Op::kLdmxcsr});
      return;
    case Component::kAvx:
      Add(Op::kVexLoad256, {rng().Below(16), pattern});
      return;
    case Component::kOpmask:
      Add(Op::kKmovLoad, {rng().Below(8), pattern});
      return;
    case Component::kZmmHi256:
      Add(Op::kEvexLoad512, {rng().Below(16), pattern});
      return;
    case Component::kHi16Zmm:
      if (rng().OneIn(6)) {
        AddOneOf({Op::kEvexLoad128, Op::kEvexLoad256});
      } else {
        Add(Op::kEvexLoad512, {16 + rng().Below(16), pattern});
      }
      return;
    case Component::kBndregs:
    case Component::kBndcsr:
      Add(Op::kBndmovLoad, {rng().Below(4), pattern});
      return;
    case Component::kPkru:
      Add(Op::kWrpkru, {draw_.Pkru()});
      return;
    case Component::kTilecfg:
      AddDrawn(Op::kLdtilecfg);
      return;
    case Component::kTiledata:
      if (scene().tiles == 0) Add(Op::kLdtilecfg, {1, draw_.Tiles()});
      Add(Op::kTileloadd, {AnyTile(), pattern, rng().OneIn(6) ? rng().Below(256) : 64});
      return;
    default:
      return;
  }
}

uint64_t Builder::AnyTile() {
  uint8_t configured = 0;
  for (unsigned n = 0; n < 8; ++n) {
    if (((scene().tiles >> (8 * n)) & 0xff) != 0) configured |= static_cast<uint8_t>(1u << n);
  }
  return Member(configured, 8);
}

void Builder::StoreVector() {
  const uint32_t dirty = scene().zmm;
  const uint64_t reg = dirty == 0 || rng().OneIn(4) ? rng().Below(32) : RandomBit(dirty, rng());
  if (reg < 16 && rng().OneIn(2) && Add(Op::kVexStore256, {reg})) return;
  if (Add(Op::kEvexStore512, {reg})) return;
  if (!Add(Op::kVexStore256, {reg % 16})) Add(Op::kSseStore, {reg % 16});
}

void Builder::Store(Component c) {
  switch (c) {
    case Component::kX87:
      AddOneOf({Op::kFstpTbyte, Op::kFstpTbyte, Op::kFnstcw, Op::kFnstsw, Op::kMmxStore});
      return;
    case Component::kSse:
      AddOneOf({Op::kSseStore, Op::kSseStore, Op::kStmxcsr});
      return;
    case Component::kOpmask:
      Add(Op::kKmovStore, {Member(scene().k, 8)});
      return;
    case Component::kBndregs:
    case Component::kBndcsr:
      Add(Op::kBndmovStore, {Member(scene().bnd, 4)});
      return;
    case Component::kPkru:
      Add(Op::kRdpkru);
      return;
    case Component::kTilecfg:
      Add(Op::kSttilecfg);
      return;
    case Component::kTiledata:
      Add(Op::kTilestored, {AnyTile()});
      return;
    default:
      StoreVector();
      return;
  }
}

void Builder::Clear(Component c) {
  // Now and then one register keeps its value, so that the component is not quite initial.
  const uint32_t kept = rng().OneIn(8) ? OneBit(rng().Next()) : 0;
  switch (c) {
    case Component::kX87:
      AddOneOf({Op::kFninit, Op::kFninit, Op::kFninit, Op::kEmms, Op::kFfree, Op::kFnclex});
      return;
    case Component::kSse:
      if ((std::popcount(scene().zmm & kLowZmm) > 6 || rng().OneIn(3)) && Add(Op::kVzeroall))
        return;
      for (uint64_t n = 0; n < 16; ++n) {
        if ((scene().zmm & ~kept & OneBit(n)) != 0) Add(Op::kSsePxor, {n, n});
      }
      return;
    case Component::kAvx:
    case Component::kZmmHi256:
      if (kept != 0) {
        Add(Op::kVexLoad128, {rng().Below(16), 0});
      } else {
        AddOneOf({Op::kVzeroupper, Op::kVzeroupper, Op::kVzeroall});
      }
      return;
    case Component::kHi16Zmm:
      for (uint64_t n = 16; n < 32 && std::popcount(scene().zmm >> 16) <= 8; ++n) {
        if ((scene().zmm & ~kept & OneBit(n)) != 0) Add(Op::kEvexPxor512, {n, n, n});
      }
      return;
    case Component::kOpmask:
      for (uint64_t n = 0; n < 8; ++n) {
        if ((scene().k & ~kept & OneBit(n)) != 0) Add(Op::kKxor, {n, n, n});
      }
      return;
    case Component::kBndregs:
    case Component::kBndcsr:
      for (uint64_t n = 0; n < 4; ++n) {
        if ((scene().bnd & ~kept & OneBit(n)) != 0) Add(Op::kBndmovLoad, {n, 0});
      }
      return;
    case Component::kPkru:
      Add(Op::kWrpkru, {0});
      return;
    case Component::kTilecfg:
    case Component::kTiledata:
      if (rng().OneIn(3)) {
        Add(Op::kTilezero, {AnyTile()});
      } else if (rng().OneIn(2)) {
        Add(Op::kLdtilecfg, {rng().Below(2), draw_.Tiles()});
      } else {
        Add(Op::kTilerelease);
      }
      return;
    default:
      return;
  }
}

void Builder::LoadSome() {
  for (uint64_t n = 1 + rng().Below(5); n != 0; --n) Load(Focus());
}

void Builder::ClearSome() {
  // An XRSTOR from an untouched slot, whose XSTATE_BV is 0, clears whole components at once.
  if (rng().OneIn(5)) {
    const uint64_t slot = AnySlot();
    Add(Op::kMemHeader, {slot, 0, rng().OneIn(2) ? 0 : draw_.XcompBv(0)});
    Add(Op::kXrstor, {slot, 0, draw_.Rfbm(), rng().Below(2)});
    return;
  }
  for (uint64_t n = 1 + rng().Below(3); n != 0; --n) Clear(Focus());
}

uint64_t Builder::Member(uint8_t set, uint64_t count) {
  return set == 0 || rng().OneIn(12) ? rng().Below(count) : RandomBit(set, rng());
}

std::optional<uint64_t> Builder::Save(uint64_t slot, uint64_t rfbm) {
  constexpr Op kForms[] = {Op::kXsave,  Op::kXsave,    Op::kXsavec,   Op::kXsavec,
                           Op::kXsavec, Op::kXsaveopt, Op::kXsaveopt, Op::kXsaves};
  const Op form = palette_.PickOf(kForms, rng());
  if (!Add(form, {slot, 0, rfbm, rng().Below(2)})) return std::nullopt;
  return slot;
}

// What is drawn for a call is drawn before it: C++ leaves open which argument is evaluated first,
// and a seed is to give the same program whatever compiler built this.
void Builder::Save() {
  const uint64_t slot = AnySlot();
  Save(slot, draw_.Rfbm());
}

bool Builder::Restore(uint64_t slot, uint64_t rfbm) {
  const bool supervisor = ((scene().supervisor >> slot) & 1) != 0;
  const Op op = supervisor && Has(Op::kXrstors) ? Op::kXrstors : Op::kXrstor;
  return Add(op, {slot, 0, rfbm, rng().Below(2)});
}

void Builder::Restore() {
  const uint64_t slot = SavedSlot();
  Restore(slot, draw_.Rfbm());
}

bool Builder::Get(uint64_t image) {
  constexpr Op kGets[] = {Op::kGetXsave, Op::kGetXsave, Op::kGetXsave2, Op::kOsGetRegset,
                          Op::kOsSigframe};
  return Add(palette_.PickOf(kGets, rng()), {image});
}

void Builder::EditImage(uint64_t image) {
  for (uint64_t n = 1 + rng().Below(3); n != 0; --n) {
    const uint64_t offset = draw_.Offset();
    if (offset != 512 && offset != 520 && rng().OneIn(2)) {
      Add(Op::kImageFill, {image, offset, 1 + rng().Below(64), draw_.Pattern()});
    } else {
      Add(Op::kImageWrite, {image, offset, draw_.AreaValue(offset)});
    }
  }
}

void Builder::Exit() {
  AddOneOf({Op::kExitOut, Op::kExitOut, Op::kExitOut, Op::kExitMmioRead, Op::kExitMmioWrite,
            Op::kExitMmioVector, Op::kExitCpuid, Op::kExitHlt, Op::kExitMsr, Op::kExitPageFault});
}

void Builder::Disturb() {
  if (vcpus_ > 1 && !rng().OneIn(3)) return Elsewhere();
  // A fresh VM takes ten times as long as the rest together.
  if (rng().OneIn(24) && AddDrawn(Op::kMigrate)) return;
  AddOneOf({Op::kHostCpu, Op::kHostCpu, Op::kHostDirty, Op::kHostDirty, Op::kHostDirty,
            Op::kHostSignal, Op::kHostPkru, Op::kHostPreempt, Op::kHostThread, Op::kRunImmediate,
            Op::kGetMpState, Op::kOsSigframe});
}

void Builder::Between() {
  for (uint64_t n = rng().Below(4); n != 0; --n) rng().OneIn(2) ? Exit() : Disturb();
}

void Builder::Look() {
  if (looks_ == Looks::kHardly && !rng().OneIn(8)) return;
  if (looks_ == Looks::kSometimes && rng().OneIn(2)) return;
  switch (rng().Below(6)) {
    case 0:
      Get(AnyImage());
      return;
    case 1:
      Save();
      return;
    case 2:
      Add(Op::kXgetbv, {rng().OneIn(4) ? uint64_t{0} : 1});
      return;
    default:
      Store(Focus());
      return;
  }
}

}  // namespace fpswap::program
