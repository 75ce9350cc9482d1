# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent on a kernel that counts what is reached of it, for tests: `counting_agent.py AGENT ARGUMENT...` starts the
agent and hands everything through, but says that there is coverage, and before each program's records that it reached
edge 1, and one more for each 16 bytes of its records. The frames are those of harness/plan/wire.h."""
import json
import struct
import subprocess
import sys
import threading

HEAD = struct.Struct("<IHHII")
MAGIC, PLATFORM, RECORDS, COVERAGE = 0x57535046, 16, 18, 21


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def say(kind, payload):
    sys.stdout.buffer.write(HEAD.pack(MAGIC, kind, 0, len(payload), crc32c(payload)) + payload)
    sys.stdout.buffer.flush()


def hand_through(agent):
    while data := sys.stdin.buffer.read1():
        agent.stdin.write(data)
        agent.stdin.flush()
    agent.stdin.close()


def main():
    agent = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    threading.Thread(target=hand_through, args=(agent,), daemon=True).start()
    while len(head := agent.stdout.read(HEAD.size)) == HEAD.size:
        _, kind, _, length, _ = HEAD.unpack(head)
        payload = agent.stdout.read(length)
        if kind == PLATFORM:
            payload = json.dumps(json.loads(payload) | {"kernel_coverage": True}).encode()
        if kind == RECORDS:
            edges = {1, 2 + len(payload) // 16}
            say(COVERAGE, payload[:4] + struct.pack(f"<{len(edges)}H", *edges))
        say(kind, payload)
    return agent.wait()


sys.exit(main())
