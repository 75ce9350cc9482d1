// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/targets/fake_agent.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "harness/plan/agent_loop.h"
#include "harness/trace/record.h"
#include "harness/trace/trace.h"

namespace fpswap::targets {
namespace {

using wire::FrameType;

constexpr int kFd = STDOUT_FILENO;

void Say(const std::vector<uint8_t>& bytes) {
  if (write(kFd, bytes.data(), bytes.size()) < 0) _exit(9);
}

void SayFrame(FrameType type, std::span<const uint8_t> payload) {
  std::vector<uint8_t> frame;
  wire::AppendFrame(frame, type, payload);
  Say(frame);
}

std::vector<uint8_t> FrameHead(uint32_t length) {
  std::vector<uint8_t> frame;
  wire::AppendFrame(frame, FrameType::kRecords, {});
  for (unsigned i = 0; i < 4; ++i) frame[8 + i] = static_cast<uint8_t>(length >> (8 * i));
  return frame;
}

class FakeMachine : public wire::Machine {
 public:
  explicit FakeMachine(std::string_view mode) : mode_(mode) {}

  std::expected<std::string, std::string> Platform() override {
    if (mode_ == "no-hello") pause();
    if (mode_ == "dies") _exit(5);
    if (mode_ == "bad-platform") return "{\"target\": 3}";
    if (mode_ == "refuses") return std::unexpected("nothing to run on\nbuy a computer");
    trace::Platform platform;
    platform.target = "fake";
    platform.host.xsave = xstate::XsaveCpuid::Typical(7, 0);
    platform.guest = platform.host;
    platform.can.set();
    return trace::PlatformToJson(platform);
  }

  void Run(const wire::PlanView& plan, std::vector<uint8_t>& records) override {
    CountRun();
    const uint64_t what = plan.steps.empty() ? 0 : plan.steps[0].arg[2];
    if (static_cast<Mischief>(what) == Mischief::kHalfOnce && RunsSoFar() == 1) {
      Say(FrameHead(1000));
      for (;;) pause();
    }
    Misbehave(static_cast<Mischief>(what), records);
    tells_ = static_cast<Mischief>(what) == Mischief::kEdges;
    const bool hangs = static_cast<Mischief>(what) == Mischief::kHang ||
                       (static_cast<Mischief>(what) == Mischief::kHangOnce && patience_ == 1);
    const auto reason = hangs ? trace::EndReason::kHang : trace::EndReason::kDone;
    const trace::EndRecord end{.reason = static_cast<uint8_t>(reason)};
    trace::AppendRecord(records, trace::RecordKind::kEnd, 0, 0,
                        {reinterpret_cast<const uint8_t*>(&end), sizeof(end)});
    if (static_cast<Mischief>(what) == Mischief::kBadRecords) records.resize(records.size() - 3);
    if (static_cast<Mischief>(what) == Mischief::kNoEnd) records.resize(sizeof(uint32_t));
  }

  std::span<const uint16_t> KernelEdges() override {
    return tells_ ? std::span(kFakeEdges) : std::span<const uint16_t>{};
  }
  void SetPatience(unsigned times) override { patience_ = times; }

 private:
  off_t RunsSoFar() const {
    struct stat status{};
    const std::string path(mode_.substr(std::min(mode_.size(), kCountsRuns.size())));
    return stat(path.c_str(), &status) == 0 ? status.st_size : 0;
  }

  void CountRun() const {
    if (!mode_.starts_with(kCountsRuns)) return;
    const std::string path(mode_.substr(kCountsRuns.size()));
    const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, "+", 1) != 1) _exit(9);
    close(fd);
  }

  static void Misbehave(Mischief what, std::vector<uint8_t>& records) {
    std::vector<uint8_t> bytes;
    switch (what) {
      case Mischief::kExit:
        _exit(7);
      case Mischief::kKill:
        kill(getpid(), SIGKILL);
        break;
      case Mischief::kPanicHalf:
        Say(FrameHead(1000));
        [[fallthrough]];
      case Mischief::kPanic: {
        const char* console = getenv("FPSWAP_CONSOLE");
        const int fd = open(console != nullptr ? console : "", O_WRONLY | O_APPEND | O_CLOEXEC);
        const std::string_view words = "Kernel panic - not syncing: Fatal exception\n";
        if (fd < 0 || write(fd, words.data(), words.size()) < 0) _exit(9);
        _exit(8);
      }
      case Mischief::kGarbage:
        return Say(std::vector<uint8_t>(100'000, 0x5a));
      case Mischief::kHalfFrame:
        Say(FrameHead(1000));
        _exit(0);
      case Mischief::kHugeFrame:
        return Say(FrameHead(0xffffffff));
      case Mischief::kSilence:
        for (;;) pause();
      case Mischief::kWrongNumber:
        records[0] ^= 1;
        break;
      case Mischief::kTwice:
        wire::AppendFrame(bytes, FrameType::kRecords, records);
        return Say(bytes);
      case Mischief::kDoneTooEarly:
        wire::AppendFrame(bytes, FrameType::kBatchDone, {});
        return Say(bytes);
      // Behind the number of the program, with which its records begin.
      case Mischief::kHalfEdge:
        bytes.assign(records.begin(), records.begin() + 4);
        bytes.push_back(1);
        return SayFrame(FrameType::kCoverage, bytes);
      case Mischief::kManyEdges:
        bytes.assign(records.begin(), records.begin() + 4);
        bytes.resize(bytes.size() + 2 * (wire::kEdges + 1));
        return SayFrame(FrameType::kCoverage, bytes);
      case Mischief::kOthersEdges:
        bytes.assign(records.begin(), records.begin() + 4);
        bytes[1] ^= 1;
        return SayFrame(FrameType::kCoverage, bytes);
      case Mischief::kBigRecords:
        for (unsigned i = 0; i < 256; ++i) {
          const std::vector<uint8_t> journal(4096, static_cast<uint8_t>(i));
          trace::AppendRecord(records, trace::RecordKind::kJournal, 0, 0, journal);
        }
        break;
      default:
        break;
    }
  }

  std::string_view mode_;
  unsigned patience_ = 1;
  bool tells_ = false;
};

}  // namespace

int ActAsAgent(std::string_view argument) {
  argument.remove_prefix(std::min(argument.size(), kActAsAgent.size() + 1));
  FakeMachine machine(argument);
  return wire::ServeAgent(STDIN_FILENO, kFd, machine);
}

AgentCommand FakeAgent(std::string_view mode) {
  return {.path = "/proc/self/exe",
          .arguments = {std::string(kActAsAgent) + "=" + std::string(mode)},
          .silence = std::chrono::milliseconds(300)};
}

program::Program MischiefProgram(Mischief what) {
  program::Program p;
  p.steps.push_back(
      {.op = program::Op::kMemWrite, .vcpu = 0, .arg = {0, 0, static_cast<uint64_t>(what)}});
  return p;
}

}  // namespace fpswap::targets
