// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/targets/lab.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

namespace fpswap::targets {
namespace {

using nlohmann::json;

constexpr size_t kMaxFile = 64 << 10;
constexpr unsigned kMaxWords = 256, kMaxSeconds = 24 * 3600;

// What is wrong with the value of `key`, "" if nothing is.
std::string Check(const json& object, Lab& lab) {
  for (const auto& [key, value] : object.items()) {
    if (key == "about") {
      if (!value.is_string()) return "\"about\" is no string";
      lab.about = value.get<std::string>();
    } else if (key == "connect" || key == "debug" || key == "options") {
      if (!value.is_array() || value.size() > kMaxWords ||
          !std::ranges::all_of(value, [](const json& word) { return word.is_string(); })) {
        return "\"" + key + "\" is no list of words";
      }
      auto& words = key == "connect" ? lab.connect : key == "debug" ? lab.debug : lab.options;
      words = value.get<std::vector<std::string>>();
    } else if (key == "start_s" || key == "silence_s") {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxSeconds) {
        return "\"" + key + "\" is no number of seconds";
      }
      (key == "start_s" ? lab.start : lab.silence) = std::chrono::seconds(value.get<unsigned>());
    }
  }
  if (lab.connect.empty() || lab.connect[0].empty()) return "\"connect\" is missing";
  return "";
}

}  // namespace

std::filesystem::path LabsFolder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value != nullptr ? value : "");
  };
  if (const auto cache = variable("FPSWAP_CACHE"); !cache.empty()) return cache / "labs";
  const auto xdg = variable("XDG_CACHE_HOME");
  return (xdg.empty() ? variable("HOME") / ".cache" : xdg) / "fpswap" / "labs";
}

std::expected<Lab, std::string> ReadLab(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "lab.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::unexpected("there is no lab " + path.string());
  std::string text(kMaxFile + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFile) return std::unexpected(path.string() + ": longer than 64 KiB");
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::unexpected(path.string() + ": not a JSON object");
  Lab lab{.folder = folder, .about = "", .connect = {}};
  if (const std::string wrong = Check(object, lab); !wrong.empty()) {
    return std::unexpected(path.string() + ": " + wrong);
  }
  return lab;
}

std::vector<Lab> Labs() {
  std::vector<Lab> labs;
  std::error_code status;
  std::filesystem::directory_iterator each(LabsFolder(), status);
  for (; !status && each != std::filesystem::directory_iterator(); each.increment(status)) {
    if (each->is_symlink(status)) continue;  // another name of one of them
    if (auto lab = ReadLab(each->path())) labs.push_back(std::move(*lab));
  }
  std::ranges::sort(labs, {}, &Lab::folder);
  return labs;
}

std::filesystem::path PlatformFile(const Lab& lab) { return lab.folder / "platform.json"; }

}  // namespace fpswap::targets
