// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/platforms.h"

#include <fmt/format.h>

#include "harness/files/files.h"
#include "harness/program/program.h"
#include "harness/targets/lab.h"
#include "harness/trace/trace.h"

namespace fpswap::campaign {

trace::Platform EverythingPlatform() {
  using xstate::Component;
  cpu::Features features;
  // MPX and APX share a standard offset; no machine has both (semantics of XCR0 bit 19).
  features.xsave = xstate::XsaveCpuid::Typical(program::kAllFeatures | xstate::kMpx,
                                               xstate::Bit(Component::kCetU) | Component::kCetS);
  features.avx = features.avx2 = features.fma = features.avx512f = features.avx512bw =
      features.avx512dq = features.avx512vl = features.mpx = features.pku = features.amx_tile =
          features.amx_int8 = features.amx_bf16 = features.cet_ss = features.cet_ibt = true;
  trace::Platform platform;
  platform.target = "simulated";
  platform.cpu = "a CPU that has every component";
  platform.host = platform.guest = features;
  platform.host_xcr0 = platform.guest_supp = platform.guest_perm = features.xsave.xcr0;
  platform.xsave_size = features.xsave.max_size;
  platform.cpus = 2;
  platform.vcpus = program::kMaxVcpus;
  for (const program::StepRow& row : program::StepTable()) {
    platform.can.set(static_cast<uint8_t>(row.op));
  }
  return platform;
}

namespace {

// Keeps what the machine is: `fpswap doctor` shows it without starting the machine.
std::expected<std::unique_ptr<targets::Target>, targets::Unavailable> OpenLab(
    std::string_view name, const targets::Options& options) {
  auto target = targets::OpenTarget(name, options);
  const auto lab =
      targets::ReadLab(targets::LabsFolder() / name.substr(targets::kLabPrefix.size()));
  if (target && lab) {
    // A folder that can't be written to costs only that.
    (void)files::WriteFile(targets::PlatformFile(*lab),
                           trace::PlatformToJson((*target)->platform()));
  }
  return target;
}

}  // namespace

std::expected<std::unique_ptr<targets::Target>, targets::Unavailable> Open(
    std::string_view name, const targets::Options& options) {
  if (name.starts_with(targets::kLabPrefix)) return OpenLab(name, options);
  if (name != "auto") return targets::OpenTarget(name, options);
  targets::Unavailable all;
  for (const std::string_view each : targets::TargetNames()) {
    auto target = targets::OpenTarget(each, options);
    if (target) return target;
    const char* separator = all.reason.empty() ? "" : "; ";
    all.reason += fmt::format("{}{}: {}", separator, each, target.error().reason);
    all.remedy += fmt::format("{}{}: {}", separator, each, target.error().remedy);
  }
  return std::unexpected(all);
}

}  // namespace fpswap::campaign
