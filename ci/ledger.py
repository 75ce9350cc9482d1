# SPDX-License-Identifier: GPL-2.0-or-later
"""The committed ledgers of soak/: one JSON object a line. Lines are added by a rename: a reader never sees half
of one, and a full disk costs what was to be added. Scripts beside each other wait for their turn and keep each other's."""

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def git(*args):
    return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True).stdout.strip()


def commit():
    """What is checked out; with a + where what is measured differs from it."""
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", "oracle", "harness",
                "kvm-runner", "native-runner", "unicorn-runner", "fuzz")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if dirty else "")


def load(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.contextmanager
def _turn(path):
    path.parent.mkdir(exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def add(path, entry, same=None):
    """Adds a line, in the place of those that are of the `same` thing. What others have added meanwhile stays."""
    with _turn(path):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = lines if same is None else [line for line in lines if not same(json.loads(line))]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in [*kept, json.dumps(entry, sort_keys=True)]))
        os.replace(temporary, path)
