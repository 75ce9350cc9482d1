// SPDX-License-Identifier: GPL-2.0-or-later
//
// Running programs on a target in tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "harness/targets/target.h"
#include "harness/trace/record.h"

namespace fpswap::targets {

using Records = std::vector<uint8_t>;

// The records of each program. `each` is called after each, with its number.
inline std::vector<Records> RunAll(Target& target, const std::vector<program::Program>& programs,
                                   const std::function<void(size_t)>& each = {}) {
  std::vector<plan::Plan> plans;
  for (const auto& program : programs) plans.push_back(plan::MakePlan(program, target.platform()));
  std::vector<const plan::Plan*> pointers;
  for (const auto& plan : plans) pointers.push_back(&plan);
  std::vector<Records> out;
  const auto ran = target.Run(pointers, [&](size_t i, std::span<const uint8_t> records) {
    EXPECT_EQ(i, out.size()) << "programs come back in order";
    out.emplace_back(records.begin(), records.end());
    if (each) each(i);
  });
  EXPECT_TRUE(ran) << ran.error();
  EXPECT_EQ(out.size(), programs.size());
  return out;
}

// The End record and the text behind it.
struct End {
  trace::EndReason reason{};
  unsigned hangs = 0;
  std::string text;
};
inline End EndOf(const Records& records) {
  trace::RecordReader reader(records);
  trace::RecordView view{};
  trace::EndRecord end{};
  End out;
  while (reader.Next(view)) {
    if (view.kind != trace::RecordKind::kEnd || !trace::ReadHead(view.bytes, end)) continue;
    out.reason = static_cast<trace::EndReason>(end.reason);
    out.hangs = end.hangs;
    const auto text = view.bytes.subspan(sizeof(end));
    out.text.assign(text.begin(), text.end());
  }
  EXPECT_EQ(view.kind, trace::RecordKind::kEnd) << "records end in an End record";
  return out;
}

// The records without the time the program took, which is never the same, and without how often it
// was begun again because that was too long, which is the machine's load.
inline Records WithoutTime(const Records& records) {
  Records out;
  trace::RecordReader reader(records);
  trace::RecordView view{};
  while (reader.Next(view)) {
    trace::EndRecord end{};
    if (view.kind == trace::RecordKind::kEnd && trace::ReadHead(view.bytes, end)) {
      end.micros = 0;
      end.hangs = 0;
      trace::AppendRecord(out, view.kind, view.vcpu, view.step,
                          {reinterpret_cast<const uint8_t*>(&end), sizeof(end)},
                          view.bytes.subspan(sizeof(end)));
    } else {
      trace::AppendRecord(out, view.kind, view.vcpu, view.step, view.bytes);
    }
  }
  return out;
}

}  // namespace fpswap::targets
