// SPDX-License-Identifier: GPL-2.0-or-later
//
// Trace files: any bytes are a trace or an error sentence; a trace that was read is written and
// read back the same.
#include <cstring>

#include "fuzz/hostile/hostile.h"
#include "harness/plan/wire.h"
#include "harness/trace/trace.h"

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;
using namespace fpswap::trace;

// Where trace_file.cc has the checksum, and what it covers.
constexpr size_t kCrcOffset = 12, kCovered = 16;

std::vector<uint8_t> Seed(Rng& rng) {
  Trace trace;
  trace.platform.target = "kvm";
  trace.platform.cpu = "a CPU";
  trace.platform.guest.xsave = fpswap::xstate::XsaveCpuid::Typical(rng.Next() & 0x602ff, 0x1800);
  trace.platform.host = trace.platform.guest;
  trace.platform.cannot = {{86, "no raw code here"}};
  trace.program = fpswap::hostile::SeedProgram(rng);
  trace.trims = {{3, "no MPX"}};
  const std::vector<uint8_t> bytes(rng.Below(64), static_cast<uint8_t>(rng.Next()));
  for (uint64_t n = rng.Below(6); n != 0; --n) {
    AppendRecord(trace.records, static_cast<RecordKind>(1 + rng.Below(7)), 0,
                 static_cast<uint16_t>(n), bytes);
  }
  return WriteTrace(trace);
}

void Read(std::span<const uint8_t> bytes) {
  const auto trace = ReadTrace(bytes);
  if (!trace) {
    Check(!trace.error().empty(), "an error is a sentence");
    return;
  }
  Check(IsValid(trace->program), "a trace's program is valid");
  const std::vector<uint8_t> written = WriteTrace(*trace);
  const auto again = ReadTrace(written);
  Check(again.has_value(), "what is written reads");
  Check(again->program == trace->program && again->records == trace->records,
        "reading and writing are inverse");
  Check(WriteTrace(*again) == written, "writing is canonical");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  fpswap::hostile::DefaultMaxLen(argc, argv, "-max_len=65536");
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  return fpswap::hostile::MutateOrSeed({data, max}, size, seed, Seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Read({data, size});
  if (size < kCovered) return 0;
  // Once more behind the checksum, where no mutation gets by itself.
  std::vector<uint8_t> bytes(data, data + size);
  const uint32_t crc = fpswap::wire::Crc32c(std::span(bytes).subspan(kCovered));
  std::memcpy(bytes.data() + kCrcOffset, &crc, sizeof(crc));
  Read(bytes);
  return 0;
}
