// SPDX-License-Identifier: GPL-2.0-or-later
//
// An agent's process and the stream to it. Knows frames, not what is in them.
//
// The agent is not trusted: it may die, fall silent, or send anything. Each of these ends in a
// sentence, none in a wait without end.
//
// Not thread safe.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/plan/unsent.h"
#include "harness/plan/wire.h"

namespace fpswap::targets {

class AgentProcess {
 public:
  using Frame = wire::FrameReader::Frame;

  struct Command {
    std::vector<std::string> words;  // words[0]: a path, or a name to be found in $PATH
    std::string folder;              // to start in; "" is this process's own
    std::string console;             // $FPSWAP_CONSOLE; "" for none
    bool elsewhere = false;          // the agent is on another machine: no memory is shared
  };
  // Starts it as the leader of a process group, with the stream as its standard input and output.
  static std::expected<AgentProcess, std::string> Start(const Command& command);
  AgentProcess(AgentProcess&& other) noexcept;
  AgentProcess& operator=(AgentProcess&& other) noexcept;
  ~AgentProcess();  // as Stop
  // Kills it if it still runs, and reaps it. A process that is stuck in the kernel does not end:
  // then it is abandoned, and the sentence says so; else it is "".
  std::string Stop();

  pid_t pid() const { return pid_; }
  // The file through which the agent can share what it has not sent (unsent.h); "" if there is
  // none. The agent needs it only until it has answered.
  std::string unsent_path() const;

  // Queues bytes; they go out while Read waits, so that both sides may have much to say.
  void Write(std::span<const uint8_t> bytes);
  // The next frame; its payload is valid until the next call. An error if the agent has died, has
  // sent what is no frame, or has said nothing for `silence`: then it is killed. What it had said
  // until then comes before the error. Elsewhere bytes may be damaged on the way: what is no frame
  // is passed over.
  std::expected<Frame, std::string> Read(std::chrono::milliseconds silence);
  // Whether bytes were passed over, or the last of them are the beginning of a frame.
  bool damaged() const { return reader_.skipped_bytes() != 0 || reader_.pending_bytes() != 0; }

 private:
  class UnsentMemory;
  AgentProcess(pid_t pid, int fd, bool elsewhere);
  std::expected<void, std::string> Pump(std::chrono::milliseconds silence);
  bool Send();
  std::expected<void, std::string> Receive();
  bool TakeUnsent();
  std::string HowItDied();

  pid_t pid_ = -1;
  int fd_ = -1;
  bool elsewhere_ = false;
  std::vector<uint8_t> out_;
  size_t sent_ = 0;
  wire::FrameReader reader_;
  std::vector<uint8_t> chunk_;
  uint64_t received_ = 0;
  std::unique_ptr<UnsentMemory> unsent_;  // null once it was read
  std::string silent_;                    // why it was killed, if it was
};

// What a program of ours prints, where it ends well: words[0] is its path. Waits for its end.
std::expected<std::string, std::string> OutputOf(std::vector<std::string> words);

}  // namespace fpswap::targets
