// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/origin.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <climits>

#include "harness/judge/place.h"
#include "oracle/xstate/layout.h"

namespace fpswap::judge {
namespace {

using program::Op;
using Bytes = std::span<const uint8_t>;

// The pattern of every VMM thread's registers around KVM_RUN, plus its number
// (kvm-runner/canary.cc).
constexpr uint16_t kVmmThread = 0x4341;
constexpr unsigned kVmmThreads = 4;

// The offset of `bytes` in `image`, where all of its parts begin at multiples of 8; kNoHome for
// none.
size_t Find(Bytes image, Bytes bytes) {
  for (size_t at = 0; at + bytes.size() <= image.size(); at += 8) {
    if (HasAt(image, at, bytes)) return at;
  }
  return kNoHome;
}

// How many bits of `bytes` are others than in `image` at `at`; UINT_MAX where they have no place.
unsigned BitsFrom(Bytes image, size_t at, Bytes bytes) {
  if (at > image.size() || image.size() - at < bytes.size()) return UINT_MAX;
  unsigned bits = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bits += static_cast<unsigned>(std::popcount(static_cast<uint8_t>(image[at + i] ^ bytes[i])));
  }
  return bits;
}

// Steps with which another process or thread loads all registers with a pattern.
bool IsDisturbance(Op op) {
  return op == Op::kHostDirty || op == Op::kHostPreempt || op == Op::kHostFork;
}

std::string RegisterAt(const trace::Platform& platform, size_t offset) {
  std::string name = xstate::NameOfByte(platform.host.xsave, static_cast<uint32_t>(offset)).text;
  const size_t byte = name.rfind(" byte ");
  if (byte != std::string::npos) name.resize(byte);
  return name;
}

}  // namespace

std::vector<HostPattern> HostPatterns(const plan::Plan& plan, unsigned until) {
  std::vector<HostPattern> patterns;
  const auto others = [&](uint16_t pattern) {
    return std::ranges::any_of(plan.effective.steps, [&](const program::Step& step) {
      return !IsDisturbance(step.op) && std::ranges::find(step.arg, pattern) != step.arg.end();
    });
  };
  for (unsigned thread = 0; thread < kVmmThreads; ++thread) {
    const auto pattern = static_cast<uint16_t>(kVmmThread + thread);
    patterns.push_back(
        {pattern, "what the VMM's thread had in its own registers", !others(pattern)});
  }
  for (unsigned i = 0; i < std::min<size_t>(until, plan.effective.steps.size()); ++i) {
    const program::Step& step = plan.effective.steps[i];
    if (!IsDisturbance(step.op)) continue;
    const auto pattern = static_cast<uint16_t>(step.arg[0]);
    patterns.push_back(
        {pattern,
         fmt::format("what the other process or thread of step {} ({}) left in the registers", i,
                     program::RowOf(step).name),
         !others(pattern)});
  }
  return patterns;
}

bool IsHosts(Bytes seen, size_t home, const Surroundings& around) {
  if (home == kNoHome || !IsTelling(seen)) return false;
  const auto holds = [&](const Image& image) { return Find(image, seen) != kNoHome; };
  if (std::ranges::any_of(around.before, holds) || std::ranges::any_of(around.given, holds)) {
    return false;
  }
  std::vector<uint8_t> image(around.now.size());
  return std::ranges::any_of(around.host, [&](const HostPattern& each) {
    if (!each.only_hosts) return false;
    program::FillPattern(each.pattern, image);
    return HasAt(image, home, seen);
  });
}

std::string OriginOf(Bytes seen, size_t home, const Surroundings& around,
                     const trace::Platform& platform) {
  const bool telling = IsTelling(seen);
  // The place of `bytes` in an image: its own, or, if there are enough bytes to tell, any.
  const auto place = [&](Bytes image) {
    if (home != kNoHome && HasAt(image, home, seen)) return home;
    return telling ? Find(image, seen) : kNoHome;
  };
  // "its own" or the name of another register.
  const auto name = [&](size_t at) {
    return at == home ? std::string("the same register") : RegisterAt(platform, at);
  };
  if (!telling || around.now.empty()) return "";
  if (const size_t at = Find(around.now, seen); at != kNoHome && at != home) {
    return fmt::format("it is what {} of this vCPU holds", name(at));
  }
  for (size_t i = 0; i < around.before.size(); ++i) {
    const size_t at = place(around.before[i]);
    if (at == kNoHome) continue;
    return fmt::format("it is what {} of this vCPU held after step {}, or was to hold", name(at),
                       i < around.before_step.size() ? around.before_step[i] : 0);
  }
  for (const Image& image : around.others) {
    if (const size_t at = place(image); at != kNoHome) {
      return fmt::format("it is what {} of another vCPU holds", name(at));
    }
  }
  for (const Image& image : around.given) {
    if (place(image) != kNoHome) return "it is in an image that the VMM holds";
  }
  std::vector<uint8_t> image(around.now.size());
  for (const HostPattern& each : around.host) {
    program::FillPattern(each.pattern, image);
    if (place(image) != kNoHome) return "it is " + each.whose;
  }
  if (around.host.empty()) return "";  // not all of them are known
  if (const unsigned bits = BitsFrom(around.now, home, seen); bits <= seen.size()) {
    return fmt::format("it is what was due but for {} {}", bits, bits == 1 ? "bit" : "bits");
  }
  return "it is no value that the vCPUs, the VMM's images or the host's registers are known to "
         "have "
         "had; it may be an earlier program's";
}

}  // namespace fpswap::judge
