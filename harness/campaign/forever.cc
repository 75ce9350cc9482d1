// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/forever.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include "harness/campaign/corpus.h"
#include "harness/campaign/platforms.h"
#include "harness/files/files.h"

namespace fpswap::campaign {
namespace fs = std::filesystem;
namespace {

using Error = std::unexpected<std::string>;

constexpr uint64_t kMib = 1u << 20;
constexpr double kDiskEvery = 60;  // seconds: it looks at each file
constexpr size_t kSaid = 8;
constexpr size_t kMaxChanges =
    1u << 20;  // bytes of changes.jsonl; then it begins anew, one is kept
constexpr size_t kMaxJudged = 256u << 20;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Evidence that may go when the disk is full: programs that are no findings.
bool MayGo(const fs::path& folder) {
  const std::string name = folder.filename();
  return name.starts_with("interrupted-") || name.starts_with("crashes-") ||
         name.starts_with("queues-");
}

// A hash of what the known divergences are: a new one is a reason to judge again.
std::string HashOfKnown(const fs::path& folder) {
  std::map<std::string, std::string> texts;
  std::error_code status;
  if (!folder.empty()) {
    for (fs::directory_iterator it(folder, status), end; !status && it != end;
         it.increment(status)) {
      auto text = files::ReadFile(it->path() / "known.json", kMib);
      if (text) texts[it->path().filename()] = std::move(*text);
    }
  }
  std::string all;
  for (const auto& [name, text] : texts) all += name + '\n' + text + '\n';
  return CorpusName(files::AsBytes(all));
}

}  // namespace

uint64_t DiskUse(const std::vector<fs::path>& paths) {
  uint64_t blocks = 0;
  std::set<std::pair<dev_t, ino_t>> folders;  // a path may lie in another one
  const auto add = [&](const auto& self, const fs::path& folder) -> void {
    struct stat status{};
    if (lstat(folder.c_str(), &status) != 0) return;
    if (!folders.insert({status.st_dev, status.st_ino}).second) return;
    blocks += static_cast<uint64_t>(status.st_blocks);
    std::error_code ignored;
    for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end;
         it.increment(ignored)) {
      if (lstat(it->path().c_str(), &status) != 0) continue;
      if (S_ISDIR(status.st_mode)) {
        self(self, it->path());
      } else {
        blocks += static_cast<uint64_t>(status.st_blocks);
      }
    }
  };
  for (const fs::path& path : paths) add(add, path);
  return blocks * 512;
}

uint64_t MemoryBelow(pid_t process) {
  std::multimap<pid_t, pid_t> children;
  std::map<pid_t, uint64_t> pages;
  std::error_code ignored;
  for (fs::directory_iterator it("/proc", ignored), end; !ignored && it != end;
       it.increment(ignored)) {
    const pid_t pid = std::atoi(it->path().filename().c_str());
    std::ifstream stat_file(it->path() / "stat");
    std::string line;
    if (pid <= 0 || !std::getline(stat_file, line)) continue;
    // The name in brackets may have anything in it: PID (NAME) STATE PPID ..., the resident pages
    // are field 24.
    const size_t after = line.rfind(')');
    if (after == std::string::npos) continue;
    long long value = 0;
    char state = 0;
    std::istringstream fields(line.substr(after + 1));
    fields >> state >> value;
    children.insert({static_cast<pid_t>(value), pid});
    for (unsigned field = 5; field <= 24; ++field) fields >> value;
    pages[pid] = static_cast<uint64_t>(std::max(0LL, value));
  }
  uint64_t sum = 0;
  std::vector<pid_t> todo = {process};
  while (!todo.empty()) {
    const auto [first, last] = children.equal_range(todo.back());
    todo.pop_back();
    for (auto it = first; it != last; ++it) {
      sum += pages[it->second];
      todo.push_back(it->second);
    }
  }
  return sum * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

Keeper::Keeper(KeepOptions options, Say say, int lock)
    : options_(std::move(options)), say_(std::move(say)), lock_(lock) {
  status_.state = "starting";
  status_.target = options_.target;
  status_.version = options_.version;
  status_.findings = options_.findings.string();
  status_.started = std::time(nullptr);
  status_.disk_bound_mib = options_.disk_mib;
  status_.memory_bound_mib = options_.memory_mib;
}

Keeper::~Keeper() { close(lock_); }

std::expected<std::unique_ptr<Keeper>, std::string> Keeper::Open(KeepOptions options, Say say) {
  std::error_code status;
  for (const fs::path& folder : {options.findings, options.corpus}) {
    fs::create_directories(folder, status);
    if (status) return Error(fmt::format("{}: {}", folder.string(), status.message()));
  }
  const fs::path lock = options.findings / ".forever";
  const int fd = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Error(fmt::format("{}: {}", lock.string(), std::strerror(errno)));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return Error(
        fmt::format("{}: another `fpswap fuzz --forever` runs there; one is enough, with "
                    "--jobs for more workers, or give another --findings folder",
                    options.findings.string()));
  }
  if (!options.open) {
    options.open =
        [name = options.target,
         given = options.target_options]() -> std::expected<std::unique_ptr<Runner>, std::string> {
      auto target = campaign::Open(name, given);
      if (!target) return Error(target.error().reason);
      return MakeRunner(std::move(*target));
    };
  }
  return std::unique_ptr<Keeper>(new Keeper(std::move(options), std::move(say), fd));
}

void Keeper::Tell(std::string sentence) {
  if (say_) say_(sentence);
  status_.said.push_back(std::move(sentence));
  if (status_.said.size() > kSaid) status_.said.erase(status_.said.begin());
}

void Keeper::Write() {
  status_.updated = std::time(nullptr);
  // No sync: a status that is lost with the machine is of no use after it.
  for (const auto& [name, text] : {std::pair("status.json", StatusToJson(status_)),
                                   {"fpswap.prom", StatusToMetrics(status_)}}) {
    const auto written =
        files::WriteFile(options_.findings / name, files::AsBytes(text), files::Sync::kLater);
    // Said once: the next attempts are seconds away, for as long as the disk is full.
    if (!written && (status_.said.empty() || status_.said.back() != written.error())) {
      Tell(written.error());
    }
  }
}

void Keeper::State(std::string_view state) {
  if (status_.state == state) return;
  status_.state = state;
  Write();
}

bool Keeper::Note(const Progress& progress) {
  const char* state = progress.waiting ? "waiting" : progress.starting ? "starting" : "fuzzing";
  const double now = Now();
  if (now - measured_ < options_.every && status_.state == state) return over_;
  measured_ = now;
  if (progress.last_said != status_.progress.last_said) Tell(progress.last_said);
  status_.progress = progress;
  status_.memory_mib = MemoryBelow(getpid()) / kMib;
  if (now - disk_measured_ >= std::max(kDiskEvery, options_.every)) {
    disk_measured_ = now;
    status_.disk_mib = DiskUse({options_.findings, options_.corpus}) / kMib;
  }
  if (!over_ && !progress.waiting) {
    const auto [what, is, bound] =
        status_.memory_mib > options_.memory_mib
            ? std::tuple("memory", status_.memory_mib, options_.memory_mib)
            : std::tuple("disk", status_.disk_mib, options_.disk_mib);
    over_ = is > bound;
    if (over_) {
      ++status_.early_rounds;
      Tell(fmt::format("{} MiB of {} are in use and {} are allowed: this round ends early", is,
                       what, bound));
    }
  }
  status_.state = state;
  Write();
  return over_;
}

void Keeper::End(const Summary& summary) {
  status_.progress = summary.progress;
  for (const std::string& error : summary.errors) {
    if (std::ranges::find(status_.said, error) == status_.said.end()) {
      status_.said.push_back(error);
    }
  }
  if (status_.said.size() > kSaid) {
    status_.said.erase(status_.said.begin(), status_.said.end() - kSaid);
  }
  status_.memory_mib = 0;
  status_.state = "stopped";
  Write();
}

std::expected<void, std::string> Keeper::Between() {
  over_ = false;
  measured_ = -1e9;
  auto runner = options_.open();
  if (!runner) {
    // The round will say the same, and what is to be done about it.
    State("tidying");
    return KeepDiskBound();
  }
  const trace::Platform& platform = (*runner)->platform();
  status_.kernel = platform.kernel;
  status_.cpu = platform.cpu;
  State("tidying");
  MakeCorpusSmaller(platform);
  if (auto kept = KeepDiskBound(); !kept) return kept;
  JudgeAgainIfNew(**runner);
  return {};
}

void Keeper::MakeCorpusSmaller(const trace::Platform& platform) {
  auto corpus = CorpusFolder::Open(options_.corpus, true);
  if (!corpus) return Tell(corpus.error());
  // Nothing breaks off in the middle: a stop waits for it, some seconds for 100 thousand programs.
  const auto changed = corpus->Minimise(platform, nullptr, nullptr);
  if (!changed) Tell(changed.error());
}

std::expected<void, std::string> Keeper::KeepDiskBound() {
  const auto measure = [&] {
    status_.disk_mib = DiskUse({options_.findings, options_.corpus}) / kMib;
    disk_measured_ = Now();
    return status_.disk_mib > options_.disk_mib;
  };
  if (!measure()) return {};
  std::vector<std::pair<fs::file_time_type, fs::path>> folders;
  std::error_code status;
  for (fs::directory_iterator it(options_.findings, status), end; !status && it != end;
       it.increment(status)) {
    if (MayGo(it->path())) folders.emplace_back(it->last_write_time(status), it->path());
  }
  std::ranges::sort(folders);
  for (const auto& [time, folder] : folders) {
    fs::remove_all(folder, status);
    ++status_.removed;
    Tell(fmt::format("{} was removed: more than {} MiB were in use", folder.string(),
                     options_.disk_mib));
    if (!measure()) return {};
  }
  return Error(fmt::format(
      "{} and {} take {} MiB, and {} are allowed. Findings are never removed by themselves: look "
      "into them and move them elsewhere, or allow more by --disk",
      options_.findings.string(), options_.corpus.string(), status_.disk_mib, options_.disk_mib));
}

void Keeper::JudgeAgainIfNew(Runner& runner) {
  const fs::path path = options_.findings / "judged.json";
  Judged before;
  std::error_code status;
  if (fs::exists(path, status)) {
    const auto text = files::ReadFile(path, kMaxJudged);
    auto read = text ? JudgedFromJson(*text) : Error(text.error());
    if (read) {
      before = std::move(*read);
    } else {
      Tell(fmt::format("{}: {}: all is judged again", path.string(), read.error()));
    }
  }
  std::vector<triage::Known> known;
  if (!options_.known.empty()) {
    auto loaded = triage::LoadKnown(options_.known);
    if (!loaded) return Tell(loaded.error());
    known = std::move(*loaded);
  }
  const trace::Platform& platform = runner.platform();
  const JudgedWith with = {.build = options_.build,
                           .version = options_.version,
                           .known = HashOfKnown(options_.known),
                           .target = platform.name(),
                           .kernel = platform.kernel,
                           .cpu = platform.cpu,
                           .vendor_module = platform.vendor_module};
  const bool is_new = !(before.with == with);
  State("judging again");
  const auto after = JudgeAgain({.findings = options_.findings,
                                 .corpus = options_.corpus,
                                 .known = known,
                                 .plant = options_.target_options.plant,
                                 .stop = Supervisor::Interrupted},
                                with, before, runner);
  if (!after) {
    return Tell(
        fmt::format("what is stored was not judged again to the end: {}; it is tried again "
                    "before the next round",
                    after.error()));
  }
  const auto changes = Changes(before, *after);
  if (is_new || !changes.empty()) {
    status_.judged = std::time(nullptr);
    status_.changes = changes.size();
  }
  if (!changes.empty()) AddChanges(before, *after, changes);
  if (auto written = files::WriteFile(path, JudgedToJson(*after)); !written) {
    Tell(written.error());
  }
}

void Keeper::AddChanges(const Judged& before, const Judged& after,
                        const std::vector<Change>& changes) {
  const fs::path path = options_.findings / "changes.jsonl";
  std::error_code status;
  if (fs::exists(path, status) && fs::file_size(path, status) > kMaxChanges) {
    fs::rename(path, path.string() + ".1", status);
  }
  std::ofstream out(path, std::ios::app);
  out << ChangesToJson(before.with, after.with, changes, status_.judged) << "\n" << std::flush;
  if (!out) Tell(fmt::format("{}: can't be written: {}", path.string(), std::strerror(errno)));
  constexpr size_t kTold = 20;
  for (size_t i = 0; i < std::min(kTold, changes.size()); ++i) {
    Tell(fmt::format("{}: {}, now {}", changes[i].what, changes[i].before, changes[i].after));
  }
  if (changes.size() > kTold) {
    Tell(fmt::format("{} more changes are in {}", changes.size() - kTold, path.string()));
  }
}

}  // namespace fpswap::campaign
