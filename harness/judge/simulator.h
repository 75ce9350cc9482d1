// SPDX-License-Identifier: GPL-2.0-or-later
//
// A perfect system under test: records of a plan as the oracle would write them, every choice that
// is left to it drawn at random. What it writes must always be judged clean (tests/judge). A bug
// may be planted in it: then it must not. Exported tests take what they may expect from many such
// runs.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "harness/judge/context.h"
#include "harness/program/generate.h"

namespace fpswap::judge {

// A bug of the system under test. Either function may be null.
struct Plant {
  const char* name;
  const char* what;  // one sentence
  // Changes what KVM goes by.
  void (*host)(kvm::Host&);
  // Changes the state of all vCPUs behind the back of the step that was just done.
  void (*after)(const program::Step&, World&);
};

class Simulator {
 public:
  // `platform`, and `plant` if there is one, outlive the Simulator.
  explicit Simulator(const trace::Platform& platform, const Plant* plant = nullptr);

  // REQUIRES: no raw step.
  std::vector<uint8_t> Run(const plan::Plan& plan, program::Rng& rng);

  // Called after each step, if set, with its number and the state it leaves.
  std::function<void(uint16_t, const World&)> after_step;

 private:
  Context MakeContext(const plan::Plan& plan, uint16_t number, const StepRecords* hint);
  void Guest(const plan::Plan& plan, uint16_t number, uint8_t cpl, program::Rng& rng);
  void Vmm(const plan::Plan& plan, uint16_t number, program::Rng& rng);
  void DrawHint(Context& c, program::Rng& rng);
  void DrawFreed(kvm::Vcpu& vcpu, uint64_t xfd_before, program::Rng& rng);
  void Record(const Context& c, trace::RecordKind kind, std::span<const uint8_t> head,
              std::span<const uint8_t> tail = {});
  void RecordFault(const Context& c, uint8_t vector, uint32_t error, uint64_t rip,
                   uint64_t address);
  std::vector<uint8_t> DrawImage(size_t size, program::Rng& rng);

  const trace::Platform& platform_;
  const Plant* plant_;
  kvm::Host host_;
  cpu::Features features_;
  std::array<cpu::Features, program::kMaxVcpus> changed_;
  World world_;
  std::array<uint8_t, kScratch> scratch_{};
  std::vector<uint8_t> hint_bytes_;
  std::vector<uint8_t> records_;
  uint32_t area_bytes_ = 0;
};

}  // namespace fpswap::judge
