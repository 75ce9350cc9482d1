// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regression test: PTRACE_GETREGSET shows an old MXCSR, or MXCSR_MASK, when
 * AVX is in use and SSE is initial
 *
 * xstateregs_get ends in the function that KVM_GET_XSAVE ends in
 * (kvm-get-xsave-stale-mxcsr): __copy_xstate_to_uabi_buf() takes MXCSR from
 * the fpstate if SSE or AVX is in XSTATE_BV, though XSAVES has written it
 * with SSE only. The thread's MXCSR is 1F80H then; the debugger is shown
 * that of an earlier save.
 *
 * Needs no kernel tree: cc -Wall -Wextra -O2 -o test THIS_FILE. Exit status: 0 passed, 1 failed,
 * 4 skipped. At home in tools/testing/selftests/x86, as a 64-bit test.
 */
#define _GNU_SOURCE
#include <elf.h>
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

/* Images are read and written as bytes and as numbers. */
typedef uint8_t u8;
typedef uint16_t __attribute__((may_alias)) u16;
typedef uint32_t __attribute__((may_alias)) u32;
typedef uint64_t __attribute__((may_alias)) u64;

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

/* The KVM selftests' words for bits of CPUID. */
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

#define X86_FEATURE_OSXSAVE	CPU_FEATURE(0x1, 0, ECX, 27)
#define X86_FEATURE_XSAVEC	CPU_FEATURE(0xD, 1, EAX, 1)
#define X86_FEATURE_AVX	CPU_FEATURE(0x1, 0, ECX, 28)
#define UD_VECTOR	6
#define GP_VECTOR	13
#define PF_VECTOR	14
#define MF_VECTOR	16
#define AC_VECTOR	17
#define XCR0		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)
#define IMAGE_SIZE	16384

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

/* What PTRACE_GETREGSET gives and PTRACE_SETREGSET takes. */
static u8 image0[IMAGE_SIZE] __aligned(64);

/*
 * Keep the compiler away from the registers under test, and leave this code by
 * INT3: the parent sees SIGTRAP, which it does not pass on, and no register has
 * changed. A system call would change RAX, RCX and R11.
 */
#define GUEST_CODE	__attribute__((target("general-regs-only")))

static GUEST_CODE void guest_exit(void)
{
	asm volatile("int3" : : : "memory");
}

static GUEST_CODE void guest_code(void)
{
	/* MXCSR = 0 and XMM in use, saved by a context switch ... */
	asm volatile("ldmxcsr %0" : : "m" (mxcsr_0));
	asm volatile("movdqu %0, %%xmm1" : : "m" (pattern_21));
	guest_exit();

	/* ... then XMM initial, MXCSR 1F80H and AVX in use. */
	asm volatile("vmovdqu %0, %%ymm0" : : "m" (pattern_3370));
	asm volatile("xsavec (%0)"
		     : : "r" (area0), "a" ((u32)XFEATURE_MASK_YMM), "d" (0) : "memory");
	asm volatile("xrstor (%0)"
		     : : "r" (area0),
		     "a" ((u32)(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)),
		     "d" (0) : "memory");
	guest_exit();

	asm volatile("stmxcsr %0" : "=m" (scratch));
	guest_exit();
}

static void check_value(const char *name, u64 seen, u64 expected)
{
	TEST_ASSERT(seen == expected, "%s: expected 0x%lx, got 0x%lx", name,
		    (unsigned long)expected, (unsigned long)seen);
}

/* In R9 while a fault is waited for. */
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

	asm volatile("xrstor %0" : : "m" (initial), "a" (-1), "d" (-1));
	guest_exit();
	guest_code();
	/* The parent never lets it come here. */
	for (;;)
		guest_exit();
}

/* The guest is a child that stops whenever its code is left. */
static void start_guest(void)
{
	child = fork();
	TEST_ASSERT(child >= 0, "fork: %s", strerror(errno));
	if (!child) {
		TEST_REQUIRE(!ptrace(PTRACE_TRACEME, 0, NULL, NULL));
		enter_guest();
	}
	TEST_ASSERT(wait_for_stop() == SIGTRAP, "The child does not begin");
	ptrace_child(PTRACE_SETOPTIONS, (void *)PTRACE_O_EXITKILL);
}

/* Move to the n-th CPU that this task may use, and the child with it. */
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
	TEST_ASSERT(!sched_setaffinity(0, sizeof(one), &one) &&
		    (!child || !sched_setaffinity(child, sizeof(one), &one)),
		    "Can't move to CPU %d", cpu);
}

/* This task's registers hold what the child, next on this CPU, may not see. */
static __attribute__((noinline)) void fill_host_registers(void)
{
	static u8 area[12288] __aligned(64);
	u64 xfeatures = XCR0 & ~(XFEATURE_MASK_PKRU | XFEATURE_MASK_BNDREGS |
				 XFEATURE_MASK_BNDCSR);
	u32 eax, ebx, ecx, edx;
	int i, tile;

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

/* The vector behind a signal, 0 for a signal that somebody has sent. */
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

/* PTRACE_GETREGSET or PTRACE_SETREGSET of the child's NT_X86_XSTATE. */
static int regset(int request, u8 *image)
{
	struct iovec iov = { .iov_base = image, .iov_len = IMAGE_SIZE };

	return ptrace(request, child, (void *)NT_X86_XSTATE, &iov);
}

int main(void)
{
	TEST_REQUIRE(cpu_has(X86_FEATURE_OSXSAVE));
	TEST_REQUIRE((xgetbv(0) & XCR0) == XCR0);
	TEST_REQUIRE(cpu_has(X86_FEATURE_XSAVEC));
	TEST_REQUIRE(cpu_has(X86_FEATURE_AVX));

	move_to_cpu(0);
	start_guest();

	run_guest();
	fill_host_registers();

	run_guest();
	/* The thread's MXCSR is 1F80H; the regset shows 0. */
	TEST_ASSERT(!regset(PTRACE_GETREGSET, image0),
		    "PTRACE_GETREGSET: %s", strerror(errno));
	check_value("MXCSR of PTRACE_GETREGSET", *(u32 *)(image0 + MXCSR_OFFSET), 0x1f80);

	run_guest();

	printf("PASS\n");
	return 0;
}
