# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab's machine as a process: ended when whoever asked for it is gone, whatever way that went."""

import contextlib
import ctypes
import os
import pathlib
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


def serve(command):
    """Runs `command` with our stdin and stdout as its own, to the end of it or of stdin. Nothing is relayed."""
    with subprocess.Popen(command, preexec_fn=dies_with_us) as machine:
        until_either_ends(os.pidfd_open(machine.pid))
        machine.kill()


def until_either_ends(machine):
    """Waits for our stdin's end, and a little longer for the machine's, whose descriptor can be read when it has ended."""
    # When the machine is gone the stream's end must be seen at once.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    poll = select.poll()
    poll.register(machine, select.POLLIN)
    poll.register(0, 0)  # POLLHUP, which needs not be asked for: the data is the machine's
    if all(fd == 0 for fd, _ in poll.poll()):
        poll.unregister(0)
        poll.poll(GRACE_S * 1000)


def running(lab):
    """The processes that hold one of the lab's machines: those that are `ci/lab connect` of it. Files that they leave
    would stay behind, for they are killed more often than not."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _connects(pid, lab)]


def _connects(pid, lab):
    try:
        *_, program, verb, name = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        if (pathlib.PurePath(program).name, verb) != ("lab", "connect"):
            return False
        words = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):  # it has ended, or is another user's, or has no three words
        return False
    environment = dict(word.partition("=")[::2] for word in words)
    return store.lab_folder(name, environment).resolve() == lab.folder.resolve()


def kill_below(lab, ancestor):
    """Kills the lab's machines that processes below `ancestor` have connected to; whether there was one."""
    struck = False
    for pid in running(lab):
        below = pid
        while below > 1 and below != ancestor:
            below = _parent(below)
        children = [child for child in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(child) == pid]
        # Where the machine is nobody's child it goes with the connection.
        for victim in (children or [pid]) if below == ancestor else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                struck = True
    return struck


def _parent(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (OSError, ValueError):  # it has ended
        return 0


def stop(lab):
    for pid in running(lab):
        store.say(f"{lab.name}: ending machine {pid}")
        os.kill(pid, signal.SIGTERM)
