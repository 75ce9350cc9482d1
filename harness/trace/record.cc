// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/trace/record.h"

#include <cstring>

namespace fpswap::trace {

void AppendRecord(std::vector<uint8_t>& out, RecordKind kind, uint8_t vcpu, uint16_t step,
                  std::span<const uint8_t> head, std::span<const uint8_t> tail) {
  const auto length = static_cast<uint32_t>(head.size() + tail.size());
  const size_t at = out.size();
  out.resize(at + kRecordHeader + length);
  uint8_t* p = out.data() + at;
  p[0] = static_cast<uint8_t>(kind);
  p[1] = vcpu;
  std::memcpy(p + 2, &step, sizeof(step));
  std::memcpy(p + 4, &length, sizeof(length));
  if (!head.empty()) std::memcpy(p + kRecordHeader, head.data(), head.size());
  if (!tail.empty()) std::memcpy(p + kRecordHeader + head.size(), tail.data(), tail.size());
}

bool RecordReader::Next(RecordView& out) {
  if (rest_.empty() || malformed_) return false;
  uint32_t length = 0;
  if (rest_.size() >= kRecordHeader) std::memcpy(&length, rest_.data() + 4, sizeof(length));
  if (rest_.size() < kRecordHeader || length > rest_.size() - kRecordHeader) {
    malformed_ = true;
    return false;
  }
  out.kind = static_cast<RecordKind>(rest_[0]);
  out.vcpu = rest_[1];
  std::memcpy(&out.step, rest_.data() + 2, sizeof(out.step));
  out.bytes = rest_.subspan(kRecordHeader, length);
  rest_ = rest_.subspan(kRecordHeader + length);
  return true;
}

}  // namespace fpswap::trace
