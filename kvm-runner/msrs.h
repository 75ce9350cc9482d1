// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/kvm.h>

#include <cstdint>

namespace fpswap::kvm {

// struct kvm_msrs with room.
struct MsrTable {
  static constexpr uint32_t kRoom = 16;
  uint32_t nmsrs = 0;
  uint32_t pad = 0;
  kvm_msr_entry entries[kRoom]{};

  void Add(uint32_t index, uint64_t value) {
    if (nmsrs < kRoom) entries[nmsrs++] = {.index = index, .reserved = 0, .data = value};
  }
};

}  // namespace fpswap::kvm
