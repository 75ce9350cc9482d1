// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/oracle/host_cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace fpswap::cpu::testing {
namespace {

struct Leaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf Cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Leaf l;
  __get_cpuid_count(leaf, subleaf, &l.eax, &l.ebx, &l.ecx, &l.edx);
  return l;
}

bool BitOf(uint32_t word, unsigned bit) { return (word >> bit) & 1; }

uint64_t Xcr0() {
  uint32_t lo, hi;
  asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return lo | uint64_t{hi} << 32;
}

uint32_t MxcsrMask() {
  alignas(16) uint8_t area[512] = {};
  asm volatile("fxsave64 %0" : "=m"(area));
  uint32_t mask;
  std::memcpy(&mask, area + 28, 4);
  return mask != 0 ? mask : 0xffbf;  // SDM vol. 1, 11.6.6
}

bool IsAmd() {
  const Leaf l = Cpuid(0);
  return l.ebx == 0x68747541 || l.ebx == 0x6f677948;  // "Auth"enticAMD, "Hygo"nGenuine
}

void ReadXsave(xstate::XsaveCpuid& x) {
  const Leaf main = Cpuid(0xd, 0), more = Cpuid(0xd, 1);
  x.xcr0 = main.eax | uint64_t{main.edx} << 32;
  x.xss = more.ecx | uint64_t{more.edx} << 32;
  x.max_size = main.ecx;
  x.xsaveopt = BitOf(more.eax, 0);
  x.xsavec = BitOf(more.eax, 1);
  x.xgetbv1 = BitOf(more.eax, 2);
  x.xsaves = BitOf(more.eax, 3);
  x.xfd = BitOf(more.eax, 4);
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    const Leaf sub = Cpuid(0xd, i);
    x.sub[i] = {sub.eax, sub.ebx, BitOf(sub.ecx, 0), BitOf(sub.ecx, 1), BitOf(sub.ecx, 2)};
  }
}

Features ReadFeatures() {
  Features f;
  ReadXsave(f.xsave);
  const Leaf one = Cpuid(1), seven = Cpuid(7), ext = Cpuid(0x80000008);
  f.amd = IsAmd();
  f.fcs_fds_zero = BitOf(seven.ebx, 13);
  f.fdp_on_exception = BitOf(seven.ebx, 6);
  f.xsave_err_ptr = !f.amd || BitOf(ext.ebx, 2);
  f.mxcsr_mask = MxcsrMask();
  f.avx = BitOf(one.ecx, 28);
  f.fma = BitOf(one.ecx, 12);
  f.avx2 = BitOf(seven.ebx, 5);
  f.mpx = BitOf(seven.ebx, 14);
  f.avx512f = BitOf(seven.ebx, 16);
  f.avx512dq = BitOf(seven.ebx, 17);
  f.avx512bw = BitOf(seven.ebx, 30);
  f.avx512vl = BitOf(seven.ebx, 31);
  f.pku = BitOf(seven.ecx, 3);
  f.amx_tile = BitOf(seven.edx, 24);
  f.amx_int8 = BitOf(seven.edx, 25);
  return f;
}

HostCpu Read() {
  HostCpu host;
  host.features = ReadFeatures();
  host.xcr0 = host.full_xcr0 = Xcr0();
  host.os_pke = BitOf(Cpuid(7).ecx, 4);
  constexpr int kReqXcompPerm = 0x1023, kTiledata = 18;
  const bool asks = std::getenv(kWithoutTiles) == nullptr;
  if ((host.xcr0 & xstate::kAmx) != 0 &&
      (!asks || syscall(SYS_arch_prctl, kReqXcompPerm, kTiledata) != 0)) {
    host.xcr0 &= ~Bit(Component::kTiledata);
  }
  return host;
}

}  // namespace

const HostCpu& Host() {
  static const HostCpu host = Read();
  return host;
}

Cpu HostModel() {
  Cpu cpu(Host().features);
  cpu.xcr0 = Host().xcr0;
  cpu.cr4_pke = Host().os_pke;
  return cpu;
}

}  // namespace fpswap::cpu::testing
