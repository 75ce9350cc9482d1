# SPDX-License-Identifier: GPL-2.0-or-later
"""ci/lab selftests: the kernel's own selftests, built from Debian's linux-source, and our kernel-tests, run in a lab's
machine.

A test is named by its file in tools/testing/selftests/kvm/x86 (x86_64 in older kernels); one of selftests/x86 as
"x86/NAME". kernel-tests are those of tests/oracle that ask a kernel (CMakeLists.txt)."""

import pathlib
import re
import subprocess
import tempfile

from . import lab, store

# Of the source what these tests need: 7.x has some headers of theirs among drivers.
NEEDED = ["Makefile", "Kbuild", "scripts", "include", "arch/x86", "tools", "usr/Makefile", "usr/include",
          "drivers/dma/ioat", "drivers/dma/idxd", "drivers/net/ethernet/intel"]
PACKAGES = ("make", "gcc", "tar", "xz-utils")
TIMEOUT_S = 120
SKIPPED = 4  # kselftest.h: KSFT_SKIP
OURS = "kernel-tests"
COUNTS = re.compile(r"\[ +(PASSED|SKIPPED) +\] \d+ tests?")  # GoogleTest's last words: how many ran, how many did not


def source(series, parts=None):
    """The folder of Debian's source of the newest kernel of a series, with all of it or `parts`."""
    names = store.debian("names", f"linux-source-{series}") or store.debian("names", f"linux-source-{series}.*")
    if not names:
        raise store.Failure(f"Debian's archive has no linux-source-{series} now", store.UNAVAILABLE)
    package = store.unpacked(names[0])
    tarball = next(package.glob("usr/src/*.tar.xz"))
    folder = store.cache() / "linux" / (package.name + ("" if parts is None else "_parts"))

    def unpack(temporary):
        temporary.mkdir(parents=True)
        top = tarball.name.removesuffix(".tar.xz")
        # A pattern that matches nothing is an error of tar's, and not all are in each kernel.
        words = ["--wildcards", *(f"{top}/{part}" for part in parts)] if parts is not None else []
        done = subprocess.run(["tar", "-xJf", tarball, "--strip-components=1", "-C", temporary, *words],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0 and not all("Not found in archive" in line or "previous errors" in line
                                            for line in done.stderr.splitlines()):
            raise store.Failure(f"{tarball}: {done.stderr.strip()}")

    folder.parent.mkdir(parents=True, exist_ok=True)
    return store.made(folder, [str(tarball), parts], unpack, f"unpacking {tarball.name}")


def built(series, tests):
    """{name: program}: of the tests those that this kernel has, as static programs."""
    store.need("building the kernel's selftests", PACKAGES)
    tree = source(series, NEEDED)
    folder = tree / "tools" / "testing" / "selftests" / "kvm"
    arch, where = ("x86", "x86") if (folder / "x86").exists() else ("x86_64", "x86_64")
    x86 = [test for test in tests if test.startswith("x86/") and (folder.parent / f"{test}.c").exists()]
    tests = [test for test in tests if list(folder.glob(f"x86*/{test}.c"))]
    log = tree.with_name(f"{tree.name}.log")

    def build(temporary):
        with open(log, "w", encoding="utf-8") as out:
            _make(out, log, tree, "headers", "ARCH=x86")
            _make(out, log, folder, f"ARCH={arch}", "LDFLAGS=-static -pthread", f"OUTPUT={temporary}",
                  *(f"{temporary}/{where}/{test}" for test in tests))
            for test in x86:
                shared = folder.parent / "x86" / "xstate.c"  # of newer kernels
                (temporary / test).parent.mkdir(exist_ok=True)
                _run(out, log, "gcc", "-O2", "-static", "-pthread", f"-I{tree}/usr/include", f"-I{folder.parent}",
                     "-o", temporary / f"{test}.x86", folder.parent / f"{test}.c", *([shared] if shared.exists() else []))

    output = tree.with_name(f"{tree.name}_{store.digest(tests, x86)[:8]}")
    store.made(output, [str(tree), tests, x86], build,
               f"building {', '.join(tests + x86)} of {tree.name}; {log} tells how it goes")
    return {test: output / where / test for test in tests} | {test: output / f"{test}.x86" for test in x86}


def _make(out, log, folder, *words):
    _run(out, log, "make", "-s", "-j2", "-C", folder, *words)


def _run(out, log, *words):
    store.logged(words[0], words, out, log)


def outcomes(one, programs, timeout_s):
    """Static programs, by name, each in a process of its own in one machine of the lab: {name: (status, the lines that
    it said)}. One that gave no answer has None and the lines of the console."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "tests"
        # The sleep: what the last one says is not to be among what the machine says when it ends.
        script.write_text("#!/bin/sh\nexport GTEST_COLOR=no\n" + "".join(
            f"echo fpswap-test {name}\ntimeout {TIMEOUT_S} /tests/{name}\necho fpswap-test {name} $?\n" for name in programs)
            + "sleep 2\n", encoding="utf-8")
        files = {"/tests/all": script, **{f"/tests/{name}": path for name, path in programs.items()}}
        _, console = one.run_inside("/tests/all", files, timeout_s)
    seen = {}
    for name in programs:
        said = re.search(rf"fpswap-test {name}\r?\n(.*?)fpswap-test {name} (\d+)", console, re.S)
        seen[name] = (int(said.group(2)) if said else None, (said.group(1) if said else console).strip().splitlines())
    return seen


def counts(words):
    """Of what GoogleTest says, how many tests passed and how many were skipped: behind its last "N tests ran", for tests
    that run themselves anew say so too."""
    ran = max((i for i, line in enumerate(words) if line.endswith("ms total)") and " ran. " in line), default=len(words))
    return [COUNTS.match(line).group() for line in words[ran:] if COUNTS.match(line)]


def run(one):
    """Each of the lab's tests in a process of its own, in one machine. A skipped test is told and is no failure."""
    tests = getattr(one, "SELFTESTS", None)
    if not tests:
        raise store.Failure(f"{one.name}: selftests are for labs that are built here", store.USAGE)
    series = re.match(r"(\d+)\.(\d+)", one.kernel.release).group()
    programs = built(series, tests)
    ours = lab.agent().with_name(OURS)
    if not ours.exists():
        raise store.Failure(f"{ours} is not there; build it: cmake --build build --target {OURS}", store.UNAVAILABLE)
    for test in set(tests) - set(programs):
        print(f"{one.name}: none  {test}: Linux {series} does not have it")
    programs[OURS] = ours
    seen = outcomes(one, programs, 60 + TIMEOUT_S * len(programs))
    failed = 0
    for test, (status, words) in seen.items():
        verdict = {0: "pass", SKIPPED: "skip"}.get(status, "FAIL")
        failed += verdict == "FAIL"
        said = words[-1:] if verdict != "pass" else counts(words)
        print(f"{one.name}: {verdict}  {test}" + (f": {' '.join(said)}" if said else ""))
        if verdict == "FAIL":
            print("\n".join(f"    {line}" for line in words[-20:]))
    if failed:
        raise store.Failure(f"{one.name}: {failed} of {len(seen)} selftests failed")
