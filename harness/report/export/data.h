// SPDX-License-Identifier: GPL-2.0-or-later
//
// The memory of an exported test: operands of instructions, what the guest stores, areas, images.
// Only what is asked for gets declared; operands that are the same are one.
//
// Private to harness/report/export.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "harness/report/export/export.h"

namespace fpswap::report {

class TestData {
 public:
  // Each gives the name of a variable. `guest`: guest code reads it.
  std::string Pattern(uint16_t pattern, size_t size, bool guest);
  std::string Scalar(const std::string& prefix, uint64_t value, size_t size);
  std::string Table(const std::string& prefix, std::span<const uint8_t> bytes);
  std::string Zeros(size_t size);
  // A variable that the guest stores to: an array, or a number where `size` is a power of two up to
  // 8.
  std::string Result(const std::string& name, size_t size);
  std::string Area(const std::string& name);
  std::string Image(uint64_t number);
  // What other text may say bytes are that these begin with, beside operands: "fpu.xmm[0]".
  void AddSource(const std::string& expression, std::span<const uint8_t> bytes);

  // An expression for bytes that a test expects: a piece of an operand, zeros, or a new table.
  std::string Expected(const std::string& prefix, std::span<const uint8_t> bytes);
  // Whether the bytes are wholly a piece of an operand; `at` is its expression.
  bool Find(std::span<const uint8_t> bytes, std::string& at) const;

  // Names of variables that the host reads behind the guest.
  std::string Declarations() const;
  // Statements of main() that fill what is not a table.
  std::vector<std::string> Fills(ExportFormat format) const;
  bool uses_patterns() const;
  bool uses_areas() const { return !areas_.empty(); }
  bool uses_images() const { return !images_.empty(); }
  const std::set<uint64_t>& images() const { return images_; }

  // Large tables are noise: a pattern longer than this is filled at run time.
  static constexpr size_t kMaxTable = 64;

 private:
  struct PatternUse {
    size_t size = 0;
    bool guest = false;
  };
  std::string Unique(const std::string& name);

  std::map<uint16_t, PatternUse> patterns_;
  std::map<std::string, std::pair<size_t, uint64_t>> scalars_;
  std::vector<std::pair<std::string, std::vector<uint8_t>>> tables_, sources_;
  std::vector<std::pair<std::string, size_t>> results_;
  std::set<std::string> areas_, names_;
  std::set<uint64_t> images_;
  size_t zeros_ = 0;
};

// The bytes of FillPattern.
std::vector<uint8_t> PatternBytes(uint16_t pattern, size_t size);
// "u32" for 4.
std::string TypeOf(size_t size);
bool IsNumber(size_t size);

}  // namespace fpswap::report
