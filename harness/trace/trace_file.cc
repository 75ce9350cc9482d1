// SPDX-License-Identifier: GPL-2.0-or-later
//
// The file form of a trace, little-endian:
//
//   u64 magic "FPSWTRC\n", u32 version, u32 crc32c of all that follows, then sections:
//   u32 kind, u32 length, `length` bytes
//
// Each section comes once and in this order: platform (JSON), program (text form), trims (u16 step,
// u16 length, text, each), records. Reading is total and allocates nothing that the file's own size
// does not bound.
#include <cstring>

#include "harness/plan/wire.h"
#include "harness/program/text.h"
#include "harness/trace/trace.h"

namespace fpswap::trace {
namespace {

constexpr uint64_t kMagic = 0x0a43'5254'5753'5046;  // "FPSWTRC\n"
constexpr uint32_t kVersion = 1;
constexpr size_t kHeader = 16;
constexpr size_t kMaxTrims = program::kMaxSteps;
constexpr size_t kMaxReason = 4096;

enum class Section : uint32_t { kPlatform = 1, kProgram = 2, kTrims = 3, kRecords = 4 };

template <typename T>
void Put(std::vector<uint8_t>& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof(T));
  std::memcpy(out.data() + at, &value, sizeof(T));
}

void PutBytes(std::vector<uint8_t>& out, std::span<const uint8_t> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void PutSection(std::vector<uint8_t>& out, Section kind, std::span<const uint8_t> bytes) {
  Put(out, static_cast<uint32_t>(kind));
  Put(out, static_cast<uint32_t>(bytes.size()));
  PutBytes(out, bytes);
}

// Takes a T off the front of `bytes`.
template <typename T>
bool Take(std::span<const uint8_t>& bytes, T& value) {
  if (bytes.size() < sizeof(T)) return false;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes = bytes.subspan(sizeof(T));
  return true;
}

std::expected<std::span<const uint8_t>, std::string> TakeSection(std::span<const uint8_t>& bytes,
                                                                 Section kind, const char* name) {
  uint32_t found = 0, length = 0;
  if (!Take(bytes, found) || !Take(bytes, length) || length > bytes.size()) {
    return std::unexpected(std::string("trace: the file ends within its ") + name + " section");
  }
  if (found != static_cast<uint32_t>(kind)) {
    return std::unexpected(std::string("trace: section ") + std::to_string(found) +
                           " stands where the " + name + " section was expected");
  }
  const auto section = bytes.first(length);
  bytes = bytes.subspan(length);
  return section;
}

std::expected<std::vector<plan::Trim>, std::string> ReadTrims(std::span<const uint8_t> bytes) {
  std::vector<plan::Trim> trims;
  while (!bytes.empty()) {
    uint16_t step = 0, length = 0;
    if (!Take(bytes, step) || !Take(bytes, length) || length > bytes.size() ||
        length > kMaxReason || trims.size() == kMaxTrims) {
      return std::unexpected("trace: the list of trimmed steps is malformed");
    }
    trims.push_back({step, std::string(AsText(bytes.first(length)))});
    bytes = bytes.subspan(length);
  }
  return trims;
}

}  // namespace

std::vector<uint8_t> WriteTrace(const Trace& trace) {
  std::vector<uint8_t> trims;
  for (size_t i = 0; i < trace.trims.size() && i < kMaxTrims; ++i) {
    const std::string_view reason = std::string_view(trace.trims[i].reason).substr(0, kMaxReason);
    Put(trims, trace.trims[i].step);
    Put(trims, static_cast<uint16_t>(reason.size()));
    PutBytes(trims, AsBytes(reason));
  }
  std::vector<uint8_t> out;
  Put(out, kMagic);
  Put(out, kVersion);
  Put(out, uint32_t{0});
  PutSection(out, Section::kPlatform, AsBytes(PlatformToJson(trace.platform)));
  PutSection(out, Section::kProgram, AsBytes(program::PrintText(trace.program)));
  PutSection(out, Section::kTrims, trims);
  PutSection(out, Section::kRecords, trace.records);
  const uint32_t crc = wire::Crc32c(std::span(out).subspan(kHeader));
  std::memcpy(out.data() + 12, &crc, sizeof(crc));
  return out;
}

std::expected<Trace, std::string> ReadTrace(std::span<const uint8_t> bytes) {
  if (bytes.size() > kMaxTraceSize) return std::unexpected("trace: the file is over 16 MiB");
  uint64_t magic = 0;
  uint32_t version = 0, crc = 0;
  if (!Take(bytes, magic) || magic != kMagic) {
    return std::unexpected("trace: this is not an fpswap trace file");
  }
  if (!Take(bytes, version) || version != kVersion) {
    return std::unexpected("trace: version " + std::to_string(version) +
                           " is not known, this fpswap reads version 1");
  }
  if (!Take(bytes, crc) || crc != wire::Crc32c(bytes)) {
    return std::unexpected("trace: the checksum is wrong, the file is truncated or damaged");
  }
  const auto platform = TakeSection(bytes, Section::kPlatform, "platform");
  if (!platform) return std::unexpected(platform.error());
  const auto program = TakeSection(bytes, Section::kProgram, "program");
  if (!program) return std::unexpected(program.error());
  const auto trims = TakeSection(bytes, Section::kTrims, "trims");
  if (!trims) return std::unexpected(trims.error());
  const auto records = TakeSection(bytes, Section::kRecords, "records");
  if (!records) return std::unexpected(records.error());
  if (!bytes.empty()) return std::unexpected("trace: there are bytes behind the last section");
  if (records->size() > kMaxRecordsBytes) {
    return std::unexpected("trace: the records are over 8 MiB");
  }

  Trace trace;
  auto read_platform = PlatformFromJson(AsText(*platform));
  if (!read_platform) return std::unexpected("trace: " + read_platform.error());
  trace.platform = std::move(*read_platform);
  auto read_program = program::ParseText(AsText(*program));
  if (!read_program) return std::unexpected(read_program.error().ToString("trace program"));
  trace.program = std::move(*read_program);
  auto read_trims = ReadTrims(*trims);
  if (!read_trims) return std::unexpected(read_trims.error());
  trace.trims = std::move(*read_trims);
  trace.records.assign(records->begin(), records->end());
  return trace;
}

}  // namespace fpswap::trace
