// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "harness/trace/trace.h"

namespace fpswap::trace {
namespace {

using nlohmann::json;

Platform Sample() {
  Platform p;
  p.target = "kvm";
  p.cpu = "Some CPU @ 2.20GHz";
  p.kernel = "6.12.107+deb13-cloud-amd64";
  p.vendor_module = "kvm_intel";
  p.host.xsave = xstate::XsaveCpuid::Typical(0x602e7, 0x1800);
  p.host.avx512f = p.host.amx_tile = p.host.pku = true;
  p.guest = p.host;
  p.guest.xsave = xstate::XsaveCpuid::Typical(0x2e7, 0);
  p.host_xcr0 = 0x602e7;
  p.guest_supp = 0x602e7;
  p.guest_perm = 0x2e7;
  p.xsave_size = 11008;
  p.compacted = false;
  p.cpu_family = 25;
  p.cpus = 4;
  p.vcpus = 2;
  p.guest_fixed = true;
  p.xcr0_loaded = false;
  p.can.set(1);
  p.can.set(255);
  p.cannot.emplace_back(63, "XSAVES needs CPL 0");
  return p;
}

void ExpectSame(const Platform& a, const Platform& b) {
  EXPECT_EQ(PlatformToJson(a), PlatformToJson(b));
  EXPECT_EQ(a.host, b.host);
  EXPECT_EQ(a.guest, b.guest);
  EXPECT_EQ(a.can, b.can);
  EXPECT_EQ(a.cannot, b.cannot);
  EXPECT_EQ(a.xsave_size, b.xsave_size);
  EXPECT_EQ(a.cpu_family, b.cpu_family);
  EXPECT_EQ(a.compacted, b.compacted);
  EXPECT_EQ(a.guest_fixed, b.guest_fixed);
  EXPECT_EQ(a.xcr0_loaded, b.xcr0_loaded);
  EXPECT_EQ(a.vcpus, b.vcpus);
  EXPECT_EQ(a.kernel, b.kernel);
}

TEST(PlatformJson, ReadingIsTheInverseOfWriting) {
  const auto read = PlatformFromJson(PlatformToJson(Sample()));
  ASSERT_TRUE(read.has_value()) << read.error();
  ExpectSame(Sample(), *read);
  const auto empty = PlatformFromJson(PlatformToJson(Platform{}));
  ASSERT_TRUE(empty.has_value()) << empty.error();
  ExpectSame(Platform{}, *empty);
}

TEST(PlatformJson, ABrandStringThatIsNoUtf8IsWrittenAllTheSame) {
  Platform p = Sample();
  p.cpu = "\xff\xfe CPU";
  EXPECT_TRUE(PlatformFromJson(PlatformToJson(p)).has_value());
}

TEST(PlatformJson, UnknownFieldsArePassedOver) {
  json j = json::parse(PlatformToJson(Sample()));
  j["newer"] = {1, 2};
  EXPECT_TRUE(PlatformFromJson(j.dump()).has_value());
}

TEST(PlatformJson, EachMissingFieldIsNamed) {
  const json good = json::parse(PlatformToJson(Sample()));
  for (const auto& [key, value] : good.items()) {
    if (key == "cpu_family" || key == "kernel_log") continue;  // older traces lack them
    json j = good;
    j.erase(key);
    const auto read = PlatformFromJson(j.dump());
    ASSERT_FALSE(read.has_value()) << key;
    EXPECT_NE(read.error().find(key), std::string::npos) << read.error();
  }
}

TEST(PlatformJson, EachFieldOfTheWrongTypeIsRefused) {
  const json good = json::parse(PlatformToJson(Sample()));
  for (const auto& [key, value] : good.items()) {
    json j = good;
    j[key] = value.is_string() ? json(7) : json("text");
    EXPECT_FALSE(PlatformFromJson(j.dump()).has_value()) << key;
    j[key] = -1;
    EXPECT_FALSE(PlatformFromJson(j.dump()).has_value()) << key;
  }
}

TEST(PlatformJson, SizesThatNoBufferHoldsAreRefused) {
  const json good = json::parse(PlatformToJson(Sample()));
  const auto with = [&](const char* field, uint64_t value) {
    json j = good;
    j["host"]["xsave"]["components"][0][field] = value;
    return PlatformFromJson(j.dump()).has_value();
  };
  EXPECT_TRUE(with("size", 256));
  EXPECT_FALSE(with("size", xstate::kMaxAreaSize + 1));
  EXPECT_FALSE(with("offset", xstate::kMaxAreaSize));
  EXPECT_FALSE(with("offset", 100));  // within the legacy region
  EXPECT_FALSE(with("bit", 1));
  EXPECT_FALSE(with("bit", 99));
  json j = good;
  j["xsave_size"] = 1 << 30;
  EXPECT_FALSE(PlatformFromJson(j.dump()).has_value());
}

TEST(PlatformJson, GarbageIsRefusedWithASentence) {
  for (const char* text : {"", "{", "[]", "null", "\"x\"", "{\"target\":1}", "\xff\x00"}) {
    const auto read = PlatformFromJson(text);
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_EQ(read.error().rfind("platform", 0), 0u) << read.error();
  }
  EXPECT_FALSE(PlatformFromJson(std::string(2 << 20, ' ')).has_value());
  EXPECT_FALSE(PlatformFromJson(std::string(500000, '[')).has_value());
}

}  // namespace
}  // namespace fpswap::trace
