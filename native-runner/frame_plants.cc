// SPDX-License-Identifier: GPL-2.0-or-later
#include "native-runner/frame_plants.h"

#include "native-runner/competitor.h"
#include "native-runner/live.h"

namespace fpswap::native {
namespace {

// The XSAVE area (SDM vol. 1, 13.4.2) and XSTATE_BV bits; see live.h for why they are copies.
constexpr unsigned kXstateBv = 512, kSwXfeatures = 464 + 8;
constexpr uint64_t kAvx = 1 << 2, kOpmask = 1 << 5, kZmmHi256 = 1 << 6, kHi16Zmm = 1 << 7;

uint64_t* HeaderBv(uint8_t* frame) { return reinterpret_cast<uint64_t*>(frame + kXstateBv); }

void Exchange(uint8_t* a, uint8_t* b, unsigned size) {
  for (unsigned i = 0; i < size; ++i) {
    const uint8_t keep = a[i];
    a[i] = b[i];
    b[i] = keep;
  }
}

}  // namespace

const FramePlantRow kFramePlants[] = {
    {FramePlant::kYmmHighLostOnFault, "ymm-high-lost-on-fault",
     "a fault makes YMM_Hi128 initial if AVX-512's opmasks are in use"},
    {FramePlant::kZmm16SwapOnThirdFault, "zmm16-swap-on-third-fault",
     "the third fault of a program exchanges ZMM16 and ZMM17"},
    {FramePlant::kMxcsrResetBySignal, "mxcsr-reset-by-signal",
     "a signal from outside puts MXCSR back to 1F80H"},
    {FramePlant::kOpmaskCutAfterCpuChange, "opmask-cut-after-cpu-change",
     "the first fault after the thread changed CPU clears bits 63:32 of k7"},
    {FramePlant::kTagsLostOnPageFault, "tags-lost-on-page-fault",
     "a page fault marks all x87 registers empty"},
    {FramePlant::kZmm15CutBySecondSignal, "zmm15-cut-by-second-signal",
     "the second signal of a program clears ZMM15[511:256]"},
    {FramePlant::kAvxNotAskedForBySigreturn, "avx-not-asked-for-by-sigreturn",
     "sigreturn restores AVX though the frame's sw_reserved.xfeatures does not ask for it"},
    {FramePlant::kHi16KeptBySetregset, "hi16-kept-by-setregset",
     "PTRACE_SETREGSET of an image without Hi16_ZMM leaves ZMM16-31 as they were"},
    {FramePlant::kXmm0SetByRefusedSetregset, "xmm0-set-by-refused-setregset",
     "PTRACE_SETREGSET sets XMM0 before it refuses the image"},
    {FramePlant::kOpmaskOfCompetitor, "opmask-of-competitor",
     "after a change of CPU the next competitor leaves its opmasks in the registers"},
    {FramePlant::kNone, nullptr, nullptr},
};

void PlantAtFault(uint8_t* frame, uint8_t vector) {
  const uint64_t bv = *HeaderBv(frame);
  switch (g_live.plant) {
    case FramePlant::kYmmHighLostOnFault:
      if ((bv & kOpmask) != 0) *HeaderBv(frame) &= ~kAvx;
      break;
    case FramePlant::kZmm16SwapOnThirdFault:
      if (g_live.faults == 3 && g_live.hi16_offset != 0 && (bv & kHi16Zmm) != 0) {
        Exchange(frame + g_live.hi16_offset, frame + g_live.hi16_offset + 64, 64);
      }
      break;
    case FramePlant::kOpmaskCutAfterCpuChange:
      if (g_live.cpu_changed && g_live.opmask_offset != 0 && (bv & kOpmask) != 0) {
        for (unsigned i = 4; i < 8; ++i) frame[g_live.opmask_offset + 7 * 8 + i] = 0;
        g_live.cpu_changed = false;
      }
      break;
    case FramePlant::kTagsLostOnPageFault:
      if (vector == 14) frame[4] = 0;  // FXSAVE's abridged FTW
      break;
    default:
      break;
  }
}

void PlantAtSignal(uint8_t* frame) {
  constexpr unsigned kMxcsr = 24;
  const uint64_t bv = *HeaderBv(frame);
  switch (g_live.plant) {
    case FramePlant::kMxcsrResetBySignal:
      frame[kMxcsr] = 0x80;
      frame[kMxcsr + 1] = 0x1f;
      break;
    case FramePlant::kZmm15CutBySecondSignal:
      if (g_live.signals == 2 && g_live.zmm_hi256_offset != 0 && (bv & kZmmHi256) != 0) {
        for (unsigned i = 0; i < 32; ++i) frame[g_live.zmm_hi256_offset + 15 * 32 + i] = 0;
      }
      break;
    case FramePlant::kAvxNotAskedForBySigreturn:
      if (g_live.frame_given && (bv & kAvx) != 0) {
        *reinterpret_cast<uint64_t*>(frame + kSwXfeatures) |= kAvx;
      }
      break;
    default:
      break;
  }
}

void PlantAfterCompetitor() {
  if (g_live.plant != FramePlant::kOpmaskOfCompetitor || g_live.opmask_offset == 0) return;
  if (!g_live.cpu_changed) return;
  asm volatile("xrstor64 (%0)" : : "r"(DirtyImage()), "a"(kOpmask), "d"(0) : "memory");
  g_live.cpu_changed = false;
}

}  // namespace fpswap::native
