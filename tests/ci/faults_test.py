#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong around a fuzzing run costs no finding and adds none: the stream to a lab damaged or cut in the middle of
a frame, the machine killed, the disk full. A bug is planted in the agent, so that there is something to find."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "ci"))
from labs import frames  # noqa: E402

BUILD = pathlib.Path(os.environ.get("FPSWAP_BUILD", REPOSITORY / "build"))
# The first connection of a run only asks what the lab has. The three after it go wrong, in the first frame that begins behind so
# many bytes; those after them do not.
WHERE = {1: 3_000, 2: 20_000, 3: 70_000}
BEGIN, RECORDS = 17, 18  # types of frames: a program is about to run, what it has shown
FILES = {"README.md", "platform.json", "program.fps", "trace.fpt", "verdict.json"}
PLANT = "tags-lost-on-page-fault"
RUNS = 400


class Stream:
    """What an agent says, to be passed on by frames."""

    def __init__(self):
        self.waiting, self.passed = b"", 0

    def take(self, data):
        """The whole frames, with what is in front of them."""
        self.waiting += data
        while len(self.waiting) >= frames.HEADER.size:
            _, kind, _, length, _ = frames.HEADER.unpack_from(self.waiting)
            size = frames.HEADER.size + length
            if len(self.waiting) < size:
                return
            frame, self.waiting = self.waiting[:size], self.waiting[size:]
            yield kind, frame, self.passed
            self.passed += size


def relay(fault, count, agent):
    """Connects to an agent, as ssh would, and does to what it says what `fault` names. `count` is a file with a byte for each
    connection that there was."""
    count = pathlib.Path(count)
    number = count.stat().st_size if count.exists() else 0
    with open(count, "ab") as file:
        file.write(b"+")
    due = WHERE.get(number)
    stream = Stream()
    with subprocess.Popen([agent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        sources = {0: process.stdin, process.stdout.fileno(): None}
        while process.stdout.fileno() in sources:
            for source in select.select(list(sources), [], [])[0]:
                data = os.read(source, 1 << 16)
                if source == 0:
                    if data:
                        process.stdin.write(data)
                        process.stdin.flush()
                    else:
                        process.stdin.close()
                        del sources[0]
                    continue
                if not data:
                    del sources[source]
                for kind, frame, at in stream.take(data):
                    if due is None or at < due or kind != (BEGIN if fault == "kill" else RECORDS) or fault == "none":
                        os.write(1, frame)
                        continue
                    due = None
                    half = len(frame) // 2
                    if fault == "damage":
                        os.write(1, frame[:half] + bytes([frame[half] ^ 0x10]) + frame[half + 1:])
                        continue
                    os.write(1, frame[:half] if fault == "cut" else frame)
                    process.kill()
                    return
    return


class Faults(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def lab(self, name):
        """A lab whose connections go wrong as `name` says."""
        folder = self.folder / "labs" / name
        folder.mkdir(parents=True)
        connect = [sys.executable, str(pathlib.Path(__file__).resolve()), "relay", name, str(self.folder / f"{name}.count"),
                   str(BUILD / "native-runner")]
        (folder / "lab.json").write_text(json.dumps({"about": "a test", "connect": connect, "silence_s": 10}))
        return f"lab:{name}"

    def fuzz(self, target, *words, prefix=(), wanted=1):
        """(what it told, what it said) of a run on a target; 1 is new divergences."""
        done = subprocess.run([*prefix, BUILD / "fpswap", "fuzz", "--target", target, "--runs", str(RUNS), "--seed", "5",
                               "--jobs", "1", "--plant", PLANT, "--json", *words], check=False, capture_output=True, text=True,
                              env={**os.environ, "FPSWAP_CACHE": str(self.folder)})
        self.assertEqual(done.returncode, wanted, done.stderr)
        return json.loads(done.stdout or "null"), done.stderr

    @staticmethod
    def findings(folder):
        return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "interrupted-"))]

    def found(self, fault):
        told, _ = self.fuzz(self.lab(fault), "--findings", self.folder / f"{fault}.findings")
        self.assertEqual(told["programs"], RUNS)
        folders = {path.name for path in self.findings(self.folder / f"{fault}.findings")}
        self.assertEqual(folders, set(told["findings"]), "each finding is on the disk, and nothing else is")
        return told

    def connections(self, fault):
        return (self.folder / f"{fault}.count").stat().st_size

    def test_a_damaged_or_cut_stream_changes_nothing_that_is_found(self):
        right = self.found("none")
        self.assertGreater(len(right["findings"]), 3)
        self.assertEqual(self.connections("none"), 2)
        for fault in ("damage", "cut"):
            with self.subTest(fault):
                told = self.found(fault)
                self.assertEqual(told["findings"], right["findings"])
                self.assertEqual(told["programs_hash"], right["programs_hash"])
                self.assertEqual(self.connections(fault), 2 + len(WHERE))

    def test_a_machine_that_is_killed_is_told_and_costs_no_other_finding(self):
        right, told = self.found("none"), self.found("kill")
        died = {name: count for name, count in told["findings"].items() if "died" in name}
        others = {name: count for name, count in told["findings"].items() if "died" not in name}
        self.assertEqual(others.keys(), right["findings"].keys())
        self.assertEqual(told["programs_hash"], right["programs_hash"])
        self.assertEqual(len(died), 1, "one finding for all that are alike")
        self.assertEqual(sum(died.values()), len(WHERE))
        readme = (self.folder / "kill.findings" / next(iter(died)) / "README.md").read_text()
        self.assertRegex(readme, "0 of [0-9]+ runs|did not repeat|not repeat")

    def test_a_full_disk_is_told_and_what_is_there_is_whole(self):
        if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0:
            self.skipTest("no mount of one's own is to be had here")
        right = self.found("none")
        self.lab("full")
        unsaved = 0
        for size in ("120k", "160k", "240k"):
            with self.subTest(size):
                mounted, seen = self.folder / f"small-{size}", self.folder / f"seen-{size}"
                mounted.mkdir()
                seen.mkdir()
                # Full, as it was then, and with room again.
                fuzz = ["sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "{mounted}" && {{ "$0" "$@" >"{seen}/first"; '
                        f'cp -a "{mounted}" "{seen}/full"; mount -o remount,size=64m "{mounted}" && "$0" "$@"; status=$?; '
                        f'cp -a "{mounted}" "{seen}/later"; exit $status; }}']
                told, said = self.fuzz("lab:full", "--findings", mounted, prefix=["unshare", "-rm", *fuzz])
                first = json.loads((seen / "first").read_text())
                self.assertRegex(" ".join(first["errors"]), "disk (is )?full|No space left")
                unsaved += first["unsaved"]  # what does not fit first is the build's affair
                for folder in self.findings(seen / "full"):
                    self.assertEqual({path.name for path in folder.iterdir()}, FILES, folder)
                self.assertEqual(told["findings"].keys(), right["findings"].keys(), said)
                self.assertEqual({path.name for path in self.findings(seen / "later")}, set(right["findings"]))
                self.assertEqual(list((seen / "later").glob(".run-*")), [], "what the first had to leave is saved")
        self.assertGreater(unsaved, 0, "no size left a finding without a place")

    def test_a_limit_on_the_size_of_files_is_told(self):
        said = self.fuzz("native", "--findings", self.folder / "findings", wanted=2,
                         prefix=["sh", "-c", 'ulimit -f 0; exec "$0" "$@"'])[1]
        self.assertIn("File too large", said)


if __name__ == "__main__":
    if sys.argv[1:2] == ["relay"]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        relay(*sys.argv[2:])
    else:
        unittest.main()
