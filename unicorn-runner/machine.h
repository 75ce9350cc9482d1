// SPDX-License-Identifier: GPL-2.0-or-later
//
// The Unicorn machine: runs the guest steps of plans in Unicorn, in this process. Memory is flat
// (no paging) and all code runs at CPL 0; what that, and what Unicorn itself, can't do is trimmed
// from plans (probe.cc, harness/plan/unicorn_limits.h).
//
// One in a process, for its hang timer is the process's. Not thread safe.
#pragma once

#include <unicorn/unicorn.h>

#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/plan/agent_loop.h"
#include "harness/plan/plan.h"
#include "harness/trace/record.h"
#include "unicorn-runner/plants.h"

namespace fpswap::unicorn {

struct MachineOptions {
  unsigned hang_ms = 2000;
  std::string_view plant;  // a name of PlantTable(), or ""
};

class UnicornMachine : public wire::Machine {
 public:
  // A sentence where Unicorn does not start.
  static std::expected<std::unique_ptr<UnicornMachine>, std::string> Open(
      const MachineOptions& options);
  ~UnicornMachine() override;

  std::expected<std::string, std::string> Platform() override;
  void Run(const wire::PlanView& plan, std::vector<uint8_t>& records) override;

 private:
  struct Freer {
    void operator()(void* memory) const;
  };

  explicit UnicornMachine(const MachineOptions& options);

  uint8_t* At(uint64_t address) const { return memory_.get() + (address - plan::kGuestBase); }
  // Nothing on success.
  std::optional<std::string> MakeEngine();
  void CloseEngine();
  std::optional<std::string> PutCode(std::span<const uint8_t> code);
  std::optional<std::string> HookPageFaults(const wire::PlanView& plan);
  std::optional<std::string> Begin(const wire::PlanView& plan);
  // Runs steps [first, last] and appends their records. The step at which the program hung or
  // Unicorn stopped for no reason known, if it did.
  struct Stop {
    trace::EndReason reason;
    unsigned step;
    std::string text;
  };
  std::optional<Stop> RunSteps(const wire::PlanView& plan, const wire::PlanAction& action,
                               std::vector<uint8_t>& records);
  // What made Unicorn stop at an instruction; nothing if it came to kReturnPad.
  std::optional<trace::FaultRecord> FaultOf(uc_err error, uint64_t rip, unsigned cpl) const;

  const PlantRow* plant_;
  std::unique_ptr<uint8_t, Freer> memory_;
  uc_engine* uc_ = nullptr;
  uc_context* initial_ = nullptr;     // every program's start, but for CR4.PKE
  std::vector<uc_hook> page_faults_;  // of the program last begun
  unsigned programs_ = 0;             // run by this engine
  unsigned faults_ = 0;               // of the program so far

  // Set by Unicorn's hooks while it runs.
  struct Seen {
    std::optional<uint8_t> vector;
    std::optional<uint64_t> address;  // of an access to memory that is not there
  } seen_;
  static void OnInterrupt(uc_engine* uc, uint32_t vector, void* seen);
  static bool OnBadMemory(uc_engine* uc, uc_mem_type type, uint64_t address, int size,
                          int64_t value, void* seen);
  static void OnInstruction(uc_engine* uc, uint64_t address, uint32_t size, void* seen);
};

}  // namespace fpswap::unicorn
