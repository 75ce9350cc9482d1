// SPDX-License-Identifier: GPL-2.0-or-later
//
// A corpus's manifest.json: where, and for what, each entry was interesting.
//
// Thread safety: no shared state.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <set>
#include <string>
#include <string_view>

namespace fpswap::campaign {

// What the manifest says of one entry. Platforms are told by their label (corpus.h).
struct CorpusNote {
  std::map<std::string, unsigned> platforms;  // states that no shorter entry reached there
  std::set<std::string> signatures;           // Signature::Key()
  // Edges of the kernel that the entry was the first to reach there, which nothing but a run there
  // tells. A manifest has this only where there are any.
  std::map<std::string, unsigned> kernel_edges;
  bool operator==(const CorpusNote&) const = default;
};
using Manifest = std::map<std::string, CorpusNote>;  // by file name
std::string ManifestToJson(const Manifest& manifest);
// Total: an error says which entry is wrong and what was expected.
std::expected<Manifest, std::string> ManifestFromJson(std::string_view json);

}  // namespace fpswap::campaign
