// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/known.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/files/files.h"
#include "harness/judge/judge.h"
#include "tests/campaign/fakes.h"

namespace fpswap::triage {
namespace {

using fpswap::testing::SomeDivergence;
using nlohmann::json;
using ::testing::HasSubstr;

json Entry() {
  return {{"title", "AVX is stale"},
          {"reason", "for the test"},
          {"kernel_function", "fpu_swap_kvm_fpstate"},
          {"law", judge::LawName(judge::Law::kModel)},
          {"step", "vmm.get_xsave"},
          {"component", "avx"},
          {"relation", judge::RelationName(judge::Relation::kStale)},
          {"where_regex", "YMM[0-9]+\\[255:128\\].*"},
          {"platform",
           {{"vendor_module", "kvm_pvm"}, {"kernel", {{"from", "6.18"}, {"before", "6.19"}}}}}};
}

trace::Platform Here() {
  trace::Platform platform = campaign::EverythingPlatform();
  platform.target = "kvm";
  platform.vendor_module = "kvm_pvm";
  platform.kernel = "6.18.4-cloud";
  platform.host.amd = true;
  return platform;
}

Known Parse(const json& entry) {
  auto known = ParseKnown(entry.dump(), "test");
  if (!known) ADD_FAILURE() << known.error();
  return known.value_or(Known{});
}

std::string ErrorOf(const json& entry) {
  auto known = ParseKnown(entry.dump(), "corpus/known/x/known.json");
  return known ? "no error" : known.error();
}

TEST(Known, MatchesTheDivergenceItDescribes) {
  EXPECT_TRUE(Parse(Entry()).Matches(SomeDivergence(), Here()));
}

TEST(Known, NearMissesOfTheDivergenceStayNew) {
  const Known known = Parse(Entry());
  judge::Divergence d = SomeDivergence();
  d.law = judge::Law::kRoundTrip;
  EXPECT_FALSE(known.Matches(d, Here())) << "another law";
  d = SomeDivergence();
  d.op = static_cast<uint8_t>(program::Op::kGetXsave2);
  EXPECT_FALSE(known.Matches(d, Here())) << "another step";
  d = SomeDivergence();
  d.component = xstate::Component::kZmmHi256;
  EXPECT_FALSE(known.Matches(d, Here())) << "another component";
  d = SomeDivergence();
  d.has_component = false;
  EXPECT_FALSE(known.Matches(d, Here())) << "no component";
  d = SomeDivergence();
  d.relation = judge::Relation::kInitial;
  EXPECT_FALSE(known.Matches(d, Here())) << "another relation";
  d = SomeDivergence();
  d.where = "XMM5";
  EXPECT_FALSE(known.Matches(d, Here())) << "another place";
  d = SomeDivergence();
  d.where = "the upper half of YMM5[255:128]";
  EXPECT_FALSE(known.Matches(d, Here())) << "a pattern must match all of the place";
}

TEST(Known, NearMissesOfThePlatformStayNew) {
  const Known known = Parse(Entry());
  trace::Platform platform = Here();
  platform.vendor_module = "kvm_intel";
  EXPECT_FALSE(known.Matches(SomeDivergence(), platform)) << "another vendor module";
  for (const char* kernel : {"6.17.99", "6.19.0", "7.0.0", "6.1.0", "strange"}) {
    platform = Here();
    platform.kernel = kernel;
    EXPECT_FALSE(known.Matches(SomeDivergence(), platform)) << kernel;
  }
}

TEST(Known, ExactPlaceMatchesThatPlaceAlone) {
  json entry = Entry();
  entry.erase("where_regex");
  entry["where"] = "YMM5[255:128] byte 3";
  EXPECT_TRUE(Parse(entry).Matches(SomeDivergence(), Here()));
  judge::Divergence d = SomeDivergence();
  d.where = "YMM5[255:128] byte 4";
  EXPECT_FALSE(Parse(entry).Matches(d, Here()));
  entry["where"] = {"YMM5[255:128] byte 3", "YMM5[255:128] byte 4"};
  EXPECT_TRUE(Parse(entry).Matches(d, Here()));
  d.where = "YMM5[255:128] byte 5";
  EXPECT_FALSE(Parse(entry).Matches(d, Here()));
  entry["where"] = json::array();
  EXPECT_THAT(ErrorOf(entry), HasSubstr("\"where\" is empty"));
}

TEST(Known, BytesCanNarrowThePredicate) {
  json entry = Entry();
  entry["seen_hex"] = "090807";
  EXPECT_TRUE(Parse(entry).Matches(SomeDivergence(), Here()));
  entry["seen_hex"] = "0908";
  EXPECT_FALSE(Parse(entry).Matches(SomeDivergence(), Here()));
  entry["seen_hex"] = ".*";
  entry["possible_hex"] = "00.*";
  EXPECT_FALSE(Parse(entry).Matches(SomeDivergence(), Here()));
}

TEST(Known, NullComponentMeansNoneAndListsMeanAnyOfThem) {
  json entry = Entry();
  entry["component"] = nullptr;
  entry["step"] = {"vmm.get_xsave", "vmm.get_xsave2"};
  judge::Divergence d = SomeDivergence();
  EXPECT_FALSE(Parse(entry).Matches(d, Here()));
  d.has_component = false;
  d.op = static_cast<uint8_t>(program::Op::kGetXsave2);
  EXPECT_TRUE(Parse(entry).Matches(d, Here()));
}

// The entry's pattern is written by hand and the names come from the oracle: every register that
// KVM_GET_FPU copies out of the legacy region is covered.
TEST(Known, GetFpuEntryKnowsEveryRegisterOfTheLegacyRegion) {
  auto all = LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(all) << all.error();
  const auto entry = std::ranges::find(*all, "kvm-get-fpu-ignores-xstate-bv", &Known::name);
  ASSERT_NE(entry, all->end());
  const trace::Platform platform = Here();
  for (uint32_t at = 0; at < 416; ++at) {
    if (at == 5 || (at >= 24 && at < 32) || (at >= 32 && at < 160 && at % 16 >= 10)) continue;
    const xstate::ByteName name = xstate::NameOfByte(platform.host.xsave, at);
    judge::Divergence d = SomeDivergence();
    d.law = judge::Law::kCoherence;
    d.op = static_cast<uint8_t>(program::Op::kGetFpu);
    d.component = name.component;
    d.relation = judge::Relation::kStale;
    d.initial = true;
    d.cause = "fpu-of-old";
    const std::string_view text = name.text;
    d.where = std::string(text.substr(0, text.rfind(" byte "))) + " of kvm_fpu";
    EXPECT_TRUE(entry->Matches(d, platform)) << at << ": " << d.where;
    d.initial = false;
    EXPECT_FALSE(entry->Matches(d, platform)) << d.where << " in use";
    d.initial = true;
    d.relation = judge::Relation::kAnothers;
    EXPECT_FALSE(entry->Matches(d, platform)) << d.where << " with another's bytes";
  }
}

trace::Trace RecordedTrace(const std::string& name) {
  std::ifstream file(FPSWAP_SOURCE_DIR "/corpus/traces/" + name, std::ios::binary);
  const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
  auto trace = trace::ReadTrace(bytes);
  EXPECT_TRUE(trace) << trace.error();
  return trace ? std::move(*trace) : trace::Trace{};
}

// The names of what a recorded trace shows, all of which must be known.
std::set<std::string> KnownIn(const std::string& name) {
  const auto known = LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  EXPECT_TRUE(known) << known.error();
  if (!known) return {};
  const trace::Trace trace = RecordedTrace(name);
  const judge::Verdict verdict = judge::JudgeTrace(trace);
  EXPECT_FALSE(verdict.ok()) << name << " has nothing to show";
  const Sorted sorted = Sort(verdict, trace.platform, *known);
  EXPECT_FALSE(sorted.first_new) << name << ": "
                                 << verdict.divergences[sorted.first_new.value_or(0)].words;
  std::set<std::string> shown;
  for (const Known* one : sorted.known) shown.insert(one->name);
  return shown;
}

// Each of these was new when it was recorded. Together they show that what an entry excuses on one
// machine does not hide what another program shows: all divergences of each must be listed.
TEST(Known, ExplainsEveryDivergenceRecordedUnderKvmPvmOnSapphireRapids) {
  std::set<std::string> shown;
  unsigned judged = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           FPSWAP_SOURCE_DIR "/corpus/traces/sapphire-rapids-kvm_pvm")) {
    shown.merge(KnownIn("sapphire-rapids-kvm_pvm/" + entry.path().filename().string()));
    ++judged;
  }
  EXPECT_GE(judged, 50u);
  EXPECT_THAT(shown, ::testing::IsSupersetOf({"kvm-pvm-host-pke", "kvm-pvm-host-xcr0",
                                              "kvm-get-xsave-pkru-bit", "kvm-set-fpu-lost"}));
}

// Each was new when it was found: real kvm_intel and kvm_amd of Linux 6.12 on emulated CPUs.
TEST(Known, ExplainsWhatWasRecordedInLabs) {
  const std::pair<const char*, std::set<std::string>> traces[] = {
      {"amx-cpuid-grows-for-tiles",
       {"kvm-set-cpuid-loses-state", "kvm-get-xsave-pkru-bit", "kvm-get-fpu-ignores-xstate-bv",
        "kvm-get-fpu-no-mxcsr"}},
      {"amx-fcw-of-a-grown-fpstate", {"kvm-get-fpu-ignores-xstate-bv", "kvm-get-fpu-no-mxcsr"}},
      {"amd-lost-pkru-lets-an-access-through", {"kvm-migration-loses-pkru"}},
      {"amx-xfd-over-tiles-at-the-end", {"kvm-set-msr-xfd-host-nm"}},
  };
  for (const auto& [name, causes] : traces) {
    EXPECT_EQ(KnownIn(std::string("labs-known/") + name + ".fpt"), causes) << name;
  }
}

// KVM_GET_FPU shows what KVM_SET_FPU gave, as the CPU has kept it meanwhile.
TEST(Known, KnowsOldPointersOfWhichTheCpuKeeps57Bits) {
  const auto known = LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(known) << known.error();
  const trace::Trace trace = RecordedTrace("amd-family-19h-kvm_pvm/old-pointers-of-57-bits.fpt");
  const judge::Verdict verdict = judge::JudgeTrace(trace);
  EXPECT_THAT(verdict.divergences,
              ::testing::Contains(
                  ::testing::Field(&judge::Divergence::where, ::testing::HasSubstr("FIP[63:32]"))));
  const Sorted sorted = Sort(verdict, trace.platform, *known);
  EXPECT_FALSE(sorted.first_new) << verdict.divergences[sorted.first_new.value_or(0)].words;
}

// Three parts of KVM_SET_FPU are lost, and KVM_GET_XSAVE shows an MXCSR of before: if two had been
// lost, what is shown would be no known fault.
TEST(Known, ExplainsAnOldMxcsrBehindALossInEveryPart) {
  EXPECT_THAT(KnownIn("amd-family-19h-kvm_pvm/set-fpu-lost-behind-an-old-mxcsr.fpt"),
              ::testing::IsSupersetOf(
                  {"kvm-set-fpu-lost", "kvm-set-fpu-no-mxcsr", "kvm-get-xsave-stale-mxcsr"}));
}

// KVM_SET_FPU's MXCSR is passed over, and KVM_GET_XSAVE shows one of before in its place: what was
// set is nearer to what is shown than what is there.
TEST(Known, ExplainsAnOldMxcsrBehindOneThatWasNotSet) {
  EXPECT_EQ(KnownIn("amd-family-19h-kvm_pvm/mxcsr-not-set-behind-an-old-one.fpt"),
            (std::set<std::string>{"kvm-set-fpu-no-mxcsr", "kvm-get-xsave-stale-mxcsr"}));
}

// KVM_SET_FPU is lost in every part, and before that shows LDMXCSR faults by a known wrong vector,
// whatever was lost: that must not decide what was.
TEST(Known, ExplainsALossThatShowsBehindAFaultByAnotherVector) {
  EXPECT_THAT(KnownIn("amd-family-19h-kvm_pvm/set-fpu-lost-behind-a-wrong-vector.fpt"),
              ::testing::UnorderedElementsAre("kvm-set-fpu-lost", "kvm-set-fpu-no-mxcsr",
                                              "kvm-pvm-host-xcr0", "kvm-pvm-ldmxcsr-ud"));
}

// It was called opmasks that nobody wrote for as long as an area was named by its header's
// XCOMP_BV, which XSAVE leaves as it was: AVX lies there.
TEST(Known, ExplainsAvxInAnAreaWhoseOldHeaderSaysCompacted) {
  const auto known = LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(known) << known.error();
  const trace::Trace trace = RecordedTrace("amd-family-19h-native/old-xcomp-bv-under-xsave.fpt");
  const judge::Verdict verdict = judge::JudgeTrace(trace);
  ASSERT_EQ(verdict.divergences.size(), 1u);
  EXPECT_EQ(verdict.divergences[0].where, "YMM0[255:128] of the area");
  const Sorted sorted = Sort(verdict, trace.platform, *known);
  EXPECT_FALSE(sorted.first_new) << verdict.divergences[0].words;
  ASSERT_EQ(sorted.known.size(), 1u);
  EXPECT_EQ(sorted.known[0]->name, "amd-avx-initial-under-zmm");
}

TEST(Known, RefusesWhatWouldWidenThePredicateUnseen) {
  for (const char* key : {"law", "step", "component", "relation", "platform", "reason"}) {
    json entry = Entry();
    entry.erase(key);
    EXPECT_THAT(ErrorOf(entry), HasSubstr(key)) << "missing key";
  }
  json entry = Entry();
  entry.erase("where_regex");
  EXPECT_THAT(ErrorOf(entry), HasSubstr("where"));
  entry = Entry();
  entry["compnent"] = "sse";
  EXPECT_THAT(ErrorOf(entry), HasSubstr("compnent"));
  entry = Entry();
  entry["platform"] = json::object();
  EXPECT_THAT(ErrorOf(entry), HasSubstr("empty"));
  entry = Entry();
  entry["platform"]["kernel"] = {{"form", "6.1"}};
  EXPECT_THAT(ErrorOf(entry), HasSubstr("form"));
  entry = Entry();
  entry["step"] = json::array();
  EXPECT_THAT(ErrorOf(entry), HasSubstr("step"));
  entry = Entry();
  entry["component"] = "ymm";
  EXPECT_THAT(ErrorOf(entry), HasSubstr("ymm"));
  entry = Entry();
  entry["where_regex"] = "(";
  EXPECT_THAT(ErrorOf(entry), HasSubstr("where_regex"));
  EXPECT_FALSE(ParseKnown("{", "x").has_value());
  EXPECT_FALSE(ParseKnown("[]", "x").has_value());
  EXPECT_FALSE(ParseKnown("", "x").has_value());
}

TEST(KernelVersion, ReadsTheFrontOfUname) {
  EXPECT_EQ(ParseKernelVersion("6.18.3-cloud"), (KernelVersion{6, 18, 3}));
  EXPECT_EQ(ParseKernelVersion("6.18"), (KernelVersion{6, 18, 0}));
  EXPECT_EQ(ParseKernelVersion("6.18-rc1"), (KernelVersion{6, 18, 0}));
  EXPECT_EQ(ParseKernelVersion("6.1.y"), (KernelVersion{6, 1, 0}));
  EXPECT_EQ(ParseKernelVersion("6"), std::nullopt);
  EXPECT_EQ(ParseKernelVersion("linux"), std::nullopt);
  EXPECT_EQ(ParseKernelVersion(""), std::nullopt);
}

TEST(Sort, OneUnknownDivergenceMakesTheWholeVerdictNew) {
  const std::vector<Known> known = {Parse(Entry())};
  judge::Verdict verdict;
  verdict.divergences = {SomeDivergence(), SomeDivergence()};
  Sorted sorted = Sort(verdict, Here(), known);
  EXPECT_FALSE(sorted.first_new.has_value());
  EXPECT_EQ(sorted.known.size(), 1u) << "an entry counts once a verdict";
  verdict.divergences[1].relation = judge::Relation::kAnothers;
  sorted = Sort(verdict, Here(), known);
  EXPECT_EQ(sorted.first_new, 1u);
}

TEST(LoadKnown, ReadsEveryFolderAndRefusesOneWithoutItsPredicate) {
  const fpswap::testing::TemporaryFolder folder;
  std::filesystem::create_directory(folder.path() / "avx-stale");
  ASSERT_TRUE(files::WriteFile(folder.path() / "avx-stale/known.json", Entry().dump()));
  auto known = LoadKnown(folder.path());
  ASSERT_TRUE(known) << known.error();
  ASSERT_EQ(known->size(), 1u);
  EXPECT_EQ((*known)[0].name, "avx-stale");
  std::filesystem::create_directory(folder.path() / "empty");
  known = LoadKnown(folder.path());
  ASSERT_FALSE(known);
  EXPECT_THAT(known.error(), HasSubstr("empty/known.json"));
}

TEST(Known, LawMayBeAList) {
  json entry = Entry();
  entry["law"] = {"round_trip", "model"};
  EXPECT_TRUE(Parse(entry).Matches(SomeDivergence(), Here()));
  entry["law"] = {"round_trip", "refusal"};
  EXPECT_FALSE(Parse(entry).Matches(SomeDivergence(), Here()));
}

TEST(Known, CauseStandsForLawStepAndPlace) {
  json entry = Entry();
  for (const char* key : {"law", "step", "where_regex"}) entry.erase(key);
  entry["cause"] = "some-defect";
  judge::Divergence d = SomeDivergence();
  EXPECT_FALSE(Parse(entry).Matches(d, Here())) << "the condition did not hold";
  d.cause = "some-defect";
  d.law = judge::Law::kRoundTrip;
  EXPECT_TRUE(Parse(entry).Matches(d, Here()));
  d.component = xstate::Component::kSse;
  EXPECT_FALSE(Parse(entry).Matches(d, Here())) << "another component";
}

TEST(Known, WithACauseLawStepAndPlaceStillNarrow) {
  json entry = Entry();
  entry["cause"] = "some-defect";
  judge::Divergence d = SomeDivergence();
  d.cause = "some-defect";
  EXPECT_TRUE(Parse(entry).Matches(d, Here()));
  d.law = judge::Law::kRoundTrip;
  EXPECT_FALSE(Parse(entry).Matches(d, Here()));
}

TEST(Known, ValuesNarrowThePredicate) {
  json entry = Entry();
  entry["possible_value"] = 13;
  entry["seen_value"] = 0;
  judge::Divergence d = SomeDivergence();
  EXPECT_FALSE(Parse(entry).Matches(d, Here())) << "no values differ";
  d.possible_value = 13;
  d.seen_value = 0;
  EXPECT_TRUE(Parse(entry).Matches(d, Here()));
  d.possible_value = 7;
  EXPECT_FALSE(Parse(entry).Matches(d, Here()));
  entry["seen_value"] = -1;
  EXPECT_THAT(ErrorOf(entry), HasSubstr("\"seen_value\" must be a number"));
}

TEST(Known, InitialNarrowsThePredicate) {
  json entry = Entry();
  entry["initial"] = true;
  judge::Divergence d = SomeDivergence();
  EXPECT_FALSE(Parse(entry).Matches(d, Here())) << "the component was in use";
  d.initial = true;
  EXPECT_TRUE(Parse(entry).Matches(d, Here()));
}

}  // namespace
}  // namespace fpswap::triage
