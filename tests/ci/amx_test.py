#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What of lab:amx needs no emulator: the edits' tool, the boot images, and the copies of a machine."""

import array
import fcntl
import gzip
import lzma
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "ci"))
from labs import apply, store  # noqa: E402
from labs.amx import edits, images  # noqa: E402

AMX = REPOSITORY / "ci" / "labs" / "amx"


class Edits(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def applied(self, text, *changes, leave_out=()):
        (self.folder / "a.cc").write_text(text)
        apply.apply(self.folder, [edits.Edit("one", "why", edits.LAB, changes)], leave_out)
        return (self.folder / "a.cc").read_text()

    def test_change_what_is_there(self):
        self.assertEqual(self.applied("x\nfoo;\ny\n", edits.swap("a.cc", "foo;", "bar;")), "x\nbar;\ny\n")
        self.assertEqual(self.applied("x\nfoo;\ny\n", edits.after("a.cc", "foo;", " 1"), edits.before("a.cc", "y", "2 ")),
                         "x\nfoo; 1\n2 y\n")
        self.assertEqual(self.applied("from here\nold\nto here\n", edits.cut("a.cc", "from here", "to here", "new\n")),
                         "new\nto here\n")

    def test_refuse_another_version_and_leave_it_as_it_was(self):
        for text in ("x\n", "foo; foo;\n"):
            with self.assertRaisesRegex(store.Failure, "edit one: a.cc has the anchor [02] times and not 1"):
                self.applied(text, edits.swap("a.cc", "foo;", "bar;"))
            self.assertEqual((self.folder / "a.cc").read_text(), text)
        with self.assertRaisesRegex(store.Failure, "lacks the end of what is replaced"):
            self.applied("from\n", edits.cut("a.cc", "from", "to", ""))

    def test_can_be_left_out_by_name(self):
        self.assertEqual(self.applied("foo;", edits.swap("a.cc", "foo;", "bar;"), leave_out=["one"]), "foo;")
        with self.assertRaisesRegex(store.Failure, "no edit is called two"):
            self.applied("foo;", edits.swap("a.cc", "foo;", "bar;"), leave_out=["two"])

    def test_each_has_a_check_in_the_self_test_and_each_check_an_edit(self):
        source = (AMX / "selftest.c").read_text(encoding="utf-8")
        checks = set(re.findall(r'^    \{"(\w+)", Check\w+\}', source, re.M))
        self.assertEqual(checks, {edit.check for edit in edits.EDITS} - {edits.LAB, edits.KVM})


def bzimage(payload):
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x201] = 0x6A
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + b"\0" * 16 + payload


class Images(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def unpacked(self, payload):
        path = self.folder / "bzImage"
        path.write_bytes(bzimage(payload))
        return images.vmlinux(path)

    def test_unpack_a_kernel(self):
        size = struct.pack("<I", 6)  # the kernel's build appends it, but not to what gzip has made, which ends with it
        self.assertEqual(self.unpacked(lzma.compress(b"kernel") + size), b"kernel")
        self.assertEqual(self.unpacked(gzip.compress(b"kernel")), b"kernel")
        with self.assertRaisesRegex(store.Failure, "compressed in a way that is not known here"):
            self.unpacked(b"LZO!" * 4)

    @staticmethod
    def elf(*segments, entry=0x1000000):
        head = bytearray(64 + 56 * len(segments))
        head[:6] = b"\x7fELF\x02\x01"
        struct.pack_into("<QQ", head, 24, entry, 64)
        struct.pack_into("<HH", head, 54, 56, len(segments))
        body = b""
        for n, (address, data, in_memory) in enumerate(segments):
            struct.pack_into("<IIQQQQQQ", head, 64 + 56 * n, 1, 0, len(head) + len(body), 0xffffffff80000000 + address,
                             address, len(data), in_memory, 1)
            body += data
        return bytes(head) + body

    def test_place_segments_by_their_physical_address(self):
        elf = self.elf((0x1000000, b"text", 4), (0x1000010, b"data", 64), entry=0x1000002)
        self.assertEqual(images.flat(elf), (0x1000000, b"text" + b"\0" * 12 + b"data", 0x1000002))
        with self.assertRaisesRegex(store.Failure, "where the root file system begins"):
            images.flat(self.elf((0x1000000, b"text", images.INITRD)))

    def test_tell_the_kernel_where_all_is(self):
        path = self.folder / "bzImage"
        path.write_bytes(bzimage(b""))
        page = images.parameters(path, 12345, "quiet")
        self.assertEqual(struct.unpack_from("<III", page, 0x218), (images.INITRD, 12345, 0))
        self.assertEqual(struct.unpack_from("<I", page, 0x228)[0], images.COMMAND_LINE)
        self.assertEqual(page[0x1000:0x1006], b"quiet\0")
        with self.assertRaisesRegex(store.Failure, "4096 fit"):
            images.parameters(path, 0, "x" * 4096)

    def test_page_tables_map_four_gigabytes_to_themselves(self):
        tables = images.tables()

        def walk(address):
            entry = struct.unpack_from("<Q", tables, (address >> 39 & 511) * 8)[0]
            entry = struct.unpack_from("<Q", tables, (entry & ~0xFFF) - images.PAGES + (address >> 30 & 511) * 8)[0]
            entry = struct.unpack_from("<Q", tables, (entry & ~0xFFF) - images.PAGES + (address >> 21 & 511) * 8)[0]
            return entry & ~0x1FFFFF | address & 0x1FFFFF

        for address in (0, 0x7C00, 0x1000000, 0x3FFFFFFF, 0x40000000, 0xFEE00000, 0xFFFFFFFF):
            self.assertEqual(walk(address), address)

    @unittest.skipIf(shutil.which("ld") is None, "no binutils")
    def test_what_the_machine_says_cuts_no_file_that_stderr_is(self):
        options = images.options({"memory_mb": 1, "bios": "b", "vga_bios": "v"}, "floppy", 5, {})
        self.assertRegex(options, r"(?m)^log: -$")

    def test_the_boot_sector_is_one(self):
        images.floppy(self.folder / "floppy", 0x1234567)
        data = (self.folder / "floppy").read_bytes()
        self.assertEqual((len(data), data[510:512]), (1474560, b"\x55\xaa"))
        self.assertIn(struct.pack("<I", 0x1234567), data[:512])


# A machine that counts what it has read and says it back, and "N" at an NMI.
ECHO = """
#include "door.h"
void machine_nmi() { (void)!write(4, "N", 1); }
int main() {
  unsigned char total = 0;
  for (;;) {
    for (unsigned n = door.Waiting(); n > 0; n--) {
      const unsigned char byte = door.Get();
      if (byte == 'e') door.End(7);
      if (byte == 's') for (;;) pause();
      door.Put(total += byte);
    }
  }
}
"""


@unittest.skipIf(shutil.which("g++") is None, "no g++")
class Door(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        source = pathlib.Path(cls.folder.name) / "echo.cc"
        source.write_text(ECHO, encoding="utf-8")
        cls.program = f"{cls.folder.name}/echo"
        subprocess.run(["g++", "-std=c++17", "-Wall", "-I", AMX, "-o", cls.program, source], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def start(self, listener=None):
        """The machine, with its stream in two pipes."""
        script = 'exec 3<&0 4>&1 5>/dev/null; [ -z "$1" ] && exec 6<&- || exec 6<&"$1"; exec "$0" </dev/null >/dev/null'
        high = [fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 20)] if listener else []
        process = subprocess.Popen(["bash", "-c", script, self.program, *map(str, high)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, pass_fds=high)
        for fd in high:
            os.close(fd)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def original(self):
        """The path of the socket of a machine that has read a byte 5 and is copied."""
        path = f"{self.folder.name}/{self.id()}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(4)
            process = self.start(listener)
        process.stdin.write(b"\x05")
        process.stdin.close()
        self.assertEqual(process.stdout.read(1), b"\x05")
        return path

    def copy(self, path):
        """(connection, what to write to, what to read from)"""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(20)
        connection.connect(path)
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        null = os.open(os.devnull, os.O_WRONLY)
        connection.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                     array.array("i", [theirs_in, theirs_out, null, null]))])
        for fd in (theirs_in, theirs_out, null):
            os.close(fd)
        self.addCleanup(os.close, ours_out)
        return connection, ours_in, ours_out

    def test_carries_a_stream_and_ends_with_it(self):
        process = self.start()
        process.stdin.write(b"\x01\x02\x03")
        process.stdin.flush()
        self.assertEqual(process.stdout.read(3), b"\x01\x03\x06")
        process.stdin.close()
        self.assertEqual(process.wait(20), 0)

    def test_copies_go_on_from_where_the_original_stands_each_for_itself(self):
        path = self.original()
        first, second = self.copy(path), self.copy(path)
        for _, write, _ in (first, second):
            os.write(write, b"\x01")
        self.assertEqual([os.read(first[2], 9), os.read(second[2], 9)], [b"\x06", b"\x06"])
        os.write(first[1], b"\x01")
        self.assertEqual(os.read(first[2], 9), b"\x07")
        os.close(first[1])
        self.assertEqual(first[0].recv(1), b"\x00")
        self.assertEqual(os.read(first[2], 9), b"")
        os.write(second[1], b"\x02")
        self.assertEqual(os.read(second[2], 9), b"\x08")
        os.close(second[1])

    def test_a_copy_tells_how_it_ended(self):
        connection, write, read = self.copy(self.original())
        os.write(write, b"e")
        self.assertEqual((connection.recv(1), connection.recv(1), os.read(read, 9)), (b"\x07", b"", b""))
        os.close(write)

    def test_a_copy_that_is_busy_ends_with_its_connection(self):
        connection, write, read = self.copy(self.original())
        os.write(write, b"\x01")
        self.assertEqual(os.read(read, 9), b"\x06")
        os.write(write, b"s")
        connection.close()
        self.assertEqual(os.read(read, 9), b"")  # blocks for ever if the copy lives
        os.close(write)

    def test_a_byte_to_a_copy_is_an_nmi_while_it_is_busy_too(self):
        connection, write, read = self.copy(self.original())
        os.write(write, b"\x01")
        self.assertEqual(os.read(read, 9), b"\x06")
        os.write(write, b"s")
        for _ in range(2):
            connection.send(b"!")
            self.assertEqual(os.read(read, 9), b"N")
        connection.close()
        self.assertEqual(os.read(read, 9), b"")
        os.close(write)

    def test_one_who_goes_without_a_word_costs_nothing(self):
        path = self.original()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
        _, write, read = self.copy(path)
        os.write(write, b"\x01")
        self.assertEqual(os.read(read, 9), b"\x06")
        os.close(write)


if __name__ == "__main__":
    unittest.main()
