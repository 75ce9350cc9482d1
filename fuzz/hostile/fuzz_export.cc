// SPDX-License-Identifier: GPL-2.0-or-later
//
// The exporter: any program is C or an error sentence, the same on each call.
#include <algorithm>

#include "fuzz/hostile/hostile.h"
#include "harness/campaign/platforms.h"
#include "harness/plan/plan.h"
#include "harness/program/codec.h"
#include "harness/report/export/export.h"

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;
using namespace fpswap;

std::vector<uint8_t> Seed(Rng& rng) { return program::Encode(hostile::SeedProgram(rng)); }

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  return hostile::MutateOrSeed({data, max}, size, seed, Seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const trace::Platform kPlatform = campaign::EverythingPlatform();
  report::ExportRequest request;
  request.program = plan::MakePlan(program::Decode({data, size}), kPlatform).effective;
  request.platform = kPlatform;
  request.title = "a program";
  static constexpr report::ExportFormat kFormats[] = {
      report::ExportFormat::kSelftest, report::ExportFormat::kC, report::ExportFormat::kThread};
  request.format = kFormats[size % std::size(kFormats)];
  const auto text = report::ExportC(request);
  if (!text) {
    Check(!text.error().empty(), "an error is a sentence");
    return 0;
  }
  Check(text->ends_with("}\n") || text->ends_with("\n"), "a file ends with its last line");
  Check(std::ranges::count(*text, '{') == std::ranges::count(*text, '}'), "braces are closed");
  Check(std::ranges::all_of(
            *text, [](char c) { return c == '\n' || c == '\t' || (c >= ' ' && c <= '~'); }),
        "C is plain ASCII");
  const auto again = report::ExportC(request);
  Check(again.has_value() && *again == *text, "exporting is a function of the program");
  return 0;
}
