// SPDX-License-Identifier: GPL-2.0-or-later
//
// Exported C files, compiled and run on this machine, its KVM or its kernel. What they say is held
// against the judge's verdict on the same program on the same KVM or kernel: two ways to the same
// end that share nothing but the oracle.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/cli/cli.h"
#include "harness/judge/judge.h"
#include "harness/plan/plan.h"
#include "harness/report/export/predict.h"
#include "harness/targets/target.h"
#include "tests/report/export_testing.h"

namespace fpswap::report {
namespace {

namespace fs = std::filesystem;

constexpr int kPassed = 0, kFailed = 1, kSkipped = 4;  // as the kernel's selftests have it

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

class RunExported : public testing::TestWithParam<fs::path> {
 protected:
  void SetUp() override {
    if (NeedsKvm() && access("/dev/kvm", R_OK | W_OK) != 0) {
      GTEST_SKIP() << "/dev/kvm is not usable";
    }
    if (Shell("cc --version").status != 0) GTEST_SKIP() << "there is no C compiler";
    char name[] = "/tmp/fpswap-export-XXXXXX";
    folder_ = mkdtemp(name);
  }
  void TearDown() override {
    if (!folder_.empty()) fs::remove_all(folder_);
  }

  virtual bool NeedsKvm() const { return true; }
  fs::path File() const { return folder_ / "test.c"; }

  // Exports, compiles without a warning, and runs.
  Outcome RunIt(const fs::path& path) {
    const cli::Io io{[](std::string_view) {}, [](std::string_view) {}};
    if (cli::Main({"export", path.string(), "--format", "c", "-o", File().string()}, io) != 0) {
      return {kSkipped, "not exported"};
    }
    return RunFile();
  }
  Outcome RunFile(const std::string& more_flags = "") {
    const std::string flags =
        NeedsKvm() ? "-fno-strict-aliasing -fno-stack-protector -pthread" : "-std=gnu99";
    const Outcome compiled = Shell("cc -Wall -Wextra -Werror -O2 " + flags + more_flags + " -o " +
                                   (folder_ / "test").string() + " " + File().string());
    EXPECT_EQ(compiled.status, 0) << compiled.said;
    return RunAgain();
  }
  Outcome RunAgain() { return Shell("timeout 60 " + (folder_ / "test").string()); }

  fs::path folder_;
};

// What the judge says here of the program as it is exported, with the XCR0 that it needs and no
// more; nothing where part of it can't run here.
std::optional<judge::Verdict> VerdictHere(const program::Program& given,
                                          ExportFormat format = ExportFormat::kC) {
  const program::Program program =
      Predict(given, campaign::EverythingPlatform(), format).plan.effective;
  targets::Options options;
  options.runner_dir = FPSWAP_BINARY_DIR;
  auto target = targets::OpenTarget(format == ExportFormat::kThread ? "native" : "kvm", options);
  if (!target) return {};
  const trace::Platform& platform = (*target)->platform();
  const plan::Plan plan = plan::MakePlan(program, platform);
  if (!plan.trims.empty()) return {};
  const plan::Plan* plans[] = {&plan};
  std::optional<judge::Verdict> verdict;
  judge::Judge judge(platform);
  const auto ran = (*target)->Run(plans, [&](size_t, std::span<const uint8_t> records) {
    verdict = judge.Check(plan, records);
  });
  EXPECT_TRUE(ran.has_value());
  return verdict;
}

TEST_P(RunExported, FailsOnlyWhereTheJudgeFindsADivergence) {
  const auto program = files::ReadProgram(GetParam());
  ASSERT_TRUE(program.has_value());
  const Outcome outcome = RunIt(GetParam());
  ASSERT_TRUE(outcome.status == kPassed || outcome.status == kFailed || outcome.status == kSkipped)
      << outcome.status << ": " << outcome.said;
  const auto verdict = VerdictHere(*program);
  if (verdict && verdict->ok()) {
    EXPECT_NE(outcome.status, kFailed) << outcome.said;
  }
}

std::string NameOf(const testing::TestParamInfo<fs::path>& program) {
  std::string name = program.param.stem().string();
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Programs, RunExported, testing::ValuesIn(Programs()), NameOf);

// Tests of threads, which need no KVM.
class RunThread : public RunExported {
 protected:
  bool NeedsKvm() const override { return false; }
};

// The first value that the program loads, or puts into an image, is another one.
std::string WithAnotherValue(std::string text) {
  const size_t guest = text.find("#define GUEST_CODE");
  const auto operand = [&](const std::string& before, size_t from) {
    const size_t at = text.find(before + "pattern_", from);
    return at == std::string::npos ? at : at + before.size();
  };
  size_t at = operand("\"m\" (", guest);
  if (at == std::string::npos) at = operand("\"r\" (", guest);
  if (at == std::string::npos) at = operand(", ", text.find("int main(void)"));
  EXPECT_NE(at, std::string::npos) << text;
  if (at == std::string::npos) return text;
  text.replace(at, text.find_first_of("),", at) - at, "another");
  return text.insert(guest, "static const u8 another[1024] = { 1, 2, 3 };\n\n");
}

TEST_P(RunThread, SaysWhatTheJudgeSaysAndFailsOfAnotherValue) {
  const auto program = files::ReadProgram(GetParam());
  ASSERT_TRUE(program.has_value());
  const auto verdict = VerdictHere(*program, ExportFormat::kThread);
  const Outcome outcome = RunIt(GetParam());
  if (verdict) {
    EXPECT_EQ(outcome.status, verdict->ok() ? kPassed : kFailed) << outcome.said;
  }
  if (outcome.status == kSkipped) GTEST_SKIP() << outcome.said;
  const auto text = files::ReadFile(File(), 1 << 20);
  ASSERT_TRUE(text.has_value());
  if (!text->contains("pattern_")) return;  // PKRU's values are immediates
  ASSERT_TRUE(files::WriteFile(File(), WithAnotherValue(*text)).has_value());
  const Outcome changed = RunFile(" -Wno-unused-const-variable");
  EXPECT_EQ(changed.status, kFailed) << changed.said;
  EXPECT_NE(changed.said.find(": expected "), std::string::npos) << changed.said;
}

INSTANTIATE_TEST_SUITE_P(Programs, RunThread, testing::ValuesIn(ThreadPrograms()), NameOf);

// Not every run shows it, neither of the program (7 of 60 did not) nor of its test (2 of 300).
TEST_F(RunThread, TheKnownDivergenceOfGetregsetFailsWhereItIs) {
  constexpr int kTries = 20;
  const fs::path folder = FPSWAP_SOURCE_DIR "/corpus/known/getregset-stale-mxcsr";
  const auto program = files::ReadProgram(folder / "program.fps");
  ASSERT_TRUE(program.has_value());
  Outcome outcome = RunIt(folder);
  if (outcome.status == kSkipped) GTEST_SKIP() << outcome.said;
  for (int i = 1; i < kTries && outcome.status == kPassed; ++i) outcome = RunAgain();
  bool diverges = false;
  for (int i = 0; i < kTries && !diverges; ++i) {
    const auto verdict = VerdictHere(*program, ExportFormat::kThread);
    if (!verdict) GTEST_SKIP() << "it can't run on native here";
    diverges = !verdict->ok();
  }
  EXPECT_EQ(outcome.status, diverges ? kFailed : kPassed) << outcome.said;
  if (diverges) {
    EXPECT_NE(outcome.said.find("MXCSR of PTRACE_GETREGSET: expected 0x1f80, got 0x0"),
              std::string::npos)
        << outcome.said;
  }
}

// The known divergences: where they hold, the test fails and names the register; elsewhere it
// passes.
struct Known {
  const char* name;
  const char* says;
};
constexpr Known kKnown[] = {
    {"kvm-get-fpu-ignores-xstate-bv", "of KVM_GET_FPU: expected"},
    {"kvm-get-fpu-no-mxcsr", "MXCSR of KVM_GET_FPU: expected 0x1f80, got 0x0"},
    {"kvm-get-xsave-pkru-bit", "XSTATE_BV of KVM_GET_XSAVE: expected bits 0x200, got 0x0"},
    {"kvm-get-xsave-stale-mxcsr", "MXCSR of KVM_GET_XSAVE2: expected 0x1f80, got 0x0"},
    {"kvm-set-fpu-lost", "XMM0 in the guest"},
    {"kvm-set-fpu-no-mxcsr", "MXCSR in the guest: expected 0x9fc0, got 0x1f80"},
    {"kvm-pvm-ldmxcsr-ud", "Vector of LDMXCSR: expected 0xd, got 0x6"},
    {"kvm-pvm-fxsave-misaligned", "Vector of FXSAVE: expected 0xd, got 0x0"},
    {"kvm-pvm-host-pke", "Vector of LDMXCSR: expected 0x0, got 0xe"},
    {"kvm-pvm-host-xcr0", "XCR0 in the guest: expected 0x3, got"},
};

// All guest steps there are, without a KVM: each must be what an assembler knows.
TEST(CompileExported, EveryInstructionAssembles) {
  if (Shell("cc --version").status != 0) GTEST_SKIP() << "there is no C compiler";
  char name[] = "/tmp/fpswap-export-XXXXXX";
  const fs::path folder = mkdtemp(name);
  ExportRequest request;
  request.platform = campaign::EverythingPlatform();
  request.title = "All guest steps";
  request.format = ExportFormat::kC;
  std::vector<program::Step> steps;
  for (const program::StepRow& row : program::StepTable()) {
    const bool exported = row.op != program::Op::kExitMsr && row.op != program::Op::kRaw;
    if (row.actor != program::Actor::kGuest || !exported) continue;
    program::Step step{.op = row.op};
    for (unsigned n = 0; n < program::kArgCount; ++n) step.arg[n] = row.args[n].fallback;
    // The three operands of a dot product must differ; 0 keeps PKRU open.
    steps.push_back(step);
  }
  ASSERT_GT(steps.size(), 70u);
  for (size_t at = 0; at < steps.size(); at += 40) {
    const size_t end = std::min(steps.size(), at + 40);
    request.program.steps.assign(steps.begin() + static_cast<ptrdiff_t>(at),
                                 steps.begin() + static_cast<ptrdiff_t>(end));
    const auto text = ExportC(request);
    ASSERT_TRUE(text.has_value()) << text.error();
    const fs::path file = folder / "all.c";
    ASSERT_TRUE(files::WriteFile(file, *text).has_value());
    const Outcome compiled =
        Shell("cc -Wall -Wextra -Werror -O2 -fno-strict-aliasing -fno-stack-protector -c -o " +
              (folder / "all.o").string() + " " + file.string());
    EXPECT_EQ(compiled.status, 0) << compiled.said;
  }
  fs::remove_all(folder);
}

class RunKnown : public RunExported {};

TEST_F(RunKnown, FailsWithTheRightWordsWhereTheDivergenceIsAndPassesElsewhere) {
  for (const Known& known : kKnown) {
    SCOPED_TRACE(known.name);
    const fs::path folder = fs::path(FPSWAP_SOURCE_DIR "/corpus/known") / known.name;
    const auto program = files::ReadProgram(folder / "program.fps");
    ASSERT_TRUE(program.has_value());
    const auto verdict = VerdictHere(*program);
    const Outcome outcome = RunIt(folder);
    if (outcome.status == kSkipped) continue;
    ASSERT_TRUE(verdict.has_value());
    EXPECT_EQ(outcome.status, verdict->ok() ? kPassed : kFailed) << outcome.said;
    if (!verdict->ok()) {
      EXPECT_NE(outcome.said.find(known.says), std::string::npos) << outcome.said;
    }
  }
}

}  // namespace
}  // namespace fpswap::report
