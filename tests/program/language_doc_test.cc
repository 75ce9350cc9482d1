// SPDX-License-Identifier: GPL-2.0-or-later
//
// docs/program-language.md has tables that follow from the code. These tests compare them; with
// FPSWAP_REBASE=1 in the environment they write them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "harness/program/arg.h"
#include "harness/program/text.h"
#include "oracle/xstate/component.h"

namespace fpswap::program {
namespace {

const std::string kPath = FPSWAP_SOURCE_DIR "/docs/program-language.md";

std::string ReadDoc() {
  std::ifstream in(kPath);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The lines between "<!-- NAME: ... -->" and the next "<!-- end -->".
void CheckBlock(std::string_view name, const std::string& expected) {
  std::string doc = ReadDoc();
  const size_t marker = doc.find(fmt::format("<!-- {}: ", name));
  ASSERT_NE(marker, doc.npos) << kPath << " has no block " << name;
  const size_t begin = doc.find('\n', marker) + 1;
  const size_t end = doc.find("<!-- end -->", begin);
  ASSERT_NE(end, doc.npos) << kPath << ": block " << name << " has no end";
  if (doc.substr(begin, end - begin) == expected) return;
  if (std::getenv("FPSWAP_REBASE") != nullptr) {
    std::ofstream(kPath) << doc.replace(begin, end - begin, expected);
    return;
  }
  FAIL() << kPath << ": block \"" << name
         << "\" is out of date; FPSWAP_REBASE=1 ./test_program writes it. It should be:\n"
         << expected;
}

std::string_view KindName(ArgKind kind) {
  static constexpr std::array<std::string_view, 21> kNames = {
      "none",  "reg8",   "reg16",  "reg32", "reg4", "pattern", "slot",
      "image", "align",  "mask",   "bool",  "u8",   "u16",     "u32",
      "u64",   "offset", "length", "width", "msr",  "cr4 bit", "bytes"};
  return kNames.at(static_cast<size_t>(kind));
}

std::string_view NeedsName(Needs needs) {
  static constexpr std::array<std::string_view, 14> kNames = {
      "",        "XSAVE",    "XSAVEOPT", "XSAVEC", "XSAVES", "AVX",      "AVX2",
      "AVX512F", "AVX512VL", "AVX512BW", "MPX",    "PKU",    "AMX-TILE", "AMX-INT8"};
  return kNames.at(static_cast<size_t>(needs));
}

std::string JournalText(const StepRow& row) {
  if (row.journal == Journal::kBytes) return fmt::format("{} bytes", row.journal_bytes);
  return row.journal == Journal::kArea ? "the area" : "";
}

// The value of a left out argument, as the text form prints it.
std::string FallbackText(const StepRow& row, unsigned i) {
  Step step{.op = row.op};
  for (unsigned n = 0; n < ArgCount(row); ++n) step.arg[n] = row.args[n].fallback;
  if (row.args[i].kind == ArgKind::kAlign) return "0";  // not printed
  const std::string text = PrintStep(step) + ' ';
  const std::string key = fmt::format(" {}=", row.args[i].name);
  const size_t begin = text.find(key) + key.size();
  return text.substr(begin, text.find(' ', begin) - begin);
}

std::string ArgsText(const StepRow& row) {
  std::string out;
  for (unsigned i = 0; i < ArgCount(row); ++i) {
    const ArgRow& arg = row.args[i];
    if (i != 0) out += ", ";
    out += arg.kind == ArgKind::kBytes
               ? fmt::format("`{}` {}", arg.name, KindName(arg.kind))
               : fmt::format("`{}` {} ({})", arg.name, KindName(arg.kind), FallbackText(row, i));
  }
  return out;
}

TEST(LanguageDoc, ListsEveryStep) {
  std::string table =
      "| | step | arguments, kinds (values when left out) | CPL | journal | needs | |\n"
      "|---|---|---|---|---|---|---|\n";
  for (const StepRow& row : StepTable()) {
    const std::string_view cpl = row.actor != Actor::kGuest ? "" : row.cpl0 ? "0" : "3";
    table +=
        fmt::format("| {} | `{}` | {} | {} | {} | {} | {} |\n", static_cast<unsigned>(row.op),
                    row.name, ArgsText(row), cpl, JournalText(row), NeedsName(row.needs), row.doc);
  }
  CheckBlock("steps", table);
}

TEST(LanguageDoc, ListsEveryKindOfValue) {
  std::string table = "| kind | values |\n|---|---|\n";
  for (unsigned k = 1; k <= static_cast<unsigned>(ArgKind::kBytes); ++k) {
    const auto kind = static_cast<ArgKind>(k);
    table += fmt::format("| {} | {} |\n", KindName(kind), RowOf(kind).what);
  }
  CheckBlock("kinds", table);
}

TEST(LanguageDoc, ListsEveryComponent) {
  std::string table = "| name | bit | |\n|---|---|---|\n";
  for (const auto& row : xstate::Rows()) {
    table += fmt::format("| `{}` | {} | {}{} |\n", row.name, static_cast<unsigned>(row.id),
                         row.title, row.supervisor ? " (supervisor: IA32_XSS)" : "");
  }
  CheckBlock("components", table);
}

// The examples in the page are programs: each indented block that starts with the version line.
TEST(LanguageDoc, ExamplesParse) {
  const std::string doc = ReadDoc();
  const size_t begin = doc.find("    fpswap 1");
  ASSERT_NE(begin, doc.npos);
  const std::string example = doc.substr(begin, doc.find("\n\n", begin) - begin);
  const auto p = ParseText(example);
  ASSERT_TRUE(p) << p.error().ToString("example") << "\n" << example;
  EXPECT_EQ(p->steps.size(), 5u);
}

}  // namespace
}  // namespace fpswap::program
