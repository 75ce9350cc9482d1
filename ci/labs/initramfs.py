# SPDX-License-Identifier: GPL-2.0-or-later
"""The root file system of a lab's machine: busybox, KVM's modules, our init and the agent, in one cpio archive."""

import pathlib
import stat
import subprocess

from . import kernels, store

INIT = pathlib.Path(__file__).with_name("init")
# What init and the scripts that are run inside use. A shell that a person enters links all the others.
APPLETS = ["awk", "cat", "chmod", "cut", "dmesg", "echo", "grep", "insmod", "ls", "mkdir", "mknod", "mount", "poweroff",
           "reboot", "sed", "setsid", "sh", "sleep", "stty", "tail", "test", "timeout", "tr", "uname"]
FOLDERS = ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp"]


def cpio(entries):
    """The "newc" archive (Documentation/driver-api/early-userspace/buffer-format.rst) of (path, mode, contents)
    triples; `mode` is st_mode's, with the type of the file. Of a symbolic link the contents are what it points to."""
    parts = []
    for inode, (path, mode, contents) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = [inode, mode, 0, 0, links, 0, len(contents), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        parts += [head, b"\0" * (-len(head) % 4), contents, b"\0" * (-len(contents) % 4)]
    return b"".join(parts)


def busybox():
    return store.unpacked("busybox-static") / "usr" / "bin" / "busybox"


def initramfs(output, kernel, modules, agent, busybox, files=None):  # pylint: disable=redefined-outer-name
    """`output`, an archive (not compressed: an emulator unpacks slowly) for `kernel`, made if its inputs have changed.

    modules: names of modules to load, in this order; what they depend on goes before them.
    agent:   kvm-runner or native-runner, a static program. It is stripped.
    busybox: a static one, as busybox() fetches it.
    files:   {path in the archive: file}, to be found inside; executable.

    init's own parameters, on the kernel's command line:
      fpswap.port=/dev/...   what the agent speaks on; a terminal is made raw
      fpswap.shell           no agent: a shell on the console
      fpswap.run=/PATH       no agent: this program, its exit status said on the console as "fpswap-lab: status N"
    When the agent, shell or program ends, the machine powers off."""
    files = files or {}
    def make(temporary):
        loaded = kernels.modules_for(kernel, modules)
        order = "".join(f"{name}\n" for name, _ in loaded)
        program, text, folder = stat.S_IFREG | 0o755, stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
        above = {str(parent) for path in files for parent in pathlib.PurePath(path.lstrip("/")).parents} - {"."}
        entries = [(name, folder, b"") for name in sorted({*FOLDERS, *above})]
        entries += [("init", program, INIT.read_bytes()), ("bin/busybox", program, busybox.read_bytes())]
        entries += [(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox") for applet in APPLETS]
        entries += [(f"modules/{name}.ko", text, contents) for name, contents in loaded]
        entries += [("modules/order", text, order.encode()), ("bin/agent", program, _stripped(agent, temporary)),
                    (f"bin/{agent.name}", stat.S_IFLNK | 0o777, b"agent")]
        entries += [(path.lstrip("/"), program, file.read_bytes()) for path, file in files.items()]
        temporary.write_bytes(cpio(entries))

    inputs = [pathlib.Path(__file__), INIT, store.identity(busybox), kernel.identity(), modules, agent,
              *sorted(files), *(files[path] for path in sorted(files))]
    output.parent.mkdir(parents=True, exist_ok=True)
    return store.made(output, inputs, make, f"making the root file system for {kernel.release}")


def _stripped(agent, beside):
    """Symbols are two thirds of it."""
    copy = beside.with_name(beside.name + ".agent")
    try:
        subprocess.run(["strip", "-o", copy, agent], check=True, capture_output=True)
        return copy.read_bytes()
    except (OSError, subprocess.CalledProcessError):
        return agent.read_bytes()  # larger, and as good
    finally:
        copy.unlink(missing_ok=True)
