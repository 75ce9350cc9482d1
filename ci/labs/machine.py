# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab's machine as a process: ended when whoever asked for it is gone, whatever way that went."""

import ctypes
import os
import select
import signal
import subprocess

from . import store

PR_SET_PDEATHSIG = 1
# A machine whose stream has ended may finish the batch that it had, and power off.
GRACE_S = 5


def dies_with_us():
    """For Popen's preexec_fn: the kernel ends the child when its parent ends, were it by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(lab, command):
    """Runs `command` with our stdin and stdout as its own, to the end of it or of stdin. Nothing is relayed."""
    running = lab.folder / "running"
    running.mkdir(exist_ok=True)
    mark = running / str(os.getpid())
    mark.touch()
    try:
        with subprocess.Popen(command, preexec_fn=dies_with_us) as machine:
            # When the machine is gone the stream's end must be seen at once.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            _until_either_ends(machine)
            machine.kill()
    finally:
        mark.unlink(missing_ok=True)


def _until_either_ends(machine):
    ended = os.pidfd_open(machine.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(0, 0)  # POLLHUP, which needs not be asked for: the data is the machine's
    if ended not in [fd for fd, _ in poll.poll()]:
        poll.unregister(0)
        poll.poll(GRACE_S * 1000)


def running(lab):
    """The processes that hold one of the lab's machines."""
    found = []
    for mark in (lab.folder / "running").glob("*"):
        try:
            words = open(f"/proc/{mark.name}/cmdline", "rb").read().split(b"\0")
        except OSError:
            words = []
        if b"connect" in words and lab.name.encode() in words:
            found.append(int(mark.name))
        else:  # it was killed, and its number may be another's by now
            mark.unlink(missing_ok=True)
    return found


def stop(lab):
    for pid in running(lab):
        store.say(f"{lab.name}: ending machine {pid}")
        os.kill(pid, signal.SIGTERM)
