# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be changed in a kernel that is built here (built_kernel.py): bugs of ours, which fpswap has to find, mends of
what it found, and how it is built. The lab amx:6.12-small+NAME has the kernel with the edit NAME.

`check` says which of the three it is."""

from .apply import Edit, after, swap

BUG, MEND, BUILD = "BUG", "MEND", "BUILD"
CORE = "arch/x86/kernel/fpu/core.c"
VMX = "arch/x86/kvm/vmx/vmx.c"

EDITS = [
    Edit("xfd-write-forgotten", "KVM lets a guest write IA32_XFD without an exit once it has set it, and reads the MSR "
         "after each exit. Here it does not, so it goes on with the value of the guest's last write that it saw.", BUG, (
             swap(CORE, "\t\trdmsrl(MSR_IA32_XFD, fps->xfd);\n", ""),
         )),
    Edit("xfd-err-forgotten", "A guest's IA32_XFD_ERR is read when its #NM is intercepted, for the host's is 0 between "
         "exits. Here it is not read.", BUG, (
             swap(VMX, "\t\trdmsrl(MSR_IA32_XFD_ERR, vcpu->arch.guest_fpu.xfd_err);", "\t\t;"),
         )),
    Edit("tiles-not-restored", "The swap back to the guest leaves its tiles out.", BUG, (
        swap(CORE, "restore_fpregs_from_fpstate(cur_fps, XFEATURE_MASK_FPSTATE);",
             "restore_fpregs_from_fpstate(cur_fps, XFEATURE_MASK_FPSTATE &\n"
             "\t\t\t~(enter_guest ? XFEATURE_MASK_XTILE_DATA : 0));"),
    )),
    Edit("xfd-set-over-tiles", "corpus/known/kvm-set-msr-xfd-host-nm: the condition under which fpu_update_guest_xfd clears "
         "what is disabled also asks whether the guest's state is out of the registers because its vCPU does not run.",
         MEND, (
             swap(CORE, "if (xfd && test_thread_flag(TIF_NEED_FPU_LOAD))",
                  "if (xfd && (!fpstate->in_use || test_thread_flag(TIF_NEED_FPU_LOAD)))"),
         )),
    Edit("kcov-of-kvm", "With CONFIG_KCOV, KVM and the FPU core are instrumented and nothing else: what a program reaches in "
         "the allocator or in locks says nothing of it, and differs from run to run. Every 6.12-debug has it.", BUILD, (
             after("arch/x86/kvm/Makefile", "ccflags-$(CONFIG_KVM_WERROR) += -Werror\n", "KCOV_INSTRUMENT := y\n"),
             after("arch/x86/kernel/fpu/Makefile", "# Build rules for the FPU support code:\n#\n", "KCOV_INSTRUMENT := y\n"),
         )),
]
