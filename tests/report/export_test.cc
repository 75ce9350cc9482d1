// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/export/export.h"

#include <gmock/gmock.h>

#include <span>

#include "harness/cli/cli.h"
#include "harness/judge/judge.h"
#include "harness/trace/trace.h"
#include "tests/report/export_testing.h"

namespace fpswap::report {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr char kAvxProgram[] = R"(vex.load256 ymm=3 pattern=0x1234
exit.out
vmm.get_xsave image=0
vex.store256 ymm=3
)";

std::string Fpswap(const std::vector<std::string>& arguments, int expected) {
  std::string out, err;
  const cli::Io io{[&](std::string_view text) { out += text; },
                   [&](std::string_view text) { err += text; }};
  EXPECT_EQ(cli::Main(arguments, io), expected) << err;
  return expected == cli::kAgrees ? out : err;
}

void ExpectInOrder(const std::string& text, std::span<const char* const> order) {
  size_t at = 0;
  for (const char* each : order) {
    const size_t found = text.find(each, at);
    ASSERT_NE(found, std::string::npos) << each << " is missing or out of order in\n" << text;
    at = found;
  }
}

TEST(ExportTest, ReadsAsASelftest) {
  const std::string text = Exported(RequestOf(kAvxProgram));
  EXPECT_THAT(text, StartsWith("// SPDX-License-Identifier: GPL-2.0-only\n/*\n * Test of"));
  const char* const order[] = {
      "#include \"test_util.h\"",
      "#define XCR0\t\t(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)",
      "void guest_code(void)",
      "vmovdqu %0, %%ymm3\" : : \"m\" (pattern_1234)",
      "guest_exit();",
      "vmovdqu %%ymm3, %0\" : \"=m\" (ymm3)",
      "int main(void)",
      "TEST_REQUIRE((kvm_cpu_supported_xcr0() & XCR0) == XCR0);",
      "TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_AVX));",
      "vm_create_with_one_vcpu(&vcpu, guest_code)",
      "run_guest(vcpu);",
      "vcpu_xsave_get(vcpu, (struct kvm_xsave *)image0);",
      "check_bytes(\"YMM3[255:128] of KVM_GET_XSAVE\"",
      "run_guest(vcpu);",
      "check_bytes(\"YMM3 in the guest\", ymm3, pattern_1234, 32);"};
  ASSERT_NO_FATAL_FAILURE(ExpectInOrder(text, order));
}

TEST(ExportTest, TheCFileNeedsNoKernelTree) {
  const std::string text = Exported(RequestOf(kAvxProgram, ExportFormat::kC));
  EXPECT_THAT(text, Not(HasSubstr("#include \"")));
  EXPECT_THAT(text, HasSubstr("vcpu_ioctl(vcpu, KVM_GET_XSAVE, image0);"));
}

TEST(ExportTest, GuestCodeIsTheSameInBothFormats) {
  const auto guest = [](const std::string& text) {
    const size_t begin = text.find("static GUEST_CODE void guest_code(void)");
    return text.substr(begin, text.find("\n}\n", begin) - begin);
  };
  EXPECT_EQ(guest(Exported(RequestOf(kAvxProgram))),
            guest(Exported(RequestOf(kAvxProgram, ExportFormat::kC))));
}

TEST(ExportTest, OnlyHelpersThatAreUsedAreThere) {
  const std::string text = Exported(RequestOf("sse.stmxcsr\n"));
  for (const char* unused : {"check_bytes", "xstate_offset", "fill_pattern", "kvm_asm_safe",
                             "image0", "area", "zeros", "guest_copy"}) {
    EXPECT_THAT(text, Not(HasSubstr(unused)));
  }
  EXPECT_THAT(text, HasSubstr("check_value(\"MXCSR in the guest\", mxcsr, 0x1f80);"));
}

TEST(ExportTest, ExpectedFaultsAreSurvivedWithTheRegistersIntact) {
  const std::string text = Exported(RequestOf("sse.ldmxcsr value=0x10000\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("vector = kvm_asm_safe(\"ldmxcsr %[arg]\""),
                          HasSubstr("vm_install_exception_handler(vm, GP_VECTOR, fault_handler);"),
                          HasSubstr("check_value(\"Vector of LDMXCSR\", vector, GP_VECTOR);")));
}

TEST(ExportTest, ARefusedCallIsAssertedWithItsErrno) {
  EXPECT_THAT(Exported(RequestOf("vmm.set_xcrs value=sse\n")),
              AllOf(HasSubstr("ret = __vcpu_ioctl(vcpu, KVM_SET_XCRS, &xcrs);"),
                    HasSubstr("TEST_ASSERT(ret == -1 && errno == EINVAL,"),
                    HasSubstr("KVM_SET_XCRS: expected EINVAL, got %d (errno %d)")));
}

TEST(ExportTest, TilesAreAskedForFirst) {
  const std::string text = Exported(RequestOf("amx.ldtilecfg\namx.sttilecfg\n"));
  const size_t permission = text.find("vm_xsave_require_permission(XFEATURE_MASK_XTILE_DATA);");
  ASSERT_NE(permission, std::string::npos);
  EXPECT_LT(permission, text.find("TEST_REQUIRE("));
}

TEST(ExportTest, OffsetsOfComponentsComeFromTheMachine) {
  const std::string text = Exported(RequestOf(
      "vmm.image_write image=1 offset=2692 value=0\nvmm.image_write image=1 offset=2688 value=12\n"
      "vmm.image_write image=1 offset=512 value=0x200\nvmm.set_xsave image=1\npkru.read\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("(image1 + xstate_offset(XFEATURE_MASK_PKRU)) = 0xc;"),
                          HasSubstr("(image1 + XSTATE_BV_OFFSET) = XFEATURE_MASK_PKRU;"),
                          Not(HasSubstr("2688"))));
}

TEST(ExportTest, LongPatternsAreFilledAndNotListed) {
  const std::string text = Exported(
      RequestOf("amx.ldtilecfg\namx.tileloadd tile=1 pattern=0x77\namx.tilestored tile=1\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("static u8 pattern_77[1024];"),
                          HasSubstr("sync_global_to_guest(vm, pattern_77);")));
  EXPECT_LT(std::ranges::count(text, '\n'), 200);
}

TEST(ExportTest, VcpusOfTheirOwnVmsHaveTheirOwnAreas) {
  const std::string steps = "xsave slot=0 rfbm=x87\n1: xsave slot=0 rfbm=x87\n";
  const std::string own = Exported(RequestOf("vcpus 2\nown_vm 1\nx87.fld\n1: x87.fld\n" + steps));
  EXPECT_THAT(own, AllOf(HasSubstr("area0_vm0"), HasSubstr("area0_vm1"),
                         HasSubstr("vm1 = vm_create_with_one_vcpu(&vcpu1, guest_code1);")));
  const std::string shared = Exported(RequestOf("vcpus 2\nx87.fld\n1: x87.fld\n" + steps));
  EXPECT_THAT(shared, AllOf(HasSubstr("vcpu1 = vm_vcpu_add(vm, 1, guest_code1);"),
                            Not(HasSubstr("area0_vm"))));
}

TEST(ExportTest, WhatAnAreaHeldIsKeptIfALaterStepChangesIt) {
  EXPECT_THAT(
      Exported(RequestOf("vex.load256 ymm=1\nxsave slot=0 rfbm=avx\nvex.load256 ymm=1 pattern=7\n"
                         "xsave slot=0 rfbm=avx\n")),
      HasSubstr("guest_copy(area0_then, area0, AREA_SIZE);"));
}

TEST(ExportTest, AnAreaThatWasCompactedIsReadAsTheLastSaveWroteIt) {
  const std::string text =
      Exported(RequestOf("evex.load512 reg=27 pattern=7\nxsavec slot=0 rfbm=all\nexit.out\n"
                         "xsave slot=0 rfbm=all\n"));
  const size_t check = text.find("check_bytes(\"ZMM27 of XSAVE\"");
  ASSERT_NE(check, std::string::npos) << text;
  const std::string what = text.substr(check, text.find(';', check) - check);
  EXPECT_THAT(
      what, AllOf(HasSubstr("xstate_offset(XFEATURE_MASK_Hi16_ZMM)"), HasSubstr("pattern_7, 64")));
}

// XSAVEOPT leaves what is initial as it was, which is XSAVEC's at another place on each machine.
TEST(ExportTest, WhatASaveLeavesOfAnAreaOfTheOtherFormatIsNotLookedAt) {
  const std::string before = "evex.load512 reg=7 pattern=7\nk.load k=1 pattern=8\n";
  const std::string after = "vex.vzeroall\nxsaveopt slot=0 rfbm=all\n";
  const std::string zmm = "check_bytes(\"ZMM7[511:256] of XSAVEOPT\"";
  const std::string k = "check_value(\"k1 of XSAVEOPT\"";
  EXPECT_THAT(Exported(RequestOf(before + after)), AllOf(HasSubstr(zmm), HasSubstr(k)));
  for (const char* other :
       {"xsavec slot=0 rfbm=all", "mem.fill slot=0 offset=2000 length=64 pattern=3"}) {
    EXPECT_THAT(Exported(RequestOf(before + other + "\nexit.out\n" + after)),
                AllOf(Not(HasSubstr(zmm)), HasSubstr(k)))
        << other;
  }
}

// A register that an instruction writes behind the compiler's back is one that it goes on to use.
TEST(ExportTest, InstructionsTellAllRegistersThatTheyWrite) {
  EXPECT_THAT(Exported(RequestOf("exit.cpuid\nsse.stmxcsr\n")), HasSubstr("\"rbx\", \"rcx\""));
  EXPECT_THAT(Exported(RequestOf("xgetbv ecx=0\n")), HasSubstr("\"=a\" (eax), \"=d\" (edx)"));
  EXPECT_THAT(Exported(RequestOf("exit.page_fault\nsse.stmxcsr\n")), HasSubstr("\"testl $1, "));
}

// --- findings

judge::Divergence StaleYmm(std::vector<uint8_t> seen) {
  judge::Divergence d;
  d.law = judge::Law::kCoherence;
  d.step = 2;
  d.op = static_cast<uint8_t>(program::Op::kGetXsave);
  d.has_component = true;
  d.component = xstate::Component::kAvx;
  d.relation = judge::Relation::kStale;
  d.where = "YMM3[255:128] of the image";
  d.offset = 576 + 3 * 16;
  std::vector<uint8_t> loaded(32);
  program::FillPattern(0x1234, loaded);
  d.possible.assign(loaded.begin() + 16, loaded.end());
  d.seen = std::move(seen);
  return d;
}

TEST(ExportTest, OfAFindingOnlyTheDivergingObservationIsAsserted) {
  ExportRequest request = RequestOf(std::string("sse.load xmm=9 pattern=3\n") + kAvxProgram);
  request.divergence = StaleYmm(std::vector<uint8_t>(16, 2));
  request.divergence->step = 3;
  const std::string text = Exported(request);
  EXPECT_THAT(text, HasSubstr("check_bytes(\"YMM3[255:128] of KVM_GET_XSAVE\""));
  const std::string body = text.substr(text.find("int main(void)"));
  EXPECT_EQ(Count(body, "check_bytes("), 1u) << body;
  EXPECT_EQ(Count(body, "check_value("), 0u) << body;
}

TEST(ExportTest, WhatIsExpectedDoesNotDependOnWhatWasSeen) {
  ExportRequest one = RequestOf(kAvxProgram), other = one;
  one.divergence = StaleYmm(std::vector<uint8_t>(16, 2));
  other.divergence = StaleYmm(std::vector<uint8_t>(16, 0xee));
  EXPECT_EQ(Exported(one), Exported(other));
}

// MXCSR of an image without SSE and AVX is the machine's affair; that the guest has it is not.
TEST(ExportTest, WhatACallShowsIsHeldAgainstWhatTheGuestHas) {
  const std::string show = "sse.ldmxcsr value=0\nvmm.set_xsave image=0\nvmm.get_xsave image=0\n";
  const std::string check =
      "check_value(\"MXCSR of KVM_GET_XSAVE\", *(u32 *)(image0 + MXCSR_OFFSET),";
  const auto exported = [&](const std::string& steps) { return Exported(RequestOf(show + steps)); };
  const std::string text = exported("sse.stmxcsr\n");
  EXPECT_THAT(text, HasSubstr(check));
  EXPECT_LT(text.find("sync_global_from_guest(vm, mxcsr)"), text.find(check));
  EXPECT_THAT(exported("sse.ldmxcsr value=0x1f00\nsse.stmxcsr\n"), Not(HasSubstr(check)))
      << "not the same any more";
  EXPECT_THAT(exported("vmm.get_xsave image=0\nsse.stmxcsr\n"), HasSubstr(check));
  EXPECT_THAT(exported("vmm.image_init image=0\nsse.stmxcsr\n"), Not(HasSubstr(check)))
      << "the image holds something else by then";
  EXPECT_THAT(Exported(RequestOf("sse.ldmxcsr value=0x1f00\nvmm.get_xsave image=0\nsse.stmxcsr\n")),
              HasSubstr(check + " 0x1f00"))
      << "what is settled is asserted as a value";
}

TEST(ExportTest, MsrsOfCetAreAskedFor) {
  const std::string needed = "TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SHSTK));";
  for (const char* steps :
       {"msr.write msr=u_cet value=0x2000\n", "vmm.set_msr msr=pl0_ssp value=8\n"}) {
    EXPECT_THAT(Exported(RequestOf("sse.load xmm=0 pattern=7\n" + std::string(steps) +
                                   "vmm.get_xsave image=0\n")),
                HasSubstr(needed))
        << steps;
  }
  EXPECT_THAT(Exported(RequestOf("msr.read msr=xfd\n")), Not(HasSubstr(needed)));
}

TEST(ExportTest, ACpuidIsToldOnlyToAVcpuThatRunsNothing) {
  const std::string steps =
      "vmm.set_xsave image=0\nvmm.set_cpuid features=x87+sse+tilecfg+tiledata\n"
      "vmm.get_xsave2 image=1\n";
  const std::string set =
      "features x87+sse\nxcr0 x87+sse\nvmm.image_fill image=0 offset=160 length=16 "
      "pattern=7\nvmm.image_write image=0 offset=512 value=2\n" +
      steps;
  const std::string text = Exported(RequestOf(set));
  const size_t born = text.find("set_cpuid(vcpu, XFEATURE_MASK_FP | XFEATURE_MASK_SSE);");
  const size_t given = text.find("vcpu_xsave_set(vcpu,"),
               grown = text.find("| XFEATURE_MASK_XTILE);");
  EXPECT_LT(born, given) << text;
  EXPECT_LT(given, grown) << text;
  EXPECT_THAT(text.substr(grown), HasSubstr("check_bytes(\"XMM0 of KVM_GET_XSAVE2\""));
  EXPECT_THAT(text, Not(HasSubstr("guest_code")));
  EXPECT_THAT(text, HasSubstr("(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_XTILE)) =="));
  // XCR0 is never more than the first CPUID has, nor is what a GET shows under it.
  EXPECT_THAT(Exported(RequestOf("features x87+sse\n" + set.substr(set.find("vmm.")))),
              HasSubstr("#define XCR0\t\t(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)\n"));
  const std::string early = Exported(RequestOf(
      "features x87+sse\nxcr0 x87+sse\nvmm.image_fill image=0 offset=576 length=16 pattern=7\n"
      "vmm.image_write image=0 offset=512 value=6\nvmm.set_xsave image=0\nvmm.get_xsave image=1\n"
      "vmm.set_cpuid features=x87+sse+avx\nvmm.get_xsave image=1\n"));
  const size_t widened = early.find("set_cpuid(vcpu, XFEATURE_MASK_FP | XFEATURE_MASK_SSE |");
  ASSERT_NE(widened, std::string::npos) << early;
  const std::string ymm = "check_bytes(\"YMM0[255:128] of KVM_GET_XSAVE\"";
  const size_t first = early.find(ymm);
  ASSERT_LT(first, widened);
  EXPECT_LT(early.find("zeros", first), early.find(";", first)) << "not shown yet";
  EXPECT_THAT(Exported(RequestOf(set + "sse.store xmm=0\n")), StartsWith("error: vmm.set_cpuid"));
  EXPECT_THAT(Exported(RequestOf(set, ExportFormat::kC)), StartsWith("error: vmm.set_cpuid"));
}

TEST(ExportTest, AFindingEndsWithTheObservationThatDiverged) {
  ExportRequest request = RequestOf(kAvxProgram);
  request.divergence = StaleYmm(std::vector<uint8_t>(16, 2));
  EXPECT_THAT(Exported(request), Not(HasSubstr("vmovdqu %%ymm3")));
}

TEST(ExportTest, ADivergenceThatHoldsOnlyUnderASuppositionIsRefused) {
  ExportRequest request = RequestOf(kAvxProgram);
  request.divergence = StaleYmm(std::vector<uint8_t>(16, 2));
  request.divergence->possible.assign(16, 0);  // as if the guest had run with another XCR0
  EXPECT_THAT(Exported(request), StartsWith("error: nothing to assert"));
}

TEST(ExportTest, ARefusedCallOnTheWayToAFindingIsNoFailure) {
  ExportRequest request = RequestOf(
      "vex.load256 ymm=3 pattern=0x1234\nvmm.set_xcrs value=sse\nvmm.get_xsave image=0\n");
  request.divergence = StaleYmm(std::vector<uint8_t>(16, 2));
  EXPECT_THAT(Exported(request), HasSubstr("TEST_ASSERT(ret == -1 && errno == EINVAL,"));
}

TEST(ExportTest, AFaultThatMustNotComeIsAsserted) {
  ExportRequest request = RequestOf("sse.load xmm=9 pattern=3\nvex.load256 ymm=1 pattern=4\n");
  judge::Divergence d;
  d.step = 1;
  d.op = static_cast<uint8_t>(program::Op::kVexLoad256);
  d.relation = judge::Relation::kRefused;
  d.where = "fault";
  request.divergence = d;
  EXPECT_THAT(Exported(request), HasSubstr("check_value(\"Vector of LOAD256\", vector, 0);"));
}

// Recorded on a real machine; what it showed is judged again by the oracle of now.
TEST(ExportTest, RecordedFindingsBecomeTests) {
  const std::filesystem::path folder = FPSWAP_SOURCE_DIR "/corpus/traces/sapphire-rapids-kvm_pvm";
  unsigned exported = 0;
  for (const auto& each : std::filesystem::directory_iterator(folder)) {
    const auto bytes = files::ReadFile(each.path(), trace::kMaxTraceSize);
    ASSERT_TRUE(bytes.has_value());
    const auto trace = trace::ReadTrace(files::AsBytes(*bytes));
    ASSERT_TRUE(trace.has_value());
    const judge::Verdict verdict = judge::JudgeTrace(*trace);
    for (const judge::Divergence& d : verdict.divergences) {
      ExportRequest request;
      request.program = trace->program;
      request.platform = trace->platform;
      request.divergence = d;
      for (const ExportFormat format : {ExportFormat::kSelftest, ExportFormat::kC}) {
        request.format = format;
        const auto text = ExportC(request);
        exported += text.has_value();
        // A reason is a sentence about a step, or about the whole.
        if (!text) {
          EXPECT_GT(text.error().size(), 20u) << each.path();
        }
      }
    }
  }
  EXPECT_GT(exported, 60u);
}

// --- what has no counterpart

TEST(ExportTest, SaysWhichStepHasNoCounterpartAndWhatToDo) {
  EXPECT_THAT(Exported(RequestOf("exit.hlt\n")),
              AllOf(StartsWith("error: step 0 (exit.hlt) "), HasSubstr("--format c")));
  EXPECT_THAT(Exported(RequestOf("mpx.bndmov_store\nsse.stmxcsr\n")), HasSubstr("--format c"));
  EXPECT_THAT(
      Exported(RequestOf("os.getregset\n")),
      AllOf(StartsWith("error: os.getregset is a call about a thread"), HasSubstr("--format c")));
  EXPECT_THAT(Exported(RequestOf("host.fork\nexit.out\nsse.stmxcsr\n")),
              HasSubstr("step 0 (host.fork"));
  EXPECT_THAT(Exported(RequestOf("vcpus 2\nown_thread 1\nsse.stmxcsr\n")), HasSubstr("own_thread"));
  EXPECT_THAT(Exported(RequestOf("pkru.write value=1\nsse.stmxcsr\n")), HasSubstr("PKRU"));
}

// A step that is new and has no code here says so; it is never left out in silence.
TEST(ExportTest, EveryStepIsExportedOrNamedByTheRefusal) {
  unsigned exported = 0, refused = 0;
  const std::string vcpu = Exported(RequestOf("sse.stmxcsr\n", ExportFormat::kC));
  const std::string thread = Exported(RequestOf("sse.stmxcsr\n", ExportFormat::kThread));
  for (const program::StepRow& row : program::StepTable()) {
    const bool system = row.actor == program::Actor::kSystem;
    ExportRequest request = RequestOf("sse.stmxcsr\n", ExportFormat::kC);
    program::Step step{.op = row.op};
    for (unsigned n = 0; n < program::kArgCount; ++n) step.arg[n] = row.args[n].fallback;
    // Behind raw code nothing is asserted.
    const bool last = row.op == program::Op::kRaw;
    request.program.steps.insert(request.program.steps.begin() + (last ? 1 : 0), step);
    const auto text = ExportC(request);
    if (text) {
      ++exported;
      // There is more to it than to the program without the step.
      const std::string& without = system ? thread : vcpu;
      EXPECT_GT(std::ranges::count(*text, ';'), std::ranges::count(without, ';')) << row.name;
    } else {
      ++refused;
      EXPECT_THAT(text.error(), HasSubstr(std::string(row.name)));
    }
  }
  EXPECT_GE(exported, 90u);
  EXPECT_LE(refused, 12u);
}

TEST(ExportTest, EveryVariedProgramHasItsSelftestAndItsCFile) {
  const auto programs = Programs();
  EXPECT_GE(programs.size(), 24u);
  for (const auto& path : programs) {
    for (const char* format : {"selftest", "c"}) {
      const std::string text = Fpswap({"export", path.string(), "--format", format, "-o", "-"}, 0);
      EXPECT_THAT(text, HasSubstr("SPDX-License-Identifier: GPL-2.0-only")) << path;
      // Something is asserted beyond that the guest exits.
      EXPECT_GT(Count(text.substr(text.find("int main(void)")), "check_") +
                    Count(text, "TEST_ASSERT(ret =="),
                0u)
          << path;
    }
  }
}

TEST(ExportTest, KnownDivergencesOfTheKernelHaveTheirSelftestsBesideThem) {
  const std::filesystem::path known = FPSWAP_SOURCE_DIR "/corpus/known";
  unsigned selftests = 0;
  for (const auto& each : std::filesystem::directory_iterator(known)) {
    const auto path = each.path() / "selftest.c";
    const std::string name = each.path().filename();
    // The one that begins otherwise is a CPU's.
    const bool kernels = name.starts_with("kvm-") || name.starts_with("getregset-");
    // The library of the kernel's selftests has its guests at CPL 0, where kvm_pvm emulates.
    const bool c = name.starts_with("kvm-pvm-") || name.starts_with("getregset-");
    const char* format = c ? "c" : "selftest";
    EXPECT_EQ(std::filesystem::exists(path), kernels) << each.path();
    if (!kernels) continue;
    ++selftests;
    const auto text = files::ReadFile(path, 1 << 20);
    ASSERT_TRUE(text.has_value());
    EXPECT_EQ(*text, Fpswap({"export", each.path().string(), "--format", format, "-o", "-"}, 0))
        << "write it again: fpswap export " << each.path() << " --format " << format << " -o "
        << path;
  }
  EXPECT_GE(selftests, 15u);
}

// Its program has nothing but guest steps.
TEST(ExportTest, WhatNativeHasFoundBecomesATestOfAThread) {
  const std::string trace =
      FPSWAP_SOURCE_DIR "/corpus/traces/amd-family-19h-native/old-xcomp-bv-under-xsave.fpt";
  const std::string text = Fpswap({"export", trace, "-o", "-"}, 0);
  EXPECT_THAT(text, HasSubstr("PTRACE_CONT"));
  EXPECT_THAT(text, Not(HasSubstr("kvm")));
}

TEST(ExportTest, TheCommentsOfAProgramStandWhereItsStepsAre) {
  const std::string text =
      Fpswap({"export", FPSWAP_SOURCE_DIR "/corpus/known/kvm-get-xsave-stale-mxcsr", "-o", "-"}, 0);
  const size_t comment = text.find("/* MXCSR = 0 and XMM in use, saved by an exit ... */");
  ASSERT_NE(comment, std::string::npos);
  EXPECT_GT(comment, text.find("guest_code(void)"));
  EXPECT_LT(comment, text.find("ldmxcsr %0"));
}

// --- threads

constexpr char kThreadProgram[] = R"(vex.load256 ymm=3 pattern=0x1234
os.getregset image=0
vex.vzeroall
os.setregset image=0
vex.store256 ymm=3
)";

TEST(ExportTest, StepsOfTheSystemAreATestOfATracedChild) {
  const std::string text = Exported(RequestOf(kThreadProgram, ExportFormat::kC));
  const char* const order[] = {
      "tools/testing/selftests/x86",
      "#define XCR0\t\t(XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)",
      "asm volatile(\"int3\"",
      "void guest_code(void)",
      "vmovdqu %0, %%ymm3\" : : \"m\" (pattern_1234)",
      "guest_exit();",
      "vzeroall",
      "guest_exit();",
      "vmovdqu %%ymm3, %0\" : \"=m\" (ymm3)",
      "guest_exit();",
      "int main(void)",
      "TEST_REQUIRE((xgetbv(0) & XCR0) == XCR0);",
      "TEST_REQUIRE(cpu_has(X86_FEATURE_AVX));",
      "start_guest();",
      "run_guest();",
      "regset(PTRACE_GETREGSET, image0)",
      "check_bytes(\"YMM3[255:128] of PTRACE_GETREGSET\"",
      "run_guest();",
      "regset(PTRACE_SETREGSET, image0)",
      "run_guest();",
      "sync_from_guest(ymm3);",
      "check_bytes(\"YMM3 in the guest\", ymm3, pattern_1234, 32);"};
  ASSERT_NO_FATAL_FAILURE(ExpectInOrder(text, order));
  for (const char* unused : {"kvm_", "asm_safe(", "move_to_cpu", "fill_host_registers",
                             "send_signal", "handle_signal", "#include \"", "\n@"}) {
    EXPECT_THAT(text, Not(HasSubstr(unused)));
  }
}

TEST(ExportTest, AProgramAboutAThreadIsWrittenAsCIfNothingElseIsSaid) {
  const std::string path = FPSWAP_SOURCE_DIR "/tests/report/programs-native/avx.fps";
  const std::string text = Fpswap({"export", path, "-o", "-"}, 0);
  EXPECT_EQ(text, Fpswap({"export", path, "-o", "-", "--format", "c"}, 0));
  EXPECT_THAT(text, HasSubstr("Test a thread's FPU state: avx"));
  EXPECT_THAT(Fpswap({"export", path, "-o", "-", "--json"}, 0), HasSubstr("\"format\": \"c\""));
  EXPECT_THAT(Fpswap({"export", path, "-o", "-", "--format", "selftest"}, cli::kBadInput),
              HasSubstr("--format c"));
}

TEST(ExportTest, EveryVariedProgramAboutAThreadHasItsCFile) {
  const auto programs = ThreadPrograms();
  EXPECT_GE(programs.size(), 12u);
  for (const auto& path : programs) {
    const std::string text = Fpswap({"export", path.string(), "-o", "-"}, 0);
    EXPECT_THAT(text, HasSubstr("regset(PTRACE_")) << path;
    EXPECT_GT(Count(text.substr(text.find("int main(void)")), "check_"), 0u) << path;
  }
}

TEST(ExportTest, AThreadsFaultsAreItsSignals) {
  const std::string text =
      Exported(RequestOf("sse.ldmxcsr value=0x10000\nos.getregset\n", ExportFormat::kC));
  EXPECT_THAT(text, AllOf(HasSubstr("vector = asm_safe(\"ldmxcsr %[arg]\""),
                          HasSubstr("regs.rip = regs.r11;"), Not(HasSubstr("kvm_asm_safe")),
                          HasSubstr("check_value(\"Vector of LDMXCSR\", vector, GP_VECTOR);")));
}

TEST(ExportTest, ARefusedRegsetIsAssertedWithItsErrno) {
  const std::string text = Exported(RequestOf(
      "vmm.image_write image=0 offset=520 value=1\nos.setregset image=0\n", ExportFormat::kC));
  EXPECT_THAT(text, AllOf(HasSubstr("ret = regset(PTRACE_SETREGSET, image0);"),
                          HasSubstr("TEST_ASSERT(ret == -1 && errno == EINVAL,")));
}

// The kernel takes an image of one size alone, which a machine with more components has more of.
TEST(ExportTest, AThreadsImagesHaveRoomForThoseOfAnyMachine) {
  EXPECT_THAT(Exported(RequestOf(kThreadProgram, ExportFormat::kC)),
              HasSubstr("#define IMAGE_SIZE\t16384"));
}

TEST(ExportTest, AThreadsTilesAreAskedForAndLoadedOnce) {
  const std::string text =
      Exported(RequestOf("amx.ldtilecfg\nos.getregset image=0\n", ExportFormat::kC));
  const size_t permission = text.find("TEST_REQUIRE(!syscall(SYS_arch_prctl, 0x1023, 18));");
  ASSERT_NE(permission, std::string::npos) << text;
  EXPECT_LT(permission, text.find("start_guest();", permission));
  const size_t tiles = text.find("\"m\" (tiles)");
  ASSERT_NE(tiles, std::string::npos);
  EXPECT_LT(tiles, text.find("\"m\" (initial)"));
}

TEST(ExportTest, PkruOfAnImageNeverDeniesTheChildItsMemory) {
  const std::string text = Exported(RequestOf(
      "vmm.image_write image=1 offset=2688 value=0xff\nvmm.image_write image=1 offset=512 "
      "value=0x200\nos.setregset image=1\npkru.read\n",
      ExportFormat::kC));
  const size_t cleared = text.find("(image1 + xstate_offset(XFEATURE_MASK_PKRU)) &= ~3u;");
  ASSERT_NE(cleared, std::string::npos) << text;
  EXPECT_LT(cleared, text.find("regset(PTRACE_SETREGSET, image1)"));
  EXPECT_THAT(text, HasSubstr("check_value(\"PKRU in the guest\", pkru, 0xfc);"));
}

// Before the child goes on its CPU's registers hold something else.
TEST(ExportTest, ADirtiedThreadRunsOnTheCpuOfWhoFillsTheRegisters) {
  const std::string text = Exported(RequestOf(
      "vex.load256 ymm=1\nhost.dirty\nvex.store256 ymm=1\nos.getregset\n", ExportFormat::kC));
  const size_t moved = text.find("move_to_cpu(0);");
  EXPECT_LT(moved, text.find("start_guest();", moved));
  EXPECT_THAT(text, AllOf(HasSubstr("\tfill_host_registers();\n\n\trun_guest();"),
                          HasSubstr("sched_setaffinity(child, ")));
}

TEST(ExportTest, OfAThreadsFindingOnlyTheDivergingObservationIsAsserted) {
  ExportRequest request =
      RequestOf(std::string("sse.load xmm=9 pattern=3\n") + kThreadProgram, ExportFormat::kC);
  request.divergence = StaleYmm(std::vector<uint8_t>(16, 2));
  request.divergence->op = static_cast<uint8_t>(program::Op::kOsGetRegset);
  const std::string text = Exported(request);
  const std::string body = text.substr(text.find("int main(void)"));
  EXPECT_THAT(body, HasSubstr("check_bytes(\"YMM3[255:128] of PTRACE_GETREGSET\""));
  EXPECT_EQ(Count(body, "check_"), 1u) << body;
  EXPECT_THAT(body, Not(HasSubstr("PTRACE_SETREGSET"))) << "it ends with that observation";
  request.divergence->law = judge::Law::kIsolation;
  EXPECT_THAT(Exported(request), HasSubstr("\t\tfill_host_registers();\n\t\tptrace_child("));
}

TEST(ExportTest, SaysWhichStepAThreadHasNoCounterpartOf) {
  for (const char* step :
       {"os.sigframe", "os.sigreturn", "vmm.get_xsave", "vmm.set_fpu", "vmm.migrate", "exit.out",
        "exit.cpuid", "host.pkru value=4", "host.fork", "msr.read msr=xss", "xsaves",
        "mpx.bndmov_store", "raw bytes=90"}) {
    const std::string name = std::string(step).substr(0, std::string(step).find(' '));
    EXPECT_THAT(Exported(RequestOf("os.getregset\n" + std::string(step) + "\n", ExportFormat::kC)),
                AllOf(StartsWith("error: step 1 (" + name), Not(HasSubstr(" on native"))));
  }
  const auto exported = [](const char* text) {
    return Exported(RequestOf(text, ExportFormat::kC));
  };
  EXPECT_THAT(exported("vcpus 2\nos.getregset\n1: sse.stmxcsr\n"), HasSubstr("has 2 vCPUs"));
  EXPECT_THAT(exported("pkru.write value=1\nos.getregset\n"), HasSubstr("denies key 0"));
  EXPECT_THAT(exported("vmm.image_write offset=512 value=8\nos.setregset\nos.getregset\n"),
              HasSubstr("bound registers"));
}

// What a guest may see of the host shows only where the host has something to show.
TEST(ExportTest, WhereTheHostsValueWasSeenTheHostsRegistersAreFilled) {
  ExportRequest request = RequestOf(
      "features x87+tilecfg+tiledata\nxcr0 x87+tilecfg+tiledata\nxsave slot=0 rfbm=all wide=0\n");
  judge::Divergence divergence;
  divergence.law = judge::Law::kIsolation;
  divergence.op = static_cast<uint8_t>(program::Op::kXsave);
  divergence.has_component = true;
  divergence.component = xstate::Component::kTiledata;
  divergence.relation = judge::Relation::kAnothers;
  divergence.where = "TMM0 of the area";
  divergence.offset = 2816;
  divergence.possible.assign(16, 0);
  divergence.seen.assign(16, 0xee);
  request.divergence = divergence;
  for (const ExportFormat format : {ExportFormat::kSelftest, ExportFormat::kC}) {
    request.format = format;
    const std::string text = Exported(request);
    EXPECT_LT(text.find("\tfill_host_registers();\n\tvcpu_run(vcpu);"), text.size()) << text;
    EXPECT_THAT(text, HasSubstr("TEST_REQUIRE(!syscall(SYS_arch_prctl, ")) << "tiles are off";
    EXPECT_THAT(text, HasSubstr("TMM0"));
  }
  request.divergence->law = judge::Law::kModel;
  EXPECT_THAT(Exported(request), Not(HasSubstr("fill_host_registers")));
}

TEST(ExportTest, BadInputIsRefused) {
  EXPECT_THAT(Fpswap({"export", "/nowhere.fps", "-o", "-"}, cli::kBadInput),
              HasSubstr("/nowhere.fps"));
  EXPECT_THAT(Fpswap({"export", "x.fps", "-o", "-", "--format", "rust"}, cli::kBadInput),
              HasSubstr("--format"));
  Fpswap({"export", "x.fps"}, cli::kBadInput);
}

}  // namespace
}  // namespace fpswap::report
