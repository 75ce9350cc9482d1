// SPDX-License-Identifier: GPL-2.0-or-later
//
// How planted bugs reach a vCPU's state: through the same ioctls as everyone.
#include <cstring>

#include "kvm-runner/kvm_api.h"
#include "kvm-runner/plants.h"
#include "oracle/xstate/layout.h"

namespace fpswap::kvm {

bool PlantedState::Read() {
  image_.resize(host_.xsave_size);
  const int fd = vcpu_.fd.get();
  return (host_.xsave2 ? kvm_get_xsave2(fd, image_.data()) : kvm_get_xsave(fd, image_.data())) == 0;
}

void PlantedState::Write() { kvm_set_xsave(vcpu_.fd.get(), image_.data()); }

uint64_t PlantedState::xstate_bv() const {
  uint64_t value;
  std::memcpy(&value, &image_[xstate::kHeaderOffset], sizeof(value));
  return value;
}

void PlantedState::set_xstate_bv(uint64_t value) {
  std::memcpy(&image_[xstate::kHeaderOffset], &value, sizeof(value));
}

std::span<uint8_t> PlantedState::Part(unsigned i) {
  const trace::CpuidLeaf leaf = host_.cpuid.Get(0xd, i);
  if (leaf.eax == 0 || leaf.ebx + size_t{leaf.eax} > image_.size()) return {};
  return std::span(image_).subspan(leaf.ebx, leaf.eax);
}

uint64_t PlantedState::Xcr0() const {
  kvm_xcrs xcrs{};
  kvm_get_xcrs(vcpu_.fd.get(), &xcrs);
  return xcrs.xcrs[0].value;
}

void PlantedState::SetXcr0(uint64_t value) {
  kvm_xcrs xcrs{.nr_xcrs = 1};
  xcrs.xcrs[0].value = value;
  kvm_set_xcrs(vcpu_.fd.get(), &xcrs);
}

}  // namespace fpswap::kvm
