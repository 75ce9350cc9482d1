// SPDX-License-Identifier: GPL-2.0-or-later
//
// The plain engine: a coverage-guided loop in a few lines, for builds without clang's libFuzzer.
// Same worker, same mutators, same feedback; what it lacks is libFuzzer's choice of what to mutate
// next.
#pragma once

#include "harness/campaign/worker.h"

namespace fpswap::campaign {

// Drives `worker` until it is stopped, then finishes it. Deterministic in options.seed and corpus.
Worker::Exit RunPlainEngine(Worker& worker, const WorkerOptions& options);

// A whole worker process with the plain engine, its options taken from the environment
// (kWorkerVariable). The exit status.
int PlainEngineMain();

// Options from the environment and signals set for a worker's process (both engines): Ctrl-C is for
// the supervisor, SIGTERM ends the worker in good order.
std::expected<WorkerOptions, std::string> PrepareWorkerProcess();

}  // namespace fpswap::campaign
