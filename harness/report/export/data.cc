// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/data.h"

#include <fmt/format.h>

#include <algorithm>

namespace fpswap::report {
namespace {

std::string PatternName(uint16_t pattern) {
  return pattern == 1 ? "ones" : fmt::format("pattern_{:x}", pattern);
}

std::string TableText(const std::string& name, std::span<const uint8_t> bytes) {
  std::string text = fmt::format("static const u8 {}[{}] = {{", name, bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    text += fmt::format("{}0x{:02x},", i % 8 == 0 ? "\n\t" : " ", bytes[i]);
  }
  return text + "\n};\n";
}

bool AllZero(std::span<const uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](uint8_t b) { return b == 0; });
}

}  // namespace

std::vector<uint8_t> PatternBytes(uint16_t pattern, size_t size) {
  std::vector<uint8_t> bytes(size);
  program::FillPattern(pattern, bytes);
  return bytes;
}

std::string TypeOf(size_t size) { return fmt::format("u{}", 8 * size); }
bool IsNumber(size_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

std::string TestData::Unique(const std::string& name) {
  std::string unique = name;
  for (int n = 2; !names_.insert(unique).second; ++n) unique = fmt::format("{}_{}", name, n);
  return unique;
}

std::string TestData::Pattern(uint16_t pattern, size_t size, bool guest) {
  if (pattern == 0) return Zeros(size);
  PatternUse& use = patterns_[pattern];
  use.size = std::max(use.size, size);
  use.guest |= guest;
  return PatternName(pattern);
}

std::string TestData::Zeros(size_t size) {
  zeros_ = std::max(zeros_, size);
  return "zeros";
}

std::string TestData::Scalar(const std::string& prefix, uint64_t value, size_t size) {
  const std::string name = fmt::format("{}_{:x}", prefix, value);
  scalars_[name] = {size, value};
  return name;
}

std::string TestData::Table(const std::string& prefix, std::span<const uint8_t> bytes) {
  for (const auto& [name, table] : tables_) {
    if (std::ranges::equal(table, bytes)) return name;
  }
  const std::string name = Unique(prefix);
  tables_.emplace_back(name, std::vector<uint8_t>(bytes.begin(), bytes.end()));
  return name;
}

std::string TestData::Result(const std::string& name, size_t size) {
  const std::string unique = Unique(name);
  results_.emplace_back(unique, size);
  return unique;
}

std::string TestData::Area(const std::string& name) {
  areas_.insert(name);
  return name;
}

std::string TestData::Image(uint64_t number) {
  images_.insert(number);
  return fmt::format("image{}", number);
}

void TestData::AddSource(const std::string& expression, std::span<const uint8_t> bytes) {
  sources_.emplace_back(expression, std::vector<uint8_t>(bytes.begin(), bytes.end()));
}

bool TestData::Find(std::span<const uint8_t> bytes, std::string& at) const {
  const auto search = [&](const std::string& name, std::span<const uint8_t> in) {
    const auto hit = std::ranges::search(in, bytes);
    if (hit.empty()) return false;
    const auto offset = hit.begin() - in.begin();
    at = offset == 0 ? name : fmt::format("{} + {}", name, offset);
    return true;
  };
  for (const auto& [name, source] : sources_) {
    if (source.size() >= bytes.size() &&
        std::ranges::equal(std::span(source).first(bytes.size()), bytes)) {
      at = name;
      return true;
    }
  }
  for (const auto& [pattern, use] : patterns_) {
    if (search(PatternName(pattern), PatternBytes(pattern, use.size))) return true;
  }
  for (const auto& [name, table] : tables_) {
    if (search(name, table)) return true;
  }
  return false;
}

std::string TestData::Expected(const std::string& prefix, std::span<const uint8_t> bytes) {
  if (AllZero(bytes)) return Zeros(bytes.size());
  std::string at;
  return Find(bytes, at) ? at : Table(prefix, bytes);
}

std::string TestData::Declarations() const {
  std::string text;
  const auto section = [&](const char* comment) { text += fmt::format("/* {} */\n", comment); };
  if (!patterns_.empty() || !scalars_.empty() || !tables_.empty()) {
    section("Values to load and to expect; all bytes of a pattern differ.");
  }
  for (const auto& [name, scalar] : scalars_) {
    // 0 is what a static variable has.
    const std::string value = scalar.second == 0 ? "" : fmt::format(" = 0x{:x}", scalar.second);
    text += fmt::format("static const {} {}{};\n", TypeOf(scalar.first), name, value);
  }
  for (const auto& [pattern, use] : patterns_) {
    if (use.size <= kMaxTable) {
      text += TableText(PatternName(pattern), PatternBytes(pattern, use.size));
    } else {
      text += fmt::format("static u8 {}[{}];\n", PatternName(pattern), use.size);
    }
  }
  for (const auto& [name, bytes] : tables_) text += TableText(name, bytes);
  if (zeros_ != 0) text += fmt::format("static const u8 zeros[{}];\n", zeros_);
  if (!areas_.empty()) {
    text += "\n";
    section("Areas that the guest saves to and restores from.");
    text += "#define AREA_SIZE\t0x4000\n";
    for (const std::string& name : areas_) {
      text += fmt::format("static u8 {}[AREA_SIZE] __aligned(64);\n", name);
    }
  }
  if (!results_.empty()) {
    text += "\n";
    section("What the guest stores.");
    for (const auto& [name, size] : results_) {
      text += IsNumber(size) ? fmt::format("static {} {};\n", TypeOf(size), name)
                             : fmt::format("static u8 {}[{}];\n", name, size);
    }
  }
  return text.substr(text.starts_with('\n') ? 1 : 0);
}

std::vector<std::string> TestData::Fills(ExportFormat format) const {
  std::vector<std::string> lines;
  for (const auto& [pattern, use] : patterns_) {
    if (use.size <= kMaxTable) continue;
    const std::string name = PatternName(pattern);
    if (pattern == 1) {
      lines.push_back(fmt::format("memset({0}, 0xff, sizeof({0}));", name));
    } else {
      lines.push_back(fmt::format("fill_pattern({0}, sizeof({0}), 0x{1:x}ull);", name,
                                  program::PatternKey(pattern)));
    }
    if (use.guest && format == ExportFormat::kSelftest) {
      lines.push_back(fmt::format("@sync_global_to_guest({{vm}}, {});", name));
    }
  }
  return lines;
}

bool TestData::uses_patterns() const {
  return std::ranges::any_of(
      patterns_, [](const auto& each) { return each.first > 1 && each.second.size > kMaxTable; });
}

}  // namespace fpswap::report
