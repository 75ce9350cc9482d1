// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the judge's tests share: a platform that no test machine has to be, plans from text, and
// records written by hand.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "harness/judge/judge.h"
#include "harness/plan/plan.h"
#include "harness/program/text.h"
#include "harness/trace/record.h"

namespace fpswap::judge {

inline constexpr uint64_t kTestComponents = 0x2ff;  // all up to Hi16_ZMM, and PKRU

inline cpu::Features TestFeatures(uint64_t components) {
  cpu::Features f;
  f.xsave = xstate::XsaveCpuid::Typical(components, 0x1800);
  f.avx = f.avx2 = f.fma = f.avx512f = f.avx512bw = f.avx512dq = f.avx512vl = true;
  f.mpx = (components & xstate::kMpx) != 0;
  f.pku = f.cet_ss = f.cet_ibt = true;
  f.amx_tile = f.amx_int8 = (components & xstate::kAmx) == xstate::kAmx;
  return f;
}

// A kvm target on a CPU with `components`, where every step can run.
inline trace::Platform TestPlatform(uint64_t components = kTestComponents, bool compacted = true) {
  trace::Platform p;
  p.target = "kvm";
  p.cpu = "test";
  p.kernel = "6.12.0";
  p.vendor_module = "kvm_intel";
  p.host = p.guest = TestFeatures(components);
  p.host_xcr0 = p.guest_supp = p.guest_perm = components;
  p.xsave_size = std::max(4096u, p.host.xsave.max_size);
  p.compacted = compacted;
  p.cpus = 2;
  p.vcpus = 2;
  for (const auto& row : program::StepTable()) p.can.set(static_cast<uint8_t>(row.op));
  return p;
}

inline plan::Plan PlanOf(const std::string& steps, const trace::Platform& platform) {
  const auto program = program::ParseText("fpswap 1\n" + steps);
  EXPECT_TRUE(program.has_value()) << (program ? "" : program.error().ToString("test"));
  plan::Plan plan = plan::MakePlan(program.value_or(program::Program{}), platform);
  EXPECT_TRUE(plan.trims.empty()) << plan.trims[0].reason;
  return plan;
}

// Records by hand.
class Records {
 public:
  explicit Records(const plan::Plan& plan) : plan_(plan) {}

  Records& Journal(uint16_t step, std::span<const uint8_t> bytes) {
    return Add(trace::RecordKind::kJournal, step, {}, bytes);
  }
  Records& Fault(uint16_t step, uint8_t vector, uint32_t error = 0, uint64_t address = 0) {
    return FaultAt(step, vector, plan::kCodeBase + plan_.rows[step].instruction, error, address);
  }
  Records& FaultAt(uint16_t step, uint8_t vector, uint64_t rip, uint32_t error = 0,
                   uint64_t address = 0) {
    const trace::FaultRecord fault{vector, {}, error, rip, address};
    return Add(trace::RecordKind::kFault, step, BytesOf(fault));
  }
  Records& Exit(uint16_t step, const trace::ExitRecord& exit) {
    return Add(trace::RecordKind::kExit, step, BytesOf(exit));
  }
  Records& Ioctl(uint16_t step, int result, int error = 0, std::span<const uint8_t> data = {}) {
    return Add(trace::RecordKind::kIoctl, step, BytesOf(trace::IoctlRecord{result, error}), data);
  }
  Records& KernelLog(std::string_view log) {
    return Add(trace::RecordKind::kKernelLog, 0,
               {reinterpret_cast<const uint8_t*>(log.data()), log.size()});
  }
  Records& Host(uint16_t step, int result = 0) {
    return Add(trace::RecordKind::kHost, step, BytesOf(trace::HostRecord{result, 0}));
  }
  Records& Canary(uint16_t step, uint64_t components, std::span<const uint8_t> before,
                  std::span<const uint8_t> after) {
    std::vector<uint8_t> both(before.begin(), before.end());
    both.insert(both.end(), after.begin(), after.end());
    return Add(trace::RecordKind::kCanary, step, BytesOf(trace::CanaryRecord{components}), both);
  }
  const std::vector<uint8_t>& End(trace::EndReason reason = trace::EndReason::kDone,
                                  uint16_t step = 0, const std::string& text = "") {
    const trace::EndRecord end{.reason = static_cast<uint8_t>(reason), .micros = 1};
    Add(trace::RecordKind::kEnd, step, BytesOf(end),
        {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    return bytes_;
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  template <typename T>
  static std::span<const uint8_t> BytesOf(const T& value) {
    return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
  }
  Records& Add(trace::RecordKind kind, uint16_t step, std::span<const uint8_t> head,
               std::span<const uint8_t> tail = {}) {
    const auto& steps = plan_.effective.steps;
    const uint8_t vcpu = step < steps.size() ? steps[step].vcpu : 0;
    trace::AppendRecord(bytes_, kind, vcpu, step, head, tail);
    return *this;
  }

  const plan::Plan& plan_;
  std::vector<uint8_t> bytes_;
};

template <typename T>
void Put(std::vector<uint8_t>& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

// The image KVM_GET_XSAVE gives of a fresh vCPU: nothing in use.
inline std::vector<uint8_t> FreshImage(const trace::Platform& p) {
  std::vector<uint8_t> image(p.xsave_size);
  Put<uint16_t>(image, 0, 0x37f);
  Put<uint32_t>(image, 24, 0x1f80);
  Put<uint32_t>(image, 28, p.host.mxcsr_mask);
  Put<uint32_t>(image, 464, 0x46505853);  // xstate_fx_sw_bytes
  return image;
}

inline std::vector<uint8_t> PatternBytes(uint16_t pattern, size_t size) {
  std::vector<uint8_t> bytes(size);
  program::FillPattern(pattern, bytes);
  return bytes;
}

inline const Divergence& First(const Verdict& v) {
  static const Divergence kNone;
  EXPECT_FALSE(v.ok());
  return v.ok() ? kNone : v.divergences[0];
}

// A judge for the platform of the tests.
class JudgeTest : public testing::Test {
 protected:
  Verdict Check(const plan::Plan& plan, const std::vector<uint8_t>& records) {
    return judge_.Check(plan, records);
  }

  trace::Platform platform_ = TestPlatform();
  Judge judge_{platform_};
};

// What the tests tell a verdict by.
inline std::string Told(const Verdict& v) { return v.ok() ? "ok" : VerdictToJson(v); }

}  // namespace fpswap::judge
