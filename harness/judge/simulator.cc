// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/judge/simulator.h"

#include <algorithm>
#include <cerrno>

#include "harness/plan/vmm.h"
#include "oracle/kvm/uabi.h"
#include "oracle/os/thread.h"
#include "oracle/xstate/image.h"

namespace fpswap::judge {
namespace {

using program::Op;
using trace::RecordKind;

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
}

}  // namespace

Simulator::Simulator(const trace::Platform& platform, const Plant* plant)
    : platform_(platform), plant_(plant), host_(HostOf(platform)) {
  if (plant != nullptr && plant->host != nullptr) plant->host(host_);
  const auto& x = platform.guest.xsave;
  area_bytes_ = std::max(x.max_size, xstate::CompactedSize(x, x.xcr0 | x.xss));
}

Context Simulator::MakeContext(const plan::Plan& plan, uint16_t number, const StepRecords* hint) {
  const program::Step& step = plan.effective.steps[number];
  kvm::Vcpu& vcpu = world_.vcpu[step.vcpu];
  return {.platform = platform_,
          .plan = plan,
          .step = step,
          .number = number,
          .seen = hint,
          .world = world_,
          .vcpu = vcpu,
          .cpu = vcpu.cpu,
          .scratch = scratch_,
          .area_bytes = area_bytes_};
}

std::vector<uint8_t> Simulator::Run(const plan::Plan& plan, program::Rng& rng) {
  records_.clear();
  features_ = LimitFeatures(platform_.guest, plan.effective.features);
  world_.Reset(plan, features_, host_);
  const bool heeds_ts = rng.OneIn(2), clears_disabled_zmm = rng.OneIn(2);
  for (kvm::Vcpu& vcpu : world_.vcpu) {
    vcpu.cpu.amx_heeds_ts = heeds_ts;
    vcpu.cpu.vex_clears_disabled_zmm = clears_disabled_zmm;
  }
  for (const plan::Action& action : plan.actions) {
    for (uint16_t i = action.first; i <= action.last; ++i) {
      kvm::Vcpu& vcpu = world_.vcpu[plan.effective.steps[i].vcpu];
      const uint64_t xfd_before = vcpu.cpu.xfd;
      if (action.kind == plan::ActionKind::kRun) {
        Guest(plan, i, action.cpl, rng);
      } else {
        Vmm(plan, i, rng);
      }
      DrawFreed(vcpu, xfd_before, rng);
      if (plant_ != nullptr && plant_->after != nullptr) {
        plant_->after(plan.effective.steps[i], world_);
      }
      if (after_step) after_step(i, world_);
    }
  }
  const trace::EndRecord end{};
  trace::AppendRecord(records_, RecordKind::kEnd, 0, 0, BytesOf(end));
  return records_;
}

void Simulator::Record(const Context& c, RecordKind kind, std::span<const uint8_t> head,
                       std::span<const uint8_t> tail) {
  trace::AppendRecord(records_, kind, c.step.vcpu, c.number, head, tail);
}

void Simulator::RecordFault(const Context& c, uint8_t vector, uint32_t error, uint64_t rip,
                            uint64_t address) {
  const trace::FaultRecord fault{vector, {}, error, rip, address};
  Record(c, RecordKind::kFault, BytesOf(fault));
}

// A journal that was never seen: the oracle takes from it (and from whether there was a fault) what
// is open, so it draws the choices.
void Simulator::DrawHint(Context& c, program::Rng& rng) {
  hint_bytes_.resize(c.row().journal_bytes);
  for (uint8_t& b : hint_bytes_) b = static_cast<uint8_t>(rng.Next());
  const program::StepRow& row = program::RowOf(c.step);
  if (row.journal == program::Journal::kArea && rng.OneIn(2)) {
    // The slot as it is: what may be left out is left out.
    const auto slot = c.world.Slot(c.step.vcpu, c.step.arg[0]).Bytes();
    std::copy_n(slot.begin(), hint_bytes_.size(), hint_bytes_.begin());
  }
  const size_t header = c.step.arg[1] + xstate::kHeaderOffset;
  if (row.journal == program::Journal::kArea && header + 8 <= hint_bytes_.size()) {
    xstate::WriteAt(std::span(hint_bytes_), header, rng.Next());
  }
}

// What IA32_XFD has let go is as it was or initial (Walk::BranchTiles).
void Simulator::DrawFreed(kvm::Vcpu& vcpu, uint64_t xfd_before, program::Rng& rng) {
  for (unsigned i = 0; i < xstate::kComponentCount; ++i) {
    const bool freed = ((xfd_before & ~vcpu.cpu.xfd) >> i & 1) != 0;
    if (freed && rng.OneIn(2)) vcpu.cpu.Initialise(static_cast<xstate::Component>(i));
  }
}

void Simulator::Guest(const plan::Plan& plan, uint16_t number, uint8_t cpl, program::Rng& rng) {
  StepRecords hint;
  Context c = MakeContext(plan, number, &hint);
  c.cpu.cpl = cpl;
  c.vcpu.has_run = true;
  DrawHint(c, rng);
  hint.has_fault = rng.OneIn(2);
  hint.has_journal = !hint_bytes_.empty();
  hint.journal = hint_bytes_;
  const Outcome o = GuestFunctionOf(c.step.op)(c);
  if (o.page.errors != 0) {
    return RecordFault(c, cpu::kPF, o.page.error[rng.Below(o.page.errors)], c.rip(), o.page.begin);
  }
  if (o.fault) return RecordFault(c, o.fault->vector, o.fault->error_code, c.rip(), rng.Next());
  for (unsigned i = 0; i < o.exits; ++i) {
    const ExpectedExit& e = o.exit[i];
    trace::ExitRecord exit{.reason = e.reason,
                           .where = e.where,
                           .data = e.data,
                           .size = e.size,
                           .is_write = e.is_write};
    Record(c, RecordKind::kExit, BytesOf(exit));
  }
  if (c.row().journal_bytes == 0) return;
  const PageFault denied = StoresDirectly(c.step.op) ? PageFault{} : JournalFault(c);
  if (denied.errors != 0) {
    return RecordFault(c, cpu::kPF, denied.error[0], c.rip() + 3, denied.begin);
  }
  if (o.journal_open) {
    // Else it would be what a step before has left in `scratch_`.
    for (uint8_t& b : std::span(scratch_).first(c.row().journal_bytes)) {
      b = static_cast<uint8_t>(rng.Next());
    }
    return Record(c, RecordKind::kJournal, std::span(scratch_).first(c.row().journal_bytes));
  }
  Record(c, RecordKind::kJournal, o.journal.first(c.row().journal_bytes));
}

std::vector<uint8_t> Simulator::DrawImage(size_t size, program::Rng& rng) {
  std::vector<uint8_t> image(size);
  for (uint8_t& b : image) b = static_cast<uint8_t>(rng.Next());
  if (rng.OneIn(2)) std::memset(image.data() + 28, 0, 4);  // MXCSR_MASK
  return image;
}

void Simulator::Vmm(const plan::Plan& plan, uint16_t number, program::Rng& rng) {
  Context c = MakeContext(plan, number, nullptr);
  const program::Step& step = c.step;
  if (program::RowOf(step).actor == program::Actor::kHost) {
    const int result = step.op == Op::kHostFork ? EIO : 0;
    return Record(c, RecordKind::kHost, BytesOf(trace::HostRecord{result, 0}));
  }
  std::vector<uint8_t> data;
  trace::IoctlRecord returned{};
  Mismatch unused;
  const bool regset = step.op == Op::kOsGetRegset, frame = step.op == Op::kOsSigframe;
  const bool get = step.op == Op::kGetXsave || step.op == Op::kGetXsave2 || regset || frame;
  if (regset || frame) {
    data.resize(os::ImageSize(host_));
    (regset ? os::ExpectRegset : os::ExpectSigframe)(c.vcpu, DrawImage(data.size(), rng), data);
  } else if (get) {
    // KVM writes the vCPU's size; the rest of the VMM's buffer stays.
    data.resize(step.op == Op::kGetXsave ? kvm::kGetXsaveSize : host_.image_size);
    const auto image = c.world.image[step.arg[0]].Bytes();
    std::copy_n(image.begin(), data.size(), data.begin());
    const auto written = std::span(data).first(std::min<size_t>(data.size(), c.vcpu.ImageSize()));
    kvm::ExpectXsave(c.vcpu, DrawImage(written.size(), rng), written);
  } else if (step.op == Op::kGetFpu) {
    data.resize(kvm::kFpuSize);
    kvm::ExpectFpu(c.vcpu, DrawImage(data.size(), rng), data);
  } else if (step.op == Op::kGetXcrs) {
    data.resize(kvm::kXcrsSize);
    kvm::ExpectXcrs(c.vcpu, data);
  } else if (step.op == Op::kGetMpState) {
    data.resize(4);
  } else if (const plan::MsrList msrs = plan::MsrsOf(step); msrs.count != 0) {
    const bool set = plan::SetsMsrs(step.op);
    kvm::Vcpu copy = c.vcpu;
    for (const plan::MsrEntry& entry : msrs.Entries()) {
      const uint32_t msr = program::MsrIndex(entry.msr);
      uint64_t value = 0;
      const kvm::Status one = set ? copy.SetMsr(msr, entry.value) : copy.GetMsr(msr, &value);
      if (one.result == 0) break;
      ++returned.result;
      if (!set) data.insert(data.end(), BytesOf(value).begin(), BytesOf(value).end());
    }
  }
  DoVmmStep(c, changed_, 0, unused);
  if (c.model_errno != 0) {
    returned = {-1, c.model_errno};
    data.clear();
  } else if (get) {
    std::ranges::copy(data, c.world.image[step.arg[0]].Write(0, data.size()).begin());
  }
  if (step.op == Op::kSetCpuid) {
    const uint64_t now = c.cpu.features->xsave.xcr0;
    data.assign(BytesOf(now).begin(), BytesOf(now).end());
  }
  Record(c, RecordKind::kIoctl, BytesOf(returned), data);
}

}  // namespace fpswap::judge
