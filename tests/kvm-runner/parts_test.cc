// SPDX-License-Identifier: GPL-2.0-or-later
//
// Parts of kvm-runner that need no KVM.
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "kvm-runner/host_kernel.h"
#include "kvm-runner/host_side.h"
#include "kvm-runner/kcov.h"

namespace fpswap::kvm {
namespace {

constexpr int kHangSignal = SIGUSR2;

// Until the watchdog has said so, ten seconds at most.
bool WaitForHang(const Watchdog& watchdog) {
  for (int i = 0; i < 1000 && !watchdog.hung(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return watchdog.hung();
}

std::vector<uint16_t> EdgesOf(std::initializer_list<uint64_t> path) {
  EdgeMap map;
  map.Add({path.begin(), path.end()});
  std::vector<uint16_t> edges;
  map.List(edges);
  return edges;
}

TEST(EdgeMapTest, APathHasAnEdgeForEachBlockAndItsOrderCounts) {
  constexpr uint64_t kA = 0xffffffff81001000, kB = kA + 0x40, kC = kB + 0x13;
  EXPECT_TRUE(EdgesOf({}).empty());
  EXPECT_EQ(EdgesOf({kA, kB, kC}).size(), 3u);
  EXPECT_EQ(EdgesOf({kA, kB, kA, kB, kA, kB}).size(), 3u) << "into it, there and back";
  EXPECT_EQ(EdgesOf({kA, kA, kA}).size(), 2u) << "into it, and the loop";
  EXPECT_NE(EdgesOf({kA, kB, kC}), EdgesOf({kA, kC, kB}));
  EXPECT_TRUE(std::ranges::is_sorted(EdgesOf({kC, kB, kA, kC})));
}

TEST(EdgeMapTest, PathsAddUpUntilItIsCleared) {
  EdgeMap map;
  std::vector<uint16_t> edges;
  std::vector<uint64_t> path;
  for (uint64_t block = 0; block < 3000; ++block) path.push_back(0xffffffffa0000000 + 16 * block);
  map.Add(path);
  map.Add(path);
  map.List(edges);
  EXPECT_GT(edges.size(), 2850u) << "few of 3000 edges share 16 bits of a hash";
  EXPECT_LE(edges.size(), 3000u);
  map.Clear();
  map.List(edges);
  EXPECT_TRUE(edges.empty());
}

TEST(KcovTest, CountsWhereTheKernelDoes) {
  const auto kcov = Kcov::OpenForThisThread();
  if (kcov == nullptr) {
    EXPECT_NE(access("/sys/kernel/debug/kcov", R_OK | W_OK), 0) << "it is there and was not opened";
    return;
  }
  kcov->Restart();
  EXPECT_EQ(getppid(), getppid());
  EXPECT_LT(kcov->path().size(), size_t{256} << 10);
}

TEST(WatchdogTest, StopsTheVcpuThatRunsTooLong) {
  Watchdog watchdog(1);
  kvm_run run{};
  watchdog.Begin();
  watchdog.Watch(&run, gettid());
  EXPECT_TRUE(WaitForHang(watchdog));
  EXPECT_EQ(run.immediate_exit, 1);
  watchdog.End();
}

TEST(WatchdogTest, LeavesTheRunPageAloneWhenKvmRunIsOver) {
  Watchdog watchdog(1);
  kvm_run run{};
  watchdog.Begin();
  watchdog.Watch(&run, gettid());
  watchdog.Unwatch();
  run.immediate_exit = 0;
  EXPECT_TRUE(WaitForHang(watchdog)) << "what takes long outside KVM_RUN hangs as well";
  EXPECT_EQ(run.immediate_exit, 0);
  watchdog.End();
}

TEST(WatchdogTest, ASignalThatComesLateCondemnsNoLaterAction) {
  Watchdog watchdog(60'000);
  kvm_run run{};
  watchdog.Begin();
  watchdog.Watch(&run, gettid());
  raise(kHangSignal);  // meant for what ended just before
  EXPECT_FALSE(watchdog.hung());
  EXPECT_EQ(run.immediate_exit, 0);
  watchdog.End();
}

TEST(WatchdogTest, EachActionHasItsOwnTime) {
  Watchdog watchdog(1);
  watchdog.Begin();
  ASSERT_TRUE(WaitForHang(watchdog));
  watchdog.SetLimit(60'000);
  watchdog.Begin();
  EXPECT_FALSE(watchdog.hung());
  watchdog.End();
}

class CanaryImages : public testing::Test {
 protected:
  static constexpr uint64_t kPkru = 1 << 9;
  CanaryImages() {
    host_.xsave = xstate::XsaveCpuid::Typical(xstate::kX87Sse | 4 | kPkru, 0);
    expected_.resize(xstate::StandardSize(host_.xsave, components_));
    FillHostImage(host_, components_, 1, expected_);
    seen_ = expected_;
  }
  uint64_t Differing() const { return DifferingComponents(host_, components_, expected_, seen_); }
  uint8_t& XstateBv(std::vector<uint8_t>& image, unsigned byte) {
    return image[xstate::kHeaderOffset + byte];
  }

  cpu::Features host_;
  uint64_t components_ = xstate::kX87Sse | 4 | kPkru;
  std::vector<uint8_t> expected_, seen_;
};

TEST_F(CanaryImages, PkruOf0IsTheSameInUseOrNot) {
  const uint32_t at = host_.xsave.sub[9].offset;
  std::fill_n(&expected_[at], 8, uint8_t{0});
  seen_ = expected_;
  XstateBv(seen_, 1) ^= 2;
  EXPECT_EQ(Differing(), 0u);
  seen_[at] = 4;
  EXPECT_EQ(Differing(), kPkru);
}

TEST_F(CanaryImages, AComponentThatFellBackToItsInitialValueDiffers) {
  XstateBv(seen_, 0) ^= 4;
  EXPECT_EQ(Differing(), 4u);
}

TEST_F(CanaryImages, EachByteBelongsToItsComponent) {
  const std::pair<size_t, uint64_t> places[] = {{0, 1},   {32, 1},  {159, 1}, {24, 2},
                                                {160, 2}, {415, 2}, {576, 4}};
  for (const auto& [at, component] : places) {
    seen_ = expected_;
    seen_[at] ^= 0x10;
    EXPECT_EQ(Differing(), component) << "byte " << at;
  }
}

TEST(HostKernel, KeepsFpstatesCompactedWithXsavesAndLaterWithXsavecAlone) {
  for (const char* old : {"4.18.0-477.el8", "5.17.0", "5.18.19-generic"}) {
    EXPECT_FALSE(KeepsCompacted(old, false, true)) << old;
    EXPECT_TRUE(KeepsCompacted(old, true, true)) << old;
  }
  for (const char* young : {"5.19.0-rc1", "5.19", "6.0.0", "6.18.0-1-pvm", "next"}) {
    EXPECT_TRUE(KeepsCompacted(young, false, true)) << young;
    EXPECT_FALSE(KeepsCompacted(young, false, false)) << young;
  }
}

class ModulesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("fpswap-modules-" + std::to_string(getpid()));
    BuiltIn("kvm");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void BuiltIn(const char* name) { std::filesystem::create_directories(folder_ / name); }
  void Loaded(const char* name) {
    BuiltIn(name);
    std::ofstream(folder_ / name / "initstate") << "live\n";
  }
  std::string Found(bool vmx, bool svm) const { return VendorModule(folder_.string(), vmx, svm); }

  std::filesystem::path folder_;
};

TEST_F(ModulesTest, OfTwoThatAreBuiltInTheCpusServes) {
  EXPECT_EQ(Found(true, false), "");
  BuiltIn("kvm_intel");
  BuiltIn("kvm_amd");
  EXPECT_EQ(Found(true, false), "kvm_intel");
  EXPECT_EQ(Found(false, true), "kvm_amd");
  EXPECT_EQ(Found(false, false), "");
}

TEST_F(ModulesTest, ASoftwareKvmServesWhereTheCpuHasNone) {
  BuiltIn("kvm_pvm");
  BuiltIn("kvm_intel");
  EXPECT_EQ(Found(false, false), "kvm_pvm");
  EXPECT_EQ(Found(true, false), "kvm_intel");
}

TEST_F(ModulesTest, OneThatIsLoadedServesBeforeThoseBuiltIn) {
  BuiltIn("kvm_intel");
  BuiltIn("kvm_amd");
  Loaded("kvm_pvm");
  EXPECT_EQ(Found(false, true), "kvm_pvm");
}

}  // namespace
}  // namespace fpswap::kvm
