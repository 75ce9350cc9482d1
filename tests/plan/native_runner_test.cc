// SPDX-License-Identifier: GPL-2.0-or-later
//
// native-runner's binary against expectations worked out by hand. What a CPU lacks is skipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <thread>

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
  std::map<unsigned, trace::IoctlRecord> call;
  std::map<unsigned, std::vector<uint8_t>> image;  // what a call gave
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
      case RecordKind::kIoctl: {
        ReadHead(record.bytes, seen.call[record.step]);
        const auto data = record.bytes.subspan(sizeof(trace::IoctlRecord));
        if (!data.empty()) seen.image[record.step].assign(data.begin(), data.end());
        break;
      }
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
    const bool edits = row.op >= Op::kImageInit && row.op <= Op::kImageFill;
    if (row.cpl0 || (row.actor == program::Actor::kVmm && !edits)) {
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

// Where the host can't do the steps, they are trimmed with a reason, which the harness shows.
class NativeSystem : public NativeRunner {
 protected:
  void SetUp() override {
    NativeRunner::SetUp();
    if (IsSkipped()) return;
    for (const Op op : {Op::kOsGetRegset, Op::kOsSetRegset, Op::kOsSigframe, Op::kOsSigreturn}) {
      if (!platform_.can[static_cast<size_t>(op)]) GTEST_SKIP() << "an os step can't run here";
    }
    if (!platform_.guest.avx || !Has(Component::kAvx)) GTEST_SKIP() << "no AVX";
  }

  // YMM9, ST0 and MXCSR set; a frame in image 1.
  static std::vector<Step> Loaded() {
    return {Do(Op::kVexLoad256, 9, 500), Do(Op::kFldTbyte, 600), Do(Op::kLdmxcsr, 0x3f80),
            Do(Op::kOsSigframe, 1)};
  }
  static std::vector<Step> Then(std::vector<Step> steps, std::initializer_list<Step> more) {
    steps.insert(steps.end(), more);
    return steps;
  }
};

TEST_F(NativeSystem, RegsetAndFrameShowTheRegisters) {
  const Seen seen = Run(Then(Loaded(), {Do(Op::kHostDirty, 700), Do(Op::kOsGetRegset, 2)}));
  for (const unsigned step : {3u, 5u}) {
    EXPECT_EQ(seen.call.at(step).result, 0);
    const auto& image = seen.image.at(step);
    ASSERT_EQ(image.size(), platform_.xsave_size);
    EXPECT_EQ(ReadAs<uint64_t>(image, 512) & 7, 7u) << "XSTATE_BV";
    EXPECT_EQ(ReadAs<uint64_t>(image, 520), 0u) << "XCOMP_BV";
    EXPECT_EQ(ReadAs<uint32_t>(image, 24), 0x3f80u) << "MXCSR";
    EXPECT_THAT(Part(image, 32, 10), testing::ElementsAreArray(Pattern(600, 10)));
    EXPECT_THAT(Part(image, 160 + 9 * 16, 16),
                testing::ElementsAreArray(Part(Pattern(500, 32), 0, 16)));
    EXPECT_THAT(Part(image, OffsetOf(Component::kAvx) + 9 * 16, 16),
                testing::ElementsAreArray(Part(Pattern(500, 32), 16, 16)));
  }
  const auto& frame = seen.image.at(3);
  EXPECT_EQ(ReadAs<uint32_t>(frame, 464), 0x46505853u) << "FP_XSTATE_MAGIC1";
  EXPECT_EQ(ReadAs<uint32_t>(frame, 468), platform_.xsave_size + 4);
  EXPECT_EQ(ReadAs<uint64_t>(frame, 472), platform_.host_xcr0);
  EXPECT_EQ(ReadAs<uint32_t>(frame, 480), platform_.xsave_size);
  EXPECT_EQ(ReadAs<uint64_t>(seen.image.at(5), 464), platform_.host_xcr0);
}

TEST_F(NativeSystem, SetregsetLoadsWhatIsThereAndInitialisesTheRest) {
  const Seen seen =
      Run({Do(Op::kVexLoad256, 9, 500), Do(Op::kFldTbyte, 600), Do(Op::kImageInit, 3),
           Do(Op::kImageFill, 3, 160 + 5 * 16, 16, 800), Do(Op::kImageWrite, 3, 24, 0x1fa0),
           Do(Op::kImageWrite, 3, 512, 2), Do(Op::kOsSetRegset, 3), Do(Op::kVexStore256, 9),
           Do(Op::kSseStore, 5), Do(Op::kStmxcsr), Do(Op::kFxsave, 0, 0, 1)});
  EXPECT_EQ(seen.call.at(6).result, 0);
  EXPECT_EQ(seen.journal.at(7), std::vector<uint8_t>(32, 0));
  EXPECT_EQ(seen.journal.at(8), Pattern(800, 16));
  EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(9)), 0x1fa0u);
  EXPECT_EQ(seen.journal.at(10)[4], 0) << "FTW: ST0 is empty";
}

TEST_F(NativeSystem, ARefusedSetregsetChangesNothing) {
  const std::pair<uint64_t, uint64_t> kBad[] = {
      {520, 1ull << 63 | 7}, {528, 1}, {568, 1}, {512, 1ull << 62}, {24, 0x10001f80}};
  for (const auto& [offset, value] : kBad) {
    const Seen seen = Run(
        Then(Loaded(), {Do(Op::kImageFill, 1, 160, 256, 9), Do(Op::kImageWrite, 1, offset, value),
                        Do(Op::kOsSetRegset, 1), Do(Op::kVexStore256, 9), Do(Op::kStmxcsr)}));
    EXPECT_EQ(seen.call.at(6).result, -1) << offset;
    EXPECT_EQ(seen.call.at(6).error, EINVAL) << offset;
    EXPECT_EQ(seen.journal.at(7), Pattern(500, 32)) << offset;
    EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(8)), 0x3f80u) << offset;
  }
}

TEST_F(NativeSystem, SigreturnRestoresTheFrameAsEdited) {
  const uint64_t ymm = OffsetOf(Component::kAvx) + 9 * 16;
  const Seen seen =
      Run(Then(Loaded(), {Do(Op::kImageFill, 1, ymm, 16, 900), Do(Op::kVzeroall), Do(Op::kFninit),
                          Do(Op::kOsSigreturn, 1), Do(Op::kVexStore256, 9), Do(Op::kFstpTbyte)}));
  EXPECT_EQ(seen.call.at(7).result, 0);
  EXPECT_THAT(Part(seen.journal.at(8), 0, 16),
              testing::ElementsAreArray(Part(Pattern(500, 32), 0, 16)));
  EXPECT_THAT(Part(seen.journal.at(8), 16, 16), testing::ElementsAreArray(Pattern(900, 16)));
  EXPECT_EQ(seen.journal.at(9), Pattern(600, 10));
}

TEST_F(NativeSystem, SigreturnOfAComponentNotAskedForInitialisesIt) {
  const Seen seen = Run(Then(Loaded(), {Do(Op::kImageWrite, 1, 472, 3), Do(Op::kOsSigreturn, 1),
                                        Do(Op::kVexStore256, 9), Do(Op::kStmxcsr)}));
  EXPECT_EQ(seen.call.at(5).result, 0);
  auto expected = Pattern(500, 32);
  std::fill(expected.begin() + 16, expected.end(), 0);
  EXPECT_EQ(seen.journal.at(6), expected);
  EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(7)), platform_.compacted ? 0x3f80u : 0x1f80u);
}

// check_xstate_in_sigframe: in turn no magic, sizes that can't be, no mark at the end.
TEST_F(NativeSystem, SigreturnOfWhatIsNoXsaveImageRestoresFxsavesPart) {
  const uint64_t size = platform_.xsave_size;
  const std::pair<uint64_t, uint64_t> kEdits[] = {
      {464, 0}, {480, 575}, {480, size + 1}, {480, 600}, {464, (size - 1) << 32 | 0x46505853}};
  for (const auto& [offset, value] : kEdits) {
    const Seen seen = Run(Then(Loaded(), {Do(Op::kImageWrite, 1, offset, value),
                                          Do(Op::kOsSigreturn, 1), Do(Op::kVexStore256, 9)}));
    EXPECT_EQ(seen.call.at(5).result, 0) << offset;
    auto expected = Pattern(500, 32);
    std::fill(expected.begin() + 16, expected.end(), 0);
    EXPECT_EQ(seen.journal.at(6), expected) << offset << " " << value;
  }
  const Seen shorter =
      Run(Then(Loaded(), {Do(Op::kImageWrite, 1, 480, 576), Do(Op::kImageWrite, 1, 576, 0x46505845),
                          Do(Op::kOsSigreturn, 1), Do(Op::kVexStore256, 9)}));
  EXPECT_THAT(Part(shorter.journal.at(7), 16, 16),
              testing::ElementsAreArray(Part(Pattern(500, 32), 16, 16)))
      << "marked as shorter, and still all of it is read";
}

TEST_F(NativeSystem, SigreturnTakesACompactedImage) {
  if (!platform_.host.xsave.xsavec) GTEST_SKIP() << "no XSAVEC";
  const Seen seen = Run(Then(
      Loaded(),
      {Do(Op::kImageWrite, 1, 512, 4), Do(Op::kImageWrite, 1, 520, 1ull << 63 | 4),
       Do(Op::kImageFill, 1, 576, 256, 77), Do(Op::kOsSigreturn, 1), Do(Op::kVexStore256, 2)}));
  EXPECT_EQ(seen.call.at(7).result, 0);
  auto expected = std::vector<uint8_t>(32, 0);
  std::ranges::copy(Part(Pattern(77, 256), 32, 16), expected.begin() + 16);
  EXPECT_EQ(seen.journal.at(8), expected);
}

TEST_F(NativeSystem, AFrameThatFaultsIsRefusedAndLeavesInitialState) {
  const std::pair<uint64_t, uint64_t> kBad[] = {
      {512, 1ull << 62}, {520, 1}, {528, 1}, {24, 0x10001f80}};
  for (const auto& [offset, value] : kBad) {
    const Seen seen =
        Run(Then(Loaded(), {Do(Op::kImageWrite, 1, offset, value), Do(Op::kOsSigreturn, 1),
                            Do(Op::kVexStore256, 9), Do(Op::kStmxcsr), Do(Op::kOsSigframe, 0)}));
    EXPECT_EQ(seen.call.at(5).result, -1) << offset;
    EXPECT_EQ(seen.call.at(5).error, EFAULT) << offset;
    EXPECT_EQ(seen.journal.at(6), std::vector<uint8_t>(32, 0)) << offset;
    EXPECT_EQ(ReadAs<uint32_t>(seen.journal.at(7)), 0x1f80u) << offset;
    EXPECT_EQ(seen.call.at(8).result, 0) << "signals still work";
  }
}

// Not one that has ended and waits for init.
bool IsAlive(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  return (in >> number >> name >> state) && state != "Z";
}

// 0: it has none.
pid_t ChildOf(pid_t process) {
  const std::string pid = std::to_string(process);
  std::ifstream in("/proc/" + pid + "/task/" + pid + "/children");
  pid_t child = 0;
  in >> child;
  return child;
}

// A thread that is seized as that signal arrives would stop in its handler, whose registers are
// initial. So it must wait as long as a tracer is asked.
TEST_F(NativeSystem, TheHangTimersSignalWaitsForTheTracer) {
  const std::string pid = std::to_string(agent_.pid());
  const auto is_blocked = [&] {
    std::ifstream in("/proc/" + pid + "/status");
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("SigBlk:")) continue;
      return (std::stoull(line.substr(7), nullptr, 16) >> (SIGALRM - 1) & 1) != 0;
    }
    return false;
  };
  const pid_t tracer = ChildOf(agent_.pid());
  ASSERT_GT(tracer, 0);
  ASSERT_FALSE(is_blocked());
  ASSERT_EQ(kill(tracer, SIGSTOP), 0);
  Seen seen;
  std::jthread run([&] { seen = Run({Do(Op::kLdmxcsr, 0x3f80), Do(Op::kOsGetRegset, 0)}); });
  for (int i = 0; i < 500 && !is_blocked(); ++i) usleep(10000);
  EXPECT_TRUE(is_blocked());
  kill(agent_.pid(), SIGALRM);
  kill(tracer, SIGCONT);
  run.join();
  EXPECT_FALSE(is_blocked()) << "it would never come again";
  EXPECT_EQ(ReadAs<uint32_t>(seen.image[1], 24), 0x3f80u) << "MXCSR";
}

TEST_F(NativeSystem, TheTracingProcessEndsWithTheAgent) {
  std::optional<AgentClient> agent(std::in_place, kRunner);
  RunIn(*agent, {Do(Op::kOsGetRegset, 0)});
  const pid_t child = ChildOf(agent->pid());
  ASSERT_GT(child, 0) << "there is none";
  ASSERT_TRUE(IsAlive(child));
  agent.reset();
  for (int i = 0; i < 500 && IsAlive(child); ++i) usleep(10000);
  EXPECT_FALSE(IsAlive(child)) << "it outlives the agent";
}

// A program would wait for it for ever, and the harness for the program.
TEST_F(NativeSystem, TheAgentEndsWhereTheTracingProcessIsGone) {
  AgentClient agent(kRunner);
  RunIn(agent, {Do(Op::kOsGetRegset, 0)});
  const pid_t child = ChildOf(agent.pid());
  ASSERT_GT(child, 0) << "there is none";
  ASSERT_EQ(kill(child, SIGKILL), 0);
  program::Program p;
  p.steps = {Do(Op::kOsGetRegset, 0)};
  EXPECT_TRUE(agent.Run({plan::MakePlan(p, platform_)}).empty()) << "nobody answered";
  siginfo_t ended{};
  EXPECT_EQ(waitid(P_PID, agent.pid(), &ended, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(ended.si_status, 1);
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

TEST_F(NativeSystem, PlantsChangeTheStateAtTheirConditionOnly) {
  if (!platform_.guest.avx512bw || !Has(Component::kHi16Zmm)) GTEST_SKIP() << "no AVX-512";
  AgentClient cut(kRunner, {"--plant", "zmm15-cut-by-second-signal"});
  const auto zmm15 =
      RunIn(cut, {Do(Op::kEvexLoad512, 15, 9), Do(Op::kOsSigframe), Do(Op::kEvexStore512, 15),
                  Do(Op::kHostSignal), Do(Op::kEvexStore512, 15)})
          .journal;
  EXPECT_EQ(zmm15.at(2), Pattern(9, 64));
  EXPECT_THAT(Part(zmm15.at(4), 32, 32), testing::Each(0));

  AgentClient asked(kRunner, {"--plant", "avx-not-asked-for-by-sigreturn"});
  const auto ymm = RunIn(asked, {Do(Op::kVexLoad256, 1, 9), Do(Op::kOsSigframe, 0),
                                 Do(Op::kImageWrite, 0, 472, 3), Do(Op::kOsSigreturn, 0),
                                 Do(Op::kVexStore256, 1)})
                       .journal.at(4);
  EXPECT_EQ(ymm, Pattern(9, 32));

  AgentClient kept(kRunner, {"--plant", "hi16-kept-by-setregset"});
  const auto zmm20 =
      RunIn(kept, {Do(Op::kEvexLoad512, 20, 9), Do(Op::kVexLoad256, 1, 9), Do(Op::kImageInit, 0),
                   Do(Op::kOsSetRegset, 0), Do(Op::kEvexStore512, 20), Do(Op::kVexStore256, 1)})
          .journal;
  EXPECT_EQ(zmm20.at(4), Pattern(9, 64));
  EXPECT_EQ(zmm20.at(5), std::vector<uint8_t>(32, 0));

  AgentClient refused(kRunner, {"--plant", "xmm0-set-by-refused-setregset"});
  const Seen xmm0 =
      RunIn(refused, {Do(Op::kImageFill, 0, 160, 16, 9), Do(Op::kImageWrite, 0, 520, 1),
                      Do(Op::kOsSetRegset, 0), Do(Op::kSseStore, 0)});
  EXPECT_EQ(xmm0.call.at(2).error, EINVAL);
  EXPECT_EQ(xmm0.journal.at(3), Pattern(9, 16));

  AgentClient leak(kRunner, {"--plant", "opmask-of-competitor"});
  const auto k1 = RunIn(leak, {Do(Op::kHostDirty, 700), Do(Op::kKmovStore, 1), Do(Op::kHostCpu, 1),
                               Do(Op::kHostDirty, 700), Do(Op::kKmovStore, 1)})
                      .journal;
  EXPECT_EQ(k1.at(1), std::vector<uint8_t>(8, 0));
  EXPECT_NE(k1.at(4), std::vector<uint8_t>(8, 0));
}

// Not a limit, for machines differ: a figure to look at.
TEST_F(NativeRunner, PrintsProgramsPerSecond) {
  std::mt19937_64 random(12);
  std::vector<Program> programs;
  for (int i = 0; i < 3000; ++i) {
    Program p = DrawProgram(40, random);
    p.steps = MakePlan(p, platform_).effective.steps;
    std::erase_if(p.steps,
                  [](const Step& s) { return program::RowOf(s).actor != program::Actor::kGuest; });
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
