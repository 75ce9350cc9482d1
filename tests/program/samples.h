// SPDX-License-Identifier: GPL-2.0-or-later
//
// Programs for tests.
#pragma once

#include "harness/program/arg.h"
#include "harness/program/generate.h"

namespace fpswap::program {

// Any valid program, every value as likely as any other: nothing of the generator's taste, so that
// no form can rely on it.
inline Program AnyProgram(Rng& rng) {
  Program p;
  p.features = rng.OneIn(3) ? rng.Next() : kAllFeatures;
  p.xcr0 = rng.OneIn(3) ? rng.Next() : rng.Below(1024);
  p.pke = rng.OneIn(2);
  p.vcpus = static_cast<uint8_t>(1 + rng.Below(kMaxVcpus));
  p.own_vm = rng.OneIn(2);
  p.own_thread = rng.OneIn(2);
  const auto table = StepTable();
  for (uint64_t n = rng.Below(kMaxSteps + 1); n != 0; --n) {
    const StepRow& row = table[rng.Below(table.size())];
    Step step{.op = row.op, .vcpu = static_cast<uint8_t>(rng.Below(p.vcpus))};
    for (unsigned i = 0; i < kArgCount; ++i) {
      const KindRow& kind = RowOf(row.args[i].kind);
      const uint64_t values[] = {kind.min, kind.max, Wrap(kind.kind, rng.Next())};
      step.arg[i] = values[rng.Below(3)];
    }
    if (row.op == Op::kRaw) {
      for (unsigned i = 0; i < step.arg[0]; ++i) {
        SetRawByte(step, i, static_cast<uint8_t>(rng.Next()));
      }
    }
    p.steps.push_back(step);
  }
  return p;
}

}  // namespace fpswap::program
