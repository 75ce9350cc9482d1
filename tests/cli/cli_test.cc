// SPDX-License-Identifier: GPL-2.0-or-later
//
// The command as a user sees it: exit codes, messages, JSON. What needs a target runs on `native`,
// the one that every machine with this architecture has.
#include "harness/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/campaign/pending.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/runner.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/program/text.h"
#include "harness/trace/trace.h"
#include "tests/campaign/fakes.h"
#include "tests/cli/command.h"

namespace fpswap::cli {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::ProgramOf;
using fpswap::testing::TemporaryFolder;
using nlohmann::json;
using program::Op;
using ::testing::HasSubstr;
using ::testing::Not;

class Cli : public ::testing::Test {
 protected:
  fs::path Write(const std::string& name, std::string_view text) const {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    EXPECT_TRUE(files::WriteFile(path, text));
    return path;
  }
  // A program that every target can run.
  fs::path WriteSmall(const std::string& name) const {
    return Write(name, program::PrintText(
                           ProgramOf({Op::kFninit, Op::kSseLoad, Op::kSseStore, Op::kFnstcw})));
  }
  // A lab named `name` that connects to what the shell makes of `command`, in the lab's folder.
  void WriteLab(const std::string& name, const std::string& command) const {
    const json lab = {{"about", "a test"}, {"connect", {"/bin/sh", "-c", command}}};
    Write("cache/labs/" + name + "/lab.json", lab.dump());
  }
  // The command where those labs are.
  Result CommandWithLabs(const std::vector<std::string>& arguments) const {
    setenv("FPSWAP_CACHE", (folder_.path() / "cache").c_str(), 1);
    Result result = Command(arguments);
    unsetenv("FPSWAP_CACHE");
    return result;
  }
  static bool HaveNative() {
    Common common;
    return targets::OpenTarget("native", common.TargetOptions()).has_value();
  }
  const TemporaryFolder folder_;
};

TEST_F(Cli, HelpTellsSubcommandsExitCodesAndExamples) {
  const Result result = Command({"--help"});
  EXPECT_EQ(result.exit, kAgrees);
  for (const char* word : {"doctor", "fuzz", "run", "judge", "show", "reach", "minimize", "report",
                           "Exit codes", "3 "}) {
    EXPECT_THAT(result.out, HasSubstr(word));
  }
  for (const char* name :
       {"doctor", "fuzz", "run", "judge", "show", "reach", "minimize", "report"}) {
    const Result help = Command({name, "--help"});
    EXPECT_EQ(help.exit, kAgrees);
    EXPECT_THAT(help.out, HasSubstr("--json")) << name;
  }
}

TEST_F(Cli, BadUsageIsExitCode2AndSaysWhereHelpIs) {
  const std::vector<std::vector<std::string>> bad = {{},
                                                     {"nonsense"},
                                                     {"run"},
                                                     {"fuzz", "--time", "x"},
                                                     {"fuzz", "--jobs", "0"},
                                                     {"fuzz", "--runs", "-3"},
                                                     {"show"},
                                                     {"doctor", "--bogus"}};
  for (const auto& arguments : bad) {
    const Result result = Command(arguments);
    EXPECT_EQ(result.exit, kBadInput);
    EXPECT_THAT(result.err, HasSubstr("--help"));
    EXPECT_EQ(result.out, "");
  }
}

TEST_F(Cli, BadNumbersAreAnsweredWithWhatWasExpected) {
  for (const char* text : {"0", "-1", "abc", "1x", "nan", "inf", ""}) {
    const Result time = Command({"fuzz", "--time", text}), runs = Command({"fuzz", "--runs", text});
    EXPECT_EQ(time.exit, kBadInput);
    EXPECT_THAT(time.err, HasSubstr("a number of seconds above 0")) << text;
    EXPECT_LT(time.err.size(), 200u) << time.err;
    EXPECT_EQ(runs.exit, kBadInput);
    EXPECT_THAT(runs.err, HasSubstr("a number of programs above 0")) << text;
  }
}

TEST_F(Cli, UnknownSubcommandIsNamedWithTheNearest) {
  const Result result = Command({"fuz", "--time", "3"});
  EXPECT_EQ(result.exit, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("no subcommand \"fuz\"; did you mean \"fuzz\"?"));
  EXPECT_THAT(Command({"fuzz-worke"}).err, Not(HasSubstr("fuzz-worker"))) << "for no user";
}

TEST_F(Cli, VersionIsTold) {
  const Result result = Command({"--version"});
  EXPECT_EQ(result.exit, kAgrees);
  EXPECT_THAT(result.out, ::testing::MatchesRegex("fpswap [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(Cli, ExamplesOfTheHelpAreThere) {
  const std::string help = Command({"--help"}).out;
  const size_t run = help.find("fpswap run ");
  ASSERT_NE(run, std::string::npos);
  const size_t begin = run + std::string("fpswap run ").size();
  const std::string path = help.substr(begin, help.find(' ', begin) - begin);
  EXPECT_TRUE(fs::is_directory(fs::path(FPSWAP_SOURCE_DIR) / path)) << path;
}

TEST_F(Cli, UnknownPlantIsExitCode2WithTheListOfThem) {
  if (!fs::exists(fs::path(FPSWAP_BINARY_DIR) / "kvm-runner")) GTEST_SKIP() << "no agent is built";
  const Result result = Command({"run", WriteSmall("a.fps").string(), "--plant", "nope"});
  EXPECT_EQ(result.exit, kBadInput);
  EXPECT_THAT(result.err, HasSubstr("no planted bug \"nope\"; there are\n"));
  EXPECT_THAT(result.err, HasSubstr("\n  canary-clobbered "));
}

TEST_F(Cli, ReportWritesOnePageOrJson) {
  Write("f/one/verdict.json", R"({"signature": "a|b", "name": "one", "divergences": []})");
  const fs::path findings = folder_.path() / "f", page = folder_.path() / "page.html";
  const Result result = Command({"report", findings.string(), "-o", page.string()});
  EXPECT_EQ(result.exit, kBadInput) << "the finding has no trace";
  EXPECT_THAT(result.err, HasSubstr("1 groups of findings"));
  EXPECT_THAT(files::ReadFile(page, 1 << 24).value(), HasSubstr("<h1>fpswap report</h1>"));
  const Result told = Command({"report", findings.string(), "--json", "--details", "0"});
  EXPECT_EQ(told.exit, kAgrees);
  EXPECT_EQ(json::parse(told.out)["groups"][0]["signature"], "a|b");
  EXPECT_EQ(Command({"report", (folder_.path() / "none").string()}).exit, kBadInput);
  Write("f/findings.db", std::string(4096, 'x'));
  const Result damaged = Command({"report", findings.string(), "-o", page.string()});
  EXPECT_EQ(damaged.exit, kBadInput);
  EXPECT_THAT(damaged.err, HasSubstr("findings.db: file is not a database; delete it"));
}

TEST_F(Cli, ReportRefusesAFolderWithoutFindingsAndWritesNothingThere) {
  const fs::path folder = Write("mine/letter.txt", "Dear").parent_path(),
                 page = folder_.path() / "page.html";
  const Result result = Command({"report", folder.string(), "-o", page.string()});
  EXPECT_EQ(result.exit, kBadInput);
  EXPECT_THAT(result.err, HasSubstr(folder.string() + ": no findings there"));
  EXPECT_FALSE(fs::exists(folder / "findings.db"));
  EXPECT_FALSE(fs::exists(page));
}

TEST_F(Cli, BadProgramsAreRefusedWithFileLineAndColumn) {
  const fs::path path = Write("bad.fps", "fpswap 1\nxsave slot=9\n");
  for (const char* name : {"run", "show"}) {
    const Result result = Command({name, path.string()});
    EXPECT_EQ(result.exit, kBadInput) << name;
    EXPECT_THAT(result.err, HasSubstr(path.string() + ":2:")) << name;
  }
}

TEST_F(Cli, GarbageIsRefusedEverywhereWithoutACrash) {
  const fs::path empty = Write("empty.fps", ""),
                 trace = Write("bad.fpt", std::string(3000, '\xa5'));
  Write("run/reach.json", "{\"rows\":7}");
  EXPECT_EQ(Command({"run", empty.string()}).exit, kBadInput);
  EXPECT_EQ(Command({"judge", trace.string()}).exit, kBadInput);
  EXPECT_THAT(Command({"judge", trace.string()}).err, HasSubstr("bad.fpt"));
  EXPECT_EQ(Command({"show", trace.string()}).exit, kBadInput);
  EXPECT_EQ(Command({"reach", trace.string()}).exit, kBadInput);
  EXPECT_EQ(Command({"reach", (folder_.path() / "run").string()}).exit, kBadInput);
  EXPECT_EQ(Command({"run", (folder_.path() / "missing").string()}).exit, kBadInput);
  EXPECT_EQ(Command({"judge", folder_.path().string() + "/run"}).exit, kBadInput);
  Write("known/x/known.json", "{\"title\":1}");
  const Result known = Command(
      {"run", WriteSmall("a.fps").string(), "--known", (folder_.path() / "known").string()});
  EXPECT_EQ(known.exit, kBadInput);
  EXPECT_THAT(known.err, HasSubstr("known/x/known.json"));
}

TEST_F(Cli, WithJsonAnErrorIsOneObjectTooWithTheSentenceAndTheExitCode) {
  const std::string bad = Write("bad.fps", "fpswap 1\nxsave slot=9\n").string(),
                    trace = Write("bad.fpt", "garbage").string(),
                    small = WriteSmall("a.fps").string(),
                    missing = (folder_.path() / "missing").string();
  const std::vector<std::pair<std::vector<std::string>, int>> cases = {
      {{"run", bad}, kBadInput},
      {{"run", missing}, kBadInput},
      {{"run", small, "--target", "zx81"}, kUnavailable},
      {{"show", bad}, kBadInput},
      {{"show", trace}, kBadInput},
      {{"reach", trace}, kBadInput},
      {{"report", missing}, kBadInput},
      {{"export", bad, "-o", "-"}, kBadInput},
      {{"export", missing, "-o", "-"}, kBadInput},
      {{"minimize", bad}, kBadInput},
      {{"judge", missing}, kBadInput},
      {{"corpus", "stats", missing}, kBadInput},
      {{"fuzz", "--target", "zx81"}, kUnavailable},
      {{"fuzz", "--time", "x"}, kBadInput},
      {{"nonsense"}, kBadInput}};
  for (const auto& [arguments, code] : cases) {
    std::vector<std::string> all = arguments;
    all.push_back("--json");
    const Result result = Command(all);
    const json object = json::parse(result.out, nullptr, false);
    ASSERT_TRUE(object.is_object()) << arguments[0] << ": " << result.out;
    EXPECT_EQ(result.exit, code) << arguments[0];
    EXPECT_EQ(object["exit"], code) << result.out;
    EXPECT_THAT(result.err, HasSubstr(object["error"].get<std::string>())) << arguments[0];
    EXPECT_NE(object["error"], "");
    EXPECT_EQ(Command(arguments).out, "") << arguments[0];
  }
  const json judged = json::parse(Command({"judge", trace, "--json"}).out, nullptr, false);
  EXPECT_THAT(judged["errors"].dump(), HasSubstr("bad.fpt"));
}

TEST_F(Cli, ThatThereIsNoListOfKnownDivergencesIsSaid) {
  const fs::path own = fs::path(FPSWAP_BINARY_DIR) / "fpswap";
  if (!fs::exists(own)) GTEST_SKIP() << "fpswap is not built";
  const std::string trace = Write("bad.fpt", "garbage").string();
  fs::create_directories(folder_.path() / "bin");
  fs::copy_file(own, folder_.path() / "bin/fpswap");
  const std::string command =
      "cd " + folder_.path().string() + " && bin/fpswap judge " + trace + " > /dev/null 2> err";
  const int status = std::system(command.c_str());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kBadInput);
  EXPECT_THAT(files::ReadFile(folder_.path() / "err", 1 << 20).value_or(""),
              HasSubstr("no list of known divergences is here"));
  EXPECT_THAT(Command({"judge", trace}).err, Not(HasSubstr("no list")));
}

TEST_F(Cli, UnknownTargetIsExitCode3WithReasonAndRemedy) {
  const std::string path = WriteSmall("a.fps").string();
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"run", path, "--target", "zx81"},
                                             {"fuzz", "--target", "zx81", "--runs", "1",
                                              "--findings", (folder_.path() / "f").string()}}) {
    const Result result = Command(arguments);
    EXPECT_EQ(result.exit, kUnavailable);
    EXPECT_THAT(result.err, HasSubstr("zx81"));
    EXPECT_THAT(result.err, HasSubstr("doctor"));
  }
}

TEST_F(Cli, ShowDisassemblesWithoutAnyTarget) {
  const Result text = Command({"show", WriteSmall("a.fps").string()});
  EXPECT_EQ(text.exit, kAgrees) << text.err;
  EXPECT_THAT(text.out, HasSubstr("fninit"));
  EXPECT_THAT(text.out, HasSubstr("movdqu"));
  const Result shown = Command({"show", "--json", WriteSmall("a.fps").string()});
  const json object = json::parse(shown.out, nullptr, false);
  ASSERT_TRUE(object.is_object()) << shown.out;
  ASSERT_EQ(object["steps"].size(), 4u);
  EXPECT_FALSE(object["steps"][0]["code"].empty());
}

TEST_F(Cli, DoctorNamesEveryTargetWithFeaturesOrReasonAndRemedy) {
  const Result result = Command({"doctor", "--json"});
  const json object = json::parse(result.out, nullptr, false);
  ASSERT_TRUE(object.is_object()) << result.out;
  bool any = false;
  for (const std::string_view name : targets::TargetNames()) {
    const json& target = object["targets"][std::string(name)];
    any = any || target["available"];
    if (target["available"]) {
      EXPECT_FALSE(target["components"].empty()) << name;
    } else {
      EXPECT_NE(target["reason"], "") << name;
      EXPECT_NE(target["remedy"], "") << name;
    }
  }
  EXPECT_EQ(result.exit, any ? kAgrees : kUnavailable);
}

TEST_F(Cli, RunOnSeveralTargetsShowsWhereTheyDiffer) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const fs::path folder = WriteSmall("p/a.fps").parent_path();
  const Result same = Command({"run", folder.string(), "--target", "native,native", "--json"});
  EXPECT_EQ(same.exit, kAgrees) << same.out << same.err;
  json object = json::parse(same.out, nullptr, false);
  EXPECT_EQ(object["differ"], 0);
  EXPECT_EQ(object["programs"], 1);
  // A machine with a bug, beside one without: the same agent behind a lab.
  const fs::path cache = folder_.path() / "cache";
  const json lab = {
      {"about", "a test"},
      {"connect", {FPSWAP_BINARY_DIR "/native-runner", "--plant", "tags-lost-on-page-fault"}}};
  Write("cache/labs/bad/lab.json", lab.dump());
  Write("p/b.fps", "fpswap 1\nx87.fld\nexit.page_fault\nfxsave slot=0 wide=0\n");
  setenv("FPSWAP_CACHE", cache.c_str(), 1);
  const Result differ = Command({"run", folder.string(), "--target", "native,lab:bad", "--json"});
  const Result text = Command({"run", folder.string(), "--target", "native,lab:bad"});
  unsetenv("FPSWAP_CACHE");
  EXPECT_EQ(differ.exit, kDiverges) << differ.out << differ.err;
  object = json::parse(differ.out, nullptr, false);
  EXPECT_EQ(object["differ"], 1) << differ.out;
  EXPECT_EQ(object["results"][0]["differences"].size(), 0u);
  EXPECT_EQ(object["results"][1]["verdicts"]["native"], "agrees") << differ.out;
  EXPECT_EQ(object["results"][1]["verdicts"]["lab:bad"], "NEW") << differ.out;
  EXPECT_EQ(object["results"][1]["differences"][0]["step"], 2) << differ.out;
  EXPECT_THAT(text.out, HasSubstr("2 programs: 1 differ, 1 the same on all"));
  EXPECT_EQ(Command({"run", folder.string(), "--target", "native,zx81"}).exit, kUnavailable);
}

TEST(CommandLine, OutputThatCannotBeWrittenIsExitCode2) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "there is no /dev/full";
  const std::string command = FPSWAP_BINARY_DIR "/fpswap --version";
  const auto status = [](const std::string& line) {
    const int ended = std::system(line.c_str());  // NOLINT(concurrency-mt-unsafe)
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
  };
  EXPECT_EQ(status(command + " >/dev/null"), 0);
  EXPECT_EQ(status(command + " >/dev/full 2>/dev/null"), kBadInput);
}

TEST_F(Cli, WhatDivergedBeforeTheTargetWentAwayIsToldAndCounts) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const std::string agent = FPSWAP_BINARY_DIR "/native-runner";
  WriteLab("sick", "[ ! -e gone ] && touch gone && " + agent +
                       " --plant tags-lost-on-page-fault | "
                       "dd bs=64k iflag=count_bytes count=131072 status=none");
  constexpr unsigned kPrograms = 400;
  for (unsigned i = 0; i < kPrograms; ++i) {
    Write("p/" + std::to_string(i) + ".fps",
          "fpswap 1\nx87.fld\nexit.page_fault\nfxsave slot=0 wide=0\n");
  }
  const std::string folder = (folder_.path() / "p").string();
  const auto run = [&](const std::string& target) {
    fs::remove(folder_.path() / "cache/labs/sick/gone");
    return CommandWithLabs({"run", folder, "--target", target, "--json"});
  };
  const Result sick = run("lab:sick");
  EXPECT_EQ(sick.exit, kDiverges) << sick.err;
  EXPECT_THAT(sick.err, HasSubstr("can't be kept running"));
  const json object = json::parse(sick.out, nullptr, false);
  ASSERT_TRUE(object.is_object()) << sick.out;
  EXPECT_GT(object["new"], 0);
  EXPECT_GT(object["not_run"], 0);
  EXPECT_EQ(object["results"].size() + object["not_run"].get<size_t>(), kPrograms);
  EXPECT_THAT(object["errors"].dump(), HasSubstr("can't be kept running"));

  const Result both = run("native,lab:sick");
  EXPECT_EQ(both.exit, kDiverges) << both.err;
  const json compared = json::parse(both.out, nullptr, false);
  EXPECT_GT(compared["differ"], 0) << both.err;
  EXPECT_GT(compared["not_run"], 0);
}

TEST_F(Cli, WhatTakesAMachineDownIsRunInALabOnlyAndSaysSo) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const auto small =
      program::PrintText(ProgramOf({Op::kFninit, Op::kSseLoad, Op::kSseStore, Op::kFnstcw}));
  const json entry = {{"title", "ends it"},     {"reason", "a test"},
                      {"kernel_function", ""},  {"cause", "a-test"},
                      {"component", nullptr},   {"relation", "died"},
                      {"endangers_host", true}, {"platform", {{"target", "kvm"}}}};
  Write("k/bad/known.json", entry.dump());
  const std::string bad = Write("k/bad/program.fps", small).string(),
                    good = Write("k2/good.fps", small).string();
  WriteLab("here", FPSWAP_BINARY_DIR "/native-runner");
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"run", good, (folder_.path() / "k").string(), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return CommandWithLabs(arguments);
  };
  const Result here = run({"--target", "native"});
  EXPECT_EQ(here.exit, kAgrees) << here.err;
  EXPECT_THAT(here.err, HasSubstr(bad + ": takes the machine down that it runs on (ends it)"));
  EXPECT_THAT(here.err, HasSubstr("--endanger-host"));
  const json object = json::parse(here.out, nullptr, false);
  EXPECT_EQ(object["programs"], 2);
  EXPECT_EQ(object["agree"], 1);
  EXPECT_EQ(object["not_run"], 1);
  EXPECT_EQ(object["refused"], json::array({bad}));
  EXPECT_EQ(json::parse(run({"--target", "lab:here"}).out, nullptr, false)["agree"], 2);
  EXPECT_EQ(
      json::parse(run({"--target", "native", "--endanger-host"}).out, nullptr, false)["agree"], 2);
  EXPECT_THAT(run({"--target", "lab:here,native"}).err, HasSubstr("takes the machine down"))
      << "one of them is no lab";

  const Result alone = Command({"run", bad, "--target", "native"});
  EXPECT_EQ(alone.exit, kBadInput) << "nothing was run";
  const Result minimize = Command({"minimize", bad, "--target", "native"});
  EXPECT_EQ(minimize.exit, kBadInput);
  EXPECT_THAT(minimize.err, HasSubstr("takes the machine down"));
  const Result fuzz = Command({"fuzz", "--target", "native", "--runs", "1", "--engine", "plain",
                               "--corpus", (folder_.path() / "c").string(), "--seeds",
                               (folder_.path() / "k").string(), "--findings", good});
  EXPECT_THAT(fuzz.err, HasSubstr("takes the machine down"));
  EXPECT_THAT(fuzz.err, HasSubstr("0 seeds taken"));

  const auto own = triage::LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(own) << own.error();
  const auto nm = std::ranges::find(*own, "kvm-set-msr-xfd-host-nm", &triage::Known::name);
  ASSERT_NE(nm, own->end());
  EXPECT_TRUE(nm->endangers_host);
}

TEST_F(Cli, MinimizeKeepsTheDivergenceAndGoesOnFromWhatItWrote) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const fs::path file = Write("long.fps",
                              "fpswap 1\nsse.load xmm=3\nx87.fld pattern=9\nmmx.emms\nx87.fld\n"
                              "xsave slot=2\nexit.page_fault write=1\nsse.store xmm=3\n"
                              "fxsave slot=3\nx87.fnstcw\n");
  const std::vector<std::string> arguments = {"minimize", file.string(), "--target",
                                              "native",   "--plant",     "tags-lost-on-page-fault",
                                              "--json"};
  const Result result = Command(arguments);
  ASSERT_EQ(result.exit, kAgrees) << result.err;
  const json object = json::parse(result.out, nullptr, false);
  EXPECT_EQ(object["steps_before"], 9);
  EXPECT_EQ(object["steps"], 3) << "a full register, the fault, and a look: " << result.out;
  EXPECT_EQ(object["done"], true);
  EXPECT_EQ(object["shows"], object["of"]);
  const fs::path small = folder_.path() / "long.min.fps";
  ASSERT_TRUE(fs::exists(small));
  const json again = json::parse(Command(arguments).out, nullptr, false);
  EXPECT_EQ(again["program"], object["program"]);
  EXPECT_TRUE(again["passes"].empty()) << "it went on from the smallest";

  const Result none = Command({"minimize", file.string(), "--target", "native"});
  EXPECT_EQ(none.exit, kBadInput);
  EXPECT_THAT(none.err, HasSubstr("nothing diverges"));
  EXPECT_EQ(Command({"minimize", folder_.path().string()}).exit, kBadInput);
  EXPECT_EQ(Command({"minimize", file.string(), "--pass", "magic"}).exit, kBadInput);
}

// The lab's machine goes down in the middle; what is on disk then is looked at when it is to come
// back.
TEST_F(Cli, MinimizeAndCorpusRunHaveProgramsOnDiskBeforeTheyRun) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const fs::path file = Write("long.fps",
                              "fpswap 1\nsse.load xmm=3\nx87.fld pattern=9\nmmx.emms\nx87.fld\n"
                              "xsave slot=2\nexit.page_fault write=1\nsse.store xmm=3\n"
                              "fxsave slot=3\nx87.fnstcw\n");
  const fs::path corpus = folder_.path() / "C";
  for (unsigned i = 0; i < 400; ++i) {
    Write("p/" + std::to_string(i) + ".fps",
          "fpswap 1\nsse.load xmm=3 pattern=" + std::to_string(i) + "\nfxsave slot=0 wide=0\n");
  }
  ASSERT_EQ(Command({"corpus", "import", corpus.string(), (folder_.path() / "p").string()}).exit,
            kAgrees);
  const auto lab = [&](const std::string& name, const fs::path& running) {
    WriteLab(name, "[ -e gone ] && { cp -r " + running.string() +
                       " seen; exit 1; }; touch gone; " FPSWAP_BINARY_DIR
                       "/native-runner --plant tags-lost-on-page-fault | dd bs=64k "
                       "iflag=count_bytes count=40000 status=none");
    return folder_.path() / "cache/labs" / name / "seen/pending-0-0.bin";
  };
  const fs::path running = folder_.path() / "long.min.fps.running", seen = lab("small", running);
  const Result minimize = CommandWithLabs({"minimize", file.string(), "--target", "lab:small"});
  EXPECT_EQ(minimize.exit, kUnavailable) << minimize.err;
  const auto candidate = campaign::ReadPending(seen);
  ASSERT_TRUE(candidate) << candidate.error() << minimize.err;
  EXPECT_EQ(candidate->size(), 1u);
  EXPECT_FALSE(fs::exists(running)) << "the command has ended in order";

  const fs::path batch = lab("corpus", corpus.string() + ".running");
  const Result run = CommandWithLabs(
      {"corpus", "minimize", corpus.string() + "/", "--run", "--target", "lab:corpus"});
  EXPECT_NE(run.exit, kAgrees) << run.err;
  const auto programs = campaign::ReadPending(batch);
  ASSERT_TRUE(programs) << programs.error() << run.err;
  EXPECT_GT(programs->size(), 10u);
  EXPECT_FALSE(fs::exists(corpus.string() + ".running"));
}

TEST_F(Cli, RunGivesAVerdictAndATraceThatJudgeReadsAgain) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const std::string path = WriteSmall("a.fps").string();
  const std::string trace = (folder_.path() / "a.fpt").string();
  const Result run = Command({"run", path, "--target", "native", "--trace", trace, "--json"});
  EXPECT_EQ(run.exit, kAgrees) << run.out << run.err;
  const json object = json::parse(run.out, nullptr, false);
  ASSERT_EQ(object["results"].size(), 1u) << run.out;
  EXPECT_EQ(object["results"][0]["result"], "agrees");
  EXPECT_EQ(Command({"judge", trace}).exit, kAgrees);
  const Result shown = Command({"show", trace});
  EXPECT_EQ(shown.exit, kAgrees) << shown.err;
  EXPECT_EQ(Command({"reach", trace}).exit, kAgrees);
}

// A recorded trace whose bytes were changed: what a broken machine would have left.
TEST_F(Cli, ChangedTraceIsANewDivergenceWithExitCode1) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const fs::path path = folder_.path() / "a.fpt";
  Command({"run", WriteSmall("a.fps").string(), "--target", "native", "--trace", path.string()});
  const auto bytes = files::ReadFile(path, trace::kMaxTraceSize);
  ASSERT_TRUE(bytes);
  auto trace = trace::ReadTrace(files::AsBytes(*bytes));
  ASSERT_TRUE(trace) << trace.error();
  std::vector<uint8_t> records;
  trace::RecordReader reader(trace->records);
  for (trace::RecordView record; reader.Next(record);) {
    std::vector<uint8_t> body(record.bytes.begin(), record.bytes.end());
    if (record.kind == trace::RecordKind::kJournal && body.size() == 16) body[5] ^= 0x10;
    trace::AppendRecord(records, record.kind, record.vcpu, record.step, body);
  }
  ASSERT_EQ(records.size(), trace->records.size());
  ASSERT_NE(records, trace->records);
  trace->records = records;
  ASSERT_TRUE(files::WriteFile(path, trace::WriteTrace(*trace)));
  const Result judged = Command({"judge", path.string(), "--json"});
  EXPECT_EQ(judged.exit, kDiverges) << judged.out;
  const Result shown = Command({"show", path.string()});
  EXPECT_THAT(shown.out, HasSubstr("  ** ")) << shown.out;
  const fs::path garbage = Write("bad.fpt", "garbage");
  EXPECT_EQ(Command({"judge", path.string(), garbage.string()}).exit, kDiverges)
      << "a file that can't be read hides no divergence";
}

TEST_F(Cli, RunTellsWhatWasTrimmed) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const fs::path path = Write("b.fps", program::PrintText(ProgramOf({Op::kFninit, Op::kGetXsave})));
  const Result run = Command({"run", path.string(), "--target", "native"});
  EXPECT_EQ(run.exit, kAgrees) << run.err;
  EXPECT_THAT(run.out, HasSubstr("trimmed: step 1 vmm.get_xsave"));
}

TEST_F(Cli, AProgramOfWhichNothingRanDoesNotAgree) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const fs::path path = Write("b.fps", program::PrintText(ProgramOf({Op::kGetXsave})));
  const Result run = Command({"run", path.string(), "--target", "native"});
  EXPECT_EQ(run.exit, kAgrees) << run.err;
  EXPECT_THAT(run.out, HasSubstr("b.fps: nothing of it can run here\n"));
  EXPECT_THAT(run.out, HasSubstr("0 agree, 0 known, 0 new, 1 can't run here\n"));
  const Result as_json = Command({"run", path.string(), "--target", "native", "--json"});
  const json object = json::parse(as_json.out, nullptr, false);
  EXPECT_EQ(object["results"][0]["result"], "nothing ran") << as_json.out;
  EXPECT_EQ(object["nothing_ran"], 1);
  EXPECT_EQ(object["agree"], 0);
}

TEST_F(Cli, MessagesNameTheUsersFilesNotTemporaryOnes) {
  if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
  const std::string path = WriteSmall("a.fps").string(),
                    trace = (folder_.path() / "none" / "a.fpt").string();
  const Result run = Command({"run", path, "--target", "native", "--trace", trace});
  EXPECT_EQ(run.exit, kBadInput);
  EXPECT_THAT(run.err, HasSubstr(trace + ": No such file"));
  const Result fuzz = Command(
      {"fuzz", "--target", "native", "--runs", "1", "--findings", path, "--engine", "plain"});
  EXPECT_EQ(fuzz.exit, kBadInput);
  EXPECT_THAT(fuzz.err, HasSubstr(path + ": Not a directory"));
}

TEST_F(Cli, ACorpusIsTheSameWithASlashBehindItsName) {
  const std::vector<uint8_t> bytes = program::Encode(ProgramOf({Op::kFninit, Op::kXsave}));
  Write("p/a.fps", program::PrintText(program::Decode(bytes)));
  const std::string corpus = (folder_.path() / "C").string();
  ASSERT_EQ(Command({"corpus", "import", corpus, (folder_.path() / "p").string()}).exit, kAgrees);
  for (const std::string& name : {corpus, corpus + "/"}) {
    const Result result = Command({"corpus", "minimize", name, "--json"});
    EXPECT_EQ(json::parse(result.out, nullptr, false)["programs"], 1) << result.out;
  }
}

TEST_F(Cli, ReachOfACorpusCountsWhatItWouldExercise) {
  std::vector<uint8_t> bytes = program::Encode(ProgramOf({Op::kFninit, Op::kXsave}));
  Write("corpus/" + std::string(40, '7'), files::AsText(bytes));
  const Result reach = Command({"reach", (folder_.path() / "corpus").string(), "--json"});
  EXPECT_EQ(reach.exit, kAgrees) << reach.err;
  const json object = json::parse(reach.out, nullptr, false);
  EXPECT_EQ(object["programs"], 1);
  EXPECT_FALSE(object["rows"].empty());
  const Result text = Command({"reach", (folder_.path() / "corpus").string()});
  EXPECT_THAT(text.out, HasSubstr("1 programs simulated"));
  EXPECT_THAT(text.out, Not(HasSubstr("judged"))) << "nothing was";
  EXPECT_THAT(text.out, Not(HasSubstr("Laws checked")));
}

// Fuzzing itself is tested through the command that a user starts, with its engine's processes.
class FuzzCommand : public Cli {
 protected:
  void SetUp() override {
    if (!HaveNative()) GTEST_SKIP() << "the native target is not available here";
    if (!fs::exists(fs::path(FPSWAP_BINARY_DIR) / "fpswap")) GTEST_SKIP() << "fpswap is not built";
  }
  json Fuzz(const std::string& findings, const std::string& arguments) {
    const fs::path out = folder_.path() / (findings + ".json");
    const std::string command = std::string(FPSWAP_BINARY_DIR) +
                                "/fpswap fuzz --target native --json --findings " +
                                (folder_.path() / findings).string() + " " + arguments + " > " +
                                out.string() + " 2> /dev/null";
    const int status = std::system(command.c_str());
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) <= kDiverges) << command;
    return json::parse(files::ReadFile(out, 1 << 24).value_or(""), nullptr, false);
  }
};

TEST_F(FuzzCommand, SameSeedGivesTheSamePrograms) {
  for (const char* engine : {"auto", "plain"}) {
    const std::string common = std::string("--runs 3000 --jobs 1 --engine ") + engine;
    const json a = Fuzz("a", common + " --seed 5"), b = Fuzz("b", common + " --seed 5 --batch 7"),
               c = Fuzz("c", common + " --seed 6");
    ASSERT_TRUE(a.is_object() && b.is_object() && c.is_object());
    EXPECT_EQ(a["programs"], 3000);
    EXPECT_EQ(a["programs_hash"], b["programs_hash"]) << engine;
    EXPECT_NE(a["programs_hash"], c["programs_hash"]) << engine;
    for (const char* key : {"seconds", "new", "known"}) EXPECT_TRUE(a.contains(key)) << key;
  }
}

TEST_F(FuzzCommand, OnALabLeavesNoConsoleBehind) {
  const fs::path temporary = folder_.path() / "tmp";
  fs::create_directories(temporary);
  WriteLab("here", FPSWAP_BINARY_DIR "/native-runner");
  for (const char* engine : {"auto", "plain"}) {
    const std::string command =
        "TMPDIR=" + temporary.string() + " FPSWAP_CACHE=" + (folder_.path() / "cache").string() +
        " " FPSWAP_BINARY_DIR "/fpswap fuzz --target lab:here --runs 100 --findings " +
        (folder_.path() / "f").string() + " --engine " + engine + " > /dev/null 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << engine;
    EXPECT_TRUE(fs::is_empty(temporary)) << fs::directory_iterator(temporary)->path();
    for (const auto& left : fs::directory_iterator(folder_.path() / "f")) {
      EXPECT_THAT(left.path().string(), Not(HasSubstr(".run"))) << "the run's folder is gone";
    }
  }
}

TEST_F(FuzzCommand, LeavesACorpusAndAReachTableThatReachReads) {
  const json summary =
      Fuzz("a", "--runs 2000 --jobs 2 --corpus " + (folder_.path() / "corpus").string());
  EXPECT_EQ(summary["programs"], 2000);
  EXPECT_FALSE(fs::is_empty(folder_.path() / "corpus"));
  const Result reach = Command({"reach", (folder_.path() / "a").string(), "--json"});
  EXPECT_EQ(reach.exit, kAgrees) << reach.err;
  EXPECT_EQ(json::parse(reach.out, nullptr, false)["programs"], 2000);
}

// Our own defect is no success, even where the run went on after it.
TEST_F(FuzzCommand, AWorkerThatCrashesIsExitCode2WithItsSignal) {
  // A sanitizer's own handler would make an exit status of it.
  setenv("ASAN_OPTIONS", "handle_segv=0", 1);
  setenv("UBSAN_OPTIONS", "handle_segv=0", 1);
  const auto first_child = [](pid_t of) {
    std::ifstream children("/proc/" + std::to_string(of) + "/task/" + std::to_string(of) +
                           "/children");
    pid_t child = -1;
    children >> child;
    return children ? child : -1;
  };
  for (const char* engine : {"auto", "plain"}) {
    const std::string out = (folder_.path() / engine).string(),
                      command = FPSWAP_BINARY_DIR "/fpswap",
                      findings = (folder_.path() / "findings").string();
    const pid_t fuzz = fork();
    if (fuzz == 0) {
      if (freopen(out.c_str(), "w", stdout) == nullptr ||
          freopen((out + ".err").c_str(), "w", stderr) == nullptr) {
        _exit(99);
      }
      execl(command.c_str(), command.c_str(), "fuzz", "--target", "native", "--runs", "1000000000",
            "--engine", engine, "--findings", findings.c_str(), "--json",
            static_cast<char*>(nullptr));
      _exit(99);
    }
    const auto said = [&](const char* word) {
      const auto text = files::ReadFile(out + ".err", 1 << 20);
      return text && text->find(word) != std::string::npos;
    };
    // A minute is a bound for a machine that hangs, not what is measured.
    const auto wait_for = [&](auto condition) {
      for (unsigned i = 0; i < 600 && !condition(); ++i) usleep(100000);
      return condition();
    };
    pid_t worker = -1;
    const auto program_of = [](pid_t pid) {
      std::error_code status;
      return fs::read_symlink("/proc/" + std::to_string(pid) + "/exe", status).filename().string();
    };
    // The status line counts once the worker has opened its target.
    EXPECT_TRUE(wait_for([&] { return said(" programs  "); }));
    worker = first_child(fuzz);
    EXPECT_THAT(program_of(worker), HasSubstr("fpswap"));
    kill(worker, SIGSEGV);
    EXPECT_TRUE(wait_for([&] { return first_child(fuzz) > 0 && first_child(fuzz) != worker; }));
    kill(fuzz, SIGTERM);
    int status = 0;
    ASSERT_EQ(waitpid(fuzz, &status, 0), fuzz);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), kBadInput) << engine;
    const json summary = json::parse(files::ReadFile(out, 1 << 24).value_or(""), nullptr, false);
    ASSERT_TRUE(summary.is_object()) << engine;
    EXPECT_EQ(summary["worker_deaths"],
              json::object({{"was killed by signal 11 (Segmentation fault)", 1}}))
        << engine;
    EXPECT_EQ(summary["restarts"], 1);
  }
}

}  // namespace
}  // namespace fpswap::cli
