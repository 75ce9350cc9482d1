// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/known.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/program/step.h"

namespace fpswap::triage {
namespace {

using nlohmann::json;
using Error = std::unexpected<std::string>;

constexpr size_t kMaxKnownSize = 1 << 16;

template <typename T>
bool Contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// Reads an object's keys one by one, remembers the first error and, at the end, refuses keys that
// nobody asked for: a misspelt condition must not widen a predicate.
class Reader {
 public:
  Reader(const json& object, std::string name) : object_(object), name_(std::move(name)) {
    if (!object_.is_object()) Fail("is not a JSON object");
  }

  const json* Find(const char* key) {
    asked_.push_back(key);
    if (!object_.is_object()) return nullptr;
    auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }
  std::optional<std::string> Text(const char* key) {
    const json* value = Find(key);
    if (value == nullptr) return {};
    if (!value->is_string()) {
      Fail(fmt::format("\"{}\" must be a string", key));
      return {};
    }
    return value->get<std::string>();
  }
  std::string NeedText(const char* key) {
    auto text = Text(key);
    if (!text) Fail(fmt::format("\"{}\" is missing", key));
    return text.value_or("");
  }
  std::optional<bool> Flag(const char* key) {
    const json* value = Find(key);
    if (value == nullptr) return {};
    if (value->is_boolean()) return value->get<bool>();
    Fail(fmt::format("\"{}\" must be true or false", key));
    return {};
  }
  std::optional<std::regex> Pattern(const char* key) {
    auto text = Text(key);
    if (!text) return {};
    try {
      return std::regex(*text, std::regex::ECMAScript | std::regex::optimize);
    } catch (const std::regex_error& e) {
      Fail(fmt::format("\"{}\" is not a pattern: {}", key, e.what()));
      return {};
    }
  }
  std::optional<uint64_t> Number(const char* key) {
    const json* value = Find(key);
    if (value == nullptr) return {};
    if (value->is_number_unsigned()) return value->get<uint64_t>();
    Fail(fmt::format("\"{}\" must be a number that is not negative", key));
    return {};
  }
  // A value or a list of values, each turned by `parse` into an optional T.
  template <typename T, typename Parse>
  std::vector<T> List(const char* key, const char* what, Parse parse) {
    const json* value = Find(key);
    std::vector<T> out;
    if (value == nullptr) {
      Fail(fmt::format("\"{}\" is missing", key));
      return out;
    }
    const json list = value->is_array() ? *value : json::array({*value});
    for (const json& item : list) {
      std::optional<T> parsed = parse(item);
      if (!parsed) Fail(fmt::format("\"{}\": {} is not {}", key, item.dump(), what));
      if (parsed) out.push_back(*parsed);
    }
    if (out.empty()) Fail(fmt::format("\"{}\" is empty", key));
    return out;
  }
  void Fail(std::string message) {
    if (!error_) error_ = fmt::format("{}: {}", name_, message);
  }
  std::optional<std::string> Finish() {
    if (object_.is_object()) {
      for (const auto& [key, value] : object_.items()) {
        if (std::find(asked_.begin(), asked_.end(), key) == asked_.end()) {
          Fail(fmt::format("\"{}\" is not a key known here", key));
        }
      }
    }
    return error_;
  }

 private:
  const json& object_;
  std::string name_;
  std::vector<std::string> asked_;
  std::optional<std::string> error_;
};

std::optional<uint8_t> OpFrom(const json& value) {
  if (!value.is_string()) return {};
  const auto name = value.get<std::string>();
  if (name == "none") return uint8_t{0};
  const program::StepRow* row = program::FindStep(name);
  if (row == nullptr) return {};
  return static_cast<uint8_t>(row->op);
}

std::optional<std::optional<xstate::Component>> ComponentFrom(const json& value) {
  if (value.is_null()) return std::optional<xstate::Component>{};
  if (!value.is_string()) return {};
  auto component = xstate::ComponentByName(value.get<std::string>());
  if (!component) return {};
  return component;
}

std::optional<judge::Law> LawFrom(const json& value) {
  for (unsigned i = 1; i <= 6; ++i) {
    const auto law = static_cast<judge::Law>(i);
    if (value.is_string() && value.get<std::string>() == judge::LawName(law)) return law;
  }
  return {};
}

std::optional<std::string> PlaceFrom(const json& value) {
  if (!value.is_string() || value.get<std::string>().empty()) return {};
  return value.get<std::string>();
}

std::optional<judge::Relation> RelationFrom(const json& value) {
  for (unsigned i = 0; i <= static_cast<unsigned>(judge::Relation::kComplained); ++i) {
    const auto relation = static_cast<judge::Relation>(i);
    if (value.is_string() && value.get<std::string>() == judge::RelationName(relation)) {
      return relation;
    }
  }
  return {};
}

std::optional<KernelVersion> Version(Reader& reader, const char* key) {
  auto text = reader.Text(key);
  if (!text) return {};
  auto version = ParseKernelVersion(*text);
  if (!version) reader.Fail(fmt::format("\"{}\": \"{}\" is not a kernel version", key, *text));
  return version;
}

std::expected<PlatformCondition, std::string> ReadPlatform(const json& value,
                                                           const std::string& name) {
  PlatformCondition condition;
  Reader reader(value, name + ": platform");
  condition.target = reader.Text("target");
  condition.vendor_module = reader.Text("vendor_module");
  condition.cpu_vendor = reader.Text("cpu_vendor");
  if (condition.cpu_vendor && *condition.cpu_vendor != "amd" && *condition.cpu_vendor != "other") {
    reader.Fail("\"cpu_vendor\" must be \"amd\" or \"other\"");
  }
  if (const json* family = reader.Find("cpu_family")) {
    if (family->is_number_unsigned()) condition.cpu_family = family->get<uint32_t>();
    if (!condition.cpu_family) reader.Fail("\"cpu_family\" must be a number");
  }
  condition.compacted = reader.Flag("compacted");
  condition.pkru = reader.Flag("pkru");
  condition.xfd = reader.Flag("xfd");
  if (const json* kernel = reader.Find("kernel")) {
    Reader range(*kernel, name + ": platform: kernel");
    condition.kernel_from = Version(range, "from");
    condition.kernel_before = Version(range, "before");
    if (auto error = range.Finish()) return Error(*error);
    if (!condition.kernel_from && !condition.kernel_before) {
      reader.Fail("\"kernel\" needs \"from\" or \"before\"");
    }
  }
  if (value.is_object() && value.empty()) reader.Fail("is empty: say at least one condition");
  if (auto error = reader.Finish()) return Error(*error);
  return condition;
}

}  // namespace

std::optional<KernelVersion> ParseKernelVersion(std::string_view release) {
  KernelVersion version;
  unsigned* const parts[] = {&version.major, &version.minor, &version.patch};
  const char* at = release.data();
  const char* const end = at + release.size();
  for (unsigned i = 0; i < 3; ++i) {
    const auto [next, status] = std::from_chars(at, end, *parts[i]);
    if (status != std::errc{}) return {};
    at = next;
    if (at == end || *at != '.' || i == 2) return i >= 1 ? std::optional(version) : std::nullopt;
    ++at;
    // "6.1." followed by text ("6.1.y") is 6.1.
    if (i == 1 && (at == end || *at < '0' || *at > '9')) return version;
  }
  return version;
}

bool PlatformCondition::Holds(const trace::Platform& platform) const {
  if (target && *target != platform.target) return false;
  if (vendor_module && *vendor_module != platform.vendor_module) return false;
  if (cpu_vendor && (*cpu_vendor == "amd") != platform.host.amd) return false;
  if (cpu_family && *cpu_family != platform.cpu_family) return false;
  if (compacted && *compacted != platform.compacted) return false;
  if (pkru && *pkru != ((platform.host_xcr0 & Bit(xstate::Component::kPkru)) != 0)) return false;
  if (xfd && *xfd != platform.host.xsave.xfd) return false;
  if (kernel_from || kernel_before) {
    const auto running = ParseKernelVersion(platform.kernel);
    if (!running) return false;
    if (kernel_from && *running < *kernel_from) return false;
    if (kernel_before && *running >= *kernel_before) return false;
  }
  return true;
}

bool Known::Matches(const judge::Divergence& divergence, const trace::Platform& on) const {
  std::optional<xstate::Component> component;
  if (divergence.has_component) component = divergence.component;
  if (!Contains(components, component) || !Contains(relations, divergence.relation)) return false;
  if (cause && *cause != divergence.cause) return false;
  if (!laws.empty() && !Contains(laws, divergence.law)) return false;
  if (!ops.empty() && !Contains(ops, divergence.op)) return false;
  if (initial && *initial != divergence.initial) return false;
  if (possible_value && possible_value != divergence.possible_value) return false;
  if (seen_value && seen_value != divergence.seen_value) return false;
  if (!where.empty() && std::ranges::find(where, divergence.where) == where.end()) return false;
  if (where_regex && !std::regex_match(divergence.where, *where_regex)) return false;
  if (possible_regex && !std::regex_match(judge::HexOf(divergence.possible), *possible_regex))
    return false;
  if (seen_regex && !std::regex_match(judge::HexOf(divergence.seen), *seen_regex)) return false;
  return platform.Holds(on);
}

std::expected<Known, std::string> ParseKnown(std::string_view text, std::string_view name) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const std::string label(name);
  if (object.is_discarded()) return Error(fmt::format("{}: not JSON", label));
  Known known;
  known.name = label;
  Reader reader(object, label);
  known.title = reader.NeedText("title");
  known.reason = reader.NeedText("reason");
  known.kernel_function = reader.NeedText("kernel_function");
  known.cause = reader.Text("cause");
  if (!known.cause || reader.Find("law") != nullptr) {
    known.laws = reader.List<judge::Law>("law", "a law", LawFrom);
  }
  if (!known.cause || reader.Find("step") != nullptr) {
    known.ops = reader.List<uint8_t>("step", "a step", OpFrom);
  }
  known.components =
      reader.List<std::optional<xstate::Component>>("component", "a component", ComponentFrom);
  known.relations = reader.List<judge::Relation>("relation", "a relation", RelationFrom);
  known.initial = reader.Flag("initial");
  known.endangers_host = reader.Flag("endangers_host").value_or(false);
  known.possible_value = reader.Number("possible_value");
  known.seen_value = reader.Number("seen_value");
  if (reader.Find("where") != nullptr) {
    known.where = reader.List<std::string>("where", "the name of a place", PlaceFrom);
  }
  known.where_regex = reader.Pattern("where_regex");
  if (!known.cause && known.where.empty() != known.where_regex.has_value()) {
    reader.Fail("needs either \"where\" or \"where_regex\"");
  }
  known.possible_regex = reader.Pattern("possible_hex");
  known.seen_regex = reader.Pattern("seen_hex");
  const json* platform = reader.Find("platform");
  if (platform == nullptr) reader.Fail("\"platform\" is missing");
  if (auto error = reader.Finish()) return Error(*error);
  auto condition = ReadPlatform(*platform, label);
  if (!condition) return Error(condition.error());
  known.platform = *condition;
  return known;
}

std::expected<std::vector<Known>, std::string> LoadKnown(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::vector<Known> all;
  std::error_code status;
  for (const auto& entry : fs::directory_iterator(folder, status)) {
    if (!entry.is_directory(status)) continue;
    const fs::path path = entry.path() / "known.json";
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      return Error(fmt::format("{}: can't be read; each folder in {} needs one", path.string(),
                               folder.string()));
    }
    std::string text(kMaxKnownSize + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
    if (text.size() > kMaxKnownSize) {
      return Error(fmt::format("{}: larger than {} bytes", path.string(), kMaxKnownSize));
    }
    auto known = ParseKnown(text, path.string());
    if (!known) return Error(known.error());
    known->name = entry.path().filename().string();
    known->folder = entry.path();
    all.push_back(std::move(*known));
  }
  if (status) return Error(fmt::format("{}: {}", folder.string(), status.message()));
  std::sort(all.begin(), all.end(), [](const Known& a, const Known& b) { return a.name < b.name; });
  return all;
}

const Known* FirstMatch(std::span<const Known> known, const judge::Divergence& divergence,
                        const trace::Platform& on) {
  const auto match = std::ranges::find_if(
      known, [&](const Known& entry) { return entry.Matches(divergence, on); });
  return match == known.end() ? nullptr : &*match;
}

Sorted Sort(const judge::Verdict& verdict, const trace::Platform& platform,
            std::span<const Known> known) {
  Sorted sorted;
  for (size_t i = 0; i < verdict.divergences.size(); ++i) {
    const Known* match = FirstMatch(known, verdict.divergences[i], platform);
    if (match == nullptr) {
      if (!sorted.first_new) sorted.first_new = i;
    } else if (!Contains(sorted.known, match)) {
      sorted.known.push_back(match);
    }
  }
  return sorted;
}

}  // namespace fpswap::triage
