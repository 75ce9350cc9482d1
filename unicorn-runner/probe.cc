// SPDX-License-Identifier: GPL-2.0-or-later
#include "unicorn-runner/probe.h"

#include <sys/utsname.h>
#include <unicorn/unicorn.h>

#include "harness/program/step.h"
#include "oracle/xstate/layout.h"

namespace fpswap::unicorn {
namespace {

using program::Actor;
using program::Needs;
using program::Op;
using program::StepRow;
using xstate::Component;

// Null where Unicorn runs the step; its wrong answers to steps that it runs are in
// harness/plan/unicorn_limits.cc. Measured on 2.0.1.
const char* WhyNot(const StepRow& row) {
  if (row.actor == Actor::kVmm) return "Unicorn has no VMM";
  if (row.actor == Actor::kSystem) return "Unicorn has no kernel";
  if (row.actor == Actor::kHost) return "nothing of the host disturbs Unicorn's registers";
  switch (row.op) {
    case Op::kRaw:
      return "Unicorn gets no raw code: what it does wrong could not be told from the rest";
    case Op::kExitOut:
    case Op::kExitMmioRead:
    case Op::kExitMmioWrite:
    case Op::kExitMmioVector:
    case Op::kExitHlt:
    case Op::kExitMsr:
      return "Unicorn has no VMM to exit to";
    case Op::kExitCpuid:
      return "Unicorn's CPUID leaf 0DH is all zeros";
    case Op::kXgetbv:
    case Op::kXsetbv:
      return "Unicorn has no XCR0";
    case Op::kRdmsr:
    case Op::kWrmsr:
      return "Unicorn has neither IA32_XSS nor IA32_XFD, and reads MSRs it lacks as 0";
    default:
      break;
  }
  switch (row.needs) {
    case Needs::kBase:
    case Needs::kPku:
      return nullptr;
    case Needs::kXsave:
    case Needs::kXsaveopt:
    case Needs::kXsavec:
    case Needs::kXsaves:
      return "Unicorn has no XSAVE and its like";
    case Needs::kMpx:
      return "Unicorn's BNDCFGU could only be set by XRSTOR, which it has not";
    default:  // AVX and AVX-512
      return "Unicorn runs VEX and EVEX code as legacy SSE, or as nothing, without an error";
  }
}

}  // namespace

trace::Platform DescribeUnicorn() {
  trace::Platform p;
  p.target = "unicorn";
  unsigned major = 0, minor = 0;
  uc_version(&major, &minor);
  p.cpu = "Unicorn " + std::to_string(major) + "." + std::to_string(minor) + " (Icelake-Server)";
  utsname names{};
  if (uname(&names) == 0) p.kernel = names.release;
  cpu::Features& f = p.host;
  // No XCR0 and no leaf 0DH: this only says which components there are.
  f.xsave = xstate::XsaveCpuid::Typical(xstate::kX87Sse | Bit(Component::kPkru), 0);
  f.xsave.xsaveopt = f.xsave.xsavec = f.xsave.xgetbv1 = f.xsave.xsaves = f.xsave.xfd = false;
  f.pku = true;
  // It keeps no FOP, FIP and FDP, and stores zeros; as AMD parts do without a pending exception.
  f.amd = true;
  p.guest = p.host;
  p.guest_fixed = true;
  p.host_xcr0 = p.guest_supp = p.guest_perm = f.xsave.xcr0;
  p.xsave_size = xstate::StandardSize(f.xsave, f.xsave.xcr0);
  p.compacted = false;
  p.cpus = 1;
  p.vcpus = 1;
  for (const StepRow& row : program::StepTable()) {
    const auto op = static_cast<uint8_t>(row.op);
    const char* reason = WhyNot(row);
    p.can[op] = reason == nullptr;
    if (reason != nullptr) p.cannot.emplace_back(op, reason);
  }
  return p;
}

}  // namespace fpswap::unicorn
