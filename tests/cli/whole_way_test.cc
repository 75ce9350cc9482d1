// SPDX-License-Identifier: GPL-2.0-or-later
//
// The whole way, by the commands that a user types: from an empty corpus a planted bug is found,
// minimised, grouped, exported and compiled; the test fails while the bug is there, in its words,
// and passes once it is gone. `ci/lab control amx` goes the same way with a bug in a kernel and a
// selftest in the kernel's tree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "harness/files/files.h"
#include "tests/campaign/fakes.h"
#include "tests/cli/command.h"

namespace fpswap::cli {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::TemporaryFolder;
using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr const char* kPlant = "refused-set-changes-ymm";

struct Outcome {
  int status = -1;
  std::string said;
};

Outcome Shell(const std::string& command) {
  Outcome outcome;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  while (fgets(buffer, sizeof(buffer), pipe) != nullptr) outcome.said += buffer;
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  return outcome;
}

class WholeWay : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }
  // The command's JSON; its exit code must be `exit`.
  static json Run(const std::vector<std::string>& arguments, int exit) {
    std::vector<std::string> all = arguments;
    all.push_back("--json");
    const Result result = Command(all);
    EXPECT_EQ(result.exit, exit) << arguments[0] << ": " << result.err;
    return json::parse(result.out, nullptr, false);
  }
  const TemporaryFolder folder_;
};

TEST_F(WholeWay, FromAnEmptyCorpusToATestThatFailsWithTheBugAndPassesWithoutIt) {
  if (access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "/dev/kvm is not usable";
  if (Shell("cc --version").status != 0) GTEST_SKIP() << "there is no C compiler";
  std::string findings, finding;
  // Of some findings a test can't be made that holds on every machine; then another seed finds
  // another program.
  for (unsigned seed = 1; seed <= 8 && finding.empty(); ++seed) {
    findings = Path("findings-" + std::to_string(seed));
    const json found = Run({"fuzz", "--target", "kvm", "--plant", kPlant, "--until-new", "--runs",
                            "30000", "--seed", std::to_string(seed), "--findings", findings,
                            "--corpus", Path("corpus-" + std::to_string(seed))},
                           kDiverges);
    ASSERT_FALSE(found["findings"].empty()) << found.dump();
    for (const auto& [name, count] : found["findings"].items()) {
      const fs::path path = fs::path(findings) / name;
      const json small =
          Run({"minimize", path.string(), "--target", "kvm", "--plant", kPlant}, kAgrees);
      EXPECT_LE(small["steps"], 8) << small["program"];
      const Result exported =
          Command({"export", path.string(), "--format", "c", "-o", Path("test.c")});
      if (exported.exit == kAgrees) finding = name;
    }
  }
  ASSERT_FALSE(finding.empty()) << "no seed gave one that can be exported";

  const json report = Run({"report", findings}, kAgrees);
  bool grouped = false;
  for (const json& group : report["groups"]) {
    if (group["name"] != finding) continue;
    grouped = true;
    EXPECT_THAT(group["cause"].get<std::string>(), HasSubstr("avx"));
  }
  EXPECT_TRUE(grouped) << report["groups"].dump();

  // The bug is in our agent: what the exported program calls is broken in the same way.
  const Outcome shim = Shell("cc -Wall -Wextra -Werror -O2 -shared -fPIC -o " + Path("kvm.so") +
                             " " + FPSWAP_SOURCE_DIR "/tests/cli/planted_kvm.c -ldl");
  ASSERT_EQ(shim.status, 0) << shim.said;
  const Outcome compiled =
      Shell("cc -Wall -Wextra -Werror -O2 -fno-strict-aliasing -fno-stack-protector -pthread -o " +
            Path("test") + " " + Path("test.c"));
  ASSERT_EQ(compiled.status, 0) << compiled.said;
  const Outcome with = Shell("LD_PRELOAD=" + Path("kvm.so") + " timeout 60 " + Path("test"));
  EXPECT_EQ(with.status, 1) << with.said;
  EXPECT_THAT(with.said, ContainsRegex("FAIL .*YMM.*expected .*, got "));
  const Outcome without = Shell("timeout 60 " + Path("test"));
  EXPECT_EQ(without.status, 0) << without.said;
  EXPECT_THAT(without.said, HasSubstr("PASS"));
}

// `fpswap fuzz --forever` as systemd runs it: no terminal, ended by SIGTERM.
TEST_F(WholeWay, ForeverEndsOnSigtermWithNothingLost) {
  const std::string command = FPSWAP_BINARY_DIR "/fpswap", findings = Path("findings"),
                    out = Path("out.json"), err = Path("err");
  const pid_t child = fork();
  if (child == 0) {
    if (freopen("/dev/null", "r", stdin) == nullptr ||
        freopen(out.c_str(), "w", stdout) == nullptr ||
        freopen(err.c_str(), "w", stderr) == nullptr) {
      _exit(99);
    }
    execl(command.c_str(), command.c_str(), "fuzz", "--forever", "--target", "native", "--round",
          "1", "--findings", findings.c_str(), "--corpus", Path("corpus").c_str(), "--json",
          static_cast<char*>(nullptr));
    _exit(99);
  }
  const auto status = [&] {
    const auto text = files::ReadFile(findings + "/status.json", 1u << 20);
    return text ? json::parse(*text, nullptr, false) : json::object();
  };
  int ended = 0;
  bool gone = false;
  // A minute is a bound for a machine that hangs, not what is measured.
  for (unsigned i = 0; i < 600 && !gone; ++i) {
    usleep(100000);
    gone = waitpid(child, &ended, WNOHANG) == child;
    if (status().value("rounds", 0) >= 2 && status().value("state", "") == "fuzzing") break;
  }
  if (gone && WEXITSTATUS(ended) == kUnavailable) GTEST_SKIP() << "native can't be had here";
  ASSERT_FALSE(gone) << files::ReadFile(err, 1u << 20).value_or("");
  kill(child, SIGTERM);
  ASSERT_EQ(waitpid(child, &ended, 0), child);
  const auto text = files::ReadFile(out, 1u << 24);
  ASSERT_TRUE(text) << text.error();
  const json summary = json::parse(*text, nullptr, false);
  ASSERT_TRUE(summary.is_object()) << *text;
  EXPECT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == kAgrees) << summary.dump();
  EXPECT_TRUE(summary["interrupted"].empty()) << summary["interrupted"].dump();
  const json last = status();
  EXPECT_EQ(last["state"], "stopped");
  EXPECT_EQ(last["programs"], summary["programs"]);
  EXPECT_GE(last["rounds"], 2);
  EXPECT_TRUE(fs::exists(findings + "/fpswap.prom"));
  EXPECT_TRUE(fs::exists(findings + "/judged.json"));
}

}  // namespace
}  // namespace fpswap::cli
