// SPDX-License-Identifier: GPL-2.0-or-later
//
// Starting an engine in a process of its own.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <vector>

#include "harness/campaign/supervisor.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/program/generate.h"

namespace fpswap::campaign {
namespace fs = std::filesystem;
namespace {

// libFuzzer's seed is 31 bits, and 0 there means "draw one".
uint64_t EngineSeed(const WorkerOptions& options, unsigned restart) {
  // A worker that died gets another seed, or it would run into the same program again.
  program::Rng rng(options.seed + 0x9e3779b9u * options.job + 0x7f4a7c15u * restart);
  return (rng.Next() & 0x7ffffffe) + 1;
}

// What AFL++ starts from: the corpus and, for it wants something, a program that does nothing. A
// file that can't be copied is one seed less.
fs::path AflIn(const WorkerOptions& options) {
  const fs::path in = options.run / "afl-in";
  std::error_code status;
  if (fs::exists(in, status)) return in;
  fs::create_directories(in, status);
  (void)files::WriteFile(in / "nothing", program::Encode({}));
  const fs::path folders[] = {options.corpus};
  const auto listed = files::List(folders);
  for (const fs::path& path : listed ? listed->encoded : std::vector<fs::path>{}) {
    fs::copy_file(path, in / path.filename(), status);
  }
  return in;
}

std::vector<std::string> AflArguments(const FuzzOptions& fuzz, const WorkerOptions& options,
                                      uint64_t seed) {
  std::vector<std::string> arguments = {fuzz.afl_fuzz.string(),
                                        "-i",
                                        AflIn(options).string(),
                                        "-o",
                                        AflOut(options.run).string(),
                                        options.job == 0 ? "-M" : "-S",
                                        fmt::format("job-{}", options.job),
                                        "-s",
                                        fmt::format("{}", seed),
                                        "-m",
                                        "none",
                                        "-t",
                                        "120000"};  // the target stops hangs
  // Only the main job looks for what others put into the corpus; the rest have it from there.
  if (options.job == 0 && fuzz.keep_corpus) {
    arguments.insert(arguments.end(), {"-F", options.corpus.string()});
  }
  arguments.insert(arguments.end(), {"--", fuzz.engine.string()});
  return arguments;
}

std::vector<std::string> AflEnvironment(const FuzzOptions& fuzz, const WorkerOptions& options) {
  std::vector<std::string> variables = {
      "AFL_NO_UI=1", "AFL_AUTORESUME=1", "AFL_FAST_CAL=1", "AFL_NO_AFFINITY=1",
      "AFL_SKIP_CPUFREQ=1",
      // A worker's crash is our own bug: it is kept, but nobody waits for core files.
      "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1",
      fmt::format("{}={}", kAflPlatformVariable, (options.run / "platform.json").string())};
  if (options.ours) {
    variables.push_back("AFL_CUSTOM_MUTATOR_ONLY=1");
    variables.push_back("AFL_CUSTOM_MUTATOR_LIBRARY=" +
                        (fuzz.engine.parent_path() / "libfpswap-afl-mutator.so").string());
  }
  return variables;
}

std::vector<std::string> Arguments(const FuzzOptions& fuzz, const WorkerOptions& options,
                                   uint64_t seed) {
  if (!fuzz.afl_fuzz.empty()) return AflArguments(fuzz, options, seed);
  if (fuzz.engine.empty()) return {fuzz.self.string(), "fuzz-worker"};
  std::vector<std::string> arguments = {
      fuzz.engine.string(), fmt::format("-seed={}", seed),
      fmt::format("-max_len={}", program::kMaxEncodedSize),
      "-len_control=0",  // the mutator keeps programs small, libFuzzer need not
      "-timeout=0",      // the target stops hangs
      "-handle_int=0", "-handle_term=0", "-detect_leaks=0", "-verbosity=0",
      // A worker that crashes ends by its signal, so that the supervisor can name it.
      "-handle_segv=0", "-handle_bus=0", "-handle_abrt=0", "-handle_ill=0", "-handle_fpe=0",
      // Taking over what other jobs found depends on the clock: not in a run that must repeat.
      fmt::format("-reload={}", fuzz.jobs > 1 ? 1 : 0),
      fmt::format("-artifact_prefix={}/job-{}-", options.run.string(), options.job)};
  // One job whose corpus nobody wants keeps it in memory: libFuzzer replaces files by smaller ones
  // all the time, which costs a young corpus half its speed on ext4.
  if (fuzz.keep_corpus || fuzz.jobs > 1) arguments.push_back(options.corpus.string());
  return arguments;
}

}  // namespace

fs::path AflOut(const fs::path& run) { return run / "afl"; }

pid_t LaunchEngine(const FuzzOptions& fuzz, const WorkerOptions& given, unsigned restart) {
  WorkerOptions options = given;
  const uint64_t seed = EngineSeed(given, restart);
  options.seed = seed;
  const std::vector<std::string> arguments = Arguments(fuzz, options, seed);
  const std::string log = fmt::format("{}/job-{}.log", options.run.string(), options.job);
  const std::string variable = fmt::format("{}={}", kWorkerVariable, ToJson(options));
  // All that allocates is done before the fork.
  std::vector<char*> argv, environment;
  for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
  argv.push_back(nullptr);
  for (char** each = environ; *each != nullptr; ++each) environment.push_back(*each);
  environment.push_back(const_cast<char*>(variable.c_str()));
  const auto afl =
      fuzz.afl_fuzz.empty() ? std::vector<std::string>{} : AflEnvironment(fuzz, options);
  for (const std::string& each : afl) environment.push_back(const_cast<char*>(each.c_str()));
  environment.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  // The supervisor killed: the worker ends in good order and its pending programs stay on disk.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(Worker::kBroken);
  const int in = open("/dev/null", O_RDONLY),
            out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (in >= 0) dup2(in, 0);
  if (out >= 0) {
    dup2(out, 1);
    dup2(out, 2);
  }
  execve(argv[0], argv.data(), environment.data());
  _exit(127);
}

}  // namespace fpswap::campaign
