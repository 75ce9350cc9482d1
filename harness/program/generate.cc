// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/generate.h"

#include <algorithm>

#include "harness/program/builder.h"
#include "harness/program/header.h"
#include "harness/program/idioms.h"

namespace fpswap::program {
namespace {

// Where drawing a program gives up: a palette may hold only steps that an idiom has no use for.
constexpr unsigned kMaxTries = 4 * kMaxSteps;

size_t DrawLength(Rng& rng) {
  switch (rng.Below(16)) {
    case 0:
    case 1:
      return 1 + rng.Below(3);
    case 2:
      return 24 + rng.Below(41);
    default:
      return 4 + rng.Below(15);
  }
}

bool Allowed(const Idiom& idiom, const Builder& b) {
  return idiom.needs == Palette::kNoOp || b.Has(idiom.needs);
}

// A last look at everything: by the guest, by the VMM, by both (which must agree), or by nobody.
void Close(Builder& b) {
  if (b.vcpus() > 1) b.OnAnyVcpu();
  const uint64_t mode = b.rng().Below(6);
  if (mode <= 2) b.Save(b.AnySlot(), ~uint64_t{0});
  if (mode >= 2 && mode <= 4) b.Get(b.AnyImage());
}

}  // namespace

uint64_t Rng::Next() {
  uint64_t x = state_ += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t Rng::Below(uint64_t n) {
  // The high half of the product: even to within n / 2^64.
  return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64);
}

bool AddIdiom(Builder& b) {
  if (b.vcpus() > 1) b.OnAnyVcpu();
  const std::span<const Idiom> tables[] = {GuestIdioms(), VmmIdioms(), OsIdioms(),
                                           b.vcpus() > 1 ? VcpuIdioms() : std::span<const Idiom>()};
  uint64_t total = 0;
  for (const auto& table : tables) {
    for (const Idiom& idiom : table) total += Allowed(idiom, b) ? idiom.weight : 0;
  }
  uint64_t left = b.rng().Below(total);
  for (const auto& table : tables) {
    for (const Idiom& idiom : table) {
      if (!Allowed(idiom, b)) continue;
      if (left < idiom.weight) {
        const size_t before = b.steps().size();
        idiom.run(b);
        return b.steps().size() != before;
      }
      left -= idiom.weight;
    }
  }
  return false;
}

void DrawHeader(Program& p, Rng& rng, const Profile& profile) {
  Draw draw(rng, profile);
  p.features = rng.OneIn(4) ? draw.LegalMask(profile.features) : profile.features;
  p.xcr0 = rng.OneIn(3) ? draw.LegalMask(p.features) : p.features;
  p.pke = !rng.OneIn(8);
}

// One program in four has several vCPUs, mostly two.
void DrawVcpus(Program& p, Rng& rng, const Profile& profile) {
  if (profile.vcpus < 2 || !rng.OneIn(4)) return;
  p.vcpus = static_cast<uint8_t>(2 + (rng.OneIn(3) ? rng.Below(profile.vcpus - 1) : 0));
  p.own_vm = rng.OneIn(2);
  p.own_thread = rng.OneIn(3);
}

Program Generate(Rng& rng, const Profile& profile) {
  const Palette all(profile);
  const Palette palette = rng.OneIn(2) ? all : all.Thinned(rng);
  Program p;
  DrawHeader(p, rng, profile);
  DrawVcpus(p, rng, profile);
  // Few programs find room for it by chance: a fpstate grows where the vCPU began with less.
  const bool new_cpuid = palette.Has(Op::kSetCpuid) && rng.OneIn(24);
  if (new_cpuid) {
    p.features = Draw(rng, profile).LegalMask(profile.features);
    p.xcr0 &= p.features;
  }
  Builder b(rng, profile, palette, p, {});
  if (new_cpuid) NewCpuid(b);
  const size_t length = DrawLength(rng);
  if (length > 3 && rng.OneIn(3)) b.LoadSome();
  // Single steps only, where an idiom would not fit; else some of them between the idioms.
  const bool singles = length <= 3 || rng.OneIn(8);
  for (unsigned tries = 0; b.steps().size() < length && tries < kMaxTries; ++tries) {
    if (b.vcpus() > 1) b.OnAnyVcpu();
    if (singles || rng.OneIn(3) || !AddIdiom(b)) b.AddAny();
  }
  if (length > 3 && rng.OneIn(2)) Close(b);
  p.steps = std::move(b.steps());
  if (p.steps.size() > kMaxSteps) p.steps.resize(kMaxSteps);
  return p;
}

}  // namespace fpswap::program
