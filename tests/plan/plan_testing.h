// SPDX-License-Identifier: GPL-2.0-or-later
//
// Platforms and programs for the tests of harness/plan.
#pragma once

#include <array>
#include <random>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/program/program.h"
#include "harness/trace/host_features.h"
#include "harness/trace/platform.h"
#include "oracle/xstate/layout.h"

namespace fpswap::plan_testing {

using program::ArgKind;
using program::Op;
using program::Program;
using program::Step;

// A CPU with everything, under a KVM that can do everything.
inline trace::Platform RichKvm() {
  trace::Platform p;
  p.target = "kvm";
  cpu::Features f;
  f.xsave = xstate::XsaveCpuid::Typical(program::kAllFeatures, 0x1800);
  f.avx = f.avx2 = f.fma = f.avx512f = f.avx512bw = f.avx512dq = f.avx512vl = true;
  f.mpx = f.pku = f.amx_tile = f.amx_int8 = f.amx_bf16 = f.cet_ss = f.cet_ibt = true;
  p.host = p.guest = f;
  p.host_xcr0 = p.guest_supp = p.guest_perm = program::kAllFeatures;
  p.xsave_size = 11008;
  p.cpus = 2;
  p.vcpus = program::kMaxVcpus;
  p.can.set();
  return p;
}

inline trace::Platform RichNative() {
  trace::Platform p = RichKvm();
  p.target = "native";
  p.guest_fixed = true;
  p.vcpus = 1;
  return p;
}

inline Program Of(std::vector<Step> steps) {
  Program p;
  p.steps = std::move(steps);
  return p;
}

inline Step Do(Op op, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0) {
  return {.op = op, .vcpu = 0, .arg = {a, b, c, d}};
}

// A value in the range of an argument's kind. (The generator draws interesting ones; these are
// evenly spread, and need nothing of it.)
inline uint64_t Draw(ArgKind kind, std::mt19937_64& random) {
  const auto below = [&](uint64_t n) { return random() % n; };
  switch (kind) {
    case ArgKind::kNone:
      return 0;
    case ArgKind::kReg8:
      return below(8);
    case ArgKind::kReg16:
      return below(16);
    case ArgKind::kReg32:
      return below(32);
    case ArgKind::kReg4:
    case ArgKind::kLog2Width:
      return below(4);
    case ArgKind::kPattern:
    case ArgKind::kU16:
      return below(65536);
    case ArgKind::kSlot:
      return below(program::kSlotCount);
    case ArgKind::kImage:
      return below(program::kImageCount);
    case ArgKind::kAlign:
      return below(64);
    case ArgKind::kBool:
      return below(2);
    case ArgKind::kU8:
      return below(256);
    case ArgKind::kU32:
      return below(uint64_t{1} << 32);
    case ArgKind::kMask:
    case ArgKind::kU64:
      return random();
    case ArgKind::kOffset:
      return below(xstate::kMaxAreaSize);
    case ArgKind::kLength:
      return 1 + below(256);
    case ArgKind::kMsrName:
      return below(9);
    case ArgKind::kCr4Name:
      return below(3);
    case ArgKind::kBytes:
      return 1 + below(15);
  }
  return 0;
}

inline Step DrawStep(const program::StepRow& row, std::mt19937_64& random) {
  Step step{.op = row.op};
  for (size_t i = 0; i < row.args.size(); ++i) step.arg[i] = Draw(row.args[i].kind, random);
  // Tiles that are the same are an encoding that no decoder takes.
  if (row.needs == program::Needs::kAmxInt8) {
    step.arg[1] = (step.arg[0] + 1 + step.arg[1] % 3) % 8;
    step.arg[2] = (step.arg[0] + 4 + step.arg[2] % 4) % 8;
  }
  if (row.op == Op::kRaw) {
    step.arg[1] = 0x9090909090909090;
    step.arg[2] = 0x90909090909090;
  }
  return step;
}

inline Program DrawProgram(unsigned steps, std::mt19937_64& random) {
  Program p;
  p.features = random();
  p.xcr0 = random();
  const auto table = program::StepTable();
  for (unsigned i = 0; i < steps; ++i) {
    p.steps.push_back(DrawStep(table[random() % table.size()], random));
  }
  return p;
}

}  // namespace fpswap::plan_testing
