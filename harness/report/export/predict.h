// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a program must show on every machine that a test may run on, by the oracle alone.
//
// The program is simulated many times: with each choice that the manual or KVM's contract leaves
// drawn anew, on CPUs of either vendor, with and without the components that it does not need, with
// images kept in either format, and with its code elsewhere. What comes out the same every time is
// what a test may expect, bit by bit; the rest is nobody's to assert.
//
// Private to harness/report/export.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/report/export/export.h"
#include "harness/report/export/fields.h"
#include "harness/trace/platform.h"

namespace fpswap::report {

// Bytes, and which of their bits are the same in every simulation.
struct Foretold {
  std::vector<uint8_t> value, fixed;
  bool empty() const { return value.empty(); }
  bool IsFixed(size_t at, size_t size) const;
};

struct ForetoldStep {
  unsigned seen = 0;    // simulations in which it left a record
  unsigned faults = 0;  // of these it faulted in
  uint8_t vector = 0;   // of the fault, where there is one
  bool one_vector = true;
  bool pkru_fault = false;  // #PF with the PK bit
  unsigned exits = 0;
  Foretold exit_data[2];  // 8 bytes each
  uint64_t exit_where[2] = {0, 0};
  uint8_t exit_size[2] = {0, 0};
  Foretold journal;
  Foretold data;  // what an ioctl gave
  int result = 0, error = 0;
  bool one_result = true;
  // Bytes of a standard-format image that any vCPU, or an image given to one, has had other than
  // initial before this step: where something stale could show.
  std::vector<bool> touched;
  // Bytes of a slot, any of them, that have been other than 0 before this step.
  std::vector<bool> written;
};

// A register that a call shows and that the guest stores later, before anything else is in its
// image: what it is may be left to the machine, that both are the same is not.
struct ShownAndStored {
  size_t shown, stored;  // steps
  Field field;           // of what the call gives
  bool always = true;
};

struct Prediction {
  plan::Plan plan;           // of the smallest machine that can run the program
  trace::Platform platform;  // that machine
  std::vector<ForetoldStep> steps;
  std::vector<ShownAndStored> agreements;  // those that held in every simulation
  unsigned runs = 0;                       // simulations in all
  uint64_t components = 0;                 // XCR0 bits that the program needs
  uint64_t supervisor = 0;                 // IA32_XSS bits
  uint64_t absent = 0;                     // XCR0 bits that it needs the machine not to have
  size_t known_until = 0;                  // from this step on nothing is foretold: raw code
};

// `platform` says what the program's offsets into images mean. A selftest's whole guest runs at
// CPL 0; a thread has all that the machine has, and no VMM.
Prediction Predict(const program::Program& program, const trace::Platform& platform,
                   ExportFormat format);

}  // namespace fpswap::report
