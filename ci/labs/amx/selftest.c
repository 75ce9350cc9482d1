// SPDX-License-Identifier: GPL-2.0-or-later
//
// What Bochs' CPU does with the state that fpswap tests, seen from bare 64-bit mode at CPL 0: no
// kernel is in between. boot.S starts it. It says "ok NAME" or "FAIL NAME: what" a line, for each
// check that edits.py names, through the door's data port, and then waits at the door for the end
// of its input.
//
// Freestanding, compiled without vector registers: what is in them is the tests'.
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum { kUd = 6, kNm = 7, kGp = 13, kPf = 14, kNone = 255 };
enum {
  kX87 = 1 << 0,
  kSse = 1 << 1,
  kAvx = 1 << 2,
  kOpmask = 1 << 5,
  kZmmHi256 = 1 << 6,
  kHi16Zmm = 1 << 7,
  kPkru = 1 << 9,
  kCetU = 1 << 11,
  kCfg = 1 << 17,
  kData = 1 << 18,
  kAll = kX87 | kSse | kAvx | kOpmask | kZmmHi256 | kHi16Zmm | kPkru | kCfg | kData
};
enum { kXfd = 0x1c4, kXfdErr = 0x1c5, kPkrs = 0x6e1, kXss = 0xda0 };
static const u32 kKernelGsBase = 0xc0000102;
enum { kTables = 0x802000 };  // images.py: PAGES

// Faults: the handler notes what came and goes on at `resume`.
u64 vector, error, resume;
asm(R"(
  .macro stub n
  .balign 16
  .if \n != 8 && \n != 10 && \n != 11 && \n != 12 && \n != 13 && \n != 14 && \n != 17 && \n != 21
  pushq $0
  .endif
  pushq $\n
  jmp common
  .endm
  .balign 16
stubs:
  .altmacro
  .set n, 0
  .rept 32
  stub %n
  .set n, n + 1
  .endr
common:
  popq vector(%rip)
  popq error(%rip)
  movq resume(%rip), %r15
  movq %r15, (%rsp)
  iretq

  .globl _start
_start:
  leaq stack_end(%rip), %rsp
  call Main
)");
u8 stack[65536] __attribute__((aligned(64)));
asm(".set stack_end, stack + 65536");

// Runs one instruction (or a few) and gives its fault, or kNone.
#define RUN(text, ...)                                                         \
  ({                                                                           \
    vector = kNone;                                                            \
    asm volatile("leaq 9f(%%rip), %%r15\n\tmovq %%r15, resume(%%rip)\n\t" text \
                 "\n9:" ::__VA_ARGS__                                          \
                 : "r15", "memory", "cc");                                     \
    vector;                                                                    \
  })

static void Put(const char* text) {
  for (; *text; text++) asm volatile("outb %b0, %w1" ::"a"(*text), "d"(0x510));
}
// At the door, which also sends what was put.
static void Wait(void) {
  u32 waiting;
  asm volatile("inl %w1, %0" : "=a"(waiting) : "d"(0x514));
}
static void PutHex(u64 value) {
  char text[17];
  int at = 16;
  text[16] = 0;
  do {
    text[--at] = "0123456789ABCDEF"[value & 15];
    value >>= 4;
  } while (value != 0);
  Put(text + at);
  Put("H");
}

static const char* check;  // the one that runs
static int failures;
static void Fail(const char* what, u64 seen, u64 wanted) {
  if (failures++ == 0) {
    Put("FAIL ");
    Put(check);
    Put(":");
  }
  Put(" ");
  Put(what);
  Put(" is ");
  PutHex(seen);
  Put(" and not ");
  PutHex(wanted);
  Put(";");
}
#define EXPECT(what, wanted)                                \
  do {                                                      \
    const u64 seen_ = (u64)(what), wanted_ = (u64)(wanted); \
    if (seen_ != wanted_) Fail(#what, seen_, wanted_);      \
  } while (0)

// Memory. Areas are more than any image.
enum { kArea = 12288 };
static u8 area[kArea] __attribute__((aligned(64)));
static u8 other[kArea] __attribute__((aligned(64)));
static u8 rows[1024] __attribute__((aligned(64)));

void* memset(void* to, int byte, size_t n) {
  for (size_t i = 0; i < n; i++) ((volatile u8*)to)[i] = (u8)byte;
  return to;
}
void* memcpy(void* to, const void* from, size_t n) {
  for (size_t i = 0; i < n; i++) ((volatile u8*)to)[i] = ((const u8*)from)[i];
  return to;
}
static u8 Pattern(size_t n) { return (u8)(n * 7 + (n >> 6) * 13 + (n >> 10) * 29 + 1); }
static void Fill(u8* to, size_t n, size_t first) {
  for (size_t i = 0; i < n; i++) to[i] = Pattern(first + i);
}
// How many bytes differ from the pattern.
static u64 Differ(const u8* at, size_t n, size_t first) {
  u64 count = 0;
  for (size_t i = 0; i < n; i++) count += at[i] != Pattern(first + i);
  return count;
}
static u64 Other(const u8* at, size_t n, u8 value) {
  u64 count = 0;
  for (size_t i = 0; i < n; i++) count += at[i] != value;
  return count;
}
static u64 Get64(const u8* at) { return *(const volatile u64*)at; }
static u32 Get32(const u8* at) { return *(const volatile u32*)at; }
static void Set64(u8* at, u64 value) { *(volatile u64*)at = value; }
static void Set32(u8* at, u32 value) { *(volatile u32*)at = value; }
static u64 XstateBv(const u8* image) { return Get64(image + 512); }

// Instructions.
#define MASK(mask) "a"((u32)(mask)), "d"(0)
static u64 Xsave(u8* to, u64 mask) { return RUN("xsave64 (%0)", "r"(to), MASK(mask)); }
static u64 Xsavec(u8* to, u64 mask) { return RUN("xsavec64 (%0)", "r"(to), MASK(mask)); }
static u64 Xrstor(const u8* from, u64 mask) { return RUN("xrstor64 (%0)", "r"(from), MASK(mask)); }
static u64 Xrstors(const u8* from, u64 mask) {
  return RUN("xrstors64 (%0)", "r"(from), MASK(mask));
}
static u64 Wrmsr(u32 msr, u64 value) {
  return RUN("wrmsr", "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
}
static u64 Rdmsr(u32 msr) {
  u32 low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return low | (u64)high << 32;
}
static u64 Xsetbv(u64 value) { return RUN("xsetbv", "c"(0), MASK(value)); }
static u64 Xinuse(void) {
  u32 low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  return low;
}
static void Wrpkru(u32 value) { asm volatile("wrpkru" ::"a"(value), "c"(0), "d"(0) : "memory"); }
static void Ldmxcsr(u32 value) { asm volatile("ldmxcsr %0" ::"m"(value)); }
static u32 Stmxcsr(void) {
  u32 value;
  asm volatile("stmxcsr %0" : "=m"(value));
  return value;
}
static void Cpuid(u32 leaf, u32 sub, u32 out[4]) {
  asm volatile("cpuid"
               : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
               : "a"(leaf), "c"(sub));
}
static u64 Cr4(void) {
  u64 value;
  asm volatile("movq %%cr4, %0" : "=r"(value));
  return value;
}
static void SetCr4(u64 value) { asm volatile("movq %0, %%cr4" ::"r"(value) : "memory"); }
static void FlushTranslations(void) {
  u64 value;
  asm volatile("movq %%cr3, %0\n\tmovq %0, %%cr3" : "=r"(value)::"memory");
}

// A tile configuration: of tile n, rows and bytes per row.
typedef struct {
  u8 bytes[64];
} Config;
static Config Tiles(const u8 shape[8][2]) {
  Config c;
  memset(&c, 0, sizeof c);
  c.bytes[0] = 1;
  for (int n = 0; n < 8; n++) {
    c.bytes[48 + n] = shape[n][0];
    c.bytes[16 + 2 * n] = shape[n][1];
  }
  return c;
}
static u64 Configure(const Config* c) { return RUN("ldtilecfg (%0)", "r"(c)); }
static const u8 kWhole[8][2] = {{16, 64}, {16, 64}, {16, 64}, {3, 12},
                                {7, 32},  {0, 0},   {1, 4},   {16, 64}};

// All tiles of kWhole, tile n from the pattern at 1024 * n.
static void LoadTiles(void) {
  const Config c = Tiles(kWhole);
  Configure(&c);
  const u64 stride = 64;
  Fill(rows, 1024, 0);
  RUN("tileloadd (%0,%1,1), %%tmm0", "r"(rows), "r"(stride));
  Fill(rows, 1024, 1024);
  RUN("tileloadd (%0,%1,1), %%tmm1", "r"(rows), "r"(stride));
  Fill(rows, 1024, 7168);
  RUN("tileloadd (%0,%1,1), %%tmm7", "r"(rows), "r"(stride));
}
#define RELEASE() asm volatile("tilerelease")

static void StartState(void) {
  Wrmsr(kXfd, 0);
  Wrmsr(kXfdErr, 0);
  Wrmsr(kXss, 0);
  Xsetbv(kAll);
  memset(other, 0, sizeof other);
  Set32(other + 24, 0x1f80);
  Xrstor(other, kAll);
  memset(area, 0xee, sizeof area);
  memset(area + 512, 0, 64);
}

static void CheckXfd(void) {
  u32 r[4];
  Cpuid(13, 1, r);
  EXPECT(r[0] & 0x1f, 0x1f);
  Cpuid(13, 18, r);
  EXPECT(r[2] & 4, 4);
  Cpuid(13, 17, r);
  EXPECT(r[2] & 4, 0);
  EXPECT(Rdmsr(kXfd), 0);
  EXPECT(Rdmsr(kXfdErr), 0);
  EXPECT(Wrmsr(kXfd, kCfg), kGp);
  EXPECT(Wrmsr(kXfd, 1), kGp);
  EXPECT(Wrmsr(kXfd, 1ull << 63), kGp);
  EXPECT(Wrmsr(kXfdErr, 2), kGp);
  EXPECT(Rdmsr(kXfd), 0);
  LoadTiles();
  EXPECT(Wrmsr(kXfd, kData), kNone);
  EXPECT(Rdmsr(kXfd), kData);
  const u64 stride = 64;
#define NEEDS_TILES(text, ...)           \
  EXPECT(RUN(text, ##__VA_ARGS__), kNm); \
  EXPECT(Rdmsr(kXfdErr), kData);         \
  EXPECT(Wrmsr(kXfdErr, 0), kNone)
  NEEDS_TILES("tilezero %%tmm0", "r"(0));
  NEEDS_TILES("tileloadd (%0,%1,1), %%tmm0", "r"(rows), "r"(stride));
  NEEDS_TILES("tileloaddt1 (%0,%1,1), %%tmm0", "r"(rows), "r"(stride));
  NEEDS_TILES("tilestored %%tmm0, (%0,%1,1)", "r"(rows), "r"(stride));
  NEEDS_TILES("tdpbssd %%tmm2, %%tmm1, %%tmm0", "r"(0));
  NEEDS_TILES("tdpbsud %%tmm2, %%tmm1, %%tmm0", "r"(0));
  NEEDS_TILES("tdpbusd %%tmm2, %%tmm1, %%tmm0", "r"(0));
  NEEDS_TILES("tdpbuud %%tmm2, %%tmm1, %%tmm0", "r"(0));
  NEEDS_TILES("tdpbf16ps %%tmm2, %%tmm1, %%tmm0", "r"(0));
  // #UD goes first: tile 5 is not configured, and a tile cannot be two operands.
  EXPECT(RUN("tilezero %%tmm5", "r"(0)), kUd);
  EXPECT(RUN(".byte 0xc4, 0xe2, 0x73, 0x5e, 0xc1", "r"(0)), kUd);  // tdpbssd %tmm1, %tmm1, %tmm0
  EXPECT(Rdmsr(kXfdErr), 0);
  // These do not need the tiles.
  Config c;
  EXPECT(RUN("sttilecfg (%0)", "r"(&c)), kNone);
  EXPECT(Configure(&c), kNone);
  EXPECT(RUN("tilerelease", "r"(0)), kNone);
  EXPECT(Rdmsr(kXfdErr), 0);
  // IA32_XFD acts only where XCR0 has the bit.
  const Config whole = Tiles(kWhole);
  Configure(&whole);
  Xsetbv(kAll & ~(kCfg | kData));
  EXPECT(RUN("tilezero %%tmm0", "r"(0)), kUd);
  EXPECT(Rdmsr(kXfdErr), 0);
}

static void CheckXfdXsave(void) {
  LoadTiles();
  Xsavec(other, kData);
  EXPECT(XstateBv(other), kData);
  Wrmsr(kXfd, kData);
  EXPECT(Xsavec(area, kCfg | kData), kNone);
  EXPECT(XstateBv(area), kCfg);
  EXPECT(Other(area + 640, 8192, 0xee), 0);
  Set64(area + 512, 0);
  EXPECT(Xsave(area, kData), kNone);
  EXPECT(XstateBv(area), 0);
  EXPECT(Other(area + 2816, 8192, 0), 0);
  EXPECT(Xinuse() & kData, kData);
  // A load of the disabled component changes nothing; its initialisation is allowed.
  Wrpkru(0x55555554);
  Set64(other + 520, 1ull << 63 | kPkru | kData);
  Set64(other + 512, kData);
  EXPECT(Xrstor(other, kPkru | kData), kNm);
  EXPECT(Rdmsr(kXfdErr), kData);
  Set64(area + 512, 0);
  EXPECT(Xsave(area, kPkru), kNone);
  EXPECT(Get32(area + 2688), 0x55555554);
  Wrpkru(0);
  Wrmsr(kXfd, 0);
  EXPECT(Xsave(area, kData), kNone);
  EXPECT(Differ(area + 2816, 2048, 0), 0);
  Wrmsr(kXfd, kData);
  Set64(other + 512, 0);
  EXPECT(Xrstor(other, kData), kNone);
  Wrmsr(kXfd, 0);
  EXPECT(Xsave(area, kData), kNone);
  EXPECT(Other(area + 2816, 8192, 0), 0);
}

static void CheckLayout(void) {
  u32 r[4];
  Cpuid(13, 0, r);
  EXPECT(r[0], kAll);
  EXPECT(r[1], 11008);
  EXPECT(r[2], 11008);
  Cpuid(13, 17, r);
  EXPECT(r[0], 64);
  EXPECT(r[1], 2752);
  EXPECT(r[2] & 3, 2);
  Cpuid(13, 18, r);
  EXPECT(r[0], 8192);
  EXPECT(r[1], 2816);
  EXPECT(r[2] & 3, 2);
  Cpuid(13, 9, r);
  EXPECT(r[2] & 3, 0);
  Cpuid(13, 1, r);
  // 2432 bytes up to PKRU's 8, then from 2496 on.
  EXPECT(r[1], 2496 + 64 + 8192);
  Xsetbv(kX87 | kSse | kPkru | kCfg | kData);
  Cpuid(13, 1, r);
  EXPECT(r[1], 640 + 64 + 8192);
  LoadTiles();
  Wrpkru(0x55555554);
  EXPECT(Xsavec(area, kPkru | kCfg | kData), kNone);
  Wrpkru(0);
  EXPECT(XstateBv(area), kPkru | kCfg | kData);
  EXPECT(Get64(area + 520), 1ull << 63 | kPkru | kCfg | kData);
  EXPECT(Get32(area + 576), 0x55555554);
  EXPECT(area[640], 1);
  EXPECT(Differ(area + 704, 2048, 0), 0);
  RELEASE();
  EXPECT(Xrstor(area, kPkru | kCfg | kData), kNone);
  Wrpkru(0);
  EXPECT(Xsave(other, kData), kNone);
  EXPECT(Differ(other + 2816, 2048, 0), 0);
}

static void CheckXrstor(void) {
  // Components that are not asked for count in a compacted layout.
  Fill(other + 1664, 1024, 300);
  Fill(other + 576, 256, 900);
  Set64(other + 512, kAvx | kOpmask | kZmmHi256 | kHi16Zmm);
  Xrstor(other, kAvx | kOpmask | kZmmHi256 | kHi16Zmm);
  Fill(other + 1152, 512, 50);
  Xrstor(other, kZmmHi256);
  EXPECT(Xsavec(area, kAvx | kZmmHi256 | kHi16Zmm), kNone);
  Set64(other + 512, 0);
  Xrstor(other, kAvx | kZmmHi256 | kHi16Zmm);
  EXPECT(Xrstor(area, kHi16Zmm), kNone);
  memset(other, 0, sizeof other);
  EXPECT(Xsave(other, kAvx | kHi16Zmm), kNone);
  EXPECT(Differ(other + 1664, 1024, 300), 0);
  EXPECT(Other(other + 576, 256, 0), 0);
  // MXCSR of a compacted image without SSE.
  Ldmxcsr(0x1fa0);
  EXPECT(Xrstor(area, kSse), kNone);
  EXPECT(Stmxcsr(), 0x1f80);
  Ldmxcsr(0x1fa0);
  EXPECT(Xrstor(area, kAvx), kNone);
  EXPECT(Stmxcsr(), 0x1fa0);
  // Of a bad one in the standard format nothing is loaded.
  memset(other, 0, sizeof other);
  Set64(other + 512, kX87 | kSse);
  Set32(other, 0x27f);
  Set32(other + 24, 0xffff0000);
  EXPECT(Xrstor(other, kX87 | kSse), kGp);
  u16 fcw;
  asm volatile("fnstcw %0" : "=m"(fcw));
  EXPECT(fcw, 0x37f);
  EXPECT(Stmxcsr(), 0x1fa0);
}

static void CheckMxcsrXsavec(void) {
  asm volatile("vpcmpeqd %%ymm3, %%ymm3, %%ymm3\n\tpxor %%xmm3, %%xmm3" ::);
  EXPECT(Xsavec(area, kSse | kAvx), kNone);
  EXPECT(XstateBv(area), kAvx);
  EXPECT(Get64(area + 24), 0xeeeeeeeeeeeeeeee);
  Ldmxcsr(0x1fa0);
  EXPECT(Xsavec(area, kAvx), kNone);
  EXPECT(Get64(area + 24), 0xeeeeeeeeeeeeeeee);
  EXPECT(Xsavec(area, kSse | kAvx), kNone);
  EXPECT(XstateBv(area), kSse | kAvx);
  EXPECT(Get64(area + 24), 0xffff00001fa0);
}

static void CheckAvxInit(void) {
  Fill(other + 576, 256, 11);
  Fill(other + 1152, 512, 77);
  Set64(other + 512, kAvx | kZmmHi256);
  Xrstor(other, kAvx | kZmmHi256);
  Set64(other + 512, 0);
  EXPECT(Xrstor(other, kAvx), kNone);
  EXPECT(Xsave(area, kAvx | kZmmHi256), kNone);
  EXPECT(Other(area + 576, 256, 0), 0);
  EXPECT(Differ(area + 1152, 512, 77), 0);
}

static void CheckHi16In32Bit(void) {
  Fill(other + 1664, 1024, 5);
  Set64(other + 512, kHi16Zmm);
  Xrstor(other, kHi16Zmm);
  EXPECT(Xinuse() & kHi16Zmm, kHi16Zmm);
  u64 in_use = 0;
  // Compatibility mode through boot.S's segment 08H, and back.
  asm volatile(
      "pushq $0x08\n\tleaq 1f(%%rip), %%rax\n\tpushq %%rax\n\tlretq\n"
      ".code32\n1:\tmovl $1, %%ecx\n\txgetbv\n\tljmp $0x10, $2f\n.code64\n2:"
      : "=a"(in_use)::"rcx", "rdx", "memory");
  EXPECT((u32)in_use & kHi16Zmm, 0);
}

static void CheckPkruStore(void) {
  Wrpkru(0xcccccc0c);
  EXPECT(Xsave(area, kPkru), kNone);
  Wrpkru(0);
  EXPECT(Get64(area + 2688), 0xeeeeeeeecccccc0c);
}

static void CheckXrstorsCet(void) {
  EXPECT(Wrmsr(kXss, kCetU), kNone);
  memset(other, 0, sizeof other);
  Set64(other + 512, kCetU);
  Set64(other + 520, 1ull << 63 | kCetU);
  Set64(other + 584, 0x1000);
  EXPECT(Xrstors(other, kCetU), kNone);
  EXPECT(Rdmsr(0x6a7), 0x1000);
  Set64(other + 576, 1 << 6);  // reserved
  EXPECT(Xrstors(other, kCetU), kGp);
  Set64(other + 576, 0);
  Set64(other + 584, 2);  // a shadow stack is aligned to four bytes
  EXPECT(Xrstors(other, kCetU), kGp);
  Set64(other + 512, 0);
  EXPECT(Xrstors(other, kCetU), kNone);
}

static void CheckTileRows(void) {
  LoadTiles();
  EXPECT(Xsave(area, kCfg | kData), kNone);
  EXPECT(Differ(area + 2816, 2048, 0), 0);
  EXPECT(Differ(area + 2816 + 7168, 1024, 7168), 0);
  RELEASE();
  EXPECT(Xrstor(area, kCfg | kData), kNone);
  const u64 stride = 64;
  memset(rows, 0, sizeof rows);
  EXPECT(RUN("tilestored %%tmm7, (%0,%1,1)", "r"(rows), "r"(stride)), kNone);
  EXPECT(Differ(rows, 1024, 7168), 0);
}

static void CheckTileInUse(void) {
  EXPECT(Xinuse() & (kCfg | kData), 0);
  const Config c = Tiles(kWhole);
  Configure(&c);
  EXPECT(Xinuse() & (kCfg | kData), kCfg);
  LoadTiles();
  EXPECT(Xinuse() & (kCfg | kData), kCfg | kData);
  RELEASE();
  EXPECT(Xinuse() & (kCfg | kData), 0);
}

static void CheckTilecfgImage(void) {
  const Config c = Tiles(kWhole);
  Config stored;
  EXPECT(Configure(&c), kNone);
  EXPECT(Xsave(area, kCfg), kNone);
  for (int n = 0; n < 64; n += 8) EXPECT(Get64(area + 2752 + n), Get64(c.bytes + n));
  RUN("sttilecfg (%0)", "r"(&stored));
  for (int n = 0; n < 64; n += 8) EXPECT(Get64(stored.bytes + n), Get64(c.bytes + n));
}

static void CheckTilecfgKeepsData(void) {
  LoadTiles();
  memset(other, 0, sizeof other);
  const u8 small[8][2] = {{1, 4}, {2, 8}};
  const Config c = Tiles(small);
  memcpy(other + 2752, &c, sizeof c);
  Set64(other + 512, kCfg);
  EXPECT(Xrstor(other, kCfg), kNone);
  EXPECT(Xsave(area, kCfg | kData), kNone);
  EXPECT(area[2752 + 49], 2);
  EXPECT(Differ(area + 2816, 2048, 0), 0);
  other[2752 + 48] = 17;  // too many rows: the configuration becomes zero
  EXPECT(Xrstor(other, kCfg), kNone);
  EXPECT(Xsave(area, kCfg | kData), kNone);
  EXPECT(Other(area + 2752, 64, 0), 0);
  EXPECT(Differ(area + 2816, 2048, 0), 0);
  Set64(other + 512, 0);
  EXPECT(Xrstor(other, kCfg), kNone);
  EXPECT(Xsave(area, kData), kNone);
  EXPECT(Differ(area + 2816, 2048, 0), 0);
  EXPECT(Configure(&c), kNone);
  EXPECT(Xsave(area, kData), kNone);
  EXPECT(Other(area + 2816, 8192, 0), 0);
  // A bad one is refused, and changes nothing.
  LoadTiles();
  Config bad = c;
  bad.bytes[48] = 17;
  EXPECT(Configure(&bad), kGp);
  EXPECT(Xsave(area, kCfg | kData), kNone);
  EXPECT(area[2752 + 48], 16);
  EXPECT(Differ(area + 2816, 2048, 0), 0);
}

static void CheckSttilecfg(void) {
  Config c;
  memset(&c, 0xee, sizeof c);
  EXPECT(RUN("sttilecfg (%0)", "r"(&c)), kNone);
  EXPECT(Other(c.bytes, 64, 0), 0);
  // VEX.128.66.0F38.W1 49 /0 with RAX is no instruction.
  EXPECT(RUN(".byte 0xc4, 0xe2, 0xf9, 0x49, 0x00", "a"(&c)), kUd);
}

static void CheckTdpSigns(void) {
  const u8 shape[8][2] = {{1, 4}, {1, 4}, {1, 4}};
  const Config c = Tiles(shape);
  const u32 left = 0x01ff7f80, right = 0x0280ff81;
  const u64 stride = 64;
  u32 out;
  Configure(&c);
  RUN("tileloadd (%0,%1,1), %%tmm1", "r"(&left), "r"(stride));
  RUN("tileloadd (%0,%1,1), %%tmm2", "r"(&right), "r"(stride));
#define PRODUCT(name)                                           \
  (RUN("tilezero %%tmm0\n\t" name " %%tmm2, %%tmm1, %%tmm0\n\t" \
       "tilestored %%tmm0, (%0,%1,1)",                          \
       "r"(&out), "r"(stride)),                                 \
   out)
  EXPECT(PRODUCT("tdpbssd"), (u32)(-128 * -127 + 127 * -1 + -1 * -128 + 1 * 2));
  EXPECT(PRODUCT("tdpbsud"), (u32)(-128 * 129 + 127 * 255 + -1 * 128 + 1 * 2));
  EXPECT(PRODUCT("tdpbusd"), (u32)(128 * -127 + 127 * -1 + 255 * -128 + 1 * 2));
  EXPECT(PRODUCT("tdpbuud"), (u32)(128 * 129 + 127 * 255 + 255 * 128 + 1 * 2));
}

// 2 MiB of memory at 192 MiB, and what is mapped to it at 2 GiB.
enum { kPlace = 0xc000000 };
static u64* const top = (u64*)kTables;
static u64* const gigabytes = (u64*)(kTables + 0x1000);
static u64* const low_pages = (u64*)(kTables + 0x2000);
static u64* const high_pages = (u64*)(kTables + 0x4000);

static void CheckPkruPages(void) {
  volatile u32* const user = (u32*)kPlace;
  volatile u32* const supervisor = (u32*)(kPlace + 0x200000);
  volatile u32* const hidden = (u32*)0x80000000ul;  // U/S set in its own entry alone
  top[0] |= 4;
  gigabytes[0] |= 4;
  low_pages[kPlace >> 21] |= 4;
  high_pages[0] = kPlace | 0x87;
  SetCr4(Cr4() | 1 << 22);  // PKE
  FlushTranslations();
#define READ(place) RUN("movl (%0), %%r15d", "r"(place))
#define WRITE(place) RUN("movl $1, (%0)", "r"(place))
  EXPECT(READ(user), kNone);
  Wrpkru(0xffffffff);
  // Twice: from the page tables, and from what is cached.
  for (int n = 0; n < 2; n++) {
    EXPECT(READ(supervisor), kNone);
    EXPECT(WRITE(supervisor), kNone);
    EXPECT(READ(hidden), kNone);
    EXPECT(WRITE(hidden), kNone);
    EXPECT(READ(user), kPf);
    EXPECT(error, 0x21);
    EXPECT(WRITE(user), kPf);
    EXPECT(error, 0x23);
  }
  Wrpkru(2);  // no writing; CR0.WP decides for supervisor writes
  u64 cr0;
  asm volatile("movq %%cr0, %0" : "=r"(cr0));
  asm volatile("movq %0, %%cr0" ::"r"(cr0 | 1 << 16) : "memory");
  EXPECT(READ(user), kNone);
  EXPECT(WRITE(user), kPf);
  EXPECT(WRITE(supervisor), kNone);
  asm volatile("movq %0, %%cr0" ::"r"(cr0 & ~(u64)(1 << 16)) : "memory");
  EXPECT(WRITE(user), kNone);
  // IA32_PKRS, for the others.
  Wrpkru(0);
  SetCr4(Cr4() | 1 << 24);
  EXPECT(Wrmsr(kPkrs, 2 << 2), kNone);
  low_pages[(kPlace >> 21) + 1] |= 1ull << 59;  // key 1
  low_pages[kPlace >> 21] |= 1ull << 59;
  FlushTranslations();
  asm volatile("movq %0, %%cr0" ::"r"(cr0 | 1 << 16) : "memory");
  EXPECT(READ(supervisor), kNone);
  EXPECT(WRITE(supervisor), kPf);
  EXPECT(WRITE(user), kNone);
  asm volatile("movq %0, %%cr0" ::"r"(cr0) : "memory");
  SetCr4(Cr4() & ~(u64)(1 << 24));
}

static void CheckMsrCanonical(void) {
  u32 r[4];
  Cpuid(7, 0, r);
  EXPECT(r[2] & 1 << 16, 1 << 16);  // LA57
  EXPECT(Cr4() & 1 << 12, 0);
  EXPECT(Wrmsr(kKernelGsBase, 1ull << 48), kNone);
  EXPECT(Rdmsr(kKernelGsBase), 1ull << 48);
  EXPECT(Wrmsr(kKernelGsBase, 1ull << 56), kGp);
  EXPECT(Wrmsr(kKernelGsBase, 0), kNone);
}

// mov $value, %eax; ret
static void WriteCode(u8* at, u32 value) {
  at[0] = 0xb8;
  Set32(at + 1, value);
  at[5] = 0xc3;
}
static u32 Call(const void* at) {
  u32 value;
  asm volatile("call *%1" : "=a"(value) : "r"(at) : "memory");
  return value;
}

static void CheckChangedCode(void) {
  u8* const page = (u8*)(kPlace + 0x200000);
  for (u32 line = 0; line < 32; line++) WriteCode(page + line * 128, line);
  for (u32 line = 0; line < 32; line++) EXPECT(Call(page + line * 128), line);
  for (u32 line = 0; line < 32; line++) {
    Set32(page + line * 128 + 1, 1000 + line);
    EXPECT(Call(page + line * 128), 1000 + line);
  }
}

// Two small pages at 2 GiB + 2 MiB: where they are, or 0.
static u8* const pages = (u8*)0x80200000ul;
static void MapPages(const u8* first, const u8* second) {
  u64* const table = (u64*)(kPlace + 0x310000);
  table[0] = first != NULL ? (u64)first | 3 : 0;
  table[1] = second != NULL ? (u64)second | 3 : 0;
  high_pages[1] = (u64)table | 3;
  asm volatile("invlpg (%0)\n\tinvlpg 4096(%0)" ::"r"(pages) : "memory");
}

static void CheckXsaveProbe(void) {
  u8* const memory = (u8*)(kPlace + 0x300000);
  memset(memory, 0xee, 4096);
  // The header in the first page, the rest in one that is not there.
  MapPages(memory, NULL);
  EXPECT(Xsave(pages + 4096 - 640, kX87 | kSse | kAvx), kPf);
  EXPECT(error, 2);
  EXPECT(Xsavec(pages + 4096 - 640, kX87 | kSse | kAvx), kPf);
  EXPECT(error, 2);
  EXPECT(Other(memory, 4096, 0xee), 0);
  // The other way round.
  MapPages(NULL, memory);
  EXPECT(Xsave(pages + 4096 - 512, kX87), kPf);
  EXPECT(error, 2);
  EXPECT(Other(memory, 4096, 0xee), 0);
}

static void CheckSplitCode(void) {
  // The second of two pages is mapped anew, with an instruction over both.
  u8* const memory = (u8*)(kPlace + 0x300000);
  WriteCode(memory + 4093, 0x11111111);
  memset(memory + 8192, 0x22, 2);
  memory[8194] = 0xc3;
  memset(memory + 4096, 0x11, 2);
  memory[4098] = 0xc3;
  MapPages(memory, memory + 4096);
  EXPECT(Call(pages + 4093), 0x11111111);
  EXPECT(Call(pages + 4093), 0x11111111);
  MapPages(memory, memory + 8192);
  EXPECT(Call(pages + 4093), 0x22221111);
}

static const struct {
  const char* name;
  void (*run)(void);
} kChecks[] = {
    {"xfd", CheckXfd},
    {"xfd_xsave", CheckXfdXsave},
    {"layout", CheckLayout},
    {"xrstor", CheckXrstor},
    {"mxcsr_xsavec", CheckMxcsrXsavec},
    {"avx_init", CheckAvxInit},
    {"hi16_32bit", CheckHi16In32Bit},
    {"pkru_store", CheckPkruStore},
    {"xrstors_cet", CheckXrstorsCet},
    {"tile_rows", CheckTileRows},
    {"tile_in_use", CheckTileInUse},
    {"tilecfg_image", CheckTilecfgImage},
    {"tilecfg_keeps_data", CheckTilecfgKeepsData},
    {"sttilecfg", CheckSttilecfg},
    {"tdp_signs", CheckTdpSigns},
    {"pkru_pages", CheckPkruPages},
    {"msr_canonical", CheckMsrCanonical},
    {"changed_code", CheckChangedCode},
    {"split_code", CheckSplitCode},
    {"xsave_probe", CheckXsaveProbe},
};

static struct {
  u16 low, selector, flags, middle;
  u32 high, zero;
} idt[32];
extern const u8 stubs[];

__attribute__((noreturn)) void Main(void) {
  for (int n = 0; n < 32; n++) {
    const u64 at = (u64)stubs + (u64)n * 16;
    idt[n].low = (u16)at;
    idt[n].selector = 0x10;
    idt[n].flags = 0x8e00;
    idt[n].middle = (u16)(at >> 16);
    idt[n].high = (u32)(at >> 32);
  }
  struct {
    u16 limit;
    u64 base;
  } __attribute__((packed)) table = {sizeof idt - 1, (u64)idt};
  asm volatile("lidt %0" ::"m"(table));
  u64 cr0;
  asm volatile("movq %%cr0, %0" : "=r"(cr0));
  asm volatile("movq %0, %%cr0" ::"r"((cr0 | 0x22) & ~0xcull));  // MP, NE; not EM, TS
  SetCr4(Cr4() | 0x40600);                                       // OSFXSR, OSXMMEXCPT, OSXSAVE
  SetCr4(Cr4() | 1 << 22);                                       // PKE
  for (size_t n = 0; n < sizeof kChecks / sizeof kChecks[0]; n++) {
    check = kChecks[n].name;
    failures = 0;
    StartState();
    kChecks[n].run();
    if (failures == 0) {
      Put("ok ");
      Put(check);
    }
    Put("\n");
    Wait();
  }
  Put("end\n");
  for (;;) Wait();
}
