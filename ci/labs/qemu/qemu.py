# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU 10.0 from Debian's source tarball, with edits.py done to it, built once: only x86-64, only what lab:amd has."""

import os
import pathlib
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
NEEDED = ("gcc", "ninja-build", "pkg-config", "flex", "bison", "libglib2.0-dev", "python3-venv")


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
    store.keep_newest(output.with_name("qemu-*"), KEPT)
    return output


def _build(of, leave_out, output, temporary):
    store.need("building QEMU", NEEDED)
    work = output.with_name(f"{output.name}.build")
    store.remove(work)
    (work / "build").mkdir(parents=True)
    with tarfile.open(of["tarball"]) as archive:
        store.extract(archive, work)
    root = next(folder for folder in work.iterdir() if (folder / "configure").exists())
    apply.apply(root, edits.EDITS, leave_out)
    store.build_steps("QEMU", ([root / "configure", *OPTIONS], ["ninja", f"-j{os.cpu_count()}", "qemu-system-x86_64"]),
                      output.with_name(f"{output.name}.log"), ["-n", "5"], cwd=work / "build",
                      env={**store.ccache_settings(work, CC="gcc"),
                           "PYTHONPATH": f"{of['meson']}/usr/lib/python3/dist-packages"})
    subprocess.run(["strip", "-o", temporary, work / "build" / "qemu-system-x86_64"], check=True)
    store.remove(work)
