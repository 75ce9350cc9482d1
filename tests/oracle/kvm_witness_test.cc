// SPDX-License-Identifier: GPL-2.0-or-later
//
// oracle/kvm against the KVM of this machine, by ioctls alone: what KVM_SET_XCRS and KVM_SET_XSAVE
// refuse, and what KVM_GET_XSAVE shows before and after the state has been through the registers
// (KVM_RUN with immediate_exit swaps it in and out without entering the guest). It shares no code
// with the harness. Skipped where there is no /dev/kvm.
#include <cpuid.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "oracle/kvm/uabi.h"
#include "oracle/xstate/image.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/kvm_calls.h"
#include "tests/oracle/random_image.h"

namespace fpswap::kvm {
namespace {

using cpu::testing::Random;
using xstate::Bit;
using xstate::MutableImage;

// The host's own CPUID in the leaves that matter, without components that IA32_XFD can disable:
// these want a permission.
CpuidTable HostCpuid() {
  CpuidTable table;
  const auto add = [&](uint32_t leaf, uint32_t subleaf, uint32_t eax_mask = ~0u) {
    kvm_cpuid_entry2& e = table.entries[table.nent++];
    e.function = leaf;
    e.index = subleaf;
    e.flags = leaf == 7 || leaf == 0xd ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    __get_cpuid_count(leaf, subleaf, &e.eax, &e.ebx, &e.ecx, &e.edx);
    e.eax &= eax_mask;
  };
  const auto dynamic = static_cast<uint32_t>(xstate::kAmx);
  for (const uint32_t leaf : {0u, 1u, 7u, 0x80000000u, 0x80000001u, 0x80000008u}) add(leaf, 0);
  add(0xd, 0, ~dynamic);
  for (unsigned i = 1; i < xstate::kComponentCount; ++i) {
    if (((dynamic >> i) & 1) == 0) add(0xd, i);
  }
  return table;
}

class KvmWitness : public ::testing::Test {
 protected:
  void SetUp() override {
    kvm_ = Fd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (kvm_.get() < 0) GTEST_SKIP() << "/dev/kvm: " << std::strerror(errno);
    vm_ = Fd(ioctl(kvm_.get(), KVM_CREATE_VM, 0));
    ASSERT_GE(vm_.get(), 0) << "KVM_CREATE_VM: " << std::strerror(errno);
    NewVcpu();
    SetCpuid();
    if (features_.xsave.xcr0 == 0) GTEST_SKIP() << "this KVM gives its guests no XSAVE";
    model_ = std::make_unique<Vcpu>(features_, host_);
  }

  void NewVcpu() {
    vcpu_ = Fd(ioctl(vm_.get(), KVM_CREATE_VCPU, vcpus_++));
    ASSERT_GE(vcpu_.get(), 0) << "KVM_CREATE_VCPU: " << std::strerror(errno);
  }

  void SetCpuid() {
    CpuidTable table = HostCpuid();
    ASSERT_EQ(Call(kSetCpuid2, &table), 0) << "KVM_SET_CPUID2: " << std::strerror(errno);
    table.nent = std::size(table.entries);
    ASSERT_EQ(Call(kGetCpuid2, &table), 0) << "KVM_GET_CPUID2: " << std::strerror(errno);
    const cpu::Features& host = cpu::testing::Host().features;
    features_ = host;
    features_.xsave.xcr0 = 0;
    for (const kvm_cpuid_entry2& e : table.Entries()) {
      if (e.function == 0xd && e.index == 0) features_.xsave.xcr0 = e.eax | uint64_t{e.edx} << 32;
      if (e.function == 0xd && e.index == 1) features_.xsave.xss = e.ecx | uint64_t{e.edx} << 32;
    }
    // A CPUID may promise components that KVM does not give.
    CpuidTable offered;
    offered.nent = std::size(offered.entries);
    ASSERT_EQ(ioctl(kvm_.get(), kGetSupportedCpuid, &offered), 0);
    for (const kvm_cpuid_entry2& e : offered.Entries()) {
      if (e.function == 0xd && e.index == 1) features_.xsave.xss &= e.ecx | uint64_t{e.edx} << 32;
    }
    host_.xsave = host.xsave;
    host_.mxcsr_mask = host.mxcsr_mask;
    host_.compacted = host.xsave.xsaves;
    host_.user_features = cpu::testing::Host().full_xcr0 & ~Bit(Component::kTiledata);
    host_.supported = host_.user_features;
    kvm_device_attr attribute{.attr = KVM_X86_XCOMP_GUEST_SUPP,
                              .addr = reinterpret_cast<uint64_t>(&host_.supported)};
    ioctl(kvm_.get(), KVM_GET_DEVICE_ATTR, &attribute);
    features_.xsave.xcr0 &= host_.supported;
  }

  // 0 or a count, or -1 and errno.
  int Call(unsigned long request, void* argument) { return ioctl(vcpu_.get(), request, argument); }
  // 0 or the errno.
  int Errno(unsigned long request, void* argument) {
    return Call(request, argument) < 0 ? errno : 0;
  }

  int SetXcrs(uint32_t count, uint32_t xcr, uint64_t value, uint32_t flags) {
    kvm_xcrs xcrs{.nr_xcrs = count, .flags = flags};
    for (kvm_xcr& each : xcrs.xcrs) each = {.xcr = xcr, .reserved = 0, .value = value};
    return Errno(KVM_SET_XCRS, &xcrs);
  }
  uint64_t Xcr0() {
    kvm_xcrs xcrs{};
    EXPECT_EQ(Call(KVM_GET_XCRS, &xcrs), 0);
    EXPECT_EQ(xcrs.nr_xcrs, 1u);
    return xcrs.xcrs[0].value;
  }

  std::vector<uint8_t> Get() {
    std::vector<uint8_t> image(kGetXsaveSize);
    EXPECT_EQ(Call(kGetXsave, image.data()), 0);
    return image;
  }

  // Swaps the vCPU's state into the registers and out again.
  void SwapThroughRegisters() {
    const int size = ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    ASSERT_GT(size, 0);
    void* shared = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                        vcpu_.get(), 0);
    ASSERT_NE(shared, MAP_FAILED);
    static_cast<kvm_run*>(shared)->immediate_exit = 1;
    EXPECT_EQ(Errno(KVM_RUN, nullptr), model_->RunImmediate().error);
    munmap(shared, static_cast<size_t>(size));
  }

  // What the model says that this image must be; where several are possible, the nearest to it.
  void ExpectPossible(const std::vector<uint8_t>& seen) {
    std::vector<uint8_t> expected(seen.size());
    ExpectXsave(*model_, seen, expected);
    std::vector<uint8_t> compared = seen;
    // Known (corpus/known/kvm-get-xsave-stale-mxcsr): MXCSR of an image with AVX and without SSE.
    const uint64_t bv = xstate::ImageView(seen).xstate_bv();
    const uint64_t with_mxcsr = bv & (Component::kSse | Component::kAvx);
    // Known (corpus/known/kvm-get-xsave-mxcsr-left-out): without both, in a kernel that keeps the
    // standard format.
    const bool left_out = !host_.compacted && with_mxcsr == 0;
    if (with_mxcsr == Bit(Component::kAvx) || left_out) {
      std::copy_n(expected.begin() + 24, 4, compared.begin() + 24);
    }
    // Known (corpus/known/kvm-get-xsave-pkru-bit): PKRU left out though it is not 0.
    const uint64_t pkru = Bit(Component::kPkru);
    const uint64_t expected_bv = xstate::ImageView(expected).xstate_bv();
    if ((expected_bv & pkru) != 0 && (bv & pkru) == 0) {
      xstate::MutableImage(compared).set_xstate_bv(bv | pkru);
      const auto& sub = host_.xsave.sub[static_cast<unsigned>(Component::kPkru)];
      std::copy_n(expected.begin() + sub.offset, sub.size, compared.begin() + sub.offset);
    }
    const auto [e, s] = std::ranges::mismatch(expected, compared);
    if (e == expected.end()) return;
    const auto at = static_cast<uint32_t>(e - expected.begin());
    ADD_FAILURE() << NameOfByte(host_.xsave, at).text << " (byte " << at << "): the model has "
                  << unsigned{*e} << ", KVM " << unsigned{*s};
  }

  // An image that this KVM takes.
  std::vector<uint8_t> DrawImage(Random& random) const {
    std::vector<uint8_t> image(kGetXsaveSize);
    FillStandardImage(random, features_, host_.user_features & host_.supported, image);
    std::ranges::fill(xstate::Slice(std::span(image), 528, 48), uint8_t{0});
    // A CPU's defect would show in some runs: AVX initial under ZMM_Hi256 in use (corpus/known/
    // amd-avx-initial-under-zmm). So AVX is in use with it.
    const xstate::MutableImage view(image);
    const auto avx = view.component(host_.xsave, Component::kAvx);
    if (view.view().present(Component::kZmmHi256) && !avx.empty()) {
      view.set_xstate_bv(view.view().xstate_bv() | Component::kAvx);
      avx[0] = 1;
    }
    return image;
  }

  Fd kvm_, vm_, vcpu_;
  int vcpus_ = 0;
  cpu::Features features_;
  kvm::Host host_;
  std::unique_ptr<Vcpu> model_;
};

// __kvm_set_xcr, a second statement of XSETBV's rules.
TEST_F(KvmWitness, SetXcrsTakesExactlyTheValuesThatTheModelTakes) {
  constexpr unsigned kBits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 17, 18, 63};
  uint64_t before = Xcr0();
  unsigned taken = 0;
  for (unsigned n = 0; n < 1u << std::size(kBits); ++n) {
    uint64_t value = 0;
    for (unsigned i = 0; i < std::size(kBits); ++i) value |= uint64_t{(n >> i) & 1} << kBits[i];
    const bool ok = model_->SetXcrs(1, 0, value, 0).ok();
    ASSERT_EQ(SetXcrs(1, 0, value, 0), ok ? 0 : EINVAL) << std::hex << value;
    if (ok) before = value;
    taken += ok;
    ASSERT_EQ(Xcr0(), before);
    ASSERT_EQ(model_->cpu.xcr0, before);
  }
  EXPECT_GE(taken, 2u);
  // What the guest has can be enabled whole, and no other bit with it.
  EXPECT_EQ(SetXcrs(1, 0, features_.xsave.xcr0, 0), 0);
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t more = features_.xsave.xcr0 | uint64_t{1} << bit;
    EXPECT_EQ(SetXcrs(1, 0, more, 0), more == features_.xsave.xcr0 ? 0 : EINVAL) << bit;
  }
}

TEST_F(KvmWitness, SetXcrsChecksCountAndFlagsAndPassesOverOtherXcrs) {
  for (const uint32_t count : {0u, 1u, 16u, 17u, 1000u}) {
    for (const uint32_t xcr : {0u, 1u, 5u}) {
      for (const uint32_t flags : {0u, 1u}) {
        for (const uint64_t value : {0ull, 1ull, 3ull}) {
          ASSERT_EQ(SetXcrs(1, 0, 1, 0), 0);
          model_->cpu.xcr0 = 1;
          EXPECT_EQ(SetXcrs(count, xcr, value, flags),
                    model_->SetXcrs(count, xcr, value, flags).error)
              << count << " entries of XCR" << xcr << ", flags " << flags << ", value " << value;
          EXPECT_EQ(Xcr0(), model_->cpu.xcr0);
        }
      }
    }
  }
}

// Lists whose entries differ: the first entry for XCR0 counts, whatever is before or behind it.
TEST_F(KvmWitness, SetXcrsTakesTheFirstEntryForXcr0LikeTheModel) {
  const uint64_t whole = features_.xsave.xcr0;
  const Xcr kinds[] = {{0, 1}, {0, 3}, {0, whole}, {0, 2}, {0, 0}, {1, 1}, {5, 2}};
  unsigned taken = 0, refused = 0;
  for (size_t n = 0; n < 7 * 7 * 7; ++n) {
    const Xcr list[] = {kinds[n % 7], kinds[n / 7 % 7], kinds[n / 49]};
    for (const uint32_t count : {2u, 3u}) {
      ASSERT_EQ(SetXcrs(1, 0, 1, 0), 0);
      model_->cpu.xcr0 = 1;
      kvm_xcrs xcrs{.nr_xcrs = count};
      for (size_t i = 0; i < 3; ++i) xcrs.xcrs[i] = {.xcr = list[i].xcr, .value = list[i].value};
      const int error = Errno(KVM_SET_XCRS, &xcrs);
      ASSERT_EQ(error, model_->SetXcrs(count, list, 0).error) << "list " << n;
      ASSERT_EQ(Xcr0(), model_->cpu.xcr0) << "list " << n << " of " << count;
      ++(error == 0 ? taken : refused);
    }
  }
  EXPECT_GT(taken, 100u);
  EXPECT_GT(refused, 100u);
}

// validate_user_xstate_header and the MXCSR check, for each bit alone in images that have nothing,
// each component, or everything.
TEST_F(KvmWitness, SetXsaveRefusesTheBitsThatTheModelRefuses) {
  std::vector<uint64_t> starts = {0, features_.xsave.xcr0};
  for (unsigned i = 0; i < 10; ++i) starts.push_back(uint64_t{1} << i & host_.user_features);
  unsigned refused = 0, taken = 0;
  const auto check = [&](const std::vector<uint8_t>& image) {
    const int due = model_->SetXsave(image).error;
    std::vector<uint8_t> given = image;
    ASSERT_EQ(Errno(kSetXsave, given.data()), due);
    ++(due != 0 ? refused : taken);
  };
  for (const uint64_t start : starts) {
    std::vector<uint8_t> image(kGetXsaveSize);
    MutableImage(image).SetInitial();
    MutableImage(image).set_xstate_bv(start);
    for (unsigned bit = 0; bit < 8 * xstate::kHeaderSize; ++bit) {
      SCOPED_TRACE("XSTATE_BV " + std::to_string(start) + ", header bit " + std::to_string(bit));
      std::vector<uint8_t> changed = image;
      changed[xstate::kHeaderOffset + bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
      check(changed);
      if (HasFailure()) return;
    }
    for (unsigned bit = 0; bit < 32; ++bit) {
      SCOPED_TRACE("XSTATE_BV " + std::to_string(start) + ", MXCSR bit " + std::to_string(bit));
      std::vector<uint8_t> changed = image;
      changed[24 + bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
      check(changed);
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(refused, 100u);
  EXPECT_GT(taken, 100u);
}

// A refused image leaves the vCPU as it was.
TEST_F(KvmWitness, ARefusedImageChangesNothing) {
  Random random(3);
  std::vector<uint8_t> image = DrawImage(random);
  ASSERT_EQ(Errno(kSetXsave, image.data()), 0);
  ASSERT_TRUE(model_->SetXsave(image).ok());
  const std::vector<uint8_t> before = Get();
  image = DrawImage(random);
  MutableImage(image).set_xcomp_bv(1);
  EXPECT_EQ(Errno(kSetXsave, image.data()), EINVAL);
  EXPECT_FALSE(model_->SetXsave(image).ok());
  EXPECT_EQ(Get(), before);
  ExpectPossible(before);
}

// KVM takes and gives guest_fpu.uabi_size bytes, to the last: a buffer that ends before is EFAULT,
// and nothing has changed. KVM_SET_XSAVE has the whole image before it looks at any of it
// (memdup_user), so what the image or the vCPU holds can't matter: no step of a program does this.
TEST_F(KvmWitness, ABufferThatEndsTooSoonIsRefusedAndChangesNothing) {
  Random random(4);
  std::vector<uint8_t> image = DrawImage(random);
  ASSERT_EQ(Errno(kSetXsave, image.data()), 0);
  ASSERT_TRUE(model_->SetXsave(image).ok());
  const std::vector<uint8_t> before = Get();
  const size_t size = model_->ImageSize();
  GuardedBuffer buffer(size);
  ASSERT_TRUE(buffer.ok());
  const std::vector<uint8_t> other = DrawImage(random);
  const auto at_end = [&](size_t bytes) { return buffer.Last(bytes, other); };
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{512}, size_t{576}, size_t{832}, size - 64, size - 1}) {
    SCOPED_TRACE(std::to_string(bytes) + " bytes");
    for (const unsigned long call : {kSetXsave, kGetXsave, kGetXsave2}) {
      EXPECT_EQ(Errno(call, at_end(bytes)), EFAULT);
      EXPECT_EQ(Get(), before);
    }
  }
  for (const unsigned long call : {kSetXsave, kGetXsave, kGetXsave2}) {
    EXPECT_EQ(Errno(call, nullptr), EFAULT);
  }
  SwapThroughRegisters();
  ExpectPossible(Get());
  uint8_t* const whole = at_end(size);
  EXPECT_EQ(Errno(kGetXsave, whole), 0);
  EXPECT_EQ(std::vector(whole, whole + size), Get());
  EXPECT_EQ(Errno(kSetXsave, at_end(size)), 0);
  EXPECT_TRUE(model_->SetXsave(other).ok());
  ExpectPossible(Get());
}

// Random images, as they are given and after a swap through the registers (which may leave them as
// they were given: XSAVES leaves out what is unmodified); what an image lacks must
// become initial, PKRU must stay, MXCSR follows the kernel's format.
TEST_F(KvmWitness, GetXsaveShowsWhatTheModelShows) {
  for (uint64_t seed = 1; seed <= 400 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    std::vector<uint8_t> image = DrawImage(random);
    ASSERT_EQ(Errno(kSetXsave, image.data()), model_->SetXsave(image).error);
    ExpectPossible(Get());
    SwapThroughRegisters();
    ExpectPossible(Get());
  }
}

// struct kvm_fpu against the image, for images that have x87 and SSE (corpus/known/
// kvm-get-fpu-ignores-xstate-bv), without MXCSR (corpus/known/kvm-get-fpu-no-mxcsr).
TEST_F(KvmWitness, GetFpuShowsTheRegistersOfTheImage) {
  for (uint64_t seed = 1; seed <= 100 && !HasFailure(); ++seed) {
    Random random(seed);
    std::vector<uint8_t> image = DrawImage(random);
    MutableImage(image).set_xstate_bv(xstate::kX87Sse);
    ASSERT_EQ(Errno(kSetXsave, image.data()), model_->SetXsave(image).error);
    std::vector<uint8_t> seen(kFpuSize), expected(kFpuSize);
    ASSERT_EQ(Errno(KVM_GET_FPU, seen.data()), 0);
    ExpectFpu(*model_, seen, expected);
    constexpr size_t kMxcsrAt = 408;
    expected.resize(kMxcsrAt);
    seen.resize(kMxcsrAt);
    EXPECT_EQ(expected, seen) << "seed " << seed;
  }
}

// "KVM_SET_XSAVE must succeed regardless of guest CPUID": before KVM_SET_CPUID2 and with an empty
// one, for the image of another vCPU and with every bit that KVM supports.
TEST_F(KvmWitness, SetXsaveNeedsNoCpuid) {
  std::vector<uint8_t> image = Get();
  const uint64_t own = xstate::ImageView(image).xstate_bv();
  for (const bool empty_cpuid : {false, true}) {
    NewVcpu();
    CpuidTable none;
    const int set = empty_cpuid ? Errno(kSetCpuid2, &none) : 0;
    ASSERT_EQ(set, 0);
    for (const uint64_t bv : {own, host_.supported & host_.user_features}) {
      MutableImage(image).set_xstate_bv(bv);
      EXPECT_EQ(Errno(kSetXsave, image.data()), 0) << std::hex << bv;
      EXPECT_TRUE(model_->SetXsave(image).ok());
    }
  }
}

// The guest's CPUID.1:ECX[27] is its CR4.OSXSAVE, CPUID.(07H,0):ECX[4] its CR4.PKE.
TEST_F(KvmWitness, CpuidShowsOsxsaveAndOspkeAsCr4HasThem) {
  const struct {
    uint32_t leaf, bit;
    uint64_t cr4;
    bool has;
  } rows[] = {{1, 27, uint64_t{1} << 18, true}, {7, 4, uint64_t{1} << 22, features_.pku}};
  for (const auto& row : rows) {
    for (const bool set : {true, false, true}) {
      if (!row.has) continue;
      kvm_sregs sregs{};
      ASSERT_EQ(Errno(KVM_GET_SREGS, &sregs), 0);
      sregs.cr4 = set ? sregs.cr4 | row.cr4 : sregs.cr4 & ~row.cr4;
      ASSERT_EQ(Errno(KVM_SET_SREGS, &sregs), 0);
      CpuidTable table;
      table.nent = std::size(table.entries);
      ASSERT_EQ(Errno(kGetCpuid2, &table), 0);
      for (const kvm_cpuid_entry2& e : table.Entries()) {
        if (e.function != row.leaf) continue;
        EXPECT_EQ((e.ecx >> row.bit) & 1, unsigned{set}) << "leaf " << row.leaf;
      }
    }
  }
}

// fpstate_init_user, kvm_vcpu_reset: before it has run or been set, a vCPU has the initial state.
TEST_F(KvmWitness, AFreshVcpuHasTheInitialStateAndXcr0One) {
  NewVcpu();
  SetCpuid();
  EXPECT_EQ(Xcr0(), 1u);
  ExpectPossible(Get());
  EXPECT_EQ(xstate::ImageView(Get()).fcw(), 0x37f);
}

// What KVM offers to guests by name comes with the components that hold its registers.
TEST_F(KvmWitness, FeaturesThatAreOfferedComeWithTheirComponents) {
  CpuidTable table;
  table.nent = std::size(table.entries);
  ASSERT_EQ(ioctl(kvm_.get(), kGetSupportedCpuid, &table), 0);
  kvm_cpuid_entry2 one{}, seven{}, xsave{};
  for (const kvm_cpuid_entry2& e : table.Entries()) {
    if (e.function == 1) one = e;
    if (e.function == 7 && e.index == 0) seven = e;
    if (e.function == 0xd && e.index == 0) xsave = e;
  }
  if (((one.ecx >> 26) & 1) == 0) GTEST_SKIP() << "this KVM offers no XSAVE by itself";
  const uint64_t offered = xsave.eax | uint64_t{xsave.edx} << 32;
  const struct {
    const char* name;
    uint32_t word;
    unsigned bit;
    uint64_t components;
  } rows[] = {{"XSAVE", one.ecx, 26, xstate::kX87Sse},
              {"AVX", one.ecx, 28, Bit(Component::kAvx)},
              {"MPX", seven.ebx, 14, xstate::kMpx},
              {"AVX512F", seven.ebx, 16, xstate::kAvx512},
              {"PKU", seven.ecx, 3, Bit(Component::kPkru)}};
  for (const auto& row : rows) {
    if (((row.word >> row.bit) & 1) == 0) continue;
    EXPECT_EQ(offered & row.components, row.components) << row.name;
  }
}

// KVM adds up leaf 0DH's sizes for the guest's XCR0 by itself (xstate_required_size).
TEST_F(KvmWitness, CpuidGivesTheSizesOfTheLayoutForEveryXcr0) {
  for (uint64_t xcr0 = 1; xcr0 < 0x400; ++xcr0) {
    if (SetXcrs(1, 0, xcr0, 0) != 0) continue;
    CpuidTable table;
    table.nent = std::size(table.entries);
    ASSERT_EQ(Errno(kGetCpuid2, &table), 0);
    for (const kvm_cpuid_entry2& e : table.Entries()) {
      // Of the compacted format it speaks only where that can be written.
      const bool compacted = host_.xsave.xsavec || host_.xsave.xsaves;
      if (e.function != 0xd || e.index > (compacted ? 1u : 0u)) continue;
      EXPECT_EQ(e.ebx,
                e.index == 0 ? StandardSize(host_.xsave, xcr0) : CompactedSize(host_.xsave, xcr0))
          << std::hex << "CPUID.(0DH," << e.index << "):EBX with XCR0 " << xcr0;
    }
  }
}

// __msr_io, for MSRs that every guest has: it ends at the first entry that is refused and gives the
// number of those before, which are done. The others are not, nor is anything read for them.
TEST_F(KvmWitness, AListOfMsrsEndsAtTheRefusedEntry) {
  constexpr uint32_t kLstar = 0xc0000082, kCstar = 0xc0000083, kFmask = 0xc0000084;
  constexpr uint64_t kRefused = uint64_t{1} << 62;  // not canonical: is_noncanonical_address
  struct Table {
    uint32_t nmsrs, padding;
    kvm_msr_entry entry[3];
  };
  const auto table = [](uint64_t lstar, uint64_t cstar, uint64_t fmask) {
    return Table{3, 0, {{kLstar, 0, lstar}, {kCstar, 0, cstar}, {kFmask, 0, fmask}}};
  };
  const auto values = [&] {
    Table now = table(7, 7, 7);
    EXPECT_EQ(Call(kGetMsrs, &now), 3);
    return std::vector<uint64_t>{now.entry[0].data, now.entry[1].data, now.entry[2].data};
  };
  const auto set = [&](Table given) { return Call(kSetMsrs, &given); };
  ASSERT_EQ(set(table(0x1000, 0x2000, 0x100)), 3);
  EXPECT_EQ(values(), (std::vector<uint64_t>{0x1000, 0x2000, 0x100}));
  EXPECT_EQ(set(table(kRefused, 0x2008, 0x200)), 0);
  EXPECT_EQ(values(), (std::vector<uint64_t>{0x1000, 0x2000, 0x100}));
  EXPECT_EQ(set(table(0x1008, kRefused, 0x200)), 1);
  EXPECT_EQ(values(), (std::vector<uint64_t>{0x1008, 0x2000, 0x100}));
  EXPECT_EQ(set(table(kRefused, kRefused, 0x200)), 0);
  EXPECT_EQ(values(), (std::vector<uint64_t>{0x1008, 0x2000, 0x100}));
}

// do_set_msr with host_initiated set: a value outside the guest's components is not taken, and the
// count says so.
TEST_F(KvmWitness, SetMsrsTakesTheBitsThatTheModelTakes) {
  struct {
    uint32_t nmsrs, padding;
    kvm_msr_entry entry;
  } msrs{1, 0, {}};
  msrs.entry.index = cpu::Cpu::kMsrXss;
  if (Call(kSetMsrs, &msrs) != 1) GTEST_SKIP() << "this KVM gives its guests no IA32_XSS";
  for (unsigned bit = 0; bit < 64; ++bit) {
    msrs.entry.data = uint64_t{1} << bit;
    EXPECT_EQ(Call(kSetMsrs, &msrs), model_->SetMsr(msrs.entry.index, msrs.entry.data).result)
        << "IA32_XSS bit " << bit;
  }
}

}  // namespace
}  // namespace fpswap::kvm
