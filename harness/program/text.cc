// SPDX-License-Identifier: GPL-2.0-or-later
//
// Parsing programs (text.h). Total: any bytes give a program or the first error. Columns count
// bytes, from 1.
#include "harness/program/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "harness/program/arg.h"
#include "harness/program/names.h"
#include "harness/program/suggest.h"
#include "oracle/xstate/component.h"

namespace fpswap::program {
namespace {

using Names = std::vector<std::string_view>;

struct Token {
  std::string_view text;
  unsigned column = 1;
};

// The words of a line, without its comment.
std::vector<Token> Tokenize(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  line = line.substr(0, line.find('#'));
  std::vector<Token> tokens;
  size_t begin = 0;
  while ((begin = line.find_first_not_of(kBlank, begin)) != line.npos) {
    const size_t end = std::min(line.find_first_of(kBlank, begin), line.size());
    tokens.push_back({line.substr(begin, end - begin), static_cast<unsigned>(begin + 1)});
    begin = end;
  }
  return tokens;
}

// Decimal, or hexadecimal behind "0x".
std::optional<uint64_t> ParseNumber(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, hex ? 16 : 10);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

std::optional<uint64_t> ParseMaskTerm(std::string_view term) {
  if (term == kAllName) return kAllComponents;
  if (term == kCompactedName) return xstate::kXcompBvCompacted;
  if (const auto component = xstate::ComponentByName(term)) return Bit(*component);
  return ParseNumber(term);
}

Names MaskNames() {
  Names names = {kAllName, kCompactedName};
  for (const auto& row : xstate::Rows()) names.push_back(row.name);
  return names;
}

// Splits off what is before `separator`, which goes too.
std::string_view Cut(std::string_view& text, char separator) {
  const size_t n = std::min(text.find(separator), text.size());
  const std::string_view head = text.substr(0, n);
  text.remove_prefix(std::min(n + 1, text.size()));
  return head;
}

template <size_t kSize>
std::optional<uint64_t> IndexOf(const std::array<std::string_view, kSize>& names,
                                std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return std::nullopt;
  return static_cast<uint64_t>(found - names.begin());
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::expected<Program, ParseError> Run() {
    if (text_.size() > kMaxTextSize) {
      line_ = 1;
      Fail(1, fmt::format("at most {} bytes", kMaxTextSize), fmt::format("{}", text_.size()));
    }
    while (!error_ && !text_.empty()) {
      ++line_;
      const std::vector<Token> tokens = Tokenize(Cut(text_, '\n'));
      if (!tokens.empty()) ParseLine(tokens);
    }
    if (!error_ && !has_version_) {
      ++line_;
      Fail(1, "\"fpswap 1\"", "the end of the file");
    }
    if (error_) return std::unexpected(*error_);
    return std::move(program_);
  }

 private:
  // Records the first error. Always false.
  bool Fail(unsigned column, std::string_view expected, std::string_view found,
            std::string_view hint = "") {
    if (!error_) {
      error_ =
          ParseError{line_, column, fmt::format("expected {}, found {}{}", expected, found, hint)};
    }
    return false;
  }

  bool ParseLine(const std::vector<Token>& tokens) {
    const std::string_view first = tokens[0].text;
    if (!has_version_) return ParseVersion(tokens);
    const auto header = std::ranges::find(kHeaders, first);
    if (header != kHeaders.end()) return ParseHeader(tokens, header - kHeaders.begin());
    return ParseStep(tokens);
  }

  bool ParseVersion(const std::vector<Token>& tokens) {
    if (tokens[0].text != "fpswap") {
      return Fail(tokens[0].column, "\"fpswap 1\" as the first line", Quote(tokens[0].text));
    }
    if (tokens.size() < 2) return Fail(EndColumn(tokens), "version 1", "the end of the line");
    if (tokens[1].text != "1") return Fail(tokens[1].column, "version 1", Quote(tokens[1].text));
    has_version_ = true;
    return NothingFrom(tokens, 2);
  }

  bool ParseHeader(const std::vector<Token>& tokens, ptrdiff_t header) {
    const Token& name = tokens[0];
    if (!program_.steps.empty()) {
      return Fail(name.column, "a step (header lines come before the first step)",
                  Quote(name.text));
    }
    if ((seen_headers_ & (1u << header)) != 0) {
      return Fail(name.column, fmt::format("\"{}\" once", name.text), "it again");
    }
    seen_headers_ |= 1u << header;
    if (tokens.size() < 2) return Fail(EndColumn(tokens), "a value", "the end of the line");
    uint64_t value = 0;
    if (!ParseHeaderValue(header, tokens[1], value)) return false;
    return NothingFrom(tokens, 2);
  }

  bool ParseHeaderValue(ptrdiff_t header, const Token& token, uint64_t& value) {
    switch (header) {
      case 0:
        return ParseGuestMask(token, program_.features);
      case 1:
        return ParseGuestMask(token, program_.xcr0);
      case 2:
        if (!ParseValue(ArgKind::kBool, token, value)) return false;
        program_.pke = value != 0;
        return true;
      case 3:
        if (!ParseValue(ArgKind::kBool, token, value)) return false;
        program_.own_vm = value != 0;
        return true;
      case 4:
        if (!ParseValue(ArgKind::kBool, token, value)) return false;
        program_.own_thread = value != 0;
        return true;
      default:
        value = ParseNumber(token.text).value_or(0);
        if (value < 1 || value > kMaxVcpus) {
          return Fail(token.column, fmt::format("a number of vCPUs 1-{}", kMaxVcpus),
                      Quote(token.text));
        }
        program_.vcpus = static_cast<uint8_t>(value);
        return true;
    }
  }

  // Components that a guest is to have. One without a model could not be judged: it is refused by
  // its name, where in a number, or in "all", it is left out like whatever else a machine lacks.
  bool ParseGuestMask(const Token& token, uint64_t& mask) {
    const std::string_view apx = xstate::RowOf(xstate::Component::kApx).name;
    Token rest = token;
    while (!rest.text.empty()) {
      const auto column = rest.column;
      const std::string_view term = Cut(rest.text, '+');
      rest.column += static_cast<unsigned>(term.size() + 1);
      if (term != apx) continue;
      return Fail(column, "components that a guest can have here", Quote(term),
                  ", which is not modelled");
    }
    return ParseValue(ArgKind::kMask, token, mask);
  }

  bool ParseStep(const std::vector<Token>& tokens) {
    if (program_.steps.size() == kMaxSteps) {
      return Fail(tokens[0].column, fmt::format("at most {} steps", kMaxSteps), "one more");
    }
    Step step;
    size_t next = 0;
    Token name = tokens[next++];
    if (name.text.contains(':')) {
      if (!ParseVcpu(name, step)) return false;
      if (name.text.empty()) {
        if (next == tokens.size()) return Fail(EndColumn(tokens), "a step", "the end of the line");
        name = tokens[next++];
      }
    }
    const StepRow* row = FindStep(name.text);
    if (row == nullptr) return UnknownStep(name);
    step.op = row->op;
    if (!ParseArgs(*row, std::span(tokens).subspan(next), step)) return false;
    program_.steps.push_back(step);
    return true;
  }

  // "1:" before a step; leaves in `token` what is behind it.
  bool ParseVcpu(Token& token, Step& step) {
    const Token whole = token;
    const std::string_view number = Cut(token.text, ':');
    token.column += static_cast<unsigned>(number.size() + 1);
    const auto vcpu = ParseNumber(number);
    if (!vcpu || *vcpu >= program_.vcpus) {
      return Fail(whole.column, fmt::format("a vCPU 0-{} before \":\"", program_.vcpus - 1),
                  Quote(number),
                  vcpu && *vcpu < kMaxVcpus ? "; a header line \"vcpus N\" sets their number" : "");
    }
    step.vcpu = static_cast<uint8_t>(*vcpu);
    return true;
  }

  bool UnknownStep(const Token& name) {
    Names names;
    for (const StepRow& row : StepTable()) names.push_back(row.name);
    if (program_.steps.empty()) names.insert(names.end(), kHeaders.begin(), kHeaders.end());
    return Fail(name.column, program_.steps.empty() ? "a step or a header line" : "a step",
                Quote(name.text), Suggest(name.text, names));
  }

  bool ParseArgs(const StepRow& row, std::span<const Token> tokens, Step& step) {
    const unsigned count = ArgCount(row);
    for (unsigned i = 0; i < count; ++i) step.arg[i] = row.args[i].fallback;
    unsigned seen = 0;
    for (const Token& token : tokens) {
      std::string_view value = token.text;
      const std::string_view name = Cut(value, '=');
      unsigned i = 0;
      while (i < count && row.args[i].name != name) ++i;
      if (i == count) return UnknownArg(row, token.column, name);
      if (name.size() == token.text.size()) {
        return Fail(token.column + static_cast<unsigned>(name.size()),
                    fmt::format("\"=\" and {}", RowOf(row.args[i].kind).what), "nothing");
      }
      if ((seen & (1u << i)) != 0) {
        return Fail(token.column, fmt::format("\"{}\" once", name), "it again");
      }
      seen |= 1u << i;
      const Token at{value, token.column + static_cast<unsigned>(name.size() + 1)};
      if (row.args[i].kind == ArgKind::kBytes ? !ParseBytes(at, step)
                                              : !ParseValue(row.args[i].kind, at, step.arg[i])) {
        return false;
      }
    }
    if (row.args[0].kind == ArgKind::kBytes && seen == 0) {
      return Fail(1, fmt::format("\"{}=\"", row.args[0].name), "no argument");
    }
    return true;
  }

  bool UnknownArg(const StepRow& row, unsigned column, std::string_view name) {
    Names names;
    std::string list;
    for (unsigned i = 0; i < ArgCount(row); ++i) {
      names.push_back(row.args[i].name);
      list += fmt::format("{}{}=", i == 0 ? "" : ", ", row.args[i].name);
    }
    return Fail(column,
                names.empty() ? fmt::format("nothing behind \"{}\"", row.name)
                              : fmt::format("an argument of \"{}\" ({})", row.name, list),
                Quote(name), Suggest(name, names));
  }

  bool ParseValue(ArgKind kind, const Token& token, uint64_t& out) {
    if (kind == ArgKind::kMask) return ParseMask(token, out);
    std::optional<uint64_t> value;
    if (kind == ArgKind::kMsrName) {
      value = IndexOf(kMsrNames, token.text);
    } else if (kind == ArgKind::kCr4Name) {
      value = IndexOf(kCr4Names, token.text);
    } else {
      value = ParseNumber(token.text);
    }
    const KindRow& row = RowOf(kind);
    if (!value || *value < row.min || *value > row.max) {
      return Fail(token.column, row.what, Quote(token.text));
    }
    out = *value;
    return true;
  }

  bool ParseMask(const Token& token, uint64_t& out) {
    out = 0;
    Token rest = token;
    while (true) {
      const std::string_view term = rest.text.substr(0, rest.text.find('+'));
      const auto bits = ParseMaskTerm(term);
      if (!bits) {
        return Fail(rest.column, RowOf(ArgKind::kMask).what, Quote(term),
                    Suggest(term, MaskNames()));
      }
      out |= *bits;
      if (term.size() == rest.text.size()) return true;
      rest.text.remove_prefix(term.size() + 1);
      rest.column += static_cast<unsigned>(term.size() + 1);
    }
  }

  bool ParseBytes(const Token& token, Step& step) {
    const size_t digits = token.text.size();
    if (digits == 0 || digits % 2 != 0 || digits > 2 * kMaxRaw ||
        !std::ranges::all_of(token.text, [](char c) { return HexDigit(c) >= 0; })) {
      return Fail(token.column, RowOf(ArgKind::kBytes).what, Quote(token.text));
    }
    step.arg = {digits / 2};
    for (unsigned n = 0; n < digits / 2; ++n) {
      SetRawByte(
          step, n,
          static_cast<uint8_t>(HexDigit(token.text[2 * n]) << 4 | HexDigit(token.text[2 * n + 1])));
    }
    return true;
  }

  bool NothingFrom(const std::vector<Token>& tokens, size_t n) {
    if (tokens.size() <= n) return true;
    return Fail(tokens[n].column, "the end of the line", Quote(tokens[n].text));
  }

  static unsigned EndColumn(const std::vector<Token>& tokens) {
    return tokens.back().column + static_cast<unsigned>(tokens.back().text.size());
  }

  static constexpr std::array<std::string_view, 6> kHeaders = {"features", "xcr0",       "pke",
                                                               "own_vm",   "own_thread", "vcpus"};

  std::string_view text_;  // what is not parsed yet
  unsigned line_ = 0;
  bool has_version_ = false;
  unsigned seen_headers_ = 0;  // bits by kHeaders
  Program program_;
  std::optional<ParseError> error_;
};

}  // namespace

std::string ParseError::ToString(std::string_view file) const {
  return fmt::format("{}:{}:{}: {}", file, line, column, message);
}

std::expected<Program, ParseError> ParseText(std::string_view text) { return Parser(text).Run(); }

}  // namespace fpswap::program
