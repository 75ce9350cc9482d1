# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels for labs: Debian's, unmodified, or a developer's own build."""

import dataclasses
import gzip
import lzma
import pathlib
import re
import struct
import subprocess

from . import store

# What makes a kernel say more, or sooner, that something went wrong in it.
DEBUG_OPTIONS = ["X86_DEBUG_FPU", "KASAN", "KCSAN", "UBSAN", "KCOV", "PROVE_LOCKING", "DEBUG_ATOMIC_SLEEP", "KVM_PROVE_MMU"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    release: str  # uname -r
    bzimage: pathlib.Path
    modules: pathlib.Path  # a folder that holds the modules, at any depth
    builtin: pathlib.Path  # modules.builtin
    config: pathlib.Path | None = None

    def identity(self):
        """Changes with the image and with KVM's modules; of thousands of other modules nobody looks."""
        kvm = sorted((self.modules / "kernel" / "arch" / "x86" / "kvm").glob("kvm*.ko*"))
        return self.release, str(self.modules), *(store.identity(path) for path in [self.bzimage, self.builtin, *kvm])

    def as_json(self):
        return {name: str(value) for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, values):
        return cls(**{name: value if name == "release" else pathlib.Path(value) for name, value in values.items()})

    def debug_options(self):
        """What of DEBUG_OPTIONS it was built with; none if nobody knows."""
        return self.has(DEBUG_OPTIONS)

    def has(self, options):
        """Those of the options that are built in; none if nobody knows."""
        if self.config is None or not self.config.exists():
            return []
        lines = set(self.config.read_text(encoding="utf-8").splitlines())
        return [option for option in options if f"CONFIG_{option}=y" in lines]


def debian_kernel(series):
    """The newest cloud kernel of a series, "6.1", "6.12", or "7" for the newest 7.x, and with it the newest of all."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", series):
        raise store.Failure(f"'{series}' is no kernel series; say 6.1, 6.12 or 7, or give --kernel and --modules",
                            store.USAGE)
    names = store.debian("names", f"linux-image-{series}.*-cloud-amd64")
    if not names:
        raise store.Failure(f"Debian's archive has no linux-image-{series}.*-cloud-amd64 now", store.UNAVAILABLE)
    release = names[0].removeprefix("linux-image-")
    # Since 7.x a kernel is three packages, and the one of its name is empty.
    parts = [store.unpacked(names[0])]
    if not (parts[0] / "boot").exists():
        parts = [store.unpacked(f"linux-{part}-{release}") for part in ("binary", "modules", "base")]
    kvm = _only(parts, "**/kernel/arch/x86/kvm")
    return Kernel(release, _only(parts, "**/vmlinuz*"), kvm.parents[3], _only(parts, "**/modules.builtin"),
                  _only(parts, "**/modules/*/config" if len(parts) > 1 else "boot/config-*"))


def _only(folders, pattern):
    found = [path for folder in folders for path in folder.glob(pattern)]
    if len(found) != 1:
        raise store.Failure(f"{folders[0].name}: {len(found)} files match {pattern} and one was expected")
    return found[0]


def own_kernel(bzimage, modules):
    """A developer's own: `modules` is what `make modules_install INSTALL_MOD_PATH=` has filled, or a folder in it."""
    bzimage, modules = pathlib.Path(bzimage).absolute(), pathlib.Path(modules).absolute()
    release = release_of(bzimage)
    for folder in (modules, modules / release, modules / "lib" / "modules" / release):
        if (folder / "modules.builtin").exists() and folder.resolve().name == release:
            # Where the build links it from, where the image still lies in its build, where distributions have it.
            configs = [folder / "build" / ".config", *(above / ".config" for above in bzimage.parents[3:4]),
                       bzimage.with_name(f"config-{release}")]
            config = next((path for path in configs if path.exists()), None)
            return Kernel(release, bzimage, folder, folder / "modules.builtin", config)
    raise store.Failure(f"{modules} does not hold the modules of {bzimage}, which is {release}: there should be "
                        f"lib/modules/{release}/modules.builtin; make modules_install INSTALL_MOD_PATH={modules}",
                        store.USAGE)


def release_of(bzimage):
    """What the image's header says (Documentation/arch/x86/boot.rst: kernel_version)."""
    try:
        head = bzimage.read_bytes()[:65536]
    except OSError as error:
        raise store.Failure(f"{bzimage}: {error.strerror}", store.USAGE) from error
    if head[0x202:0x206] != b"HdrS":
        raise store.Failure(f"{bzimage} is no bzImage; it is arch/x86/boot/bzImage of the build", store.USAGE)
    begin = struct.unpack_from("<H", head, 0x20E)[0] + 0x200
    return head[begin:head.index(b"\0", begin)].split()[0].decode()


def modules_for(kernel, wanted):
    """[(name, contents)] in the order of loading: the modules and all they depend on, but for what is built in.

    A module that the kernel does not have is an error: of a kernel without KVM nothing can be tested."""
    builtin = {_name(line) for line in kernel.builtin.read_text(encoding="utf-8").split()}
    files = {_name(path.name): path for path in kernel.modules.rglob("*.ko*")}
    order = {}

    def load(name):
        if name in order or name in builtin:
            return
        if name not in files:
            raise store.Failure(f"kernel {kernel.release} has no module {name}, nor is it built in; enable it, "
                                f"and install the modules into {kernel.modules}", store.UNAVAILABLE)
        contents = _unpacked(files[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", contents)
        for other in (depends.group(1).decode() if depends else "").split(","):
            if other:
                load(other.replace("-", "_"))
        order[name] = contents

    for name in wanted:
        load(name.replace("-", "_"))
    return list(order.items())


def _name(path):
    return re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")


def _unpacked(path):
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        store.need(f"unpacking {path}", ("zstd",))
        return subprocess.run(["zstd", "-dc", path], stdout=subprocess.PIPE, check=True).stdout
    return data
