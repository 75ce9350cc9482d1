// SPDX-License-Identifier: GPL-2.0-or-later
//
// A program as C that a kernel maintainer can read and run: a KVM selftest, or a file of its own.
//
// All are one text but for their surroundings: the selftest stands on the library of
// tools/testing/selftests/kvm, the others on a few functions that go with them, over the raw ioctls
// or over ptrace.
// What a test expects comes from the oracle alone (predict.h), never from an observed run.
//
// Pure functions.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "harness/judge/verdict.h"
#include "harness/program/program.h"
#include "harness/trace/platform.h"

namespace fpswap::report {

enum class ExportFormat : uint8_t {
  kSelftest,
  kC,       // of a program with steps of the system: kThread
  kThread,  // no vCPU: the guest's code is a child of the test, which traces it
};

// What a known divergence is about, where no trace says exactly which observation it is.
struct ExportFocus {
  std::vector<program::Op> ops;  // the kinds of step; none: all
  uint64_t components = 0;       // bits; 0: all
  std::string field;             // "MXCSR"; "": all
};

struct ExportRequest {
  program::Program program;  // effective: what the platform lacks is trimmed already
  trace::Platform platform;  // whose layout the program's offsets into images mean
  // The one to be shown: only its observation is asserted. None: every observation of which the
  // oracle allows exactly one value.
  std::optional<judge::Divergence> divergence;
  std::optional<ExportFocus> focus;
  std::string title;                  // one line, no full stop
  std::vector<std::string> about;     // paragraphs of the head comment
  std::vector<std::string> comments;  // by step; "" for none
  ExportFormat format = ExportFormat::kSelftest;
};

// Whether a program has steps of the system (os.*), which are about a thread and no vCPU.
bool IsAboutAThread(const program::Program& program);

// The text of the C file. The error says which step has no counterpart there, or that the oracle
// allows everything that the program could show.
std::expected<std::string, std::string> ExportC(const ExportRequest& request);

}  // namespace fpswap::report
