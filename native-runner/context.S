// SPDX-License-Identifier: GPL-2.0-or-later
//
// The context a program's code runs in. See live.h.

        .text

// void fpswap_live(void): the initial state, the program, the runner's state.
//
// By the ABI a caller keeps no vector register across a call, and its x87 stack is empty; what it
// does keep (FCW, MXCSR's controls, PKRU) is in fpswap_runner_image. So restoring that one image
// is all that putting back "the runner's full state" needs, and nothing has to be saved.
        .globl  fpswap_live
        .type   fpswap_live, @function
fpswap_live:
        push    %rbx
        movq    $0, fpswap_bound_image+512(%rip)  // XSTATE_BV: not what the last program left there
        mov     $-1, %eax
        mov     $-1, %edx
        xrstor64 fpswap_initial_image(%rip)
        call    fpswap_live_loop
        mov     $-1, %eax
        mov     $-1, %edx
        xrstor64 fpswap_runner_image(%rip)
        pop     %rbx
        ret
        .size   fpswap_live, . - fpswap_live

// void fpswap_enter(uint64_t rip): runs the plan's code at `rip` until it comes to kReturnPad.
// The code clobbers RAX, RBX, RCX, RDX, RSI and RDI and needs no stack.
        .globl  fpswap_enter
        .type   fpswap_enter, @function
fpswap_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, saved_rsp(%rip)
        jmp     *%rdi
        .size   fpswap_enter, . - fpswap_enter

        .globl  fpswap_leave
        .type   fpswap_leave, @function
fpswap_leave:
        mov     saved_rsp(%rip), %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        cld
        ret
        .size   fpswap_leave, . - fpswap_leave

// The same where there is MPX. With BNDCFGU.EN=1 and BNDPRESERVE=0 any branch without the BND
// prefix resets BND0-3 (SDM vol. 1, E.4.2), so they must not be in the registers while C code runs.
        .globl  fpswap_enter_mpx
        .type   fpswap_enter_mpx, @function
fpswap_enter_mpx:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, saved_rsp(%rip)
        mov     $0x18, %eax
        xor     %edx, %edx
        xrstor64 fpswap_bound_image(%rip)
        .byte   0xf2                    // BND; clang's assembler does not know it
        jmp     *%rdi
        .size   fpswap_enter_mpx, . - fpswap_enter_mpx

        .globl  fpswap_leave_mpx
        .type   fpswap_leave_mpx, @function
fpswap_leave_mpx:
        mov     $0x18, %eax
        xor     %edx, %edx
        xsave64 fpswap_bound_image(%rip)
        // BNDCFGU 0 from here on: the C code's branches are then no concern of MPX.
        xrstor64 fpswap_initial_image(%rip)
        .byte   0xf2
        jmp     fpswap_leave
        .size   fpswap_leave_mpx, . - fpswap_leave_mpx

        .bss
        .balign 64
        .globl  fpswap_initial_image
fpswap_initial_image:
        .skip   12288
        .globl  fpswap_runner_image
fpswap_runner_image:
        .skip   12288
// Zero: bound registers initial. XSAVE keeps XSTATE_BV in step.
        .globl  fpswap_bound_image
fpswap_bound_image:
        .skip   12288
saved_rsp:
        .skip   8

        .section .note.GNU-stack, "", @progbits
