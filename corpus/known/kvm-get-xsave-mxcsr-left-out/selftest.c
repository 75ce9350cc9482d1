// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_GET_XSAVE shows MXCSR = 1F80H where XSTATE_BV has
 * neither SSE nor AVX, on a host that keeps the standard format
 *
 * __copy_xstate_to_uabi_buf() takes MXCSR from init_fpstate if SSE and AVX
 * are absent from XSTATE_BV. XRSTOR's standard form loads MXCSR from the
 * area whatever XSTATE_BV says, so the guest has the fpstate's, which
 * KVM_SET_XSAVE of such an image leaves, and which XSAVE writes without
 * setting XSTATE_BV[1] where XMM is initial. A migration by the image makes
 * it 1F80H.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)
#define IMAGE_SIZE	4096

/* In an XSAVE area */
#define FCW_OFFSET		0
#define MXCSR_OFFSET		24

/* Values to load and to expect; all bytes of a pattern differ. */
static const u32 mxcsr_0;

/* What the guest stores. */
static u32 mxcsr;

/* What KVM_GET_XSAVE gives and KVM_SET_XSAVE takes. */
static u8 image0[IMAGE_SIZE] __aligned(64);

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
	/* An image with neither SSE nor AVX leaves the guest's MXCSR ... */
	asm volatile("ldmxcsr %0" : : "m" (mxcsr_0));
	guest_exit();

	asm volatile("stmxcsr %0" : "=m" (mxcsr));
	guest_exit();
}

static void check_value(const char *name, u64 seen, u64 expected)
{
	TEST_ASSERT(seen == expected, "%s: expected 0x%lx, got 0x%lx", name,
		    (unsigned long)expected, (unsigned long)seen);
}

/* An image of the initial state: XSTATE_BV is 0. */
static void init_image(u8 *image)
{
	memset(image, 0, IMAGE_SIZE);
	*(u16 *)(image + FCW_OFFSET) = 0x37f;
	*(u32 *)(image + MXCSR_OFFSET) = 0x1f80;
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

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	init_image(image0);
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)image0);
	/* ... and KVM_GET_XSAVE shows 1F80H, where the guest has 0. */
	vcpu_xsave_get(vcpu, (struct kvm_xsave *)image0);

	run_guest(vcpu);
	sync_global_from_guest(vm, mxcsr);
	check_value("MXCSR of KVM_GET_XSAVE", *(u32 *)(image0 + MXCSR_OFFSET), mxcsr);

	kvm_vm_free(vm);
	return 0;
}
