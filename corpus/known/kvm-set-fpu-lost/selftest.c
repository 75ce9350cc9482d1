// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_SET_FPU has no effect on x87 or XMM that are initial
 *
 * kvm_arch_vcpu_ioctl_set_fpu() writes the FXSAVE region and does not set
 * XSTATE_BV[1:0]. Where a bit is clear the next XRSTORS initialises the
 * component and what was set is lost, with the call having returned 0.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)

/* What the guest stores. */
static u8 xmm0[16];

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
	/* The guest sees XMM0 = 0, not what was set. */
	asm volatile("movdqu %%xmm0, %0" : "=m" (xmm0));
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

/*
 * All 256 bytes of a window differ, and so does each window from the next: a
 * register that is shifted or swapped shows.
 */
static void fill_pattern(void *buf, size_t size, u64 key)
{
	u8 *p = buf;
	size_t i;
	int round;

	for (i = 0; i < size; i++) {
		u64 k = key;
		u8 x = i;

		for (round = 0; round < 3; round++, k >>= 16) {
			x = x * (2 * (k & 0x7f) + 1) + (k >> 8);
			x ^= x >> 4;
			x ^= x >> 3;
		}
		p[i] = x + (i >> 8) * ((key >> 56) | 1);
	}
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
	struct kvm_fpu new_fpu;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	/* A fresh vCPU: x87 and SSE are initial, XSTATE_BV[1:0] = 0. */
	fill_pattern(&new_fpu, sizeof(new_fpu), 0x8090d0252e11177bull);
	new_fpu.fcw = 0x37f;
	new_fpu.mxcsr = 0x1f80;
	vcpu_fpu_set(vcpu, &new_fpu);

	run_guest(vcpu);
	sync_global_from_guest(vm, xmm0);
	check_bytes("XMM0 in the guest", xmm0, new_fpu.xmm[0], 16);

	kvm_vm_free(vm);
	return 0;
}
