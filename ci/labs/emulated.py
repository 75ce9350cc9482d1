# SPDX-License-Identifier: GPL-2.0-or-later
"""What the labs that are built here have in common: an emulator, and a kernel of Debian's or one's own in it."""

import pathlib

from . import built_kernel, initramfs, kernels, lab, store

DEFAULT = "6.12"
MEMORY_MB, SANITIZED_MEMORY_MB = 512, 2048


class Emulated(lab.Lab):
    """FAMILY:KERNEL, and FAMILY alone for the default kernel's. A family says what its machine is."""

    family, agent_name, modules = None, "kvm-runner", []
    about = "{}"  # with the kernel
    START_S, SILENCE_S = 180, 60

    def parts(self):
        """What else its lab.json keeps: where the emulator's own files are."""
        raise NotImplementedError

    def build(self, options):
        suffix = self.name.partition(":")[2] or DEFAULT
        own = self._own_kernel(options)
        ours = None if own else built_kernel.parse(suffix)
        kernel = own or (built_kernel.built_kernel(ours) if ours else kernels.debian_kernel(suffix))
        folder = store.lab_folder(f"{self.family}:{suffix}")
        folder.mkdir(parents=True, exist_ok=True)
        default = folder.with_name(self.family)
        if suffix == DEFAULT and not default.exists():
            default.symlink_to(folder.name)
        self.name, self.folder = folder.name, folder
        options_of_kernel = kernel.debug_options()
        whose = "your" if own else "our build of the" if ours else "Debian's"
        self.save({
            "about": self.about.format(f"{whose} kernel {kernel.release}"),
            "connect": [str(store.REPOSITORY / "ci" / "lab"), "connect", self.name],
            "start_s": self.START_S, "silence_s": self.SILENCE_S, "debug": options_of_kernel,
            "kernel": kernel.as_json(), "own": own is not None,
            "memory_mb": options.memory or self.memory_mb(options_of_kernel),
            "busybox": str(initramfs.busybox()),
            **self.parts(),
        })
        self.start()

    def memory_mb(self, options_of_kernel):
        return SANITIZED_MEMORY_MB if "KASAN" in options_of_kernel else MEMORY_MB

    def _own_kernel(self, options):
        if options.kernel:
            return kernels.own_kernel(options.kernel, options.modules)
        if (self.folder / "lab.json").exists() and self.settings.get("own"):
            known = self.settings["kernel"]
            return kernels.own_kernel(known["bzimage"], known["modules"])
        return None

    @property
    def kernel(self):
        return kernels.Kernel.from_json(self.settings["kernel"])

    def agent(self):
        return lab.agent().with_name(self.agent_name)

    def built_agent(self):
        return lab.built(self.agent())

    def busybox(self):
        return pathlib.Path(self.settings["busybox"])

    @staticmethod
    def status(console):
        """How the program ended that run_inside() was given, as our init says it; None if it did not end."""
        words = console.rpartition("fpswap-lab: status ")[2].split()
        return int(words[0]) if words and words[0].isdigit() else None
