// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/targets/agent_target.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "harness/trace/kernel_log.h"
#include "harness/trace/record.h"
#include "harness/trace/trace.h"

namespace fpswap::targets {
namespace {

using trace::EndReason;
using trace::RecordKind;
using wire::FrameType;

constexpr size_t kBatchBytes = 4u << 20;
// Starts without a single program done before the target gives up.
constexpr unsigned kMaxFruitlessStarts = 3;
constexpr size_t kConsoleTail = 64 << 10;
// How often a stream may break at one program before that is the program's fault.
constexpr unsigned kMaxDamage = 3;

std::span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string TextOf(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void AppendEnd(EndReason reason, const std::string& text, std::vector<uint8_t>& out) {
  const trace::EndRecord end{.reason = static_cast<uint8_t>(reason)};
  trace::AppendRecord(out, RecordKind::kEnd, 0, 0,
                      {reinterpret_cast<const uint8_t*>(&end), sizeof(end)}, BytesOf(text));
}

// Whole records, the last of them and no other an End.
bool WellFormed(std::span<const uint8_t> records) {
  if (records.size() > trace::kMaxRecordsBytes) return false;
  trace::RecordReader reader(records);
  trace::RecordView view;
  bool ended = false;
  while (reader.Next(view)) {
    if (ended) return false;
    ended = view.kind == RecordKind::kEnd && view.bytes.size() >= sizeof(trace::EndRecord);
  }
  return ended && !reader.malformed();
}

// An agent's "reason\nremedy".
Unavailable SplitReason(const std::string& text, const std::string& path) {
  const size_t line = text.find('\n');
  if (line == std::string::npos) return {text, "see what " + path + " --help says"};
  return {text.substr(0, line), text.substr(line + 1)};
}

}  // namespace

// The file that a machine's console goes to. It goes with this object; where the process is killed
// first, with its folder.
struct AgentTarget::Console {
  explicit Console(std::filesystem::path folder) {
    std::error_code status;
    if (folder.empty()) folder = std::filesystem::temp_directory_path(status);
    if (status) folder = "/tmp";
    path = (folder / "fpswap-console-XXXXXX").string();
    const int fd = mkstemp(path.data());
    if (fd < 0) path.clear();
    if (fd >= 0) close(fd);
  }
  ~Console() {
    if (!path.empty()) unlink(path.c_str());
  }
  void Clear() const {
    std::error_code status;
    if (!path.empty()) std::filesystem::resize_file(path, 0, status);
  }
  // A line's end and the last of what the machine said; "" if that is nothing.
  std::string Tail() const {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = static_cast<std::streamoff>(file.tellg());
    if (size <= 0) return "";
    const auto wanted = std::min<std::streamoff>(size, kConsoleTail);
    std::string tail(static_cast<size_t>(wanted), '\0');
    file.seekg(size - wanted);
    file.read(tail.data(), wanted);
    tail.resize(static_cast<size_t>(file.gcount()));
    return "\n" + tail;
  }
  // Whether the machine says that it died: then a frame that ends in its middle is no damage.
  bool TellsOfDeath() const {
    return std::ranges::any_of(trace::FindSplats(Tail()), &trace::Splat::fatal);
  }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  std::string path;  // "" if there can be none
};

AgentTarget::AgentTarget(AgentCommand command) : command_(std::move(command)) {
  if (elsewhere()) console_ = std::make_unique<Console>(command_.console_folder);
}

AgentTarget::~AgentTarget() = default;

// One call of Run.
struct AgentTarget::Batch {
  std::span<const plan::Plan* const> plans;
  const std::function<void(size_t, std::span<const uint8_t>)>& done;
  size_t next = 0;       // the first plan without records
  size_t first = 0;      // the plan that is number 0 for the agent
  size_t count = 0;      // sent
  bool begun = false;    // the agent said that it begins `next`
  bool refused = false;  // the last program that is done was no good plan
  unsigned damage = 0;   // how often the stream broke at `next`
  bool strange = false;  // the agent sent a frame that can't be

  void Done(std::span<const uint8_t> records) {
    done(next++, records);
    begun = refused = false;
    damage = 0;
  }
};

std::expected<std::unique_ptr<AgentTarget>, Unavailable> AgentTarget::Open(AgentCommand command) {
  std::unique_ptr<AgentTarget> target(new AgentTarget(std::move(command)));
  if (auto hello = target->Hello(true); !hello) return std::unexpected(hello.error());
  return target;
}

// `share`: the agent may keep what it says in shared memory (unsent.h) for a while.
std::expected<void, Unavailable> AgentTarget::Hello(bool share) {
  AgentProcess::Command start{.words = {command_.path},
                              .folder = command_.folder,
                              .console = console_ ? console_->path : "",
                              .elsewhere = elsewhere()};
  std::ranges::copy(command_.arguments, std::back_inserter(start.words));
  // What is elsewhere was started by others, and hears what it is to do with the first frame.
  std::string hello;
  const auto say = [&](const std::string& word) { (hello += word) += '\0'; };
  if (elsewhere()) {
    std::ranges::for_each(command_.options, say);
  } else {
    std::ranges::copy(command_.options, std::back_inserter(start.words));
  }
  if (console_) console_->Clear();
  auto agent = AgentProcess::Start(start);
  if (!agent) {
    return std::unexpected(Unavailable{
        agent.error(), elsewhere() ? "see the lab's lab.json: \"connect\" can't be started"
                                   : "build the agents (cmake --build build) and keep them "
                                     "beside the fpswap command"});
  }
  agent_.emplace(std::move(*agent));
  frame_.clear();
  const std::string path = agent_->unsent_path();
  shares_ = share && !path.empty();
  if (shares_) {
    say(std::string(wire::kUnsent));
    say(path);
  }
  wire::AppendFrame(frame_, FrameType::kHello, BytesOf(hello));
  agent_->Write(frame_);
  const auto answer = agent_->Read(command_.start);
  if (!answer) return std::unexpected(SplitReason(answer.error(), command_.path));
  if (answer->type == FrameType::kError) {
    return std::unexpected(SplitReason(TextOf(answer->payload), command_.path));
  }
  if (answer->type != FrameType::kPlatform) {
    return std::unexpected(Unavailable{command_.path + " does not answer as an agent does",
                                       "build the agents and the command from the same source"});
  }
  auto platform = trace::PlatformFromJson(TextOf(answer->payload));
  if (!platform) {
    return std::unexpected(
        Unavailable{platform.error(), "build the agents and the command from the same source"});
  }
  platform_ = std::move(*platform);
  platform_.lab = command_.lab;
  platform_.spare_host = command_.spare_host;
  return {};
}

std::expected<void, std::string> AgentTarget::Restart(bool share) {
  agent_.reset();
  ++restarts_;
  // The platform stays what it was when the target was opened: plans were made for it.
  const trace::Platform before = platform_;
  auto hello = Hello(share);
  platform_ = before;
  if (hello) return {};
  agent_.reset();
  return std::unexpected(hello.error().reason);
}

void AgentTarget::SendFrom(Batch& batch) {
  plans_.clear();
  edges_.clear();
  batch.first = batch.next;
  batch.begun = batch.refused = batch.strange = false;
  size_t i = batch.first;
  for (; i < batch.plans.size() && plans_.size() < kBatchBytes; ++i) {
    plan::AppendPlan(*batch.plans[i], plans_);
  }
  batch.count = i - batch.first;
  frame_.clear();
  wire::AppendFrame(frame_, FrameType::kPlans, plans_);
  agent_->Write(frame_);
}

// True when the batch sent is through.
std::expected<bool, std::string> AgentTarget::Take(const AgentProcess::Frame& frame, Batch& batch) {
  const size_t end = batch.first + batch.count;
  uint32_t number = 0;
  const bool numbered = frame.payload.size() >= sizeof(number);
  if (numbered) std::memcpy(&number, frame.payload.data(), sizeof(number));
  const bool expected = numbered && batch.next < end && batch.first + number == batch.next;
  switch (frame.type) {
    case FrameType::kBegin:
      if (!expected || batch.begun) return std::unexpected("the agent began another program");
      batch.begun = true;
      edges_.clear();
      return false;
    case FrameType::kCoverage: {
      const size_t bytes = frame.payload.size() - (numbered ? sizeof(number) : 0);
      if (!expected || !batch.begun || bytes % sizeof(uint16_t) != 0 ||
          bytes > wire::kEdges * sizeof(uint16_t)) {
        return std::unexpected("the agent sent coverage that can't be");
      }
      edges_.resize(bytes / sizeof(uint16_t));
      if (bytes > 0) std::memcpy(edges_.data(), frame.payload.data() + sizeof(number), bytes);
      return false;
    }
    case FrameType::kRecords: {
      const auto records = frame.payload.subspan(numbered ? sizeof(number) : 0);
      if (!expected || !batch.begun || !WellFormed(records)) {
        return std::unexpected("the agent sent records that can't be");
      }
      batch.Done(records);
      return false;
    }
    case FrameType::kError:
      // It refuses this plan and goes on with the next.
      if (!batch.begun) return std::unexpected(TextOf(frame.payload));
      records_.clear();
      AppendEnd(EndReason::kSetupFailed, TextOf(frame.payload), records_);
      batch.Done(records_);
      batch.refused = true;
      return false;
    case FrameType::kBatchDone:
      // Behind a plan whose own size is wrong there is nothing to be found; it is sent again.
      if (batch.next != end && !batch.refused) {
        return std::unexpected("the agent left programs out");
      }
      return true;
    default:
      return std::unexpected("the agent sent a frame out of turn");
  }
}

std::expected<void, std::string> AgentTarget::Collect(Batch& batch) {
  for (;;) {
    const auto frame = agent_->Read(command_.silence);
    if (!frame) return std::unexpected(frame.error());
    const auto through = Take(*frame, batch);
    batch.strange = !through;
    if (!through) return std::unexpected(through.error());
    if (*through) return {};
  }
}

std::expected<void, std::string> AgentTarget::Run(
    std::span<const plan::Plan* const> plans,
    const std::function<void(size_t index, std::span<const uint8_t> records)>& done) {
  Batch batch{.plans = plans, .done = done};
  unsigned fruitless = 0;
  while (batch.next < plans.size()) {
    const size_t before = batch.next;
    bool in_order = true;
    std::string why;
    if (agent_) {
      SendFrom(batch);
      const auto collected = Collect(batch);
      if (collected) continue;
      why = collected.error();
      // What breaks the stream may have overtaken what the agent had said before and not sent: an
      // agent that sends everything at once has to show which program it is.
      in_order = !shares_ || !(batch.strange || agent_->damaged());
      const bool damaged =
          elsewhere() && agent_->damaged() && !(console_ && console_->TellsOfDeath());
      if (const std::string stuck = agent_->Stop(); !stuck.empty()) why += "; " + stuck;
      if (batch.begun && in_order && (!damaged || ++batch.damage >= kMaxDamage)) {
        records_.clear();
        AppendEnd(EndReason::kAgentDied, why + (console_ ? console_->Tail() : ""), records_);
        batch.Done(records_);
      }
    }
    fruitless = batch.next == before ? fruitless + 1 : 0;
    if (auto restarted = Restart(in_order && fruitless == 0); !restarted) why = restarted.error();
    if (fruitless >= kMaxFruitlessStarts) {
      return std::unexpected("the agent " + command_.path + " can't be kept running: " + why);
    }
  }
  return {};
}

}  // namespace fpswap::targets
