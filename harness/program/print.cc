// SPDX-License-Identifier: GPL-2.0-or-later
//
// Printing programs (text.h). The parser is in text.cc.
#include <fmt/format.h>

#include "harness/program/arg.h"
#include "harness/program/names.h"
#include "harness/program/text.h"
#include "oracle/xstate/component.h"

namespace fpswap::program {
namespace {

// Small numbers as a person would write them, others as the manuals do.
std::string Number(uint64_t value) {
  return value < 10 ? fmt::format("{}", value) : fmt::format("{:#x}", value);
}

std::string PrintBytes(const Step& step) {
  std::string out;
  for (unsigned n = 0; n < step.arg[0]; ++n) out += fmt::format("{:02x}", RawByte(step, n));
  return out;
}

std::string PrintValue(ArgKind kind, uint64_t value) {
  switch (kind) {
    case ArgKind::kMask:
      return PrintMask(value);
    case ArgKind::kMsrName:
      return std::string(kMsrNames[value]);
    case ArgKind::kCr4Name:
      return std::string(kCr4Names[value]);
    case ArgKind::kPattern:
    case ArgKind::kU16:
    case ArgKind::kU32:
    case ArgKind::kU64:
      return Number(value);
    default:
      return fmt::format("{}", value);
  }
}

}  // namespace

std::string PrintMask(uint64_t mask) {
  if (mask == 0) return "0";
  if (mask == kAllComponents) return std::string(kAllName);
  std::string out;
  const auto append = [&out](std::string_view term) {
    if (!out.empty()) out += '+';
    out += term;
  };
  for (const auto& row : xstate::Rows()) {
    if ((mask & Bit(row.id)) != 0) append(row.name);
    mask &= ~Bit(row.id);
  }
  const uint64_t rest = mask & ~xstate::kXcompBvCompacted;
  if (rest != 0) append(fmt::format("{:#x}", rest));
  if (mask != rest) append(kCompactedName);
  return out;
}

std::string PrintStep(const Step& step) {
  const StepRow& row = RowOf(step);
  std::string out = step.vcpu == 0 ? "" : fmt::format("{}: ", step.vcpu);
  out += row.name;
  for (unsigned i = 0; i < ArgCount(row); ++i) {
    const ArgRow& arg = row.args[i];
    // Misalignment is rare: it shows only where there is one.
    if (arg.kind == ArgKind::kAlign && step.arg[i] == arg.fallback) continue;
    // The MSRs of CET hold no components.
    const bool number = row.args[0].kind == ArgKind::kMsrName && arg.kind == ArgKind::kMask &&
                        step.arg[0] >= static_cast<uint64_t>(Msr::kUCet);
    out += fmt::format(" {}={}", arg.name,
                       arg.kind == ArgKind::kBytes
                           ? PrintBytes(step)
                           : PrintValue(number ? ArgKind::kU64 : arg.kind, step.arg[i]));
  }
  return out;
}

namespace {

// APX is refused by its name there (text.cc).
std::string PrintGuestMask(uint64_t mask) {
  constexpr uint64_t kApx = Bit(xstate::Component::kApx);
  if ((mask & kApx) == 0 || mask == kAllComponents) return PrintMask(mask);
  const std::string apx = fmt::format("{:#x}", kApx);
  return mask == kApx ? apx : PrintMask(mask & ~kApx) + '+' + apx;
}

}  // namespace

std::string PrintText(const Program& p) {
  std::string out =
      fmt::format("fpswap 1\nfeatures {}\nxcr0 {}\npke {}\nvcpus {}\n", PrintGuestMask(p.features),
                  PrintGuestMask(p.xcr0), p.pke ? 1 : 0, p.vcpus);
  if (p.own_vm) out += "own_vm 1\n";
  if (p.own_thread) out += "own_thread 1\n";
  for (const Step& step : p.steps) out += PrintStep(step) + '\n';
  return out;
}

}  // namespace fpswap::program
