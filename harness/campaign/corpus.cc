// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/corpus.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <cerrno>
#include <cstring>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "harness/campaign/feedback.h"
#include "harness/files/files.h"
#include "harness/judge/judge.h"
#include "harness/plan/plan.h"
#include "harness/plan/wire.h"
#include "harness/program/codec.h"
#include "harness/triage/finding.h"
#include "harness/triage/signature.h"

namespace fpswap::campaign {
namespace fs = std::filesystem;
namespace {

using Error = std::unexpected<std::string>;
using Status = std::expected<void, std::string>;

constexpr const char* kManifest = "manifest.json";
constexpr size_t kMaxManifestSize = 512u << 20;
constexpr size_t kAtOnce = 64;

std::string Text(const Candidate& program) { return std::string(files::AsText(program.bytes)); }

// Puts programs together that are the same: files and notes of both.
class Gather {
 public:
  void Add(const program::Program& program, std::string file, CorpusNote note) {
    Candidate candidate{.bytes = program::Encode(program),
                        .steps = static_cast<unsigned>(program.steps.size()),
                        .vcpus = program.vcpus,
                        .files = {},
                        .note = {},
                        .edges = {}};
    const auto [at, fresh] = index_.try_emplace(Text(candidate), out_.programs.size());
    if (fresh) out_.programs.push_back(std::move(candidate));
    Candidate& mine = out_.programs[at->second];
    if (!file.empty()) mine.files.push_back(std::move(file));
    mine.note.platforms.merge(note.platforms);
    mine.note.signatures.merge(note.signatures);
    mine.note.kernel_edges.merge(note.kernel_edges);
    ++out_.read;
  }
  void Bad(std::string why) { out_.errors.push_back(std::move(why)); }
  bool full() const { return out_.read >= kMaxCorpus; }
  Candidates Done() {
    std::sort(out_.programs.begin(), out_.programs.end());
    return std::move(out_);
  }

 private:
  Candidates out_;
  std::unordered_map<std::string, size_t> index_;
};

Error TooMany() {
  return Error(fmt::format("more than {} programs: take some folders at a time", kMaxCorpus));
}

using Edges = std::bitset<wire::kEdges>;

Edges EdgesOf(const std::vector<uint16_t>& list) {
  Edges edges;
  for (const uint16_t edge : list) edges.set(edge);
  return edges;
}

// Whether runs tell of the kernel's edges.
bool Counted(const trace::Platform* platform, const RunCandidates& run) {
  return platform != nullptr && platform->kernel_coverage && run != nullptr;
}

// The signature that a program's folder says it shows: it is a finding.
CorpusNote NoteOfFinding(const fs::path& program) {
  CorpusNote note;
  std::error_code status;
  const fs::path folder = program.parent_path();
  if (!fs::exists(folder / "verdict.json", status)) return note;
  const auto of = triage::ReadFindingName(folder);
  if (of && !of->key.empty()) note.signatures.insert(of->key);
  return note;
}

std::expected<Manifest, std::string> ReadManifest(const fs::path& folder) {
  const fs::path path = folder / kManifest;
  std::error_code status;
  if (!fs::exists(path, status)) return Manifest{};
  const auto text = files::ReadFile(path, kMaxManifestSize);
  if (!text) return Error(text.error());
  auto read = ManifestFromJson(*text);
  if (!read) {
    return Error(
        fmt::format("{}: {}; without the file it is only unknown where entries were "
                    "interesting",
                    path.string(), read.error()));
  }
  return std::move(*read);
}

// Files of one folder that a corpus consists of, by name.
std::expected<std::vector<fs::path>, std::string> EntryFiles(const fs::path& folder) {
  const fs::path folders[] = {folder};
  auto listed = files::List(folders);
  if (!listed) return Error(listed.error());
  std::erase_if(listed->encoded,
                [&](const fs::path& path) { return path.parent_path() != folder; });
  if (listed->encoded.size() > kMaxCorpus) return TooMany();
  return std::move(listed->encoded);
}

}  // namespace

std::string CorpusName(std::span<const uint8_t> bytes) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (uint8_t b : bytes) hash = (hash ^ b) * 1099511628211u;
  return fmt::format("{:016x}", hash);
}

std::string PlatformLabel(const trace::Platform& platform) {
  std::string label = fmt::format("{}: {}", platform.name(), platform.cpu);
  if (!platform.kernel.empty()) label += ", Linux " + platform.kernel;
  if (!platform.vendor_module.empty()) label += ", " + platform.vendor_module;
  return label;
}

void StateCounter::Count(const program::Program& program, std::span<uint8_t> counters) {
  const plan::Plan plan = plan::MakePlan(program, platform_);
  Feedback feedback(counters);
  feedback.Steps(plan.effective);
  judge_.Simulate(plan, feedback);
}

bool Candidate::operator<(const Candidate& other) const {
  const auto key = [](const Candidate& c) { return std::tuple(c.steps, c.vcpus, c.bytes.size()); };
  return std::pair(key(*this), std::cref(bytes).get()) <
         std::pair(key(other), std::cref(other.bytes).get());
}

std::expected<Candidates, std::string> ReadCandidates(std::span<const fs::path> paths) {
  const auto listed = files::List(paths);
  if (!listed) return Error(listed.error());
  if (listed->programs.size() + listed->encoded.size() > kMaxCorpus) return TooMany();
  Gather gather;
  for (const fs::path& path : listed->programs) {
    const auto program = files::ReadProgram(path);
    program ? gather.Add(*program, "", NoteOfFinding(path)) : gather.Bad(program.error());
  }
  std::map<fs::path, Manifest> manifests;
  for (const fs::path& path : listed->encoded) {
    const auto program = files::ReadEncoded(path);
    if (!program) {
      gather.Bad(program.error());
      continue;
    }
    const auto [at, fresh] = manifests.try_emplace(path.parent_path());
    if (fresh) {
      auto manifest = ReadManifest(path.parent_path());
      manifest ? void(at->second = std::move(*manifest)) : gather.Bad(manifest.error());
    }
    const auto note = at->second.find(path.filename());
    gather.Add(*program, "", note == at->second.end() ? CorpusNote{} : note->second);
  }
  return gather.Done();
}

RunCandidates RunWith(Runner& runner, KeepPending keep) {
  return [&runner, keep = std::move(keep)](std::span<Candidate> programs) -> Status {
    for (; !programs.empty(); programs = programs.subspan(std::min(kAtOnce, programs.size()))) {
      const auto batch = programs.first(std::min(kAtOnce, programs.size()));
      std::vector<program::Program> decoded;
      std::vector<plan::Plan> plans;
      for (const Candidate& each : batch) {
        decoded.push_back(program::Decode(each.bytes));
        plans.push_back(plan::MakePlan(decoded.back(), runner.platform()));
      }
      if (auto kept = keep(decoded); !kept) return kept;
      std::vector<const plan::Plan*> pointers;
      for (const plan::Plan& each : plans) pointers.push_back(&each);
      const auto ran =
          runner.Run(pointers, nullptr,
                     [&](size_t index, std::span<const uint8_t>, const judge::Verdict& verdict) {
                       for (const judge::Divergence& divergence : verdict.divergences) {
                         batch[index].note.signatures.insert(triage::SignatureOf(divergence).Key());
                       }
                       const auto edges = runner.kernel_edges();
                       batch[index].edges.assign(edges.begin(), edges.end());
                     });
      if (!ran) return ran;
    }
    return {};
  };
}

void Cover::NoteIn(CorpusNote& note, size_t i, const std::string& label) const {
  if (states[i] > 0) note.platforms[label] = states[i];
  if (edges[i] > 0) note.kernel_edges[label] = edges[i];
}

std::expected<Cover, std::string> FindCover(std::span<Candidate> programs,
                                            const trace::Platform& platform,
                                            const RunCandidates& run,
                                            const CorpusProgress& progress) {
  Cover cover{.chosen = std::vector<bool>(programs.size()),
              .states = std::vector<unsigned>(programs.size()),
              .edges = std::vector<unsigned>(programs.size()),
              .counted = Counted(&platform, run)};
  const auto seen = std::make_unique<Seen>();
  Edges seen_edges;
  std::unordered_set<std::string> signatures;
  std::vector<uint8_t> counters(kCounters);
  StateCounter states(platform);
  for (size_t first = 0; first < programs.size(); first += kAtOnce) {
    const auto some = programs.subspan(first, std::min(kAtOnce, programs.size() - first));
    if (run) {
      if (auto ran = run(some); !ran) return Error(ran.error());
    }
    for (size_t i = 0; i < some.size(); ++i) {
      Candidate& each = some[i];
      Edges reached = EdgesOf(std::exchange(each.edges, {}));
      if (cover.counted && (reached & ~seen_edges).any()) {
        if (auto ran = run({&each, 1}); !ran) return Error(ran.error());
        const Edges again = EdgesOf(std::exchange(each.edges, {}));
        cover.edges[first + i] = static_cast<unsigned>((reached & again & ~seen_edges).count());
        reached |= again;
      }
      std::fill(counters.begin(), counters.end(), uint8_t{0});
      states.Count(program::Decode(each.bytes), counters);
      bool adds = false;
      for (const std::string& key : each.note.signatures) {
        adds = signatures.insert(key).second || adds;
      }
      cover.states[first + i] = seen->Add(counters);
      cover.chosen[first + i] = adds || cover.states[first + i] > 0 || cover.edges[first + i] > 0;
      if (cover.chosen[first + i]) seen_edges |= reached;
    }
    if (progress) progress(first + some.size(), programs.size());
  }
  cover.reached = seen->count();
  return cover;
}

std::expected<CorpusFolder, std::string> CorpusFolder::Open(const fs::path& path, bool make) {
  // Entries are told by the folder that they are in.
  const fs::path given = files::WithoutSlash(path);
  std::error_code status;
  if (make) fs::create_directories(given, status);
  if (status) return Error(fmt::format("{}: {}", given.string(), status.message()));
  const int lock = open(given.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) return Error(fmt::format("{}: {}", given.string(), std::strerror(errno)));
  CorpusFolder folder(given, lock);
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    return Error(fmt::format("{}: another `fpswap corpus` works on it", given.string()));
  }
  auto manifest = ReadManifest(given);
  if (!manifest) return Error(manifest.error());
  folder.manifest_ = std::move(*manifest);
  const auto paths = EntryFiles(given);
  if (!paths) return Error(paths.error());
  Gather gather;
  for (const fs::path& file : *paths) {
    const auto program = files::ReadEncoded(file);
    if (!program) {
      gather.Bad(program.error());
      continue;
    }
    const std::string name = file.filename();
    const auto note = folder.manifest_.find(name);
    gather.Add(*program, name, note == folder.manifest_.end() ? CorpusNote{} : note->second);
  }
  folder.entries_ = gather.Done();
  return folder;
}

CorpusFolder::CorpusFolder(CorpusFolder&& other) noexcept
    : path_(std::move(other.path_)),
      lock_(std::exchange(other.lock_, -1)),
      manifest_(std::move(other.manifest_)),
      entries_(std::move(other.entries_)) {}

CorpusFolder::~CorpusFolder() {
  if (lock_ >= 0) close(lock_);
}

// Everything written before is on the disk before the manifest that speaks of it.
Status CorpusFolder::Save(const Manifest& manifest) {
  if (syncfs(lock_) != 0) {
    return Error(fmt::format("{}: {}", path_.string(), std::strerror(errno)));
  }
  if (manifest == manifest_) return {};
  auto written = files::WriteFile(path_ / kManifest, ManifestToJson(manifest));
  if (written) manifest_ = manifest;
  return written;
}

std::expected<CorpusFolder::Changed, std::string> CorpusFolder::Add(
    std::vector<Candidate> from, const trace::Platform* platform, const RunCandidates& run,
    const CorpusProgress& progress) {
  std::unordered_map<std::string, size_t> mine;
  for (size_t i = 0; i < entries_.programs.size(); ++i) mine[Text(entries_.programs[i])] = i;
  // What is here comes first: it stays, whatever its length.
  std::vector<Candidate> all = entries_.programs;
  const std::string label = platform == nullptr ? "" : PlatformLabel(*platform);
  for (Candidate& each : from) {
    if (Counted(platform, run)) each.note.kernel_edges.erase(label);
    const auto at = mine.find(Text(each));
    if (at == mine.end()) {
      // What it added elsewhere says nothing here, unless all is taken over as it is.
      if (platform != nullptr) each.note.platforms.clear();
      all.push_back(std::move(each));
    } else {
      all[at->second].note.signatures.merge(each.note.signatures);
      all[at->second].note.kernel_edges.merge(each.note.kernel_edges);
    }
  }
  std::optional<Cover> cover;
  if (platform != nullptr) {
    auto found = FindCover(all, *platform, run, progress);
    if (!found) return Error(found.error());
    cover = std::move(*found);
  }
  Changed changed;
  Manifest manifest = manifest_;
  for (size_t i = 0; i < all.size(); ++i) {
    Candidate& each = all[i];
    const bool is_mine = i < entries_.programs.size();
    if (cover) cover->NoteIn(each.note, i, label);
    if (!is_mine && cover && !cover->chosen[i] && each.note.kernel_edges.empty()) continue;
    const std::string name = is_mine ? each.files.front() : CorpusName(each.bytes);
    if (!is_mine) {
      const auto written = files::WriteFile(path_ / name, each.bytes, files::Sync::kLater);
      if (!written) return Error(written.error());
      each.files = {name};
      ++changed.added;
    }
    if (each.note != CorpusNote{}) manifest[name] = each.note;
  }
  if (auto saved = Save(manifest); !saved) return Error(saved.error());
  std::erase_if(all, [](const Candidate& each) { return each.files.empty(); });
  std::sort(all.begin(), all.end());
  entries_.programs = std::move(all);
  return changed;
}

std::expected<CorpusFolder::Changed, std::string> CorpusFolder::Minimise(
    const trace::Platform& platform, const RunCandidates& run, const CorpusProgress& progress) {
  const auto cover = FindCover(entries_.programs, platform, run, progress);
  if (!cover) return Error(cover.error());
  const std::string label = PlatformLabel(platform);
  // A signature counts where its shortest program is. What can't be known here, a state of another
  // platform and an edge of a kernel on which nothing ran now, counts where the manifest says.
  std::unordered_set<std::string> signatures;
  Manifest manifest;
  std::vector<Candidate> kept;
  std::vector<std::string> remove;
  for (size_t i = 0; i < entries_.programs.size(); ++i) {
    Candidate& each = entries_.programs[i];
    each.note.platforms.erase(label);
    if (cover->counted) each.note.kernel_edges.erase(label);
    cover->NoteIn(each.note, i, label);
    std::erase_if(each.note.signatures,
                  [&](const std::string& key) { return !signatures.insert(key).second; });
    const bool keep = each.note != CorpusNote{};
    remove.insert(remove.end(), each.files.begin() + (keep ? 1 : 0), each.files.end());
    if (!keep) continue;
    each.files.resize(1);
    manifest[each.files.front()] = each.note;
    kept.push_back(std::move(each));
  }
  if (auto saved = Save(manifest); !saved) return Error(saved.error());
  for (const std::string& name : remove) {
    std::error_code status;
    fs::remove(path_ / name, status);
    if (status) return Error(fmt::format("{}: {}", (path_ / name).string(), status.message()));
  }
  entries_.programs = std::move(kept);
  return Changed{.added = 0, .removed = remove.size()};
}

Status CorpusFolder::NoteEdges(const std::string& label,
                               const std::map<std::string, uint64_t>& edges) {
  Manifest manifest = manifest_;
  for (Candidate& each : entries_.programs) {
    const auto at = edges.find(CorpusName(each.bytes));
    if (at == edges.end() || at->second == 0) continue;
    if (each.note.platforms.contains(label) || each.note.kernel_edges.contains(label)) continue;
    each.note.kernel_edges[label] =
        static_cast<unsigned>(std::min<uint64_t>(at->second, wire::kEdges));
    manifest[each.files.front()] = each.note;
  }
  return Save(manifest);
}

}  // namespace fpswap::campaign
