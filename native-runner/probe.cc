// SPDX-License-Identifier: GPL-2.0-or-later
#include "native-runner/probe.h"

#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "harness/plan/kmsg.h"
#include "harness/program/step.h"
#include "harness/trace/host_features.h"

namespace fpswap::native {
namespace {

using program::Actor;
using program::Op;
using program::StepRow;

constexpr long kArchReqXcompPerm = 0x1023;  // asm/prctl.h, Linux 5.16

// Null where native can run the step.
const char* WhyNot(const StepRow& row, bool mpx) {
  switch (row.op) {
    case Op::kHostCpu:
    case Op::kHostDirty:
    case Op::kHostSignal:
    case Op::kExitPageFault:
    case Op::kImageInit:
    case Op::kImageWrite:
    case Op::kImageFill:
      return nullptr;
    case Op::kRaw:
      return "native runs no raw code: it could do anything to the runner";
    case Op::kExitOut:
    case Op::kExitMmioRead:
    case Op::kExitMmioWrite:
    case Op::kExitMmioVector:
    case Op::kExitCpuid:
      return "native has no VMM to exit to";
    default:
      break;
  }
  if (row.actor == Actor::kVmm) return "native has no VMM";
  if (row.actor == Actor::kSystem && mpx) {
    return "between runs native keeps the bound registers in memory, where this step would miss "
           "them";
  }
  if (row.actor == Actor::kHost) return "native has no KVM_RUN for the host to disturb so";
  if (row.cpl0) return "native runs at CPL 3 only";
  return nullptr;
}

void ListSteps(trace::Platform& platform) {
  for (const StepRow& row : program::StepTable()) {
    const auto op = static_cast<uint8_t>(row.op);
    const char* reason = WhyNot(row, (platform.host_xcr0 & xstate::kMpx) != 0);
    platform.can[op] = reason == nullptr;
    if (reason != nullptr) platform.cannot.emplace_back(op, reason);
  }
}

}  // namespace

std::expected<trace::Platform, std::string> ProbeHost(const cpu_set_t& allowed) {
  trace::Platform p;
  p.target = "native";
  p.cpu = trace::BrandString(trace::HostCpuid);
  p.cpu_family = trace::DisplayFamily(trace::HostCpuid);
  utsname names{};
  if (uname(&names) == 0) p.kernel = names.release;
  p.host = trace::HostFeatures();
  p.guest = p.host;
  p.guest_fixed = true;
  p.host_xcr0 = trace::HostXcr0();
  if (p.host_xcr0 == 0) return std::unexpected("the kernel does not use XSAVE on this CPU");
  if ((p.host_xcr0 & Bit(xstate::Component::kTiledata)) != 0 &&
      syscall(SYS_arch_prctl, kArchReqXcompPerm, static_cast<long>(xstate::Component::kTiledata)) !=
          0) {
    return std::unexpected(std::string("ARCH_REQ_XCOMP_PERM for AMX tiles: ") +
                           std::strerror(errno));
  }
  p.guest_supp = p.host_xcr0;
  p.guest_perm = p.host_xcr0;
  p.xsave_size = xstate::StandardSize(p.host.xsave, p.host_xcr0);
  p.compacted = p.host.xsave.xsaves || p.host.xsave.xsavec;
  p.kernel_log = wire::Kmsg().readable();
  p.cpus = static_cast<uint32_t>(CPU_COUNT(&allowed));
  p.vcpus = 1;
  ListSteps(p);
  return p;
}

void WithdrawRegsets(trace::Platform& platform, const char* reason) {
  for (const Op op : {Op::kOsGetRegset, Op::kOsSetRegset}) {
    const auto number = static_cast<uint8_t>(op);
    if (!platform.can[number]) continue;
    platform.can.reset(number);
    platform.cannot.emplace_back(number, reason);
  }
}

}  // namespace fpswap::native
