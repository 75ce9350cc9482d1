// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/program/program.h"

#include <algorithm>
#include <array>

#include "harness/program/arg.h"
#include "oracle/xstate/layout.h"

namespace fpswap::program {
namespace {

constexpr uint64_t kMaxU64 = ~uint64_t{0};

// By the value of ArgKind.
constexpr std::array kKinds = {
    KindRow{ArgKind::kNone, 0, 0, 0, "nothing"},
    KindRow{ArgKind::kReg8, 0, 7, 1, "a register number 0-7"},
    KindRow{ArgKind::kReg16, 0, 15, 1, "a register number 0-15"},
    KindRow{ArgKind::kReg32, 0, 31, 1, "a register number 0-31"},
    KindRow{ArgKind::kReg4, 0, 3, 1, "a register number 0-3"},
    KindRow{ArgKind::kPattern, 0, 0xffff, 2, "a pattern number 0-0xffff"},
    KindRow{ArgKind::kSlot, 0, kSlotCount - 1, 1, "a slot 0-3"},
    KindRow{ArgKind::kImage, 0, kImageCount - 1, 1, "an image 0-3"},
    KindRow{ArgKind::kAlign, 0, 63, 1, "a misalignment 0-63"},
    KindRow{ArgKind::kMask, 0, kMaxU64, 8,
            "components (\"x87+sse+avx\", \"all\") or a 64-bit number"},
    KindRow{ArgKind::kBool, 0, 1, 1, "0 or 1"},
    KindRow{ArgKind::kU8, 0, 0xff, 1, "a number 0-0xff"},
    KindRow{ArgKind::kU16, 0, 0xffff, 2, "a number 0-0xffff"},
    KindRow{ArgKind::kU32, 0, 0xffffffff, 4, "a number 0-0xffffffff"},
    KindRow{ArgKind::kU64, 0, kMaxU64, 8, "a 64-bit number"},
    KindRow{ArgKind::kOffset, 0, xstate::kMaxAreaSize - 1, 2, "a byte offset 0-12287"},
    KindRow{ArgKind::kLength, 1, xstate::kMaxAreaSize, 2, "a length 1-12288"},
    KindRow{ArgKind::kLog2Width, 0, 3, 1, "a width 0-3 (1, 2, 4 or 8 bytes)"},
    KindRow{ArgKind::kMsrName, 0, 8, 1,
            "an MSR: xss, xfd, xfd_err, u_cet, s_cet or pl0_ssp to pl3_ssp"},
    KindRow{ArgKind::kCr4Name, 0, 2, 1, "a bit of CR4: osfxsr, osxsave or pke"},
    KindRow{ArgKind::kBytes, 1, kMaxRaw, 1, "1 to 15 bytes as hexadecimal digits"},
};

constexpr bool KindsAreInOrder() {
  for (size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i].kind != static_cast<ArgKind>(i)) return false;
  }
  return true;
}
static_assert(KindsAreInOrder());
static_assert(xstate::kMaxAreaSize == 12288 && kSlotCount == 4 && kImageCount == 4,
              "the table's sentences name these numbers");

void MakeRawValid(Step& step) {
  step.arg[0] = Wrap(ArgKind::kBytes, step.arg[0]);
  for (unsigned n = static_cast<unsigned>(step.arg[0]); n < 16; ++n) SetRawByte(step, n, 0);
  step.arg[3] = 0;
}

void MakeStepValid(Step& step, unsigned vcpus) {
  if (step.vcpu >= vcpus) step.vcpu = static_cast<uint8_t>(step.vcpu % vcpus);
  if (step.op == Op::kRaw) return MakeRawValid(step);
  const StepRow& row = RowOf(step);
  for (unsigned i = 0; i < kArgCount; ++i) step.arg[i] = Wrap(row.args[i].kind, step.arg[i]);
}

}  // namespace

const KindRow& RowOf(ArgKind kind) { return kKinds[static_cast<size_t>(kind)]; }

uint64_t Wrap(ArgKind kind, uint64_t value) {
  const KindRow& row = RowOf(kind);
  if (value >= row.min && value <= row.max) return value;
  // Only ranges of fewer than 2^64 values come here.
  return row.min + (value - row.min) % (row.max - row.min + 1);
}

uint8_t RawByte(const Step& step, unsigned n) {
  return static_cast<uint8_t>(step.arg[1 + n / 8] >> (8 * (n % 8)));
}

void SetRawByte(Step& step, unsigned n, uint8_t value) {
  uint64_t& word = step.arg[1 + n / 8];
  const unsigned shift = 8 * (n % 8);
  word = (word & ~(uint64_t{0xff} << shift)) | (uint64_t{value} << shift);
}

unsigned ArgCount(const StepRow& row) {
  unsigned n = 0;
  while (n < kArgCount && row.args[n].kind != ArgKind::kNone) ++n;
  return n;
}

bool IsValid(const Program& p) {
  if (p.vcpus < 1 || p.vcpus > kMaxVcpus || p.steps.size() > kMaxSteps) return false;
  return std::ranges::all_of(p.steps, [&](const Step& step) {
    if (FindStep(step.op) == nullptr || step.vcpu >= p.vcpus) return false;
    Step valid = step;
    MakeStepValid(valid, p.vcpus);
    return valid == step;
  });
}

void MakeValid(Program& p) {
  if (p.vcpus < 1 || p.vcpus > kMaxVcpus) {
    p.vcpus = static_cast<uint8_t>(p.vcpus == 0 ? 1 : 1 + (p.vcpus - 1) % kMaxVcpus);
  }
  std::erase_if(p.steps, [](const Step& step) { return FindStep(step.op) == nullptr; });
  if (p.steps.size() > kMaxSteps) p.steps.resize(kMaxSteps);
  for (Step& step : p.steps) MakeStepValid(step, p.vcpus);
}

}  // namespace fpswap::program
