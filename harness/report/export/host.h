// SPDX-License-Identifier: GPL-2.0-or-later
//
// The host's side of an exported test: entries into the guest, calls, and what is asserted of them,
// in the order of the program.
//
// Private to harness/report/export.
#pragma once

#include <expected>
#include <set>
#include <string>

#include "harness/report/export/guest.h"

namespace fpswap::report {

// Functions and variables that the body needs.
enum class Helper {
  kCheckBytes,
  kCheckValue,
  kCheckBits,
  kXstateOffset,
  kAreaComponent,
  kInitImage,
  kFillPattern,
  kMoveToCpu,
  kDirtyRegisters,
  kSendInit,
  kRunInterrupted,
  kMigrate,
  kMsr,
  kMsrList,
  kFpu,
  kXcrs,
  kRet,
  kMpState,
  kSetCpuid,
  kRunGuest,
  kWrpkru,
  kMmio,
  kSync,
  kRegset,
  kSendSignal,
};

struct HostCode {
  std::string body;  // statements of main(), indented by a tab
  std::set<Helper> helpers;
};

std::expected<HostCode, std::string> WriteHost(const ExportRequest& request,
                                               const Prediction& prediction,
                                               const std::vector<StepChecks>& checks,
                                               const GuestCode& guest, TestData& data);

// "GP_VECTOR"
const char* VectorName(uint8_t vector);
// "vcpu", or "vcpu1" where there are several; the same of VMs.
std::string VcpuName(const program::Program& program, unsigned vcpu);
std::string VmName(const program::Program& program, unsigned vcpu);

}  // namespace fpswap::report
