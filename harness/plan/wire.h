// SPDX-License-Identifier: GPL-2.0-or-later
//
// What goes over the stream between the harness and an agent: frames. Shared by both ends, so it
// depends on nothing but the standard library and step.h, and allocates only through std::vector.
//
//   frame: u32 magic "FPSW", u16 type, u16 flags (0), u32 length, u32 crc32c of the payload,
//   payload
//
// A reader that loses its place searches for the next magic whose header and crc hold.
//
// Harness to agent: kHello (words as on an agent's command line, each with a NUL behind it; the
// agent takes them beside those it was started with), kPlans (a batch).
// Agent to harness: kPlatform (JSON), kBegin (u32 number of the plan in the batch, said before it
// runs), kCoverage (u32 number, then a u16 for each edge of the kernel that the plan reached, in
// any order; only where the platform says that there is coverage), kRecords (u32 number, then its
// records), kBatchDone, kError (a sentence).
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/program/step.h"

namespace fpswap::wire {

inline constexpr uint32_t kFrameMagic = 0x57535046;  // "FPSW"
inline constexpr size_t kFrameHeader = 16;
inline constexpr size_t kMaxFrame = 16u << 20;
inline constexpr size_t kEdges = 1u << 16;  // different ones there can be in kCoverage

enum class FrameType : uint16_t {
  kHello = 1,
  kPlans = 2,
  kPlatform = 16,
  kBegin = 17,
  kRecords = 18,
  kBatchDone = 19,
  kError = 20,
  kCoverage = 21
};

uint32_t Crc32c(std::span<const uint8_t> bytes);

void AppendFrame(std::vector<uint8_t>& out, FrameType type, std::span<const uint8_t> payload);

// Cuts a byte stream into frames. Bounded: never holds more than one frame of kMaxFrame.
class FrameReader {
 public:
  struct Frame {
    FrameType type;
    std::span<const uint8_t> payload;  // valid until the next call
  };
  void Feed(std::span<const uint8_t> bytes);
  std::optional<Frame> Next();
  uint64_t skipped_bytes() const { return skipped_; }               // garbage passed over
  size_t pending_bytes() const { return buffer_.size() - begin_; }  // of a frame not whole yet

 private:
  std::vector<uint8_t> buffer_;
  size_t begin_ = 0;
  uint64_t skipped_ = 0;
};

// A plan as an agent sees it: views into the frame.
struct PlanCode {  // plan::CodeRow
  uint32_t code, instruction, journal, journal_bytes;
};
struct PlanAction {  // plan::Action
  uint8_t kind, vcpu, cpl, pad;
  uint16_t first, last;
};
struct PlanView {
  uint64_t features = 0, xcr0 = 0;
  uint32_t area_size = 0;
  uint8_t vcpus = 1;
  bool pke = false;
  bool own_vm = false, own_thread = false;  // program::Program's
  bool spoils_vcpu = false;
  std::span<const uint8_t> code, literals;
  std::vector<program::Step> steps;
  std::vector<PlanCode> rows;
  std::vector<PlanAction> actions;
};

// Reads one plan from the front of `bytes` and removes it. Total: bad input is an error sentence,
// and every offset, count and size of an accepted plan is within plan.h's bounds.
std::expected<PlanView, std::string> ReadPlan(std::span<const uint8_t>& bytes);

}  // namespace fpswap::wire
