// SPDX-License-Identifier: GPL-2.0-or-later
//
// The system's steps (regsets, signal frames) on one world. The rules are oracle/os's; here they
// meet the records (plan/vmm.h).
#include "harness/judge/call.h"
#include "oracle/os/thread.h"
#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using xstate::Bit;
using xstate::Component;

constexpr char kGetRegsetRule[] = "Linux: xstateregs_get, __copy_xstate_to_uabi_buf; law 2";
constexpr char kSetRegsetRule[] = "Linux: xstateregs_set, copy_uabi_to_xstate";
constexpr char kSigframeRule[] = "Linux: copy_fpstate_to_sigframe, save_xstate_epilog; law 2";
constexpr char kSigreturnRule[] = "Linux: fpu__restore_sig, check_xstate_in_sigframe";

using Expect = void (*)(kvm::Vcpu&, std::span<const uint8_t>, std::span<uint8_t>);

bool GetImage(Call& v, Expect expect, const char* rule) {
  std::array<uint8_t, kvm::kMaxImage> possible;
  const auto out = std::span(possible).first(os::ImageSize(*v.c.vcpu.host));
  expect(v.c.vcpu, v.c.seen != nullptr ? v.Data() : std::span<const uint8_t>{}, out);
  return TakeImage(v, out, rule);
}

std::span<uint8_t> EditImage(Call& v) {
  const uint32_t size = os::ImageSize(*v.c.vcpu.host);
  return v.c.world.image[ImageOf(v)].Write(0, size).first(size);
}

bool HasPkru(const Call& v) { return (v.c.vcpu.host->user_features & Bit(Component::kPkru)) != 0; }

}  // namespace

bool OsGetRegset(Call& v) {
  return Returned(v, {}, "PTRACE_GETREGSET errno", kGetRegsetRule) &&
         GetImage(v, os::ExpectRegset, kGetRegsetRule);
}

bool OsSetRegset(Call& v) {
  const auto image = EditImage(v);
  if (HasPkru(v)) {  // plan/vmm.h
    const auto& sub = v.c.vcpu.host->xsave.sub[static_cast<size_t>(Component::kPkru)];
    const auto pkru = xstate::ReadAt<uint32_t>(image, sub.offset);
    xstate::WriteAt(image, sub.offset, pkru & ~uint32_t{3});
  }
  return Returned(v, os::SetRegset(v.c.vcpu, image), "PTRACE_SETREGSET errno", kSetRegsetRule);
}

bool OsSigframe(Call& v) {
  return Returned(v, {}, "errno of a signal", kSigframeRule) &&
         GetImage(v, os::ExpectSigframe, kSigframeRule);
}

bool OsSigreturn(Call& v) {
  const auto image = EditImage(v);
  if (HasPkru(v)) {  // plan/vmm.h
    const auto asked = xstate::ReadAt<uint64_t>(image, os::kSwXfeatures);
    xstate::WriteAt(image, os::kSwXfeatures, asked & ~Bit(Component::kPkru));
  }
  return Returned(v, os::Sigreturn(v.c.vcpu, image), "rt_sigreturn errno (SIGSEGV is EFAULT)",
                  kSigreturnRule);
}

}  // namespace fpswap::judge
