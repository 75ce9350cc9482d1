# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel for labs built from Debian's linux-source with KASAN, KCOV and the like: debug.config."""

import os
import pathlib
import shutil

from . import kernels, selftests, store

CONFIG = pathlib.Path(__file__).with_name("debug.config")
PACKAGES = {**selftests.PACKAGES, "flex": "flex", "bison": "bison", "bc": "bc"}


def debug_kernel(series):
    """Built once for each version of the source and of debug.config; says on stderr where its log is."""
    selftests.needs(PACKAGES)
    if not pathlib.Path("/usr/include/gelf.h").exists():
        raise store.Failure("this needs packages: apt-get install libelf-dev", store.UNAVAILABLE)
    tree = selftests.source(series)
    folder = tree.with_name(f"{tree.name}_debug")
    log = folder.with_name(f"{folder.name}.log")

    def build(temporary):
        # Kept, so that a build that was interrupted goes on where it was.
        objects = tree.with_name(f"{tree.name}_debug_build")
        objects.mkdir(parents=True, exist_ok=True)
        words = ["make", "-s", f"-j{os.cpu_count()}", "-C", str(tree), f"O={objects}", "ARCH=x86_64", "LOCALVERSION=-fpswap"]
        fragment = objects / "fragment"
        fragment.write_text("".join(f"{line}\n" for line in settings()), encoding="utf-8")
        with open(log, "w", encoding="utf-8") as out:
            _make(out, log, [*words, f"KCONFIG_ALLCONFIG={fragment}", "allnoconfig"])
            missing = set(required()) - set((objects / ".config").read_text(encoding="utf-8").splitlines())
            if missing:
                raise store.Failure(f"{tree.name}: its Kconfig does not give {', '.join(sorted(missing))}; {CONFIG} is to "
                                    f"be mended")
            _make(out, log, [*words, "bzImage", "modules"])
            _make(out, log, [*words, f"INSTALL_MOD_PATH={temporary}", "modules_install"])
        shutil.copy(objects / "arch" / "x86" / "boot" / "bzImage", temporary)
        shutil.copy(objects / ".config", temporary / f"config-{kernels.release_of(temporary / 'bzImage')}")

    store.made(folder, [str(tree), CONFIG], build, f"building a debug kernel of {tree.name}, many minutes; {log} tells "
                                                   f"how it goes")
    return kernels.own_kernel(folder / "bzImage", folder)


def settings():
    return [line.removeprefix("?") for line in CONFIG.read_text(encoding="utf-8").splitlines()
            if line.removeprefix("?").startswith("CONFIG_")]


def required():
    return [line for line in CONFIG.read_text(encoding="utf-8").splitlines() if line.startswith("CONFIG_")]


def _make(out, log, words):
    store.logged(f"{words[-1]} of a debug kernel", words, out, log)
