# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent on a kernel that counts what is reached of it, for tests: `counting_agent.py AGENT ARGUMENT...` starts the
agent and hands everything through, but says that there is coverage, and before each program's records that it reached
edge 1, and one more for each 16 bytes of its records. The frames are those of harness/plan/wire.h."""
import json
import pathlib
import struct
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "ci"))
from labs import frames  # noqa: E402

RECORDS, COVERAGE = 18, 21


def say(kind, payload):
    sys.stdout.buffer.write(frames.frame(kind, payload))
    sys.stdout.buffer.flush()


def hand_through(agent):
    while data := sys.stdin.buffer.read1():
        agent.stdin.write(data)
        agent.stdin.flush()
    agent.stdin.close()


def main():
    agent = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    threading.Thread(target=hand_through, args=(agent,), daemon=True).start()
    while len(head := agent.stdout.read(frames.HEADER.size)) == frames.HEADER.size:
        _, kind, _, length, _ = frames.HEADER.unpack(head)
        payload = agent.stdout.read(length)
        if kind == frames.PLATFORM:
            payload = json.dumps(json.loads(payload) | {"kernel_coverage": True}).encode()
        if kind == RECORDS:
            edges = {1, 2 + len(payload) // 16}
            say(COVERAGE, payload[:4] + struct.pack(f"<{len(edges)}H", *edges))
        say(kind, payload)
    return agent.wait()


sys.exit(main())
