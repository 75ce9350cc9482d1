// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/kmsg.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string_view>

#include "harness/trace/record.h"

namespace fpswap::wire {
namespace {

constexpr unsigned kWarning = 4;  // KERN_WARNING, which is the level of what has none, too
// A record is longer than no buffer of printk's (LOG_LINE_MAX and its dictionary).
constexpr size_t kRecord = 8192;
// One read of a log that grows without end must end.
constexpr unsigned kMaxRecords = 10'000;

// The words of "priority,number,time,flags;words\n key=value\n" if the kernel said them, and loud
// enough.
std::string_view Words(std::string_view record) {
  unsigned priority = 0;
  const auto parsed = std::from_chars(record.data(), record.data() + record.size(), priority);
  const size_t words = record.find(';');
  // The upper bits are the facility: 0 is the kernel, others are processes that write to the log.
  if (parsed.ec != std::errc() || words == std::string_view::npos || priority > kWarning) return "";
  record.remove_prefix(words + 1);
  return record.substr(0, record.find('\n'));
}

}  // namespace

Kmsg::Kmsg() : fd_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  if (fd_ >= 0) lseek(fd_, 0, SEEK_END);
}

Kmsg::~Kmsg() {
  if (fd_ >= 0) close(fd_);
}

const std::string& Kmsg::ReadNew() {
  text_.clear();
  if (fd_ < 0) return text_;
  char record[kRecord];
  for (unsigned i = 0; i < kMaxRecords; ++i) {
    const ssize_t size = read(fd_, record, sizeof(record));
    if (size < 0 && (errno == EINTR || errno == EPIPE)) continue;  // EPIPE: some were overwritten
    if (size <= 0) break;
    const std::string_view words = Words({record, static_cast<size_t>(size)});
    if (words.empty() || text_.size() + words.size() + 1 > trace::kMaxKernelLog) continue;
    (text_ += words) += '\n';
  }
  return text_;
}

}  // namespace fpswap::wire
