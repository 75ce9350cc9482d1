// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_SET_CPUID2 loses the guest's FPU state where the new
 * CPUID has tiles and the old one had none
 *
 * A CPUID with XTILEDATA makes the guest's fpstate grow
 * (fpu_enable_guest_xfd_features). fpstate_realloc() allocates a larger one,
 * of zeros, and copies nothing of the old one into it: what KVM_SET_XSAVE,
 * KVM_SET_FPU or KVM_SET_MSRS of CET has put there is gone, with all calls
 * having returned 0. It loads the old contents into the registers first if
 * the fpstate is in use, which the one of a vCPU between two KVM_RUNs is
 * not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)
#define IMAGE_SIZE	12288

/* In an XSAVE area */
#define FCW_OFFSET		0
#define MXCSR_OFFSET		24
#define XMM_OFFSET		160
#define XSTATE_BV_OFFSET	512

/* Values to load and to expect; all bytes of a pattern differ. */
static const u8 expected_xmm0[16] = {
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

/* What KVM_GET_XSAVE gives and KVM_SET_XSAVE takes. */
static u8 image0[IMAGE_SIZE] __aligned(64);
static u8 image1[IMAGE_SIZE] __aligned(64);

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

static void check_bits(const char *name, u64 seen, u64 bits)
{
	TEST_ASSERT((seen & bits) == bits, "%s: expected bits 0x%lx, got 0x%lx", name,
		    (unsigned long)bits, (unsigned long)seen);
}

/* An image of the initial state: XSTATE_BV is 0. */
static void init_image(u8 *image)
{
	memset(image, 0, IMAGE_SIZE);
	*(u16 *)(image + FCW_OFFSET) = 0x37f;
	*(u32 *)(image + MXCSR_OFFSET) = 0x1f80;
}

/* KVM_SET_CPUID2 with leaf 0xd limited to these components. */
static void set_cpuid(struct kvm_vcpu *vcpu, u64 components)
{
	const struct kvm_cpuid2 *supported = kvm_get_supported_cpuid();
	struct kvm_cpuid2 *cpuid = allocate_kvm_cpuid2(supported->nent);
	u32 i;

	memcpy(cpuid, supported, kvm_cpuid2_size(supported->nent));
	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function != 0xd || cpuid->entries[i].index)
			continue;
		cpuid->entries[i].eax &= components;
		cpuid->entries[i].edx &= components >> 32;
	}
	vcpu_ioctl(vcpu, KVM_SET_CPUID2, cpuid);
	free(cpuid);
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

int main(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm_xsave_require_permission(XFEATURE_MASK_XTILE_DATA);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & (XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_XTILE)) == (XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_XTILE));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XSAVE2));

	vm = vm_create_barebones();
	vcpu = __vm_vcpu_add(vm, 0);
	set_cpuid(vcpu, XFEATURE_MASK_FP | XFEATURE_MASK_SSE);
	enable_xcr0(vcpu);

	/* A vCPU whose CPUID has no tiles yet is given XMM0 ... */
	init_image(image0);
	*(u64 *)(image0 + XSTATE_BV_OFFSET) = XFEATURE_MASK_SSE;
	*(u64 *)(image0 + XMM_OFFSET + 0 * 16) = 0x1122334455667788;
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)image0);
	/* ... then a CPUID with tiles, for which its fpstate grows: XMM0 is 0. */
	set_cpuid(vcpu, XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_XTILE);
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)image1);
	check_bytes("XMM0 of KVM_GET_XSAVE2", image1 + XMM_OFFSET + 0 * 16, expected_xmm0,
		    16);
	check_bits("XSTATE_BV of KVM_GET_XSAVE2", *(u64 *)(image1 + XSTATE_BV_OFFSET),
		   XFEATURE_MASK_SSE);

	kvm_vm_free(vm);
	return 0;
}
