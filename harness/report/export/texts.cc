// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/texts.h"

namespace fpswap::report::texts {

const char kGuestCode[] = R"c(/*
 * Keep the compiler away from the registers under test, and leave the guest by
 * a bare OUT: ucall() is ordinary C, which may use vector registers.
 */
#define GUEST_CODE	__attribute__((target("general-regs-only")))
#define EXIT_PORT	0xe1

static GUEST_CODE void guest_exit(void)
{
	asm volatile("out %%al, %0" : : "i" (EXIT_PORT) : "memory");
}
)c";

const char kFaultHandler[] = R"c(/*
 * The library's own fixup of kvm_asm_safe() is ordinary C as well, and compilers
 * do use XMM0 for it.
 */
static GUEST_CODE void fault_handler(struct ex_regs *regs)
{
	GUEST_ASSERT(regs->r9 == KVM_EXCEPTION_MAGIC && regs->rip == regs->r10);

	regs->rip = regs->r11;
	regs->r9 = regs->vector;
	regs->r10 = regs->error_code;
}
)c";

const char kGuestCopy[] =
    R"c(static GUEST_CODE void guest_copy(void *to, const void *from, size_t size)
{
	asm volatile("rep movsb" : "+D" (to), "+S" (from), "+c" (size) : : "memory");
}
)c";

const char kFillPattern[] = R"c(/*
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
)c";

const char kCheckBytes[] =
    R"c(static void check_bytes(const char *name, const void *seen, const void *expected,
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
)c";

const char kCheckValue[] = R"c(static void check_value(const char *name, u64 seen, u64 expected)
{
	TEST_ASSERT(seen == expected, "%s: expected 0x%lx, got 0x%lx", name,
		    (unsigned long)expected, (unsigned long)seen);
}
)c";

const char kCheckBits[] = R"c(static void check_bits(const char *name, u64 seen, u64 bits)
{
	TEST_ASSERT((seen & bits) == bits, "%s: expected bits 0x%lx, got 0x%lx", name,
		    (unsigned long)bits, (unsigned long)seen);
}
)c";

const char kXstateOffset[] =
    R"c(/* Offset of a component in a standard-format XSAVE area of this CPU. */
static u32 xstate_offset(u64 xfeature)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(0xd, __builtin_ctzll(xfeature), &eax, &ebx, &ecx, &edx);
	return ebx;
}
)c";

const char kAreaComponent[] =
    R"c(/* A component in an XSAVE area of either format, by the area's XCOMP_BV. */
static u8 *area_component(u8 *area, u64 xfeature)
{
	u64 xcomp_bv = *(u64 *)(area + 520);
	u32 eax, ebx = 0, ecx, edx, offset = 576;
	int i;

	for (i = 2; i < 63; i++) {
		if (BIT_ULL(i) != xfeature && !(xcomp_bv & BIT_ULL(i)))
			continue;
		__cpuid(0xd, i, &eax, &ebx, &ecx, &edx);
		if (ecx & BIT_ULL(1))
			offset = (offset + 63) & ~63u;
		if (BIT_ULL(i) == xfeature)
			break;
		offset += eax;
	}
	return area + (xcomp_bv & BIT_ULL(63) ? offset : ebx);
}
)c";

const char kInitImage[] = R"c(/* An image of the initial state: XSTATE_BV is 0. */
static void init_image(u8 *image)
{
	memset(image, 0, IMAGE_SIZE);
	*(u16 *)(image + FCW_OFFSET) = 0x37f;
	*(u32 *)(image + MXCSR_OFFSET) = 0x1f80;
}
)c";

const char kMoveToCpu[] = R"c(/* Move to the n-th CPU that this task may use. */
static void move_to_cpu(int n)
{
	static cpu_set_t allowed;
	cpu_set_t one;
	int cpu;

	if (!CPU_COUNT(&allowed))
		sched_getaffinity(0, sizeof(allowed), &allowed);
	n %= CPU_COUNT(&allowed);
	for (cpu = 0; !CPU_ISSET(cpu, &allowed) || n--; cpu++)
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(one), &one), "Can't move to CPU %d", cpu);
}
)c";

const char kDirtyRegisters[] = R"c(/* Let another task on this CPU fill its registers with ones. */
static void *fill_registers(void *cpus)
{
	static u8 area[4096] __aligned(64);
	u32 eax, ebx, ecx, edx;
	u64 xfeatures = XCR0 & ~(XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE |
				 XFEATURE_MASK_BNDREGS | XFEATURE_MASK_BNDCSR);
	int i;

	sched_setaffinity(0, sizeof(cpu_set_t), cpus);
	*(u32 *)(area + 24) = 0x1f80;
	memset(area + 32, 0xff, 128 + 256);
	*(u64 *)(area + 512) = xfeatures;
	for (i = 2; i < 63; i++) {
		if (!(xfeatures & BIT_ULL(i)))
			continue;
		__cpuid(0xd, i, &eax, &ebx, &ecx, &edx);
		memset(area + ebx, 0xff, eax);
	}
	asm volatile("xrstor %0\n\t"
		     "fninit" : : "m" (area), "a" ((u32)xfeatures), "d" (0) : "memory");
	return NULL;
}

static void dirty_registers(void)
{
	int cpu = sched_getcpu();
	pthread_t thread;
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	sched_setaffinity(0, sizeof(here), &here);
	TEST_ASSERT(!pthread_create(&thread, NULL, fill_registers, &here), "pthread_create()");
pthread_join(thread, NULL);
}
)c";

const char kFillHostRegisters[] =
    R"c(/* The VMM's own registers hold what no guest may see. */
static noinline void fill_host_registers(void)
{
	static u8 area[12288] __aligned(64);
	u64 xfeatures = XCR0 & ~(XFEATURE_MASK_PKRU | XFEATURE_MASK_BNDREGS |
				 XFEATURE_MASK_BNDCSR);
	u32 eax, ebx, ecx, edx;
	int i, tile;

@
	*(u16 *)area = 0x37f;
	*(u32 *)(area + 24) = 0x1f80;
	memset(area + 32, 0xff, 128 + 256);
	*(u64 *)(area + 512) = xfeatures;
	for (i = 2; i < 63; i++) {
		if (!(xfeatures & BIT_ULL(i)))
			continue;
		__cpuid(0xd, i, &eax, &ebx, &ecx, &edx);
		memset(area + ebx, 0xff, eax);
		if (BIT_ULL(i) != XFEATURE_MASK_XTILE_CFG)
			continue;
		/* Palette 1, eight tiles of 16 rows of 64 bytes */
		memset(area + ebx, 0, eax);
		area[ebx] = 1;
		for (tile = 0; tile < 8; tile++) {
			*(u16 *)(area + ebx + 16 + 2 * tile) = 64;
			area[ebx + 48 + tile] = 16;
		}
	}
	asm volatile("xrstor %0" : : "m" (area), "a" ((u32)xfeatures), "d" (0) : "memory");
}
)c";

const char kSetCpuid[] =
    R"c(/* KVM_SET_CPUID2 with leaf 0xd limited to these components. */
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
)c";

const char kSendInit[] = R"c(/* KVM takes a latched INIT when it is asked for the vCPU's state. */
static void send_init(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	/* Complete the OUT first. */
	vcpu->run->immediate_exit = 1;
	__vcpu_ioctl(vcpu, KVM_RUN, NULL);
	vcpu->run->immediate_exit = 0;

	vcpu_ioctl(vcpu, KVM_GET_REGS, &regs);
	vcpu_ioctl(vcpu, KVM_GET_SREGS, &sregs);
	vcpu_ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events);
	events.flags |= KVM_VCPUEVENT_VALID_SMM;
	events.smi.latched_init = 1;
	vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events);
	vcpu_ioctl(vcpu, KVM_GET_MP_STATE, &mp_state);
	mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_ioctl(vcpu, KVM_SET_MP_STATE, &mp_state);

	/* INIT resets more than the FPU; go on where the guest was. */
	vcpu_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	vcpu_ioctl(vcpu, KVM_SET_REGS, &regs);
}
)c";

const char kRunInterrupted[] =
    R"c(/* KVM_RUN with a signal pending: in and out again without entering the guest. */
static void run_interrupted(struct kvm_vcpu *vcpu)
{
	struct {
		struct kvm_signal_mask head;
		u8 sigset[8];
	} open = { .head.len = 8 };
	sigset_t usr1;
	int ret, sig;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	__vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, &open.head);
	pthread_kill(pthread_self(), SIGUSR1);

	ret = __vcpu_ioctl(vcpu, KVM_RUN, NULL);
	TEST_ASSERT(ret == -1 && errno == EINTR,
		    "KVM_RUN with a signal pending: expected EINTR, got %d (errno %d)", ret, errno);

	sigwait(&usr1, &sig);
	__vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, (struct kvm_signal_mask *)NULL);
}
)c";

const char kCIncludes[] = R"c(#include <errno.h>
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
)c";

const char kCTypes[] = R"c(typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
)c";

const char kCBase[] = R"c(#define BIT_ULL(n)	(1ull << (n))
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
)c";

const char kCVcpu[] = R"c(struct kvm_vcpu {
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
)c";

const char kCCpuid[] =
    R"c(static inline void __cpuid(u32 leaf, u32 subleaf, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)
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
)c";

const char kCIoctl[] =
    R"c(static inline int xioctl(int fd, unsigned long cmd, const char *name, void *arg)
{
	int ret = ioctl(fd, cmd, arg);

	TEST_ASSERT(ret >= 0, "%s: %s", name, strerror(errno));
	return ret;
}

#define kvm_ioctl(fd, cmd, arg)		xioctl(fd, cmd, #cmd, (void *)(arg))
#define vcpu_ioctl(vcpu, cmd, arg)	xioctl((vcpu)->fd, cmd, #cmd, arg)
#define __vcpu_ioctl(vcpu, cmd, arg)	ioctl((vcpu)->fd, cmd, arg)
)c";

const char kCAsmSafe[] = R"c(/*
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
)c";

const char kCVm[] = R"c(/*
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
)c"
                    R"c(	vm->nr_vcpus = 0;
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
)c";

const char kCRun[] = R"c(static inline void vcpu_run(struct kvm_vcpu *vcpu)
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
)c";

const char kCMsr[] = R"c(struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

/* The number of MSRs that KVM has taken: 0 is a refusal. */
static inline int _vcpu_set_msr(struct kvm_vcpu *vcpu, u32 index, u64 value)
{
	struct one_msr msr = { .head.nmsrs = 1, .entry.index = index, .entry.data = value };

	return vcpu_ioctl(vcpu, KVM_SET_MSRS, &msr);
}

static inline u64 vcpu_get_msr(struct kvm_vcpu *vcpu, u32 index)
{
	struct one_msr msr = { .head.nmsrs = 1, .entry.index = index };

	TEST_ASSERT(vcpu_ioctl(vcpu, KVM_GET_MSRS, &msr) == 1, "KVM_GET_MSRS of 0x%x", index);
	return msr.entry.data;
}
)c";

const char kMsrList[] = R"c(struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[2];
};
)c";

const char kCPermission[] = R"c(/* Ask for the guests' use of a feature that is off by default. */
static void vm_xsave_require_permission(u64 xfeature)
{
	const int ARCH_GET_XCOMP_GUEST_PERM = 0x1024, ARCH_REQ_XCOMP_GUEST_PERM = 0x1025;
	u64 permitted = 0;

	TEST_REQUIRE(!syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM,
			      __builtin_ctzll(xfeature)));
	TEST_REQUIRE(!syscall(SYS_arch_prctl, ARCH_GET_XCOMP_GUEST_PERM, &permitted));
	TEST_REQUIRE(permitted & xfeature);
}
)c";

const char kThreadIncludes[] = R"c(#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
)c";

const char kThreadTypes[] = R"c(/* Images are read and written as bytes and as numbers. */
typedef uint8_t u8;
typedef uint16_t __attribute__((may_alias)) u16;
typedef uint32_t __attribute__((may_alias)) u32;
typedef uint64_t __attribute__((may_alias)) u64;
)c";

const char kThreadCpu[] = R"c(/* The KVM selftests' words for bits of CPUID. */
enum cpuid_register { EAX, EBX, ECX, EDX };

struct cpu_feature {
	u32 leaf, subleaf;
	enum cpuid_register reg;
	int bit;
};

#define CPU_FEATURE(leaf, subleaf, reg, bit)				\
	((struct cpu_feature) { leaf, subleaf, reg, bit })

static int cpu_has(struct cpu_feature f)
{
	u32 regs[4];

	__cpuid(f.leaf, f.subleaf, &regs[EAX], &regs[EBX], &regs[ECX], &regs[EDX]);
	return regs[f.reg] >> f.bit & 1;
}
)c";

const char kThreadGuestCode[] = R"c(/*
 * Keep the compiler away from the registers under test, and leave this code by
 * INT3: the parent sees SIGTRAP, which it does not pass on, and no register has
 * changed. A system call would change RAX, RCX and R11.
 */
#define GUEST_CODE	__attribute__((target("general-regs-only")))

static GUEST_CODE void guest_exit(void)
{
	asm volatile("int3" : : : "memory");
}
)c";

const char kThreadStart[] = R"c(/* In R9 while a fault is waited for. */
#define EXCEPTION_MAGIC	0xabacadabaull

static pid_t child;

static void ptrace_child(int request, void *data)
{
	TEST_ASSERT(!ptrace(request, child, NULL, data), "ptrace request 0x%x: %s",
		    request, strerror(errno));
}

/* Wait for the child to stop, and give the signal that it stopped at. */
static int wait_for_stop(void)
{
	int status;

	TEST_ASSERT(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
	/* It ends only before it has begun, and has said why. */
	if (WIFEXITED(status))
		exit(WEXITSTATUS(status));
	TEST_ASSERT(WIFSTOPPED(status), "The child was killed by signal %d", WTERMSIG(status));
	return WSTOPSIG(status);
}

/* From the initial state on: XSTATE_BV is 0, and MXCSR is 0x1f80. */
static GUEST_CODE void enter_guest(void)
{
	static u32 initial[144] __aligned(64) = { [6] = 0x1f80 };
@state

@tiles
	asm volatile("xrstor %0" : : "m" (initial), "a" (-1), "d" (-1));
	guest_exit();
	guest_code();
	/* The parent never lets it come here. */
	for (;;)
		guest_exit();
}
@handler

/* The guest is a child that stops whenever its code is left. */
static void start_guest(void)
{
	child = fork();
	TEST_ASSERT(child >= 0, "fork: %s", strerror(errno));
	if (!child) {
@child
		TEST_REQUIRE(!ptrace(PTRACE_TRACEME, 0, NULL, NULL));
		enter_guest();
	}
	TEST_ASSERT(wait_for_stop() == SIGTRAP, "The child does not begin");
	ptrace_child(PTRACE_SETOPTIONS, (void *)PTRACE_O_EXITKILL);
}
)c";

const char kThreadRun[] =
    R"c(/* The vector behind a signal, 0 for a signal that somebody has sent. */
static int vector_of(const siginfo_t *info)
{
	if (info->si_code <= 0)
		return 0;
	switch (info->si_signo) {
	case SIGILL:
		return UD_VECTOR;
	case SIGFPE:
		return MF_VECTOR;
	case SIGBUS:
		return AC_VECTOR;
	case SIGSEGV:
		return info->si_code == SI_KERNEL ? GP_VECTOR : PF_VECTOR;
	default:
		return 0;
	}
}

/* Let the child go on until it leaves its code. */
static void run_guest(void)
{
	struct user_regs_struct regs;
	siginfo_t info;
	long sig = 0;
	int vector;

	for (;;) {
@fill
		ptrace_child(PTRACE_CONT, (void *)sig);
		sig = wait_for_stop();
		if (sig == SIGTRAP)
			return;
		ptrace_child(PTRACE_GETSIGINFO, &info);
		vector = vector_of(&info);
		if (!vector)
			continue;

		/* A fault: go on at R11 with the vector in R9. */
		ptrace_child(PTRACE_GETREGS, &regs);
		TEST_ASSERT(regs.r9 == EXCEPTION_MAGIC, "Unexpected fault, vector %d, at guest_code%+ld",
			    vector, (long)(regs.rip - (unsigned long)guest_code));
		regs.r9 = vector;
		regs.rip = regs.r11;
		ptrace_child(PTRACE_SETREGS, &regs);
		sig = 0;
	}
}
)c";

const char kThreadSync[] =
    R"c(/* The child's variables are copies of the parent's, at the same addresses. */
#define sync_from_guest(variable)	read_guest(&(variable), sizeof(variable))

static void read_guest(void *at, size_t size)
{
	struct iovec iov = { .iov_base = at, .iov_len = size };

	TEST_ASSERT(process_vm_readv(child, &iov, 1, &iov, 1, 0) == (ssize_t)size,
		    "process_vm_readv: %s", strerror(errno));
}
)c";

const char kThreadRegset[] =
    R"c(/* PTRACE_GETREGSET or PTRACE_SETREGSET of the child's NT_X86_XSTATE. */
static int regset(int request, u8 *image)
{
	struct iovec iov = { .iov_base = image, .iov_len = IMAGE_SIZE };

	return ptrace(request, child, (void *)NT_X86_XSTATE, &iov);
}
)c";

const char kThreadSignal[] =
    R"c(/* A signal whose handler returns: the frame keeps the registers meanwhile. */
static void send_signal(void)
{
	struct user_regs_struct regs;

	/* The child comes back to the INT3 that it has just left its code by. */
	ptrace_child(PTRACE_GETREGS, &regs);
	regs.rip--;
	ptrace_child(PTRACE_SETREGS, &regs);
	TEST_ASSERT(!kill(child, SIGUSR1), "kill: %s", strerror(errno));
	run_guest();
}
)c";

const char kThreadHandler[] = R"c(
static GUEST_CODE void handle_signal(int sig)
{
	(void)sig;
}
)c";

}  // namespace fpswap::report::texts
