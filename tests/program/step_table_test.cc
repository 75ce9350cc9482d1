// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "harness/program/arg.h"
#include "harness/program/step.h"

namespace fpswap::program {
namespace {

TEST(StepTable, EveryRowIsFoundByOpAndByName) {
  for (const StepRow& row : StepTable()) {
    EXPECT_EQ(FindStep(row.op), &row) << row.name;
    EXPECT_EQ(FindStep(row.name), &row) << row.name;
    EXPECT_EQ(&RowOf(Step{.op = row.op}), &row) << row.name;
  }
}

TEST(StepTable, NumbersWithoutARowAreNotFound) {
  std::set<unsigned> ops;
  for (const StepRow& row : StepTable()) ops.insert(static_cast<unsigned>(row.op));
  for (unsigned n = 0; n < 256; ++n) {
    EXPECT_EQ(FindStep(static_cast<Op>(n)) != nullptr, ops.contains(n)) << n;
  }
  EXPECT_EQ(FindStep("no.such.step"), nullptr);
  EXPECT_EQ(FindStep(""), nullptr);
}

// Every number in use, in order. Opcodes are append-only: a change to an existing line here breaks
// all saved corpora.
TEST(StepTable, OpcodesNeverChange) {
  std::string ops;
  for (const StepRow& row : StepTable()) {
    ops += std::to_string(static_cast<unsigned>(row.op)) + ":" + std::string(row.name) + " ";
  }
  EXPECT_EQ(ops,
            "1:x87.fninit 2:x87.fnclex 3:x87.fldcw 4:x87.fld 5:x87.fstp 6:x87.fxch 7:x87.fchs "
            "8:x87.ffree 9:x87.fincstp 10:x87.fdecstp 11:x87.fnstcw 12:x87.fnstsw 13:mmx.movq "
            "14:mmx.store 15:mmx.pxor 16:mmx.emms 20:sse.load 21:sse.store 22:sse.ldmxcsr "
            "23:sse.stmxcsr 24:sse.pxor 25:sse.paddq 26:sse.pshufd 30:vex.load128 31:vex.load256 "
            "32:vex.store256 33:vex.pxor256 34:vex.vzeroupper 35:vex.vzeroall 40:evex.load128 "
            "41:evex.load256 42:evex.load512 43:evex.store512 44:evex.pxor512 45:k.load "
            "46:k.store 47:k.xor 50:mpx.bndmov_load 51:mpx.bndmov_store 52:pkru.write "
            "53:pkru.read 60:xsave 61:xsavec 62:xsaveopt 63:xsaves 64:xrstor 65:xrstors 66:fxsave "
            "67:fxrstor 68:mem.write 69:mem.fill 70:mem.header 80:xsetbv 81:xgetbv 82:msr.read "
            "83:msr.write 84:cr0.ts 85:cr4 86:raw 100:exit.out 101:exit.mmio_read "
            "102:exit.mmio_write 103:exit.mmio_vector 104:exit.cpuid 105:exit.hlt 106:exit.msr "
            "107:exit.page_fault 120:vmm.get_xsave 121:vmm.get_xsave2 122:vmm.set_xsave "
            "123:vmm.image_init 124:vmm.image_write 125:vmm.image_fill 126:vmm.get_fpu "
            "127:vmm.set_fpu 128:vmm.get_xcrs 129:vmm.set_xcrs 130:vmm.get_msr 131:vmm.set_msr "
            "132:vmm.get_mp_state 133:vmm.set_cpuid 134:vmm.run_immediate 135:vmm.migrate "
            "136:vmm.init 137:vmm.set_xcrs_list 138:vmm.get_msr_list 139:vmm.set_msr_list "
            "150:host.cpu 151:host.dirty 152:host.pkru 153:host.signal "
            "154:host.preempt 155:host.fork 156:host.thread 157:host.online "
            "160:amx.ldtilecfg 161:amx.sttilecfg 162:amx.tileloadd 163:amx.tilestored "
            "164:amx.tilezero 165:amx.tilerelease 166:amx.tdpbssd 167:amx.tdpbsud "
            "168:amx.tdpbusd 169:amx.tdpbuud "
            "185:os.getregset 186:os.setregset 187:os.sigframe 188:os.sigreturn ");
}

TEST(StepTable, RowsAreComplete) {
  for (const StepRow& row : StepTable()) {
    EXPECT_FALSE(row.doc.empty()) << row.name;
    EXPECT_TRUE(row.doc.ends_with('.')) << row.name;
    EXPECT_GT(row.weight, 0) << row.name;
    EXPECT_EQ(row.journal == Journal::kBytes, row.journal_bytes != 0) << row.name;
    if (row.actor != Actor::kGuest) {
      EXPECT_EQ(row.journal, Journal::kNone) << row.name;
      EXPECT_FALSE(row.cpl0) << row.name;
    }
  }
}

TEST(StepTable, ArgumentsAreNamedOnceAndStandTogether) {
  for (const StepRow& row : StepTable()) {
    std::set<std::string_view> names;
    for (unsigned i = 0; i < kArgCount; ++i) {
      const ArgRow& arg = row.args[i];
      EXPECT_EQ(arg.kind != ArgKind::kNone, i < ArgCount(row)) << row.name;
      if (i >= ArgCount(row)) continue;
      EXPECT_FALSE(arg.name.empty()) << row.name;
      EXPECT_TRUE(names.insert(arg.name).second) << row.name << " " << arg.name;
      EXPECT_GE(arg.fallback, RowOf(arg.kind).min) << row.name << " " << arg.name;
      EXPECT_LE(arg.fallback, RowOf(arg.kind).max) << row.name << " " << arg.name;
    }
  }
}

TEST(ArgKinds, WrapKeepsWhatIsInRangeAndBringsInTheRest) {
  EXPECT_EQ(Wrap(ArgKind::kReg16, 15), 15u);
  EXPECT_EQ(Wrap(ArgKind::kReg16, 16), 0u);
  EXPECT_EQ(Wrap(ArgKind::kLength, 12288), 12288u);
  EXPECT_EQ(Wrap(ArgKind::kLength, 12289), 1u);
  EXPECT_EQ(Wrap(ArgKind::kU64, ~uint64_t{0}), ~uint64_t{0});
  EXPECT_EQ(Wrap(ArgKind::kNone, 5), 0u);
  for (unsigned k = 0; k <= static_cast<unsigned>(ArgKind::kBytes); ++k) {
    const auto kind = static_cast<ArgKind>(k);
    for (uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{12288}, ~uint64_t{0}}) {
      const uint64_t wrapped = Wrap(kind, value);
      EXPECT_GE(wrapped, RowOf(kind).min) << k;
      EXPECT_LE(wrapped, RowOf(kind).max) << k;
    }
  }
}

}  // namespace
}  // namespace fpswap::program
