// SPDX-License-Identifier: GPL-2.0-or-later
//
// A call whose record is an IoctlRecord with data behind it: what it returned and gave, compared
// with what a world says. Shared by the VMM's steps (vmm_steps.cc) and the system's (os_steps.cc).
#pragma once

#include <cstdint>
#include <span>

#include "harness/judge/context.h"

namespace fpswap::judge {

struct Call {
  Context& c;
  Mismatch& m;

  // What the call gave behind its IoctlRecord.
  std::span<const uint8_t> Data() const {
    return c.seen->ioctl.subspan(sizeof(trace::IoctlRecord));
  }
  trace::IoctlRecord Returned() const {
    trace::IoctlRecord record{};
    trace::ReadHead(c.seen->ioctl, record);
    return record;
  }
};

bool Fail(Call& v, Law law, Relation relation, const char* what, const char* rule,
          uint64_t expected, uint64_t actual);

// Whether the call returned what it must. A refusal that did not come breaks law 5.
bool Returned(Call& v, const kvm::Status& status, const char* what, const char* rule);

// Whether the call's data are `possible`: law 2.
bool Same(Call& v, std::span<const uint8_t> possible, Place place, const char* rule);

// The image buffer that the step's first argument names.
unsigned ImageOf(const Call& v);

// Whether the image that the call gave is `possible`. The buffer then holds what was seen, right or
// wrong, unless that has another size.
bool TakeImage(Call& v, std::span<const uint8_t> possible, const char* rule);

// Steps of the system, on one world (os_steps.cc).
bool OsGetRegset(Call& v);
bool OsSetRegset(Call& v);
bool OsSigframe(Call& v);
bool OsSigreturn(Call& v);

}  // namespace fpswap::judge
