# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels for labs that are built here from Debian's linux-source, with nothing in them that a lab does not need: small
(small.config), or for debugging (debug.config too), and either with edits of ours (kernel_edits.py)."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from . import apply, kernel_edits, kernels, selftests, store

HERE = pathlib.Path(__file__).parent
CONFIGS = {"small": ["small.config"], "debug": ["small.config", "debug.config"]}
EDITS_OF_KIND = {"small": [], "debug": ["kcov-of-kvm"]}
PACKAGES = (*selftests.PACKAGES, "flex", "bison", "bc", "libelf-dev")
NAME = re.compile(rf"(?P<series>[0-9.]+)-(?P<kind>{'|'.join(CONFIGS)})(?P<edits>(\+[a-z0-9-]+)*)")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a name like 6.12-small+EDIT asks for."""
    series: str
    kind: str
    edits: tuple


def parse(name):
    """The Wanted that `name` is, None if it is that of another kernel."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    edits = tuple(match["edits"].split("+")[1:])
    unknown = set(edits) - {edit.name for edit in kernel_edits.EDITS}
    if unknown:
        raise store.Failure(f"no edit of kernels is called {', '.join(sorted(unknown))}; there are "
                            f"{', '.join(edit.name for edit in kernel_edits.EDITS)}", store.USAGE)
    return Wanted(match["series"], match["kind"], edits)


def built_kernel(wanted):
    """Built once for each version of the source, of its configuration and of its edits."""
    source = selftests.source(wanted.series)
    output = source.with_name("_".join([source.name, wanted.kind, *wanted.edits]))
    log = output.with_name(f"{output.name}.log")
    edits = [edit for edit in kernel_edits.EDITS if edit.name in (*wanted.edits, *EDITS_OF_KIND[wanted.kind])]

    def make(temporary):
        store.need("building a kernel", PACKAGES)
        # One tree for all of them, one folder of objects for each kind: an edit costs one file and the linking.
        tree = source.with_name(f"{source.name}_lab")
        with store.lock(tree):
            if not tree.exists():
                part = tree.with_name(f"{tree.name}.part")
                store.remove(part)
                subprocess.run(["cp", "-al", f"{source}/.", part], check=True)  # names, not contents: it is 1.6 GB
                os.replace(part, tree)
            edit_tree(source, tree, edits)
            _build(tree, wanted.kind, temporary, log)

    store.made(output, [str(source), *(HERE / name for name in CONFIGS[wanted.kind]), edits], make,
               f"building the kernel {output.name}, many minutes the first time; {log} tells how it goes")
    return kernels.own_kernel(output / "bzImage", output)


def edit_tree(source, tree, edits):
    """In `tree`, a copy of `source` whose files may be links to it: done are `edits`, and no other."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        files = {change.file for edit in kernel_edits.EDITS for change in edit.changes}
        files |= {change.file for edit in edits for change in edit.changes}
        files = sorted(file for file in files if (source / file).exists())
        for file in files:
            (scratch / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, scratch / file)
        apply.apply(scratch, edits)
        for file in files:
            contents = (scratch / file).read_bytes()
            if contents != (tree / file).read_bytes():  # keep the time of what is as it was: make looks at it
                (tree / file).unlink()
                (tree / file).write_bytes(contents)


def _build(tree, kind, output, log):
    objects = tree.with_name(f"{tree.name}_{kind}")  # kept: a build that was interrupted goes on where it was
    objects.mkdir(parents=True, exist_ok=True)
    words = ["nice", "make", "-s", f"-j{os.cpu_count()}", "-C", str(tree), f"O={objects}", "ARCH=x86_64",
             f"LOCALVERSION=-{kind}", *(["CC=ccache gcc"] if shutil.which("ccache") else [])]
    with open(log, "w", encoding="utf-8") as out:
        store.made(objects / "fragment", [settings(kind)], lambda fragment: _configure(out, log, words, kind, objects, fragment),
                   f"configuring {log.stem}")
        _make(out, log, [*words, "bzImage", "modules"])
        _make(out, log, [*words, f"INSTALL_MOD_PATH={output}", "modules_install"])
    shutil.copy(objects / "arch" / "x86" / "boot" / "bzImage", output)
    release = kernels.release_of(output / "bzImage")
    shutil.copy(objects / ".config", output / f"config-{release}")
    for link in ("build", "source"):  # to folders that the next build changes
        store.remove(output / "lib" / "modules" / release / link)


def _configure(out, log, words, kind, objects, fragment):
    fragment.write_text("".join(f"{line}\n" for line in settings(kind)), encoding="utf-8")
    _make(out, log, [*words, f"KCONFIG_ALLCONFIG={fragment}", "allnoconfig"])
    missing = set(settings(kind, required=True)) - set((objects / ".config").read_text(encoding="utf-8").splitlines())
    if missing:
        raise store.Failure(f"{log.stem}: its Kconfig does not give {', '.join(sorted(missing))}; "
                            f"{' or '.join(CONFIGS[kind])} in {HERE} is to be mended")


def settings(kind, required=False):
    """The lines of the configuration; of those with "?" before them only if they need not be there."""
    lines = [line for name in CONFIGS[kind] for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
    if not required:
        lines = [line.removeprefix("?") for line in lines]
    return [line for line in lines if line.startswith("CONFIG_")]


def _make(out, log, words):
    store.logged(f"{words[-1]} of {log.stem}", words, out, log)
