// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/campaign/manifest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "harness/campaign/feedback.h"
#include "harness/plan/wire.h"
#include "harness/program/suggest.h"

namespace fpswap::campaign {
namespace {

using nlohmann::json;
using Error = std::unexpected<std::string>;

// Numbers of `what` by platform.
std::expected<std::map<std::string, unsigned>, std::string> NumbersFromJson(const json& object,
                                                                            std::string_view what,
                                                                            size_t most) {
  std::map<std::string, unsigned> numbers;
  for (const auto& [label, number] : object.items()) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() > most) {
      return Error(fmt::format("the {} of platform {} are to be a number up to {}", what,
                               program::Quote(label), most));
    }
    if (number != 0) numbers[label] = number.get<unsigned>();  // of 0 there is nothing to say
  }
  return numbers;
}

std::expected<CorpusNote, std::string> NoteFromJson(const json& object) {
  const auto platforms = object.find("platforms"), signatures = object.find("signatures"),
             edges = object.find("kernel_edges");
  if (platforms == object.end() || !platforms->is_object()) {
    return Error("\"platforms\" is to be an object of numbers");
  }
  if (signatures == object.end() || !signatures->is_array()) {
    return Error("\"signatures\" is to be a list of texts");
  }
  if (edges != object.end() && !edges->is_object()) {
    return Error("\"kernel_edges\" is to be an object of numbers");
  }
  CorpusNote note;
  auto states = NumbersFromJson(*platforms, "states", kCounters);
  if (!states) return Error(states.error());
  note.platforms = std::move(*states);
  for (const json& signature : *signatures) {
    if (!signature.is_string()) return Error("\"signatures\" is to be a list of texts");
    note.signatures.insert(signature.get<std::string>());
  }
  if (edges != object.end()) {
    auto reached = NumbersFromJson(*edges, "edges of the kernel", wire::kEdges);
    if (!reached) return Error(reached.error());
    note.kernel_edges = std::move(*reached);
  }
  return note;
}

}  // namespace

std::string ManifestToJson(const Manifest& manifest) {
  json entries = json::object();
  for (const auto& [name, note] : manifest) {
    json& entry = entries[name];
    entry = {{"platforms", note.platforms}, {"signatures", note.signatures}};
    if (!note.kernel_edges.empty()) entry["kernel_edges"] = note.kernel_edges;
  }
  return json{{"format", 1}, {"entries", entries}}.dump(1, ' ', false,
                                                        json::error_handler_t::replace) +
         "\n";
}

std::expected<Manifest, std::string> ManifestFromJson(std::string_view text) {
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return Error("not a manifest: a JSON object was expected");
  const auto format = object.find("format"), entries = object.find("entries");
  if (format == object.end() || *format != 1) {
    return Error("not a manifest that this version reads: \"format\" is to be 1");
  }
  if (entries == object.end() || !entries->is_object()) {
    return Error("not a manifest: \"entries\" is to be an object");
  }
  Manifest manifest;
  for (const auto& [name, item] : entries->items()) {
    auto note = item.is_object() ? NoteFromJson(item) : Error("an object was expected");
    if (!note) return Error(fmt::format("entry {}: {}", program::Quote(name), note.error()));
    manifest[name] = std::move(*note);
  }
  return manifest;
}

}  // namespace fpswap::campaign
