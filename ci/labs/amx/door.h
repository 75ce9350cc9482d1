// SPDX-License-Identifier: GPL-2.0-or-later
//
// The way out of the machine, included by Bochs' iodev/unmapped.cc: two I/O ports that no device
// has (relay.c uses them). Descriptors that Bochs is started with: 3 and 4 the stream, in and out;
// 5 the console; 6, if there is one, a listening socket.
//
//   0510H  read: a byte of the stream; write: a byte to it
//   0514H  read: how many bytes wait; 0 after 2 ms in which none came. Also sends what was written
//          write: sends what was written
//
// When the stream's input ends, so does the machine, with status 0. But a machine that was given a
// socket becomes the original of copies instead: whoever connects sends a byte with four
// descriptors (in, out, console, standard error), and gets a copy of the machine as it is at that
// moment. Nothing is booted, and memory is shared until it is written to. A copy ends when its
// connection does; what it sends there is a byte with its exit status; a byte sent to it there is
// an NMI. The original ends when nobody has come for an hour.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void machine_nmi();

class Door {
 public:
  static constexpr unsigned kData = 0x510, kWaiting = 0x514;

  unsigned char Get() { return begin_ < end_ ? in_[begin_++] : 0; }

  void Put(unsigned char byte) {
    out_[written_++] = byte;
    if (written_ == sizeof out_) Flush();
  }

  unsigned Waiting() {
    Flush();
    if (begin_ == end_) {
      pollfd stream = {kIn, POLLIN, 0};
      if (poll(&stream, 1, kWaitMs) <= 0) return 0;
      const ssize_t n = read(kIn, in_, sizeof in_);
      if (n < 0 && errno == EINTR) return 0;
      if (n <= 0) {
        Copies();
        return 0;
      }
      begin_ = 0;
      end_ = size_t(n);
    }
    return unsigned(end_ - begin_);
  }

  void Flush() {
    for (size_t at = 0; at < written_;) {
      const ssize_t n = write(kOut, out_ + at, written_ - at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        written_ = 0;
        End(4);  // nobody reads any more
      }
      at += size_t(n);
    }
    written_ = 0;
  }

  // The end of the machine, said to who holds the copy.
  [[noreturn]] void End(int status) {
    Flush();
    if (connection_ >= 0) {
      const unsigned char byte = (unsigned char)status;
      (void)!write(connection_, &byte, 1);
    }
    _exit(status);
  }

 private:
  static constexpr int kIn = 3, kOut = 4, kConsole = 5, kSocket = 6;
  static constexpr int kWaitMs = 2, kHourMs = 3600 * 1000;

  // Returns in a copy, with its own stream. The original does not return.
  void Copies() {
    int listens = 0;
    socklen_t size = sizeof listens;
    getsockopt(kSocket, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if (connection_ >= 0 || !listens) End(0);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
      pollfd socket = {kSocket, POLLIN, 0};
      const int ready = poll(&socket, 1, kHourMs);
      if (ready == 0) _exit(0);
      if (ready < 0) continue;
      const int connection = accept4(kSocket, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) continue;
      if (fork() == 0) {
        Enter(connection);
        return;
      }
      close(connection);
    }
  }

  void Enter(int connection) {
    connection_ = connection;
    close(kSocket);
    int given[4];
    if (!Receive(given)) _exit(4);
    const int places[4] = {kIn, kOut, kConsole, STDERR_FILENO};
    for (int n = 0; n < 4; n++) {
      dup2(given[n], places[n]);
      close(given[n]);
    }
    // The connection is SIGIO's business, since a machine that is busy does not come here.
    struct sigaction action = {};
    action.sa_handler = Called;
    action.sa_flags = SA_RESTART;
    sigaction(SIGIO, &action, nullptr);
    fcntl(connection_, F_SETOWN, getpid());
    fcntl(connection_, F_SETFL, O_ASYNC);
    pollfd state = {connection_, POLLRDHUP, 0};
    if (poll(&state, 1, 0) != 0) _exit(0);  // gone before it was watched
  }

  static void Called(int);

  bool Receive(int (&given)[4]) {
    char byte;
    iovec data = {&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof given)];
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (recvmsg(connection_, &message, 0) != 1) return false;
    const cmsghdr* head = CMSG_FIRSTHDR(&message);
    if (head == nullptr || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof given)) {
      return false;
    }
    memcpy(given, CMSG_DATA(head), sizeof given);
    return true;
  }

  unsigned char in_[65536], out_[65536];
  size_t begin_ = 0, end_ = 0, written_ = 0;
  int connection_ = -1;
};

Door door;

void Door::Called(int) {
  const int before = errno;
  char byte;
  const ssize_t n = recv(door.connection_, &byte, 1, MSG_DONTWAIT);
  if (n > 0) machine_nmi();
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) _exit(0);
  errno = before;
}
