// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: KVM refuses IA32_U_CET and IA32_S_CET with a bitmap base
 * that is not a multiple of 16 KiB
 *
 * kvm_is_valid_u_s_cet() wants EB_LEG_BITMAP_BASE, which it has shifted
 * right by 12 already, to be a multiple of 4. The base is bits 63:12 of a
 * linear address and has no other condition than being canonical (SDM vol.
 * 4, IA32_U_CET; vol. 1, 17.3.4); a guest writes it without an exit. Such a
 * guest can't be migrated: KVM_SET_MSRS stops at what KVM_GET_MSRS gave.
 */
#include <stdio.h>
#include <string.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)

/* What the guest stores. */
static u8 vector;

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
	 * The guest sets the base of its legacy code page bitmap, in the third
	 * page: the CPU takes it ...
	 */
	vector = kvm_asm_safe("wrmsr",
			      "c" (MSR_IA32_U_CET), "a" ((u32)BIT_ULL(13)), "d" (0));
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
	struct kvm_x86_state *state[1];
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_XSAVE));
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SHSTK));
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_IBT));

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	sync_global_from_guest(vm, vector);
	check_value("Vector of WRITE", vector, 0);
	/* ... and KVM_SET_MSRS does not take what KVM_GET_MSRS gave. */
	state[0] = vcpu_save_state(vcpu);
	kvm_vm_release(vm);
	vcpu = vm_recreate_with_one_vcpu(vm);
	vcpu_load_state(vcpu, state[0]);
	kvm_x86_state_cleanup(state[0]);

	kvm_vm_free(vm);
	return 0;
}
