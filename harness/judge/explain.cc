// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "harness/judge/context.h"
#include "harness/judge/origin.h"
#include "harness/judge/place.h"
#include "harness/plan/vmm.h"
#include "harness/program/text.h"
#include "oracle/kvm/uabi.h"
#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using xstate::Component;
using Bytes = std::span<const uint8_t>;

constexpr size_t kChunk = 16;  // what is looked for: a register's worth

bool AllZero(Bytes bytes) {
  return std::ranges::all_of(bytes, [](uint8_t b) { return b == 0; });
}

// Offset of `bytes` in `image` at multiples of `step`, other than `but`.
bool FoundElsewhere(Bytes image, Bytes bytes, size_t step, size_t but) {
  for (size_t at = 0; at + bytes.size() <= image.size(); at += step) {
    if (at != but && HasAt(image, at, bytes)) return true;
  }
  return false;
}

// The initial value of the bytes of a standard-format image at `at`.
bool IsInitialAt(Bytes bytes, size_t at) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    uint8_t initial = 0;
    if (at + i == 0) initial = 0x7f;
    if (at + i == 1) initial = 0x03;
    if (at + i == 24) initial = 0x80;
    if (at + i == 25) initial = 0x1f;
    if (bytes[i] != initial) return false;
  }
  return true;
}

// Whether another vCPU of the program holds these bytes: in the same place, or, if there are enough
// of them to tell, anywhere.
bool IsOtherVcpus(Bytes seen, size_t home, const Surroundings& around) {
  return std::ranges::any_of(around.others, [&](const Image& image) {
    return (home != kNoHome && HasAt(image, home, seen)) ||
           (IsTelling(seen) && FoundElsewhere(image, seen, 8, SIZE_MAX));
  });
}

// Law 4: no vCPU sees a byte of another's state. Bytes enough to be told, that are not this one's
// own in another place, and that the VMM has not brought over by an image.
bool Leaked(Bytes seen, size_t home, const Surroundings& around) {
  const auto given = [&](const Image& image) { return FoundElsewhere(image, seen, 8, SIZE_MAX); };
  return IsTelling(seen) && IsOtherVcpus(seen, home, around) &&
         !FoundElsewhere(around.now, seen, 8, home) && !std::ranges::any_of(around.given, given);
}

// Whether these are the upper half of FIP or FDP, as a CPU may have kept what `image` has there.
bool MayBePointerOf(const Image& image, Bytes seen, size_t home) {
  if ((home != 12 && home != 20) || seen.size() != 4 || image.size() < 24) return false;
  const auto low = xstate::ReadAt<uint32_t>(image, home - 4);
  const auto high = xstate::ReadAt<uint32_t>(seen, 0);
  return cpu::PointerMayRead(xstate::ReadAt<uint64_t>(image, home - 4), uint64_t{high} << 32 | low);
}

// `home`: offset of the chunk in a standard-format image, kNoHome if it has none.
Relation Classify(Bytes possible, Bytes seen, size_t home, const Surroundings& around) {
  const bool has_home = home != kNoHome;
  const auto initial = [&](Bytes b) { return has_home ? IsInitialAt(b, home) : AllZero(b); };
  if (initial(seen) || (AllZero(seen) && !initial(possible))) return Relation::kInitial;
  if (around.any_pointers && has_home && home >= 4 && home < 24) return Relation::kStale;
  for (const Image& image : around.before) {
    const bool here = has_home ? HasAt(image, home, seen) || MayBePointerOf(image, seen, home)
                               : IsTelling(seen) && FoundElsewhere(image, seen, 8, SIZE_MAX);
    if (here) return Relation::kStale;
  }
  if (IsOtherVcpus(seen, home, around)) return Relation::kAnothers;
  if (IsTelling(seen)) {
    if (FoundElsewhere(around.now, seen, 8, home)) return Relation::kAnothers;
    if (FoundElsewhere(around.now, seen, 1, home)) return Relation::kShifted;
  }
  return initial(possible) ? Relation::kInvented : Relation::kOther;
}

// Whether a save has left these bytes of its area, which are not plainly initial, as they were.
// `at`: their offset in what was compared, which begins where the slot does.
bool IsLeftAlone(Bytes seen, size_t at, Place place, const Surroundings& around) {
  return place == Place::kArea && !AllZero(seen) && HasAt(around.memory, at, seen);
}

std::string Hex(Bytes bytes) {
  std::string out;
  for (uint8_t b : bytes) out += fmt::format("{}{:02x}", out.empty() ? "" : " ", b);
  return out;
}

std::string FaultName(uint64_t value) {
  if (value == 0) return "no fault";
  static constexpr const char* kNames[32] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM",
                                             "#DF", "9",   "#TS", "#NP", "#SS", "#GP", "#PF", "15",
                                             "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};
  const auto vector = static_cast<uint8_t>(value);
  const char* name = vector < 32 ? kNames[vector] : nullptr;
  const std::string text = name != nullptr ? name : fmt::format("vector {}", vector);
  return value >> 8 != 0 ? fmt::format("{}({:#x})", text, value >> 8) : text;
}

std::string Subject(const Explained& what) {
  if (what.step == nullptr) return "The program";
  return fmt::format("Step {} ({})", what.number, program::PrintStep(*what.step));
}

// Values, not bytes: a fault, an errno, an exit, a missing record.
void ExplainValues(const Explained& what, const Mismatch& m, Divergence& d) {
  d.where = m.what;
  if (!m.values) {
    d.words = fmt::format("{}: {} {}.", Subject(what), m.what,
                          m.relation == Relation::kAccepted ? "is there and must not be"
                                                            : "is missing or has the wrong size");
    return;
  }
  d.bits = m.expected ^ m.actual;
  d.possible_value = m.expected;
  d.seen_value = m.actual;
  const bool fault = d.where.starts_with(kFault);
  const auto name = [&](uint64_t v) { return fault ? FaultName(v) : fmt::format("{:#x}", v); };
  d.words = fmt::format("{}: {} must be {}, and was {}.", Subject(what), m.what, name(m.expected),
                        name(m.actual));
}

// The register that differs, within the window: the fields that begin the legacy region are smaller
// than others.
struct Chunk {
  bool small = false;
  uint32_t at = 0, size = 0;
};
Chunk ChunkOf(const PlaceName& name, const Mismatch& m) {
  const bool small = name.exact < 32;
  const uint32_t at = small ? (m.offset - m.window) & ~3u : 0;
  return {small, at, std::min<uint32_t>(m.size - at, small ? 4 : kChunk)};
}

void ExplainBytes(const Explained& what, const Mismatch& m, const Surroundings& around,
                  Divergence& d) {
  const PlaceName name = NamePlace(what, m);
  d.where = name.where;
  d.has_component = name.has_component;
  d.component = name.component;
  d.offset = m.offset;
  d.possible.assign(m.possible.begin(), m.possible.begin() + m.size);
  d.seen.assign(m.seen.begin(), m.seen.begin() + m.size);
  const uint32_t begin = m.offset - m.window;
  for (uint32_t i = begin; i < m.size && i < begin + 8; ++i) {
    d.bits |= uint64_t{static_cast<uint8_t>(m.possible[i] ^ m.seen[i])} << (8 * (i - begin));
  }
  const auto [small, at, size] = ChunkOf(name, m);
  const Bytes possible = Bytes(m.possible).subspan(at, size);
  const Bytes seen = Bytes(m.seen).subspan(at, size);
  std::string_view whose;
  if (m.relation == Relation::kOther && name.is_bitmap) {
    d.relation = name.bit_lost ? Relation::kInitial : Relation::kInvented;
  } else if (m.relation == Relation::kOther) {
    const size_t home = small ? name.exact & ~size_t{3} : name.home;
    const bool left = IsLeftAlone(seen, begin + at, m.place, around);
    d.relation = left ? Relation::kStale : Classify(possible, seen, home, around);
    if (d.relation == Relation::kAnothers && Leaked(seen, home, around)) {
      d.law = Law::kIsolation;
      whose = "of another vCPU";
    }
    const size_t in_register = home != kNoHome         ? home
                               : name.exact != kNoHome ? name.exact - (m.offset - m.window)
                                                       : kNoHome;
    if (d.relation != Relation::kStale && IsHosts(seen, in_register, around)) {
      d.law = Law::kIsolation;
      d.relation = Relation::kAnothers;
      whose = "of the host";
    }
    // An opmask register is half a window: its neighbour says nothing of where it comes from.
    const bool half = d.has_component && d.component == Component::kOpmask && seen.size() == 16;
    const size_t from = half && m.offset - m.window >= 8 ? 8 : 0;
    d.origin = left ? "it is what the area held before"
                    : OriginOf(half ? seen.subspan(from, 8) : seen,
                               home == kNoHome ? kNoHome : home + from, around, what.platform);
  }
  d.words = fmt::format("{}: {} must hold {}, and held {} ({}; {} bytes differ).", Subject(what),
                        d.where, Hex(possible), Hex(seen),
                        whose.empty() ? RelationName(d.relation) : whose, m.differing);
}

Divergence Base(const program::Step* step, uint16_t number, Law law) {
  Divergence d;
  d.law = law;
  d.step = number;
  d.op = step != nullptr ? static_cast<uint8_t>(step->op) : 0;
  return d;
}

// The register that holds the first byte that differs, where registers have four bytes.
uint32_t SeenMxcsr(const Mismatch& m) {
  return xstate::ReadAt<uint32_t>(Bytes(m.seen).first(m.size), (m.offset - m.window) & ~3u);
}

bool HasOddBitmapBase(uint64_t cet) { return (cet & 0x3000) != 0; }

// Whether such a bitmap is all that the call can have been refused for.
bool IsRefusedForBitmapBase(const Explained& what, const Divergence& d) {
  if (what.step == nullptr || what.world == nullptr) return false;
  if (what.step->op == program::Op::kSetMsr) {
    const auto msr = static_cast<program::Msr>(what.step->arg[0]);
    const bool flags = msr == program::Msr::kUCet || msr == program::Msr::kSCet;
    return flags && d.relation == Relation::kRefused && HasOddBitmapBase(what.step->arg[1]);
  }
  constexpr size_t kSize = sizeof(plan::MigrateFailure);
  if (what.step->op != program::Op::kMigrate || what.seen.size() % kSize != 0) return false;
  for (size_t at = 0; at < what.seen.size(); at += kSize) {
    const auto failure = xstate::ReadAt<plan::MigrateFailure>(what.seen, at);
    if (failure.call != static_cast<uint8_t>(plan::MigrateCall::kMsrs) || failure.saving != 0 ||
        failure.vcpu >= what.world->vcpus) {
      return false;
    }
    const cpu::Cpu& cpu = what.world->vcpu[failure.vcpu].cpu;
    if (!HasOddBitmapBase(cpu.regs.cet_u[0]) && !HasOddBitmapBase(cpu.s_cet)) return false;
  }
  return !what.seen.empty();
}

// AMD family 19h (measured on model 11H): while AVX holds its initial value and ZMM_Hi256 does not,
// XINUSE[2] comes to read 1 (a legacy SSE write is enough) though the CPU takes AVX for unmodified,
// so XSAVEOPT and XSAVES set XSTATE_BV[2] over bytes they did not write: the area then declares
// stale bytes to be AVX state, and if it is the kernel's, the next XRSTORS loads them. Other CPUs
// write a component that they declare to be in use (SDM vol. 1, 13.9). So it shows in registers
// that have to be zero, and are what that memory held, which is a value that the register or the
// area has had before. In a vCPU that is within the program, for BringToStart (kvm-runner/start.cc)
// leaves nothing of an earlier one; a thread's buffer can't be reset so, and may bring back what an
// earlier program left.
//
// KVM, of a host with PKRU: KVM_GET_XSAVE leaves a PKRU out that is not 0 where KVM_SET_XSAVE of an
// image without it was the last thing to touch the fpstate, or a KVM_RUN whose VMM has PKRU = 0
// (corpus/known/kvm-get-xsave-pkru-bit). A migration by that image makes PKRU 0.
//
// Linux with compacted buffers: __copy_xstate_to_uabi_buf takes MXCSR and MXCSR_MASK from the
// buffer if XSTATE_BV has AVX, though XSAVES writes them with SSE only (SDM vol. 1, 13.11), whose
// bit it sets if MXCSR is not 1F80H.
//
// KVM, of a host that keeps the standard format: the guest's XRSTOR takes MXCSR from the fpstate
// whatever XSTATE_BV says (SDM vol. 1, 13.8.1), and KVM_GET_XSAVE shows 1F80H where XSTATE_BV has
// neither SSE nor AVX (corpus/known/kvm-get-xsave-mxcsr-left-out). A migration makes it so.
//
// KVM's struct kvm_fpu has an mxcsr that KVM_GET_FPU does not fill; it is 0.
//
// KVM, from the first that offers CET: kvm_is_valid_u_s_cet refuses a bitmap whose base is not a
// multiple of 16 KiB, which no CPU does (corpus/known/kvm-cet-bitmap-base).
//
// None brings over what is another's: that is never excused.
std::string CauseOf(const Explained& what, const Mismatch& m, const Divergence& d) {
  if (d.law == Law::kIsolation) return "";
  const auto is_of = [&](Component c) { return d.has_component && d.component == c; };
  const bool in_image = m.place == Place::kImage;
  const xstate::ImageView shown(what.seen);  // where it is an image
  if (is_of(Component::kPkru) && d.relation == Relation::kInitial) {
    if (what.pkru_lost) return "pkru-lost-by-migration";
    if (what.pkru_left_out && in_image && !shown.present(Component::kPkru)) return "pkru-left-out";
  }
  // The register as it is then lets an access through that must not be.
  if (what.pkru_lost && d.where == kFault && d.relation == Relation::kAccepted &&
      static_cast<uint8_t>(m.expected) == cpu::kPF && (m.expected >> 8 & kPfPk) != 0) {
    return "pkru-lost-by-migration";
  }
  const bool initial_sse = what.cpu != nullptr && what.cpu->IsInitial(Component::kSse) &&
                           what.cpu->regs.mxcsr == cpu::kInitialMxcsr;
  if (what.platform.compacted && initial_sse && in_image && is_of(Component::kSse) &&
      d.where.starts_with("MXCSR")) {
    const bool alone = shown.present(Component::kAvx) && !shown.present(Component::kSse);
    return alone ? "mxcsr-of-avx-alone" : "";
  }
  if (m.place == Place::kFpu && d.where == "MXCSR of kvm_fpu" && SeenMxcsr(m) == 0) {
    return "fpu-mxcsr-zero";
  }
  if (m.place == Place::kFpu && what.fpu_of_old && d.initial) return "fpu-of-old";
  const bool fx = what.step != nullptr &&
                  (what.step->op == program::Op::kFxsave || what.step->op == program::Op::kFxrstor);
  if (fx && what.step->arg[1] % 16 != 0 && d.where == kFault) return "fx-misaligned";
  if (IsRefusedForBitmapBase(what, d)) return "cet-bitmap-base-refused";
  const bool mxcsr = d.where.starts_with("MXCSR") ||
                     (what.step != nullptr && what.step->op == program::Op::kStmxcsr);
  if (what.mxcsr_left_out && mxcsr && SeenMxcsr(m) == cpu::kInitialMxcsr) return kMxcsrLeftOut;
  if (what.cpu == nullptr || !what.cpu->features->amd || m.place == Place::kNone) return "";
  if (!is_of(Component::kAvx)) return "";
  if (d.relation != Relation::kStale && what.platform.HasVmm()) return "";
  const size_t in_register = std::min<size_t>(m.size, 16);
  if (!AllZero(Bytes(m.possible).first(in_register))) return "";
  const bool holds = what.avx_under_zmm || (what.cpu->IsInitial(Component::kAvx) &&
                                            !what.cpu->IsInitial(Component::kZmmHi256));
  return holds ? "avx-initial-under-zmm" : "";
}

}  // namespace

bool IsTelling(Bytes bytes) {
  std::array<bool, 256> seen{};
  for (uint8_t b : bytes) seen[b] = true;
  return std::ranges::count(seen, true) >= 4;
}

bool HasAt(Bytes image, size_t at, Bytes bytes) {
  return at <= image.size() && image.size() - at >= bytes.size() &&
         std::equal(bytes.begin(), bytes.end(), image.begin() + static_cast<ptrdiff_t>(at));
}

Image ImageOf(const kvm::Vcpu& vcpu) {
  kvm::Vcpu copy = vcpu;
  Image image(vcpu.host->image_size);
  kvm::ExpectXsave(copy, {}, image);
  return image;
}

Divergence Explain(const Explained& what, const Mismatch& m, const Surroundings& around) {
  Divergence d = Base(what.step, what.number, m.law);
  d.relation = m.relation;
  d.rule = m.rule;
  if (m.place == Place::kNone) {
    ExplainValues(what, m, d);
  } else {
    ExplainBytes(what, m, around, d);
  }
  d.initial = what.cpu != nullptr && d.has_component && what.cpu->IsInitial(d.component);
  d.cause = CauseOf(what, m, d);
  return d;
}

void TakeAway(const Explained& what, const Mismatch& m, std::span<uint8_t> seen) {
  const PlaceName name = NamePlace(what, m);
  const uint32_t begin = m.offset - m.window;
  if (name.is_bitmap) {  // its lowest bit is the lowest of its lowest byte
    const auto differ = static_cast<uint8_t>(m.possible[begin] ^ m.seen[begin]);
    seen[m.offset] ^= static_cast<uint8_t>(differ & -differ);
    return;
  }
  const Chunk chunk = ChunkOf(name, m);
  std::copy_n(m.possible.begin() + chunk.at, chunk.size, seen.begin() + m.window + chunk.at);
}

Divergence ExplainCanary(const trace::Platform& platform, const program::Step* step,
                         uint16_t number, uint64_t components, Bytes before, Bytes after,
                         const Surroundings& around) {
  Mismatch m;
  m.law = Law::kIsolation;
  m.rule = "KVM: fpu_swap_kvm_fpstate; law 4: KVM_RUN keeps the registers of its thread";
  m.place = Place::kImage;
  const bool same = SameBytes(before, after, m);
  const Explained what{platform, step, number, nullptr, after};
  if (!same) {
    Divergence d = Explain(what, m, around);
    const size_t suffix = d.where.rfind(" of the image");
    d.where = d.where.substr(0, suffix) + " of the VMM thread";
    // The guest's own values are the worst that can be found there.
    const auto chunk = Bytes(m.seen).first(std::min<size_t>(m.size, kChunk));
    if (IsTelling(chunk) &&
        (FoundElsewhere(around.now, chunk, 8, SIZE_MAX) || IsOtherVcpus(chunk, kNoHome, around))) {
      d.relation = Relation::kAnothers;
    }
    d.words = fmt::format("KVM_RUN at step {} changed {} from {} to {}.", number, d.where,
                          Hex(Bytes(m.possible).first(chunk.size())), Hex(chunk));
    return d;
  }
  Divergence d = Base(step, number, Law::kIsolation);
  d.rule = m.rule;
  d.where = "registers of the VMM thread";
  if (components != 0) {
    const auto bit = static_cast<unsigned>(std::countr_zero(components));
    d.has_component = bit < xstate::kComponentCount;
    if (d.has_component) d.component = static_cast<Component>(bit);
  }
  d.bits = components;
  d.words = fmt::format("KVM_RUN at step {} changed components {} of the VMM thread.", number,
                        program::PrintMask(components));
  return d;
}

Divergence ExplainFailure(const program::Step& step, uint16_t number, unsigned failure) {
  Divergence d = Base(&step, number, Law::kCoherence);
  if (failure == kCpuidLosesState) {
    d.rule = "KVM: fpstate_realloc; law 2";
    d.relation = Relation::kInitial;
    d.where = "state of the guest";
    d.cause = "grown-without-copy";
    d.words = fmt::format(
        "Step {} ({}): the guest's FPU state is initial from here on, as a later step shows: "
        "the call gave it a larger fpstate, for tiles, and left behind what the old one held.",
        number, program::PrintStep(step));
    return d;
  }
  d.rule = "KVM: kvm_arch_vcpu_ioctl_set_fpu; law 2";
  d.has_component = true;
  const char* why = "";
  if (failure == kFpuLosesX87) {
    d.component = Component::kX87;
    d.relation = Relation::kInitial;
    d.where = "x87 state of kvm_fpu";
    why = "the fpstate's XSTATE_BV has no x87 bit and the call sets none";
  } else if (failure == kFpuLosesXmm) {
    d.component = Component::kSse;
    d.relation = Relation::kInitial;
    d.where = "XMM of kvm_fpu";
    why = "the fpstate's XSTATE_BV has no SSE bit and the call sets none";
  } else {
    d.component = Component::kSse;
    d.relation = Relation::kStale;
    d.where = "MXCSR of kvm_fpu";
    why = "the call passes over the field";
  }
  d.words = fmt::format(
      "Step {} ({}): the guest never sees the {} that was set, as a later step shows: {}.", number,
      program::PrintStep(step), d.where, why);
  return d;
}

Divergence ExplainXcr0(const trace::Platform& platform, const plan::Plan& plan, uint16_t number) {
  Divergence d = Base(nullptr, number, Law::kModel);
  d.relation = Relation::kAnothers;
  d.where = "XCR0 in force";
  d.bits = plan.xcr0 ^ platform.host_xcr0;
  d.rule = "SDM vol. 1, 13.3; KVM: kvm_load_guest_xsave_state";
  d.words = fmt::format(
      "The guest runs with the host's XCR0 ({}) and not its own ({} at the start), as step {} ({}) "
      "shows.",
      program::PrintMask(platform.host_xcr0), program::PrintMask(plan.xcr0), number,
      program::PrintStep(plan.effective.steps[number]));
  return d;
}

Divergence ExplainPke(const plan::Plan& plan, uint16_t number) {
  Divergence d = Base(nullptr, number, Law::kModel);
  d.relation = Relation::kAnothers;
  d.where = "CR4.PKE in force";
  d.bits = 1;
  d.rule = "SDM vol. 3, 4.6.2: protection keys";
  d.words = fmt::format(
      "PKRU is enforced on the guest's data although its CR4.PKE is 0, as step {} ({}) shows: the "
      "host's CR4 is in force.",
      number, program::PrintStep(plan.effective.steps[number]));
  return d;
}

Divergence ExplainHealth(const program::Step* step, uint16_t number, Relation relation,
                         std::string where, std::string words) {
  Divergence d = Base(step, number, Law::kHealth);
  d.relation = relation;
  d.where = std::move(where);
  d.rule = "law 6: nothing hangs and nothing dies";
  d.words = std::move(words);
  return d;
}

}  // namespace fpswap::judge
