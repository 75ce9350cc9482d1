# SPDX-License-Identifier: GPL-2.0-or-later
"""Bochs 3.0 from Debian's source tarball, with edits.py done to it, built once."""

import os
import pathlib
import shutil
import subprocess
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
    missing = [tool for tool in ("g++", "make", "as", "ld", "objcopy") if shutil.which(tool) is None]
    if missing:
        raise store.Failure(f"building Bochs needs {', '.join(missing)}: apt-get install g++ make binutils",
                            store.UNAVAILABLE)
    tarball = pathlib.Path(store.debian("source", "bochs=3.0")[0])
    inputs = [tarball, HERE / "edits.py", pathlib.Path(apply.__file__), HERE / "door.h", OPTIONS, tuple(leave_out)]
    # Clones with other edits may share the folder.
    name = f"bochs-{store.digest(*inputs)[:16]}"
    output = store.cache() / "bochs" / name

    def make(temporary):
        sources = output.with_name(f"{name}.build")
        store.remove(sources)
        sources.mkdir(parents=True)
        with tarfile.open(tarball) as archive:
            store.extract(archive, sources)
        root = next(sources.iterdir())
        apply.apply(root, edits.EDITS, leave_out, [(HERE / "door.h", "iodev/door.h")])
        ccache = "ccache " if shutil.which("ccache") else ""
        # Each build in a folder of its own, with the same objects but for what an edit changes.
        env = {**os.environ, "CC": f"{ccache}gcc", "CXX": f"{ccache}g++", "CFLAGS": "-O3", "CXXFLAGS": "-O3",
               "CCACHE_BASEDIR": str(root), "CCACHE_NOHASHDIR": "1"}
        log = output.with_name(f"{name}.log")
        with open(log, "wb") as out:
            for step in (["./configure", *OPTIONS], ["make", f"-j{os.cpu_count()}"]):
                done = subprocess.run(["nice", *step], cwd=root, env=env, stdout=out, stderr=out, check=False,
                                      stdin=subprocess.DEVNULL)
                if done.returncode != 0:
                    raise store.Failure(f"building Bochs: {step[0]} failed; its output is {log}")
        shutil.copy2(root / "bochs", temporary)
        store.remove(sources)

    output.parent.mkdir(parents=True, exist_ok=True)
    store.made(output, inputs, make, "building Bochs; this takes 2 to 10 minutes, once")
    os.utime(output)
    for old in sorted(output.parent.glob("bochs-*.key"), key=lambda key: key.with_suffix("").stat().st_mtime)[:-KEPT]:
        for file in output.parent.glob(f"{old.stem}*"):
            file.unlink()
    return output
