// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_GET_XSAVE shows an old MXCSR, or MXCSR_MASK, when AVX
 * is in use and SSE is initial
 *
 * __copy_xstate_to_uabi_buf() takes MXCSR from the fpstate if SSE or AVX is
 * in XSTATE_BV. In the compacted format XSAVES writes MXCSR with SSE only,
 * and XRSTORS with XSTATE_BV[1]=0 makes it 1F80H, so with AVX alone the
 * bytes are those of an earlier save.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#ifndef X86_FEATURE_XSAVEC
#define X86_FEATURE_XSAVEC	KVM_X86_CPU_FEATURE(0xD, 1, EAX, 1)
#endif
#ifndef X86_FEATURE_AVX
#define X86_FEATURE_AVX	KVM_X86_CPU_FEATURE(0x1, 0, ECX, 28)
#endif
#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)
#define IMAGE_SIZE	4096

/* In an XSAVE area */
#define MXCSR_OFFSET		24

/* Values to load and to expect; all bytes of a pattern differ. */
static const u32 mxcsr_0;
static const u8 pattern_21[16] = {
	0x4a, 0x48, 0x60, 0x88, 0x22, 0xe3, 0x62, 0x3b,
	0x3a, 0xf1, 0xcd, 0xf5, 0x71, 0x84, 0x49, 0x27,
};
static const u8 pattern_3370[32] = {
	0x0f, 0x94, 0x34, 0x17, 0x4a, 0xa9, 0x84, 0xb7,
	0xba, 0x09, 0xd8, 0xa8, 0x93, 0x3e, 0x91, 0x0b,
	0x24, 0x70, 0x45, 0x2c, 0x40, 0x68, 0x52, 0x7d,
	0x9c, 0xa0, 0x9b, 0x0c, 0xaa, 0x9e, 0x10, 0xf7,
};

/* Areas that the guest saves to and restores from. */
#define AREA_SIZE	0x4000
static u8 area0[AREA_SIZE] __aligned(64);
static u8 scratch[AREA_SIZE] __aligned(64);

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
	/* MXCSR = 0 and XMM in use, saved by an exit ... */
	asm volatile("ldmxcsr %0" : : "m" (mxcsr_0));
	asm volatile("movdqu %0, %%xmm1" : : "m" (pattern_21));
	guest_exit();
	/* ... then XMM initial, MXCSR 1F80H and AVX in use. */
	asm volatile("vmovdqu %0, %%ymm0" : : "m" (pattern_3370));
	asm volatile("xsavec (%0)"
		     : : "r" (area0), "a" ((u32)XFEATURE_MASK_YMM), "d" (0) : "memory");
	asm volatile("xrstor (%0)" : : "r" (area0), "a" (-1), "d" (-1) : "memory");
	guest_exit();

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

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVEC));
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_AVX));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_XSAVE2));

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	run_guest(vcpu);
	/* The guest's MXCSR is 1F80H; the image shows 0. */
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)image0);
	check_value("MXCSR of KVM_GET_XSAVE2", *(u32 *)(image0 + MXCSR_OFFSET), 0x1f80);

	run_guest(vcpu);

	kvm_vm_free(vm);
	return 0;
}
