// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_GET_FPU shows old x87 and XMM bytes of components
 * that are initial
 *
 * kvm_arch_vcpu_ioctl_get_fpu() copies the FXSAVE region of the guest's
 * fpstate without looking at XSTATE_BV. Where x87 or SSE is in its initial
 * state, XSAVES has not written the region (or KVM_SET_XSAVE has only
 * cleared the bit), so the call gives whatever was there before (zeros, FCW
 * too, where a guest with tiles has got a larger fpstate and nothing has
 * been saved into it since); KVM_GET_XSAVE of the same vCPU gives the
 * initial values.
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
static const u8 pattern_d96a[10] = {
	0x0b, 0x05, 0xb8, 0x1a, 0xe3, 0x53, 0xd8, 0xf4,
	0x3e, 0x13,
};
static const u8 zeros[10];

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
	/* ST0 holds a value, then an image without x87 makes it initial. */
	asm volatile("fldt %0" : : "m" (pattern_d96a));
	guest_exit();
}

static void check_bytes(const char *name, const void *seen, const void *expected,
			size_t size)
{
	char seen_hex[33] = "", expected_hex[33] = "";
	const u8 *s = seen, *e = expected;
	size_t i, at = 0;

	while (at < size && s[at] == e[at])
		at++;
	if (at == size)
		return;

	/* Print the 16 bytes around the first difference. */
	at &= ~15ul;
	for (i = 0; i < 16 && at + i < size; i++) {
		snprintf(seen_hex + 2 * i, 3, "%02x", s[at + i]);
		snprintf(expected_hex + 2 * i, 3, "%02x", e[at + i]);
	}
	TEST_FAIL("%s, byte %lu on: expected %s, got %s", name, (unsigned long)at,
		  expected_hex, seen_hex);
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
	struct kvm_fpu fpu;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	init_image(image0);
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)image0);
	/* The guest now has ST0 = 0; this call still shows the old value. */
	vcpu_fpu_get(vcpu, &fpu);
	check_value("FSW of KVM_GET_FPU", fpu.fsw, 0x0);
	check_value("FTW of KVM_GET_FPU", fpu.ftwx, 0x0);
	check_value("MXCSR of KVM_GET_FPU", fpu.mxcsr, 0x1f80);
	check_bytes("ST0 of KVM_GET_FPU", fpu.fpr[0], zeros, 10);

	kvm_vm_free(vm);
	return 0;
}
