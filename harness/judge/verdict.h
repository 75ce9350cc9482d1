// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the judge says of a trace.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "oracle/xstate/component.h"

namespace fpswap::judge {

// The laws, by number, as docs/laws.md explains them.
enum class Law : uint8_t {
  kModel = 1,
  kCoherence = 2,
  kRoundTrip = 3,
  kIsolation = 4,
  kRefusal = 5,
  kHealth = 6
};

// How the value seen relates to what was possible.
enum class Relation : uint8_t {
  kOther,       // none of the below
  kStale,       // a value the component had before
  kInitial,     // the initial value, where another was due (lost)
  kInvented,    // in use, where it had to be initial
  kShifted,     // the right bytes at another offset
  kAnothers,    // another register's, vCPU's or the host's bytes
  kAccepted,    // succeeded, where it had to be refused or to fault
  kRefused,     // refused or faulted, where it had to succeed
  kWrongError,  // another fault or errno
  kHang,
  kDied,
  kComplained,  // the kernel logged what no healthy kernel logs
};

// What the bytes compared are; decides how an offset is named.
enum class Place : uint8_t {
  kNone,    // no bytes: a fault, an errno, a missing record
  kImage,   // a standard-format uABI image
  kArea,    // an XSAVE area in guest memory, in the format its header says
  kFxArea,  // FXSAVE's 512 bytes
  kFpu,     // struct kvm_fpu
  kStored,  // what an instruction stored, or a register it read
  kXcrs,    // struct kvm_xcrs
  kMsr,     // an MSR's value
  kCpuid,   // EAX EBX ECX EDX of CPUID.(0DH,0)
  kExit,    // an ExitRecord
};

// All bytes of one comparison, for a reader who wants to see the whole.
struct Compared {
  Place place = Place::kNone;
  std::vector<uint8_t> possible, seen;  // of one size
};

struct Divergence {
  Law law = Law::kModel;
  uint16_t step = 0;  // in the effective program
  uint8_t op = 0;     // program::Op of that step; 0 for none
  bool has_component = false;
  xstate::Component component = xstate::Component::kX87;
  Relation relation = Relation::kOther;
  bool initial = false;           // the component had to be in its initial state
  std::string where;              // "YMM5[255:128] of the image", "KVM_SET_XSAVE errno"
  uint32_t offset = 0;            // first differing byte in the observed bytes, where it applies
  std::vector<uint8_t> possible;  // bytes around the difference (at most 64), or empty
  std::vector<uint8_t> seen;
  uint64_t bits = 0;  // differing bits of the first 8 bytes
  // Where not bytes but values differ: a fault (vector, error code from bit 8 on), an errno, ...
  std::optional<uint64_t> possible_value, seen_value;
  // The condition of a known defect that held at this step, by name ("avx-initial-under-zmm",
  // see explain.cc), where the divergence is of a kind which that defect makes; empty for none.
  std::string cause;
  std::string rule;   // the rule and its source: "SDM 13.8.2", "KVM: fpu_copy_uabi..."
  std::string words;  // one sentence: what was possible, what was seen
  // Where the value seen comes from, where its bytes tell: "it is what XMM5 of this vCPU holds".
  std::string origin;
  Compared compared;  // empty unless the judge was told to keep it (Judge::KeepCompared)
};

struct Verdict {
  // In the order of what they were seen at; laws 4 and 6 last. The same thing at the same kind of
  // step is told once. The first that is not known is the one that counts.
  std::vector<Divergence> divergences;
  // From step `cut_at` on only laws 4 and 6 were judged, and why; null: all was judged.
  const char* cut = nullptr;
  uint16_t cut_at = 0;
  bool unknown = false;  // so, and not because of a divergence
  uint32_t checks = 0;   // observations compared
  uint8_t laws = 0;      // bit n: law n was checked at least once
  bool ok() const { return divergences.empty(); }
  // Adds a divergence, unless its like is there: same law, kind of step, component, relation and
  // place but for the number of a register.
  void Add(Divergence divergence);
  void Cut(const char* why, uint16_t step, bool is_unknown);
};

std::string_view LawName(Law law);
std::string_view RelationName(Relation relation);
// Bytes as a verdict's JSON has them and the patterns of known.json match them: two lower-case
// digits each, nothing between.
std::string HexOf(std::span<const uint8_t> bytes);
std::string VerdictToJson(const Verdict& verdict);

}  // namespace fpswap::judge
