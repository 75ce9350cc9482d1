// SPDX-License-Identifier: GPL-2.0-or-later
//
// Care of a corpus: a folder of programs in byte form, each named by a hash, and manifest.json,
// which says of each on which platform it was interesting.
//
// Interesting is what reaches a state of the oracle (feedback.h), shows a signature, or reaches an
// edge of the kernel, that no shorter program does. So for each of these the shortest program is
// kept; shorter is fewer steps, then fewer vCPUs, then fewer bytes. States are simulated; the other
// two are known where programs run, or from the manifest.
//
// Edges are noisy: what a thread does when it is scheduled away counts too. So an edge is a
// program's only if two runs reach it, and nobody's any more once a program that is kept has
// reached it once.
//
// All is done whole: entries and manifest are written by rename, files are removed only once a
// manifest without them is written. What was broken off is done again by the same call. Time is
// linear in the number of programs but for sorting them.
//
// Thread safety: no shared state; a CorpusFolder keeps other processes' CorpusFolders out.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/campaign/manifest.h"
#include "harness/campaign/runner.h"
#include "harness/judge/judge.h"
#include "harness/trace/platform.h"

namespace fpswap::campaign {

// The name of an entry of a corpus: 16 hexadecimal digits.
std::string CorpusName(std::span<const uint8_t> bytes);

// "kvm: AMD EPYC 9B14, Linux 6.1.0, kvm_amd".
std::string PlatformLabel(const trace::Platform& platform);

inline constexpr size_t kMaxCorpus = 1'000'000;  // programs handled at once

// Which states programs reach on a platform, as an engine sees them (feedback.h); nothing runs.
class StateCounter {
 public:
  // `platform` outlives this.
  explicit StateCounter(const trace::Platform& platform) : platform_(platform), judge_(platform) {}
  // Sets `counters` (kCounters bytes); clears none.
  void Count(const program::Program& program, std::span<uint8_t> counters);

 private:
  const trace::Platform& platform_;
  judge::Judge judge_;
};

// A program that may become an entry, or is one.
struct Candidate {
  std::vector<uint8_t> bytes;  // canonical
  unsigned steps = 0, vcpus = 1;
  std::vector<std::string> files;  // of the corpus that have it; empty: of elsewhere
  CorpusNote note;
  std::vector<uint16_t> edges;  // of the kernel, reached when it last ran; empty once looked at
  bool operator<(const Candidate& other) const;  // shorter; never equal for different bytes
};

struct Candidates {
  std::vector<Candidate> programs;  // no two the same, the shortest first
  size_t read = 0;
  std::vector<std::string> errors;  // files that were passed over, and why
};

// All programs that files and folders hold, in text or byte form: corpora, queues of AFL++,
// findings with their signatures. A path that is not there is an error.
std::expected<Candidates, std::string> ReadCandidates(std::span<const std::filesystem::path> paths);

// Called now and then with what was done of all.
using CorpusProgress = std::function<void(size_t done, size_t all)>;
// Runs programs, called with some at a time: adds the signatures that each shows to its note, and
// sets its edges. An error ends all. Null: nothing runs.
using RunCandidates = std::function<std::expected<void, std::string>(std::span<Candidate>)>;
// With `runner`; `keep` is called before with each batch that is to run, its error ends all.
using KeepPending =
    std::function<std::expected<void, std::string>(std::span<const program::Program>)>;
RunCandidates RunWith(Runner& runner, KeepPending keep);

// Which of `programs`, in their order, reach a state or an edge or have a signature that none
// before them has, on `platform`.
struct Cover {
  std::vector<bool> chosen;
  // The new ones of each, 0 for those not chosen. Edges only where `run` tells them.
  std::vector<unsigned> states, edges;
  unsigned reached = 0;  // states in all
  bool counted = false;  // edges are told
  // Puts what program `i` adds on the platform of this label into its note.
  void NoteIn(CorpusNote& note, size_t i, const std::string& label) const;
};
std::expected<Cover, std::string> FindCover(std::span<Candidate> programs,
                                            const trace::Platform& platform,
                                            const RunCandidates& run,
                                            const CorpusProgress& progress);

class CorpusFolder {
 public:
  // Locks the folder, made if need be and `make`, and reads manifest and entries.
  static std::expected<CorpusFolder, std::string> Open(const std::filesystem::path& path,
                                                       bool make);
  CorpusFolder(CorpusFolder&& other) noexcept;
  CorpusFolder& operator=(CorpusFolder&&) = delete;
  ~CorpusFolder();

  const Manifest& manifest() const { return manifest_; }
  Candidates& entries() { return entries_; }
  const std::filesystem::path& path() const { return path_; }

  struct Changed {
    size_t added = 0, removed = 0;
  };
  // Adds what `from` has and this lacks. With `platform`, only what reaches something new there, or
  // by its own manifest an edge of the kernel of another.
  std::expected<Changed, std::string> Add(std::vector<Candidate> from,
                                          const trace::Platform* platform, const RunCandidates& run,
                                          const CorpusProgress& progress);
  // Removes what is interesting neither on `platform` nor, by the manifest, on any other.
  std::expected<Changed, std::string> Minimise(const trace::Platform& platform,
                                               const RunCandidates& run,
                                               const CorpusProgress& progress);
  // What a fuzzing run saw: by CorpusName of the canonical bytes, edges of the kernel that a
  // program was the first to reach on the platform of this label. It is noted of entries of which
  // nothing is known there yet; what isn't an entry is passed over.
  std::expected<void, std::string> NoteEdges(const std::string& label,
                                             const std::map<std::string, uint64_t>& edges);

 private:
  CorpusFolder(std::filesystem::path path, int lock) : path_(std::move(path)), lock_(lock) {}
  std::expected<void, std::string> Save(const Manifest& manifest);

  std::filesystem::path path_;
  int lock_;
  Manifest manifest_;
  Candidates entries_;
};

}  // namespace fpswap::campaign
