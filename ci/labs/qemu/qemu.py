# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU 10.0 from Debian's source tarball, with edits.py done to it, built once: only x86-64, only what lab:amd has."""

import os
import pathlib
import shutil
import subprocess
import tarfile

from .. import apply, store
from . import edits

HERE = pathlib.Path(__file__).parent
KEPT = 4
# Debian's python3: the version that its package of meson is for.
OPTIONS = ["--python=/usr/bin/python3", "--disable-download", "--target-list=x86_64-softmmu", "--without-default-features",
           "--without-default-devices", "--enable-system", "--enable-tcg", "--disable-docs", "--disable-tools",
           "--disable-guest-agent", "--disable-install-blobs", "--disable-werror"]
NEEDED = {"gcc": "gcc", "ninja": "ninja-build", "pkg-config": "pkg-config", "flex": "flex", "bison": "bison"}


def sources():
    """What a lab's settings keep, so that connecting asks no archive: the tarball, meson, and the folders of firmware."""
    meson, bios, data = store.debian("unpack", "meson=1.7", "seabios", "qemu-system-data=1:10.0")
    return {"tarball": store.debian("source", "qemu=1:10.0")[0], "meson": meson,
            "firmware": [f"{bios}/usr/share/seabios", f"{data}/usr/share/qemu"]}


def program(of, leave_out=()):
    """Where it is, or will be once build() has made it."""
    # The tarball's name has its version; it was checked against the archive's list when it was fetched.
    key = store.digest(of["tarball"], of["meson"], HERE / "edits.py", pathlib.Path(apply.__file__), OPTIONS, tuple(leave_out))
    return store.cache() / "qemu" / f"qemu-{key[:16]}"


def build(of, leave_out=()):
    """The program, of sources(). With `leave_out`, names of edits, one without them, to see what they are for."""
    output = program(of, leave_out)
    output.parent.mkdir(parents=True, exist_ok=True)
    store.made(output, [output.name], lambda temporary: _build(of, leave_out, output, temporary),
               "building QEMU; this takes 3 to 12 minutes, once")
    os.utime(output)
    for old in sorted(output.parent.glob("qemu-*.key"), key=lambda key: key.with_suffix("").stat().st_mtime)[:-KEPT]:
        for file in output.parent.glob(f"{old.stem}*"):
            file.unlink()
    return output


def _build(of, leave_out, output, temporary):
    missing = [package for tool, package in NEEDED.items() if shutil.which(tool) is None]
    if subprocess.run(["pkg-config", "--exists", "glib-2.0"], check=False).returncode != 0:
        missing.append("libglib2.0-dev")
    if subprocess.run(["/usr/bin/python3", "-c", "import ensurepip, venv"], check=False, capture_output=True).returncode != 0:
        missing.append("python3-venv")
    if missing:
        raise store.Failure(f"building QEMU needs more tools: apt-get install {' '.join(missing)}", store.UNAVAILABLE)
    work = output.with_name(f"{output.name}.build")
    store.remove(work)
    (work / "build").mkdir(parents=True)
    with tarfile.open(of["tarball"]) as archive:
        store.extract(archive, work)
    root = next(folder for folder in work.iterdir() if (folder / "configure").exists())
    apply.apply(root, edits.EDITS, leave_out)
    ccache = "ccache " if shutil.which("ccache") else ""
    # Each build in a folder of its own, with the same objects but for what an edit changes.
    env = {**os.environ, "CC": f"{ccache}gcc", "CCACHE_BASEDIR": str(work), "CCACHE_NOHASHDIR": "1",
           "PYTHONPATH": f"{of['meson']}/usr/lib/python3/dist-packages"}
    log = output.with_name(f"{output.name}.log")
    with open(log, "wb") as out:
        for step in ([root / "configure", *OPTIONS], ["ninja", f"-j{os.cpu_count()}", "qemu-system-x86_64"]):
            done = subprocess.run(["nice", "-n", "5", *step], cwd=work / "build", env=env, stdout=out, stderr=out, check=False,
                                  stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise store.Failure(f"building QEMU: {step[0]} failed; its output is {log}")
    subprocess.run(["strip", "-o", temporary, work / "build" / "qemu-system-x86_64"], check=True)
    store.remove(work)
