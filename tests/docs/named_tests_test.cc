// SPDX-License-Identifier: GPL-2.0-or-later
//
// What pages say of other files holds: docs/oracle-evidence.md and docs/other-tests.md name tests
// that exist, every mutant has its rule there, and soak/README.md explains all that long runs
// found.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

namespace fpswap {
namespace {

namespace fs = std::filesystem;

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// "Suite.Name" of every TEST, TEST_F and TEST_P under tests/.
std::set<std::string> ExistingTests() {
  static const std::regex kTest(R"(\bTEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\))");
  std::set<std::string> tests;
  for (const auto& entry : fs::recursive_directory_iterator(FPSWAP_SOURCE_DIR "/tests")) {
    if (entry.path().extension() != ".cc") continue;
    const std::string text = ReadAll(entry.path());
    for (std::sregex_iterator i(text.begin(), text.end(), kTest), end; i != end; ++i) {
      tests.insert((*i)[1].str() + "." + (*i)[2].str());
    }
  }
  return tests;
}

// What looks like a test's name, in backquotes.
std::set<std::string> NamedTests(const std::string& page) {
  static const std::regex kName(R"(`([A-Z]\w+\.[A-Z]\w+)`)");
  std::set<std::string> names;
  for (std::sregex_iterator i(page.begin(), page.end(), kName), end; i != end; ++i) {
    names.insert((*i)[1].str());
  }
  return names;
}

class PageTest : public testing::TestWithParam<const char*> {};

TEST_P(PageTest, NamesOnlyTestsThatExist) {
  const std::set<std::string> existing = ExistingTests();
  const std::set<std::string> named =
      NamedTests(ReadAll(std::string(FPSWAP_SOURCE_DIR "/docs/") + GetParam()));
  EXPECT_GE(named.size(), 20u) << "the page names hardly any test";
  for (const std::string& name : named) {
    EXPECT_TRUE(existing.contains(name)) << GetParam() << " names " << name << ", which is no test";
  }
}

INSTANTIATE_TEST_SUITE_P(Docs, PageTest, testing::Values("oracle-evidence.md", "other-tests.md"),
                         [](const auto& page) {
                           return page.index == 0 ? "Evidence" : "OtherTests";
                         });

// Every mutant is of a rule that the evidence has.
TEST(Mutants, AreOfRulesThatTheEvidenceHas) {
  const std::string page = ReadAll(FPSWAP_SOURCE_DIR "/docs/oracle-evidence.md");
  const std::string mutants = ReadAll(FPSWAP_SOURCE_DIR "/ci/mutants.toml");
  static const std::regex kRule("\nrule = \"([^\"]+)\"");
  unsigned count = 0;
  for (std::sregex_iterator i(mutants.begin(), mutants.end(), kRule), end; i != end; ++i, ++count) {
    EXPECT_NE(page.find("\n| `" + (*i)[1].str() + "` |"), page.npos) << (*i)[1];
  }
  EXPECT_GE(count, 60u);
}

// Every divergence that was new to a long run is told, with who was wrong.
TEST(Soak, EachFindingOfTheLedgerIsTold) {
  const std::string page = ReadAll(FPSWAP_SOURCE_DIR "/soak/README.md");
  const std::string ledger = ReadAll(FPSWAP_SOURCE_DIR "/soak/ledger.jsonl");
  static const std::regex kName("\"([0-9a-f]{8}-[a-z][^\"]+)\": [0-9]+");
  unsigned count = 0;
  for (std::sregex_iterator i(ledger.begin(), ledger.end(), kName), end; i != end; ++i, ++count) {
    EXPECT_NE(page.find("`" + (*i)[1].str() + "`"), page.npos) << (*i)[1];
  }
  EXPECT_GE(count, 40u);
}

}  // namespace
}  // namespace fpswap
