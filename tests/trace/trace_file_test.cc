// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <cstring>

#include "harness/plan/wire.h"
#include "harness/program/generate.h"
#include "harness/program/text.h"
#include "harness/trace/trace.h"

namespace fpswap::trace {
namespace {

Trace Sample() {
  Trace t;
  t.platform.target = "kvm";
  t.platform.host.xsave = t.platform.guest.xsave = xstate::XsaveCpuid::Typical(0x2ff, 0);
  const auto program = program::ParseText("fpswap 1\nx87.fninit\nvmm.get_xsave image=2\n");
  EXPECT_TRUE(program.has_value());
  t.program = program.value_or(program::Program{});
  t.trims = {{3, "the guest has no MPX"}, {5, ""}};
  const std::vector<uint8_t> bytes = {1, 2, 3};
  AppendRecord(t.records, RecordKind::kJournal, 0, 1, bytes);
  return t;
}

// The same file after `change`, with its checksum made right again.
template <typename Change>
std::vector<uint8_t> Changed(Change&& change) {
  std::vector<uint8_t> file = WriteTrace(Sample());
  change(file);
  if (file.size() >= 16) {
    const uint32_t crc = wire::Crc32c(std::span<const uint8_t>(file).subspan(16));
    std::memcpy(&file[12], &crc, sizeof(crc));
  }
  return file;
}

TEST(TraceFile, ReadingIsTheInverseOfWriting) {
  const Trace sample = Sample();
  const auto read = ReadTrace(WriteTrace(sample));
  ASSERT_TRUE(read.has_value()) << read.error();
  EXPECT_EQ(read->program, sample.program);
  EXPECT_EQ(read->records, sample.records);
  ASSERT_EQ(read->trims.size(), 2u);
  EXPECT_EQ(read->trims[0].step, 3);
  EXPECT_EQ(read->trims[0].reason, "the guest has no MPX");
  EXPECT_EQ(PlatformToJson(read->platform), PlatformToJson(sample.platform));
}

TEST(TraceFile, EveryTruncationIsRefusedWithASentence) {
  const std::vector<uint8_t> file = WriteTrace(Sample());
  for (size_t size = 0; size < file.size(); ++size) {
    const auto read = ReadTrace(std::span(file).first(size));
    ASSERT_FALSE(read.has_value()) << size;
    EXPECT_EQ(read.error().rfind("trace:", 0), 0u) << read.error();
  }
}

TEST(TraceFile, EveryTruncationWithARightChecksumIsRefused) {
  const size_t size = WriteTrace(Sample()).size();
  for (size_t n = 16; n < size; ++n) {
    EXPECT_FALSE(ReadTrace(Changed([&](auto& file) { file.resize(n); })).has_value()) << n;
  }
}

TEST(TraceFile, EveryFlippedBitIsFound) {
  const std::vector<uint8_t> file = WriteTrace(Sample());
  for (size_t i = 0; i < file.size(); ++i) {
    std::vector<uint8_t> wrong = file;
    wrong[i] ^= 0x20;
    EXPECT_FALSE(ReadTrace(wrong).has_value()) << i;
  }
}

TEST(TraceFile, AnotherVersionIsNamed) {
  const auto read = ReadTrace(Changed([](auto& file) { file[8] = 9; }));
  ASSERT_FALSE(read.has_value());
  EXPECT_NE(read.error().find("version 9"), std::string::npos);
}

TEST(TraceFile, BytesBehindTheLastSectionAreRefused) {
  EXPECT_FALSE(ReadTrace(Changed([](auto& file) { file.push_back(0); })).has_value());
}

TEST(TraceFile, NoBytesMakeTheReaderFall) {
  program::Rng rng(11);
  for (int i = 0; i < 20000; ++i) {
    ReadTrace(Changed([&](auto& file) {
      for (int n = 0; n < 3; ++n) {
        file[16 + rng.Below(file.size() - 16)] = static_cast<uint8_t>(rng.Next());
      }
    }));
  }
  std::vector<uint8_t> huge(kMaxTraceSize + 1);
  EXPECT_FALSE(ReadTrace(huge).has_value());
}

TEST(Records, ReadingIsTheInverseOfAppending) {
  std::vector<uint8_t> bytes;
  const std::vector<uint8_t> head = {1, 2}, tail = {3};
  AppendRecord(bytes, RecordKind::kExit, 3, 500, head, tail);
  AppendRecord(bytes, RecordKind::kEnd, 0, 1, {});
  RecordReader reader(bytes);
  RecordView r;
  ASSERT_TRUE(reader.Next(r));
  EXPECT_EQ(r.kind, RecordKind::kExit);
  EXPECT_EQ(r.vcpu, 3);
  EXPECT_EQ(r.step, 500);
  EXPECT_EQ(std::vector<uint8_t>(r.bytes.begin(), r.bytes.end()), (std::vector<uint8_t>{1, 2, 3}));
  ASSERT_TRUE(reader.Next(r));
  EXPECT_TRUE(r.bytes.empty());
  EXPECT_FALSE(reader.Next(r));
  EXPECT_FALSE(reader.malformed());
}

TEST(Records, AnEndWithinARecordIsMalformed) {
  std::vector<uint8_t> bytes;
  const std::vector<uint8_t> head(20);
  AppendRecord(bytes, RecordKind::kExit, 0, 0, head);
  for (size_t size = 1; size < bytes.size(); ++size) {
    RecordReader reader(std::span<const uint8_t>(bytes).first(size));
    RecordView r;
    EXPECT_FALSE(reader.Next(r));
    EXPECT_TRUE(reader.malformed());
  }
}

}  // namespace
}  // namespace fpswap::trace
