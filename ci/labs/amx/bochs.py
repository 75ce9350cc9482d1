# SPDX-License-Identifier: GPL-2.0-or-later
"""Bochs 3.0 from Debian's source tarball, with edits.py done to it, built once."""

import os
import pathlib
import shutil
import tarfile

from .. import apply, store
from . import edits

HERE = pathlib.Path(__file__).parent
KEPT = 4
OPTIONS = ["--enable-cpu-level=6", "--enable-x86-64", "--enable-vmx=2", "--enable-avx", "--enable-evex", "--enable-amx",
           "--enable-protection-keys", "--enable-cet", "--enable-uintr", "--enable-repeat-speedups",
           "--enable-fast-function-calls", "--enable-handlers-chaining", "--enable-trace-linking", "--disable-smp",
           "--disable-stats", "--disable-debugger", "--disable-docbook", "--disable-plugins", "--with-nogui"]


def bochs(leave_out=()):
    """The program. With `leave_out`, names of edits, one without them, to see what they are for."""
    tarball = pathlib.Path(store.debian("source", "bochs=3.0")[0])
    inputs = [tarball, HERE / "edits.py", pathlib.Path(apply.__file__), HERE / "door.h", OPTIONS, tuple(leave_out)]
    # Clones with other edits may share the folder.
    name = f"bochs-{store.digest(*inputs)[:16]}"
    output = store.cache() / "bochs" / name

    def make(temporary):
        store.need("building Bochs", ("g++", "make", "binutils"))
        sources = output.with_name(f"{name}.build")
        store.remove(sources)
        sources.mkdir(parents=True)
        with tarfile.open(tarball) as archive:
            store.extract(archive, sources)
        root = next(sources.iterdir())
        apply.apply(root, edits.EDITS, leave_out, [(HERE / "door.h", "iodev/door.h")])
        store.build_steps("Bochs", (["./configure", *OPTIONS], ["make", f"-j{os.cpu_count()}"]),
                          output.with_name(f"{name}.log"), [], cwd=root,
                          env={**store.ccache_settings(root, CC="gcc", CXX="g++"), "CFLAGS": "-O3", "CXXFLAGS": "-O3"})
        shutil.copy2(root / "bochs", temporary)
        store.remove(sources)

    output.parent.mkdir(parents=True, exist_ok=True)
    store.made(output, inputs, make, "building Bochs; this takes 2 to 10 minutes, once")
    os.utime(output)
    store.keep_newest(output.with_name("bochs-*"), KEPT)
    return output
