// SPDX-License-Identifier: GPL-2.0-or-later
//
// Single instructions on Unicorn, at CPL 0: rules that the CPU at hand may lack or a process may
// not try.
#include <gtest/gtest.h>
#include <unicorn/unicorn.h>

#include <array>
#include <cstdint>
#include <optional>

#include "oracle/cpu/cpu.h"
#include "tests/oracle/cpu_rules.h"

namespace fpswap::cpu::testing {
namespace {

constexpr uint64_t kCode = 0x1000, kCr4Pke = 1 << 22;

// One instruction in its life: a second exception would be a double fault, for none is delivered.
class Emulator {
 public:
  Emulator() {
    EXPECT_EQ(uc_open(UC_ARCH_X86, UC_MODE_64, &uc_), UC_ERR_OK);
    EXPECT_EQ(uc_mem_map(uc_, kCode, 0x1000, UC_PROT_ALL), UC_ERR_OK);
    uc_hook hook = 0;
    void* on_interrupt = reinterpret_cast<void*>(&OnInterrupt);
    EXPECT_EQ(uc_hook_add(uc_, &hook, UC_HOOK_INTR, on_interrupt, this, 1, 0), UC_ERR_OK);
  }
  ~Emulator() { uc_close(uc_); }
  Emulator(const Emulator&) = delete;
  Emulator& operator=(const Emulator&) = delete;

  void Write(int reg, uint64_t value) { uc_reg_write(uc_, reg, &value); }
  template <size_t kSize>
  Result Run(const std::array<uint8_t, kSize>& code) {
    uc_mem_write(uc_, kCode, code.data(), code.size());
    const uc_err error = uc_emu_start(uc_, kCode, kCode + code.size(), 0, 1);
    if (vector_) return Fault{static_cast<uint8_t>(*vector_), 0};
    // An instruction that is #UD ends the emulation without asking the hook.
    if (error == UC_ERR_INSN_INVALID) return Fault{kUD, 0};
    EXPECT_EQ(error, UC_ERR_OK) << uc_strerror(error);
    return std::nullopt;
  }

 private:
  static void OnInterrupt(uc_engine* uc, uint32_t vector, void* self) {
    static_cast<Emulator*>(self)->vector_ = vector;
    uc_emu_stop(uc);
  }
  uc_engine* uc_ = nullptr;
  std::optional<uint32_t> vector_;
};

TEST(UnicornWitness, WrpkruHangsOnCr4PkeAndWantsZeroInEcxAndEdx) {
  const Features features = Everything();
  const auto run = [](bool pke, uint32_t ecx, uint32_t edx, uint8_t last) {
    Emulator emulator;
    emulator.Write(UC_X86_REG_CR4, pke ? kCr4Pke : 0);
    emulator.Write(UC_X86_REG_RAX, 0);
    emulator.Write(UC_X86_REG_RCX, ecx);
    emulator.Write(UC_X86_REG_RDX, edx);
    return emulator.Run(std::to_array<uint8_t>({0x0f, 0x01, last}));
  };
  const auto check = [&](bool pke, uint32_t ecx, uint32_t edx) {
    Cpu cpu = Supervisor(features);
    cpu.cr4_pke = pke;
    EXPECT_EQ(cpu.Wrpkru(ecx, edx, 0), run(pke, ecx, edx, 0xef))
        << "CR4.PKE " << pke << " ECX " << ecx << " EDX " << edx;
    uint32_t value = 0;
    EXPECT_EQ(cpu.Rdpkru(ecx, &value), run(pke, ecx, 0, 0xee))
        << "CR4.PKE " << pke << " ECX " << ecx;
  };
  for (const bool pke : {true, false}) {
    check(pke, 0, 0);
    for (unsigned bit = 0; bit < 32; ++bit) {
      check(pke, 1u << bit, 0);
      check(pke, 0, 1u << bit);
    }
  }
}

}  // namespace
}  // namespace fpswap::cpu::testing
