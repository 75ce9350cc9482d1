// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/signature.h"

#include <fmt/format.h>

#include "harness/program/step.h"

namespace fpswap::triage {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// FNV-1a: short, and the same on every machine, as names of findings must be.
uint32_t Hash(std::string_view text) {
  uint32_t hash = 2166136261u;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

std::string ComponentName(const std::optional<xstate::Component>& component) {
  return component ? std::string(xstate::RowOf(*component).name) : "none";
}

}  // namespace

std::string OpName(uint8_t op) {
  if (op == 0) return "none";
  const program::StepRow* row = program::FindStep(static_cast<program::Op>(op));
  return row != nullptr ? std::string(row->name) : fmt::format("op {}", op);
}

std::string WhereClass(std::string_view where) {
  std::string out;
  bool in_brackets = false;
  for (size_t i = 0; i < where.size(); ++i) {
    const char c = where[i];
    if (c == '[') in_brackets = true;
    if (c == ']') in_brackets = false;
    if (!IsDigit(c) || in_brackets) {
      out += c;
      continue;
    }
    const bool hex = c == '0' && i + 2 < where.size() && where[i + 1] == 'x';
    if (hex) i += 2;
    while (i + 1 < where.size() && (hex ? IsHexDigit(where[i + 1]) : IsDigit(where[i + 1]))) ++i;
    out += '#';
  }
  return out;
}

Signature SignatureOf(const judge::Divergence& divergence) {
  const bool by_step =
      divergence.law != judge::Law::kIsolation && divergence.law != judge::Law::kHealth;
  Signature signature{.law = divergence.law,
                      .op = by_step ? divergence.op : uint8_t{0},
                      .component = {},
                      .relation = divergence.relation,
                      .where = WhereClass(divergence.where),
                      .cause = divergence.cause};
  if (divergence.has_component) signature.component = divergence.component;
  return signature;
}

std::string Signature::Key() const {
  // One defect shows at many steps, in many ways.
  if (!cause.empty()) return fmt::format("cause|{}|{}", cause, ComponentName(component));
  return fmt::format("{}|{}|{}|{}|{}", judge::LawName(law), OpName(op), ComponentName(component),
                     judge::RelationName(relation), where);
}

std::string Signature::Name() const {
  std::string name =
      fmt::format("{:08x}-{}", Hash(Key()), cause.empty() ? judge::LawName(law) : cause);
  if (cause.empty() && op != 0) name += "-" + OpName(op);
  name += "-" + ComponentName(component);
  if (cause.empty()) name += fmt::format("-{}", judge::RelationName(relation));
  for (char& c : name) {
    const bool plain = IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
                       c == '_' || c == '-';
    if (!plain) c = '-';
  }
  return name;
}

}  // namespace fpswap::triage
