// SPDX-License-Identifier: GPL-2.0-or-later
//
// Tiles in a guest, by ioctls alone: permission, the growth of a vCPU's image to what
// KVM_CAP_XSAVE2 says, and buffers that are too short for it. On a CPU with AMX and in lab:amx;
// permission is the process's, and closed by its first vCPU, so each test runs itself anew.
#include <cpuid.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "oracle/kvm/uabi.h"
#include "oracle/xstate/image.h"
#include "tests/oracle/anew.h"
#include "tests/oracle/kvm_calls.h"
#include "tests/oracle/random_image.h"

namespace fpswap::kvm {
namespace {

using cpu::testing::Random;
using cpu::testing::WithoutTilePermission;
using xstate::Bit;

constexpr uint64_t kTiledata = Bit(Component::kTiledata), kTiledataNumber = 18;

// 0 or the errno.
int Errno(const Fd& fd, unsigned long request, void* argument) {
  return ioctl(fd.get(), request, argument) < 0 ? errno : 0;
}

// ARCH_REQ_XCOMP_GUEST_PERM of asm/prctl.h: 0 or the errno.
int RequestForGuests(uint64_t component) {
  constexpr long kReqGuestPerm = 0x1025;
  return syscall(SYS_arch_prctl, kReqGuestPerm, component) == 0 ? 0 : errno;
}

// A VM whose KVM can give its guests tiles; false, with the test skipped, where there is none.
struct Vm {
  Fd kvm, vm;
  uint64_t offered = 0;

  bool Open() {
    kvm = Fd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    kvm_device_attr attribute{.attr = KVM_X86_XCOMP_GUEST_SUPP,
                              .addr = reinterpret_cast<uint64_t>(&offered)};
    if (kvm.get() < 0 || Errno(kvm, KVM_GET_DEVICE_ATTR, &attribute) != 0) return false;
    vm = Fd(ioctl(kvm.get(), KVM_CREATE_VM, 0));
    return vm.get() >= 0 && (offered & kTiledata) != 0;
  }
  // Of a new VM: it is fixed by the permission that there was.
  int ImageSize() const {
    const Fd fresh(ioctl(kvm.get(), KVM_CREATE_VM, 0));
    return ioctl(fresh.get(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  }
  Fd NewVcpu() const { return Fd(ioctl(vm.get(), KVM_CREATE_VCPU, 0)); }
  CpuidTable SupportedCpuid() const {
    CpuidTable table;
    table.nent = std::size(table.entries);
    EXPECT_EQ(Errno(kvm, kGetSupportedCpuid, &table), 0);
    return table;
  }
};

#define OPEN_OR_SKIP(vm) \
  if (!(vm).Open()) GTEST_SKIP() << "no KVM here that gives its guests tiles"

const kvm_cpuid_entry2* Find(const CpuidTable& table, uint32_t leaf, uint32_t subleaf) {
  for (const kvm_cpuid_entry2& e : table.Entries()) {
    if (e.function == leaf && e.index == subleaf) return &e;
  }
  return nullptr;
}

// xstate_request_perm; kvm_check_cpuid: EPERM where the fpstate may not grow.
TEST(KvmTilesWitness, WithoutPermissionImagesStaySmallAndCpuidWithTilesIsRefused) {
  WithoutTilePermission([] {
    Vm vm;
    OPEN_OR_SKIP(vm);
    EXPECT_EQ(vm.ImageSize(), 4096);
    EXPECT_EQ(RequestForGuests(63), EINVAL) << "no component of the kernel's";
    EXPECT_EQ(RequestForGuests(2), EOPNOTSUPP) << "AVX wants no permission";
    CpuidTable table = vm.SupportedCpuid();
    const Fd vcpu = vm.NewVcpu();
    ASSERT_GE(vcpu.get(), 0);
    EXPECT_EQ(RequestForGuests(kTiledataNumber), EBUSY) << "a vCPU has been created";
    for (kvm_cpuid_entry2& e : std::span(table.entries).first(table.nent)) {
      if (e.function == 0xd && e.index == 0) e.eax |= static_cast<uint32_t>(xstate::kAmx);
    }
    EXPECT_EQ(Errno(vcpu, kSetCpuid2, &table), EPERM);
    std::vector<uint8_t> image(4096);
    EXPECT_EQ(Errno(vcpu, kGetXsave, image.data()), 0);
  });
}

// CPUID leaves 1DH and 1EH as the guest is offered them: what the model's AMX is made for.
TEST(KvmTilesWitness, GuestsAreOfferedThePaletteThatTheModelHas) {
  WithoutTilePermission([] {
    Vm vm;
    OPEN_OR_SKIP(vm);
    ASSERT_EQ(RequestForGuests(kTiledataNumber), 0);
    const CpuidTable table = vm.SupportedCpuid();
    const auto* const palettes = Find(table, 0x1d, 0);
    const auto* const palette = Find(table, 0x1d, 1);
    const auto* const multiply = Find(table, 0x1e, 0);
    ASSERT_TRUE(palettes != nullptr && palette != nullptr && multiply != nullptr);
    using cpu::Cpu;
    constexpr uint32_t kTileBytes = Cpu::kTileRows * Cpu::kTileRowBytes;
    EXPECT_EQ(palettes->eax, 1u);
    EXPECT_EQ(palette->eax, Cpu::kTiles * kTileBytes | kTileBytes << 16);
    EXPECT_EQ(palette->ebx, Cpu::kTileRowBytes | Cpu::kTiles << 16);
    EXPECT_EQ(palette->ecx & 0xffff, Cpu::kTileRows);
    EXPECT_EQ(multiply->ebx & 0xffffff, Cpu::kTileRows | Cpu::kTileRowBytes << 8);
    const auto* const tiledata = Find(table, 0xd, 18);
    ASSERT_NE(tiledata, nullptr);
    EXPECT_EQ(tiledata->eax, 8192u);
    EXPECT_EQ(tiledata->ebx, 2816u);
  });
}

// guest_fpu.uabi_size: it grows with the guest's CPUID, and KVM takes and gives it to the last
// byte.
TEST(KvmTilesWitness, ImagesGrowWithTheGuestsCpuidAndNoBufferMayBeShorter) {
  WithoutTilePermission([] {
    Vm vm;
    OPEN_OR_SKIP(vm);
    ASSERT_EQ(RequestForGuests(kTiledataNumber), 0);
    EXPECT_EQ(RequestForGuests(kTiledataNumber), 0) << "a second time";
    const Fd vcpu = vm.NewVcpu();
    ASSERT_GE(vcpu.get(), 0);
    EXPECT_EQ(RequestForGuests(kTiledataNumber), 0) << "granted already, vCPU or not";

    const auto& cpu = cpu::testing::Host();
    Host host{.xsave = cpu.features.xsave,
              .supported = vm.offered,
              .user_features = cpu.full_xcr0 & ~kTiledata,
              .dynamic = kTiledata,
              .mxcsr_mask = cpu.features.mxcsr_mask,
              .image_size = static_cast<uint32_t>(vm.ImageSize()),
              .compacted = cpu.features.xsave.xsaves};
    EXPECT_EQ(host.image_size, xstate::StandardSize(host.xsave, vm.offered));
    const size_t size = host.image_size;
    cpu::Features features = cpu.features;
    features.xsave.xcr0 = vm.offered & ~xstate::kAmx;
    const auto model = std::make_unique<Vcpu>(features, host);
    EXPECT_EQ(model->ImageSize(), 4096u);
    std::vector<uint8_t> image(size);
    EXPECT_EQ(Errno(vcpu, kGetXsave, image.data()), 0) << "no CPUID: the small image";

    CpuidTable table = vm.SupportedCpuid();
    ASSERT_EQ(Errno(vcpu, kSetCpuid2, &table), 0);
    features.xsave.xcr0 = vm.offered;
    model->GrowFor(features);
    EXPECT_EQ(model->ImageSize(), size);
    EXPECT_EQ(Errno(vcpu, kGetXsave, image.data()), model->GetXsaveStatus().error);

    // An image of all components, so that the last byte is a tile's.
    Random random(7);
    FillStandardImage(random, features, vm.offered, image);
    std::fill_n(image.begin() + xstate::kHeaderOffset, xstate::kHeaderSize, uint8_t{0});
    const xstate::MutableImage edit(image);
    edit.set_xstate_bv(vm.offered);
    edit.set_mxcsr(0x1f80);
    random.Fill(edit.component(host.xsave, Component::kTiledata));
    image[size - 1] = 0x5a;
    ASSERT_EQ(Errno(vcpu, kSetXsave, image.data()), 0);
    EXPECT_TRUE(model->SetXsave(image).ok());
    const auto get = [&] {
      std::vector<uint8_t> seen(size);
      EXPECT_EQ(Errno(vcpu, kGetXsave2, seen.data()), 0);
      return seen;
    };
    const std::vector<uint8_t> before = get();
    std::vector<uint8_t> expected(size);
    ExpectXsave(*model, before, expected);
    EXPECT_TRUE(expected == before);
    EXPECT_EQ(before[size - 1], 0x5a);

    GuardedBuffer buffer(size);
    ASSERT_TRUE(buffer.ok());
    const std::vector<uint8_t> zeros(size);
    for (const size_t bytes :
         {size_t{0}, size_t{576}, size_t{4096}, size_t{2816}, size - 64, size - 1}) {
      for (const unsigned long call : {kSetXsave, kGetXsave2}) {
        EXPECT_EQ(Errno(vcpu, call, buffer.Last(bytes, zeros)), EFAULT) << bytes << " bytes";
        EXPECT_TRUE(get() == before) << "changed by a call with " << bytes << " bytes";
      }
    }
    uint8_t* const whole = buffer.Last(size, zeros);
    EXPECT_EQ(Errno(vcpu, kGetXsave2, whole), 0);
    EXPECT_TRUE(std::ranges::equal(before, std::span(whole, size)));
    EXPECT_EQ(Errno(vcpu, kSetXsave, whole), 0);
  });
}

}  // namespace
}  // namespace fpswap::kvm
