// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: A migration makes the guest's PKRU 0 behind KVM_SET_XSAVE
 * of an image without PKRU, and wherever the VMM's own PKRU is 0
 *
 * KVM_SET_XSAVE of an image without PKRU leaves vcpu->arch.pkru alone and
 * clears the bit in the fpstate's XSTATE_BV; KVM_GET_XSAVE goes by that bit
 * and leaves PKRU out, though the guest would read the old value. So it does
 * after each KVM_RUN of a VMM whose own PKRU is 0, for that is in the
 * register when the fpstate is saved. A VMM that moves the vCPU by this
 * image before it has run again gives it PKRU = 0: keys that were closed are
 * open.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_PKRU)
#define IMAGE_SIZE	4096

/* In an XSAVE area */
#define FCW_OFFSET		0
#define MXCSR_OFFSET		24

/* What the guest stores. */
static u32 pkru;

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
	u32 eax, edx;

	asm volatile("wrpkru" : : "a" (0x80000000), "c" (0), "d" (0));
	guest_exit();

	asm volatile("rdpkru" : "=a" (eax), "=d" (edx) : "c" (0));
	pkru = eax;
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
	sregs.cr4 |= X86_CR4_OSXSAVE | X86_CR4_PKE;
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
	struct kvm_x86_state *state[1];
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_PKU));

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	init_image(image0);
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)image0);
	state[0] = vcpu_save_state(vcpu);
	kvm_vm_release(vm);
	vcpu = vm_recreate_with_one_vcpu(vm);
	vcpu_load_state(vcpu, state[0]);
	kvm_x86_state_cleanup(state[0]);

	run_guest(vcpu);
	sync_global_from_guest(vm, pkru);
	check_value("PKRU in the guest", pkru, 0x80000000);

	kvm_vm_free(vm);
	return 0;
}
