// SPDX-License-Identifier: GPL-2.0-or-later
//
// The steps of the VMM and of the host around it. Each VMM step leaves one IoctlRecord (vmm.h).
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kvm-runner/kvm_api.h"
#include "kvm-runner/msrs.h"
#include "kvm-runner/program_run.h"
#include "kvm-runner/start.h"
#include "oracle/xstate/layout.h"

namespace fpswap::kvm {
namespace {

using program::Op;
using program::Step;

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
}

}  // namespace

std::span<uint8_t> ProgramRun::Image(uint64_t n) {
  const size_t size = tools_.host.xsave_size;
  return std::span(images_).subspan((n % program::kImageCount) * size, size);
}

// REQUIRES: errno is the call's.
void ProgramRun::Ioctl(const Vcpu& vcpu, unsigned step, int result, std::span<const uint8_t> data) {
  Record(RecordKind::kIoctl, vcpu.number, step, trace::IoctlRecord{result, result < 0 ? errno : 0},
         data);
}

void ProgramRun::DoStep(unsigned number) {
  const Step& step = plan_.steps[number];
  Vcpu& vcpu = VcpuOf(step.vcpu);
  switch (step.op) {
    case Op::kGetXsave:
    case Op::kGetXsave2:
      return GetImage(vcpu, number, step.op == Op::kGetXsave2);
    case Op::kSetXsave:
      return SetImage(vcpu, number);
    case Op::kImageInit:
    case Op::kImageWrite:
    case Op::kImageFill:
      return EditImage(vcpu, number);
    case Op::kGetFpu:
    case Op::kSetFpu:
      return GetSetFpu(vcpu, number);
    case Op::kGetXcrs:
    case Op::kSetXcrs:
    case Op::kSetXcrsList:
      return GetSetXcrs(vcpu, number);
    case Op::kGetMsr:
    case Op::kSetMsr:
    case Op::kGetMsrList:
    case Op::kSetMsrList:
      return GetSetMsrs(vcpu, number);
    case Op::kGetMpState:
      return GetMpState(vcpu, number);
    case Op::kSetCpuid:
      return SetCpuid(vcpu, number);
    case Op::kRunImmediate:
      return RunImmediate(vcpu, number);
    case Op::kMigrate:
      return Migrate(vcpu, number);
    case Op::kInit:
      return Init(vcpu, number);
    default:
      return HostStep(vcpu, number);
  }
}

void ProgramRun::GetImage(Vcpu& vcpu, unsigned number, bool second) {
  // KVM_GET_XSAVE writes 4096 bytes and KVM_GET_XSAVE2 as many as the vCPU has; the buffer of a
  // refused call stays as it was.
  std::span<uint8_t> image = Image(plan_.steps[number].arg[0]);
  if (!second) image = image.first(4096);
  const int result = second ? kvm_get_xsave2(vcpu.fd.get(), image.data())
                            : kvm_get_xsave(vcpu.fd.get(), image.data());
  if (result == 0) {
    ++happened_.gets;
    Plant({.point = PlantPoint::kGetXsave, .happened = happened_, .vcpu = vcpu, .image = image});
  }
  Ioctl(vcpu, number, result,
        result == 0 ? std::span<const uint8_t>(image) : std::span<const uint8_t>());
}

void ProgramRun::SetImage(Vcpu& vcpu, unsigned number) {
  const std::span<uint8_t> image = Image(plan_.steps[number].arg[0]);
  const int result = kvm_set_xsave(vcpu.fd.get(), image.data());
  Ioctl(vcpu, number, result);
  Plant({.point = PlantPoint::kSetXsave,
         .happened = happened_,
         .vcpu = vcpu,
         .image = image,
         .result = result});
}

void ProgramRun::EditImage(const Vcpu& vcpu, unsigned number) {
  const Step& step = plan_.steps[number];
  const std::span<uint8_t> image = Image(step.arg[0]);
  const size_t at = std::min<size_t>(step.arg[1], image.size());
  // What goes beyond the image's end is left out.
  if (step.op == Op::kImageInit) {
    InitialImage(image);
  } else if (step.op == Op::kImageWrite) {
    std::memcpy(image.data() + at, &step.arg[2], std::min<size_t>(8, image.size() - at));
  } else {
    program::FillPattern(static_cast<uint16_t>(step.arg[3]),
                         image.subspan(at, std::min<size_t>(step.arg[2], image.size() - at)));
  }
  Ioctl(vcpu, number, 0);
}

void ProgramRun::GetSetFpu(Vcpu& vcpu, unsigned number) {
  static_assert(sizeof(kvm_fpu) == plan::kFpuSize);
  alignas(kvm_fpu) uint8_t fpu[plan::kFpuSize] = {};
  if (plan_.steps[number].op == Op::kSetFpu) {
    plan::FillFpu(plan_.steps[number], std::span<uint8_t, plan::kFpuSize>(fpu));
    return Ioctl(vcpu, number, kvm_set_fpu(vcpu.fd.get(), fpu));
  }
  const int result = kvm_get_fpu(vcpu.fd.get(), fpu);
  Ioctl(vcpu, number, result,
        result == 0 ? std::span<const uint8_t>(fpu) : std::span<const uint8_t>());
}

void ProgramRun::GetSetXcrs(Vcpu& vcpu, unsigned number) {
  const Step& step = plan_.steps[number];
  kvm_xcrs xcrs{};
  if (step.op == Op::kGetXcrs) {
    const int result = kvm_get_xcrs(vcpu.fd.get(), &xcrs);
    return Ioctl(vcpu, number, result, result == 0 ? BytesOf(xcrs) : std::span<const uint8_t>());
  }
  const plan::XcrList list = plan::XcrsOf(step);
  xcrs.nr_xcrs = list.count;
  xcrs.flags = list.flags;
  for (size_t i = 0; i < std::size(xcrs.xcrs); ++i) {
    const plan::Xcr& entry = list.entry[std::min<size_t>(i, 1)];
    xcrs.xcrs[i] = {.xcr = entry.xcr, .reserved = 0, .value = entry.value};
  }
  const int result = kvm_set_xcrs(vcpu.fd.get(), &xcrs);
  Ioctl(vcpu, number, result);
  happened_.xcr0_set = true;
  Plant({.point = PlantPoint::kSetXcrs,
         .happened = happened_,
         .vcpu = vcpu,
         .result = result,
         .xcrs = &list});
}

void ProgramRun::GetSetMsrs(Vcpu& vcpu, unsigned number) {
  const Step& step = plan_.steps[number];
  const bool set = plan::SetsMsrs(step.op);
  const plan::MsrList list = plan::MsrsOf(step);
  MsrTable msrs;
  for (const plan::MsrEntry& entry : list.Entries()) {
    msrs.Add(program::MsrIndex(entry.msr), entry.value);
  }
  const int result = set ? kvm_set_msrs(vcpu.fd.get(), &msrs) : kvm_get_msrs(vcpu.fd.get(), &msrs);
  const int error = errno;
  std::array<uint64_t, std::size(list.entry)> values{};
  for (unsigned i = 0; i < list.count; ++i) values[i] = msrs.entries[i].data;
  const size_t read = set || result < 0 ? 0 : static_cast<size_t>(result);
  errno = error;
  Ioctl(vcpu, number, result, BytesOf(values).first(8 * std::min<size_t>(read, list.count)));
}

void ProgramRun::GetMpState(Vcpu& vcpu, unsigned number) {
  kvm_mp_state state{};
  const int result = kvm_get_mp_state(vcpu.fd.get(), &state);
  Ioctl(vcpu, number, result, result == 0 ? BytesOf(state.mp_state) : std::span<const uint8_t>());
}

void ProgramRun::SetCpuid(Vcpu& vcpu, unsigned number) {
  CpuidTable cpuid = LimitCpuid(tools_.host.cpuid, plan_.steps[number].arg[0]);
  const int result = kvm_set_cpuid2(vcpu.fd.get(), &cpuid);
  const int error = errno;
  CpuidTable now;
  now.nent = CpuidTable::kRoom;
  kvm_get_cpuid2(vcpu.fd.get(), &now);
  const trace::CpuidLeaf leaf = now.Get(0xd, 0);
  const uint64_t components = leaf.eax | uint64_t{leaf.edx} << 32;
  // KVM_SET_SREGS refuses what the CPUID of now lacks, so a VMM takes it away.
  constexpr uint32_t kPku = 1 << 3;
  kvm_sregs sregs{};
  if (result == 0 && (now.Get(7, 0).ecx & kPku) == 0 && kvm_get_sregs(vcpu.fd.get(), &sregs) == 0 &&
      (sregs.cr4 & kCr4Pke) != 0) {
    sregs.cr4 &= ~kCr4Pke;
    kvm_set_sregs(vcpu.fd.get(), &sregs);
    vcpu.sregs_known = false;
  }
  errno = error;
  Ioctl(vcpu, number, result, BytesOf(components));
}

void ProgramRun::RunImmediate(Vcpu& vcpu, unsigned number) {
  step_ = static_cast<uint16_t>(number);
  vcpu.run().immediate_exit = 1;
  ++happened_.immediate_exits;
  const long result = Run(vcpu);
  vcpu.run().immediate_exit = 0;
  errno = static_cast<int>(-result);
  Ioctl(vcpu, number, result < 0 ? -1 : static_cast<int>(result));
}

void ProgramRun::Init(Vcpu& vcpu, unsigned number) {
  // The INIT is latched, and KVM_GET_MP_STATE is where KVM takes it without running the guest
  // (kvm_apic_accept_events): KVM_RUN would go on at the reset vector.
  const int fd = vcpu.fd.get();
  kvm_sregs sregs{};
  kvm_vcpu_events events{};
  kvm_mp_state state{};
  const auto init = [&] {
    if (kvm_get_sregs(fd, &sregs) != 0 || kvm_get_vcpu_events(fd, &events) != 0) return -1;
    events.flags |= KVM_VCPUEVENT_VALID_SMM;
    events.smi.latched_init = 1;
    if (kvm_set_vcpu_events(fd, &events) != 0 || kvm_get_mp_state(fd, &state) != 0) return -1;
    state.mp_state = KVM_MP_STATE_RUNNABLE;
    if (kvm_set_mp_state(fd, &state) != 0) return -1;
    SetCpl(sregs, 3);
    return kvm_set_sregs(fd, &sregs);
  };
  const int result = init();
  Ioctl(vcpu, number, result);
  vcpu.sregs_known = false;
  vcpu.cpl = -1;
}

void ProgramRun::HostStep(Vcpu& vcpu, unsigned number) {
  const Step& step = plan_.steps[number];
  const auto record = [&](int result, bool ok) {
    Record(RecordKind::kHost, vcpu.number, number, trace::HostRecord{result, ok ? 0 : errno});
  };
  switch (step.op) {
    case Op::kHostCpu: {
      const int before = sched_getcpu();
      const int cpu = here_->affinity.MoveTo(static_cast<unsigned>(step.arg[0]));
      happened_.cpu_changed |= cpu >= 0 && cpu != before;
      return record(cpu, cpu >= 0);
    }
    case Op::kHostDirty: {
      // The vCPU's thread must be on the competitor's CPU when it goes on, so it stays there.
      const int cpu = here_->affinity.Stay();
      const bool done =
          cpu >= 0 && tools_.competitor.Dirty(cpu, static_cast<uint16_t>(step.arg[0]));
      happened_.dirtied |= done;
      // Which CPU it was differs from run to run; that it was this one is what counts.
      return record(done ? 0 : -1, done);
    }
    case Op::kHostPkru:
      // Key 0 stays allowed: all of our own memory has it.
      here_->canary.WritePkru(static_cast<uint32_t>(step.arg[0]) & ~3u);
      return record(0, true);
    case Op::kHostSignal:
    case Op::kHostPreempt: {
      // Recorded by the KVM_RUN that sees it. Two in a row are one: it is pending already.
      auto& pending = (step.op == Op::kHostSignal ? signal_step_ : preempt_step_)[vcpu.number];
      if (pending) record(0, true);
      pending = pending.value_or(static_cast<uint16_t>(number));
      return;
    }
    case Op::kHostFork:
      return Fork(vcpu, number);
    case Op::kHostThread:
      thread_of_[vcpu.number] = static_cast<uint8_t>(step.arg[0] % program::kMaxVcpus);
      return record(thread_of_[vcpu.number], true);
    case Op::kHostOnline: {
      const bool done = tools_.cpu.Set(step.arg[0] != 0);
      const int error = errno;
      tools_.competitor.Moved();
      tools_.watchdog.Begin();  // the kernel's time, on all CPUs, and no hang of the program's
      errno = error;
      return record(done ? 0 : -1, done);
    }
    default:
      return;
  }
}

// The child has this thread alone and shares nothing that it writes but the vCPU's page, so it
// makes system calls and no others.
void ProgramRun::Fork(Vcpu& vcpu, unsigned number) {
  const long child = here_->canary.Fork();
  if (child == 0) {
    here_->canary.Dirty(static_cast<uint16_t>(plan_.steps[number].arg[0]));
    uint8_t fpu[plan::kFpuSize];
    int error = kvm_get_fpu(vcpu.fd.get(), fpu) == 0 ? 0 : errno;
    if (error == EIO) {
      vcpu.run().immediate_exit = 1;
      error = static_cast<int>(-here_->canary.Run(vcpu.fd.get()));
      vcpu.run().immediate_exit = 0;
    }
    _exit(error);
  }
  RecordCanary(vcpu.number);
  happened_.forks += child > 0;
  Plant({.point = PlantPoint::kForked, .happened = happened_, .vcpu = vcpu});
  int status = 0, result = -1, error = child < 0 ? static_cast<int>(-child) : 0;
  while (child > 0 && waitpid(static_cast<pid_t>(child), &status, 0) < 0 && errno == EINTR) {
    if (tools_.watchdog.hung()) kill(static_cast<pid_t>(child), SIGKILL);
  }
  if (child > 0 && WIFEXITED(status)) result = WEXITSTATUS(status);
  if (child > 0 && !WIFEXITED(status)) error = ECHILD;
  Record(RecordKind::kHost, vcpu.number, number, trace::HostRecord{result, error});
}

}  // namespace fpswap::kvm
