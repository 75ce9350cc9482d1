// SPDX-License-Identifier: GPL-2.0-or-later
//
// The text parser: any bytes are a valid program or an error that names a place in them.
#include "fuzz/hostile/hostile.h"
#include "harness/program/text.h"

namespace {

using fpswap::hostile::Check;
using fpswap::program::Rng;

std::vector<uint8_t> Seed(Rng& rng) {
  const std::string text = fpswap::program::PrintText(fpswap::hostile::SeedProgram(rng));
  return {text.begin(), text.end()};
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
  return fpswap::hostile::MutateOrSeed({data, max}, size, seed, Seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fpswap::program;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto p = ParseText(text);
  if (!p) {
    const ParseError& error = p.error();
    Check(error.line >= 1 && error.line <= size + 1, "an error names a line of the text");
    Check(error.column >= 1 && error.column <= size + 1, "an error names a column of the text");
    Check(error.message.size() < 1000, "an error is a sentence");
    return 0;
  }
  Check(IsValid(*p), "what is parsed is valid");
  const std::string printed = PrintText(*p);
  const auto again = ParseText(printed);
  Check(again.has_value(), "what is printed parses");
  Check(*again == *p, "printing and parsing are inverse");
  Check(PrintText(*again) == printed, "printing is canonical");
  return 0;
}
