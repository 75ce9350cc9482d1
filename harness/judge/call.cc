// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/call.h"

#include <cstring>

namespace fpswap::judge {

bool Fail(Call& v, Law law, Relation relation, const char* what, const char* rule,
          uint64_t expected, uint64_t actual) {
  v.m.law = law;
  v.m.relation = relation;
  v.m.place = Place::kNone;
  v.m.what = what;
  v.m.rule = rule;
  v.m.values = true;
  v.m.expected = expected;
  v.m.actual = actual;
  return false;
}

bool Returned(Call& v, const kvm::Status& status, const char* what, const char* rule) {
  v.c.model_errno = status.error;
  if (v.c.seen == nullptr) return true;
  if (!v.c.seen->has_ioctl) {
    return Fail(v, Law::kHealth, Relation::kDied, "record of the call", rule, 0, 0);
  }
  const trace::IoctlRecord seen = v.Returned();
  if (seen.result == status.result && seen.error == status.error) return true;
  const bool was_ok = seen.result >= 0 && seen.error == 0;
  // In the words of errno; a short count of MSRs counts as its own.
  const auto value = [](int result, int error) {
    return static_cast<uint64_t>(error != 0 ? error : result);
  };
  const Relation relation = status.ok() ? (was_ok ? Relation::kWrongError : Relation::kRefused)
                                        : (was_ok ? Relation::kAccepted : Relation::kWrongError);
  const Law law = relation == Relation::kAccepted ? Law::kRefusal : Law::kModel;
  return Fail(v, law, relation, what, rule, value(status.result, status.error),
              value(seen.result, seen.error));
}

bool Same(Call& v, std::span<const uint8_t> possible, Place place, const char* rule) {
  const auto seen = v.Data();
  v.m.law = Law::kCoherence;
  v.m.rule = rule;
  if (seen.size() != possible.size()) {
    return Fail(v, Law::kHealth, Relation::kDied, "size of what the call gave", rule,
                possible.size(), seen.size());
  }
  v.m.place = place;
  return SameBytes(possible, seen, v.m);
}

unsigned ImageOf(const Call& v) {
  return static_cast<unsigned>(v.c.step.arg[0]) % program::kImageCount;
}

bool TakeImage(Call& v, std::span<const uint8_t> possible, const char* rule) {
  const bool same = v.c.seen == nullptr || Same(v, possible, Place::kImage, rule);
  const auto given = v.c.seen == nullptr ? possible : v.Data();
  if (given.size() != possible.size()) return false;
  const auto image = v.c.world.image[ImageOf(v)].Write(0, given.size());
  std::memcpy(image.data(), given.data(), given.size());
  v.c.world.source[ImageOf(v)] = {true, v.c.step.vcpu};
  return same;
}

}  // namespace fpswap::judge
