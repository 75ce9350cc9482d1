// SPDX-License-Identifier: GPL-2.0-or-later
//
// VMM and host steps on one world, as a table from operation to function. The rules are
// oracle/kvm's; here they meet the records (plan/vmm.h).
#include <bit>
#include <cerrno>
#include <cstring>

#include "harness/judge/call.h"
#include "harness/judge/explain.h"
#include "harness/plan/vmm.h"
#include "oracle/kvm/uabi.h"
#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using kvm::Status;
using program::Op;
using xstate::Component;

// What a VMM step is done with.
struct Vmm : Call {
  std::array<cpu::Features, program::kMaxVcpus>& changed;
  unsigned failures;
};

// The same for calls that return a count of MSRs, where 0 is the refusal.
bool ReturnedCount(Vmm& v, const Status& status, const char* what, const char* rule) {
  if (!Returned(v, status, what, rule)) {
    if (v.c.seen->has_ioctl && v.m.values && v.Returned().error == 0) {
      const bool accepted = status.result < v.Returned().result;
      v.m.relation = accepted ? Relation::kAccepted : Relation::kRefused;
      v.m.law = accepted ? Law::kRefusal : Law::kModel;
    }
    return false;
  }
  return true;
}

// --- images
// ----------------------------------------------------------------------------------------

constexpr char kGetXsaveRule[] =
    "KVM: kvm_vcpu_ioctl_x86_get_xsave, __copy_xstate_to_uabi_buf; law 2";
constexpr char kSetXsaveRule[] = "KVM: kvm_vcpu_ioctl_x86_set_xsave, copy_uabi_to_xstate";

// The record has the `size` bytes of the VMM's buffer, of which KVM writes those of the vCPU's
// size.
bool GetImage(Vmm& v, uint32_t size) {
  const bool seen = v.c.seen != nullptr;
  std::array<uint8_t, kvm::kMaxImage> possible;
  const auto out = std::span(possible).first(size);
  const uint32_t written = std::min(size, v.c.vcpu.ImageSize());
  std::memcpy(out.data(), v.c.world.image[ImageOf(v)].Bytes().data(), size);
  kvm::ExpectXsave(
      v.c.vcpu,
      seen && v.Data().size() == size ? v.Data().first(written) : std::span<const uint8_t>{},
      out.first(written));
  return TakeImage(v, out, kGetXsaveRule);
}

bool GetXsave(Vmm& v) {
  const Status status = v.c.vcpu.GetXsaveStatus();
  if (!Returned(v, status, "KVM_GET_XSAVE errno", kGetXsaveRule)) return false;
  return !status.ok() || GetImage(v, kvm::kGetXsaveSize);
}

bool GetXsave2(Vmm& v) {
  if (!Returned(v, {}, "KVM_GET_XSAVE2 errno", kGetXsaveRule)) return false;
  return GetImage(v, v.c.vcpu.host->image_size);
}

bool SetXsave(Vmm& v) {
  const auto image = v.c.world.image[ImageOf(v)].Bytes().first(v.c.vcpu.ImageSize());
  return Returned(v, v.c.vcpu.SetXsave(image), "KVM_SET_XSAVE errno", kSetXsaveRule);
}

bool ImageInit(Vmm& v) {
  MakeInitialImage(v.c.world.image[ImageOf(v)]);
  v.c.world.source[ImageOf(v)] = {};
  return Returned(v, {}, "result of editing an image", "plan/vmm.h");
}

bool ImageEdit(Vmm& v) {
  const program::Step& step = v.c.step;
  const size_t room = v.c.vcpu.host->image_size;
  const size_t at = std::min<size_t>(step.arg[1], room);
  const size_t length = std::min<size_t>(step.op == Op::kImageWrite ? 8 : step.arg[2], room - at);
  const auto out = v.c.world.image[ImageOf(v)].Write(at, length).first(length);
  if (step.op == Op::kImageWrite) {
    std::memcpy(out.data(), &step.arg[2], length);
  } else {
    program::FillPattern(static_cast<uint16_t>(step.arg[3]), out);
  }
  v.c.world.source[ImageOf(v)] = {};
  return Returned(v, {}, "result of editing an image", "plan/vmm.h");
}

// --- struct kvm_fpu
// --------------------------------------------------------------------------------

constexpr char kGetFpuRule[] = "KVM: kvm_arch_vcpu_ioctl_get_fpu; law 2";
constexpr char kSetFpuRule[] = "KVM: kvm_arch_vcpu_ioctl_set_fpu; law 2";

bool GetFpu(Vmm& v) { return Returned(v, {}, "KVM_GET_FPU errno", kGetFpuRule); }

bool SetFpu(Vmm& v) {
  std::array<uint8_t, plan::kFpuSize> fpu;
  plan::FillFpu(v.c.step, fpu);
  if ((v.failures & kFpuLosesX87) == 0) v.c.vcpu.SetFpuX87(fpu);
  if ((v.failures & kFpuLosesXmm) == 0) v.c.vcpu.SetFpuXmm(fpu);
  const auto mxcsr = static_cast<uint32_t>(v.c.step.arg[2]);
  // A value that no LDMXCSR would take can't be promised.
  if ((v.failures & kFpuLosesMxcsr) == 0 && v.c.cpu.MxcsrValid(mxcsr)) {
    v.c.cpu.SetMxcsr(mxcsr);
  }
  return Returned(v, {}, "KVM_SET_FPU errno", kSetFpuRule);
}

// --- XCRs, MSRs, CPUID, the rest
// -------------------------------------------------------------------

constexpr char kXcrsRule[] = "KVM: kvm_vcpu_ioctl_x86_set_xcrs, __kvm_set_xcr";
constexpr char kMsrRule[] = "KVM: __msr_io, kvm_set_msr_common, kvm_get_msr_common";
constexpr char kCpuidRule[] = "KVM: kvm_set_cpuid, kvm_cpuid_check_equal";
constexpr char kRunRule[] = "KVM: kvm_arch_vcpu_ioctl_run, immediate_exit";
constexpr char kMigrateRule[] = "law 3: a live migration keeps the guest's state";
constexpr char kInitRule[] = "KVM: kvm_vcpu_reset(vcpu, true)";

bool GetXcrs(Vmm& v) {
  if (!Returned(v, {}, "KVM_GET_XCRS errno", kXcrsRule)) return false;
  if (v.c.seen == nullptr) return true;
  std::array<uint8_t, kvm::kXcrsSize> possible;
  kvm::ExpectXcrs(v.c.vcpu, possible);
  return Same(v, possible, Place::kXcrs, "KVM: kvm_vcpu_ioctl_x86_get_xcrs; law 2");
}

bool SetXcrs(Vmm& v) {
  const plan::XcrList list = plan::XcrsOf(v.c.step);
  const std::array<kvm::Xcr, 2> entries = {
      {{list.entry[0].xcr, list.entry[0].value}, {list.entry[1].xcr, list.entry[1].value}}};
  return Returned(v, v.c.vcpu.SetXcrs(list.count, entries, list.flags), "KVM_SET_XCRS errno",
                  kXcrsRule);
}

// IA32_XSS of a guest without XSAVES: up to 6.11 the VMM reads and writes it (as 0), from 6.12 on
// kvm_{get,set}_msr_common answer KVM_MSR_RET_UNSUPPORTED, which passes only where KVM advertises
// the MSR. There is nothing in it either way, so both answers to 0 are right. The MSRs of CET, for
// a guest without it, are known to KVM from 6.18 on, with the same answer.
bool IsUnsupported(const Vmm& v, uint32_t msr) {
  const cpu::Features& features = *v.c.cpu.features;
  if (msr == cpu::Cpu::kMsrXss) return !features.xsave.xsaves;
  return v.c.cpu.CetRegister(msr) != nullptr && !cpu::Cpu::HasCetMsr(features, msr);
}

// Whether the call was seen to end at entry number `done` in that way.
bool EndsUnsupported(const Vmm& v, uint32_t msr, uint64_t value, int done) {
  if (!IsUnsupported(v, msr) || value != 0) return false;
  if (v.c.seen == nullptr || !v.c.seen->has_ioctl) return false;
  return v.Returned().result == done && v.Returned().error == 0;
}

// One entry after the other, up to the first that is refused; gives the count of those done.
template <typename DoOne>
Status MsrList(Vmm& v, DoOne do_one) {
  const plan::MsrList list = plan::MsrsOf(v.c.step);
  Status status;
  for (const plan::MsrEntry& entry : list.Entries()) {
    const uint32_t msr = program::MsrIndex(entry.msr);
    if (EndsUnsupported(v, msr, entry.value, status.result)) break;
    if (do_one(msr, entry.value).result == 0) break;
    ++status.result;
  }
  return status;
}

bool GetMsr(Vmm& v) {
  std::array<uint8_t, 16> possible;
  size_t size = 0;
  const Status status = MsrList(v, [&](uint32_t msr, uint64_t) {
    uint64_t value = 0;
    const Status one = v.c.vcpu.GetMsr(msr, &value);
    if (one.result == 1) std::memcpy(&possible[size], &value, 8);
    size += one.result == 1 ? 8 : 0;
    return one;
  });
  if (!ReturnedCount(v, status, "KVM_GET_MSRS count", kMsrRule)) return false;
  if (v.c.seen == nullptr || size == 0) return true;
  return Same(v, std::span(possible).first(size), Place::kMsr, kMsrRule);
}

bool SetMsr(Vmm& v) {
  const Status status =
      MsrList(v, [&](uint32_t msr, uint64_t value) { return v.c.vcpu.SetMsr(msr, value); });
  return ReturnedCount(v, status, "KVM_SET_MSRS count", kMsrRule);
}

bool GetMpState(Vmm& v) {
  if (!Returned(v, {}, "KVM_GET_MP_STATE errno", "KVM: kvm_arch_vcpu_ioctl_get_mpstate")) {
    return false;
  }
  if (v.c.seen == nullptr) return true;
  const std::array<uint8_t, 4> runnable{};  // KVM_MP_STATE_RUNNABLE
  return Same(v, runnable, Place::kStored, "KVM: kvm_arch_vcpu_ioctl_get_mpstate");
}

// A guest's CPUID can change until it has run, and a program that changes it begins with a vCPU
// that has not (kvm-runner/start.cc, NeedsFresh).
bool SetCpuid(Vmm& v) {
  kvm::Vcpu& vcpu = v.c.vcpu;
  const cpu::Features& all = v.c.platform.guest;
  const uint64_t now = vcpu.cpu.features->xsave.xcr0;
  uint64_t want = all.xsave.xcr0 & (v.c.step.arg[0] | xstate::kX87Sse);
  const bool fixed = v.c.platform.guest_fixed;
  Status status = vcpu.SetCpuid(want != now);
  if (v.c.seen != nullptr && v.c.seen->has_ioctl && fixed) {
    // Where KVM shows the guest another CPUID than it was told, what is "unchanged" is its own
    // affair.
    if (v.Returned().error == EINVAL)
      status = Status::Error(EINVAL);
    else if (v.Returned().result == 0)
      status = {};
  }
  if (v.c.seen == nullptr && !vcpu.has_run) status = {};
  if (!Returned(v, status, "KVM_SET_CPUID2 errno", kCpuidRule)) return false;
  if (fixed || !status.ok()) want = now;
  if (v.c.seen != nullptr) {
    std::array<uint8_t, 8> possible;
    std::memcpy(possible.data(), &want, 8);
    if (!Same(v, possible, Place::kStored, kCpuidRule)) return false;
  }
  if (want != now) {
    v.changed[v.c.step.vcpu] = LimitFeatures(all, want);
    vcpu.cpu.features = &v.changed[v.c.step.vcpu];
    vcpu.GrowFor(*vcpu.cpu.features);
    if ((v.failures & kCpuidLosesState) != 0) vcpu.LoseFpstate();
    if (!vcpu.cpu.features->pku) vcpu.cpu.cr4_pke = false;  // the agent's doing
    // An XCR0 that the new CPUID lacks stays in force: what the guest may do with it nobody says.
    vcpu.cpu.unknown |= vcpu.cpu.xcr0 & ~want;
  }
  return true;
}

bool RunImmediate(Vmm& v) {
  return Returned(v, v.c.vcpu.RunImmediate(), "KVM_RUN errno with immediate_exit", kRunRule);
}

bool Migrate(Vmm& v) {
  for (unsigned i = 0; i < v.c.world.vcpus; ++i) {
    if (v.c.world.SameVm(i, v.c.step.vcpu)) v.c.world.vcpu[i].Migrate();
  }
  if (Returned(v, {}, "calls of a migration that failed", kMigrateRule)) return true;
  v.m.law = Law::kRoundTrip;
  return false;
}

bool Init(Vmm& v) {
  v.c.vcpu.Init();
  return Returned(v, {}, "result of INIT", kInitRule);
}

// Host steps change nothing that the guest or the ioctls may show.
bool HostStep(Vmm& v) {
  if (v.c.seen == nullptr || v.c.seen->has_host) return true;
  return Fail(v, Law::kHealth, Relation::kDied, "record of the host step", "trace/record.h", 1, 0);
}

// A child of the VMM has the descriptor of the vCPU, but another mm.
bool Fork(Vmm& v) {
  if (!HostStep(v)) return false;
  if (v.c.seen == nullptr) return true;
  trace::HostRecord record{};
  trace::ReadHead(v.c.seen->host, record);
  if (record.error != 0 || record.result == EIO) return true;
  return Fail(v, Law::kIsolation, record.result == 0 ? Relation::kAccepted : Relation::kWrongError,
              "errno of KVM_GET_FPU or KVM_RUN in a forked child",
              "KVM: kvm_vcpu_ioctl: EIO "
              "unless vcpu->kvm->mm is current->mm",
              EIO, static_cast<uint64_t>(record.result));
}

struct FunctionRow {
  Op op;
  bool (*function)(Vmm&);
};

constexpr FunctionRow kFunctions[] = {
    {Op::kGetXsave, GetXsave},
    {Op::kGetXsave2, GetXsave2},
    {Op::kSetXsave, SetXsave},
    {Op::kImageInit, ImageInit},
    {Op::kImageWrite, ImageEdit},
    {Op::kImageFill, ImageEdit},
    {Op::kGetFpu, GetFpu},
    {Op::kSetFpu, SetFpu},
    {Op::kGetXcrs, GetXcrs},
    {Op::kSetXcrs, SetXcrs},
    {Op::kGetMsr, GetMsr},
    {Op::kSetMsr, SetMsr},
    {Op::kGetMpState, GetMpState},
    {Op::kSetCpuid, SetCpuid},
    {Op::kRunImmediate, RunImmediate},
    {Op::kMigrate, Migrate},
    {Op::kInit, Init},
    {Op::kSetXcrsList, SetXcrs},
    {Op::kGetMsrList, GetMsr},
    {Op::kSetMsrList, SetMsr},
    {Op::kOsGetRegset, [](Vmm& v) { return OsGetRegset(v); }},
    {Op::kOsSetRegset, [](Vmm& v) { return OsSetRegset(v); }},
    {Op::kOsSigframe, [](Vmm& v) { return OsSigframe(v); }},
    {Op::kOsSigreturn, [](Vmm& v) { return OsSigreturn(v); }},
    {Op::kHostCpu, HostStep},
    {Op::kHostDirty, HostStep},
    {Op::kHostPkru, HostStep},
    {Op::kHostSignal, HostStep},
    {Op::kHostPreempt, HostStep},
    {Op::kHostFork, Fork},
    {Op::kHostOnline, HostStep},
    {Op::kHostThread, HostStep},
};

constexpr auto kByOp = [] {
  std::array<bool (*)(Vmm&), 256> table{};
  for (const FunctionRow& row : kFunctions) table[static_cast<uint8_t>(row.op)] = row.function;
  return table;
}();

}  // namespace

bool DoVmmStep(Context& c, std::array<cpu::Features, program::kMaxVcpus>& changed,
               unsigned failures, Mismatch& m) {
  Vmm v{{c, m}, changed, failures};
  const auto function = kByOp[static_cast<uint8_t>(c.step.op)];
  return function == nullptr || function(v);
}

unsigned FailuresOf(Op op) {
  if (op == Op::kSetFpu) return kFpuLosesX87 | kFpuLosesXmm | kFpuLosesMxcsr;
  return op == Op::kSetCpuid ? kCpuidLosesState : 0;
}

bool FailuresDiffer(const Context& c, unsigned failures) {
  if (failures == kCpuidLosesState) {
    const cpu::Features& all = c.platform.guest;
    if (!c.vcpu.GrowsFor(LimitFeatures(all, all.xsave.xcr0 & c.step.arg[0]))) return false;
    kvm::Vcpu lost = c.vcpu;
    lost.LoseFpstate();
    return ImageOf(lost) != ImageOf(c.vcpu) || lost.cpu.regs.cet_u != c.cpu.regs.cet_u ||
           lost.cpu.regs.cet_s != c.cpu.regs.cet_s;
  }
  // copy_from_buffer sets no bit of XSTATE_BV: what is in use is kept, what is initial may be lost.
  if ((failures & kFpuLosesX87) != 0 && !c.cpu.IsInitial(Component::kX87)) return false;
  if ((failures & kFpuLosesXmm) != 0 && !c.cpu.IsInitial(Component::kSse)) return false;
  const auto mxcsr = static_cast<uint32_t>(c.step.arg[2]);
  const bool takes = c.cpu.MxcsrValid(mxcsr) && mxcsr != c.cpu.regs.mxcsr;
  return (failures & kFpuLosesMxcsr) == 0 || takes;
}

bool CompareFpu(Context& c, FpuPart part, Mismatch& m) {
  if (c.seen == nullptr) return true;
  const auto seen = c.seen->ioctl.subspan(sizeof(trace::IoctlRecord));
  m = Mismatch{.all = m.all};
  m.law = Law::kCoherence;
  m.rule = kGetFpuRule;
  if (seen.size() != kvm::kFpuSize) {
    m.law = Law::kHealth;
    m.relation = Relation::kDied;
    m.what = "size of what the call gave";
    m.values = true;
    m.expected = kvm::kFpuSize;
    m.actual = seen.size();
    return part != FpuPart::kX87;  // once is enough
  }
  std::array<uint8_t, kvm::kFpuSize> possible, shown;
  kvm::ExpectFpu(c.vcpu, seen, possible);
  // Only this part; offsets stay those of the struct.
  shown = possible;
  const auto take = [&](size_t at, size_t size) {
    std::memcpy(shown.data() + at, seen.data() + at, size);
  };
  switch (part) {
    case FpuPart::kX87:
      take(0, 152);
      break;
    case FpuPart::kXmm:
      take(152, 256);
      break;
    case FpuPart::kMxcsr:
      take(408, 8);
      break;
  }
  m.place = Place::kFpu;
  // xmm_space begins at 152.
  return SameBytes(possible, shown, m, part == FpuPart::kX87 ? 0 : 8);
}

}  // namespace fpswap::judge
