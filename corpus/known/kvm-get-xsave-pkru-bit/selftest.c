// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_GET_XSAVE leaves PKRU out while the guest's PKRU is
 * not 0
 *
 * KVM keeps the guest's PKRU in vcpu->arch.pkru, beside the fpstate, but
 * __copy_xstate_to_uabi_buf() takes XSTATE_BV from the fpstate's header and
 * copies PKRU only where that has the bit. KVM_SET_XSAVE of an image without
 * PKRU leaves the value alone and clears the bit, so the next KVM_GET_XSAVE
 * shows PKRU as initial; a VMM that migrates by it loses the value.
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
#define XSTATE_BV_OFFSET	512

/* What KVM_GET_XSAVE gives and KVM_SET_XSAVE takes. */
static u8 image0[IMAGE_SIZE] __aligned(64);
static u8 image1[IMAGE_SIZE] __aligned(64);

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
	guest_exit();
}

static void check_bits(const char *name, u64 seen, u64 bits)
{
	TEST_ASSERT((seen & bits) == bits, "%s: expected bits 0x%lx, got 0x%lx", name,
		    (unsigned long)bits, (unsigned long)seen);
}

/* Offset of a component in a standard-format XSAVE area of this CPU. */
static u32 xstate_offset(u64 xfeature)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(0xd, __builtin_ctzll(xfeature), &eax, &ebx, &ecx, &edx);
	return ebx;
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

int main(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_PKU));

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	/*
	 * PKRU is given a value (AD and WD of key 1), in an image that has
	 * nothing else.
	 */
	init_image(image1);
	*(u64 *)(image1 + xstate_offset(XFEATURE_MASK_PKRU)) = 0xc;
	*(u64 *)(image1 + XSTATE_BV_OFFSET) = XFEATURE_MASK_PKRU;
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)image1);
	/*
	 * An image without PKRU leaves it alone
	 * (fpu_copy_uabi_to_guest_fpstate) ...
	 */
	init_image(image0);
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)image0);
	/* ... so this must show it. */
	vcpu_xsave_get(vcpu, (struct kvm_xsave *)image0);
	check_bits("XSTATE_BV of KVM_GET_XSAVE", *(u64 *)(image0 + XSTATE_BV_OFFSET),
		   XFEATURE_MASK_PKRU);

	kvm_vm_free(vm);
	return 0;
}
