// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/store.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <variant>

namespace fpswap::triage {
namespace fs = std::filesystem;
namespace {

using Status = std::expected<void, std::string>;

// STRICT: a value that is not of its column's type can't be in there.
constexpr const char* kSchema = R"(
CREATE TABLE run(
  id INTEGER PRIMARY KEY, folder TEXT NOT NULL, target TEXT NOT NULL, kernel TEXT NOT NULL,
  cpu TEXT NOT NULL, version TEXT NOT NULL, plant TEXT NOT NULL, seed INTEGER NOT NULL,
  jobs INTEGER NOT NULL, began INTEGER NOT NULL, ended INTEGER NOT NULL,
  programs INTEGER NOT NULL, states INTEGER NOT NULL) STRICT;
CREATE TABLE seen(
  name TEXT NOT NULL, run INTEGER NOT NULL, known INTEGER NOT NULL, programs INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, after INTEGER NOT NULL,
  PRIMARY KEY(name, run, known)) STRICT, WITHOUT ROWID;
CREATE TABLE sample(
  run INTEGER NOT NULL, seconds REAL NOT NULL, programs INTEGER NOT NULL, states INTEGER NOT NULL,
  PRIMARY KEY(run, seconds)) STRICT, WITHOUT ROWID;
CREATE TABLE finding(
  folder TEXT PRIMARY KEY, stamp INTEGER NOT NULL, signature TEXT NOT NULL, name TEXT NOT NULL,
  law TEXT NOT NULL, op TEXT NOT NULL, component TEXT NOT NULL, relation TEXT NOT NULL, place TEXT NOT NULL,
  words TEXT NOT NULL, rule TEXT NOT NULL, target TEXT NOT NULL, kernel TEXT NOT NULL,
  cpu TEXT NOT NULL, plant TEXT NOT NULL, version TEXT NOT NULL, steps INTEGER NOT NULL,
  reruns INTEGER NOT NULL, repeats INTEGER NOT NULL, after INTEGER NOT NULL,
  found INTEGER NOT NULL, effect TEXT NOT NULL, triggers TEXT NOT NULL) STRICT, WITHOUT ROWID;
)";

// A statement, prepared once and run as often as wanted. Values are only ever bound.
class Statement {
 public:
  Statement(sqlite3* database, const char* sql) {
    code_ = sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  template <typename... Values>
  Statement& Bind(const Values&... values) {
    if (code_ != SQLITE_OK) return *this;
    sqlite3_reset(statement_);
    int index = 0;
    (BindOne(++index, values), ...);
    return *this;
  }
  // True for a row, false at the end and on an error (failed()).
  bool Step() {
    if (code_ != SQLITE_OK) return false;
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) code_ = code;
    return false;
  }
  // For one that gives no rows.
  bool Run() {
    Step();
    return !failed();
  }
  bool failed() const { return code_ != SQLITE_OK; }

  int64_t Number(int column) const { return sqlite3_column_int64(statement_, column); }
  // A count: nothing below 0 is one.
  uint64_t Count(int column) const {
    return static_cast<uint64_t>(std::max<int64_t>(0, Number(column)));
  }
  double Real(int column) const { return sqlite3_column_double(statement_, column); }
  std::string Text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text == nullptr ? std::string()
                           : std::string(text, sqlite3_column_bytes(statement_, column));
  }

 private:
  void BindOne(int index, const std::string& text) {
    Note(sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT,
                             SQLITE_UTF8));
  }
  void BindOne(int index, double value) { Note(sqlite3_bind_double(statement_, index, value)); }
  void BindOne(int index, int64_t value) { Note(sqlite3_bind_int64(statement_, index, value)); }
  void BindOne(int index, uint64_t value) { BindOne(index, static_cast<int64_t>(value)); }
  void BindOne(int index, bool value) { BindOne(index, int64_t{value}); }
  void Note(int code) {
    if (code != SQLITE_OK) code_ = code;
  }

  sqlite3_stmt* statement_ = nullptr;
  int code_ = SQLITE_OK;
};

bool Execute(sqlite3* database, const char* sql) {
  return sqlite3_exec(database, sql, nullptr, nullptr, nullptr) == SQLITE_OK;
}

// All or nothing: rolled back unless committed. Takes the lock for writing at once, so that what it
// reads is what it changes.
class Transaction {
 public:
  explicit Transaction(sqlite3* database)
      : database_(database), open_(Execute(database, "BEGIN IMMEDIATE")) {}
  ~Transaction() {
    if (open_) Execute(database_, "ROLLBACK");
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  bool open() const { return open_; }
  bool Commit() {
    const bool done = Execute(database_, "COMMIT");
    if (done) open_ = false;
    return done;
  }

 private:
  sqlite3* database_;
  bool open_;
};

// What tables there are, as they were declared.
std::optional<std::string> SchemaOf(sqlite3* database) {
  Statement read(database, "SELECT type, name, sql FROM sqlite_schema ORDER BY name");
  std::string all;
  while (read.Step()) all += read.Text(0) + " " + read.Text(1) + ": " + read.Text(2) + "\n";
  if (read.failed()) return {};
  return all;
}

// Changes whenever verdict.json is written again, or the finding is minimised: the sum of both
// times, for any of them may be the later one. -1 if there is no verdict.json.
int64_t StampOf(const fs::path& folder) {
  const auto written = [&](const char* name, int64_t missing) {
    struct stat status{};
    if (stat((folder / name).c_str(), &status) != 0) return missing;
    return int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  };
  const int64_t verdict = written("verdict.json", -1);
  return verdict < 0 ? verdict : verdict + written("minimized.fps", 0);
}

}  // namespace

void Store::Close::operator()(sqlite3* database) const { sqlite3_close(database); }

std::unexpected<std::string> Store::Failed() const {
  const int code = sqlite3_errcode(database_.get());
  std::string why = sqlite3_errmsg(database_.get());
  const fs::path path = findings_ / kFile;
  switch (code) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_SCHEMA:
    case SQLITE_ERROR:  // a table that is not there, or is another's
    case SQLITE_TOOBIG:
      why = fmt::format(
          "{}: {}; delete it: it is made again from the findings beside it, only the "
          "counts and times of earlier runs are lost",
          path.string(), why);
      break;
    case SQLITE_BUSY:
      why = fmt::format(
          "{}: another process has kept it locked for {} s; end that one, or give "
          "another folder of findings",
          path.string(), kBusyMs / 1000);
      break;
    case SQLITE_FULL:
    case SQLITE_IOERR:
      why = fmt::format("{}: {}; free some space there", path.string(), why);
      break;
    default:
      why = fmt::format("{}: {}", path.string(), why);
  }
  return std::unexpected(why);
}

Status Store::CheckSchema() {
  sqlite3* fresh = nullptr;
  const bool made = sqlite3_open(":memory:", &fresh) == SQLITE_OK && Execute(fresh, kSchema);
  const auto wanted = made ? SchemaOf(fresh) : std::nullopt;
  sqlite3_close(fresh);
  const auto there = SchemaOf(database_.get());
  if (!there) return Failed();
  if (there != wanted) {
    return std::unexpected(
        fmt::format("{}: its tables are not those of this fpswap; delete it: it is made again from "
                    "the findings beside it, only the counts and times of earlier runs are lost",
                    (findings_ / kFile).string()));
  }
  return {};
}

std::expected<Store, std::string> Store::OpenAt(const fs::path& findings, const std::string& name) {
  sqlite3* database = nullptr;
  const int code =
      sqlite3_open_v2(name.c_str(), &database,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Store store(findings, database);
  if (code != SQLITE_OK) return store.Failed();
  sqlite3_busy_timeout(database, kBusyMs);
  // A database from elsewhere runs no code of its own and has no string longer than a file of ours.
  sqlite3_db_config(database, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(database, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_limit(database, SQLITE_LIMIT_LENGTH, 1 << 21);
  return store;
}

std::expected<Store, std::string> Store::Open(const fs::path& findings) {
  auto store = OpenAt(findings, (findings / kFile).string());
  if (!store) return store;
  sqlite3* database = store->database_.get();
  const auto there = SchemaOf(database);
  if (!there) return store->Failed();
  if (there->empty()) {
    Transaction making(database);
    if (!making.open()) return store->Failed();
    // Another process may have made them meanwhile.
    const auto now = SchemaOf(database);
    const bool made = now && (!now->empty() || Execute(database, kSchema)) && making.Commit();
    if (!made) return store->Failed();
  }
  if (auto right = store->CheckSchema(); !right) return std::unexpected(right.error());
  return store;
}

std::expected<Store, std::string> Store::OpenCopy(const fs::path& findings) {
  auto copy = OpenAt(findings, ":memory:");
  if (!copy) return copy;
  std::error_code status;
  if (!fs::exists(findings / kFile, status)) {
    if (!Execute(copy->database_.get(), kSchema)) return copy->Failed();
    return copy;
  }
  sqlite3* file = nullptr;
  const int opened = sqlite3_open_v2((findings / kFile).c_str(), &file,
                                     SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, nullptr);
  const Store from(findings, file);
  if (opened != SQLITE_OK) return from.Failed();
  sqlite3_busy_timeout(file, kBusyMs);
  sqlite3_backup* backup = sqlite3_backup_init(copy->database_.get(), "main", file, "main");
  if (backup == nullptr) return copy->Failed();
  // Of a step that found the file locked, `finish` says nothing.
  const int stepped = sqlite3_backup_step(backup, -1);
  if (sqlite3_backup_finish(backup) != SQLITE_OK) return copy->Failed();
  if (stepped != SQLITE_DONE) {
    return std::unexpected(fmt::format("{}: {}; try again when nobody writes to it",
                                       (findings / kFile).string(), sqlite3_errstr(stepped)));
  }
  if (auto right = copy->CheckSchema(); !right) return std::unexpected(right.error());
  return copy;
}

std::expected<int64_t, std::string> Store::BeginRun(const RunFacts& run) {
  Statement insert(database_.get(),
                   "INSERT INTO run(folder, target, kernel, cpu, version, plant, seed, jobs, began,"
                   " ended, programs, states) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?9, ?9, 0, 0)");
  if (!insert
           .Bind(run.folder, run.target, run.kernel, run.cpu, run.version, run.plant, run.seed,
                 run.jobs, run.began)
           .Run()) {
    return Failed();
  }
  const int64_t id = sqlite3_last_insert_rowid(database_.get());
  Statement thin(database_.get(), "DELETE FROM sample WHERE run <= ? - ?");
  if (!thin.Bind(id, int64_t{kSampledRuns}).Run()) return Failed();
  return id;
}

std::expected<int64_t, std::string> Store::FindRun(const std::string& folder) {
  Statement find(database_.get(), "SELECT max(id) FROM run WHERE folder = ?");
  const int64_t id = find.Bind(folder).Step() ? find.Number(0) : 0;
  if (find.failed()) return Failed();
  return id;
}

Status Store::Note(int64_t run, const RunState& state) {
  Transaction noting(database_.get());
  if (!noting.open()) return Failed();
  if (auto noted = NoteIn(run, state); !noted) return noted;
  if (!noting.Commit()) return Failed();
  return {};
}

Status Store::NoteLast(int64_t run, RunState state) {
  Transaction noting(database_.get());
  if (!noting.open()) return Failed();
  Statement last(database_.get(),
                 "SELECT ended, coalesce((SELECT max(seconds) FROM sample WHERE run = ?1), 0) "
                 "FROM run WHERE id = ?1");
  if (last.Bind(run).Step()) {
    state.now = last.Number(0);
    state.seconds = last.Real(1);
  }
  if (last.failed()) return Failed();
  if (auto noted = NoteIn(run, state); !noted) return noted;
  if (!noting.Commit()) return Failed();
  return {};
}

Status Store::NoteIn(int64_t run, const RunState& state) {
  sqlite3* database = database_.get();
  Statement update(database,
                   "UPDATE run SET ended = max(ended, ?), programs = ?, states = ? WHERE id = ?");
  if (!update.Bind(state.now, state.programs, state.states, run).Run()) return Failed();
  Statement seen(database,
                 "INSERT INTO seen VALUES(?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT DO UPDATE SET "
                 "last = CASE WHEN excluded.programs > programs THEN excluded.last ELSE last END, "
                 "programs = max(programs, excluded.programs)");
  for (const auto& [counts, known] : {std::pair(&state.known, true), {&state.fresh, false}}) {
    for (const auto& [name, count] : *counts) {
      if (!seen.Bind(name, run, known, count, state.now, state.programs).Run()) return Failed();
    }
  }
  Statement sample(database, "INSERT OR REPLACE INTO sample VALUES(?, ?, ?, ?)");
  if (!sample.Bind(run, state.seconds, state.programs, state.states).Run()) return Failed();
  Statement count(database, "SELECT count(*) FROM sample WHERE run = ?");
  const bool many = count.Bind(run).Step() && count.Count(0) > kMaxSamples;
  if (count.failed()) return Failed();
  if (!many) return {};
  Statement halve(database,
                  "DELETE FROM sample WHERE run = ?1 AND seconds IN (SELECT seconds FROM (SELECT "
                  "seconds, row_number() OVER (ORDER BY seconds) AS n FROM sample WHERE run = ?1) "
                  "WHERE n % 2 = 0)");
  if (!halve.Bind(run).Run()) return Failed();
  return {};
}

std::expected<size_t, std::string> Store::Index() {
  Transaction indexing(database_.get());
  if (!indexing.open()) return Failed();
  const auto read = IndexIn();
  if (!read) return read;
  if (!indexing.Commit()) return Failed();
  return read;
}

std::expected<size_t, std::string> Store::IndexIn() {
  sqlite3* database = database_.get();
  std::map<std::string, int64_t> stamps;
  Statement list(database, "SELECT folder, stamp FROM finding");
  while (list.Step()) stamps[list.Text(0)] = list.Number(1);
  if (list.failed()) return Failed();
  Statement put(database,
                "INSERT OR REPLACE INTO finding VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                " ?, ?, ?, ?, ?, ?, ?, ?)");
  size_t read = 0;
  std::error_code status;
  for (fs::directory_iterator it(findings_, status), end; !status && it != end;
       it.increment(status)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with('.')) continue;  // one that is being written
    const int64_t stamp = StampOf(it->path());
    const auto there = stamps.extract(name);
    if (stamp < 0) {
      if (!there.empty()) stamps.insert({name, 0});
      continue;
    }
    if (!there.empty() && there.mapped() == stamp) continue;
    const auto facts = ReadFinding(it->path());
    if (!facts) continue;  // unreadable: who opens it is told why
    ++read;
    if (!put.Bind(name, stamp, facts->key, facts->name, facts->law, facts->op, facts->component,
                  facts->relation, facts->where, facts->words, facts->rule, facts->target,
                  facts->kernel, facts->cpu, facts->plant, facts->version, facts->steps,
                  facts->reruns, facts->repeats, facts->after, facts->found, facts->effect,
                  facts->triggers)
             .Run()) {
      return Failed();
    }
  }
  if (status) return std::unexpected(fmt::format("{}: {}", findings_.string(), status.message()));
  Statement drop(database, "DELETE FROM finding WHERE folder = ?");
  for (const auto& [name, stamp] : stamps) {
    if (!drop.Bind(name).Run()) return Failed();
  }
  return read;
}

std::expected<std::map<std::string, FindingFacts>, std::string> Store::Findings() {
  std::map<std::string, FindingFacts> findings;
  Statement read(
      database_.get(),
      "SELECT folder, signature, name, law, op, component, relation, place, words, rule, "
      "target, kernel, cpu, plant, version, steps, reruns, repeats, after, found, effect, triggers "
      "FROM finding");
  while (read.Step()) {
    FindingFacts& f = findings[read.Text(0)];
    int column = 0;
    for (std::string* text :
         {&f.key, &f.name, &f.law, &f.op, &f.component, &f.relation, &f.where, &f.words, &f.rule,
          &f.target, &f.kernel, &f.cpu, &f.plant, &f.version}) {
      *text = read.Text(++column);
    }
    for (uint64_t* count : {&f.steps, &f.reruns, &f.repeats, &f.after})
      *count = read.Count(++column);
    f.found = read.Number(++column);
    f.effect = read.Text(++column);
    f.triggers = read.Text(++column);
  }
  if (read.failed()) return Failed();
  return findings;
}

std::expected<std::vector<StoredRun>, std::string> Store::Runs() {
  std::vector<StoredRun> runs;
  Statement read(database_.get(),
                 "SELECT folder, target, kernel, cpu, version, plant, seed, jobs, began, id, ended,"
                 " programs, states FROM run ORDER BY id");
  while (read.Step()) {
    StoredRun run;
    int column = -1;
    RunFacts& f = run.facts;
    for (std::string* text : {&f.folder, &f.target, &f.kernel, &f.cpu, &f.version, &f.plant}) {
      *text = read.Text(++column);
    }
    f.seed = static_cast<uint64_t>(read.Number(++column));
    f.jobs = read.Count(++column);
    for (int64_t* number : {&f.began, &run.id, &run.ended}) *number = read.Number(++column);
    run.programs = read.Count(++column);
    run.states = read.Count(++column);
    runs.push_back(std::move(run));
  }
  if (read.failed()) return Failed();
  return runs;
}

std::expected<std::vector<Sighting>, std::string> Store::Sightings() {
  std::vector<Sighting> sightings;
  Statement read(database_.get(),
                 "SELECT name, run, known, programs, first, last, after FROM seen ORDER BY name, "
                 "run, known");
  while (read.Step()) {
    sightings.push_back({.run = read.Number(1),
                         .name = read.Text(0),
                         .known = read.Number(2) != 0,
                         .programs = read.Count(3),
                         .first = read.Number(4),
                         .last = read.Number(5),
                         .after = read.Count(6)});
  }
  if (read.failed()) return Failed();
  return sightings;
}

std::expected<std::vector<Sample>, std::string> Store::Samples(int64_t run) {
  std::vector<Sample> samples;
  Statement read(database_.get(),
                 "SELECT seconds, programs, states FROM sample WHERE run = ? ORDER BY seconds");
  read.Bind(run);
  while (read.Step()) samples.push_back({read.Real(0), read.Count(1), read.Count(2)});
  if (read.failed()) return Failed();
  return samples;
}

}  // namespace fpswap::triage
