// SPDX-License-Identifier: GPL-2.0-or-later
//
// XRSTOR's checks of the XSAVE header, for every single bit and every pair of bits changed: the
// CPU, the model and the manual's sentences (SDM vol. 1, 13.8.1, 13.8.2) written out bit by bit.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>

#include "oracle/xstate/image.h"
#include "tests/oracle/cpu_rules.h"
#include "tests/oracle/host_cpu.h"
#include "tests/oracle/witness.h"

FPSWAP_WITNESS(probe_header_xrstor64, "xrstor64 (%rsi)");

namespace fpswap::cpu::testing {
namespace {

constexpr unsigned kBits = 8 * xstate::kHeaderSize;
// Bits of the header: XSTATE_BV is 0-63, XCOMP_BV 64-127, bytes 23:16 are 128-191.
constexpr unsigned kXcompBv = 64, kCompactedBit = 127, kReserved = 128, kReservedStandard = 192;
struct Header {
  std::array<uint64_t, kBits / 64> words{};
  bool operator[](unsigned bit) const { return ((words[bit / 64] >> bit % 64) & 1) != 0; }
  void flip(unsigned bit) { words[bit / 64] ^= uint64_t{1} << bit % 64; }
};
void PrintTo(const Header& header, std::ostream* os) {
  for (const uint64_t word : header.words) *os << std::hex << word << ' ';
}

// Whether bit `i`, which is set, is one that must not be.
bool IsBad(const Header& h, unsigned i, uint64_t xcr0) {
  const auto enabled = [&](unsigned bit) { return ((xcr0 >> bit) & 1) != 0; };
  const bool compacted = h[kCompactedBit];
  if (i == kCompactedBit) return false;
  if (i < kXcompBv) return compacted ? i == 63 || !h[kXcompBv + i] : !enabled(i);
  if (i < kReserved) return !compacted || !enabled(i - kXcompBv);
  return compacted || i < kReservedStandard;
}

bool MustFault(const Header& h, uint64_t xcr0, bool xsavec) {
  if (h[kCompactedBit] && !xsavec) return true;
  for (unsigned word = 0; word < h.words.size(); ++word) {
    for (uint64_t left = h.words[word]; left != 0; left &= left - 1) {
      if (IsBad(h, 64 * word + static_cast<unsigned>(std::countr_zero(left)), xcr0)) return true;
    }
  }
  return false;
}

Header Make(uint64_t xstate_bv, uint64_t xcomp_bv) { return {{xstate_bv, xcomp_bv}}; }

void Write(const Header& header, std::span<uint8_t> image) {
  std::memcpy(&image[xstate::kHeaderOffset], header.words.data(), xstate::kHeaderSize);
}

// Calls f(header) with `start`, each bit of it flipped, and each two.
template <typename F>
void ForEachChange(const Header& start, F&& f) {
  f(start);
  for (unsigned a = 0; a < kBits; ++a) {
    Header one = start;
    one.flip(a);
    f(one);
    for (unsigned b = 0; b < a; ++b) {
      Header two = one;
      two.flip(b);
      f(two);
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// Headers from which single changes lead to every rule: an empty standard one, and compacted ones
// that hold nothing and everything.
std::vector<Header> Starts(uint64_t xcr0) {
  const uint64_t compacted = xstate::kXcompBvCompacted | xcr0;
  return {Make(0, 0), Make(xcr0, 0), Make(0, compacted), Make(xcr0, compacted)};
}

// RFBM is 0: the header is checked all the same, and nothing is loaded.
TEST(HeaderTableWitness, TheCpuFaultsOnTheSameSinglesAndPairsAsTheModel) {
  Probe probe;
  Cpu model = HostModel();
  const uint64_t xcr0 = Host().xcr0;
  const bool xsavec = Host().features.xsave.xsavec;
  unsigned faults = 0, cases = 0;
  for (const Header& start : Starts(xcr0)) {
    ForEachChange(start, [&](const Header& header) {
      Write(header, probe.memory());
      const bool cpu = probe.Run(probe_header_xrstor64, 0) == kGP;
      const bool modelled = model.Xrstor(probe.memory(), 0, 0, true) == Fault{kGP, 0};
      faults += cpu;
      ++cases;
      EXPECT_EQ(modelled, cpu) << "header " << ::testing::PrintToString(header);
      EXPECT_EQ(MustFault(header, xcr0, xsavec), cpu)
          << "header " << ::testing::PrintToString(header);
    });
    if (HasFailure()) return;
  }
  EXPECT_EQ(cases, 4 * (1 + kBits + kBits * (kBits - 1) / 2));
  EXPECT_GT(faults, cases / 2);
  EXPECT_LT(faults, cases);
}

// Feature sets that are not at hand: all user components, and a part without XSAVEC.
TEST(HeaderTable, TheModelFaultsOnSinglesAndPairsAsTheManualSays) {
  for (const bool xsavec : {true, false}) {
    Features features = Everything();
    features.xsave.xsavec = xsavec;
    Cpu model = Supervisor(features);
    std::vector<uint8_t> image = EmptyImage();
    for (const Header& start : Starts(kAllUser)) {
      ForEachChange(start, [&](const Header& header) {
        Write(header, image);
        EXPECT_EQ(model.Xrstor(image, kArea, 0, true).has_value(),
                  MustFault(header, kAllUser, xsavec))
            << "header " << ::testing::PrintToString(header);
      });
    }
  }
}

// XRSTORS: the compacted format only, and supervisor components beside (SDM vol. 1, 13.12).
TEST(HeaderTable, XrstorsFaultsOnSinglesAndPairsAsTheManualSays) {
  const Features features = Everything();
  Cpu model = Supervisor(features);
  std::vector<uint8_t> image = EmptyImage();
  const uint64_t enabled = kAllUser | kAllSupervisor;
  for (const Header& start : Starts(enabled)) {
    ForEachChange(start, [&](const Header& header) {
      Write(header, image);
      const bool expected = !header[kCompactedBit] || MustFault(header, enabled, true);
      EXPECT_EQ(model.Xrstors(image, kArea, 0, true).has_value(), expected)
          << "header " << ::testing::PrintToString(header);
    });
  }
}

}  // namespace
}  // namespace fpswap::cpu::testing
