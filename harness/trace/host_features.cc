// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/trace/host_features.h"

#include <cpuid.h>

#include <cstring>

namespace fpswap::trace {
namespace {

constexpr bool BitOf(uint32_t word, unsigned bit) { return ((word >> bit) & 1) != 0; }

std::string VendorString(const CpuidSource& cpuid) {
  const CpuidLeaf leaf = cpuid(0, 0);
  char text[12];
  std::memcpy(text, &leaf.ebx, 4);
  std::memcpy(text + 4, &leaf.edx, 4);
  std::memcpy(text + 8, &leaf.ecx, 4);
  return {text, sizeof(text)};
}

xstate::XsaveCpuid XsaveFromCpuid(const CpuidSource& cpuid) {
  xstate::XsaveCpuid x;
  if (cpuid(0, 0).eax < 0xd || !BitOf(cpuid(1, 0).ecx, 26)) return x;  // CPUID.1:ECX.XSAVE
  const CpuidLeaf main = cpuid(0xd, 0);
  const CpuidLeaf more = cpuid(0xd, 1);
  x.xcr0 = main.eax | (uint64_t{main.edx} << 32);
  x.max_size = main.ecx;
  x.xsaveopt = BitOf(more.eax, 0);
  x.xsavec = BitOf(more.eax, 1);
  x.xgetbv1 = BitOf(more.eax, 2);
  x.xsaves = BitOf(more.eax, 3);
  x.xfd = BitOf(more.eax, 4);
  x.xss = more.ecx | (uint64_t{more.edx} << 32);
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    if ((((x.xcr0 | x.xss) >> i) & 1) == 0) continue;
    const CpuidLeaf sub = cpuid(0xd, i);
    x.sub[i] = {.size = sub.eax,
                .offset = sub.ebx,
                .supervisor = BitOf(sub.ecx, 0),
                .align64 = BitOf(sub.ecx, 1),
                .xfd = BitOf(sub.ecx, 2)};
  }
  return x;
}

}  // namespace

CpuidLeaf HostCpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidLeaf out;
  __cpuid_count(leaf, subleaf, out.eax, out.ebx, out.ecx, out.edx);
  return out;
}

cpu::Features FeaturesFromCpuid(const CpuidSource& cpuid, uint32_t mxcsr_mask) {
  cpu::Features f;
  f.xsave = XsaveFromCpuid(cpuid);
  f.mxcsr_mask = mxcsr_mask;
  const CpuidLeaf one = cpuid(1, 0);
  const CpuidLeaf seven = cpuid(0, 0).eax >= 7 ? cpuid(7, 0) : CpuidLeaf{};
  const uint32_t extended = cpuid(0x80000000, 0).eax;
  const std::string vendor = VendorString(cpuid);
  f.amd = vendor == "AuthenticAMD" || vendor == "HygonGenuine";
  f.osfxsr_ffxsr = extended >= 0x80000001 && BitOf(cpuid(0x80000001, 0).edx, 25);
  // AMD APM vol. 3, E.4.7: Fn8000_0008_EBX[2] (XSAVE/XRSTOR save and restore error pointers
  // always).
  f.xsave_err_ptr = !f.amd || (extended >= 0x80000008 && BitOf(cpuid(0x80000008, 0).ebx, 2));
  f.fcs_fds_zero = BitOf(seven.ebx, 13);
  f.fdp_on_exception = BitOf(seven.ebx, 6);
  f.avx = BitOf(one.ecx, 28);
  f.fma = BitOf(one.ecx, 12);
  f.avx2 = BitOf(seven.ebx, 5);
  f.mpx = BitOf(seven.ebx, 14);
  f.avx512f = BitOf(seven.ebx, 16);
  f.avx512dq = BitOf(seven.ebx, 17);
  f.avx512bw = BitOf(seven.ebx, 30);
  f.avx512vl = BitOf(seven.ebx, 31);
  f.pku = BitOf(seven.ecx, 3);
  f.amx_bf16 = BitOf(seven.edx, 22);
  f.amx_tile = BitOf(seven.edx, 24);
  f.amx_int8 = BitOf(seven.edx, 25);
  return f;
}

uint32_t HostMxcsrMask() {
  alignas(16) uint8_t image[512] = {};
  asm volatile("fxsave64 %0" : "=m"(image));
  uint32_t mask;
  std::memcpy(&mask, image + 28, sizeof(mask));
  return mask != 0 ? mask : 0xffbf;  // SDM vol. 1, 11.6.6: 0 stands for FFBFH
}

cpu::Features HostFeatures() { return FeaturesFromCpuid(HostCpuid, HostMxcsrMask()); }

uint64_t HostXcr0() {
  if (!BitOf(HostCpuid(1, 0).ecx, 27)) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | (uint64_t{high} << 32);
}

uint32_t DisplayFamily(const CpuidSource& cpuid) {
  const uint32_t eax = cpuid(1, 0).eax;
  const uint32_t family = (eax >> 8) & 0xf;
  return family == 0xf ? family + ((eax >> 20) & 0xff) : family;
}

std::string BrandString(const CpuidSource& cpuid) {
  if (cpuid(0x80000000, 0).eax < 0x80000004) return VendorString(cpuid);
  char text[48];
  for (uint32_t i = 0; i < 3; ++i) {
    const CpuidLeaf leaf = cpuid(0x80000002 + i, 0);
    std::memcpy(text + 16 * i, &leaf, sizeof(leaf));
  }
  std::string brand(text, strnlen(text, sizeof(text)));
  brand.erase(0, brand.find_first_not_of(' '));
  while (!brand.empty() && brand.back() == ' ') brand.pop_back();
  return brand.empty() ? VendorString(cpuid) : brand;
}

}  // namespace fpswap::trace
