// SPDX-License-Identifier: GPL-2.0-or-later
//
// Planted bugs: what an emulator would do that loses FPU state. They change Unicorn's registers
// between steps or runs; never a record. They measure the fuzzer, which must find each of them.
#pragma once

#include <unicorn/unicorn.h>

#include <span>
#include <string_view>

namespace fpswap::unicorn {

// What has just happened in the program.
struct PlantEvent {
  unsigned faults;  // taken so far in this program; 0: a run ended without one
};

struct PlantRow {
  std::string_view name;
  std::string_view sentence;
  void (*act)(uc_engine* uc, const PlantEvent& event);
};

std::span<const PlantRow> PlantTable();
// Null for a name that is not in the table.
const PlantRow* FindPlant(std::string_view name);

}  // namespace fpswap::unicorn
