// SPDX-License-Identifier: GPL-2.0-or-later
//
// The signature of a divergence: what two divergences have in common when they are the same bug as
// far as anyone can tell from outside. Findings are deduplicated by it and minimising keeps it.
//
// Pure functions; thread safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "harness/judge/verdict.h"

namespace fpswap::triage {

struct Signature {
  judge::Law law = judge::Law::kModel;
  // program::Op; 0 for none. Left out for isolation and health: the step at which a register of the
  // host was lost, or the machine stopped, says little about why, and one bug would be many
  // findings.
  uint8_t op = 0;
  std::optional<xstate::Component> component;
  judge::Relation relation = judge::Relation::kOther;
  std::string where;  // a WhereClass
  std::string cause;  // Divergence::cause; where there is one it is the signature

  // All of it in one line: "model|vmm.get_xsave|avx|stale|YMM#[255:128] of the image".
  std::string Key() const;
  // Fit for a folder: "3f2a91bc-model-vmm.get_xsave-avx-stale", "0e75b6a9-isolation-sse-other". The
  // hash is of Key().
  std::string Name() const;
  bool operator==(const Signature& other) const { return Key() == other.Key(); }
};

Signature SignatureOf(const judge::Divergence& divergence);

// `where` less what differs between two sightings of one bug: register numbers and byte offsets
// become '#'. Bit ranges in brackets stay: they say which part of a register is meant.
std::string WhereClass(std::string_view where);

// The name of a step's operation, "none" for 0, "op 199" for a number that no row has.
std::string OpName(uint8_t op);

}  // namespace fpswap::triage
