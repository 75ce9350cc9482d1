// SPDX-License-Identifier: GPL-2.0-or-later
//
// Compares what was seen of a guest step with what a world has. Every record of the step is looked
// at, the missing and the superfluous ones too.
#include <cstring>

#include "harness/judge/context.h"

namespace fpswap::judge {
namespace {

bool Fail(Mismatch& m, Relation relation, const char* what, const char* rule) {
  m.relation = relation;
  m.place = Place::kNone;
  m.what = what;
  m.rule = rule;
  return false;
}

bool FailValues(Mismatch& m, Relation relation, const char* what, const char* rule,
                uint64_t expected, uint64_t actual) {
  m.values = true;
  m.expected = expected;
  m.actual = actual;
  return Fail(m, relation, what, rule);
}

// Vector and error code in one number, as words tell them.
uint64_t FaultValue(uint8_t vector, uint32_t error) { return vector | uint64_t{error} << 8; }

bool CompareFault(const Context& c, uint8_t vector, std::span<const uint32_t> errors,
                  const PageFault* page, bool exact_rip, const char* rule, Mismatch& m) {
  if (!c.seen->has_fault) {
    return FailValues(m, Relation::kAccepted, kFault, rule, FaultValue(vector, errors[0]), 0);
  }
  trace::FaultRecord fault;
  trace::ReadHead(c.seen->fault, fault);
  bool right_error = false;
  for (const uint32_t error : errors) right_error |= fault.error_code == error;
  if (fault.vector != vector || !right_error) {
    return FailValues(m, Relation::kWrongError, exact_rip ? kFault : "fault of the journal", rule,
                      FaultValue(vector, errors[0]), FaultValue(fault.vector, fault.error_code));
  }
  // A fault points to its instruction. One in the copy to the journal lies behind that.
  const bool right_rip =
      exact_rip ? fault.rip == c.rip() : fault.rip > c.rip() && fault.rip - c.rip() < 256;
  if (!right_rip) {
    return FailValues(m, Relation::kWrongError, "RIP of the fault", rule, c.rip(), fault.rip);
  }
  if (page != nullptr && (fault.address < page->begin || fault.address >= page->end)) {
    return FailValues(m, Relation::kWrongError, "CR2 of the page fault", rule, page->begin,
                      fault.address);
  }
  if (c.seen->has_journal) {
    return Fail(m, Relation::kAccepted, "journal of a step that faulted", rule);
  }
  return true;
}

bool ComparePageFault(const Context& c, const PageFault& page, bool exact_rip, const char* rule,
                      Mismatch& m) {
  return CompareFault(c, cpu::kPF, std::span(page.error).first(page.errors), &page, exact_rip, rule,
                      m);
}

bool CompareExit(const ExpectedExit& expected, std::span<const uint8_t> bytes, const char* rule,
                 Mismatch& m) {
  trace::ExitRecord exit;
  trace::ReadHead(bytes, exit);
  const auto fail = [&](const char* what, uint64_t want, uint64_t got) {
    return FailValues(m, Relation::kWrongError, what, rule, want, got);
  };
  if (exit.reason != expected.reason) return fail("exit reason", expected.reason, exit.reason);
  if (exit.where != expected.where) return fail("exit address", expected.where, exit.where);
  if (expected.size != 0 && exit.size != expected.size) {
    return fail("exit size", expected.size, exit.size);
  }
  if ((exit.is_write != 0) != expected.is_write) {
    return fail("exit direction", expected.is_write, exit.is_write);
  }
  const uint64_t mask = exit.size >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * exit.size)) - 1;
  if (expected.is_write && ((exit.data ^ expected.data) & mask) != 0) {
    m.place = Place::kExit;
    m.rule = rule;
    std::array<uint8_t, 8> possible, seen;
    const uint64_t want = expected.data & mask, got = exit.data & mask;
    std::memcpy(possible.data(), &want, 8);
    std::memcpy(seen.data(), &got, 8);
    SameBytes(possible, seen, m);
    return false;
  }
  return true;
}

bool CompareExits(const Context& c, const Outcome& o, Mismatch& m) {
  if (c.seen->exits != o.exits) {
    return FailValues(m, c.seen->exits < o.exits ? Relation::kRefused : Relation::kAccepted,
                      "number of exits", o.rule, o.exits, c.seen->exits);
  }
  for (unsigned i = 0; i < o.exits; ++i) {
    if (!CompareExit(o.exit[i], c.seen->exit[i], o.rule, m)) return false;
  }
  return true;
}

bool CompareJournal(const Context& c, const Outcome& o, Mismatch& m) {
  const uint32_t size = c.row().journal_bytes;
  if (size == 0) {
    if (!c.seen->has_journal) return true;
    return Fail(m, Relation::kAccepted, "journal of a step that has none", o.rule);
  }
  if (!c.seen->has_journal || c.seen->journal.size() != size || o.journal.size() < size) {
    return Fail(m, Relation::kRefused, "journal", o.rule);
  }
  if (o.journal_open) return true;
  if (SameBytes(o.journal.first(size), c.seen->journal, m)) return true;
  m.place = o.place;
  m.rule = o.rule;
  return false;
}

}  // namespace

bool StoresDirectly(program::Op op) {
  switch (op) {
    case program::Op::kRdpkru:
    case program::Op::kXgetbv:
    case program::Op::kRdmsr:
    case program::Op::kExitMmioRead:
    case program::Op::kExitCpuid:
    case program::Op::kExitMsr:
      return false;
    default:
      return true;
  }
}

bool CompareGuest(Context& c, const Outcome& o, Mismatch& m) {
  if (c.seen == nullptr) return true;
  if (o.page.errors != 0) return ComparePageFault(c, o.page, true, o.rule, m);
  if (o.fault) {
    const uint32_t errors[] = {o.fault->error_code};
    return CompareFault(c, o.fault->vector, errors, nullptr, true, o.rule, m);
  }
  // The instruction completes; PKRU may still deny the copy of what it gave to the journal.
  const bool copies = c.row().journal_bytes != 0 && !StoresDirectly(c.step.op);
  const PageFault denied = copies ? JournalFault(c) : PageFault{};
  if (denied.errors != 0) {
    return CompareExits(c, o, m) &&
           ComparePageFault(c, denied, false, "SDM vol. 3, 4.6.2: protection keys", m);
  }
  if (c.seen->has_fault) {
    trace::FaultRecord fault;
    trace::ReadHead(c.seen->fault, fault);
    return FailValues(m, Relation::kRefused, kFault, o.rule, 0,
                      FaultValue(fault.vector, fault.error_code));
  }
  return CompareExits(c, o, m) && CompareJournal(c, o, m);
}

}  // namespace fpswap::judge
