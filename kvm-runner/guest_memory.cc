// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/guest_memory.h"

#include <cstring>

#include "harness/program/program.h"

namespace fpswap::kvm {
namespace {

using program::Op;

// The pages of the system region.
constexpr uint64_t kPage = 0x1000;
constexpr uint64_t kPml4 = plan::kSystemBase;
constexpr uint64_t kPdpt = kPml4 + kPage;
constexpr uint64_t kPd = kPml4 + 2 * kPage;
constexpr uint64_t kGuestPt = kPml4 + 3 * kPage;
constexpr uint64_t kMmioPt = kPml4 + 4 * kPage;
constexpr uint64_t kGdt = kPml4 + 5 * kPage;
constexpr uint64_t kIdt = kPml4 + 6 * kPage;
constexpr uint64_t kStubs = kPml4 + 7 * kPage;
constexpr uint64_t kTss = kPml4 + 8 * kPage;     // one each 256 bytes
constexpr uint64_t kStacks = kPml4 + 9 * kPage;  // a page for each vCPU
constexpr uint64_t kUserStack = plan::kSlotBase + plan::kSlotSize * program::kSlotCount;
static_assert(kStacks + program::kMaxVcpus * kPage <= plan::kSystemBase + plan::kSystemSize);
static_assert(kUserStack + program::kMaxVcpus * kPage <= plan::kJournalBase);

constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4;
constexpr uint64_t kAccessed = 0x20, kDirty = 0x40;  // set, so that no walk has to write them

constexpr uint16_t kKernelCs = 0x08, kKernelSs = 0x10, kUserSs = 0x18 | 3, kUserCs = 0x20 | 3;
constexpr uint16_t kTssSelector = 0x28;  // 16 bytes for each vCPU
constexpr unsigned kTssStride = 256;
constexpr uint16_t kTssLimit = 0x67;
constexpr unsigned kVectors = 32;
constexpr unsigned kStubSize = 16;

constexpr uint64_t StackTop(unsigned vcpu) { return kStacks + (vcpu + 1) * kPage; }
// Below the exception stack's top half: code at CPL 0 begins here.
constexpr uint64_t KernelStackTop(unsigned vcpu) { return kStacks + vcpu * kPage + kPage / 2; }
constexpr uint64_t UserStackTop(unsigned vcpu) { return kUserStack + (vcpu + 1) * kPage; }

constexpr bool HasErrorCode(uint8_t vector) {  // SDM vol. 3, table 6-1
  constexpr uint32_t kWith = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 |
                             1u << 17 | 1u << 21 | 1u << 29 | 1u << 30;
  return vector < 32 && ((kWith >> vector) & 1) != 0;
}

void Put64(uint8_t* at, uint64_t value) { std::memcpy(at, &value, sizeof(value)); }

// Rights of the page of guest memory at `address`.
uint64_t RightsOf(uint64_t address) {
  if (address < plan::kCodeBase) return kWritable;
  if (address < plan::kSlotBase) return kUser;  // code and literals: nobody writes
  return kUser | kWritable;
}

// The slot that a guest step writes or reads, or none.
bool TouchesSlot(Op op) {
  switch (op) {
    case Op::kXsave:
    case Op::kXsavec:
    case Op::kXsaveopt:
    case Op::kXsaves:
    case Op::kXrstor:
    case Op::kXrstors:
    case Op::kFxsave:
    case Op::kFxrstor:
    case Op::kMemWrite:
    case Op::kMemFill:
    case Op::kMemHeader:
      return true;
    default:
      return false;
  }
}

void Clear(uint8_t* from, uint64_t size) { std::memset(from, 0, size); }

}  // namespace

GuestMemory::GuestMemory() : mapping_(plan::kGuestSize) {
  if (!mapping_.ok()) return;
  BuildPageTables();
  BuildDescriptors();
}

void GuestMemory::BuildPageTables() {
  constexpr uint64_t kTable = kPresent | kWritable | kUser | kAccessed;
  const auto entry = [this](uint64_t table, uint64_t address, unsigned shift, uint64_t value) {
    Put64(At(table) + ((address >> shift) & 511) * 8, value);
  };
  entry(kPml4, plan::kGuestBase, 39, kPdpt | kTable);
  entry(kPdpt, plan::kGuestBase, 30, kPd | kTable);
  entry(kPd, plan::kGuestBase, 21, kGuestPt | kTable);
  entry(kPd, plan::kMmioBase, 21, kMmioPt | kTable);
  static_assert(plan::kMmioBase >> 30 == plan::kGuestBase >> 30 && plan::kGuestSize <= uint64_t{1}
                                                                                           << 21);
  for (uint64_t a = plan::kGuestBase; a < plan::kGuestBase + plan::kGuestSize; a += kPage) {
    entry(kGuestPt, a, 12, a | kPresent | kAccessed | kDirty | RightsOf(a));
  }
  entry(kMmioPt, plan::kMmioBase, 12,
        plan::kMmioBase | kPresent | kWritable | kUser | kAccessed | kDirty);
}

void GuestMemory::BuildDescriptors() {
  // Access bytes: present, DPL, code or data, accessed; code is long (L), data 32-bit (D/B).
  Put64(At(kGdt + kKernelCs), 0x00af9b000000ffff);
  Put64(At(kGdt + kKernelSs), 0x00cf93000000ffff);
  Put64(At(kGdt + (kUserSs & ~3)), 0x00cff3000000ffff);
  Put64(At(kGdt + (kUserCs & ~3)), 0x00affb000000ffff);
  for (unsigned i = 0; i < program::kMaxVcpus; ++i) {
    const uint64_t tss = kTss + i * kTssStride;
    uint8_t* descriptor = At(kGdt + kTssSelector + 16 * i);
    Put64(descriptor,
          kTssLimit | (tss & 0xffffff) << 16 | uint64_t{0x8b} << 40 | (tss >> 24 & 0xff) << 56);
    Put64(descriptor + 8, tss >> 32);
    Put64(At(tss) + 4, StackTop(i));   // RSP0
    Put64(At(tss) + 36, StackTop(i));  // IST 1
  }
  for (unsigned v = 0; v < kVectors; ++v) {
    const uint64_t stub = kStubs + v * kStubSize;
    // DPL 0: INT n from CPL 3 is a #GP of its own.
    Put64(At(kIdt) + 16 * v, (stub & 0xffff) | uint64_t{kKernelCs} << 16 | uint64_t{1} << 32 |
                                 uint64_t{0x8e} << 40 | (stub >> 16 & 0xffff) << 48);
    Put64(At(kIdt) + 16 * v + 8, stub >> 32);
    const uint8_t code[] = {0xb0, static_cast<uint8_t>(v),                 // mov al, v
                            0xe6, static_cast<uint8_t>(plan::kFaultPort),  // out port, al
                            0x0f, 0x0b};                                   // ud2: never resumed
    std::memcpy(At(stub), code, sizeof(code));
  }
}

void GuestMemory::Load(const wire::PlanView& plan, std::optional<unsigned> vcpu) {
  bool raw = false;
  unsigned slots = 0;
  for (const auto& step : plan.steps) {
    if (vcpu && step.vcpu != *vcpu) continue;
    raw |= step.op == Op::kRaw;
    if (TouchesSlot(step.op)) slots |= 1u << (step.arg[0] % program::kSlotCount);
  }
  if (raw) {
    // Raw code may read anything: no byte of another program may be there.
    Clear(At(plan::kCodeBase), plan::kGuestSize - (plan::kCodeBase - plan::kGuestBase));
  }
  for (unsigned i = 0; !raw && i < program::kSlotCount; ++i) {
    if ((slots >> i & 1) != 0) Clear(At(plan::kSlotBase + i * plan::kSlotSize), plan::kSlotSize);
  }
  // A step may complete and store nothing (FSTP with an unmasked stack underflow).
  for (const wire::PlanCode& row : plan.rows) {
    if (!raw) Clear(At(plan::kJournalBase + row.journal), row.journal_bytes);
  }
  std::memcpy(At(plan::kCodeBase), plan.code.data(), plan.code.size());
  std::memcpy(At(plan::kLiteralBase), plan.literals.data(), plan.literals.size());
}

ExceptionFrame GuestMemory::Frame(unsigned vcpu, uint8_t vector) const {
  // [error code,] RIP, CS, RFLAGS, RSP, SS end at the stack's top.
  ExceptionFrame frame;
  const uint8_t* top = At(StackTop(vcpu) - 40);
  std::memcpy(&frame.rip, top, sizeof(frame.rip));
  if (HasErrorCode(vector)) std::memcpy(&frame.error_code, top - 8, sizeof(frame.error_code));
  return frame;
}

void SetCpl(kvm_sregs& sregs, unsigned cpl) {
  const auto dpl = static_cast<uint8_t>(cpl);
  sregs.cs = {.base = 0,
              .limit = 0xffffffff,
              .selector = cpl == 3 ? kUserCs : kKernelCs,
              .type = 11,
              .present = 1,
              .dpl = dpl,
              .db = 0,
              .s = 1,
              .l = 1,
              .g = 1};
  sregs.ss = {.base = 0,
              .limit = 0xffffffff,
              .selector = cpl == 3 ? kUserSs : kKernelSs,
              .type = 3,
              .present = 1,
              .dpl = dpl,
              .db = 1,
              .s = 1,
              .l = 0,
              .g = 1};
}

void MakeLongMode(kvm_sregs& sregs, unsigned vcpu, uint64_t cr4) {
  SetCpl(sregs, 3);
  kvm_segment data = sregs.ss;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = data;
  sregs.tr = {.base = kTss + vcpu * kTssStride,
              .limit = kTssLimit,
              .selector = static_cast<uint16_t>(kTssSelector + 16 * vcpu),
              .type = 11,
              .present = 1,
              .dpl = 0,
              .db = 0,
              .s = 0,
              .l = 0,
              .g = 0};
  sregs.ldt = {.limit = 0xffff, .type = 2, .present = 0, .unusable = 1};
  sregs.gdt = {.base = kGdt,
               .limit = static_cast<uint16_t>(kTssSelector + 16 * program::kMaxVcpus - 1)};
  sregs.idt = {.base = kIdt, .limit = 16 * kVectors - 1};
  sregs.cr0 = 0x80050033;  // PG, AM, WP, NE, ET, MP, PE: as Linux has it
  sregs.cr2 = 0;
  sregs.cr3 = kPml4;
  sregs.cr4 = 0x20 | cr4;  // PAE
  sregs.cr8 = 0;
  sregs.efer = 0x500;  // LMA, LME
}

kvm_regs RegsAt(uint64_t rip, unsigned vcpu, unsigned cpl) {
  kvm_regs regs{};
  regs.rip = rip;
  regs.rsp = cpl == 3 ? UserStackTop(vcpu) : KernelStackTop(vcpu);
  regs.rflags = cpl == 3 ? 0x3002 : 0x2;  // IOPL 3: OUT at CPL 3 is an exit
  return regs;
}

}  // namespace fpswap::kvm
