// SPDX-License-Identifier: GPL-2.0-or-later
//
// Planted bugs: what a broken KVM would do, done from outside. They act on the vCPU's state, on
// what an ioctl hands over or on the VMM's registers as they are looked at, each under a condition
// that a program must reach. They measure the fuzzer: it must find each of them.
//
// Not thread safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "harness/plan/vmm.h"
#include "harness/program/step.h"
#include "kvm-runner/vm.h"

namespace fpswap::kvm {

// What has happened in the program so far: what conditions are made of.
struct Happenings {
  unsigned exits = 0;  // KVM_RUNs that came back with an exit
  unsigned gets = 0;   // GET_XSAVE and GET_XSAVE2
  unsigned immediate_exits = 0;
  unsigned migrations = 0;
  bool cpu_changed = false;  // since the last KVM_RUN
  bool dirtied = false;      // by the competitor, since the last KVM_RUN
  bool signalled = false;    // the last KVM_RUN saw a signal
  bool xcr0_set = false;     // XSETBV or KVM_SET_XCRS in the program
  uint32_t last_exit = 0;    // KVM_EXIT_*
  uint32_t faults = 0;
  unsigned forks = 0;
};

// The state of a vCPU as a plant sees and changes it: one image, read when first asked for and
// written back if it was changed.
class PlantedState {
 public:
  PlantedState(const Host& host, Vcpu& vcpu) : host_(host), vcpu_(vcpu) {}
  bool Read();
  void Write();
  std::span<uint8_t> image() { return image_; }
  uint64_t xstate_bv() const;
  void set_xstate_bv(uint64_t value);
  // The bytes of component `i` >= 2; empty where the guest lacks it.
  std::span<uint8_t> Part(unsigned i);
  uint64_t Xcr0() const;
  void SetXcr0(uint64_t value);
  Vcpu& vcpu() { return vcpu_; }

 private:
  const Host& host_;
  Vcpu& vcpu_;
  std::vector<uint8_t> image_;
};

enum class PlantPoint : uint8_t {
  kStart,      // the program begins, the vCPU is at its starting state
  kBeforeRun,  // before each KVM_RUN
  kAfterRun,   // after each KVM_RUN, its exit known
  kGetXsave,   // an image was read: `image`
  kSetXsave,   // an image was given: `image`, `result`
  kSetXcrs,    // `xcrs`, `result`
  kMigrated,   // into this vCPU
  kForked,     // the VMM has a child
};

struct PlantEvent {
  PlantPoint point;
  const Happenings& happened;
  Vcpu& vcpu;
  std::span<uint8_t> image = {};
  int result = 0;
  uint64_t value = 0;  // kMigrated: XCR0 before
  const plan::XcrList* xcrs = nullptr;
  uint8_t* canary = nullptr;  // kAfterRun: what was seen of the host's registers
  Vcpu* other = nullptr;      // the next vCPU of the program, if it has several
  unsigned thread = 0;        // number of the thread that does it
};

// A planted bug's own memory: what a broken kernel would have kept in the wrong place.
struct PlantMemory {
  std::vector<uint8_t> image;
  uint64_t value = 0;
  bool flag = false;
  unsigned count = 0;
};

struct PlantRow {
  std::string_view name;
  std::string_view sentence;
  std::string_view law;
  void (*act)(const Host&, const PlantEvent&, PlantMemory&);
};

std::span<const PlantRow> PlantTable();
// Null for a name that is not in the table.
const PlantRow* FindPlant(std::string_view name);

}  // namespace fpswap::kvm
