# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's frames (harness/plan/wire.h), as far as starting and checking a lab needs them."""

import json
import os
import select
import struct
import time

from . import store

MAGIC = 0x57535046
HELLO, PLATFORM, ERROR = 1, 16, 20
HEADER = struct.Struct("<IHHII")


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def frame(kind, payload=b""):
    return HEADER.pack(MAGIC, kind, 0, len(payload), crc32c(payload)) + payload


def take(buffer):
    """((kind, payload) of the first whole frame of `buffer` or None, the rest of it). Garbage is passed over."""
    while True:
        begin = buffer.find(struct.pack("<I", MAGIC))
        if begin < 0:
            return None, buffer[-3:]
        buffer = buffer[begin:]
        if len(buffer) < HEADER.size:
            return None, buffer
        _, kind, flags, length, crc = HEADER.unpack_from(buffer)
        if flags == 0 and length <= 16 << 20:
            if len(buffer) < HEADER.size + length:
                return None, buffer
            payload = buffer[HEADER.size:HEADER.size + length]
            if crc32c(payload) == crc:
                return (kind, payload), buffer[HEADER.size + length:]
        buffer = buffer[1:]


def hello(process, timeout_s, options=()):
    """Asks the agent behind the process's stdin and stdout what it runs on: its platform, as a dictionary. `options` are
    the agent's."""
    process.stdin.write(frame(HELLO, b"".join(word.encode() + b"\0" for word in options)))
    process.stdin.flush()
    out, buffer, end = process.stdout.fileno(), b"", time.monotonic() + timeout_s
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([out], [], [], left)[0]:
            raise store.Failure(f"the agent has not answered within {timeout_s} s")
        data = os.read(out, 1 << 16)
        if not data:
            raise store.Failure("the machine ended before its agent answered")
        answer, buffer = take(buffer + data)
        if answer and answer[0] == PLATFORM:
            return json.loads(answer[1])
        if answer and answer[0] == ERROR:
            raise store.Failure(f"the agent says: {answer[1].decode(errors='replace')}")
