// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/canary.h"

#include <linux/kvm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "harness/program/step.h"
#include "oracle/xstate/layout.h"

namespace fpswap::kvm {
namespace {

using xstate::Component;

// The FPU registers that the compiler may use. Of these there are no more: agents are built for the
// x86-64 baseline, so no code of theirs holds anything in YMM, ZMM or K registers.
#if defined(__AVX__)
#error "kvm-runner is to be built for the x86-64 baseline"
#endif
#define FPSWAP_FPU_CLOBBERS                                                                       \
  "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "xmm0", "xmm1", "xmm2",    \
      "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15"

constexpr long kArchReqXcompPerm = 0x1023;
constexpr uint16_t kCanaryPattern = 0x4341;

template <typename T>
void Put(std::span<uint8_t> area, size_t at, T value) {
  std::memcpy(&area[at], &value, sizeof(value));
}

// The components among `xcr0` that this thread can load with XRSTOR.
uint64_t Loadable(const cpu::Features& host, uint64_t xcr0) {
  uint64_t mask = xcr0 & host.xsave.xcr0 & ((uint64_t{1} << xstate::kComponentCount) - 1);
  const auto tiledata = static_cast<long>(Component::kTiledata);
  if ((mask & xstate::kAmx) != 0 && syscall(SYS_arch_prctl, kArchReqXcompPerm, tiledata) != 0) {
    mask &= ~xstate::kAmx;
  }
  return mask;
}

void FillLegacy(const cpu::Features& host, std::span<uint8_t> area) {
  Put<uint16_t>(area, 0, 0x027f);  // FCW: 53 bits, all masked
  Put<uint16_t>(area, 2, 0x3800);  // FSW: TOP 7, nothing pending
  Put<uint8_t>(area, 4, 0xff);     // FTW: all in use
  if (host.xsave_err_ptr) {        // AMD parts without it neither save nor load these
    Put<uint16_t>(area, 6, 0x0155);
    Put<uint64_t>(area, 8, 0x0000123456789abc);
    Put<uint64_t>(area, 16, 0x00007edcba987654);
  } else {
    std::memset(&area[6], 0, 18);
  }
  Put<uint32_t>(area, 24, 0xffc0 & host.mxcsr_mask);  // FZ, RC, masks, DAZ: not the usual 1F80H
  Put<uint32_t>(area, 28, 0);
  for (size_t i = 0; i < 8; ++i) std::memset(&area[32 + 16 * i + 10], 0, 6);
}

// Tiles are configured as 8 of 16 rows of 64 bytes (palette 1): then all of TILEDATA is state.
void FillTilecfg(std::span<uint8_t> config) {
  std::memset(config.data(), 0, config.size());
  config[0] = 1;
  for (size_t tile = 0; tile < 8; ++tile) {
    config[16 + 2 * tile] = 64;
    config[48 + tile] = 16;
  }
}

}  // namespace

void FillHostImage(const cpu::Features& host, uint64_t components, uint16_t pattern,
                   std::span<uint8_t> area) {
  program::FillPattern(pattern, area);
  FillLegacy(host, area);
  std::memset(&area[416], 0, 96 + xstate::kHeaderSize);
  Put<uint64_t>(area, xstate::kHeaderOffset, components);
  const auto part = [&](Component c) {
    const auto& sub = host.xsave.sub[static_cast<unsigned>(c)];
    return area.subspan(sub.offset, sub.size);
  };
  if ((components & Bit(Component::kBndcsr)) != 0) {
    std::memset(part(Component::kBndcsr).data(), 0, part(Component::kBndcsr).size());
    // BNDPRESERVE and a base; EN stays 0, lest jumps of ours change BND0-3.
    Put<uint64_t>(part(Component::kBndcsr), 0, 0x0000123456789002);
  }
  if ((components & Bit(Component::kTilecfg)) != 0) FillTilecfg(part(Component::kTilecfg));
}

Canary::Canary(const cpu::Features& host, uint64_t xcr0, unsigned number)
    : host_(host),
      components_(Loadable(host, xcr0)),
      size_(xstate::StandardSize(host.xsave, components_)),
      has_pkru_((components_ & Bit(Component::kPkru)) != 0),
      areas_(4 * kStride) {
  FillHostImage(host, components_, static_cast<uint16_t>(kCanaryPattern + number),
                {Pattern(), kStride});
  Put<uint32_t>({Initial(), kStride}, 24, 0x1f80);  // standard format: MXCSR always comes from here
  if (has_pkru_) {
    // The bytes behind PKRU's four are not state.
    std::memset(Pattern() + host.xsave.sub[9].offset, 0, host.xsave.sub[9].size);
    NotePkru(ReadPkru());
  }
  // What the CPU makes of the pattern, so that its normalisations are no difference.
  Round(SYS_getppid, 0, 0);
  std::memcpy(Expected(), Seen(), size_);
}

void Canary::NotePkru(uint32_t pkru) {
  if (!has_pkru_) return;
  const uint32_t at = host_.xsave.sub[static_cast<unsigned>(Component::kPkru)].offset;
  std::memcpy(Pattern() + at, &pkru, sizeof(pkru));
  std::memcpy(Expected() + at, &pkru, sizeof(pkru));
}

uint32_t Canary::ReadPkru() const {
  uint32_t low = 0, high = 0;
  if (has_pkru_) asm volatile(".byte 0x0f, 0x01, 0xee" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

void Canary::WritePkru(uint32_t pkru) {
  if (!has_pkru_) return;
  asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(pkru), "c"(0), "d"(0) : "memory");
  NotePkru(pkru);
}

long Canary::Round(long number, long a, long b) const {
  const uint64_t keep_pkru = components_ & ~Bit(Component::kPkru);
  register long a0 asm("rdi") = a;
  register long a1 asm("rsi") = b;
  register uint8_t* pattern asm("r8") = Pattern();
  register uint8_t* seen asm("r9") = Seen();
  register uint64_t mask asm("r12") = components_;
  register long result asm("rbx") = number;
  register uint8_t* initial asm("r13") = Initial();
  register uint64_t back asm("r14") = keep_pkru;
  asm volatile(
      "movl %%r12d, %%eax\n\t"
      "movq %%r12, %%rdx\n\t"
      "shrq $32, %%rdx\n\t"
      "xrstor64 (%%r8)\n\t"
      "movq %%rbx, %%rax\n\t"
      "xorl %%edx, %%edx\n\t"
      "syscall\n\t"
      "movq %%rax, %%rbx\n\t"
      "movl %%r12d, %%eax\n\t"
      "movq %%r12, %%rdx\n\t"
      "shrq $32, %%rdx\n\t"
      "xsave64 (%%r9)\n\t"
      // Back to what C code may count on: all initial.
      "movl %%r14d, %%eax\n\t"
      "movq %%r14, %%rdx\n\t"
      "shrq $32, %%rdx\n\t"
      "xrstor64 (%%r13)\n\t"
      : "+r"(result)
      : "r"(a0), "r"(a1), "r"(pattern), "r"(seen), "r"(mask), "r"(initial), "r"(back)
      : "rax", "rcx", "rdx", "r11", "memory", "cc", FPSWAP_FPU_CLOBBERS);
  return result;
}

long Canary::Run(int vcpu) { return Round(SYS_ioctl, vcpu, KVM_RUN); }

long Canary::Fork() { return Round(SYS_fork, 0, 0); }

uint64_t Canary::Differing() const {
  return DifferingComponents(host_, components_, expected(), seen());
}

uint64_t DifferingComponents(const cpu::Features& host, uint64_t components,
                             std::span<const uint8_t> expected, std::span<const uint8_t> seen) {
  if (std::memcmp(expected.data(), seen.data(), expected.size()) == 0) return 0;
  uint64_t differ = 0;
  const auto compare = [&](size_t at, size_t size, uint64_t bit) {
    if (std::memcmp(&expected[at], &seen[at], size) != 0) differ |= bit;
  };
  compare(0, 24, 1);
  compare(32, 128, 1);
  compare(24, 8, 2);
  compare(160, 256, 2);
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    if ((components >> i & 1) == 0) continue;
    compare(host.xsave.sub[i].offset, host.xsave.sub[i].size, uint64_t{1} << i);
  }
  // XSTATE_BV: a component fell back to its initial value, or its bits are equal by chance. PKRU is
  // the one of which the pattern may hold the initial value; whether XINUSE is then 1 is the CPU's
  // choice (SDM vol. 1, 13.6), and XSAVE stores the bytes either way.
  uint64_t before, after;
  std::memcpy(&before, &expected[xstate::kHeaderOffset], sizeof(before));
  std::memcpy(&after, &seen[xstate::kHeaderOffset], sizeof(after));
  return differ | ((before ^ after) & ~Bit(Component::kPkru));
}

void Canary::Dirty(uint16_t pattern) const {
  alignas(64) uint8_t image[kStride];
  const uint64_t mask = components_ & ~Bit(Component::kPkru);
  FillHostImage(host_, mask, pattern, image);
  const auto low = static_cast<uint32_t>(mask), high = static_cast<uint32_t>(mask >> 32);
  asm volatile(
      "xrstor64 (%0)\n\t"
      "xrstor64 (%1)\n\t" ::"r"(image),
      "r"(Initial()), "a"(low), "d"(high)
      : "memory", FPSWAP_FPU_CLOBBERS);
}

}  // namespace fpswap::kvm
