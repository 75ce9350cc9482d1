// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM_SET_MSRS of IA32_XFD over tiles in use: the host
 * takes #NM at the next KVM_RUN and panics
 *
 * fpu_update_guest_xfd() clears the disabled components in the guest's saved
 * XSTATE_BV only if the thread has TIF_NEED_FPU_LOAD. When the VMM's ioctl
 * writes the MSR, the guest's state is saved (in_use is false) and the
 * thread's own registers are loaded, so the flag is clear and XSTATE_BV[18]
 * stays. The next KVM_RUN sets IA32_XFD and executes XRSTORS of that state:
 * #NM in the kernel, an oops that panics where panic_on_oops is set, and in
 * any case kills the VMM in the middle of the swap.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_XTILE)

/* Values to load and to expect; all bytes of a pattern differ. */
static u8 pattern_2[1024];
static const u8 tilecfg_operand[64] = {
	0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

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
	/*
	 * Takes the host down. Run it in a lab, never on a machine that
	 * matters.
	 */
	asm volatile("ldtilecfg %0" : : "m" (tilecfg_operand));
	asm volatile("tileloadd (%0, %1, 1), %%tmm0" : : "r" (pattern_2), "r" (64ul));
	guest_exit();

	guest_exit();
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
	int ret;

	vm_xsave_require_permission(XFEATURE_MASK_XTILE_DATA);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_AMX_TILE));
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XFD));

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);
	fill_pattern(pattern_2, sizeof(pattern_2), 0x975835de1c9756ceull);
	sync_global_to_guest(vm, pattern_2);

	run_guest(vcpu);
	ret = _vcpu_set_msr(vcpu, MSR_IA32_XFD, XFEATURE_MASK_XTILE_DATA);
	TEST_ASSERT(ret == 1,
		    "KVM_SET_MSRS of MSR_IA32_XFD: expected 1 MSRs to be set, got %d", ret);

	run_guest(vcpu);

	kvm_vm_free(vm);
	return 0;
}
