// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: kvm_pvm: misaligned FXSAVE and FXRSTOR succeed
 *
 * The CPU raises #GP for an operand that is not aligned to 16 bytes; kvm_pvm
 * intercepts the guest's #GP and emulates the instruction, and the emulator
 * carries it out.
 *
 * Needs no kernel tree: cc -Wall -Wextra -O2 -fno-strict-aliasing -fno-stack-protector
 * -pthread -o test THIS_FILE. Exit status: 0 passed, 1 failed, 4 skipped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define BIT_ULL(n)	(1ull << (n))
#define __aligned(n)	__attribute__((aligned(n)))

#define XFEATURE_MASK_FP		BIT_ULL(0)
#define XFEATURE_MASK_SSE		BIT_ULL(1)
#define XFEATURE_MASK_YMM		BIT_ULL(2)
#define XFEATURE_MASK_BNDREGS		BIT_ULL(3)
#define XFEATURE_MASK_BNDCSR		BIT_ULL(4)
#define XFEATURE_MASK_OPMASK		BIT_ULL(5)
#define XFEATURE_MASK_ZMM_Hi256		BIT_ULL(6)
#define XFEATURE_MASK_Hi16_ZMM		BIT_ULL(7)
#define XFEATURE_MASK_PKRU		BIT_ULL(9)
#define XFEATURE_MASK_CET_USER		BIT_ULL(11)
#define XFEATURE_MASK_CET_KERNEL	BIT_ULL(12)
#define XFEATURE_MASK_XTILE_CFG		BIT_ULL(17)
#define XFEATURE_MASK_XTILE_DATA	BIT_ULL(18)
#define XFEATURE_MASK_AVX512		(XFEATURE_MASK_OPMASK | XFEATURE_MASK_ZMM_Hi256 | \
					 XFEATURE_MASK_Hi16_ZMM)
#define XFEATURE_MASK_XTILE		(XFEATURE_MASK_XTILE_CFG | XFEATURE_MASK_XTILE_DATA)

/* Exit codes as the kernel's selftests have them: 1 is a failure, 4 a skip. */
#define TEST_FAIL(fmt, ...)						\
do {									\
	fprintf(stderr, "FAIL %s:%d: " fmt "\n", __FILE__, __LINE__, ##__VA_ARGS__); \
	exit(1);							\
} while (0)

#define TEST_ASSERT(e, fmt, ...)					\
do {									\
	if (!(e))							\
		TEST_FAIL(fmt, ##__VA_ARGS__);				\
} while (0)

#define TEST_REQUIRE(e)							\
do {									\
	if (!(e)) {							\
		fprintf(stderr, "SKIP: this needs %s\n", #e);		\
		exit(4);						\
	}								\
} while (0)

struct kvm_vcpu {
	int fd;
	int number;	/* of all vCPUs of all VMs */
	int cpl;
	struct kvm_run *run;
};

struct kvm_vm {
	int fd;
	int nr_vcpus;
	struct kvm_vcpu *vcpus[4];
};

static int kvm_fd;

static inline void __cpuid(u32 leaf, u32 subleaf, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)
{
	asm volatile("cpuid" : "=a" (*eax), "=b" (*ebx), "=c" (*ecx), "=d" (*edx)
			     : "a" (leaf), "c" (subleaf));
}

static inline u64 xgetbv(u32 index)
{
	u32 eax, edx;

	asm volatile("xgetbv" : "=a" (eax), "=d" (edx) : "c" (index));
	return eax | (u64)edx << 32;
}

static inline int xioctl(int fd, unsigned long cmd, const char *name, void *arg)
{
	int ret = ioctl(fd, cmd, arg);

	TEST_ASSERT(ret >= 0, "%s: %s", name, strerror(errno));
	return ret;
}

#define kvm_ioctl(fd, cmd, arg)		xioctl(fd, cmd, #cmd, (void *)(arg))
#define vcpu_ioctl(vcpu, cmd, arg)	xioctl((vcpu)->fd, cmd, #cmd, arg)
#define __vcpu_ioctl(vcpu, cmd, arg)	ioctl((vcpu)->fd, cmd, arg)

/*
 * Run an instruction that may fault, and give the vector, or 0. The host goes on
 * at R11 with the vector in R9, see vcpu_run().
 */
#define kvm_asm_safe(insn, inputs...)					\
({									\
	u8 __vector;							\
									\
	asm volatile("movabs $0xabacadaba, %%r9\n\t"			\
		     "lea 2f(%%rip), %%r11\n\t"				\
		     "1: " insn "\n\t"					\
		     "xor %%r9, %%r9\n\t"				\
		     "2: mov %%r9b, %[vector]\n\t"			\
		     : [vector] "=qm" (__vector)			\
		     : inputs						\
		     : "r9", "r10", "r11", "memory");			\
	__vector;							\
})

/*
 * The guest has this program's own pages, at the same virtual addresses. Its code
 * runs at CPL 3 with IOPL 3, where software implementations of KVM run it on the
 * CPU, and privileged instructions at CPL 0.
 */
#define PAGE_SIZE	4096ul
#define GPA_BASE	0x10000000ul
#define MAX_VCPUS	4
#define KERNEL_CS	0x08
#define KERNEL_DS	0x10
#define USER_DS		0x1b
#define USER_CS		0x23
#define TSS_SELECTOR	0x28
#define FAULT_PORT	0xe2
/* In R9 while an exception is waited for, as the selftests have it. */
#define KVM_EXCEPTION_MAGIC	0xabacadabaull
#define NR_VECTORS	32

extern char __executable_start[], _end[];

/* Every exception leaves the guest with all registers intact; RIP tells its vector. */
asm(".pushsection .text\n"
    "	.balign 16\n"
    "exception_stubs:\n"
    "	.rept 32\n"
    "	.balign 16\n"
    "	out %al, $0xe2\n"
    "	ud2\n"
    "	.endr\n"
    ".popsection");
extern u8 exception_stubs[];

static u64 page_tables[16][512] __aligned(4096);
static u8 user_stacks[MAX_VCPUS][PAGE_SIZE] __aligned(4096);
static u8 fault_stacks[MAX_VCPUS][PAGE_SIZE] __aligned(4096);
static u8 tss[MAX_VCPUS][104] __aligned(128);
static u64 gdt[5 + 2 * MAX_VCPUS], idt[2 * NR_VECTORS];
static int nr_page_tables = 1, nr_vcpus;

static u64 image_start(void)
{
	return (u64)__executable_start & -PAGE_SIZE;
}

static u64 image_size(void)
{
	return (((u64)_end + PAGE_SIZE - 1) & -PAGE_SIZE) - image_start();
}

static u64 gpa_of(const void *p)
{
	return (u64)p - image_start() + GPA_BASE;
}

static void map_page(u64 gva, u64 gpa)
{
	u64 *table = page_tables[0], *entry;
	int shift;

	for (shift = 39; shift > 12; shift -= 9) {
		entry = &table[(gva >> shift) & 511];
		if (!*entry) {
			TEST_ASSERT(nr_page_tables < 16, "Too few page tables");
			/* Present, writable, user, accessed */
			*entry = gpa_of(page_tables[nr_page_tables++]) | 0x27;
		}
		table = page_tables[((*entry & -PAGE_SIZE) - gpa_of(page_tables)) / PAGE_SIZE];
	}
	/* The same and dirty */
	table[(gva >> 12) & 511] = gpa | 0x67;
}

static void init_descriptors(void)
{
	u64 gva, at;
	int i;

	for (gva = image_start(); gva < image_start() + image_size(); gva += PAGE_SIZE)
		map_page(gva, gpa_of((void *)gva));

	gdt[KERNEL_CS / 8] = 0x00af9b000000ffff;
	gdt[KERNEL_DS / 8] = 0x00cf93000000ffff;
	gdt[USER_DS / 8] = 0x00cff3000000ffff;
	gdt[USER_CS / 8] = 0x00affb000000ffff;
	for (i = 0; i < MAX_VCPUS; i++) {
		at = (u64)tss[i];
		gdt[TSS_SELECTOR / 8 + 2 * i] = (sizeof(tss[i]) - 1) | (at & 0xffffff) << 16 |
						0x8bull << 40 | (at >> 24 & 0xff) << 56;
		gdt[TSS_SELECTOR / 8 + 2 * i + 1] = at >> 32;
		/* RSP0 and IST1 */
		at = (u64)fault_stacks[i] + PAGE_SIZE;
		memcpy(&tss[i][4], &at, sizeof(at));
		memcpy(&tss[i][36], &at, sizeof(at));
	}
	for (i = 0; i < NR_VECTORS; i++) {
		at = (u64)exception_stubs + 16 * i;
		idt[2 * i] = (at & 0xffff) | KERNEL_CS << 16 | 1ull << 32 | 0x8eull << 40 |
			     (at >> 16 & 0xffff) << 48;
		idt[2 * i + 1] = at >> 32;
	}
}

/* The selftests' words for bits of CPUID. */
enum cpuid_register { EAX, EBX, ECX, EDX };

struct cpu_feature {
	u32 leaf, subleaf;
	enum cpuid_register reg;
	int bit;
};

#define KVM_X86_CPU_FEATURE(leaf, subleaf, reg, bit)			\
	((struct cpu_feature) { leaf, subleaf, reg, bit })

static struct kvm_cpuid_entry2 *find_cpuid(struct kvm_cpuid2 *cpuid, u32 leaf, u32 subleaf)
{
	u32 i;

	for (i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == leaf && e->index == subleaf)
			return e;
	}
	return NULL;
}

/* KVM_GET_SUPPORTED_CPUID, with the CPU's XSAVE where KVM knows it and does not say so. */
static struct kvm_cpuid2 *supported_cpuid(void)
{
	const u32 avx_bits = 1u << 26 | 1u << 28 | 1u << 29 | 1u << 12;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	u32 i, eax, ebx, ecx, edx, hidden = 0;

	cpuid->nent = 192;
	kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	for (i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		__cpuid(e->function, e->index, &eax, &ebx, &ecx, &edx);
		if (e->function == 0 && e->eax < 0xd)
			e->eax = 0xd;
		if (e->function == 1 && !(e->ecx & 1u << 26)) {
			hidden = 1;
			e->ecx |= ecx & avx_bits;
		}
		/* AVX2, AVX-512, PKU; leaf 1 comes first */
		if (e->function == 7 && e->index == 0 && hidden) {
			e->ebx |= ebx & (1u << 5 | 0xd0230000);
			e->ecx |= ecx & 1u << 3;
		}
	}
	for (i = 0; hidden && i < 63; i++) {
		struct kvm_cpuid_entry2 *e = find_cpuid(cpuid, 0xd, i);

		__cpuid(0xd, i, &eax, &ebx, &ecx, &edx);
		if (i > 1 && !(xgetbv(0) & BIT_ULL(i)))
			continue;
		if (!e)
			e = &cpuid->entries[cpuid->nent++];
		*e = (struct kvm_cpuid_entry2) {
			.function = 0xd, .index = i, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = i == 1 ? eax & 0x1f : eax, .ebx = ebx,
			.ecx = i == 1 ? 0 : ecx, .edx = i == 1 ? 0 : edx,
		};
	}
	return cpuid;
}

static inline int kvm_cpu_has(struct cpu_feature f)
{
	struct kvm_cpuid_entry2 *e = find_cpuid(supported_cpuid(), f.leaf, f.subleaf);

	return e && (&e->eax)[f.reg] >> f.bit & 1;
}

static inline u64 kvm_cpu_supported_xcr0(void)
{
	struct kvm_cpuid_entry2 *e = find_cpuid(supported_cpuid(), 0xd, 0);

	return e ? e->eax | (u64)e->edx << 32 : 0;
}

static void open_vm(struct kvm_vm *vm)
{
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = GPA_BASE,
		.memory_size = image_size(),
		.userspace_addr = image_start(),
	};

	vm->fd = kvm_ioctl(kvm_fd, KVM_CREATE_VM, 0);
	kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
	vm->nr_vcpus = 0;
}

static int run_size(void)
{
	return kvm_ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
}

static void open_vcpu(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	vcpu->fd = kvm_ioctl(vm->fd, KVM_CREATE_VCPU, (long)vm->nr_vcpus);
	vm->vcpus[vm->nr_vcpus++] = vcpu;
	vcpu->run = mmap(NULL, run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	TEST_ASSERT(vcpu->run != MAP_FAILED, "mmap of a vCPU: %s", strerror(errno));
}

static void set_cpl(struct kvm_vcpu *vcpu, int cpl)
{
	struct kvm_sregs sregs;

	vcpu_ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs = (struct kvm_segment) {
		.limit = ~0u, .selector = cpl ? USER_CS : KERNEL_CS,
		.type = 11, .present = 1, .dpl = cpl, .s = 1, .l = 1, .g = 1,
	};
	sregs.ss = (struct kvm_segment) {
		.limit = ~0u, .selector = cpl ? USER_DS : KERNEL_DS,
		.type = 3, .present = 1, .dpl = cpl, .db = 1, .s = 1, .g = 1,
	};
	vcpu_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	vcpu->cpl = cpl;
}

static struct kvm_vcpu *vm_vcpu_add(struct kvm_vm *vm, void (*guest_code)(void))
{
	struct kvm_vcpu *vcpu = calloc(1, sizeof(*vcpu));
	struct kvm_regs regs = { .rflags = 0x3002 };
	struct kvm_sregs sregs;

	open_vcpu(vm, vcpu);
	vcpu->number = nr_vcpus++;
	vcpu_ioctl(vcpu, KVM_SET_CPUID2, supported_cpuid());

	vcpu_ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cr0 = 0x80050033;
	sregs.cr3 = gpa_of(page_tables[0]);
	/* PAE, OSFXSR and OSXMMEXCPT; LME and LMA */
	sregs.cr4 = 0x620;
	sregs.efer = 0x500;
	sregs.gdt.base = (u64)gdt;
	sregs.gdt.limit = sizeof(gdt) - 1;
	sregs.idt.base = (u64)idt;
	sregs.idt.limit = sizeof(idt) - 1;
	sregs.tr = (struct kvm_segment) {
		.base = (u64)tss[vcpu->number], .limit = sizeof(tss[0]) - 1,
		.selector = TSS_SELECTOR + 16 * vcpu->number, .type = 11, .present = 1,
	};
	sregs.ldt = (struct kvm_segment) { .limit = 0xffff, .type = 2, .unusable = 1 };
	sregs.ds = (struct kvm_segment) {
		.limit = ~0u, .selector = USER_DS,
		.type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1,
	};
	sregs.es = sregs.fs = sregs.gs = sregs.ds;
	vcpu_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	set_cpl(vcpu, 3);

	/* As if guest_code had been called. */
	regs.rip = (u64)guest_code;
	regs.rsp = (u64)user_stacks[vcpu->number] + PAGE_SIZE - 8;
	vcpu_ioctl(vcpu, KVM_SET_REGS, &regs);
	return vcpu;
}

static struct kvm_vm *vm_create_with_one_vcpu(struct kvm_vcpu **vcpu, void (*guest_code)(void))
{
	struct kvm_vm *vm = calloc(1, sizeof(*vm));

	if (!nr_vcpus)
		init_descriptors();
	open_vm(vm);
	*vcpu = vm_vcpu_add(vm, guest_code);
	return vm;
}

static inline void vcpu_run(struct kvm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs regs;
	u64 *frame, vector;

	for (;;) {
		vcpu_ioctl(vcpu, KVM_RUN, NULL);
		TEST_ASSERT(run->exit_reason != KVM_EXIT_INTERNAL_ERROR,
			    "KVM_EXIT_INTERNAL_ERROR, suberror %u", run->internal.suberror);
		if (run->exit_reason != KVM_EXIT_IO || run->io.port != FAULT_PORT)
			return;

		/* An exception: RIP, CS, RFLAGS, RSP and SS are on top of the stack. */
		vcpu_ioctl(vcpu, KVM_GET_REGS, &regs);
		vector = (regs.rip - (u64)exception_stubs) / 16;
		frame = (u64 *)(fault_stacks[vcpu->number] + PAGE_SIZE - 40);
		TEST_ASSERT(regs.r9 == KVM_EXCEPTION_MAGIC,
			    "Unexpected exception %lu at guest_code+0x%lx", (unsigned long)vector,
			    (unsigned long)(frame[0] - image_start()));
		regs.r9 = vector;
		regs.rip = regs.r11;
		regs.rflags = frame[2];
		regs.rsp = frame[3];
		set_cpl(vcpu, vcpu->cpl);
		vcpu_ioctl(vcpu, KVM_SET_REGS, &regs);
	}
}

#define TEST_ASSERT_KVM_EXIT_REASON(vcpu, reason)			\
	TEST_ASSERT((vcpu)->run->exit_reason == (reason),		\
		    "Wanted exit reason %d, got %d", reason, (vcpu)->run->exit_reason)

#define GP_VECTOR	13
#define X86_CR4_OSXSAVE	BIT_ULL(18)
#define X86_CR4_PKE	BIT_ULL(22)
#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)

/* Areas that the guest saves to and restores from. */
#define AREA_SIZE	0x4000
static u8 area0[AREA_SIZE] __aligned(64);

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
	/* Must be #GP: the operand is not aligned to 16 bytes. */
	vector = kvm_asm_safe("fxsave (%[arg])", [arg] "r" (area0 + 63));
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

	vcpu_ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cr4 |= X86_CR4_OSXSAVE;
	vcpu_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	vcpu_ioctl(vcpu, KVM_SET_XCRS, &xcrs);
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

	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	TEST_REQUIRE(kvm_fd >= 0);
	TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);

	vm_create_with_one_vcpu(&vcpu, guest_code);
	enable_xcr0(vcpu);

	run_guest(vcpu);
	check_value("Vector of FXSAVE", vector, GP_VECTOR);

	printf("PASS\n");
	return 0;
}
