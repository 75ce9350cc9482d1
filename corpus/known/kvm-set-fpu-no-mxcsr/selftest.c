// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_SET_FPU passes over kvm_fpu.mxcsr
 *
 * kvm_arch_vcpu_ioctl_set_fpu() copies st_space, the control words and
 * xmm_space, and never the mxcsr field.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)

/* Values to load and to expect; all bytes of a pattern differ. */
static const u8 pattern_77[16] = {
	0xe6, 0x6f, 0xcb, 0x0a, 0x2d, 0x00, 0xa3, 0xea,
	0xe5, 0x67, 0xb6, 0x21, 0x8a, 0x44, 0xf4, 0x34,
};

/* What the guest stores. */
static u32 mxcsr;

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
	/* SSE is in use, so that only MXCSR can be lost. */
	asm volatile("movdqu %0, %%xmm3" : : "m" (pattern_77));
	guest_exit();

	asm volatile("stmxcsr %0" : "=m" (mxcsr));
	guest_exit();
}

static void check_value(const char *name, u64 seen, u64 expected)
{
	TEST_ASSERT(seen == expected, "%s: expected 0x%lx, got 0x%lx", name,
		    (unsigned long)expected, (unsigned long)seen);
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

	run_guest(vcpu);
	fill_pattern(&new_fpu, sizeof(new_fpu), 0x8090d0252e11177bull);
	new_fpu.fcw = 0x37f;
	new_fpu.mxcsr = 0x9fc0;
	vcpu_fpu_set(vcpu, &new_fpu);

	run_guest(vcpu);
	sync_global_from_guest(vm, mxcsr);
	check_value("MXCSR in the guest", mxcsr, 0x9fc0);

	kvm_vm_free(vm);
	return 0;
}
