// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/agent_loop.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "harness/plan/kmsg.h"
#include "harness/plan/unsent.h"
#include "harness/trace/kernel_log.h"
#include "harness/trace/record.h"

namespace fpswap::wire {
namespace {

bool WriteAll(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

std::span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The words of a hello. Total: what has no NUL behind it is a word all the same.
std::vector<std::string_view> WordsOf(std::span<const uint8_t> payload) {
  std::string_view rest(reinterpret_cast<const char*>(payload.data()), payload.size());
  std::vector<std::string_view> words;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\0'), rest.size());
    words.push_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return words;
}

// The End record's place in `records` from `begin` on; 0 if there is none, where none can be.
size_t FindEnd(std::span<const uint8_t> records, size_t begin, trace::EndRecord& end,
               uint16_t& step) {
  trace::RecordReader reader(records.subspan(begin));
  trace::RecordView view{};
  while (reader.Next(view)) {
    if (view.kind != trace::RecordKind::kEnd || !trace::ReadHead(view.bytes, end)) continue;
    step = view.step;
    return static_cast<size_t>(view.bytes.data() - records.data());
  }
  return 0;
}

// The memory behind the file `path`, a memfd of the harness's in /proc; null if it is not what
// wire::Unsent says, as in a container of its own: then everything is sent at once.
Unsent* MapUnsent(const std::string& path) {
  if (!path.starts_with("/proc/")) return nullptr;
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return nullptr;
  struct stat status;
  void* memory = MAP_FAILED;
  if (fstat(fd, &status) == 0 && status.st_size == sizeof(Unsent)) {
    memory = mmap(nullptr, sizeof(Unsent), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  close(fd);
  return memory == MAP_FAILED ? nullptr : static_cast<Unsent*>(memory);
}

class Server {
 public:
  Server(int out, Machine& machine, const FollowHello& follow)
      : out_(out), machine_(machine), follow_(follow) {}
  ~Server() {
    if (unsent_ != nullptr) munmap(unsent_, sizeof(Unsent));
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  bool Answer(const std::expected<std::string, std::string>& platform) {
    return platform ? Send(FrameType::kPlatform, BytesOf(*platform))
                    : Send(FrameType::kError, BytesOf(platform.error()));
  }

  // False when the stream is gone.
  bool Serve(const FrameReader::Frame& frame) {
    switch (frame.type) {
      case FrameType::kHello:
        return Answer(Greet(WordsOf(frame.payload)));
      case FrameType::kPlans:
        return RunBatch(frame.payload);
      default:
        return Send(FrameType::kError, BytesOf("an agent takes hello and plans frames"));
    }
  }

 private:
  using Followed = std::expected<void, std::string>;
  using Clock = std::chrono::steady_clock;
  // Frames collect in one buffer: a batch of short programs costs a few system calls, not a few for
  // each program. They go out before there are many, so that the harness judges while programs run,
  // and before it wonders at the silence.
  static constexpr size_t kFlushAt = 64 << 10;
  static constexpr std::chrono::milliseconds kFlushAfter{20};
  static_assert(kFlushAt <= Unsent::kRoom);

  std::expected<std::string, std::string> Greet(std::vector<std::string_view> words) {
    if (const auto share = std::ranges::find(words, kUnsent); share != words.end()) {
      const auto path = share + 1;
      if (path == words.end()) return std::unexpected(std::string(kUnsent) + " needs a path");
      Share(std::string(*path));
      words.erase(share, path + 1);
    }
    if (const auto followed = follow_ ? follow_(words) : Followed{}; !followed) {
      return std::unexpected(followed.error());
    }
    return machine_.Platform();
  }

  void Share(const std::string& path) {
    if (unsent_ != nullptr) return;
    unsent_ = MapUnsent(path);
    if (unsent_ != nullptr) unsent_->sent.store(sent_);
  }

  bool Send(FrameType type, std::span<const uint8_t> payload) {
    AppendFrame(buffer_, type, payload);
    return Flush();
  }

  bool Flush() {
    const bool ok = WriteAll(out_, buffer_);
    sent_ += buffer_.size();
    // In this order: between the two nothing is said, and all is sent.
    if (unsent_ != nullptr) {
      unsent_->size.store(0);
      unsent_->sent.store(sent_);
    }
    buffer_.clear();
    said_ = 0;
    flushed_ = Clock::now();
    return ok;
  }

  // The harness will know what is in the buffer, whatever becomes of this process.
  bool Say() {
    if (unsent_ == nullptr || buffer_.size() > kFlushAt || Clock::now() - flushed_ > kFlushAfter) {
      return Flush();
    }
    std::memcpy(unsent_->bytes + said_, buffer_.data() + said_, buffer_.size() - said_);
    said_ = buffer_.size();
    unsent_->size.store(said_);
    return true;
  }

  bool RunBatch(std::span<const uint8_t> rest) {
    for (uint32_t number = 0; !rest.empty(); ++number) {
      uint8_t head[4];
      std::memcpy(head, &number, sizeof(head));
      AppendFrame(buffer_, FrameType::kBegin, head);
      if (!Say()) return false;
      payload_.assign(head, head + sizeof(head));
      const auto plan = ReadPlan(rest);
      if (!plan) {
        if (!Send(FrameType::kError, BytesOf(plan.error()))) return false;
        continue;  // ReadPlan has passed over it, or over all of the batch if it had to
      }
      RunPatiently(machine_, *plan, payload_);
      PutKernelLog();
      PutCoverage(head);
      AppendFrame(buffer_, FrameType::kRecords, payload_);
      if (buffer_.size() > kFlushAt && !Flush()) return false;
    }
    return Send(FrameType::kBatchDone, {});
  }

  // Before the End record, which is the last. Only where the kernel complains: what else it has to
  // say differs from run to run.
  void PutKernelLog() {
    const std::string& log = kmsg_.ReadNew();
    if (log.empty() || trace::FindSplats(log).empty()) return;
    trace::EndRecord end{};
    uint16_t step = 0;
    const size_t at = FindEnd(payload_, sizeof(uint32_t), end, step);
    if (at == 0) return;
    const auto begin = payload_.begin() + static_cast<ptrdiff_t>(at - trace::kRecordHeader);
    const std::vector<uint8_t> last(begin, payload_.end());
    payload_.erase(begin, payload_.end());
    trace::AppendRecord(payload_, trace::RecordKind::kKernelLog, 0, step, BytesOf(log));
    payload_.insert(payload_.end(), last.begin(), last.end());
  }

  void PutCoverage(std::span<const uint8_t> number) {
    const std::span<const uint16_t> edges = machine_.KernelEdges();
    if (edges.empty()) return;
    coverage_.assign(number.begin(), number.end());
    coverage_.resize(number.size() + edges.size_bytes());
    std::memcpy(&coverage_[number.size()], edges.data(), edges.size_bytes());
    AppendFrame(buffer_, FrameType::kCoverage, coverage_);
  }

  int out_;
  Machine& machine_;
  Kmsg kmsg_;
  const FollowHello& follow_;
  std::vector<uint8_t> buffer_;
  std::vector<uint8_t> payload_, coverage_;
  Unsent* unsent_ = nullptr;  // where it is shared
  uint64_t sent_ = 0;         // bytes of the stream
  size_t said_ = 0;           // bytes of the buffer
  Clock::time_point flushed_;
};

}  // namespace

void RunPatiently(Machine& machine, const PlanView& plan, std::vector<uint8_t>& records) {
  const size_t begin = records.size();
  machine.Run(plan, records);
  trace::EndRecord end{};
  uint16_t step = 0;
  if (FindEnd(records, begin, end, step) == 0 ||
      end.reason != static_cast<uint8_t>(trace::EndReason::kHang) ||
      (step < plan.steps.size() && plan.steps[step].op == program::Op::kRaw)) {
    return;
  }
  records.resize(begin);
  machine.SetPatience(kPatience);
  machine.Run(plan, records);
  machine.SetPatience(1);
  if (const size_t at = FindEnd(records, begin, end, step); at != 0) {
    end.hangs = 1;
    std::memcpy(&records[at], &end, sizeof(end));
  }
}

int ServeAgent(int in, int out, Machine& machine, const FollowHello& follow, bool greeted) {
  FrameReader reader;
  Server server(out, machine, follow);
  if (greeted && !server.Answer(machine.Platform())) return 0;
  std::vector<uint8_t> chunk(256 << 10);
  for (;;) {
    const ssize_t n = read(in, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n == 0 ? 0 : 1;
    reader.Feed(std::span(chunk).first(static_cast<size_t>(n)));
    while (const auto frame = reader.Next()) {
      if (!server.Serve(*frame)) return 0;
    }
  }
}

}  // namespace fpswap::wire
