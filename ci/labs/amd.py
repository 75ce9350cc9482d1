# SPDX-License-Identifier: GPL-2.0-or-later
"""lab:amd: real kvm_amd on the SVM that QEMU emulates (TCG), so it needs no virtualisation and no privilege.

The machine boots once, up to where its agent has answered a hello; then it is kept as a snapshot, and each connect
starts from that. QEMU itself is what fpswap speaks to: its stdin and stdout are the agent's port of virtio-serial."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

from . import emulated, frames, initramfs, lab, machine, store
from .qemu import qemu

TRANSPORT = ["virtio_pci", "virtio_console"]
# oops=panic: after an oops in KVM locks stay held and state is half changed, and its agent is mostly dead, so nobody
# is left to read the kernel's log; the console has the whole of it, and a fresh machine costs a fraction of a second.
# A warning is no oops: the machine goes on, and the agent reads it. unknown_nmi_panic: QEMU's inject-nmi is our panic.
# sysrq_always_enabled: else Debian's kernels take no crash from their console. nokaslr: addresses in the log are the same in each machine and in System.map.
ARGUMENTS = ("console=ttyS0 panic=-1 oops=panic unknown_nmi_panic sysrq_always_enabled nokaslr tsc=reliable no_timer_check "
             "random.trust_cpu=on fpswap.port=/dev/vport0p1")
SELFTEST = pathlib.Path(__file__).parent / "qemu-selftest"
OFFLINE = store.REPOSITORY / "corpus" / "seeds" / "cpu-offline.fps"
CONSOLE = ".console"  # behind the name of a monitor's socket
KEPT_SNAPSHOTS = 4  # of different agents


class Amd(emulated.Emulated):
    """amd:KERNEL has kvm-runner for its agent. amd-native:KERNEL has native-runner: what diverges there too is QEMU's, for
    KVM is not in it."""

    family, agent_name, modules = "amd", "kvm-runner", [*TRANSPORT, "kvm_amd"]
    about = "kvm_amd of {} on 2 CPUs with SVM, emulated by QEMU"
    OPTIONS = ["--offline-cpus"]  # of the agent: the machine is there for nothing else, and has two CPUs
    SELFTESTS = ["state_test", "xcr0_cpuid_test", "sync_regs_test"]

    def parts(self):
        return {"qemu": qemu.sources(), "options": self.OPTIONS}

    def start(self):
        if self.settings.get("options") != self.OPTIONS:  # made by an earlier version
            self.save({**self.settings, "options": self.OPTIONS})
        if isinstance(self.settings["qemu"], dict):
            qemu.build(self.settings["qemu"])
        self._started()

    def _started(self):
        """The snapshot for the agent of now, made if there is none."""
        snapshot = self._snapshot()
        snapshot.parent.mkdir(exist_ok=True)
        made = store.made(snapshot, [], self._boot, f"{self.name}: booting; this takes 10 to 60 s, once")
        os.utime(made)
        for key in sorted(snapshot.parent.glob("*.key"), key=store.last_used)[:-KEPT_SNAPSHOTS]:
            key.with_suffix("").unlink(missing_ok=True)
            key.unlink(missing_ok=True)
        return made

    def stop(self):
        super().stop()
        store.remove(self.folder / "snapshots")

    def ready(self):
        return self._snapshot().exists()

    def connect(self):
        if not pathlib.Path(self._qemu()[0]).exists():  # fpswap would not wait for a build
            raise store.Failure(f"{self.name}: its QEMU is to be built anew: ci/lab start {self.name}", store.UNAVAILABLE)
        snapshot = self._started()
        monitors = os.environ.get("FPSWAP_MONITORS")  # a folder, for check
        monitor = f"{monitors}/{os.getpid()}" if monitors else None
        machine.serve([*self._qemu(), *self._console(os.environ.get("FPSWAP_CONSOLE"), monitor), *_stream(),
                       *(_monitor(monitor) if monitor else []), "-incoming", f"file:{snapshot}"])

    def enter(self):
        """A machine of its own, with a shell on its console."""
        print("A shell in the lab's machine; end it with exit, or QEMU with Ctrl-A X.", flush=True)
        machine_of_ours = self._qemu(self._initramfs(), "fpswap.shell")
        return subprocess.run([*machine_of_ours, "-serial", "mon:stdio", *_stream("null")], check=False).returncode

    def check(self):
        self._selftest()
        self._offline()
        super().check()

    def _offline(self):
        done = subprocess.run([lab.fpswap(), "run", "--json", "--target", f"lab:{self.name}", OFFLINE], check=False,
                              stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout)["results"][0] if done.returncode == 0 else {}
        if result.get("result") != "agrees" or result.get("trims"):
            raise store.Failure(f"{self.name}: a CPU that goes offline under a vCPU and comes back: fpswap run says "
                                f"{done.returncode}: {result}")
        print(f"{self.name}: a vCPU whose CPU went offline and came back is as it should be")

    def _selftest(self):
        """What the edits of QEMU are for, by programs of ours in a machine without KVM."""
        native = AmdNative(f"{AmdNative.family}:{self.name.partition(':')[2]}")
        native.save({**self.settings, "options": native.OPTIONS, "about": AmdNative.about.format(f"the kernel {self.kernel.release}"),
                     "connect": [*self.settings["connect"][:-1], native.name]})
        native.start()
        for name in dict.fromkeys((native.name, self.name)):
            done = subprocess.run([lab.fpswap(), "run", "--target", f"lab:{name}", SELFTEST], check=False,
                                  stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise store.Failure(f"{name}: the emulated CPU is not as it should be, so nothing that it shows counts:\n"
                                    f"{done.stdout}", store.FAILED if done.returncode == 1 else done.returncode)
            if ": 0 agree" in done.stdout.splitlines()[-1]:
                raise store.Failure(f"{name}: no program of the emulated CPU's self-test could run there")
            print(f"{name}: the emulated CPU passes its self-test: {done.stdout.splitlines()[-1]}")

    can_panic = True

    @staticmethod
    def panic(monitor):
        """Has the machine panic whose monitor that is; whether it is there still."""
        return _monitored(monitor, lambda qmp: qmp.run("inject-nmi"))

    def can_crash(self):
        return bool(self.kernel.has(["MAGIC_SYSRQ_SERIAL"]))

    @staticmethod
    def crash(monitor):
        """As panic(), by SysRq on the console: a break, and "c"."""
        def do(qmp):
            qmp.run("chardev-send-break", id="console")
            with socket.socket(socket.AF_UNIX) as console:
                console.connect(f"{monitor}{CONSOLE}")
                console.sendall(b"c")

        return _monitored(monitor, do)

    def run_inside(self, program, files, timeout_s):
        """Boots a machine that runs `program`, a path in `files` ({path in the machine: file}): (status, console)."""
        with tempfile.TemporaryDirectory() as folder:
            console = pathlib.Path(folder) / "console"
            archive = self._initramfs(pathlib.Path(folder) / "initramfs", files)
            command = [*self._qemu(archive, f"fpswap.run={program}"), *self._console(console), *_stream("null")]
            try:
                subprocess.run(command, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
                               preexec_fn=machine.dies_with_us)
            except subprocess.TimeoutExpired:
                pass
            text = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        return self.status(text), text

    def _snapshot(self):
        key = store.digest(self._qemu(), self.OPTIONS, self.kernel.identity(), initramfs.INIT, pathlib.Path(initramfs.__file__),
                           self.settings["busybox"], self.modules, self.built_agent())
        return self.folder / "snapshots" / key[:16]

    def _initramfs(self, output=None, files=None):
        return initramfs.initramfs(output or self.folder / "initramfs", self.kernel, self.modules, self.built_agent(),
                                   self.busybox(), files)

    def _boot(self, snapshot):
        log = self.folder / "boot.log"
        log.unlink(missing_ok=True)
        archive = self._initramfs()
        with tempfile.TemporaryDirectory() as folder:
            monitor = f"{folder}/monitor"
            command = [*self._qemu(archive), *self._console(log), *_stream(), *_monitor(monitor)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  preexec_fn=machine.dies_with_us) as process:
                try:
                    # With the options that fpswap will send: for others the agent starts again and probes anew.
                    platform = frames.hello(process, 300, self.OPTIONS)
                    # What the agent could not do in time is not to stay so in every machine from here on.
                    if reason := lab.runs_nothing(platform):
                        raise store.Failure(f"the agent says: {reason}. If this machine was very busy, try again")
                    self.save_platform(platform)
                    with Monitor(monitor) as qmp:
                        qmp.run("migrate", uri=f"file:{snapshot}")
                        qmp.until_migrated()
                        qmp.run("quit")
                    process.wait(10)
                except store.Failure as failure:
                    raise store.Failure(f"{self.name}: {failure}; its console is {log}", store.FAILED) from failure
                finally:
                    process.kill()

    def _qemu(self, archive=None, argument=""):
        """The machine; what differs from run to run, the far ends of its console and stream, is not among it."""
        settings, sources = self.settings, self.settings["qemu"]
        if isinstance(sources, str):
            raise store.Failure(f"{self.name} was made with another QEMU; make it again: ci/lab build {self.name}",
                                store.UNAVAILABLE)
        return [str(qemu.program(sources)), *(word for folder in sources["firmware"] for word in ("-L", folder)),
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc",
                "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(settings["memory_mb"]),
                "-kernel", str(self.kernel.bzimage), "-initrd", str(archive or self.folder / "initramfs"),
                "-append", f"{ARGUMENTS} {argument}".strip(),
                "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=stream"]

    @staticmethod
    def _console(path, monitor=None):
        """What is said goes to the file `path`. Beside `monitor` is a socket to write to."""
        path = path or os.devnull
        backend = (f"socket,id=console,path={monitor}{CONSOLE},server=on,wait=off,logfile={path},logappend=on" if monitor
                   else f"file,id=console,path={path},append=on")
        return ["-chardev", backend, "-serial", "chardev:console"]


class AmdNative(Amd):
    family, agent_name, modules = "amd-native", "native-runner", TRANSPORT
    about = "no KVM: the CPU that QEMU emulates for lab:amd, under {}"
    OPTIONS = []


def _stream(kind="stdio,signal=off"):
    kind, _, more = kind.partition(",")
    return ["-chardev", f"{kind},id=stream" + (f",{more}" if more else "")]


def _monitored(monitor, do):
    """Does it with the Monitor whose socket that is; whether it is there still."""
    try:
        with Monitor(str(monitor)) as qmp:
            do(qmp)
    except OSError:
        return False
    return True


def _monitor(path):
    return ["-qmp", f"unix:{path},server=on,wait=off"]


class Monitor:
    """QEMU's monitor (QMP)."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()  # its greeting
        self.run("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def run(self, command, **arguments):
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        for line in self._file:
            answer = json.loads(line)
            if "error" in answer:
                raise store.Failure(f"QEMU's {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise store.Failure(f"QEMU ended at {command}")

    def until_migrated(self):
        while (state := self.run("query-migrate")["status"]) not in ("completed", "failed", "cancelled"):
            pass
        if state != "completed":
            raise store.Failure(f"the snapshot could not be written: migration {state}; is the disk full?")
