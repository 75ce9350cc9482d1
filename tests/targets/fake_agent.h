// SPDX-License-Identifier: GPL-2.0-or-later
//
// An agent that does to the harness what a broken one might. A program tells it what by the value
// of its first mem.write step (enum Mischief); programs without one end well.
#pragma once

#include <cstdint>
#include <string_view>

#include "harness/program/program.h"
#include "harness/targets/agent_target.h"

namespace fpswap::targets {

inline constexpr std::string_view kActAsAgent = "--act-as-agent";

enum class Mischief : uint64_t {
  kNone = 0,
  kExit,          // ends with status 7
  kKill,          // dies by SIGKILL
  kGarbage,       // bytes that are no frame
  kHalfFrame,     // a frame's head and nothing behind it, then the end
  kHugeFrame,     // a head that promises 4 GiB
  kSilence,       // says nothing any more
  kBadRecords,    // records that end in the middle
  kNoEnd,         // records without an End
  kWrongNumber,   // records of another program
  kTwice,         // the same records two times
  kDoneTooEarly,  // says the batch is through
  kBigRecords,    // a megabyte of good records
  kHang,          // hangs each time
  kHangOnce,      // hangs unless it has more time than usual
  kPanic,         // says so on the machine's console and dies
  kPanicHalf,     // the same after a frame's head
  kHalfOnce,      // a frame's head and nothing behind it, then silence; not if it is the second run
  kEdges,         // tells of kFakeEdges of the kernel, and is good
  kHalfEdge,      // coverage that ends in the middle of an edge
  kManyEdges,     // more edges than there can be
  kOthersEdges,   // coverage of another program
  kLast,
};

inline constexpr uint16_t kFakeEdges[] = {0, 7, 0xffff};

// Runs as the agent.
int ActAsAgent(std::string_view argument);

inline constexpr std::string_view kCountsRuns = "counts=";

// How to start it. `mode` is "" or "no-hello", "bad-platform", "dies", "refuses", or kCountsRuns
// and a file, to which each run adds a byte.
AgentCommand FakeAgent(std::string_view mode = "");

program::Program MischiefProgram(Mischief what);

}  // namespace fpswap::targets
