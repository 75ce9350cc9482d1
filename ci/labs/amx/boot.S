# SPDX-License-Identifier: GPL-2.0-or-later
# The floppy's boot sector, all of the boot loader that there is. The BIOS has loaded it to 7C00H; the kernel
# (uncompressed), the root file system and the page of boot parameters are in memory already (images.py puts them
# there). It adds the BIOS's memory map to the parameters and enters the kernel at its 64-bit entry
# (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
#
# Symbols from the command line of `as`: PARAMS, PAGES (the top page table) and ENTRY, physical addresses.

        .code16
        .globl _start
_start:
        cli
        cld
        ljmp $0, $real                  # some BIOSes come with CS 07C0H
real:
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        inb $0x92, %al                  # the A20 line
        orb $2, %al
        andb $0xfe, %al
        outb %al, $0x92

        xorl %ebx, %ebx                 # the memory map, INT 15H AX=E820H, to MAP
        xorl %ebp, %ebp
        movw $MAP, %di
next:   movl $0xe820, %eax
        movl $0x534d4150, %edx
        movl $20, %ecx
        int $0x15
        jc mapped
        incl %ebp
        addw $20, %di
        testl %ebx, %ebx
        jnz next
mapped:
        lgdt gdt_pointer
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmp $0x08, $protected

        .code32
protected:
        movw $0x18, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl %ebp, %eax
        movb %al, PARAMS + 0x1e8        # e820_entries
        imull $20, %ebp, %ecx
        movl $MAP, %esi
        movl $PARAMS + 0x2d0, %edi      # e820_table
        rep movsb

        movl %cr4, %eax
        orl $0x20, %eax                 # PAE
        movl %eax, %cr4
        movl $PAGES, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx          # EFER.LME
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0
        ljmp $0x10, $long

        .code64
long:
        movl $PARAMS, %esi
        movl $ENTRY, %eax
        jmp *%rax

# The selectors that the kernel expects: 10H 64-bit code, 18H data.
        .balign 8
gdt:    .quad 0
        .quad 0x00cf9a000000ffff        # 32-bit code
        .quad 0x00af9a000000ffff
        .quad 0x00cf92000000ffff
gdt_pointer:
        .word . - gdt - 1
        .long gdt

        .org 510
        .word 0xaa55
        .set MAP, 0x7e00
