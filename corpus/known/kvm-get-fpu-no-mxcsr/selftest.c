// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_GET_FPU leaves kvm_fpu.mxcsr 0
 *
 * struct kvm_fpu has an mxcsr field; kvm_arch_vcpu_ioctl_get_fpu() does not
 * fill it, so it is 0 whatever MXCSR the guest has.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)

/* Areas that the guest saves to and restores from. */
#define AREA_SIZE	0x4000
static u8 scratch[AREA_SIZE] __aligned(64);

/*
 * Keep the compiler away from the registers under test, and leave the guest by
 * a bare OUT: ucall() is ordinary C, which may use vector registers.
 */
#define GUEST_CODE	__attribute__((target("general-regs-only")))
#define EXIT_PORT	0xe1

static GUEST_CODE void guest_exit(void)
{
	asm volatile("out %%al, %0" : : "i" (EXIT_PORT) : "memory");
}

static GUEST_CODE void guest_code(void)
{
	/* The guest's MXCSR is 1F80H. */
	asm volatile("stmxcsr %0" : "=m" (scratch));
	guest_exit();
}

static void check_value(const char *name, u64 seen, u64 expected)
{
	TEST_ASSERT(seen == expected, "%s: expected 0x%lx, got 0x%lx", name,
		    (unsigned long)expected, (unsigned long)seen);
}

static void enable_xcr0(struct kvm_vcpu *vcpu)
{
	struct kvm_xcrs xcrs = {
		.nr_xcrs = 1,
		.xcrs[0].value = XCR0,
	};
	struct kvm_sregs sregs;

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cr4 |= X86_CR4_OSXSAVE;
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_xcrs_set(vcpu, &xcrs);
}

static void run_guest(struct kvm_vcpu *vcpu)
{
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	TEST_ASSERT(vcpu->run->io.port == EXIT_PORT, "Wanted port 0x%x, got 0x%x",
		    EXIT_PORT, vcpu->run->io.port);
}

int main(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct kvm_fpu fpu;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	vcpu_fpu_get(vcpu, &fpu);
	check_value("MXCSR of KVM_GET_FPU", fpu.mxcsr, 0x1f80);

	kvm_vm_free(vm);
	return 0;
}
