// SPDX-License-Identifier: GPL-2.0-or-later
//
// The libFuzzer engine, started by `fpswap fuzz` once a job. Only an entry point: everything is in
// harness/campaign/worker.h. Started by hand it runs nothing and only tells what states programs
// reach on a machine that has everything: for -merge=1.
#include "harness/campaign/engine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "harness/campaign/corpus.h"
#include "harness/campaign/feedback.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/worker.h"
#include "harness/program/codec.h"

namespace {

using fpswap::campaign::Worker;

// libFuzzer finds its extra counters by the section, clears them before each input and reads them
// after it. They are the only feedback there is.
__attribute__((
    section("__libfuzzer_extra_counters"))) uint8_t extra_counters[fpswap::campaign::kCounters];

// A libFuzzer process has one worker, and its callbacks carry no context.
std::unique_ptr<Worker>& TheWorker() {
  static std::unique_ptr<Worker> worker;
  return worker;
}

// What there is instead of a worker, started by hand.
fpswap::campaign::StateCounter& TheStates() {
  static const fpswap::trace::Platform kPlatform = fpswap::campaign::EverythingPlatform();
  static fpswap::campaign::StateCounter states(kPlatform);
  return states;
}

[[noreturn]] void Leave(int status) {
  std::fflush(nullptr);
  // Not exit(): libFuzzer takes an exit inside an input for a crash.
  _exit(status);
}

size_t Put(const std::vector<uint8_t>& bytes, uint8_t* out, size_t limit) {
  const size_t size = std::min(bytes.size(), limit);
  if (size > 0) std::memcpy(out, bytes.data(), size);
  return size;
}

}  // namespace

extern "C" {

// libFuzzer brings the sanitizers' runtime, whose handlers turn a crash into an exit with status 1:
// the supervisor is to see the signal. (An instrumented build keeps ASan's, for its report.)
const char* __ubsan_default_options() {  // NOLINT(bugprone-reserved-identifier)
  return "handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0";
}

size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (std::getenv(fpswap::campaign::kWorkerVariable) == nullptr) return 0;
  const auto options = fpswap::campaign::PrepareWorkerProcess();
  if (!options) {
    fmt::print(stderr, "{}\n", options.error());
    Leave(2);
  }
  auto worker = Worker::Open(*options);
  if (!worker) {
    fmt::print(stderr, "{}\n", worker.error().reason);
    Leave(Worker::kUnavailable);
  }
  TheWorker() = std::move(*worker);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (TheWorker() == nullptr) {
    TheStates().Count(fpswap::program::Decode({data, size}), extra_counters);
    return 0;
  }
  TheWorker()->OneInput({data, size}, extra_counters);
  if (TheWorker()->stopped()) {
    const Worker::Exit status = TheWorker()->Finish();
    TheWorker().reset();  // waits for the agent, whose CPU time is this process's then
    Leave(status);
  }
  return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  if (TheWorker() == nullptr || !TheWorker()->options().ours) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  return Put(TheWorker()->Mutate({data, size}, seed, max_size), data, max_size);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t* data1, size_t size1, const uint8_t* data2,
                                 size_t size2, uint8_t* out, size_t max_out, unsigned int seed) {
  if (TheWorker() == nullptr || !TheWorker()->options().ours)
    return 0;  // LLVMFuzzerMutate crosses bytes itself
  return Put(TheWorker()->Cross({data1, size1}, {data2, size2}, seed, max_out), out, max_out);
}

}  // extern "C"
