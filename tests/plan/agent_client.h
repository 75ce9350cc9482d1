// SPDX-License-Identifier: GPL-2.0-or-later
//
// Runs plans in an agent of its own, over a socketpair, without the targets library.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/plan/wire.h"
#include "harness/trace/record.h"
#include "harness/trace/trace.h"

namespace fpswap::plan_testing {

class AgentClient {
 public:
  explicit AgentClient(const std::string& program, std::vector<std::string> options = {}) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return;
    child_ = fork();
    if (child_ == 0) {
      close(ends[0]);
      dup2(ends[1], STDIN_FILENO);
      dup2(ends[1], STDOUT_FILENO);
      std::vector<std::string> words = {program};
      words.insert(words.end(), options.begin(), options.end());
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    close(ends[1]);
    fd_ = ends[0];
  }
  ~AgentClient() {
    close(fd_);
    waitpid(child_, nullptr, 0);
  }
  AgentClient(const AgentClient&) = delete;
  AgentClient& operator=(const AgentClient&) = delete;

  std::expected<trace::Platform, std::string> Hello() {
    Send(wire::FrameType::kHello, {});
    const auto frame = Receive();
    if (!frame) return std::unexpected("the agent is gone");
    const std::string text(frame->payload.begin(), frame->payload.end());
    if (frame->type != wire::FrameType::kPlatform) return std::unexpected(text);
    return trace::PlatformFromJson(text);
  }

  // The records of each plan, or fewer if the agent died.
  std::vector<std::vector<uint8_t>> Run(const std::vector<plan::Plan>& plans) {
    std::vector<uint8_t> batch;
    for (const plan::Plan& p : plans) AppendPlan(p, batch);
    return RunBytes(batch);
  }

  std::vector<std::vector<uint8_t>> RunBytes(std::span<const uint8_t> batch) {
    Send(wire::FrameType::kPlans, batch);
    std::vector<std::vector<uint8_t>> all;
    for (;;) {
      const auto frame = Receive();
      if (!frame || frame->type == wire::FrameType::kBatchDone) return all;
      if (frame->type == wire::FrameType::kError) {
        error_.assign(frame->payload.begin(), frame->payload.end());
      }
      if (frame->type != wire::FrameType::kRecords) continue;
      all.emplace_back(frame->payload.begin() + 4, frame->payload.end());
    }
  }

  const std::string& error() const { return error_; }  // the last kError
  pid_t pid() const { return child_; }

 private:
  void Send(wire::FrameType type, std::span<const uint8_t> payload) {
    std::vector<uint8_t> bytes;
    wire::AppendFrame(bytes, type, payload);
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t n = write(fd_, &bytes[at], bytes.size() - at);
      if (n <= 0) return;
      at += static_cast<size_t>(n);
    }
  }

  std::optional<wire::FrameReader::Frame> Receive() {
    for (;;) {
      if (auto frame = reader_.Next()) return frame;
      uint8_t chunk[65536];
      const ssize_t n = read(fd_, chunk, sizeof(chunk));
      if (n <= 0) return std::nullopt;
      reader_.Feed({chunk, static_cast<size_t>(n)});
    }
  }

  int fd_ = -1;
  pid_t child_ = -1;
  wire::FrameReader reader_;
  std::string error_;
};

}  // namespace fpswap::plan_testing
