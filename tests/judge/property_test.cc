// SPDX-License-Identifier: GPL-2.0-or-later
//
// The judge against the simulator: what is right is never called wrong, and no byte that matters
// can be changed unnoticed.
#include <algorithm>

#include "harness/judge/simulator.h"
#include "oracle/xstate/layout.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::judge {
namespace {

using program::Op;
using trace::RecordKind;

program::Profile ProfileOf(const trace::Platform& platform) {
  program::Profile profile;
  profile.features = platform.guest.xsave.xcr0;
  profile.vcpus = static_cast<uint8_t>(platform.vcpus);
  profile.supervisor = platform.guest.xsave.xss;
  profile.allowed = [](const program::StepRow& row, const void*) { return row.op != Op::kRaw; };
  return profile;
}

struct Case {
  const char* name;
  uint64_t components;
  bool compacted;
  bool amd;
};

class EveryPlatform : public testing::TestWithParam<Case> {
 protected:
  EveryPlatform() : platform_(TestPlatform(GetParam().components, GetParam().compacted)) {
    platform_.guest.amd = platform_.host.amd = GetParam().amd;
    platform_.can.reset(static_cast<uint8_t>(Op::kRaw));
  }
  trace::Platform platform_;
};

TEST_P(EveryPlatform, WhatTheOracleWritesIsJudgedClean) {
  Judge judge(platform_);
  Simulator simulator(platform_);
  const program::Profile profile = ProfileOf(platform_);
  program::Rng rng(20240607);
  for (int i = 0; i < 25000; ++i) {
    program::Program program = program::Generate(rng, profile);
    if (i % 2 == 1) program::Mutate(program, rng, profile);
    const plan::Plan plan = plan::MakePlan(program, platform_);
    const std::vector<uint8_t> records = simulator.Run(plan, rng);
    const Verdict verdict = judge.Check(plan, records);
    ASSERT_TRUE(verdict.ok()) << program::PrintText(plan.effective) << Told(verdict);
  }
}

// Whether byte `at` of a frame's image is one that nothing writes: reserved, or outside components.
bool IsOfTheStack(const trace::Platform& platform, const plan::Plan& plan, size_t at) {
  // Where such frames come from, XCR0, CR0.TS and CR4 are the kernel's, and so as it needs them.
  const bool less = plan.xcr0 != platform.host_xcr0 ||
                    std::ranges::any_of(plan.effective.steps, [](const program::Step& s) {
                      return program::RowOf(s).cpl0 || s.op == Op::kSetXcrs;
                    });
  if (less) return true;
  if (at < xstate::kExtendedOffset) return at >= 416 && at < 464;
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    const auto& sub = platform.host.xsave.sub[i];
    // Tiles that are not in use are not written.
    const bool tiles = ((xstate::kAmx >> i) & 1) != 0;
    const bool used = ((platform.host_xcr0 >> i) & 1) != 0 && !sub.supervisor && !tiles;
    const bool pkru = i == static_cast<unsigned>(xstate::Component::kPkru);  // 4 bytes of its 8
    if (used && at >= sub.offset && at < sub.offset + (pkru ? 4 : sub.size)) return false;
  }
  return true;
}

// Bytes of a record that may be something else, and why.
bool IsFree(const trace::Platform& platform, const plan::Plan& plan, const trace::RecordView& r,
            size_t at) {
  if (r.kind == RecordKind::kHost) return true;    // what the host did is its own affair
  if (r.kind == RecordKind::kEnd) return at != 0;  // the time it took; errno of what is done
  if (r.kind == RecordKind::kFault) {
    // Padding; CR2, which is judged by its region and for #PF only.
    trace::FaultRecord fault;
    trace::ReadHead(r.bytes, fault);
    // RIP within the copy to the journal, which is integer code of no interest.
    const bool in_copy = fault.rip != plan::kCodeBase + plan.rows[r.step].instruction;
    return (at >= 1 && at < 4) || at >= 16 || (in_copy && at == 8);
  }
  const program::Step& step = plan.effective.steps[r.step];
  if (r.kind == RecordKind::kExit) {
    // suberror, padding; data of reads and beyond the access; size, where there is no access.
    return (at >= 4 && at < 8) || at >= 16;
  }
  const auto in_image = [](size_t offset) {
    return (offset >= 6 && offset < 24) ||  // x87 pointers, where they are not known
           (offset >= 28 && offset < 32) || (offset >= 464 && offset < 484) ||
           (offset >= 512 && offset < 520);  // XSTATE_BV of initial components
  };
  switch (step.op) {
    case Op::kXgetbv:
      return true;  // XINUSE of initial components
    case Op::kXsave:
    case Op::kXsavec:
    case Op::kXsaveopt:
    case Op::kXsaves:
      return at >= step.arg[1] && in_image(at - step.arg[1]);
    case Op::kFxsave:
      return in_image(at);
    case Op::kGetXsave:
    case Op::kGetXsave2:
      return at >= 8 && in_image(at - 8);
    case Op::kOsGetRegset:
      return at >= 8 && (at - 8 < 464 || at - 8 >= 512) && in_image(at - 8);
    case Op::kOsSigframe:
      return at >= 8 && ((at - 8 < 464 && in_image(at - 8)) || (at - 8 >= 512 && at - 8 < 520) ||
                         (at - 8 >= 32 && at - 8 < 160 && (at - 8) % 16 >= 10) ||
                         IsOfTheStack(platform, plan, at - 8));
    case Op::kGetFpu:
      return at >= 8 + 134 && at < 8 + 152;
    case Op::kFstpTbyte:
    case Op::kBndmovStore:
      return true;  // stores nothing at times
    case Op::kSetCpuid:
      return at < 8 && platform.guest_fixed;  // what is unchanged is KVM's own affair then
    default:
      return false;
  }
}

bool Has(const plan::Plan& plan, std::initializer_list<Op> ops) {
  return std::ranges::any_of(plan.effective.steps, [&](const program::Step& step) {
    return std::ranges::find(ops, step.op) != ops.end();
  });
}

TEST_P(EveryPlatform, ACorruptedByteIsFound) {
  Judge judge(platform_);
  Simulator simulator(platform_);
  program::Profile profile = ProfileOf(platform_);
  program::Rng rng(77);
  unsigned tried = 0;
  while (tried < 12000) {
    const plan::Plan plan = plan::MakePlan(program::Generate(rng, profile), platform_);
    // No target has both, and a frame's holes are the stack's by the XCR0 that threads have.
    if (Has(plan, {Op::kOsSigframe}) && Has(plan, {Op::kSetXcrs, Op::kSetXcrsList})) continue;
    const std::vector<uint8_t> records = simulator.Run(plan, rng);
    if (judge.Check(plan, records).unknown) continue;
    trace::RecordReader reader(records);
    trace::RecordView r;
    while (reader.Next(r)) {
      const size_t at = rng.Below(r.bytes.size());
      if (r.bytes.empty() || IsFree(platform_, plan, r, at)) continue;
      std::vector<uint8_t> wrong = records;
      const size_t where = static_cast<size_t>(r.bytes.data() - records.data()) + at;
      wrong[where] = static_cast<uint8_t>(wrong[where] ^ (1 + rng.Below(255)));
      const Verdict verdict = judge.Check(plan, wrong);
      ASSERT_FALSE(verdict.ok()) << program::PrintText(plan.effective) << "record of step "
                                 << r.step << ", kind " << unsigned(r.kind) << ", byte " << at;
      ++tried;
    }
  }
}

// Whether AMX instructions heed CR0.TS no manual says, so a program's only #NM of that kind may be
// there or not. A second one is bound by the first.
bool MaySayThatAmxHeedsTs(const plan::Plan& plan, const std::vector<trace::RecordView>& all,
                          size_t at) {
  constexpr uint8_t kNm = 7;
  const auto is_one = [&](const trace::RecordView& r) {
    trace::FaultRecord fault;
    if (r.kind != trace::RecordKind::kFault || !trace::ReadHead(r.bytes, fault)) return false;
    const Op op = plan.effective.steps[r.step].op;
    return fault.vector == kNm && op >= Op::kLdtilecfg && op <= Op::kTdpbuud;
  };
  return Has(plan, {Op::kCr0Ts}) && is_one(all[at]) && std::ranges::count_if(all, is_one) == 1;
}

TEST_P(EveryPlatform, AMissingRecordIsFound) {
  Judge judge(platform_);
  Simulator simulator(platform_);
  program::Rng rng(5);
  for (int i = 0; i < 2000; ++i) {
    const plan::Plan plan = plan::MakePlan(program::Generate(rng, ProfileOf(platform_)), platform_);
    const std::vector<uint8_t> records = simulator.Run(plan, rng);
    if (judge.Check(plan, records).unknown) continue;
    std::vector<trace::RecordView> all;
    trace::RecordReader reader(records);
    trace::RecordView r;
    while (reader.Next(r)) all.push_back(r);
    const size_t left_out = rng.Below(all.size());
    if (MaySayThatAmxHeedsTs(plan, all, left_out)) continue;
    std::vector<uint8_t> fewer;
    for (size_t n = 0; n < all.size(); ++n) {
      if (n == left_out) continue;
      trace::AppendRecord(fewer, all[n].kind, all[n].vcpu, all[n].step, all[n].bytes);
    }
    EXPECT_FALSE(judge.Check(plan, fewer).ok())
        << program::PrintText(plan.effective) << "without record " << left_out << " of "
        << all.size() << ", kind " << unsigned(all[left_out].kind) << " of step "
        << all[left_out].step << ", " << all[left_out].bytes.size() << " bytes";
  }
}

TEST_P(EveryPlatform, NoBytesMakeTheJudgeFall) {
  Judge judge(platform_);
  Simulator simulator(platform_);
  program::Rng rng(13);
  for (int i = 0; i < 2000; ++i) {
    const plan::Plan plan = plan::MakePlan(program::Generate(rng, ProfileOf(platform_)), platform_);
    std::vector<uint8_t> records = simulator.Run(plan, rng);
    for (int n = 0; n < 4; ++n) {
      records[rng.Below(records.size())] = static_cast<uint8_t>(rng.Next());
    }
    if (rng.OneIn(4)) records.resize(rng.Below(records.size()));
    EXPECT_LE(judge.Check(plan, records).divergences.size(), 16u);
  }
}

TEST_P(EveryPlatform, SimulationDependsOnThePlanAlone) {
  struct Sum : ReachSink {
    void Reach(const ReachEvent& e) override {
      uint64_t word = e.op | e.component << 8 | e.state << 16;
      word |= uint64_t{e.exit} << 24 | uint64_t{e.outcome} << 32;
      hash = (hash ^ word ^ uint64_t{e.xcr0} << 40) * 0x100000001b3;
      ++events;
    }
    uint64_t hash = 1, events = 0;
  };
  Judge a(platform_), b(platform_);
  program::Rng rng(3);
  const plan::Plan other = plan::MakePlan(program::Generate(rng, ProfileOf(platform_)), platform_);
  for (int i = 0; i < 300; ++i) {
    const plan::Plan plan = plan::MakePlan(program::Generate(rng, ProfileOf(platform_)), platform_);
    Sum first, second, third;
    a.Simulate(plan, first);
    b.Simulate(other, third);
    b.Simulate(plan, second);
    EXPECT_EQ(first.hash, second.hash);
    EXPECT_GT(first.events + plan.effective.steps.empty(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Judge, EveryPlatform,
                         testing::Values(Case{"Compacted", kTestComponents, true, false},
                                         Case{"Standard", 0x207, false, false},
                                         Case{"Amd", 0x2e7, true, true},
                                         Case{"Amx", 0x602e7, true, false}),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace fpswap::judge
