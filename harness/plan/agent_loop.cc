// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/agent_loop.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

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

class Server {
 public:
  Server(int out, Machine& machine) : out_(out), machine_(machine) {}

  // False when the stream is gone or the harness said kQuit.
  bool Serve(const FrameReader::Frame& frame) {
    switch (frame.type) {
      case FrameType::kHello: {
        const auto platform = machine_.Platform();
        return platform ? Send(FrameType::kPlatform, BytesOf(*platform))
                        : Send(FrameType::kError, BytesOf(platform.error()));
      }
      case FrameType::kPlans:
        return RunBatch(frame.payload);
      case FrameType::kQuit:
        return false;
      default:
        return Send(FrameType::kError, BytesOf("an agent takes hello, plans and quit frames"));
    }
  }

 private:
  // Frames collect in one buffer: a batch of short programs costs a few system calls, not a few for
  // each program. What is about to run is announced before it runs.
  static constexpr size_t kFlushAt = 256 << 10;

  bool Send(FrameType type, std::span<const uint8_t> payload) {
    AppendFrame(buffer_, type, payload);
    return Flush();
  }

  bool Flush() {
    const bool ok = WriteAll(out_, buffer_);
    buffer_.clear();
    return ok;
  }

  bool RunBatch(std::span<const uint8_t> rest) {
    for (uint32_t number = 0; !rest.empty(); ++number) {
      uint8_t head[4];
      std::memcpy(head, &number, sizeof(head));
      AppendFrame(buffer_, FrameType::kBegin, head);
      if (!Flush()) return false;
      payload_.assign(head, head + sizeof(head));
      const auto plan = ReadPlan(rest);
      if (!plan) {
        if (!Send(FrameType::kError, BytesOf(plan.error()))) return false;
        continue;  // ReadPlan has passed over it, or over all of the batch if it had to
      }
      machine_.Run(*plan, payload_);
      AppendFrame(buffer_, FrameType::kRecords, payload_);
      if (buffer_.size() > kFlushAt && !Flush()) return false;
    }
    return Send(FrameType::kBatchDone, {});
  }

  int out_;
  Machine& machine_;
  std::vector<uint8_t> buffer_;
  std::vector<uint8_t> payload_;
};

}  // namespace

int ServeAgent(int in, int out, Machine& machine) {
  FrameReader reader;
  Server server(out, machine);
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
