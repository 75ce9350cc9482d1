# SPDX-License-Identifier: GPL-2.0-or-later
"""What Bochs needs to start a kernel without a boot loader: memory images and a floppy with one sector of ours.

The kernel is unpacked here and not by itself: an emulator would take minutes."""

import gzip
import lzma
import pathlib
import struct
import subprocess

from .. import store

KERNEL = 0x1000000
PARAMS = 0x800000  # the page of boot parameters, the command line, the page tables
COMMAND_LINE = PARAMS + 0x1000
PAGES = PARAMS + 0x2000
INITRD = 0x8000000
BOOT = pathlib.Path(__file__).with_name("boot.S")


def vmlinux(bzimage):
    """The ELF file that a bzImage unpacks (Documentation/arch/x86/boot.rst: payload_offset, payload_length)."""
    image = bzimage.read_bytes()
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (sectors + 1) * 512 + offset
    payload = image[begin:begin + length]
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:2] == b"\x1f\x8b":
        return gzip.decompress(payload)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        store.need(f"unpacking {bzimage}", ("zstd",))
        # The last four bytes are its size; gzip's own end holds that.
        return subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise store.Failure(f"{bzimage} is compressed in a way that is not known here (its payload begins with "
                        f"{payload[:6].hex()}); configure the kernel with CONFIG_KERNEL_XZ, _GZIP or _ZSTD",
                        store.UNAVAILABLE)


def flat(elf):
    """(physical address, bytes, entry): an ELF kernel's loadable segments in one piece."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise store.Failure("the kernel image does not hold a 64-bit ELF file")
    entry, table = struct.unpack_from("<QQ", elf, 24)
    size, count = struct.unpack_from("<HH", elf, 54)
    loads = []
    for n in range(count):
        kind, _, offset, _, address, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", elf, table + n * size)
        if kind == 1 and in_memory:
            loads.append((address, offset, in_file, in_memory))
    low = min(load[0] for load in loads)
    high = max(address + in_memory for address, _, _, in_memory in loads)
    if high >= INITRD:
        raise store.Failure(f"the kernel ends at {high:X}H, behind {INITRD:X}H, where the root file system begins")
    memory = bytearray(max(address + in_file for address, _, in_file, _ in loads) - low)
    for address, offset, in_file, _ in loads:
        memory[address - low:address - low + in_file] = elf[offset:offset + in_file]
    return low, memory, entry


def parameters(bzimage, initrd_size, command_line):
    """boot_params, the command line, and page tables."""
    image = bzimage.read_bytes()[:4096]
    page = bytearray(0x2000)
    end = 0x202 + image[0x201]
    page[0x1F1:end] = image[0x1F1:end]
    page[0x210] = 0xFF  # type_of_loader: none that has a number
    struct.pack_into("<II", page, 0x218, INITRD, initrd_size)
    struct.pack_into("<I", page, 0x228, COMMAND_LINE)
    text = command_line.encode() + b"\0"
    if len(text) > 0x1000:
        raise store.Failure(f"the kernel's command line is {len(text)} bytes, and 4096 fit")
    page[0x1000:0x1000 + len(text)] = text
    return bytes(page) + tables()


def tables():
    """Page tables, at PAGES, that map the first 4 GiB to themselves."""
    page = bytearray(0x6000)
    struct.pack_into("<Q", page, 0, PAGES + 0x1000 | 3)
    for gigabyte in range(4):
        struct.pack_into("<Q", page, 0x1000 + gigabyte * 8, PAGES + 0x2000 + gigabyte * 0x1000 | 3)
        for n in range(512):
            struct.pack_into("<Q", page, 0x2000 + gigabyte * 0x1000 + n * 8, (gigabyte << 30 | n << 21) | 0x83)
    return bytes(page)


def kernel(folder, bzimage):
    """Into `folder`: `kernel`, its memory image, and `floppy`, whose first sector starts it."""
    folder.mkdir()
    address, memory, entry = flat(vmlinux(bzimage))
    if address != KERNEL:
        raise store.Failure(f"{bzimage} is to be loaded at {address:X}H, and this machine does so at {KERNEL:X}H",
                            store.UNAVAILABLE)
    (folder / "kernel").write_bytes(memory)
    floppy(folder / "floppy", entry)


def bare(folder, source, settings, console):
    """A file of settings in `folder` for a machine that starts a freestanding C program instead of a kernel."""
    elf = folder / "program"
    subprocess.run(["gcc", "-O2", "-ffreestanding", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-mgeneral-regs-only",
                    "-mno-red-zone", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
                    f"-Wl,-Ttext-segment={KERNEL:#x},--build-id=none,-z,noseparate-code", "-o", elf, source], check=True)
    address, memory, entry = flat(elf.read_bytes())
    (folder / "memory").write_bytes(memory)
    (folder / "tables").write_bytes(tables())
    floppy(folder / "floppy", entry)
    output = folder / "bochsrc"
    output.write_text(options(settings, folder / "floppy", console,
                              {address: folder / "memory", PAGES: folder / "tables"}), encoding="utf-8")
    return output


def floppy(output, entry):
    """A floppy whose first sector, boot.S, goes to `entry`."""
    files = [output.with_name(f"boot.{kind}") for kind in ("o", "elf", "bin")]
    assembled, linked, sector = files
    symbols = [f"--defsym={name}={value}" for name, value in (("PARAMS", PARAMS), ("PAGES", PAGES), ("ENTRY", entry))]
    subprocess.run(["as", "-o", assembled, *symbols, BOOT], check=True)
    subprocess.run(["ld", "-o", linked, "-Ttext=0x7c00", "-e", "_start", assembled], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, sector], check=True)
    code = sector.read_bytes()
    if len(code) != 512:
        raise store.Failure(f"the boot sector is {len(code)} bytes")
    output.write_bytes(code.ljust(1474560, b"\0"))
    for file in files:
        file.unlink()


def options(settings, floppy, console, ram):
    """Bochs' file of settings. `ram`: {address: file} of what is in memory at the start."""
    options = {
        "config_interface": "textconfig", "display_library": "nogui",
        "memory": f"guest={settings['memory_mb']}, host={settings['memory_mb']}",
        "romimage": f"file={settings['bios']}", "vgaromimage": f"file={settings['vga_bios']}",
        "floppya": f"1_44={floppy}, status=inserted, write_protected=1", "boot": "floppy",
        # Time is counted in instructions, never in seconds: what a program does is the same each time.
        "cpu": "model=sapphire_rapids, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1",
        "clock": "sync=none, time0=utc",
        "com1": f"enabled=1, mode=file, dev={console}",
        # Of the log, what ends the machine, to stderr: by its name it would be opened anew, and a file there cut to
        # nothing. An error is mostly a fault that the guest gets.
        "log": "-", "panic": "action=fatal", "error": "action=ignore", "info": "action=ignore",
        "debug": "action=ignore",
    }
    for n, (address, file) in enumerate(ram.items(), 1):
        options[f"optramimage{n}"] = f"file={file}, address={address:#x}"
    return "".join(f"{name}: {value}\n" for name, value in options.items())
