// SPDX-License-Identifier: GPL-2.0-or-later
//
// Planted bugs: what an emulator would do that loses FPU state at a fault. They change Unicorn's
// registers; never a record. They measure the fuzzer, which must find each of them.
#pragma once

#include <unicorn/unicorn.h>

#include <span>
#include <string_view>

namespace fpswap::unicorn {

struct PlantRow {
  std::string_view name;
  std::string_view sentence;
  // Called after each fault; `faults` is how many the program has taken so far.
  void (*act)(uc_engine* uc, unsigned faults);
};

std::span<const PlantRow> PlantTable();
// Null for a name that is not in the table.
const PlantRow* FindPlant(std::string_view name);

}  // namespace fpswap::unicorn
