// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which steps this KVM can run, by running them. A software KVM may emulate CPL 0 and lack
// instructions there (KVM_EXIT_INTERNAL_ERROR), or take a write of CR0, CR4 or XCR0 that then has
// no effect on the guest; a nested one may not intercept what it should.
#include <cstring>
#include <optional>

#include "harness/plan/plan.h"
#include "harness/trace/record.h"
#include "kvm-runner/probe.h"

namespace fpswap::kvm {
namespace {

using program::Op;
using Runner = std::function<void(const wire::PlanView&, std::vector<uint8_t>&)>;
using Code = std::vector<uint8_t>;

// The steps this agent knows how to do, from and to.
constexpr Op kKnown[][2] = {
    {Op::kFninit, Op::kEmms},         {Op::kSseLoad, Op::kSsePshufd},
    {Op::kVexLoad128, Op::kVzeroall}, {Op::kEvexLoad128, Op::kKxor},
    {Op::kBndmovLoad, Op::kRdpkru},   {Op::kXsave, Op::kMemHeader},
    {Op::kXsetbv, Op::kRaw},          {Op::kExitOut, Op::kExitPageFault},
    {Op::kGetXsave, Op::kSetMsrList}, {Op::kHostCpu, Op::kHostOnline},
    {Op::kLdtilecfg, Op::kTdpbuud},
};

// What became of a tiny program.
struct Outcome {
  bool dead = false;  // KVM gave up
  bool hung = false;  // twice: wire::RunPatiently
  uint32_t exit = 0;  // KVM_EXIT_* of the last exit recorded
  unsigned exits = 0;
  std::optional<uint8_t> fault;     // vector of the last fault
  bool refused = false;             // an ioctl failed
  std::optional<uint64_t> journal;  // first 8 bytes of the last
};

// A program of a few steps, each guest step a run of its own.
class Tiny {
 public:
  explicit Tiny(const Host& host) {
    view_.features = host.guest_components;
    view_.xcr0 = host.guest_components;
    view_.area_size = 576;
  }
  Tiny& Guest(Op op, unsigned cpl, const Code& code, bool journal = false) {
    const uint16_t n = Add(op, {});
    view_.rows.back() = {.code = static_cast<uint32_t>(code_.size()),
                         .instruction = static_cast<uint32_t>(code_.size()),
                         .journal = 0,
                         .journal_bytes = journal ? 8u : 0u};
    code_.insert(code_.end(), code.begin(), code.end());
    const uint8_t end[] = {0xb8, static_cast<uint8_t>(n),
                           0,    0,
                           0,  // mov eax, n
                           0xe7, static_cast<uint8_t>(plan::kEndPort)};
    code_.insert(code_.end(), std::begin(end), std::end(end));
    view_.actions.push_back({1, 0, static_cast<uint8_t>(cpl), 0, n, n});
    return *this;
  }
  Tiny& Vmm(Op op, std::array<uint64_t, program::kArgCount> arg = {}) {
    const uint16_t n = Add(op, arg);
    view_.actions.push_back({2, 0, 0, 0, n, n});
    return *this;
  }
  Tiny& Xcr0(uint64_t value) {
    view_.xcr0 = value;
    return *this;
  }
  Outcome Run(const Runner& run) {
    view_.code = code_;
    std::vector<uint8_t> records;
    run(view_, records);
    return Read(records);
  }

 private:
  uint16_t Add(Op op, std::array<uint64_t, program::kArgCount> arg) {
    view_.steps.push_back({.op = op, .vcpu = 0, .arg = arg});
    view_.rows.push_back({});
    return static_cast<uint16_t>(view_.steps.size() - 1);
  }
  static Outcome Read(std::span<const uint8_t> records) {
    Outcome out;
    trace::RecordReader reader(records);
    trace::RecordView view;
    while (reader.Next(view)) {
      trace::FaultRecord fault;
      trace::ExitRecord exit;
      trace::IoctlRecord ioctl;
      trace::EndRecord end;
      uint64_t value;
      if (view.kind == trace::RecordKind::kFault && ReadHead(view.bytes, fault)) {
        out.fault = fault.vector;
      } else if (view.kind == trace::RecordKind::kExit && ReadHead(view.bytes, exit)) {
        out.exit = exit.reason;
        ++out.exits;
      } else if (view.kind == trace::RecordKind::kIoctl && ReadHead(view.bytes, ioctl)) {
        out.refused |= ioctl.result < 0;
      } else if (view.kind == trace::RecordKind::kJournal && trace::ReadHead(view.bytes, value)) {
        out.journal = value;
      } else if (view.kind == trace::RecordKind::kEnd && ReadHead(view.bytes, end)) {
        out.hung = end.reason == static_cast<uint8_t>(trace::EndReason::kHang);
        out.dead = end.reason != static_cast<uint8_t>(trace::EndReason::kDone);
      }
    }
    return out;
  }

  wire::PlanView view_;
  Code code_;
};

// Code of the probes. Absolute addresses as disp32 with a SIB byte (base and index none).
Code At(Code code, uint64_t address) {
  for (unsigned i = 0; i < 4; ++i) code.push_back(static_cast<uint8_t>(address >> (8 * i)));
  return code;
}
Code Ecx(uint32_t value, Code rest) {
  Code code = At({0xb9}, value);
  code.insert(code.end(), rest.begin(), rest.end());
  return code;
}
const Code kFninit = {0xdb, 0xe3};
const Code kSetTs = {0x0f, 0x20, 0xc0, 0x0c, 0x08, 0x0f, 0x22, 0xc0};  // or al, 8
Code ClearCr4(uint8_t bit) {
  return {0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf0, bit, 0x0f, 0x22, 0xe0};  // btr rax, bit
}
// xgetbv; shl rdx, 32; or rax, rdx; mov [journal], rax
Code Xgetbv() {
  return Ecx(
      0, At({0x0f, 0x01, 0xd0, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x04, 0x25},
            plan::kJournalBase));
}
Code MovupsLoad(uint64_t address) { return At({0x0f, 0x10, 0x04, 0x25}, address); }
// EDX:EAX = 3; XSAVES (reg 5) or XRSTORS (reg 3) of slot 0
Code Supervisor(uint8_t reg) {
  return At({0xb8, 3, 0, 0, 0, 0x31, 0xd2, 0x0f, 0xc7, static_cast<uint8_t>(0x04 | reg << 3), 0x25},
            plan::kSlotBase);
}
Code Vector(bool write, uint64_t address) {  // movdqu
  return At({0xf3, 0x0f, static_cast<uint8_t>(write ? 0x7f : 0x6f), 0x04, 0x25}, address);
}

class StepProbe {
 public:
  StepProbe(Host& host, trace::Platform& platform, const Runner& run)
      : host_(host), platform_(platform), run_(run) {}

  void All() {
    for (const auto& [first, last] : kKnown) {
      for (unsigned op = static_cast<unsigned>(first); op <= static_cast<unsigned>(last); ++op) {
        platform_.can.set(op);
      }
    }
    for (const program::StepRow& row : program::StepTable()) {
      if (row.actor != program::Actor::kSystem) continue;
      platform_.cannot.emplace_back(static_cast<uint8_t>(row.op),
                                    "the program is a guest's: no thread of the host holds its "
                                    "state");
    }
    if (!GuestRuns()) return;
    Privileged();
    ControlRegisters();
    Xcr0();
    Exits();
    Vmm();
  }

 private:
  Tiny Program() const { return Tiny(host_); }

  // `seen` is what the step came to, and `reason` what that shows if it has not hung.
  void Cannot(Op op, const Outcome& seen, const std::string& reason) {
    Cannot(op, seen.hung ? "it hangs on this KVM" : reason);
  }

  void Cannot(Op op, std::string reason) {
    const auto n = static_cast<uint8_t>(op);
    if (!platform_.can[n]) return;
    platform_.can.reset(n);
    platform_.cannot.emplace_back(n, std::move(reason));
  }

  // Without guest code at CPL 3 there is nothing to run.
  bool GuestRuns() {
    if (!Program().Guest(Op::kFninit, 3, kFninit).Run(run_).dead) return true;
    const auto cannot = [this](Op first, Op last) {
      for (auto op = static_cast<unsigned>(first); op <= static_cast<unsigned>(last); ++op) {
        Cannot(static_cast<Op>(op), "this KVM can't run guest code at CPL 3 in long mode");
      }
    };
    cannot(Op::kFninit, Op::kExitPageFault);
    cannot(Op::kLdtilecfg, Op::kTdpbuud);
    return false;
  }

  // A fault is an answer; an end of the vCPU is not.
  void Privileged() {
    const std::string emulated = "this KVM can't run it at CPL 0 (KVM_EXIT_INTERNAL_ERROR)";
    const auto check = [&](Op op, const Code& code) {
      const Outcome seen = Program().Guest(op, 0, code).Run(run_);
      if (seen.dead) Cannot(op, seen, emulated);
    };
    check(Op::kXsetbv, Ecx(0, {0xb8, 3, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x01, 0xd1}));
    check(Op::kXsaves, Supervisor(5));
    check(Op::kXrstors, Supervisor(3));
    check(Op::kRdmsr, Ecx(program::MsrIndex(program::Msr::kXss), {0x0f, 0x32}));
    check(Op::kWrmsr,
          Ecx(program::MsrIndex(program::Msr::kXss), {0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30}));
    check(Op::kCr0Ts, kSetTs);
    check(Op::kCr4Bit, ClearCr4(18));
    check(Op::kExitHlt, {0xf4});
    check(Op::kExitMsr, Ecx(plan::kExitMsrIndex, {0x0f, 0x32}));
  }

  // Set at CPL 0, do they rule at CPL 3?
  void ControlRegisters() {
    const auto ts = Program().Guest(Op::kCr0Ts, 0, kSetTs).Guest(Op::kFninit, 3, kFninit);
    if (Tiny(ts).Run(run_).fault != 7) {
      Cannot(Op::kCr0Ts, "this KVM's guests don't heed their CR0.TS at CPL 3");
    }
    const auto osxsave =
        Program().Guest(Op::kCr4Bit, 0, ClearCr4(18)).Guest(Op::kXgetbv, 3, Xgetbv());
    const auto osfxsr = Program()
                            .Guest(Op::kCr4Bit, 0, ClearCr4(9))
                            .Guest(Op::kSseLoad, 3, MovupsLoad(plan::kSlotBase));
    if (Tiny(osxsave).Run(run_).fault != 6 || Tiny(osfxsr).Run(run_).fault != 6) {
      Cannot(Op::kCr4Bit, "this KVM's guests don't heed their CR4 at CPL 3");
    }
  }

  void Xcr0() {
    const uint64_t few = host_.guest_components == 3 ? 1 : 3;
    const Outcome seen = Program().Xcr0(few).Guest(Op::kXgetbv, 3, Xgetbv(), true).Run(run_);
    platform_.xcr0_loaded = seen.journal == few;
  }

  void Exits() {
    const auto expect = [&](Op op, unsigned cpl, const Code& code, uint32_t reason,
                            unsigned count) {
      const Outcome seen = Program().Guest(op, cpl, code).Run(run_);
      if (seen.dead) {
        Cannot(op, seen, "this KVM can't run it (KVM_EXIT_INTERNAL_ERROR)");
      } else if (seen.exit != reason || seen.exits != count) {
        Cannot(op, "it does not exit to the VMM on this KVM");
      }
    };
    const uint64_t mmio = plan::kMmioBase;
    expect(Op::kExitOut, 3, {0xb8, 0, 0, 0, 0, 0xe7, static_cast<uint8_t>(plan::kExitPort)},
           KVM_EXIT_IO, 1);
    expect(Op::kExitMmioRead, 3, At({0x8b, 0x04, 0x25}, mmio), KVM_EXIT_MMIO, 1);
    expect(Op::kExitMmioWrite, 3, At({0x89, 0x04, 0x25}, mmio), KVM_EXIT_MMIO, 1);
    expect(Op::kExitMmioVector, 3, Vector(false, mmio), KVM_EXIT_MMIO, 2);
    expect(Op::kExitMmioVector, 3, Vector(true, mmio), KVM_EXIT_MMIO, 2);
    if (platform_.can[static_cast<uint8_t>(Op::kExitHlt)]) {
      expect(Op::kExitHlt, 0, {0xf4}, KVM_EXIT_HLT, 1);
    }
    if (!host_.msr_exits) {
      Cannot(Op::kExitMsr, "KVM_CAP_X86_USER_SPACE_MSR is missing: Linux 5.10 has it");
    } else if (platform_.can[static_cast<uint8_t>(Op::kExitMsr)]) {
      expect(Op::kExitMsr, 0, Ecx(plan::kExitMsrIndex, {0x0f, 0x32}), KVM_EXIT_X86_RDMSR, 1);
    }
    const Outcome fault =
        Program().Guest(Op::kExitPageFault, 3, At({0x8b, 0x04, 0x25}, plan::kAbsentBase)).Run(run_);
    if (fault.fault != 14) Cannot(Op::kExitPageFault, "no #PF reaches the guest's handler");
  }

  void Vmm() {
    if (!host_.xsave2) Cannot(Op::kGetXsave2, "KVM_CAP_XSAVE2 is missing: Linux 5.17 has it");
    if (!host_.xcrs) {
      Cannot(Op::kGetXcrs, "KVM_CAP_XCRS is missing");
      Cannot(Op::kSetXcrs, "KVM_CAP_XCRS is missing");
      Cannot(Op::kSetXcrsList, "KVM_CAP_XCRS is missing");
    }
    const Outcome init = Program().Vmm(Op::kInit).Guest(Op::kFninit, 3, kFninit).Run(run_);
    if (init.dead || init.refused) {
      Cannot(Op::kInit, init,
             "KVM_SET_VCPU_EVENTS does not latch an INIT here, or the vCPU can't go on "
             "after it");
    }
    const Outcome moved = Program().Vmm(Op::kMigrate).Guest(Op::kFninit, 3, kFninit).Run(run_);
    if (moved.dead || moved.refused) {
      Cannot(Op::kMigrate, moved, "a vCPU's state can't be read and set into another one here");
    }
    if (!platform_.host.pku || (platform_.host_xcr0 & 0x200) == 0) {
      Cannot(Op::kHostPkru, "the host has no protection keys");
    }
  }

  Host& host_;
  trace::Platform& platform_;
  const Runner& run_;
};

}  // namespace

void ProbeSteps(Host& host, trace::Platform& platform, const Runner& run) {
  StepProbe(host, platform, run).All();
}

}  // namespace fpswap::kvm
