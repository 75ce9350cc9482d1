# SPDX-License-Identifier: GPL-2.0-or-later
"""ci/lab control: a positive control, the whole way. A kernel with a bug of ours in it (kernel_edits.py) has to be found out
by fpswap from an empty corpus, the finding to become a small program, one group and a selftest in that kernel's tree, and
program and selftest have to fail with the bug and pass on the same kernel without it."""

import json
import pathlib
import subprocess
import tempfile
import time

from . import kernel_edits, lab, store

DEFAULT = "tiles-not-restored"
LIMIT_S = 900  # of fuzzing, for one bug
SEED = 1
DIVERGES = 1


class Clock:
    """What each part took, in words."""

    def __init__(self):
        self._began = time.monotonic()

    def __call__(self):
        before, self._began = self._began, time.monotonic()
        return f"{self._began - before:.0f} s"


def control(family, series, names, make):
    """For each bug of `names`. `make` builds the lab of a name, and returns it."""
    names = names or [DEFAULT]
    bugs = [edit for edit in kernel_edits.EDITS if edit.check == kernel_edits.BUG and edit.name in names]
    if len(bugs) < len(names):
        raise store.Failure(f"the bugs that can be put into a kernel are "
                            f"{', '.join(edit.name for edit in kernel_edits.EDITS if edit.check == kernel_edits.BUG)}",
                            store.USAGE)
    fpswap, clock = lab.fpswap(), Clock()
    healthy = make(f"{family}:{series}-small").name
    print(f"{healthy}: built and started in {clock()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for bug in bugs:
            sick = make(f"{healthy}+{bug.name}").name
            finding = _find(sick, healthy, bug, fpswap, pathlib.Path(folder) / bug.name, clock)
            _hand_over(sick, healthy, series, finding, fpswap, clock)


def _find(sick, healthy, bug, fpswap, folder, clock):
    print(f"{sick}: {bug.why}\n  built and started in {clock()}", flush=True)
    found = _json([fpswap, "fuzz", "--target", f"lab:{sick}", "--until-new", "--time", str(LIMIT_S), "--seed", str(SEED),
                   "--findings", str(folder), "--json"])
    if not found["findings"]:
        raise store.Failure(f"{sick}: {found['programs']} programs in {LIMIT_S} s did not find it")
    finding = folder / next(iter(found["findings"]))
    print(f"  found: {finding.name}, after {found['programs']} programs, {clock()}", flush=True)
    small = _json([fpswap, "minimize", finding, "--target", f"lab:{sick}", "--json"])
    print(f"  {small['steps']} steps of {small['steps_before']} are left after {small['tried']} candidates, {clock()}; it "
          f"shows in {small['shows']} of {small['of']} runs:\n\n{small['program']}", flush=True)
    program = finding / "minimized.fps"
    for name, expected in ((sick, DIVERGES), (healthy, 0)):
        done = subprocess.run([fpswap, "run", "--target", f"lab:{name}", program], stdout=subprocess.PIPE, text=True,
                              check=False)
        if done.returncode != expected:
            raise store.Failure(f"{name}: this program {'shows nothing' if expected else 'diverges too'}, so what was found "
                                f"is not {bug.name}:\n{done.stdout}")
        print(f"  lab:{name}: " + ("it is new:\n" + done.stdout if expected else "nothing"), flush=True)
    return finding


def _hand_over(sick, healthy, series, finding, fpswap, clock):
    """Group and selftest of the finding, and what the selftest says on both kernels."""
    report = _json([fpswap, "report", finding.parent, "--json"])
    group = next(each for each in report["groups"] if each["name"] == finding.name)
    print(f"  grouped: {group['cause']}, {clock()}", flush=True)
    results = finding / "selftest.json"
    done = subprocess.run([store.REPOSITORY / "ci" / "export-check", "--kernel", series, "--lab", sick, "--lab", healthy,
                           "--json", results, "--fpswap", fpswap, finding], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise store.Failure(f"the selftest of {finding.name} is not as it should be:\n{done.stdout}")
    result = json.loads(results.read_text(encoding="utf-8"))[0]
    exported = result["selftests"] + result["threads"]
    if not exported:
        raise store.Failure(f"{finding.name} was not exported: {' '.join(result['refused'])}")
    print(f"  exported and compiled: {', '.join(exported)}, {clock()}", flush=True)
    for name, expected in ((sick, "FAIL"), (healthy, "pass")):
        for test, told in result["labs"][name].items():
            # What it says is what it expected and what it got: a test that dies says something else.
            if told["verdict"] != expected or (expected == "FAIL" and "expected" not in told["said"]):
                raise store.Failure(f"{name}: {test}: {told['verdict']}, {told['said']}; {expected} was due")
            print(f"  lab:{name}: {told['verdict']}" + (f": {told['said']}" if expected == "FAIL" else ""), flush=True)


def _json(words):
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, DIVERGES):
        raise store.Failure(f"fpswap {words[1]} ended with {done.returncode}; what it said stands above")
    return json.loads(done.stdout)
