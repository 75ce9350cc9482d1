// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/wire.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace fpswap::wire {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little-endian");

// CRC-32C (Castagnoli), reflected.
constexpr uint32_t kPolynomial = 0x82f63b78;

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

uint32_t CrcByTable(std::span<const uint8_t> bytes) {
  uint32_t crc = ~0u;
  for (const uint8_t b : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ b) & 0xff];
  return ~crc;
}

// The x86-64 baseline lacks SSE4.2, so this is called only where CPUID says so.
__attribute__((target("sse4.2"))) uint32_t CrcByInstruction(std::span<const uint8_t> bytes) {
  uint64_t crc = ~0u;
  while (bytes.size() >= 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof(word));
    crc = __builtin_ia32_crc32di(crc, word);
    bytes = bytes.subspan(8);
  }
  uint32_t rest = static_cast<uint32_t>(crc);
  for (const uint8_t b : bytes) rest = __builtin_ia32_crc32qi(rest, b);
  return ~rest;
}

struct FrameHead {
  uint32_t magic;
  uint16_t type;
  uint16_t flags;
  uint32_t length;
  uint32_t crc;
};
static_assert(sizeof(FrameHead) == kFrameHeader);

bool Plausible(const FrameHead& head) {
  const bool known = (head.type >= 1 && head.type <= 3) || (head.type >= 16 && head.type <= 21);
  return known && head.flags == 0 && head.length <= kMaxFrame;
}

// Offset of the first place in `bytes` where a magic may begin; bytes.size() if there is none.
size_t FindMagic(std::span<const uint8_t> bytes) {
  constexpr uint8_t first = kFrameMagic & 0xff;
  for (size_t at = 0; at < bytes.size(); ++at) {
    const void* hit = std::memchr(bytes.data() + at, first, bytes.size() - at);
    if (hit == nullptr) return bytes.size();
    at = static_cast<size_t>(static_cast<const uint8_t*>(hit) - bytes.data());
    const uint32_t magic = kFrameMagic;
    if (std::memcmp(bytes.data() + at, &magic, std::min<size_t>(4, bytes.size() - at)) == 0)
      return at;
  }
  return bytes.size();
}

}  // namespace

uint32_t Crc32c(std::span<const uint8_t> bytes) {
  static const bool fast = __builtin_cpu_supports("sse4.2") != 0;
  return fast ? CrcByInstruction(bytes) : CrcByTable(bytes);
}

void AppendFrame(std::vector<uint8_t>& out, FrameType type, std::span<const uint8_t> payload) {
  const FrameHead head{.magic = kFrameMagic,
                       .type = static_cast<uint16_t>(type),
                       .flags = 0,
                       .length = static_cast<uint32_t>(payload.size()),
                       .crc = Crc32c(payload)};
  const auto* bytes = reinterpret_cast<const uint8_t*>(&head);
  out.insert(out.end(), bytes, bytes + sizeof(head));
  out.insert(out.end(), payload.begin(), payload.end());
}

void FrameReader::Feed(std::span<const uint8_t> bytes) {
  // Moving the rest to the front only when it is the smaller part keeps the cost linear.
  if (begin_ == buffer_.size() || begin_ > buffer_.size() / 2) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(begin_));
    begin_ = 0;
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

std::optional<FrameReader::Frame> FrameReader::Next() {
  for (;;) {
    std::span<const uint8_t> rest(buffer_);
    rest = rest.subspan(begin_);
    const size_t garbage = FindMagic(rest);
    begin_ += garbage;
    skipped_ += garbage;
    rest = rest.subspan(garbage);
    if (rest.size() < kFrameHeader) return std::nullopt;
    FrameHead head;
    std::memcpy(&head, rest.data(), sizeof(head));
    if (Plausible(head)) {
      if (rest.size() - kFrameHeader < head.length) return std::nullopt;
      const auto payload = rest.subspan(kFrameHeader, head.length);
      if (Crc32c(payload) == head.crc) {
        begin_ += kFrameHeader + head.length;
        return Frame{static_cast<FrameType>(head.type), payload};
      }
    }
    ++begin_;  // not a frame: look for the next magic
    ++skipped_;
  }
}

}  // namespace fpswap::wire
