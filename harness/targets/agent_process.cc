// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/targets/agent_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

extern char** environ;

namespace fpswap::targets {
namespace {

constexpr size_t kChunk = 256 << 10;
constexpr int kSocketBuffer = 1 << 20;
// A killed process of many gigabytes takes a while on a loaded machine.
constexpr std::chrono::seconds kTimeToEnd{5};

// What posix_spawn is to do, destroyed in the end.
struct SpawnSettings {
  SpawnSettings() {
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
};

// As exec wants them; `words` must outlive them.
std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return argv;
}

}  // namespace

class AgentProcess::UnsentMemory {
 public:
  UnsentMemory() : fd_(memfd_create("fpswap-unsent", MFD_CLOEXEC)) {
    if (fd_ < 0 || ftruncate(fd_, sizeof(wire::Unsent)) != 0) return;
    void* memory = mmap(nullptr, sizeof(wire::Unsent), PROT_READ, MAP_SHARED, fd_, 0);
    if (memory != MAP_FAILED) memory_ = static_cast<const wire::Unsent*>(memory);
  }
  ~UnsentMemory() {
    if (memory_ != nullptr) munmap(const_cast<wire::Unsent*>(memory_), sizeof(wire::Unsent));
    if (fd_ >= 0) close(fd_);
  }
  UnsentMemory(const UnsentMemory&) = delete;
  UnsentMemory& operator=(const UnsentMemory&) = delete;

  std::string path() const {
    if (memory_ == nullptr) return "";
    return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_);
  }

  // What was said behind the first `received` bytes. The agent may have written anything there.
  std::span<const uint8_t> After(uint64_t received) const {
    if (memory_ == nullptr) return {};
    const uint64_t size = std::min<uint64_t>(memory_->size.load(), wire::Unsent::kRoom);
    const uint64_t known = received - memory_->sent.load();
    if (known >= size) return {};
    return std::span(memory_->bytes).subspan(known, size - known);
  }

 private:
  int fd_;
  const wire::Unsent* memory_ = nullptr;
};

AgentProcess::AgentProcess(pid_t pid, int fd, bool elsewhere)
    : pid_(pid),
      fd_(fd),
      elsewhere_(elsewhere),
      unsent_(elsewhere ? nullptr : std::make_unique<UnsentMemory>()) {}

std::string AgentProcess::unsent_path() const { return unsent_ ? unsent_->path() : ""; }

std::expected<AgentProcess, std::string> AgentProcess::Start(const Command& command) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return std::unexpected(std::string("socketpair: ") + std::strerror(errno));
  }
  for (const int fd : pair) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof(kSocketBuffer));
  }
  std::vector<std::string> words = command.words;
  std::vector<char*> argv = Pointers(words);
  std::string console = "FPSWAP_CONSOLE=" + command.console;
  std::vector<char*> environment;
  for (char** each = environ; *each != nullptr; ++each) environment.push_back(*each);
  if (!command.console.empty()) environment.push_back(console.data());
  environment.push_back(nullptr);

  SpawnSettings spawn;
  posix_spawn_file_actions_adddup2(&spawn.files, pair[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&spawn.files, pair[1], STDOUT_FILENO);
  if (!command.folder.empty()) {
    posix_spawn_file_actions_addchdir_np(&spawn.files, command.folder.c_str());
  }
  // A group of its own: what it has started ends with it, and Ctrl-C is the harness's to answer.
  posix_spawnattr_setflags(&spawn.attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error =
      posix_spawnp(&pid, argv[0], &spawn.files, &spawn.attributes, argv.data(), environment.data());
  close(pair[1]);
  if (error != 0) {
    close(pair[0]);
    return std::unexpected(command.words[0] + ": " + std::strerror(error));
  }
  fcntl(pair[0], F_SETFL, O_NONBLOCK);
  return AgentProcess(pid, pair[0], command.elsewhere);
}

std::expected<std::string, std::string> OutputOf(std::vector<std::string> words) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return std::unexpected(std::string("pipe: ") + std::strerror(errno));
  const std::vector<char*> argv = Pointers(words);
  SpawnSettings spawn;
  posix_spawn_file_actions_adddup2(&spawn.files, ends[1], STDOUT_FILENO);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, argv[0], &spawn.files, nullptr, argv.data(), environ);
  close(ends[1]);
  std::string output;
  char buffer[4096];
  for (ssize_t got = 1; error == 0 && got != 0;) {
    got = read(ends[0], buffer, sizeof(buffer));
    if (got < 0 && errno != EINTR) break;
    if (got > 0) output.append(buffer, static_cast<size_t>(got));
  }
  close(ends[0]);
  if (error != 0) return std::unexpected(words[0] + ": " + std::strerror(error));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return output;
  return std::unexpected(words[0] + " failed");
}

AgentProcess::AgentProcess(AgentProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      fd_(std::exchange(other.fd_, -1)),
      elsewhere_(other.elsewhere_),
      out_(std::move(other.out_)),
      sent_(other.sent_),
      reader_(std::move(other.reader_)),
      chunk_(std::move(other.chunk_)),
      received_(other.received_),
      unsent_(std::move(other.unsent_)),
      silent_(std::move(other.silent_)) {}

AgentProcess& AgentProcess::operator=(AgentProcess&& other) noexcept {
  if (this == &other) return *this;
  Stop();
  pid_ = std::exchange(other.pid_, -1);
  fd_ = std::exchange(other.fd_, -1);
  elsewhere_ = other.elsewhere_;
  out_ = std::move(other.out_);
  sent_ = other.sent_;
  reader_ = std::move(other.reader_);
  chunk_ = std::move(other.chunk_);
  received_ = other.received_;
  unsent_ = std::move(other.unsent_);
  silent_ = std::move(other.silent_);
  return *this;
}

AgentProcess::~AgentProcess() { Stop(); }

std::string AgentProcess::Stop() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  const pid_t pid = std::exchange(pid_, -1);
  if (pid <= 0) return "";
  kill(-pid, SIGKILL);
  const auto deadline = std::chrono::steady_clock::now() + kTimeToEnd;
  for (;;) {
    const pid_t ended = waitpid(pid, nullptr, WNOHANG);
    if (ended == pid || (ended < 0 && errno != EINTR)) return "";
    if (std::chrono::steady_clock::now() > deadline) break;
    usleep(1000);
  }
  return "process " + std::to_string(pid) + " did not end within " +
         std::to_string(kTimeToEnd.count()) +
         " s of SIGKILL: it is stuck in the kernel, and was abandoned";
}

void AgentProcess::Write(std::span<const uint8_t> bytes) {
  if (sent_ == out_.size()) {
    out_.clear();
    sent_ = 0;
  }
  out_.insert(out_.end(), bytes.begin(), bytes.end());
}

std::expected<AgentProcess::Frame, std::string> AgentProcess::Read(
    std::chrono::milliseconds silence) {
  for (;;) {
    const auto frame = reader_.Next();
    // A frame found behind garbage counts no more than the garbage.
    if (reader_.skipped_bytes() != 0 && !elsewhere_) {
      return std::unexpected("the agent sent bytes that are no frame");
    }
    if (frame) return *frame;
    if (auto pumped = Pump(silence); !pumped) return std::unexpected(pumped.error());
  }
}

// Waits until something has come; writes meanwhile.
std::expected<void, std::string> AgentProcess::Pump(std::chrono::milliseconds silence) {
  for (;;) {
    const bool more = sent_ < out_.size();
    pollfd poller{
        .fd = fd_, .events = static_cast<short>(POLLIN | (more ? POLLOUT : 0)), .revents = 0};
    const int ready = poll(&poller, 1, static_cast<int>(silence.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return std::unexpected(std::string("poll: ") + std::strerror(errno));
    if (ready == 0) {
      if (!silent_.empty()) return std::unexpected(silent_);  // not even dying
      silent_ = "the agent said nothing for " + std::to_string(silence.count()) + " ms";
      kill(-pid_, SIGKILL);
      continue;
    }
    // What it said before it died counts, so reading comes first.
    if ((poller.revents & (POLLIN | POLLHUP | POLLERR)) != 0) return Receive();
    if ((poller.revents & POLLOUT) != 0 && !Send()) return std::unexpected(HowItDied());
  }
}

bool AgentProcess::Send() {
  const ssize_t n = send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
  if (n > 0) sent_ += static_cast<size_t>(n);
  // A broken pipe shows when reading, after what came before it.
  return n >= 0 || errno == EAGAIN || errno == EINTR || errno == EPIPE || errno == ECONNRESET;
}

std::expected<void, std::string> AgentProcess::Receive() {
  chunk_.resize(kChunk);
  const ssize_t n = recv(fd_, chunk_.data(), chunk_.size(), 0);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
  if (n <= 0) {
    if (TakeUnsent()) return {};
    return std::unexpected(silent_.empty() ? HowItDied() : silent_);
  }
  received_ += static_cast<uint64_t>(n);
  reader_.Feed(std::span(chunk_).first(static_cast<size_t>(n)));
  return {};
}

// The stream is over: what the agent had said but not sent. True if there is any.
bool AgentProcess::TakeUnsent() {
  const auto unsent = std::exchange(unsent_, nullptr);
  if (!unsent) return false;
  const auto bytes = unsent->After(received_);
  reader_.Feed(bytes);
  return !bytes.empty();
}

std::string AgentProcess::HowItDied() {
  int status = 0;
  // The stream ends as the process does; it may take a moment to be reaped.
  pid_t reaped = 0;
  for (int i = 0; i < 100 && reaped == 0; ++i) {
    reaped = waitpid(pid_, &status, WNOHANG);
    if (reaped == 0) usleep(1000);
  }
  if (reaped != pid_) return "the agent closed its stream";
  pid_ = -1;
  if (WIFSIGNALED(status)) {
    return "the agent was ended by signal " + std::to_string(WTERMSIG(status)) + " (" +
           strsignal(WTERMSIG(status)) + ")";
  }
  return "the agent ended with status " + std::to_string(WEXITSTATUS(status));
}

}  // namespace fpswap::targets
