// SPDX-License-Identifier: GPL-2.0-or-later
//
// Inside the machine: runs an agent and carries its stream through the door, the I/O ports that the
// edit "door" adds to Bochs. The agent's command is /agent, one word a line.
//
// The machine has one CPU. What the agent says goes out before it goes on: a process of the highest
// priority carries it. Else the program that an agent is about to run would not be known outside,
// should it take the machine down. What comes in is carried by one of the idle class, so it runs
// when the agent has nothing to do, and waiting at the door, which stops the whole machine for up
// to 2 ms, takes nothing from it. The short sleep after a wait in vain lets the machine's time go
// on, for timers: an emulator skips time in which nothing runs.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kData = 0x510, kWaiting = 0x514 };

static unsigned char buffer[65536];

static void Fail(const char* what) {
  fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
  exit(1);
}

static pid_t Start(int stream) {
  char text[4096];
  char* words[64];
  int count = 0;
  FILE* file = fopen("/agent", "r");
  if (file == NULL) Fail("/agent");
  while (count < 63 && fgets(text, sizeof text, file) != NULL) {
    text[strcspn(text, "\n")] = 0;
    if (text[0] != 0) words[count++] = strdup(text);
  }
  fclose(file);
  if (count == 0) Fail("/agent is empty");
  words[count] = NULL;
  const pid_t agent = fork();
  if (agent < 0) Fail("fork");
  if (agent == 0) {
    if (ioperm(kData, 8, 0) != 0 || dup2(stream, 0) != 0 || dup2(stream, 1) != 1)
      Fail("the agent's descriptors");
    for (int fd = 3; fd < 16; fd++) close(fd);
    execv(words[0], words);
    Fail(words[0]);
  }
  return agent;
}

static void Schedule(int policy, int priority) {
  const struct sched_param settings = {.sched_priority = priority};
  if (sched_setscheduler(0, policy, &settings) != 0) Fail("sched_setscheduler");
}

static pid_t CarryOut(int stream) {
  const pid_t carrier = fork();
  if (carrier < 0) Fail("fork");
  if (carrier > 0) return carrier;
  Schedule(SCHED_FIFO, 1);
  for (;;) {
    const ssize_t n = recv(stream, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(0);
    outsb(kData, buffer, (unsigned long)n);
    outl(0, kWaiting);
  }
}

int main(void) {
  int ends[2];
  if (ioperm(kData, 8, 1) != 0) Fail("ioperm");
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) Fail("socketpair");
  const int room = 4 << 20;  // a batch goes in one piece
  for (int n = 0; n < 2; n++) setsockopt(ends[n], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  const pid_t agent = Start(ends[1]);
  close(ends[1]);
  const int stream = ends[0];
  const pid_t carrier = CarryOut(stream);
  Schedule(SCHED_IDLE, 0);
  while (waitpid(carrier, NULL, WNOHANG) == 0) {
    unsigned waiting = inl(kWaiting);
    if (waiting > 0) {
      if (waiting > sizeof buffer) waiting = sizeof buffer;
      insb(kData, buffer, waiting);
      for (unsigned sent = 0; sent < waiting;) {
        const ssize_t n = send(stream, buffer + sent, waiting - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) break;  // the agent is gone, which its carrier sees too
        if (n > 0) sent += (unsigned)n;
      }
      continue;
    }
    const struct timespec moment = {0, 200000};
    nanosleep(&moment, NULL);
  }
  int status = 0;
  waitpid(agent, &status, 0);
  fprintf(stderr, "relay: the agent has ended with wait status %x\n", status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
