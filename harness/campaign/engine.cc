// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/engine.h"

#include <fmt/format.h>
#include <malloc.h>

#include <csignal>
#include <cstdlib>

#include "harness/campaign/corpus.h"
#include "harness/campaign/feedback.h"
#include "harness/files/files.h"
#include "harness/program/codec.h"
#include "harness/program/generate.h"

namespace fpswap::campaign {
namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> LoadCorpus(const std::filesystem::path& folder) {
  std::vector<Bytes> corpus;
  const std::filesystem::path folders[] = {folder};
  const auto listed = files::List(folders);
  for (const auto& path : listed ? listed->encoded : std::vector<std::filesystem::path>{}) {
    if (auto text = files::ReadFile(path, program::kMaxEncodedSize)) {
      const auto bytes = files::AsBytes(*text);
      corpus.emplace_back(bytes.begin(), bytes.end());
    }
  }
  return corpus;
}

void SaveToCorpus(const std::filesystem::path& folder, const Bytes& bytes) {
  // A corpus that can't be written costs the next run a start, not this one its programs.
  (void)files::WriteFile(folder / CorpusName(bytes), bytes);
}

}  // namespace

Worker::Exit RunPlainEngine(Worker& worker, const WorkerOptions& options) {
  program::Rng rng(options.seed);
  auto seen = std::make_unique<Seen>();
  Bytes counters(kCounters);
  std::vector<Bytes> corpus;
  const auto run = [&](const Bytes& bytes) {
    std::fill(counters.begin(), counters.end(), uint8_t{0});
    worker.OneInput(bytes, counters);
    return seen->Add(counters) > 0;
  };
  for (Bytes& bytes : LoadCorpus(options.corpus)) {
    if (worker.stopped()) break;
    if (run(bytes)) corpus.push_back(std::move(bytes));
  }
  if (corpus.empty()) corpus.push_back({});
  while (!worker.stopped()) {
    const Bytes& parent = corpus[rng.Below(corpus.size())];
    const uint64_t seed = rng.Next();
    Bytes child = rng.OneIn(8) ? worker.Cross(parent, corpus[rng.Below(corpus.size())], seed,
                                              program::kMaxEncodedSize)
                               : worker.Mutate(parent, seed, program::kMaxEncodedSize);
    if (!run(child)) continue;
    SaveToCorpus(options.corpus, child);
    corpus.push_back(std::move(child));
  }
  return worker.Finish();
}

std::expected<WorkerOptions, std::string> PrepareWorkerProcess() {
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGTERM, [](int) { Worker::StopAll(); });
#ifdef __GLIBC__
  // Hundreds of worlds (worlds.h) that a rare program needs go back to the system with it. Left to
  // itself malloc would take them from its heaps once one has been freed, and keep the room.
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
#endif
  const char* json = std::getenv(kWorkerVariable);
  if (json == nullptr) {
    return std::unexpected(
        fmt::format("this is started by `fpswap fuzz`; {} is not set", kWorkerVariable));
  }
  auto options = WorkerOptionsFromJson(json);
  if (!options) return std::unexpected(fmt::format("{}: {}", kWorkerVariable, options.error()));
  return options;
}

int PlainEngineMain() {
  const auto options = PrepareWorkerProcess();
  if (!options) {
    fmt::print(stderr, "{}\n", options.error());
    return 2;
  }
  auto worker = Worker::Open(*options);
  if (!worker) {
    fmt::print(stderr, "{}\n", worker.error().reason);
    return Worker::kUnavailable;
  }
  return RunPlainEngine(**worker, *options);
}

}  // namespace fpswap::campaign
