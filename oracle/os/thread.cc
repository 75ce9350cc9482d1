// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle/os/thread.h"

#include <algorithm>
#include <cstring>

#include "oracle/kvm/uabi.h"
#include "oracle/xstate/image.h"

namespace fpswap::os {
namespace {

using xstate::Bit;
using xstate::Component;
using xstate::ReadAt;
using xstate::WriteAt;

constexpr uint32_t kMxcsrInitial = 0x1f80;
constexpr uint32_t kPointersAt = 6;
// init_pkru_value: every key but 0 denies access. Debugfs can change it.
constexpr uint32_t kPkruDefault = 0x55555554;

// Answers the choices of the frame's XSAVE from the image as it was seen; with none, the simplest.
class SeenFrame final : public cpu::Choices {
 public:
  explicit SeenFrame(std::span<const uint8_t> seen) : seen_(seen) {}
  // XSTATE_BV[1:0] were set afterwards, whatever XINUSE was; x87 that may be initial is then stored
  // as it was seen.
  bool InitialIsInUse(Component c) override {
    return (xstate::ImageView(seen_).xstate_bv() & Bit(c)) != 0;
  }
  bool OmitUnmodified(Component) override { return false; }  // XSAVE has no such optimisation
  void ResolvePointers(cpu::X87& x87) override {
    if (seen_.empty()) return;
    x87.fop = ReadAt<uint16_t>(seen_, kPointersAt);
    x87.fip = ReadAt<uint64_t>(seen_, kPointersAt + 2);
    x87.fdp = ReadAt<uint64_t>(seen_, kPointersAt + 10);
  }

 private:
  std::span<const uint8_t> seen_;
};

// What os_xrstor(&init_fpstate, components) does. A compacted init_fpstate initialises MXCSR with
// SSE alone (SDM vol. 1, 13.8.2), a standard one with AVX as well (13.8.1).
void InitialiseFromKernel(kvm::Vcpu& thread, uint64_t components) {
  for (unsigned i = 0; i < xstate::kComponentCount; ++i) {
    const auto c = static_cast<Component>(i);
    if ((components & Bit(c)) != 0) thread.cpu.Initialise(c);
  }
  const uint64_t with_mxcsr =
      Bit(Component::kSse) | (thread.host->compacted ? 0 : Bit(Component::kAvx));
  if ((components & with_mxcsr) != 0) thread.cpu.SetMxcsr(kMxcsrInitial);
}

// check_xstate_in_sigframe.
bool HasXstate(std::span<const uint8_t> image) {
  const auto size = ReadAt<uint32_t>(image, kSwXstateSize);
  if (ReadAt<uint32_t>(image, kSwMagic1) != kMagic1) return false;
  if (size < xstate::kExtendedOffset || size > image.size()) return false;
  if (size > ReadAt<uint32_t>(image, kSwExtendedSize)) return false;
  // Across the image's end: what is behind it is kMagic2.
  std::array<uint8_t, 4> at{}, behind{};
  WriteAt(std::span(behind), 0, kMagic2);
  for (uint32_t i = 0; i < 4; ++i) {
    at[i] = size + i < image.size() ? image[size + i] : behind[size + i - image.size()];
  }
  return ReadAt<uint32_t>(at, 0) == kMagic2;
}

// The registers were loaded from the frame: nothing is unmodified since an XRSTOR of the program's
// own, or since the kernel's from the fpstate that a SETREGSET has filled.
void ForgetHistory(kvm::Vcpu& thread) {
  thread.cpu.xrstor_info.valid = false;
  thread.raw.components = 0;
}

}  // namespace

uint32_t ImageSize(const kvm::Host& host) {
  return xstate::StandardSize(host.xsave, host.user_features);
}

void ExpectRegset(kvm::Vcpu& thread, std::span<const uint8_t> seen, std::span<uint8_t> out) {
  kvm::ExpectXsave(thread, seen, out);
  std::memset(out.data() + kSwAt, 0, kSwSize);
  WriteAt(out, kSwAt, thread.host->user_features);
}

kvm::Status SetRegset(kvm::Vcpu& thread, std::span<const uint8_t> image) {
  const kvm::Status status = thread.SetXsave(image);
  if (!status.ok()) return status;
  const auto bv = ReadAt<uint64_t>(image, xstate::kHeaderOffset);
  if ((bv & Bit(Component::kPkru)) == 0) thread.cpu.Initialise(Component::kPkru);
  thread.cpu.xrstor_info.valid = false;
  return status;
}

void ExpectSigframe(kvm::Vcpu& thread, std::span<const uint8_t> seen, std::span<uint8_t> out) {
  if (seen.size() != out.size()) seen = {};
  if (seen.empty()) {
    std::memset(out.data(), 0, out.size());
  } else {
    std::copy(seen.begin(), seen.end(), out.begin());
  }
  std::memset(out.data() + xstate::kHeaderOffset, 0, xstate::kHeaderSize);
  const uint64_t features = thread.host->user_features;
  SeenFrame choices(seen);
  // Tiles that are not in use are not written at all (XFEATURE_MASK_SIGFRAME_INITOPT), where XSAVE
  // would write their initial values: the bytes are the stack's.
  uint64_t written = features;
  for (const Component c : {Component::kTilecfg, Component::kTiledata}) {
    const bool in_use = !seen.empty() && choices.InitialIsInUse(c);
    if (thread.cpu.IsInitial(c) && !in_use) written &= ~Bit(c);
  }
  // At an address that is aligned; it never faults.
  thread.cpu.Xsave(cpu::SaveForm::kXsave, out, 0, written, /*wide=*/true, choices);
  const xstate::MutableImage image(out);
  image.set_xstate_bv(image.view().xstate_bv() | xstate::kX87Sse);
  std::memset(out.data() + kSwAt, 0, kSwSize);
  WriteAt(out, kSwMagic1, kMagic1);
  WriteAt(out, kSwExtendedSize, static_cast<uint32_t>(out.size() + sizeof(kMagic2)));
  WriteAt(out, kSwXfeatures, features);  // what is asked for, written or not
  WriteAt(out, kSwXstateSize, static_cast<uint32_t>(out.size()));
}

kvm::Status Sigreturn(kvm::Vcpu& thread, std::span<const uint8_t> image) {
  const uint64_t user = thread.host->user_features;
  const bool has_xstate = HasXstate(image);
  const uint64_t restored =
      (has_xstate ? ReadAt<uint64_t>(image, kSwXfeatures) : xstate::kX87Sse) & user;
  ForgetHistory(thread);
  cpu::Cpu restoring = thread.cpu;
  const cpu::Result fault = has_xstate ? restoring.Xrstor(image, 0, restored, /*wide=*/true)
                                       : restoring.Fxrstor(image, 0, /*wide=*/true);
  if (fault) {
    InitialiseFromKernel(thread, user);
    if ((user & Bit(Component::kPkru)) != 0) thread.cpu.regs.pkru = kPkruDefault;
    return kvm::Status::Error(EFAULT);
  }
  thread.cpu = restoring;
  InitialiseFromKernel(thread, user & ~restored);
  ForgetHistory(thread);
  return {};
}

}  // namespace fpswap::os
