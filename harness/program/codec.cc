// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout, all numbers little-endian:
//
//   u8 version (1), u8 header (bit 0 PKE, bits 2:1 vcpus - 1, bit 3 own_vm, bit 4 own_thread, the
//   rest ignored), u64 features, u64 xcr0, then the steps: u8 opcode, u8 vcpu if vcpus > 1, then
//   each argument of the step's row in the width of its kind (arg.h), less the kind's minimum.
//   Op::kRaw: u8 length - 1, the bytes.
//
// Numbers out of range wrap. A byte that is no opcode is skipped. Where the input ends, zeros
// follow. Versions that this code does not know read as the current one.
#include "harness/program/codec.h"

#include <algorithm>

#include "harness/program/arg.h"

namespace fpswap::program {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kOwnVm = 1 << 3, kOwnThread = 1 << 4;  // of the header
constexpr unsigned kMaxStepBytes = 2 + kArgCount * 8;
static_assert(18 + kMaxSteps * kMaxStepBytes <= kMaxEncodedSize);

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : rest_(bytes) {}
  bool AtEnd() const { return rest_.empty(); }
  uint64_t Number(unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && !rest_.empty(); ++i, rest_ = rest_.subspan(1)) {
      value |= uint64_t{rest_[0]} << (8 * i);
    }
    return value;
  }
  uint8_t Byte() { return static_cast<uint8_t>(Number(1)); }

 private:
  std::span<const uint8_t> rest_;
};

void AppendNumber(std::vector<uint8_t>& out, uint64_t value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// The value that `kind` writes as `number`; every number has one.
uint64_t FromNumber(ArgKind kind, uint64_t number) { return Wrap(kind, number + RowOf(kind).min); }

void ReadArgs(const StepRow& row, Reader& in, Step& step) {
  for (unsigned i = 0; i < ArgCount(row); ++i) {
    const ArgKind kind = row.args[i].kind;
    step.arg[i] = FromNumber(kind, in.Number(RowOf(kind).bytes));
    if (kind != ArgKind::kBytes) continue;
    for (unsigned n = 0; n < step.arg[0]; ++n) SetRawByte(step, n, in.Byte());
  }
}

void AppendArgs(const StepRow& row, const Step& step, std::vector<uint8_t>& out) {
  for (unsigned i = 0; i < ArgCount(row); ++i) {
    const KindRow& kind = RowOf(row.args[i].kind);
    AppendNumber(out, step.arg[i] - kind.min, kind.bytes);
    if (kind.kind != ArgKind::kBytes) continue;
    for (unsigned n = 0; n < step.arg[0]; ++n) out.push_back(RawByte(step, n));
  }
}

}  // namespace

Program Decode(std::span<const uint8_t> bytes) {
  // Nothing that Encode writes is longer; garbage behind it costs no time.
  Reader in(bytes.first(std::min(bytes.size(), kMaxEncodedSize)));
  in.Byte();  // version
  const uint8_t header = in.Byte();
  Program p;
  p.pke = (header & 1) != 0;
  p.vcpus = static_cast<uint8_t>(1 + ((header >> 1) & (kMaxVcpus - 1)));
  p.own_vm = (header & kOwnVm) != 0;
  p.own_thread = (header & kOwnThread) != 0;
  p.features = in.Number(8);
  p.xcr0 = in.Number(8);
  while (!in.AtEnd() && p.steps.size() < kMaxSteps) {
    const StepRow* row = FindStep(static_cast<Op>(in.Byte()));
    if (row == nullptr) continue;
    Step step{.op = row->op};
    if (p.vcpus > 1) step.vcpu = static_cast<uint8_t>(in.Byte() % p.vcpus);
    ReadArgs(*row, in, step);
    p.steps.push_back(step);
  }
  return p;
}

std::vector<uint8_t> Encode(const Program& p) {
  std::vector<uint8_t> out;
  out.reserve(18 + 16 * p.steps.size());
  out.push_back(kVersion);
  out.push_back(static_cast<uint8_t>((p.pke ? 1 : 0) | ((p.vcpus - 1) << 1) |
                                     (p.own_vm ? kOwnVm : 0) | (p.own_thread ? kOwnThread : 0)));
  AppendNumber(out, p.features, 8);
  AppendNumber(out, p.xcr0, 8);
  for (const Step& step : p.steps) {
    out.push_back(static_cast<uint8_t>(step.op));
    if (p.vcpus > 1) out.push_back(step.vcpu);
    AppendArgs(RowOf(step), step, out);
  }
  return out;
}

}  // namespace fpswap::program
