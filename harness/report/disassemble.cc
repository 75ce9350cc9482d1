// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/disassemble.h"

#include <Zydis/Zydis.h>
#include <capstone/capstone.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace fpswap::report {
namespace {

// Mnemonics under which both decoders know one instruction: (Capstone's, Zydis's).
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kAliases = {{
    {"movabs", "mov"},
    {"wait", "fwait"},
    {"je", "jz"},
    {"jne", "jnz"},
    {"jae", "jnb"},
    {"ja", "jnbe"},
    {"fstpnce", "fstp"},
    {"int1", "icebp"},
}};

// Words that only say what the mnemonic or the register says already.
constexpr std::array<std::string_view, 12> kSizeWords = {"byte",    "word",    "dword", "qword",
                                                         "fword",   "tbyte",   "xword", "xmmword",
                                                         "ymmword", "zmmword", "ptr",   "short"};

// Prefixes before the mnemonic, and string instructions, whose operands are implied: Capstone
// spells them out.
constexpr std::array<std::string_view, 4> kPrefixes = {"rep", "repe", "repne", "lock"};
constexpr std::array<std::string_view, 6> kStringMnemonics = {"movsb", "movsq", "stosb",
                                                              "stosq", "lodsb", "lodsq"};

template <size_t n>
bool OneOf(const std::array<std::string_view, n>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool IsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

// A number in one spelling; nothing if `word` is none.
std::optional<std::string> Number(std::string_view word) {
  const bool hex = word.starts_with("0x");
  const std::string_view digits = hex ? word.substr(2) : word;
  uint64_t value = 0;
  const auto [end, status] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (status != std::errc{} || end != digits.data() + digits.size()) return {};
  return fmt::format("{:x}h", value);
}

std::string NormaliseWord(std::string_view word, bool mnemonic) {
  if (mnemonic) {
    for (const auto& [capstone, zydis] : kAliases) {
      if (word == capstone) return std::string(zydis);
    }
    return std::string(word);
  }
  if (OneOf(kSizeWords, word)) return "";
  if (auto number = Number(word)) return *number;
  return std::string(word);
}

// Zydis takes no dot product of tiles that are the same: a CPU raises #UD. Steps may hold one (VEX
// map 0F38, opcode 5E, registers only; VEX.pp chooses the signs).
std::optional<std::string> DotOfSameTiles(std::span<const uint8_t> code) {
  if (code.size() < 5 || code[0] != 0xc4 || code[1] != 0xe2 || (code[2] & 0xc4) != 0x40 ||
      code[3] != 0x5e || (code[4] & 0xc0) != 0xc0) {
    return std::nullopt;
  }
  constexpr std::array<const char*, 4> kNames = {"tdpbuud", "tdpbusd", "tdpbsud", "tdpbssd"};
  return fmt::format("{} tmm{}, tmm{}, tmm{}", kNames[code[2] & 3], code[4] >> 3 & 7, code[4] & 7,
                     ~(code[2] >> 3) & 7);
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

std::string Normalise(std::string_view text) {
  const std::string lower = Lower(text);
  std::string out;
  bool mnemonic = true;
  for (size_t i = 0; i < lower.size();) {
    if (!IsWord(lower[i])) {
      if (lower[i] != ' ') out += lower[i];
      ++i;
      continue;
    }
    size_t end = i;
    while (end < lower.size() && IsWord(lower[end])) ++end;
    const std::string word = NormaliseWord(std::string_view(lower).substr(i, end - i), mnemonic);
    // "st(3)" and "st3", "st(0)" and "st".
    if (word == "st" && end + 2 < lower.size() && lower[end] == '(') {
      out += fmt::format("st{}", lower[end + 1]);
      end += 3;
    } else if (word == "st") {
      out += "st0";
    } else {
      out += word;
    }
    if (mnemonic && OneOf(kStringMnemonics, word)) return out;
    if (mnemonic) out += ' ';
    mnemonic = mnemonic && OneOf(kPrefixes, word);
    i = end;
  }
  return out;
}

struct Disassembler::Impl {
  ZydisDecoder decoder{};
  ZydisFormatter formatter{};
  csh capstone = 0;
  bool have_capstone = false;

  // Nothing if Capstone does not know what `code` begins with.
  std::optional<std::pair<size_t, std::string>> Second(std::span<const uint8_t> code,
                                                       uint64_t address) const {
    cs_insn* found = nullptr;
    if (!have_capstone || cs_disasm(capstone, code.data(), code.size(), address, 1, &found) != 1) {
      return {};
    }
    std::pair result(size_t{found->size}, fmt::format("{} {}", found->mnemonic, found->op_str));
    cs_free(found, 1);
    return result;
  }
};

Disassembler::Disassembler() : impl_(std::make_unique<Impl>()) {
  ZydisDecoderInit(&impl_->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisFormatterInit(&impl_->formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  impl_->have_capstone = cs_open(CS_ARCH_X86, CS_MODE_64, &impl_->capstone) == CS_ERR_OK;
}

Disassembler::~Disassembler() {
  if (impl_->have_capstone) cs_close(&impl_->capstone);
}

std::vector<Instruction> Disassembler::Decode(std::span<const uint8_t> code,
                                              uint64_t address) const {
  std::vector<Instruction> out;
  while (!code.empty()) {
    Instruction instruction;
    instruction.address = address;
    ZydisDecodedInstruction decoded;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    size_t length = 1;
    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&impl_->decoder, code.data(), code.size(), &decoded,
                                            operands))) {
      length = decoded.length;
      char text[192];
      // No runtime address: offsets from RIP stay offsets, as Capstone prints them.
      ZydisFormatterFormatInstruction(&impl_->formatter, &decoded, operands,
                                      decoded.operand_count_visible, text, sizeof text,
                                      ZYDIS_RUNTIME_ADDRESS_NONE, nullptr);
      instruction.text = text;
    } else if (auto dot = DotOfSameTiles(code)) {
      length = 5;
      instruction.text = std::move(*dot);
    } else {
      instruction.text = "(bad)";
    }
    // MPX took over encodings that were NOPs with operands, and as such Capstone 4 reads them: it
    // does not know the instruction.
    const auto second = impl_->Second(code, address);
    const bool older_nop =
        second && second->second.starts_with("nop ") && !instruction.text.starts_with("nop");
    if (second && !older_nop) {
      instruction.second = second->second;
      const bool same =
          second->first == length && Normalise(second->second) == Normalise(instruction.text);
      instruction.opinion = same ? SecondOpinion::kAgrees : SecondOpinion::kDisagrees;
    } else if (instruction.text != "(bad)") {
      instruction.opinion = SecondOpinion::kUnknown;
    }
    instruction.bytes.assign(code.begin(), code.begin() + static_cast<ptrdiff_t>(length));
    out.push_back(std::move(instruction));
    code = code.subspan(length);
    address += length;
  }
  return out;
}

}  // namespace fpswap::report
