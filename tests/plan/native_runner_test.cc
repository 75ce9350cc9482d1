// SPDX-License-Identifier: GPL-2.0-or-later
//
// native-runner's binary against expectations worked out by hand. What a CPU lacks is skipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

#include "tests/plan/agent_client.h"
#include "tests/plan/plan_testing.h"

namespace fpswap {
namespace {

using plan::MakePlan;
using plan_testing::AgentClient;
using plan_testing::Do;
using plan_testing::DrawProgram;
using plan_testing::Of;
using program::Op;
using program::Program;
using program::Step;
using trace::RecordKind;
using xstate::Component;

const std::string kRunner = FPSWAP_BINARY_DIR "/native-runner";

std::vector<uint8_t> Pattern(uint16_t number, size_t size) {
  std::vector<uint8_t> bytes(size);
  program::FillPattern(number, bytes);
  return bytes;
}

template <typename T>
T ReadAs(std::span<const uint8_t> bytes, size_t at = 0) {
  T value{};
  if (bytes.size() >= at + sizeof(T)) std::memcpy(&value, &bytes[at], sizeof(T));
  return value;
}

std::span<const uint8_t> Part(std::span<const uint8_t> bytes, size_t at, size_t size) {
  return bytes.size() >= at + size ? bytes.subspan(at, size) : std::span<const uint8_t>{};
}

// Records by step.
struct Seen {
  std::map<unsigned, std::vector<uint8_t>> journal;
  std::map<unsigned, trace::FaultRecord> fault;
  std::map<unsigned, trace::HostRecord> host;
  trace::EndRecord end{.reason = 255};
};

Seen Sort(std::span<const uint8_t> records) {
  Seen seen;
  trace::RecordReader reader(records);
  trace::RecordView record;
  while (reader.Next(record)) {
    switch (record.kind) {
      case RecordKind::kJournal:
        seen.journal[record.step].assign(record.bytes.begin(), record.bytes.end());
        break;
      case RecordKind::kFault:
        ReadHead(record.bytes, seen.fault[record.step]);
        break;
      case RecordKind::kHost:
        ReadHead(record.bytes, seen.host[record.step]);
        break;
      case RecordKind::kEnd:
        ReadHead(record.bytes, seen.end);
        break;
      default:
        ADD_FAILURE() << "a record that native does not give";
    }
  }
  EXPECT_FALSE(reader.malformed());
  return seen;
}

class NativeRunner : public testing::Test {
 protected:
  void SetUp() override {
    auto hello = agent_.Hello();
    if (!hello) GTEST_SKIP() << hello.error();
    platform_ = *hello;
  }

  bool Has(Component c) const { return (platform_.host_xcr0 & Bit(c)) != 0; }
  uint32_t OffsetOf(Component c) const {
    return platform_.host.xsave.sub[static_cast<size_t>(c)].offset;
  }

  Seen Run(std::vector<Step> steps) { return RunIn(agent_, std::move(steps)); }

  Seen RunIn(AgentClient& agent, std::vector<Step> steps) {
    plan_ = MakePlan(Of(std::move(steps)), platform_);
    for (const plan::Trim& trim : plan_.trims) ADD_FAILURE() << trim.reason;
    const auto records = agent.Run({plan_});
    EXPECT_EQ(records.size(), 1u);
    if (records.size() != 1) return {};
    Seen seen = Sort(records[0]);
    EXPECT_EQ(seen.end.reason, static_cast<uint8_t>(trace::EndReason::kDone));
    return seen;
  }

  uint64_t InstructionOf(size_t step) const {
    return plan::kCodeBase + plan_.rows[step].instruction;
  }

  AgentClient agent_{kRunner};
  trace::Platform platform_;
  plan::Plan plan_;
};

TEST_F(NativeRunner, OffersUnprivilegedStepsAndSaysWhyNotTheOthers) {
  EXPECT_EQ(platform_.target, "native");
  EXPECT_TRUE(platform_.guest_fixed);
  EXPECT_EQ(platform_.vcpus, 1u);
  EXPECT_GT(platform_.cpus, 0u);
  EXPECT_EQ(platform_.guest, platform_.host);
  EXPECT_NE(platform_.host_xcr0 & 3, 0u);
  EXPECT_TRUE(platform_.can[static_cast<size_t>(Op::kXsave)]);
  for (const program::StepRow& row : program::StepTable()) {
    const auto op = static_cast<uint8_t>(row.op);
    const bool reason =
        std::ranges::any_of(platform_.cannot, [&](const auto& c) { return c.first == op; });
    EXPECT_NE(platform_.can[op], reason) << row.name;
    if (row.cpl0 || row.actor == program::Actor::kVmm) {
      EXPECT_TRUE(reason) << row.name;
    }
  }
}

TEST_F(NativeRunner, StoresWhatItLoaded) {
  const Seen seen =
      Run({Do(Op::kSseLoad, 5, 77), Do(Op::kSseStore, 5), Do(Op::kMmxMovq, 3, 88),
           Do(Op::kMmxStore, 3), Do(Op::kFninit), Do(Op::kFldTbyte, 99), Do(Op::kFstpTbyte),
           Do(Op::kLdmxcsr, 0x3f80), Do(Op::kStmxcsr), Do(Op::kFldcw, 0xb7f), Do(Op::kFnstcw)});
  EXPECT_EQ(seen.journal.at(1), Pattern(77, 16));
  EXPECT_EQ(seen.journal.at(3), Pattern(88, 8));
  EXPECT_EQ(seen.journal.at(6), Pattern(99, 10));
  EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(8)), 0x3f80u);
  EXPECT_EQ(ReadAs<uint16_t>(seen.journal.at(10)), 0xb7fu);
  EXPECT_TRUE(seen.fault.empty());
}

TEST_F(NativeRunner, KeepsZmm17AndMasksAsLoaded) {
  if (!platform_.guest.avx512bw || !Has(Component::kHi16Zmm)) GTEST_SKIP() << "no AVX-512";
  const Seen seen = Run({Do(Op::kEvexLoad512, 17, 1234), Do(Op::kKmovLoad, 7, 55),
                         Do(Op::kEvexPxor512, 20, 17, 17), Do(Op::kEvexStore512, 17),
                         Do(Op::kKmovStore, 7), Do(Op::kEvexStore512, 20)});
  EXPECT_EQ(seen.journal.at(3), Pattern(1234, 64));
  EXPECT_EQ(seen.journal.at(4), Pattern(55, 8));
  EXPECT_EQ(seen.journal.at(5), std::vector<uint8_t>(64, 0));
}

TEST_F(NativeRunner, XsaveHoldsPatternsAtTheOffsetsOfCpuid) {
  if (!platform_.guest.avx || !Has(Component::kAvx)) GTEST_SKIP() << "no AVX";
  const Seen seen = Run({Do(Op::kVexLoad256, 6, 4321), Do(Op::kXsave, 2, 0, ~uint64_t{0}, 1)});
  const auto& image = seen.journal.at(1);
  ASSERT_EQ(image.size(), plan_.area_size);
  const auto pattern = Pattern(4321, 32);
  EXPECT_THAT(Part(image, 160 + 6 * 16, 16), testing::ElementsAreArray(Part(pattern, 0, 16)));
  EXPECT_THAT(Part(image, OffsetOf(Component::kAvx) + 6 * 16, 16),
              testing::ElementsAreArray(Part(pattern, 16, 16)));
  EXPECT_EQ(ReadAs<uint64_t>(image, 512) & 6, 6u) << "XSTATE_BV";
  EXPECT_EQ(ReadAs<uint32_t>(image, 24), 0x1f80u) << "MXCSR";
}

TEST_F(NativeRunner, XrstorPutsBackWhatXsaveSaved) {
  if (!platform_.guest.avx || !Has(Component::kAvx)) GTEST_SKIP() << "no AVX";
  const Seen seen =
      Run({Do(Op::kVexLoad256, 6, 4321), Do(Op::kXsave, 2, 0, 7, 1), Do(Op::kVzeroall),
           Do(Op::kVexStore256, 6), Do(Op::kXrstor, 2, 0, 7, 1), Do(Op::kVexStore256, 6)});
  EXPECT_EQ(seen.journal.at(3), std::vector<uint8_t>(32, 0));
  EXPECT_EQ(seen.journal.at(5), Pattern(4321, 32));
}

TEST_F(NativeRunner, JournalsWrittenMemoryFromTheSlotsBase) {
  const Seen seen =
      Run({Do(Op::kMemFill, 1, 600, 100, 7), Do(Op::kMemWrite, 1, 24, 0x1f80),
           Do(Op::kMemHeader, 1, 1, 0), Do(Op::kFxsave, 3, 16, 1), Do(Op::kXsave, 1, 0, 0, 0)});
  const auto& area = seen.journal.at(4);
  EXPECT_THAT(Part(area, 600, 100), testing::ElementsAreArray(Pattern(7, 100)));
  EXPECT_EQ(ReadAs<uint64_t>(area, 512), 1u);
  EXPECT_EQ(area[700], 0);
  const auto& fx = seen.journal.at(3);
  ASSERT_EQ(fx.size(), 512u);
  EXPECT_EQ(ReadAs<uint16_t>(fx), 0x37fu) << "FCW at the start of slot + at";
}

TEST_F(NativeRunner, MisalignedXsaveIsAGeneralProtectionFault) {
  const Seen seen = Run({Do(Op::kXsave, 0, 4, 3, 1), Do(Op::kStmxcsr)});
  ASSERT_TRUE(seen.fault.contains(0));
  EXPECT_EQ(seen.fault.at(0).vector, 13);
  EXPECT_EQ(seen.fault.at(0).error_code, 0u);
  EXPECT_EQ(seen.fault.at(0).rip, InstructionOf(0));
  EXPECT_EQ(seen.fault.at(0).address, 0u);
  EXPECT_FALSE(seen.journal.contains(0)) << "a step that faults journals nothing";
  EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(1)), 0x1f80u) << "and the next one runs";
}

TEST_F(NativeRunner, ReservedMxcsrBitsFaultAndChangeNothing) {
  const Seen seen = Run({Do(Op::kLdmxcsr, 0x10001f80), Do(Op::kStmxcsr)});
  EXPECT_EQ(seen.fault.at(0).vector, 13);
  EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(1)), 0x1f80u);
}

TEST_F(NativeRunner, XgetbvOfAnUnknownXcrFaults) {
  const Seen seen = Run({Do(Op::kXgetbv, 7), Do(Op::kXgetbv, 0)});
  EXPECT_EQ(seen.fault.at(0).vector, 13);
  EXPECT_EQ(ReadAs<uint64_t>(seen.journal.at(1)), platform_.host_xcr0);
}

TEST_F(NativeRunner, AbsentPageFaultsWithItsAddressAndErrorCode) {
  const Seen seen =
      Run({Do(Op::kEmms), Do(Op::kExitPageFault, 0), Do(Op::kExitPageFault, 1), Do(Op::kFnstcw)});
  EXPECT_EQ(seen.fault.at(1).vector, 14);
  EXPECT_EQ(seen.fault.at(1).error_code, 4u) << "a read from CPL 3";
  EXPECT_EQ(seen.fault.at(1).address, plan::kAbsentBase + 16);
  EXPECT_EQ(seen.fault.at(2).error_code, 6u) << "a write from CPL 3";
  EXPECT_EQ(seen.fault.at(2).address, plan::kAbsentBase + 32);
  EXPECT_TRUE(seen.journal.contains(3));
}

// FLD of an SNaN does not fault; an invalid FSTP with IE unmasked leaves an exception pending that
// the next waiting instruction reports, after the signal frame has carried it through the kernel.
TEST_F(NativeRunner, PendingX87ExceptionIsReportedByTheNextWaitingInstruction) {
  const Seen seen = Run({Do(Op::kFninit), Do(Op::kFldcw, 0x37e), Do(Op::kFchs), Do(Op::kFnstsw),
                         Do(Op::kFchs), Do(Op::kFchs), Do(Op::kFnclex), Do(Op::kFnstsw)});
  // FCHS of an empty register: stack underflow, IE and SF and so ES and B.
  EXPECT_EQ(ReadAs<uint16_t>(seen.journal.at(3)) & 0x80c1, 0x80c1);
  EXPECT_FALSE(seen.fault.contains(2));
  EXPECT_EQ(seen.fault.at(4).vector, 16);
  EXPECT_EQ(seen.fault.at(4).rip, InstructionOf(4));
  EXPECT_EQ(seen.fault.at(5).vector, 16) << "still pending";
  EXPECT_EQ(ReadAs<uint16_t>(seen.journal.at(7)) & 0x80ff, 0);
}

TEST_F(NativeRunner, AvxStateSurvivesFaultsSignalsAndCompetitors) {
  if (!platform_.guest.avx || !Has(Component::kAvx)) GTEST_SKIP() << "no AVX";
  const Seen seen = Run({Do(Op::kVexLoad256, 9, 500), Do(Op::kFldTbyte, 600),
                         Do(Op::kExitPageFault), Do(Op::kHostSignal), Do(Op::kHostDirty, 700),
                         Do(Op::kHostCpu, 1), Do(Op::kVexStore256, 9), Do(Op::kFstpTbyte)});
  EXPECT_EQ(seen.host.at(3).result, 1) << "the signal has arrived";
  EXPECT_EQ(seen.host.at(4).result, 0);
  EXPECT_EQ(seen.host.at(5).error, 0);
  EXPECT_EQ(seen.journal.at(6), Pattern(500, 32));
  EXPECT_EQ(seen.journal.at(7), Pattern(600, 10));
}

TEST_F(NativeRunner, EachProgramStartsFromTheInitialState) {
  const bool avx512 = platform_.guest.avx512f && Has(Component::kHi16Zmm);
  std::vector<Step> dirty = {Do(Op::kSseLoad, 1, 9), Do(Op::kLdmxcsr, 0x3f80), Do(Op::kFldTbyte, 9),
                             Do(Op::kMemFill, 1, 0, 3000, 9)};
  if (avx512) dirty.push_back(Do(Op::kEvexLoad512, 31, 9));
  Run(dirty);
  std::vector<Step> look = {Do(Op::kXsave, 1, 0, ~uint64_t{0}, 1), Do(Op::kXgetbv, 0)};
  const Seen seen = Run(look);
  const auto& image = seen.journal.at(0);
  // FXSAVE's MXCSR_MASK, FCW and MXCSR are all that is not zero in an initial image; PKRU is 0.
  for (size_t i = 0; i < image.size(); ++i) {
    const bool control = i < 2 || (i >= 24 && i < 32);
    if (!control && (i < 512 || i >= 520)) {
      ASSERT_EQ(image[i], 0) << "byte " << i;
    }
  }
  EXPECT_EQ(ReadAs<uint16_t>(image), 0x37f);
  EXPECT_EQ(ReadAs<uint32_t>(image, 24), 0x1f80u);
}

TEST_F(NativeRunner, GivesTheSameRecordsInEveryOrder) {
  std::mt19937_64 random(11);
  std::vector<plan::Plan> plans;
  for (int i = 0; i < 300; ++i) {
    Program p = DrawProgram(12, random);
    std::erase_if(p.steps, [](const Step& s) {  // what depends on more than the program
      return s.op == Op::kHostCpu;
    });
    plans.push_back(MakePlan(p, platform_));
  }
  const auto forward = agent_.Run(plans);
  std::ranges::reverse(plans);
  auto backward = agent_.Run(plans);
  ASSERT_EQ(forward.size(), plans.size());
  ASSERT_EQ(backward.size(), plans.size());
  std::ranges::reverse(backward);
  for (size_t i = 0; i < forward.size(); ++i) {
    const Seen a = Sort(forward[i]), b = Sort(backward[i]);
    ASSERT_EQ(a.fault.size(), b.fault.size()) << "program " << i;
    ASSERT_EQ(a.journal.size(), b.journal.size()) << "program " << i;
    for (const auto& [step, bytes] : a.journal) {
      const Step& what = plans[plans.size() - 1 - i].effective.steps[step];
      ASSERT_EQ(bytes, b.journal.at(step)) << "program " << i << " " << program::RowOf(what).name;
    }
  }
}

TEST_F(NativeRunner, RefusesAMalformedPlanAndGoesOnWithTheNext) {
  std::vector<uint8_t> batch;
  AppendPlan(MakePlan(Of({Do(Op::kFninit)}), platform_), batch);
  batch[8 + 8 + 8 + 4] = 99;  // vcpus
  AppendPlan(MakePlan(Of({Do(Op::kStmxcsr)}), platform_), batch);
  const auto records = agent_.RunBytes(batch);
  EXPECT_FALSE(agent_.error().empty());
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(ReadAs<uint32_t>(Sort(records[0]).journal.at(0)), 0x1f80u);
}

TEST_F(NativeRunner, RefusesPlansThatAreNotForNative) {
  plan::Plan plan = MakePlan(Of({Do(Op::kFninit)}), platform_);
  plan.actions[0].cpl = 0;
  const auto records = agent_.Run({plan});
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(Sort(records[0]).end.reason, static_cast<uint8_t>(trace::EndReason::kSetupFailed));
}

// Plan code that never ends: no step does that, so the test makes it by hand.
TEST_F(NativeRunner, StopsAProgramThatHangs) {
  AgentClient agent(kRunner, {"--hang-ms", "100"});
  plan::Plan plan = MakePlan(Of({Do(Op::kStmxcsr), Do(Op::kFninit), Do(Op::kFnstcw)}), platform_);
  plan.code[plan.rows[1].code] = 0xeb;  // JMP to itself
  plan.code[plan.rows[1].code + 1] = 0xfe;
  const auto records = agent.Run({plan, MakePlan(Of({Do(Op::kStmxcsr)}), platform_)});
  ASSERT_EQ(records.size(), 2u);
  const Seen hung = Sort(records[0]);
  EXPECT_EQ(hung.end.reason, static_cast<uint8_t>(trace::EndReason::kHang));
  EXPECT_TRUE(hung.journal.contains(0));
  EXPECT_FALSE(hung.journal.contains(2));
  EXPECT_EQ(Sort(records[1]).end.reason, static_cast<uint8_t>(trace::EndReason::kDone));
}

TEST_F(NativeRunner, PlantsChangeTheStateAtTheirConditionOnly) {
  if (!platform_.guest.avx512bw || !Has(Component::kHi16Zmm)) GTEST_SKIP() << "no AVX-512";
  const std::vector<Step> twice = {Do(Op::kEvexLoad512, 16, 9), Do(Op::kExitPageFault),
                                   Do(Op::kExitPageFault), Do(Op::kEvexStore512, 17)};
  std::vector<Step> thrice = twice;
  thrice.insert(thrice.begin() + 1, Do(Op::kExitPageFault));
  AgentClient swap(kRunner, {"--plant", "zmm16-swap-on-third-fault"});
  EXPECT_EQ(RunIn(swap, twice).journal.at(3), std::vector<uint8_t>(64, 0));
  EXPECT_EQ(RunIn(swap, thrice).journal.at(4), Pattern(9, 64));

  AgentClient mxcsr(kRunner, {"--plant", "mxcsr-reset-by-signal"});
  EXPECT_EQ(ReadAs<uint32_t>(RunIn(mxcsr, {Do(Op::kLdmxcsr, 0x3f80), Do(Op::kExitPageFault),
                                           Do(Op::kHostSignal), Do(Op::kStmxcsr)})
                                 .journal.at(3)),
            0x1f80u);
  AgentClient ymm(kRunner, {"--plant", "ymm-high-lost-on-fault"});
  const auto with = RunIn(ymm, {Do(Op::kVexLoad256, 1, 9), Do(Op::kKmovLoad, 1, 9),
                                Do(Op::kExitPageFault), Do(Op::kVexStore256, 1)})
                        .journal.at(3);
  EXPECT_THAT(Part(with, 16, 16), testing::Each(0));
  const auto without =
      RunIn(ymm, {Do(Op::kVexLoad256, 1, 9), Do(Op::kExitPageFault), Do(Op::kVexStore256, 1)})
          .journal.at(2);
  EXPECT_EQ(without, Pattern(9, 32));
}

// Not a limit, for machines differ: a figure to look at.
TEST_F(NativeRunner, PrintsProgramsPerSecond) {
  std::mt19937_64 random(12);
  std::vector<Program> programs;
  for (int i = 0; i < 3000; ++i) {
    Program p = DrawProgram(40, random);
    p.steps = MakePlan(p, platform_).effective.steps;
    std::erase_if(p.steps, [](const Step& s) {
      return s.op == Op::kHostCpu || s.op == Op::kHostDirty || s.op == Op::kHostSignal;
    });
    p.steps.resize(std::min<size_t>(p.steps.size(), 8));
    programs.push_back(p);
  }
  const auto begin = std::chrono::steady_clock::now();
  size_t faults = 0, steps = 0;
  constexpr int kRounds = 5;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t at = 0; at < programs.size(); at += 100) {
      std::vector<plan::Plan> batch;
      for (size_t i = at; i < at + 100; ++i) batch.push_back(MakePlan(programs[i], platform_));
      for (const auto& records : agent_.Run(batch)) faults += Sort(records).fault.size();
      for (const auto& p : batch) steps += p.effective.steps.size();
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const double count = kRounds * static_cast<double>(programs.size());
  std::printf("native, plan to sorted records: %.0f programs/s (%.1f steps, %.2f faults each)\n",
              count / seconds.count(), static_cast<double>(steps) / count,
              static_cast<double>(faults) / count);
}

}  // namespace
}  // namespace fpswap
