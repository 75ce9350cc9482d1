# SPDX-License-Identifier: GPL-2.0-or-later
"""What all labs have in common: a folder with lab.json."""

import json
import os
import pathlib
import re
import subprocess
import sys

from . import check, machine, selftests, store

NAME = re.compile(r"[a-z0-9][A-Za-z0-9_.-]*(:[A-Za-z0-9_.+-]+)?")


def agent():
    """kvm-runner: $FPSWAP_AGENT, or this clone's."""
    return pathlib.Path(os.environ.get("FPSWAP_AGENT") or store.REPOSITORY / "build" / "kvm-runner").absolute()


def built(program):
    """The program, which is built first if it is this clone's and is not there: a fresh clone needs no other command."""
    if program.exists():
        return program
    if program.parent != store.REPOSITORY / "build":
        raise store.Failure(f"{program} is not there; it belongs beside $FPSWAP_AGENT", store.UNAVAILABLE)
    print(f"ci/lab: building {program.name}", file=sys.stderr, flush=True)
    steps = 'source ci/lib.sh && install_packages && targets=$0 && build build "${clang[@]}"'
    done = subprocess.run(["bash", "-c", steps, program.name], cwd=store.REPOSITORY, stdin=subprocess.DEVNULL, stdout=sys.stderr,
                          check=False)
    if done.returncode != 0 or not program.exists():
        raise store.Failure(f"{program} could not be built, as said above", store.UNAVAILABLE)
    return program


def fpswap():
    """The fpswap beside the agent."""
    return built(agent().with_name("fpswap"))


def runs_nothing(platform):
    """Why no guest code runs on a platform, as its agent says; "" if some does."""
    return next((row["reason"] for row in platform["cannot"] if "can't run guest code" in row["reason"]), "")


class Lab:
    """A machine somewhere, reached by a command. ci/lab's verbs are its methods.
"""

    def __init__(self, name):
        if not NAME.fullmatch(name):
            raise store.Failure(f"'{name}' is no name for a lab; such are amd, amd:6.12, my-host", store.USAGE)
        self.folder = store.lab_folder(name)
        # A family's own name is a link to its default kernel's.
        self.name = self.folder.resolve().name if self.folder.is_symlink() else name

    @property
    def settings(self):
        """lab.json: what fpswap reads (harness/targets/lab.h), and what the lab keeps for itself."""
        try:
            return json.loads((self.folder / "lab.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise store.Failure(f"there is no lab {self.name}; make it: ci/lab build {self.name}, or for a real "
                                f"machine: ci/lab add {self.name} -- ssh HOST kvm-runner", store.UNAVAILABLE) from error
        except ValueError as error:
            raise store.Failure(f"{self.folder / 'lab.json'}: {error}") from error

    def save(self, settings):
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / "lab.json.part"
        part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        os.replace(part, self.folder / "lab.json")

    def connect_command(self):
        command = self.settings["connect"]
        program = command[0]
        if "/" in program and not os.path.isabs(program):
            program = str(self.folder / program)
        return [program, *command[1:]]

    def describe(self):
        """For list."""
        settings = self.settings
        try:
            ready = self.ready()
        except store.Failure:  # as without an agent
            ready = False
        return {"name": self.name, "about": settings.get("about", ""), "connect": settings["connect"],
                "debug": settings.get("debug", []), "ready": ready, "running": len(machine.running(self)),
                "platform": self.platform()}

    def platform(self):
        """As last seen."""
        path = self.folder / "platform.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def save_platform(self, platform):
        (self.folder / "platform.json").write_text(json.dumps(platform), encoding="utf-8")

    # Whether check can have a machine of it panic: by panic(), of what connect has put into the folder $FPSWAP_MONITORS.
    can_panic = False

    def can_crash(self):
        """The same for crash(), by SysRq."""
        return False

    def ready(self):
        return True

    def check(self):
        check.check(self)

    def selftests(self):
        selftests.run(self)

    def build(self, options):
        raise store.Failure(f"{self.name} is a real machine: there is nothing to build", store.USAGE)

    def start(self):
        """Nothing: what a real machine needs is its owner's to do."""

    def stop(self):
        machine.stop(self)

    def connect(self):
        command = self.connect_command()
        os.execvp(command[0], command)

    def enter(self):
        raise store.Failure(f"{self.name} is a real machine: enter it as you do without fpswap", store.USAGE)


def names():
    folder = store.cache() / "labs"
    return sorted(path.name for path in folder.glob("*") if (path / "lab.json").exists() and not path.is_symlink())
