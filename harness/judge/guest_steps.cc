// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest steps of one instruction, as a table from operation to function. Faults come in the
// manual's order: the CPU's own (#UD, #NM, #MF) first, then #PF for the operand, then what the
// operand's value gives (#GP of LDMXCSR).
#include <cstring>

#include "harness/judge/context.h"

namespace fpswap::judge {
namespace {

using cpu::Cpu;
using program::Op;
using Encoding = Cpu::Encoding;

Outcome Done(const cpu::Result& fault, const char* rule) {
  Outcome o;
  o.fault = fault;
  o.rule = rule;
  return o;
}

Outcome Faulting(const PageFault& page) {
  Outcome o;
  o.page = page;
  o.rule = "SDM vol. 3, 4.6.2: protection keys";
  return o;
}

unsigned Arg(const Context& c, unsigned i) { return static_cast<unsigned>(c.step.arg[i]); }

std::span<const uint8_t> Pattern(Context& c, unsigned arg, size_t bytes) {
  const auto out = std::span(c.scratch).first(bytes);
  program::FillPattern(static_cast<uint16_t>(c.step.arg[arg]), out);
  return out;
}

uint64_t PatternWord(Context& c, unsigned arg) {
  uint64_t value;
  std::memcpy(&value, Pattern(c, arg, 8).data(), 8);
  return value;
}

// An instruction that stores `bytes` of a register straight into the journal.
Outcome Store(Context& c, const cpu::Result& fault, const void* value, size_t bytes,
              const char* rule) {
  if (fault) return Done(fault, rule);
  if (const PageFault page = JournalFault(c); page.errors != 0) return Faulting(page);
  std::memcpy(c.scratch.data(), value, bytes);
  Outcome o;
  o.journal = std::span(c.scratch).first(bytes);
  o.rule = rule;
  return o;
}

// An instruction that gives a value in general registers, copied to the journal afterwards (that
// copy is CompareGuest's to judge).
Outcome Give(Context& c, const cpu::Result& fault, uint64_t value, size_t bytes, const char* rule) {
  if (fault) return Done(fault, rule);
  std::memcpy(c.scratch.data(), &value, bytes);
  Outcome o;
  o.journal = std::span(c.scratch).first(bytes);
  o.rule = rule;
  return o;
}

constexpr char kX87Rule[] = "SDM vol. 1, 8: x87 FPU";
constexpr char kMmxRule[] = "SDM vol. 3, 12: MMX";
constexpr char kSseRule[] = "SDM vol. 2, 2.4: SSE and AVX";
constexpr char kAvx512Rule[] = "SDM vol. 2, 2.6: AVX-512";
constexpr char kPkruRule[] = "SDM vol. 2: RDPKRU, WRPKRU";
constexpr char kMpxRule[] = "SDM vol. 1, appendix E: MPX";
constexpr char kXcrRule[] = "SDM vol. 1, 13.3: XCR0";
constexpr char kMsrRule[] = "SDM vol. 1, 13.3, 13.14 and 17.2: IA32_XSS, IA32_XFD, CET";
constexpr char kCrRule[] = "SDM vol. 3, 2.5: control registers";

// --- x87
// -------------------------------------------------------------------------------------------

Outcome Fldcw(Context& c) {
  if (const auto fault = c.cpu.CheckX87(true)) return Done(fault, kX87Rule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  return Done(c.cpu.Fldcw(static_cast<uint16_t>(c.step.arg[0])), kX87Rule);
}

Outcome Fld(Context& c) {
  if (const auto fault = c.cpu.CheckX87(true)) return Done(fault, kX87Rule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  const auto bytes = Pattern(c, 0, 10);
  return Done(c.cpu.FldTbyte(bytes.first<10>(), c.rip()), kX87Rule);
}

Outcome Fstp(Context& c) {
  if (const auto fault = c.cpu.CheckX87(true)) return Done(fault, kX87Rule);
  if (const PageFault page = JournalFault(c); page.errors != 0) return Faulting(page);
  const unsigned top = c.cpu.regs.x87.Top();
  const auto out = std::span(c.scratch).first<10>();
  Outcome o = Done(c.cpu.FstpTbyte(out, c.rip()), kX87Rule);
  o.journal = out;
  // An unmasked stack fault stores and pops nothing.
  o.journal_open = c.cpu.regs.x87.Top() == top;
  return o;
}

Outcome Fnstcw(Context& c) {
  return Store(c, c.cpu.CheckX87(false), &c.cpu.regs.x87.fcw, 2, kX87Rule);
}

Outcome Fnstsw(Context& c) {
  const auto& x87 = c.cpu.regs.x87;
  const auto fsw = static_cast<uint16_t>((x87.fsw & 0x7f7f) | (x87.ErrorSummary() ? 0x8080 : 0));
  return Store(c, c.cpu.CheckX87(false), &fsw, 2, kX87Rule);
}

Outcome MmxMovq(Context& c) {
  if (const auto fault = c.cpu.CheckVector(Encoding::kMmx)) return Done(fault, kMmxRule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  return Done(c.cpu.MmxMovq(Arg(c, 0), PatternWord(c, 1)), kMmxRule);
}

Outcome MmxStore(Context& c) {
  if (const auto fault = c.cpu.CheckVector(Encoding::kMmx)) return Done(fault, kMmxRule);
  if (const PageFault page = JournalFault(c); page.errors != 0) return Faulting(page);
  uint64_t value = 0;
  const auto fault = c.cpu.MmxRead(Arg(c, 0), &value);
  return Store(c, fault, &value, 8, kMmxRule);
}

// --- vectors
// ---------------------------------------------------------------------------------------

template <Encoding kEncoding, size_t kBytes>
Outcome VectorLoad(Context& c) {
  constexpr const char* kRule = kEncoding >= Encoding::kEvex128 ? kAvx512Rule : kSseRule;
  if (const auto fault = c.cpu.CheckVector(kEncoding)) return Done(fault, kRule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  return Done(c.cpu.WriteVector(kEncoding, Arg(c, 0), Pattern(c, 1, kBytes)), kRule);
}

template <Encoding kEncoding, size_t kBytes>
Outcome VectorStore(Context& c) {
  return Store(c, c.cpu.CheckVector(kEncoding), c.cpu.regs.zmm[Arg(c, 0)].data(), kBytes,
               kEncoding >= Encoding::kEvex128 ? kAvx512Rule : kSseRule);
}

// dst := f(a, b), word by word.
template <Encoding kEncoding, size_t kBytes, typename F>
Outcome VectorCompute(Context& c, unsigned dst, unsigned a, unsigned b, F f) {
  std::array<uint64_t, kBytes / 8> x, y;
  std::memcpy(x.data(), c.cpu.regs.zmm[a].data(), kBytes);
  std::memcpy(y.data(), c.cpu.regs.zmm[b].data(), kBytes);
  for (size_t i = 0; i < x.size(); ++i) x[i] = f(x[i], y[i]);
  const std::span<const uint8_t> result(reinterpret_cast<const uint8_t*>(x.data()), kBytes);
  return Done(c.cpu.WriteVector(kEncoding, dst, result), kSseRule);
}

uint64_t Xor(uint64_t a, uint64_t b) { return a ^ b; }

Outcome Pxor(Context& c) {
  return VectorCompute<Encoding::kSse, 16>(c, Arg(c, 0), Arg(c, 0), Arg(c, 1), Xor);
}
Outcome Paddq(Context& c) {
  return VectorCompute<Encoding::kSse, 16>(c, Arg(c, 0), Arg(c, 0), Arg(c, 1),
                                           [](uint64_t a, uint64_t b) { return a + b; });
}
Outcome Vpxor256(Context& c) {
  return VectorCompute<Encoding::kVex256, 32>(c, Arg(c, 0), Arg(c, 1), Arg(c, 2), Xor);
}
Outcome Vpxorq512(Context& c) {
  return VectorCompute<Encoding::kEvex512, 64>(c, Arg(c, 0), Arg(c, 1), Arg(c, 2), Xor);
}

Outcome Pshufd(Context& c) {
  std::array<uint32_t, 4> in, out;
  std::memcpy(in.data(), c.cpu.regs.zmm[Arg(c, 1)].data(), 16);
  for (unsigned i = 0; i < 4; ++i) out[i] = in[(c.step.arg[2] >> (2 * i)) & 3];
  const std::span<const uint8_t> result(reinterpret_cast<const uint8_t*>(out.data()), 16);
  return Done(c.cpu.WriteVector(Encoding::kSse, Arg(c, 0), result), kSseRule);
}

Outcome Ldmxcsr(Context& c) {
  if (const auto fault = c.cpu.CheckSse()) return Done(fault, kSseRule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  return Done(c.cpu.Ldmxcsr(static_cast<uint32_t>(c.step.arg[0])), kSseRule);
}

Outcome Stmxcsr(Context& c) { return Store(c, c.cpu.CheckSse(), &c.cpu.regs.mxcsr, 4, kSseRule); }

Outcome KmovLoad(Context& c) {
  if (const auto fault = c.cpu.CheckOpmask()) return Done(fault, kAvx512Rule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  return Done(c.cpu.WriteOpmask(Arg(c, 0), PatternWord(c, 1)), kAvx512Rule);
}

Outcome KmovStore(Context& c) {
  return Store(c, c.cpu.CheckOpmask(), &c.cpu.regs.k[Arg(c, 0)], 8, kAvx512Rule);
}

Outcome Kxor(Context& c) {
  const auto& k = c.cpu.regs.k;
  return Done(c.cpu.WriteOpmask(Arg(c, 0), k[Arg(c, 1)] ^ k[Arg(c, 2)]), kAvx512Rule);
}

// --- MPX, PKRU
// -------------------------------------------------------------------------------------

// MPX instructions are NOPs unless XCR0 has MPX and BNDCFGU.EN is set; at CPL 0 it is BNDCFGS,
// which nothing here sets (SDM vol. 1, E.3).
bool MpxActs(const Context& c) {
  return c.cpu.features->mpx && c.cpu.cr4_osxsave && (c.cpu.xcr0 & xstate::kMpx) == xstate::kMpx &&
         c.cpu.cpl == 3 && (c.cpu.regs.bndcfgu & 1) != 0;
}

Outcome BndmovLoad(Context& c) {
  if (!MpxActs(c)) return Done(std::nullopt, kMpxRule);
  if (const PageFault page = LiteralFault(c); page.errors != 0) return Faulting(page);
  c.cpu.Touch(xstate::Component::kBndregs);
  std::memcpy(c.cpu.regs.bnd[Arg(c, 0)].data(), Pattern(c, 1, 16).data(), 16);
  return Done(std::nullopt, kMpxRule);
}

Outcome BndmovStore(Context& c) {
  if (MpxActs(c)) return Store(c, std::nullopt, c.cpu.regs.bnd[Arg(c, 0)].data(), 16, kMpxRule);
  Outcome o = Done(std::nullopt, kMpxRule);
  o.journal = std::span(c.scratch).first(16);
  o.journal_open = true;
  return o;
}

Outcome Wrpkru(Context& c) {
  return Done(c.cpu.Wrpkru(0, 0, static_cast<uint32_t>(c.step.arg[0])), kPkruRule);
}

Outcome Rdpkru(Context& c) {
  uint32_t value = 0;
  const auto fault = c.cpu.Rdpkru(0, &value);
  return Give(c, fault, value, 4, kPkruRule);
}

// --- system registers
// ------------------------------------------------------------------------------

// Takes XINUSE of initial components from the value that XGETBV(1) was seen to give.
class SeenXinuse final : public cpu::Choices {
 public:
  explicit SeenXinuse(std::span<const uint8_t> journal) {
    if (journal.size() >= 8) std::memcpy(&seen_, journal.data(), 8);
  }
  bool InitialIsInUse(xstate::Component component) override {
    return (seen_ & xstate::Bit(component)) != 0;
  }
  bool OmitUnmodified(xstate::Component) override { return false; }
  void ResolvePointers(cpu::X87&) override {}
  uint64_t seen() const { return seen_; }

 private:
  uint64_t seen_ = 0;
};

Outcome Xsetbv(Context& c) {
  return Done(c.cpu.Xsetbv(static_cast<uint32_t>(c.step.arg[0]), c.step.arg[1]), kXcrRule);
}

Outcome Xgetbv(Context& c) {
  SeenXinuse choices(c.journal());
  // What IA32_XFD disables is gone once the host has saved the state (see Walk::BranchTiles), at a
  // moment of the host's own choosing; here it shows before IA32_XFD lets it go.
  const uint64_t gone = c.cpu.xfd & c.cpu.xcr0 & ~choices.seen();
  for (const xstate::ComponentRow& row : xstate::Rows()) {
    if ((gone & xstate::Bit(row.id)) != 0 && c.journal().size() >= 8) c.cpu.Initialise(row.id);
  }
  uint64_t value = 0;
  const auto fault = c.cpu.Xgetbv(static_cast<uint32_t>(c.step.arg[0]), &value, choices);
  return Give(c, fault, value, 8, kXcrRule);
}

uint32_t MsrOf(const Context& c) {
  return program::MsrIndex(static_cast<program::Msr>(c.step.arg[0]));
}

Outcome Rdmsr(Context& c) {
  uint64_t value = 0;
  const auto fault = c.cpu.Rdmsr(MsrOf(c), &value);
  return Give(c, fault, value, 8, kMsrRule);
}

Outcome Wrmsr(Context& c) { return Done(c.cpu.Wrmsr(MsrOf(c), c.step.arg[1]), kMsrRule); }

Outcome Cr0Ts(Context& c) { return Done(c.cpu.MovCr0Ts(c.step.arg[0] != 0), kCrRule); }

// MOV to CR4: #GP for a bit the CPU does not have (SDM vol. 3, 2.5).
Outcome Cr4Bit(Context& c) {
  const bool on = c.step.arg[1] != 0;
  switch (static_cast<program::Cr4Bit>(c.step.arg[0])) {
    case program::Cr4Bit::kOsfxsr:
      c.cpu.cr4_osfxsr = on;
      break;
    case program::Cr4Bit::kOsxsave:
      if (on && c.cpu.features->xsave.xcr0 == 0) return Done(cpu::Fault{cpu::kGP, 0}, kCrRule);
      c.cpu.cr4_osxsave = on;
      break;
    case program::Cr4Bit::kPke:
      if (on && !c.cpu.features->pku) return Done(cpu::Fault{cpu::kGP, 0}, kCrRule);
      c.cpu.cr4_pke = on;
      break;
  }
  return Done(std::nullopt, kCrRule);
}

// --- the table
// -------------------------------------------------------------------------------------

struct FunctionRow {
  Op op;
  GuestFunction function;
};

constexpr FunctionRow kFunctions[] = {
    {Op::kFninit, [](Context& c) { return Done(c.cpu.Fninit(), kX87Rule); }},
    {Op::kFnclex, [](Context& c) { return Done(c.cpu.Fnclex(), kX87Rule); }},
    {Op::kFldcw, Fldcw},
    {Op::kFldTbyte, Fld},
    {Op::kFstpTbyte, Fstp},
    {Op::kFxch, [](Context& c) { return Done(c.cpu.Fxch(Arg(c, 0), c.rip()), kX87Rule); }},
    {Op::kFchs, [](Context& c) { return Done(c.cpu.Fchs(c.rip()), kX87Rule); }},
    {Op::kFfree, [](Context& c) { return Done(c.cpu.Ffree(Arg(c, 0)), kX87Rule); }},
    {Op::kFincstp, [](Context& c) { return Done(c.cpu.Fincstp(), kX87Rule); }},
    {Op::kFdecstp, [](Context& c) { return Done(c.cpu.Fdecstp(), kX87Rule); }},
    {Op::kFnstcw, Fnstcw},
    {Op::kFnstsw, Fnstsw},
    {Op::kMmxMovq, MmxMovq},
    {Op::kMmxStore, MmxStore},
    {Op::kMmxPxor, [](Context& c) { return Done(c.cpu.MmxPxor(Arg(c, 0), Arg(c, 1)), kMmxRule); }},
    {Op::kEmms, [](Context& c) { return Done(c.cpu.Emms(), kMmxRule); }},
    {Op::kSseLoad, VectorLoad<Encoding::kSse, 16>},
    {Op::kSseStore, VectorStore<Encoding::kSse, 16>},
    {Op::kLdmxcsr, Ldmxcsr},
    {Op::kStmxcsr, Stmxcsr},
    {Op::kSsePxor, Pxor},
    {Op::kSsePaddq, Paddq},
    {Op::kSsePshufd, Pshufd},
    {Op::kVexLoad128, VectorLoad<Encoding::kVex128, 16>},
    {Op::kVexLoad256, VectorLoad<Encoding::kVex256, 32>},
    {Op::kVexStore256, VectorStore<Encoding::kVex256, 32>},
    {Op::kVexPxor256, Vpxor256},
    {Op::kVzeroupper, [](Context& c) { return Done(c.cpu.Vzeroupper(), kSseRule); }},
    {Op::kVzeroall, [](Context& c) { return Done(c.cpu.Vzeroall(), kSseRule); }},
    {Op::kEvexLoad128, VectorLoad<Encoding::kEvex128, 16>},
    {Op::kEvexLoad256, VectorLoad<Encoding::kEvex256, 32>},
    {Op::kEvexLoad512, VectorLoad<Encoding::kEvex512, 64>},
    {Op::kEvexStore512, VectorStore<Encoding::kEvex512, 64>},
    {Op::kEvexPxor512, Vpxorq512},
    {Op::kKmovLoad, KmovLoad},
    {Op::kKmovStore, KmovStore},
    {Op::kKxor, Kxor},
    {Op::kBndmovLoad, BndmovLoad},
    {Op::kBndmovStore, BndmovStore},
    {Op::kWrpkru, Wrpkru},
    {Op::kRdpkru, Rdpkru},
    {Op::kXsave, [](Context& c) { return StepXsave(c, cpu::SaveForm::kXsave); }},
    {Op::kXsavec, [](Context& c) { return StepXsave(c, cpu::SaveForm::kXsavec); }},
    {Op::kXsaveopt, [](Context& c) { return StepXsave(c, cpu::SaveForm::kXsaveopt); }},
    {Op::kXsaves, [](Context& c) { return StepXsave(c, cpu::SaveForm::kXsaves); }},
    {Op::kXrstor, [](Context& c) { return StepXrstor(c, false); }},
    {Op::kXrstors, [](Context& c) { return StepXrstor(c, true); }},
    {Op::kFxsave, StepFxsave},
    {Op::kFxrstor, StepFxrstor},
    {Op::kMemWrite, StepMemory},
    {Op::kMemFill, StepMemory},
    {Op::kMemHeader, StepMemory},
    {Op::kXsetbv, Xsetbv},
    {Op::kXgetbv, Xgetbv},
    {Op::kRdmsr, Rdmsr},
    {Op::kWrmsr, Wrmsr},
    {Op::kCr0Ts, Cr0Ts},
    {Op::kCr4Bit, Cr4Bit},
    {Op::kExitOut, StepExit},
    {Op::kExitMmioRead, StepExit},
    {Op::kExitMmioWrite, StepExit},
    {Op::kExitMmioVector, StepExit},
    {Op::kExitCpuid, StepExit},
    {Op::kExitHlt, StepExit},
    {Op::kExitMsr, StepExit},
    {Op::kExitPageFault, StepExit},
    {Op::kLdtilecfg, StepAmx},
    {Op::kSttilecfg, StepAmx},
    {Op::kTileloadd, StepAmx},
    {Op::kTilestored, StepAmx},
    {Op::kTilezero, StepAmx},
    {Op::kTilerelease, StepAmx},
    {Op::kTdpbssd, StepAmx},
    {Op::kTdpbsud, StepAmx},
    {Op::kTdpbusd, StepAmx},
    {Op::kTdpbuud, StepAmx},
};

constexpr std::array<GuestFunction, 256> kByOp = [] {
  std::array<GuestFunction, 256> table{};
  for (const FunctionRow& row : kFunctions) table[static_cast<uint8_t>(row.op)] = row.function;
  return table;
}();

}  // namespace

GuestFunction GuestFunctionOf(Op op) { return kByOp[static_cast<uint8_t>(op)]; }

PageFault PkruFault(const Context& c, bool reads, bool writes, uint64_t begin, uint64_t end) {
  // A KVM that runs CPL 3 on the CPU under the host's CR4 emulates CPL 0, by the guest's own.
  if (c.host_pke && c.cpu.cpl == 0) return {};
  PageFault page;
  page.begin = begin;
  page.end = end;
  constexpr uint32_t kPresent = 1, kWrite = 2, kUser = 4;
  const uint32_t error = kPresent | kPfPk | (c.cpu.cpl == 3 ? kUser : 0);
  if (reads && c.cpu.PkruDenies(false)) page.error[page.errors++] = error;
  if (writes && c.cpu.PkruDenies(true)) page.error[page.errors++] = error | kWrite;
  return page;
}

}  // namespace fpswap::judge
