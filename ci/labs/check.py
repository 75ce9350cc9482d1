# SPDX-License-Identifier: GPL-2.0-or-later
"""ci/lab check: is the lab what fpswap needs? It says what it did and what it saw."""

import json
import os
import pathlib
import subprocess
import tempfile
import time

from . import frames, lab, machine, store

PROGRAMS = 100
FEW = 5
PANIC_PROGRAMS = 400  # in one batch, which is to last until the panic comes
PANIC = "Kernel panic - not syncing: NMI"  # labs' kernels have unknown_nmi_panic
CRASH = "Kernel panic - not syncing: sysrq triggered crash"
SEED = 1  # the same programs each time: what changes is the lab


def check(one):
    one.start()
    _answers(one)
    fpswap = lab.fpswap()
    with tempfile.TemporaryDirectory() as folder:
        _runs_programs(one, fpswap, pathlib.Path(folder))
        if one.can_panic:
            _survives_a_panic(one, fpswap, pathlib.Path(folder) / "panic", one.panic, PANIC)
            if one.can_crash():
                _survives_a_panic(one, fpswap, pathlib.Path(folder) / "crash", one.crash, CRASH)
            _survives_a_kill(one, fpswap, pathlib.Path(folder))
    print(f"{one.name}: good")


def _answers(one):
    began = time.monotonic()
    with subprocess.Popen(one.connect_command(), cwd=one.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        try:
            platform = frames.hello(agent, one.settings.get("start_s", 60), one.settings.get("options", []))
            answered = time.monotonic()
            agent.stdin.close()
            if agent.stdout.read():
                raise store.Failure(f"{one.name}: the agent went on speaking after its input had ended")
            ended = time.monotonic()
        finally:
            agent.kill()
    one.save_platform(platform)
    print(f"{one.name}: {platform['cpu']}, kernel {platform['kernel']}, {platform['vendor_module'] or 'no vendor module'}, "
          f"guest XCR0 {platform['guest']['xsave']['xcr0']:X}H")
    print(f"{one.name}: the agent answered after {answered - began:.2f} s, and ended {ended - answered:.2f} s after its input")


def _fuzz(one, fpswap, findings, *words, programs=PROGRAMS, env=None):
    return subprocess.Popen([fpswap, "fuzz", "--target", f"lab:{one.name}", "--runs", str(programs), "--seed", str(SEED),
                             "--findings", findings, "--json", *words], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, **(env or {})})


def _summary(fuzz):
    out = fuzz.communicate()[0]
    # 1 is new divergences: whose they are is for people to find out, and not what is checked.
    if fuzz.returncode not in (0, 1):
        raise store.Failure(f"fpswap fuzz ended with {fuzz.returncode}; what it said stands above")
    return json.loads(out)


def _runs_programs(one, fpswap, folder):
    done = _summary(_fuzz(one, fpswap, folder / "programs"))
    if done["programs"] != PROGRAMS:
        raise store.Failure(f"{one.name}: {done['programs']} programs of {PROGRAMS} ran")
    if "KCOV" in one.settings.get("debug", []):
        alone = _summary(_fuzz(one, fpswap, folder / "alone", programs=FEW))["kernel_edges"]
        if not 0 < alone < done["kernel_edges"]:
            raise store.Failure(f"{one.name}: its kernel has KCOV, and {FEW} programs reached {alone} edges of it, {PROGRAMS} "
                                f"{done['kernel_edges']}: there should be some, and then more")
        print(f"{one.name}: {FEW} programs reached {alone} edges of the kernel, {PROGRAMS} {done['kernel_edges']}")
    laws = ", ".join(f"{law} {count}" for law, count in sorted(done["reach"]["laws"].items()))
    print(f"{one.name}: {PROGRAMS} programs, {done['programs_per_second']:.0f}/s; {done['new']} new divergences and "
          f"{done['known']} known; laws checked: {laws}")


def _strike(strike, findings, fuzz):
    """Strikes the machines until one of them dies of it under a program, which fpswap tells of. One that dies before its
    agent has begun is only started again, so each is given more time than the one before. strike(): whether any was there."""
    patience_s = 1
    while fuzz.poll() is None and not _deaths(findings):
        if any(path.stat().st_size for path in findings.rglob("pending-*.bin")):  # written before they run
            end = time.monotonic() + patience_s
            while time.monotonic() < end and fuzz.poll() is None and not _deaths(findings):
                time.sleep(0.05)
            if fuzz.poll() is None and not _deaths(findings) and strike():
                patience_s *= 3
        time.sleep(0.05)


def _deaths(findings):
    return sorted(findings.glob("*-health-*died*"))


def _survives(one, fpswap, findings, what, strike, env=None):
    """The findings of machines that died, of a run under which they are struck; strike(the fuzzer's process)."""
    # In one batch, so that the machine dies under a program and not between two batches.
    with _fuzz(one, fpswap, findings, "--batch", str(PANIC_PROGRAMS), programs=PANIC_PROGRAMS, env=env) as fuzz:
        _strike(lambda: strike(fuzz.pid), findings, fuzz)
        done = _summary(fuzz)
    deaths = _deaths(findings)
    if not deaths:
        raise store.Failure(f"{one.name}: its machine {what} and fpswap did not tell of it")
    if done["programs"] != PANIC_PROGRAMS:
        raise store.Failure(f"{one.name}: {done['programs']} programs of {PANIC_PROGRAMS} ran after its machine {what}")
    return deaths


def _survives_a_kill(one, fpswap, folder):
    deaths = _survives(one, fpswap, folder / "kill", "was killed", lambda fuzz: machine.kill_below(one, fuzz))
    if len(deaths) != 1:
        raise store.Failure(f"{one.name}: machines that were killed are told as {len(deaths)} findings, not as one")
    print(f"{one.name}: a machine that was killed was noticed and told; in a fresh one the run went on to its end")


def _survives_a_panic(one, fpswap, folder, strike, words):
    """strike(monitor): as Amd.panic. `words`: what the kernel says of it."""
    monitors = folder / "monitors"
    monitors.mkdir(parents=True)
    # All: one that is gone may seem to be there.
    deaths = _survives(one, fpswap, folder / "findings", "was made to panic",
                       lambda _: any([strike(path) for path in monitors.iterdir() if path.name.isdigit()]),
                       {"FPSWAP_MONITORS": str(monitors)})
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in deaths[0].rglob("*") if path.is_file())
    if words not in text:
        raise store.Failure(f"{one.name}: the finding of the panic does not hold what the kernel said of it, '{words}'")
    print(f"{one.name}: '{words}' was noticed and told; in a fresh machine the run went on to its end")
