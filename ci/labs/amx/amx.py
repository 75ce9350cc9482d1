# SPDX-License-Identifier: GPL-2.0-or-later
"""lab:amx: real kvm_intel with AMX and XFD, on the VMX that Bochs emulates. One CPU, and slow: some 30 million
instructions a second.

The machine boots once, up to where its agent has answered a hello. That process stays, and each connect gets a copy of
it (door.h), which costs milliseconds. It ends when it was not used for an hour."""

import array
import contextlib
import fcntl
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import tempfile
import time

from .. import emulated, frames, initramfs, lab, machine, store
from . import bochs, edits, images

MODULES = ["irqbypass", "kvm_intel"]
# As lab:amd's; and what spares an emulator work that proves nothing here.
ARGUMENTS = ("console=ttyS0 panic=-1 oops=panic unknown_nmi_panic nokaslr tsc=reliable no_timer_check "
             "random.trust_cpu=on nowatchdog cryptomgr.notests rcupdate.rcu_expedited=1")
HERE = pathlib.Path(__file__).parent
CONSOLE = 5  # door.h
SHELL = ["/bin/busybox", "sh", "-c", "busybox --install -s /bin; exec sh -i 2>&1"]
SELFTEST_S = 60
KEPT_MACHINES = 2  # with different agents; 160 MB each


class Amx(emulated.Emulated):
    """amx:KERNEL has kvm-runner for its agent. amx-native:KERNEL has native-runner: there the oracle's CPU is held
    against Bochs' own."""

    family, agent_name, modules = "amx", "kvm-runner", MODULES
    about = "kvm_intel of {} on one CPU with VMX, AVX-512, AMX and XFD, emulated by Bochs"
    START_S, SILENCE_S = 300, 120
    SELFTESTS = ["amx_test", "state_test", "xcr0_cpuid_test", "cpuid_test", "sync_regs_test", "x86/amx"]

    def parts(self):
        return {"bios": str(store.unpacked("bochsbios=3.0") / "usr/share/bochs/BIOS-bochs-latest"),
                "vga_bios": str(store.unpacked("vgabios=0.9") / "usr/share/vgabios/vgabios.bin")}

    def memory_mb(self, options_of_kernel):
        return emulated.MEMORY_MB

    def start(self):
        """The path of the socket of the machine that is copied, booted if it does not run."""
        path = self._socket()
        with store.lock(self.folder / "machine"):
            if not _answers(path):
                self._boot(path)
        return path

    def stop(self):
        super().stop()
        for mark in self.folder.glob("machine-*.pid"):
            _end(mark)

    def ready(self):
        return _answers(self._socket())

    def check(self):
        wrong = [f"{name}: {text}" for name, text in self.selftest() if text]
        if wrong:
            raise store.Failure(f"{self.name}: the emulated CPU is not as it should be, so nothing that it shows counts:\n"
                                + "\n".join(wrong))
        print(f"{self.name}: the emulated CPU passes its self-test")
        super().check()

    def selftest(self, leave_out=()):
        """What Bochs' own CPU does, with no kernel in between: [(check, what is wrong or "")], for every check of edits.py.

        With `leave_out`, names of edits, of a Bochs without them."""
        program = bochs.bochs(leave_out)
        with tempfile.TemporaryDirectory() as folder:
            settings = images.bare(pathlib.Path(folder), HERE / "selftest.c", self.settings, CONSOLE)
            with open(os.devnull, "wb") as console, _bochs(
                    [str(program), "-q", "-f", str(settings)], console, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    preexec_fn=machine.dies_with_us) as process:
                lines = _until_end(process.stdout, SELFTEST_S)
                process.kill()
        said = dict(re.fullmatch(r"(?:ok|FAIL) (\w+)(?:: (.*))?", line).groups(default="") for line in lines)
        wanted = sorted({edit.check for edit in edits.EDITS} - {edits.LAB, edits.KVM})
        return [(name, said.get(name, "no answer: the machine died")) for name in wanted]

    def connect(self):
        with _connected(self.start()) as copy:
            monitors = os.environ.get("FPSWAP_MONITORS")  # a folder, for check
            if monitors:
                signal.signal(signal.SIGUSR1, lambda *_: copy.send(b"!"))  # an NMI, which is our panic
                pathlib.Path(monitors, str(os.getpid())).touch()
            _serve(copy)

    can_panic = True

    @staticmethod
    def panic(monitor):
        """Has the machine panic that connect has told of by the file `monitor`; whether it is there still."""
        try:
            os.kill(int(monitor.name), signal.SIGUSR1)
        except ProcessLookupError:
            return False
        return True

    def run_inside(self, program, files, timeout_s):
        """Boots a machine that runs `program`, a path in `files` ({path in the machine: file}): (status, console)."""
        with tempfile.TemporaryDirectory() as folder, open(f"{folder}/console", "w+b") as console:
            archive = self._initramfs(pathlib.Path(folder) / "initramfs", files)
            command = self._machine(pathlib.Path(folder), archive, f"fpswap.run={program}")
            with _bochs(command, console, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                        preexec_fn=machine.dies_with_us) as process:
                try:
                    process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    process.kill()
            console.seek(0)
            text = console.read().decode(errors="replace")
        return self.status(text), text

    def enter(self):
        """A machine of its own, with a shell for its agent: no terminal, as its console goes one way."""
        log = self.folder / "shell.log"
        print(f"It boots, which takes 10 to 60 s; its console is {log}. End the shell with exit.", flush=True)
        with tempfile.TemporaryDirectory() as folder, open(log, "wb") as console:
            place = pathlib.Path(folder)
            archive = self._initramfs(place / "initramfs", self._files(place / "agent", SHELL))
            return _bochs(self._machine(place, archive, "fpswap.run=/bin/relay"), console).wait()

    def _key(self):
        settings, agent = self.settings, self.built_agent()
        sources = [HERE / name for name in ("edits.py", "door.h", "images.py", "boot.S", "relay.c")]
        return store.digest(*sources, initramfs.INIT, pathlib.Path(initramfs.__file__), agent, self.kernel.identity(),
                            ARGUMENTS, self.modules, settings["bios"], settings["vga_bios"], settings["busybox"],
                            settings["memory_mb"])[:16]

    def _socket(self):
        return self.folder / f"machine-{self._key()}"

    def _boot(self, path):
        """Boots the machine that is copied. It outlives us; machine-KEY.pid says which process it is."""
        store.say(f"{self.name}: booting; this takes 10 to 60 s")
        log = self.folder / "boot.log"
        log.unlink(missing_ok=True)
        files = self._files(self.folder / "agent", [f"/bin/{self.agent_name}"])
        archive = self._initramfs(self.folder / "initramfs", files)
        command = self._machine(self.folder, archive, "fpswap.run=/bin/relay")
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener, open(log, "ab") as console, \
                open(self.folder / "bochs.log", "wb") as errors:
            listener.bind(_short(path))
            listener.listen(16)
            bochs_process = _bochs(command, console, listener, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=errors, start_new_session=True)
        try:
            self.save_platform(frames.hello(bochs_process, self.START_S))
        except store.Failure as failure:
            bochs_process.kill()
            path.unlink(missing_ok=True)
            raise store.Failure(f"{self.name}: {failure}; its console is {log}, Bochs' own words "
                                f"{self.folder / 'bochs.log'}", store.FAILED) from failure
        path.with_name(path.name + ".pid").write_text(str(bochs_process.pid), encoding="utf-8")
        bochs_process.stdin.close()  # from here on it is copied
        bochs_process.stdout.close()
        for old in sorted(self.folder.glob("machine-*.pid"), key=lambda mark: mark.stat().st_mtime)[:-KEPT_MACHINES]:
            _end(old)

    def _files(self, path, command):
        """What a machine with an agent has inside. `path` is where relay.c's /agent is written."""
        path.write_text("".join(f"{word}\n" for word in command), encoding="utf-8")
        relay = store.made(self.folder / "relay", [HERE / "relay.c"], lambda temporary: subprocess.run(
            ["gcc", "-O2", "-static", "-o", temporary, HERE / "relay.c"], check=True), "building the relay")
        return {"/bin/relay": relay, "/agent": path}

    def _initramfs(self, output, files):
        if self.agent_name != "kvm-runner":
            files = {**files, f"/bin/{self.agent_name}": self.agent()}
        return initramfs.initramfs(output, self.kernel, self.modules, lab.built(lab.agent()), self.busybox(), files)

    def _machine(self, folder, archive, argument):
        """Bochs' command line; its settings and the page of boot parameters are put into `folder`."""
        kernel = store.made(self.folder / "kernel", [pathlib.Path(images.__file__), images.BOOT,
                                                     store.identity(self.kernel.bzimage)],
                            lambda temporary: images.kernel(temporary, self.kernel.bzimage),
                            f"unpacking {self.kernel.bzimage.name}")
        params = folder / "params"
        params.write_bytes(images.parameters(self.kernel.bzimage, archive.stat().st_size, f"{ARGUMENTS} {argument}"))
        ram = {images.KERNEL: kernel / "kernel", images.PARAMS: params, images.INITRD: archive}
        settings = folder / "bochsrc"
        settings.write_text(images.options(self.settings, kernel / "floppy", CONSOLE, ram), encoding="utf-8")
        return [str(bochs.bochs()), "-q", "-f", str(settings)]


class AmxNative(Amx):
    family, agent_name, modules = "amx-native", "native-runner", []


def _bochs(command, console, listener=None, **options):
    """Bochs as a process, with the descriptors that door.h wants. Its banner is nobody's business."""
    # Out of the way of the places that they are to get.
    high = [fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, 20) for file in (console, listener) if file]
    script = 'exec 3<&0 4>&1 5>&"$0"; [ -z "$1" ] || exec 6<&"$1"; shift; exec "$@" </dev/null >/dev/null'
    try:
        return subprocess.Popen(["bash", "-c", script, *map(str, high), *([] if listener else [""]), *command],
                                pass_fds=high, **options)
    finally:
        for fd in high:
            os.close(fd)


def _until_end(stream, timeout_s):
    """The lines up to "end", or those that came within the time."""
    text, deadline = b"", time.monotonic() + timeout_s
    while not text.endswith(b"end\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            break
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            break
        text += data
    return [line for line in text.decode(errors="replace").splitlines() if line != "end"]


def _short(path):
    """A socket's path may have 107 characters."""
    if len(str(path)) < 100:
        return str(path)
    return f"/proc/self/fd/{os.open(path.parent, os.O_PATH | os.O_DIRECTORY)}/{path.name}"


def _answers(path):
    try:
        with _connected(path, fds=[]):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _connected(path, fds=None):
    """A connection to the machine behind `path`: with our standard descriptors, a copy of it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_short(path))
        if fds is None:
            console = os.open(os.environ.get("FPSWAP_CONSOLE") or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            fds = [0, 1, console, 2]
        if fds:
            connection.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        yield connection


def _serve(copy):
    """Until the copy ends, or our stdin does."""
    machine.until_either_ends(copy)
    copy.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        status = copy.recv(1)
        raise SystemExit(status[0] if status else 1)


def _end(mark):
    """Ends the machine that is copied, if it is the one that the file speaks of."""
    pid = int(mark.read_text(encoding="utf-8"))
    with contextlib.suppress(OSError):
        if b"bochsrc" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
            store.say(f"ending machine {pid}")
            os.kill(pid, 15)
    mark.unlink()
    mark.with_suffix("").unlink(missing_ok=True)
