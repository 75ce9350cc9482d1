#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the labs needs no emulator: keys of what is kept, archives, kernels' modules, frames, and the end of machines."""

import contextlib
import gzip
import io
import json
import lzma
import os
import pathlib
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock
import zlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "ci"))
from labs import apply, built_kernel, frames, initramfs, kernel_edits, kernels, lab, selftests, store  # noqa: E402
from labs.qemu import edits as qemu_edits  # noqa: E402


class InAFolder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        before = dict(os.environ)
        os.environ["FPSWAP_CACHE"] = str(self.folder / "cache")
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        errors = contextlib.redirect_stderr(io.StringIO())
        errors.__enter__()
        self.addCleanup(errors.__exit__, None, None, None)

    def file(self, name, contents=b""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
        return path


class Made(InAFolder):
    def setUp(self):
        super().setUp()
        self.times = 0

    def make(self, temporary):
        self.times += 1
        temporary.write_text(f"made {self.times}")

    def made(self, *inputs):
        return store.made(self.folder / "output", list(inputs), self.make, "making").read_text()

    def test_is_made_once_for_the_same_inputs(self):
        source = self.file("in", b"1")
        self.assertEqual([self.made(source, 7), self.made(source, 7)], ["made 1", "made 1"])

    def test_is_made_again_when_a_file_or_a_value_changes(self):
        source = self.file("in", b"1")
        self.made(source, 7)
        self.assertEqual(self.made(source, 8), "made 2")
        source.write_bytes(b"2")
        self.assertEqual(self.made(source, 8), "made 3")

    def test_is_made_again_after_it_was_interrupted(self):
        def interrupted(temporary):
            temporary.write_text("half")
            raise KeyboardInterrupt

        self.made(1)
        with self.assertRaises(KeyboardInterrupt):
            store.made(self.folder / "output", [2], interrupted, "making")
        self.assertEqual(self.made(1), "made 2")

    def test_what_another_process_is_removing_does_not_stop_the_clearing(self):
        for name in "abc":
            (self.folder / f"kept-{name}").write_text("")
            (self.folder / f"kept-{name}.key").write_text("")
        (self.folder / "kept-b").unlink()
        store.keep_newest(self.folder / "kept-*", 1)
        self.assertEqual(len(list(self.folder.glob("kept-*.key"))), 1)
        self.assertNotIn(self.folder / "kept-b.key", self.folder.glob("kept-*.key"))

    def test_inputs_are_not_run_together(self):
        self.assertNotEqual(store.digest("a", "bc"), store.digest("ab", "c"))
        self.assertNotEqual(store.digest("a"), store.digest("a", ""))


def uncpio(data):
    """{path: (mode, contents)} of a newc archive."""
    found, at = {}, 0
    while True:
        assert data[at:at + 6] == b"070701" and at % 4 == 0, at
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[at + 110:at + 110 + length - 1].decode()
        begin = (at + 110 + length + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[begin:begin + size])
        at = (begin + size + 3) & ~3


class Archive(unittest.TestCase):
    def test_comes_back_as_it_went_in_whatever_the_lengths(self):
        entries = [("d", stat.S_IFDIR | 0o755, b""), ("d/link", stat.S_IFLNK | 0o777, b"busybox")]
        entries += [("d/" + "n" * length, stat.S_IFREG | 0o644, bytes(range(size)))
                    for length in range(1, 9) for size in [length % 5, 200 + length]]
        expected = {path: (mode, contents) for path, mode, contents in entries}
        self.assertEqual(uncpio(initramfs.cpio(entries)), expected)


class RootFileSystem(InAFolder):
    def setUp(self):
        super().setUp()
        module = b"\0depends=\0"
        self.file("m/kernel/arch/x86/kvm/kvm-amd.ko.xz", lzma.compress(b"AMD\0depends=kvm,ccp\0"))
        self.file("m/kernel/arch/x86/kvm/kvm.ko", b"KVM\0depends=irqbypass\0")
        self.file("m/kernel/virt/lib/irqbypass.ko.gz", gzip.compress(b"IRQ" + module))
        self.kernel = kernels.Kernel("1.2.3", self.file("bzImage", b"image"), self.folder / "m",
                                     self.file("m/modules.builtin", b"kernel/drivers/crypto/ccp/ccp.ko\n"))

    def test_modules_come_after_what_they_depend_on_and_without_what_is_built_in(self):
        names = [name for name, _ in kernels.modules_for(self.kernel, ["kvm-amd"])]
        self.assertEqual(names, ["irqbypass", "kvm", "kvm_amd"])

    def test_compressed_modules_are_unpacked(self):
        contents = dict(kernels.modules_for(self.kernel, ["kvm_amd"]))
        self.assertEqual([contents[name][:3] for name in ("irqbypass", "kvm", "kvm_amd")], [b"IRQ", b"KVM", b"AMD"])

    def test_a_module_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(store.Failure, "kernel 1.2.3 has no module kvm_intel"):
            kernels.modules_for(self.kernel, ["kvm-intel"])

    def test_holds_modules_in_order_the_agent_and_files_with_their_folders(self):
        agent, busybox = self.file("kvm-runner", b"agent"), self.file("busybox", b"box")
        archive = initramfs.initramfs(self.folder / "out", self.kernel, ["kvm_amd"], agent, busybox,
                                      {"/tests/deep/one": self.file("one", b"1")})
        root = uncpio(archive.read_bytes())
        self.assertEqual(root["modules/order"][1], b"irqbypass\nkvm\nkvm_amd\n")
        self.assertEqual(root["bin/agent"], (stat.S_IFREG | 0o755, b"agent"))
        self.assertEqual(root["init"][1], initramfs.INIT.read_bytes())
        self.assertTrue(all(stat.S_ISDIR(root[path][0]) for path in ("tests", "tests/deep")))
        self.assertEqual(root["tests/deep/one"][1], b"1")

    def test_is_made_again_for_another_agent_and_for_a_rebuilt_module(self):
        agent, busybox = self.file("kvm-runner", b"agent"), self.file("busybox", b"box")

        def made():
            return initramfs.initramfs(self.folder / "out", self.kernel, ["kvm_amd"], agent, busybox).read_bytes()

        first = made()
        agent.write_bytes(b"agent of now")
        second = made()
        self.file("m/kernel/arch/x86/kvm/kvm.ko", b"KVM, mended\0depends=irqbypass\0")
        self.assertEqual(len({first, second, made()}), 3)


class OwnKernel(InAFolder):
    def bzimage(self, release):
        head = bytearray(0x400)
        head[0x202:0x206] = b"HdrS"
        struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
        head[0x300:0x300 + len(release) + 7] = release.encode() + b" (me) \0"
        return self.file("bzImage", bytes(head))

    def test_is_found_with_its_modules_where_make_installs_them(self):
        image = self.bzimage("6.13.0-mine")
        self.file("out/lib/modules/6.13.0-mine/modules.builtin")
        kernel = kernels.own_kernel(image, self.folder / "out")
        self.assertEqual((kernel.release, kernel.modules), ("6.13.0-mine", self.folder / "out/lib/modules/6.13.0-mine"))

    def test_modules_of_another_build_are_refused(self):
        image = self.bzimage("6.13.0-mine")
        self.file("out/lib/modules/6.13.0-other/modules.builtin")
        with self.assertRaisesRegex(store.Failure, "lib/modules/6.13.0-mine/modules.builtin"):
            kernels.own_kernel(image, self.folder / "out")

    def test_what_is_no_bzimage_is_refused(self):
        with self.assertRaisesRegex(store.Failure, "no bzImage"):
            kernels.own_kernel(self.file("vmlinux", b"\x7fELF" + bytes(2000)), self.folder)

    def test_says_which_debug_options_it_has(self):
        config = self.file("config", b"CONFIG_KASAN=y\n# CONFIG_KCOV is not set\nCONFIG_X86_DEBUG_FPU=y\n")
        kernel = kernels.Kernel("1", config, config, config, config)
        self.assertEqual(kernel.debug_options(), ["X86_DEBUG_FPU", "KASAN"])


class BuiltKernel(InAFolder):
    EDIT = apply.Edit("one", "why", kernel_edits.BUG, (apply.swap("a/core.c", "if (x)", "if (!x)"),))

    def setUp(self):
        super().setUp()
        self.source, self.tree = self.folder / "source", self.folder / "tree"
        self.file("source/a/core.c", b"if (x) y();")
        for edit in kernel_edits.EDITS:  # what each looks for
            for change in edit.changes:
                path = self.source / change.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text((path.read_text() if path.exists() else "") + change.old)
        subprocess.run(["cp", "-al", self.source, self.tree], check=True)

    def test_a_name_says_what_is_in_it(self):
        edits = "xfd-write-forgotten", "xfd-set-over-tiles"
        self.assertEqual(built_kernel.parse("6.12-small+" + "+".join(edits)), built_kernel.Wanted("6.12", "small", edits))
        self.assertEqual(built_kernel.parse("6.12-debug"), built_kernel.Wanted("6.12", "debug", ()))
        for name in ("6.12", "mine", "6.12-smaller"):
            self.assertIsNone(built_kernel.parse(name))
        with self.assertRaisesRegex(store.Failure, "no edit of kernels is called nothing; there are xfd-"):
            built_kernel.parse("6.12-small+nothing")

    def test_an_edit_changes_its_tree_alone_and_the_next_undoes_it(self):
        built_kernel.edit_tree(self.source, self.tree, [self.EDIT])
        self.assertEqual((self.tree / "a/core.c").read_text(), "if (!x) y();")
        self.assertEqual((self.source / "a/core.c").read_text(), "if (x) y();")
        built_kernel.edit_tree(self.source, self.tree, kernel_edits.EDITS[:1])
        file = kernel_edits.EDITS[0].changes[0].file
        self.assertNotEqual((self.tree / file).read_text(), (self.source / file).read_text())
        before = (self.tree / file).stat().st_mtime_ns
        built_kernel.edit_tree(self.source, self.tree, kernel_edits.EDITS[:1])
        self.assertEqual((self.tree / file).stat().st_mtime_ns, before, "make would compile it again")
        built_kernel.edit_tree(self.source, self.tree, [])
        self.assertEqual((self.tree / file).read_text(), (self.source / file).read_text())

    def test_of_a_line_that_need_not_be_there_only_its_setting_is_asked_for(self):
        for kind in built_kernel.CONFIGS:
            self.assertLessEqual(set(built_kernel.settings(kind, required=True)), set(built_kernel.settings(kind)))
        self.assertIn("CONFIG_KASAN=y", built_kernel.settings("debug"))
        self.assertNotIn("CONFIG_KASAN=y", built_kernel.settings("small"))

    def test_edits_that_a_kind_always_has_are_there_and_are_no_bugs(self):
        checks = {edit.name: edit.check for edit in kernel_edits.EDITS}
        for kind, names in built_kernel.EDITS_OF_KIND.items():
            self.assertIn(kind, built_kernel.CONFIGS)
            self.assertEqual({checks[name] for name in names} - {kernel_edits.BUILD}, set())


class Frames(unittest.TestCase):
    def test_checksum_is_crc32c(self):
        self.assertEqual(frames.crc32c(b"123456789"), 0xE3069283)
        self.assertNotEqual(frames.crc32c(b"123456789"), zlib.crc32(b"123456789"))

    def test_are_found_behind_garbage_and_in_pieces(self):
        whole = b"FPSW garbage" + frames.frame(frames.PLATFORM, b"{}") + b"rest"
        for cut in range(len(whole)):
            first, left = frames.take(whole[:cut])
            found, rest = frames.take(left + whole[cut:]) if first is None else (first, left + whole[cut:])
            self.assertEqual((found, rest), ((frames.PLATFORM, b"{}"), b"rest"))

    def test_a_damaged_frame_is_passed_over(self):
        damaged = bytearray(frames.frame(frames.ERROR, b"one"))
        damaged[-1] ^= 1
        self.assertEqual(frames.take(bytes(damaged) + frames.frame(frames.PLATFORM, b"two"))[0], (frames.PLATFORM, b"two"))


class Command(InAFolder):
    """ci/lab itself."""

    def lab(self, *words):
        return subprocess.run([REPOSITORY / "ci" / "lab", *words], capture_output=True, text=True, check=False)

    def test_a_real_machine_is_added_and_listed(self):
        self.assertEqual(self.lab("add", "here", "--", "cat", "-u").returncode, 0)
        [one] = json.loads(self.lab("list", "--json").stdout)
        self.assertEqual((one["name"], one["connect"]), ("here", ["cat", "-u"]))

    def test_a_platform_that_runs_no_guest_code_is_told_with_its_reason(self):
        native = {"op": 185, "reason": "the program is a guest's: no thread of the host holds its state"}
        nothing = {"op": 1, "reason": "this KVM can't run guest code at CPL 3 in long mode"}
        self.assertEqual(lab.runs_nothing({"cannot": [native]}), "")
        self.assertEqual(lab.runs_nothing({"cannot": [native, nothing]}), nothing["reason"])
        self.assertIn(f'"{nothing["reason"]}"', (REPOSITORY / "kvm-runner" / "probe_steps.cc").read_text(encoding="utf-8"))

    def test_options_of_its_agent_are_kept_for_fpswap(self):
        self.assertEqual(self.lab("add", "told", "--option=--one", "--option=--two", "--", "cat").returncode, 0)
        settings = json.loads((store.lab_folder("told") / "lab.json").read_text())
        self.assertEqual(settings["options"], ["--one", "--two"])

    def test_what_is_wrong_is_said_with_what_to_do(self):
        for words, code, sentence in [
                (["check", "nowhere"], store.UNAVAILABLE, "ci/lab build nowhere"),
                (["add", "here", "--", "no-such-program"], store.USAGE, "there is no program no-such-program"),
                (["add", "amd:9", "--", "cat"], store.USAGE, "choose another"),
                (["build", "../evil"], store.USAGE, "is no name for a lab"),
                (["control", "amd"], store.USAGE, "take lab:amx"),
                (["control", "amx", "nothing"], store.USAGE, "xfd-write-forgotten"),
                (["build", "amd", "--kernel", "x"], store.USAGE, "go together")]:
            with self.subTest(words):
                done = self.lab(*words)
                self.assertEqual(done.returncode, code)
                self.assertIn(sentence, done.stderr)

    def test_machines_that_run_are_counted_and_stopped(self):
        def running():
            return {one["name"]: one["running"] for one in json.loads(self.lab("list", "--json").stdout)}

        for name in ("here", "there"):
            # One that, unlike cat, does not replace the process that connects.
            store.lab_folder(name).mkdir(parents=True)
            (store.lab_folder(name) / "lab.json").write_text(json.dumps({"connect": ["cat"]}))
        fake = self.file("lab", b"#!/bin/sh\nread line\n")
        fake.chmod(0o755)
        with subprocess.Popen([fake, "connect", "here"], stdin=subprocess.PIPE) as connected:
            while b"connect" not in pathlib.Path(f"/proc/{connected.pid}/cmdline").read_bytes():
                time.sleep(0.01)
            self.assertEqual(running(), {"here": 1, "there": 0})
            self.lab("stop", "here")
            self.assertEqual(connected.wait(), -signal.SIGTERM)
        self.assertEqual(running(), {"here": 0, "there": 0})

    def test_connect_is_the_agents_stream(self):
        self.lab("add", "here", "--", "cat", "-u")
        done = subprocess.run([REPOSITORY / "ci" / "lab", "connect", "here"], input=b"frames", capture_output=True,
                              check=False)
        self.assertEqual(done.stdout, b"frames")


class Machine(InAFolder):
    """machine.serve with a program for the emulator: whoever goes, nothing stays behind."""

    PROGRAM = ("import sys; sys.path.insert(0, sys.argv[1]); from labs import machine; "
               "machine.GRACE_S = 0.2; machine.serve(sys.argv[2:])")

    def serve(self, *command):
        process = subprocess.Popen([sys.executable, "-c", self.PROGRAM, str(REPOSITORY / "ci"), *command],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.kill)
        return process

    def ends(self, pid):
        for _ in range(1000):
            try:
                if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    return True
            except FileNotFoundError:
                return True
            time.sleep(0.01)
        return False

    def machine(self):
        """One that neither reads nor ends, and its process number."""
        process = self.serve("sh", "-c", "echo $$; exec sleep 1000")
        return process, int(process.stdout.readline())

    def test_its_end_ends_the_stream(self):
        process = self.serve("sh", "-c", "head -c 3; exit 3")
        process.stdin.write(b"abcdef")
        process.stdin.flush()
        self.assertEqual(process.stdout.read(), b"abc")
        self.assertEqual(process.wait(), 0)

    def test_it_is_ended_when_its_input_ends(self):
        process, pid = self.machine()
        process.stdin.close()
        self.assertTrue(self.ends(pid))

    def test_it_is_ended_when_who_serves_it_is_killed(self):
        process, pid = self.machine()
        process.send_signal(signal.SIGKILL)
        self.assertTrue(self.ends(pid))

    def test_it_may_finish_what_it_was_sent(self):
        process = self.serve("sh", "-c", "cat; echo through")
        self.assertEqual(process.communicate(b"batch ")[0], b"batch through\n")


# With an apt-get that only writes down what it was asked for; dpkg knows gcc and no more.
class Packages(InAFolder):
    def setUp(self):
        super().setUp()
        self.asked = self.folder / "asked"
        for name, text in {"dpkg-query": "echo gcc install ok installed; echo bison deinstall ok config-files; exit 1",
                           "apt-get": f'echo "$@" >>{self.asked}; [ "$*" != "-qq update" ] || exit ${{UPDATE:-0}}',
                           "sudo": 'shift; exec "$@"'}.items():
            self.file(f"bin/{name}", f"#!/bin/sh\n{text}\n".encode()).chmod(0o755)
        os.environ["PATH"] = f"{self.folder}/bin:/usr/bin:/bin"

    def need(self, *packages):
        store.need("building it", packages)
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def test_what_is_there_is_not_installed(self):
        self.assertEqual(self.need("gcc"), [])

    def test_what_is_missing_is_installed(self):
        self.assertEqual(self.need("gcc", "flex", "bison"),
                         ["-qq update", "-qq install -y --no-install-recommends bison flex"])

    def test_who_is_not_root_is_told_what_to_install(self):
        with unittest.mock.patch("os.geteuid", return_value=1000):
            self.assertEqual(len(self.need("flex")), 2)
            self.file("bin/sudo", b"#!/bin/sh\nexit 1\n")
            with self.assertRaisesRegex(store.Failure, "building it needs .* needs root: sudo apt-get install bison flex$") as at:
                self.need("gcc", "flex", "bison")
        self.assertEqual(at.exception.code, store.UNAVAILABLE)

    def test_an_archive_that_is_away_is_told(self):
        os.environ["UPDATE"] = "100"
        with self.assertRaisesRegex(store.Failure, r"apt-get update failed \(exit code 100\)"):
            self.need("flex")


class Selftests(unittest.TestCase):
    def test_what_did_not_run_is_told(self):
        """Tests that run themselves anew have words of their own in between."""
        inner = ["[==========] 1 test from 1 test suite ran. (0 ms total)", "[  PASSED  ] 1 test."]
        outer = ["[==========] 8 tests from 3 test suites ran. (97 ms total)", "[  PASSED  ] 3 tests.",
                 "[  SKIPPED ] 5 tests, listed below:", "[  SKIPPED ] Suite.Name"]
        self.assertEqual(selftests.counts([*inner, *outer]), ["[  PASSED  ] 3 tests", "[  SKIPPED ] 5 tests"])
        self.assertEqual(selftests.counts(inner), ["[  PASSED  ] 1 test"])
        self.assertEqual(selftests.counts(["no test of GoogleTest's"]), [])


class Names(unittest.TestCase):
    def test_that_could_leave_the_folder_are_refused(self):
        for name in ["", ".", "..", "a/b", "amd:", "amd:../x", "-x", "a b"]:
            with self.subTest(name), self.assertRaises(store.Failure):
                lab.Lab(name)


class QemuEdits(unittest.TestCase):
    def test_each_has_a_program_in_the_self_test(self):
        programs = {path.stem for path in (REPOSITORY / "ci" / "labs" / "qemu-selftest").glob("*.fps")}
        wanted = {edit.check for edit in qemu_edits.EDITS} - {apply.LAB}
        self.assertEqual(wanted - programs, set())


if __name__ == "__main__":
    unittest.main()
