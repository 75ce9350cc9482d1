// SPDX-License-Identifier: GPL-2.0-or-later
//
// The AFL++ engine, in persistent mode, started by afl-fuzz, which `fpswap fuzz --engine afl`
// starts once a job. Everything is in harness/campaign/worker.h; the oracle's states are written
// straight into AFL++'s map, and nothing is instrumented: they are the only feedback there is.
// Started by hand it runs nothing and only tells what states programs reach on a machine that has
// everything: for afl-cmin and afl-showmap.
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "harness/campaign/corpus.h"
#include "harness/campaign/engine.h"
#include "harness/campaign/feedback.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/worker.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"

// AFL++'s runtime (afl-compiler-rt.o); what its compiler's macros stand for is written out here.
extern "C" {
extern uint8_t* __afl_area_ptr;
extern uint32_t* __afl_fuzz_len;
extern uint8_t* __afl_fuzz_ptr;
extern int __afl_sharedmem_fuzzing;
int __afl_sharedmem_fuzzing = 1;  // inputs come in shared memory
void __afl_manual_init();
int __afl_persistent_loop(unsigned count);
}

namespace {

using fpswap::campaign::Worker;

// afl-fuzz looks for these in the file before it runs it.
__attribute__((used)) const char* volatile kPersistent = "##SIG_AFL_PERSISTENT##";
__attribute__((used)) const char* volatile kDeferred = "##SIG_AFL_DEFER_FORKSRV##";

constexpr unsigned kLifetime = 1'000'000;  // inputs

// Ends well: afl-fuzz is told to come to an end, and ends this process.
[[noreturn]] void End(Worker& worker, pid_t afl_fuzz) {
  const int status = worker.Finish();
  std::fflush(nullptr);
  if (afl_fuzz <= 1) _exit(status);
  kill(afl_fuzz, SIGINT);
  while (true) pause();
}

// The input: in shared memory, or on standard input where there is none.
std::span<const uint8_t> Input() {
  static std::vector<uint8_t> alone(fpswap::program::kMaxEncodedSize);
  if (__afl_fuzz_ptr != nullptr) return {__afl_fuzz_ptr, *__afl_fuzz_len};
  const ssize_t got = read(0, alone.data(), alone.size());
  return std::span(alone).first(got > 0 ? static_cast<size_t>(got) : 0);
}

int TellStates() {
  using namespace fpswap;
  const trace::Platform platform = campaign::EverythingPlatform();
  campaign::StateCounter states(platform);
  __afl_manual_init();
  while (__afl_persistent_loop(kLifetime) != 0) {
    states.Count(program::Decode(Input()), {__afl_area_ptr, campaign::kCounters});
  }
  return 0;
}

}  // namespace

int main() {
  using namespace fpswap;
  if (std::getenv(campaign::kWorkerVariable) == nullptr) return TellStates();
  const auto options = campaign::PrepareWorkerProcess();
  if (!options) {
    fmt::print(stderr, "{}\n", options.error());
    return 2;
  }
  const pid_t afl_fuzz = getppid();
  // Forks: below, this is a process that the fork server has made. Threads and the agent are its.
  __afl_manual_init();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto worker = Worker::Open(*options);
  if (!worker) {
    fmt::print(stderr, "{}\n", worker.error().reason);
    kill(afl_fuzz, SIGINT);
    return Worker::kUnavailable;
  }
  // Without it the mutator draws for a machine that has everything, and more is trimmed.
  const auto written = files::WriteFile(options->run / "platform.json",
                                        trace::PlatformToJson((*worker)->platform()));
  if (!written) fmt::print(stderr, "{}\n", written.error());
  std::vector<uint8_t> last, counters(campaign::kCounters);
  bool any = false;
  while (__afl_persistent_loop(kLifetime) != 0) {
    const std::span<const uint8_t> bytes = Input();
    // A new program is tried several times, to see whether what it reaches is always the same. It
    // is, by construction: it runs once.
    if (!any || !std::ranges::equal(bytes, last)) {
      std::ranges::fill(counters, uint8_t{0});
      (*worker)->OneInput(bytes, counters);
      last.assign(bytes.begin(), bytes.end());
      any = true;
    }
    std::ranges::copy(counters, __afl_area_ptr);
    if ((*worker)->stopped()) End(**worker, afl_fuzz);
  }
  return (*worker)->Finish();
}
