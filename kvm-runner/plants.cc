// SPDX-License-Identifier: GPL-2.0-or-later
//
// The table of planted bugs. To add one: a function that returns unless its condition holds, and a
// row.
#include "kvm-runner/plants.h"

#include <linux/kvm.h>

#include <algorithm>
#include <cstring>

#include "oracle/xstate/layout.h"

namespace fpswap::kvm {
namespace {

using xstate::Component;
using enum PlantPoint;

constexpr uint64_t kX87 = Bit(Component::kX87), kSse = Bit(Component::kSse),
                   kAvx = Bit(Component::kAvx), kOpmask = Bit(Component::kOpmask),
                   kZmmHi256 = Bit(Component::kZmmHi256), kHi16Zmm = Bit(Component::kHi16Zmm),
                   kPkru = Bit(Component::kPkru);
constexpr size_t kFcw = 0, kFop = 6, kMxcsr = 24, kSt = 32, kXmm = 160;

constexpr unsigned Index(uint64_t bit) { return static_cast<unsigned>(__builtin_ctzll(bit)); }

// The vCPU's state if all of `components` are in use in it.
struct InUse : PlantedState {
  InUse(const Host& host, Vcpu& vcpu, uint64_t components) : PlantedState(host, vcpu) {
    ok = Read() && (xstate_bv() & components) == components;
  }
  explicit operator bool() const { return ok; }
  bool ok = false;
};

void Drop(PlantedState& state, uint64_t components) {
  state.set_xstate_bv(state.xstate_bv() & ~components);
  state.Write();
}

bool Interrupted(const PlantEvent& e) {
  return e.point == kAfterRun && e.happened.signalled && e.vcpu.run().immediate_exit == 0;
}

uint64_t XstateBvOf(std::span<const uint8_t> image) {
  uint64_t value;
  std::memcpy(&value, &image[xstate::kHeaderOffset], sizeof(value));
  return value;
}

void YmmLostOnCpuChange(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kBeforeRun || !e.happened.cpu_changed) return;
  if (InUse state(host, e.vcpu, kAvx); state) Drop(state, kAvx);
}

void HighZmmAsLow(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kAfterRun || e.happened.exits != 3 || e.happened.signalled) return;
  InUse state(host, e.vcpu, kHi16Zmm);
  if (!state) return;
  const auto high = state.Part(Index(kHi16Zmm));
  for (size_t i = 0; i < 16; ++i) {
    std::memcpy(&state.image()[kXmm + 16 * i], &high[64 * i], 16);
  }
  state.set_xstate_bv(state.xstate_bv() | kSse);
  state.Write();
}

void K7ZeroedAfterXcr0(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kBeforeRun || !e.happened.xcr0_set) return;
  InUse state(host, e.vcpu, kOpmask);
  if (!state) return;
  std::ranges::fill(state.Part(Index(kOpmask)).subspan(56, 8), uint8_t{0});
  state.Write();
}

void MxcsrDefaultOnSet(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kSetXsave || e.result != 0) return;
  if ((XstateBvOf(e.image) & (kX87 | kSse)) != kSse) return;
  InUse state(host, e.vcpu, kSse);
  if (!state) return;
  constexpr uint32_t kDefault = 0x1f80;
  std::memcpy(&state.image()[kMxcsr], &kDefault, sizeof(kDefault));
  state.Write();
}

void PointersLostOnMigration(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kMigrated) return;
  InUse state(host, e.vcpu, kX87);
  if (!state) return;
  std::memset(&state.image()[kFop], 0, 18);  // FOP, FIP, FDP
  state.Write();
}

// Keeps the bytes of the component that leaks, and gives them to a program that comes later.
void LeftoverOfEarlierProgram(const Host& host, const PlantEvent& e, PlantMemory& memory) {
  const uint64_t leaking = host.guest_pku ? kPkru : kOpmask;
  if (e.point == kStart) {
    memory.flag = !memory.image.empty();
    return;
  }
  if (e.point == kAfterRun && e.happened.exits == 2) {
    InUse state(host, e.vcpu, leaking);
    if (!state) return;
    const auto part = state.Part(Index(leaking));
    memory.image.assign(part.begin(), part.end());
  } else if (e.point == kBeforeRun && e.happened.exits == 0 && memory.flag && e.happened.dirtied) {
    PlantedState state(host, e.vcpu);
    if (!state.Read()) return;
    std::ranges::copy(memory.image, state.Part(Index(leaking)).begin());
    state.set_xstate_bv(state.xstate_bv() | leaking);
    state.Write();
    memory.flag = false;
  }
}

void RefusedSetChangesYmm(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kSetXsave || e.result == 0 || (XstateBvOf(e.image) & kAvx) == 0) return;
  PlantedState state(host, e.vcpu);
  if (!state.Read() || state.Part(Index(kAvx)).empty()) return;
  const auto part = state.Part(Index(kAvx));
  const auto at = static_cast<size_t>(part.data() - state.image().data());
  std::memcpy(part.data(), &e.image[at], part.size());
  state.set_xstate_bv(state.xstate_bv() | kAvx);
  state.Write();
}

void Xcr0LostOnMigration(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point == kMigrated && e.value != 1) PlantedState(host, e.vcpu).SetXcr0(1);
}

void SetXcrsIgnored(const Host& host, const PlantEvent& e, PlantMemory& memory) {
  PlantedState state(host, e.vcpu);
  constexpr uint64_t kIgnored = kX87 | kSse | kAvx;
  if (e.point == kSetXcrs && e.result == 0 && e.xcrs->entry[0].value == kIgnored) {
    state.SetXcr0(memory.value);
  } else if (e.point == kStart || e.point == kAfterRun || e.point == kSetXcrs) {
    memory.value = state.Xcr0();
  }
}

// SetXcr0 is refused what is no value for XCR0.
void XcrsBehindRefusedOne(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kSetXcrs || e.result == 0 || e.xcrs->count != 2) return;
  const plan::Xcr& behind = e.xcrs->entry[1];
  if (behind.xcr == 0) PlantedState(host, e.vcpu).SetXcr0(behind.value);
}

void OpmaskDroppedAtImmediateExit(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kAfterRun || e.vcpu.run().immediate_exit == 0) return;
  if (InUse state(host, e.vcpu, kOpmask); state) Drop(state, kOpmask);
}

void StaleSecondGet(const Host& host, const PlantEvent& e, PlantMemory& memory) {
  if (e.point == kStart) memory.image.clear();
  if (e.point != kGetXsave) return;
  if (e.happened.gets == 1) {
    memory.image.assign(e.image.begin(), e.image.end());
  } else if (e.happened.gets == 2 && (XstateBvOf(e.image) & kZmmHi256) != 0) {
    std::memcpy(e.image.data(), memory.image.data(), std::min(e.image.size(), memory.image.size()));
  }
  (void)host;
}

void StOffByOneAfterSignal(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (!Interrupted(e)) return;
  InUse state(host, e.vcpu, kX87);
  if (!state) return;
  const auto first = state.image().begin() + kSt;
  std::rotate(first, first + 16, first + 128);
  state.Write();
}

void ZmmHiSwappedAfterFaults(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kBeforeRun || e.happened.faults != 2) return;
  InUse state(host, e.vcpu, kZmmHi256);
  if (!state) return;
  const auto part = state.Part(Index(kZmmHi256));
  std::swap_ranges(part.begin() + 3 * 32, part.begin() + 4 * 32, part.begin() + 4 * 32);
  state.Write();
}

void CanaryClobbered(const Host&, const PlantEvent& e, PlantMemory&) {
  // From outside nothing can be changed between the system call and XSAVE, so it is done just
  // after.
  if (Interrupted(e)) e.canary[kXmm + 5 * 16] ^= 0x40;
}

void XmmHighLostAtMmio(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kAfterRun || e.happened.last_exit != KVM_EXIT_MMIO) return;
  InUse state(host, e.vcpu, kSse);
  if (!state) return;
  for (size_t i = 0; i < 16; ++i) std::memset(&state.image()[kXmm + 16 * i + 8], 0, 8);
  state.Write();
}

void AvxLostWhenSseInitial(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kBeforeRun || !e.happened.dirtied) return;
  InUse state(host, e.vcpu, kAvx);
  if (!state) return;
  const auto xmm = state.image().subspan(kXmm, 256);
  if (std::ranges::all_of(xmm, [](uint8_t b) { return b == 0; })) Drop(state, kAvx);
}

void FcwLostInSecondMigration(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kMigrated || e.happened.migrations != 2) return;
  InUse state(host, e.vcpu, kX87);
  if (!state) return;
  constexpr uint16_t kDefault = 0x37f;
  std::memcpy(&state.image()[kFcw], &kDefault, sizeof(kDefault));
  state.Write();
}

void HighZmmOfAnotherProgram(const Host& host, const PlantEvent& e, PlantMemory& memory) {
  const unsigned part_of = Index(kHi16Zmm);
  if (e.point == kAfterRun && e.happened.exits == 1) {
    InUse state(host, e.vcpu, kHi16Zmm);
    if (!state || memory.flag) return;
    const auto part = state.Part(part_of);
    memory.image.assign(part.begin(), part.end());
    memory.flag = true;
  } else if (e.point == kMigrated && memory.flag) {
    // Only where the program has none of its own, as when a kernel forgets to initialise.
    PlantedState state(host, e.vcpu);
    if (!state.Read() || (state.xstate_bv() & kHi16Zmm) != 0 || state.Part(part_of).empty()) return;
    std::ranges::copy(memory.image, state.Part(part_of).begin());
    state.set_xstate_bv(state.xstate_bv() | kHi16Zmm);
    state.Write();
    memory.flag = false;
  }
}

void OpmaskSlotsAfterHlt(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kAfterRun || e.happened.last_exit != KVM_EXIT_HLT) return;
  InUse state(host, e.vcpu, kOpmask);
  if (!state) return;
  const auto k = state.Part(Index(kOpmask));
  std::rotate(k.begin(), k.begin() + 8, k.end());
  state.Write();
}

// Keeps what the last KVM_RUN left in ZMM16-31, with its thread and vCPU.
void HighZmmOfAnotherVcpu(const Host& host, const PlantEvent& e, PlantMemory& memory) {
  if (e.point == kStart) memory.image.clear();
  if (e.other == nullptr) return;
  const uint64_t who = e.thread << 8 | e.vcpu.number;
  const unsigned part_of = Index(kHi16Zmm);
  if (e.point == kAfterRun) {
    InUse state(host, e.vcpu, kHi16Zmm);
    memory.image.clear();
    if (!state) return;
    const auto part = state.Part(part_of);
    memory.image.assign(part.begin(), part.end());
    memory.value = who;
  } else if (e.point == kBeforeRun && !memory.image.empty() && memory.value >> 8 == e.thread &&
             memory.value != who) {
    // Only where it has some of its own: a kernel that takes the state for loaded already.
    InUse state(host, e.vcpu, kHi16Zmm);
    if (!state) return;
    std::ranges::copy(memory.image, state.Part(part_of).begin());
    state.Write();
  }
}

void RefusedSetChangesAnotherVcpu(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kSetXsave || e.result == 0 || e.other == nullptr) return;
  InUse state(host, *e.other, kSse);
  if (!state) return;
  std::ranges::copy(e.image.subspan(kXmm, 256), state.image().begin() + kXmm);
  state.Write();
}

void OpmaskLostAtFork(const Host& host, const PlantEvent& e, PlantMemory&) {
  if (e.point != kForked) return;
  if (InUse state(host, e.vcpu, kOpmask); state) Drop(state, kOpmask);
}

constexpr PlantRow kPlants[] = {
    {"ymm-lost-on-cpu-change", "YMM_Hi128 becomes initial when the vCPU's thread changed the CPU.",
     "model", YmmLostOnCpuChange},
    {"high-zmm-as-low", "After the third exit XMM0-15 show what ZMM16-31 hold.", "model",
     HighZmmAsLow},
    {"k7-zeroed-after-xcr0", "K7 is zero in runs after XCR0 was written.", "model",
     K7ZeroedAfterXcr0},
    {"mxcsr-default-on-set", "KVM_SET_XSAVE of an image with SSE but no x87 loads MXCSR 1F80H.",
     "model", MxcsrDefaultOnSet},
    {"pointers-lost-on-migration", "FOP, FIP and FDP become 0 in a migration.", "round trip",
     PointersLostOnMigration},
    {"leftover-of-earlier-program",
     "PKRU (without PKU: the opmasks) of an earlier program is there in a program that begins "
     "after "
     "the competitor ran.",
     "isolation", LeftoverOfEarlierProgram},
    {"refused-set-changes-ymm", "KVM_SET_XSAVE that fails takes YMM_Hi128 all the same.", "refusal",
     RefusedSetChangesYmm},
    {"xcr0-lost-on-migration", "XCR0 is 1 after a migration.", "round trip", Xcr0LostOnMigration},
    {"set-xcrs-ignored", "KVM_SET_XCRS of x87+sse+avx succeeds and changes nothing.", "model",
     SetXcrsIgnored},
    {"xcrs-behind-refused-one",
     "KVM_SET_XCRS goes on to the second entry when the first is refused.", "refusal",
     XcrsBehindRefusedOne},
    {"opmask-dropped-at-immediate-exit", "KVM_RUN with immediate_exit makes the opmasks initial.",
     "model", OpmaskDroppedAtImmediateExit},
    {"stale-second-get", "The second image read of a program with ZMM_Hi256 in use is the first.",
     "coherence", StaleSecondGet},
    {"st-off-by-one-after-signal", "ST(0)-ST(7) are one slot off after a signal in KVM_RUN.",
     "model", StOffByOneAfterSignal},
    {"zmm-hi-swapped-after-faults",
     "After two faults the upper halves of ZMM3 and ZMM4 change "
     "places at each entry.",
     "model", ZmmHiSwappedAfterFaults},
    {"canary-clobbered", "The VMM's XMM5 is another after a signal in KVM_RUN.", "isolation",
     CanaryClobbered},
    {"xmm-high-lost-at-mmio", "An MMIO exit zeroes the upper halves of XMM0-15.", "model",
     XmmHighLostAtMmio},
    {"avx-lost-when-sse-initial",
     "YMM_Hi128 becomes initial when the competitor ran while all XMM "
     "were zero.",
     "model", AvxLostWhenSseInitial},
    {"fcw-lost-in-second-migration", "The second migration of a program resets FCW.", "round trip",
     FcwLostInSecondMigration},
    {"high-zmm-of-another-program",
     "A migration gives ZMM16-31 of an earlier program where the "
     "vCPU has none of its own.",
     "isolation", HighZmmOfAnotherProgram},
    {"opmask-slots-after-hlt", "After HLT each opmask holds its neighbour's value.", "model",
     OpmaskSlotsAfterHlt},
    {"high-zmm-of-another-vcpu",
     "A vCPU that runs next on a thread where another one ran shows the other's ZMM16-31.",
     "isolation", HighZmmOfAnotherVcpu},
    {"refused-set-changes-another",
     "KVM_SET_XSAVE that fails puts the image's XMM into another vCPU.", "refusal",
     RefusedSetChangesAnotherVcpu},
    {"opmask-lost-at-fork", "The opmasks become initial when the VMM forks.", "model",
     OpmaskLostAtFork},
};

}  // namespace

std::span<const PlantRow> PlantTable() { return kPlants; }

const PlantRow* FindPlant(std::string_view name) {
  const auto found = std::ranges::find(kPlants, name, &PlantRow::name);
  return found == std::end(kPlants) ? nullptr : found;
}

}  // namespace fpswap::kvm
