// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/page/page.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "harness/files/files.h"
#include "harness/judge/judge.h"
#include "harness/report/html.h"
#include "tests/campaign/fakes.h"

namespace fpswap::report {
namespace {

namespace fs = std::filesystem;
using fpswap::testing::TemporaryFolder;
using ::testing::HasSubstr;
using ::testing::Not;

const fs::path kTraces = fs::path(FPSWAP_SOURCE_DIR) / "corpus/traces/sapphire-rapids-kvm_pvm";

// A recorded trace as the finding of its last divergence.
triage::Finding FindingOf(const std::string& name) {
  triage::Finding finding;
  const auto bytes = files::ReadFile(kTraces / name, trace::kMaxTraceSize);
  finding.trace = trace::ReadTrace(files::AsBytes(bytes.value())).value();
  finding.verdict = judge::JudgeTrace(finding.trace);
  EXPECT_FALSE(finding.verdict.ok());
  finding.divergence = finding.root = finding.verdict.divergences.size() - 1;
  finding.signature = triage::SignatureOf(finding.verdict.divergences.back());
  finding.found = 1'700'000'000;
  return finding;
}

// PKRU left out of an image: XSTATE_BV's bit 9 is 0 and PKRU is too.
constexpr const char* kPkru = "424a14cd-coherence-vmm.get_xsave-pkru-initial.fpt";
constexpr const char* kFpu = "46f06166-coherence-vmm.get_fpu-x87-other.fpt";

ReportData Collected(const fs::path& findings) {
  auto data = CollectReport({.findings = findings, .version = "0.1.0", .known = {}});
  if (!data) {
    ADD_FAILURE() << data.error();
    return {};
  }
  return std::move(*data);
}

int64_t AddRun(triage::Store& store, const std::string& target, uint64_t programs,
               const std::map<std::string, uint64_t>& fresh) {
  const auto run = store.BeginRun({.folder = ".run-" + target,
                                   .target = target,
                                   .kernel = "6.12",
                                   .cpu = "a CPU",
                                   .version = "0.1.0",
                                   .plant = "",
                                   .began = 1000});
  EXPECT_TRUE(run);
  EXPECT_TRUE(store.Note(*run, {.now = 1010,
                                .seconds = 10,
                                .programs = programs,
                                .states = 9,
                                .known = {},
                                .fresh = fresh}));
  return *run;
}

TEST(Html, EscapesMarkupAndWhatIsNoText) {
  EXPECT_EQ(Html("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(Html("caf\xc3\xa9"), "caf\xc3\xa9");
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(Html(std::string_view("\0\x1b", 2)), bad + bad);
  for (const char* text :
       {"\xc3", "\xff", "\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    EXPECT_THAT(Html(text), ::testing::StartsWith(bad)) << text;
    EXPECT_THAT(Html(text), Not(HasSubstr(text)));
  }
}

TEST(ShellWord, GivesTheShellBackWhatItWas) {
  EXPECT_EQ(ShellWord("findings/a-b_c.fps"), "findings/a-b_c.fps");
  for (const std::string text : {"a b", "it's", "$(rm -rf .)", "`x`;#", "", "-\n"}) {
    const std::string command = "test " + ShellWord(text) + " = \"$WANTED\"";
    setenv("WANTED", text.c_str(), 1);
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
  unsetenv("WANTED");
}

TEST(ImageMap, NamesRegistersAndCountsBitsThatDiffer) {
  const trace::Platform platform = campaign::EverythingPlatform();
  judge::Compared compared{.place = judge::Place::kImage,
                           .possible = std::vector<uint8_t>(platform.host.xsave.max_size),
                           .seen = {}};
  compared.seen = compared.possible;
  const auto& avx = platform.host.xsave.sub[2];
  compared.seen[avx.offset + 5 * 16 + 3] = 0x81;   // YMM5
  compared.seen[avx.offset + 5 * 16 + 15] = 0x01;  // the same
  compared.seen[24] = 0x80;                        // MXCSR
  const ImageMap map = MapOf(compared, platform);
  EXPECT_EQ(map.bytes, 3u);
  EXPECT_EQ(map.bits, 4u);
  EXPECT_EQ(map.registers, 2u);
  ASSERT_EQ(map.differing.size(), 2u);
  EXPECT_EQ(map.differing[0].name, "MXCSR");
  EXPECT_EQ(map.differing[1].name, "YMM5[255:128]");
  EXPECT_EQ(map.differing[1].begin, avx.offset + 5 * 16 + 3);
  EXPECT_EQ(map.differing[1].seen.size(), 13u);
  EXPECT_THAT(ImageMapHtml(map), HasSubstr("3 bits of YMM5[255:128] differ"));
}

TEST(ImageMap, RegionsCoverAllBytesWhateverTheyHold) {
  const trace::Platform platform = campaign::EverythingPlatform();
  for (const size_t size : {0, 1, 511, 576, 2696, 12288}) {
    for (const uint8_t fill : {uint8_t{0}, uint8_t{0xff}, uint8_t{0x80}}) {
      const std::vector<uint8_t> bytes(size, fill);
      for (unsigned place = 0; place <= static_cast<unsigned>(judge::Place::kExit); ++place) {
        uint32_t at = 0;
        for (const Region& region : RegionsOf(static_cast<judge::Place>(place), bytes, platform)) {
          EXPECT_EQ(region.begin, at);
          EXPECT_LT(region.begin, region.end);
          at = region.end;
        }
        EXPECT_EQ(at, size);
      }
    }
  }
}

TEST(Report, ShowsARealFindingDownToTheBit) {
  const TemporaryFolder folder;
  const triage::Finding finding = FindingOf(kPkru);
  ASSERT_TRUE(triage::WriteFinding(folder.path(), finding).value().added);
  const ReportData data = Collected(folder.path());
  ASSERT_EQ(data.groups.size(), 1u);
  const Group& group = data.groups[0];
  ASSERT_TRUE(group.detail && group.detail->divergence);
  const ImageMap& map = group.detail->map;
  EXPECT_EQ(map.place, judge::Place::kImage);
  ASSERT_FALSE(map.differing.empty());
  EXPECT_EQ(map.differing[0].name, "header XSTATE_BV");
  EXPECT_EQ(map.differing[0].possible[0] ^ map.differing[0].seen[0], 0x02) << "bit 9: PKRU";
  EXPECT_EQ(map.differing.back().name.substr(0, 4), "PKRU");
  const std::string html = ReportHtml(data);
  EXPECT_THAT(html, HasSubstr(Html(group.facts.words)));
  EXPECT_THAT(html, HasSubstr("header XSTATE_BV"));
  EXPECT_THAT(html, HasSubstr("fpswap export"));
  EXPECT_THAT(html, HasSubstr("2023-11-14 22:13 UTC"));
}

TEST(Report, CountsByPlatformAndSaysWhereItWasNotSeen) {
  const TemporaryFolder folder;
  const triage::Finding finding = FindingOf(kFpu);
  const std::string name = finding.signature.Name();
  ASSERT_TRUE(triage::WriteFinding(folder.path(), finding).value().added);
  {
    auto store = triage::Store::Open(folder.path());
    ASSERT_TRUE(store) << store.error();
    AddRun(*store, "kvm", 500, {{name, 4}});
    AddRun(*store, "lab:amx", 300, {});
    AddRun(*store, "kvm", 600, {{name, 5}, {"gone", 2}});
  }
  const ReportData data = Collected(folder.path());
  ASSERT_EQ(data.groups.size(), 2u);
  const Group& group = data.groups[0];
  EXPECT_EQ(group.facts.name, name);
  EXPECT_EQ(group.programs, 9u);
  EXPECT_EQ(group.runs, 2u);
  EXPECT_EQ(group.first, 1010);
  EXPECT_EQ(group.after, 500u);
  ASSERT_EQ(group.agreements.size(), 2u);
  EXPECT_EQ(group.agreements[0].target, "kvm");
  EXPECT_EQ(group.agreements[0].ran, 1100u);
  EXPECT_EQ(group.agreements[0].showed, 9u);
  EXPECT_EQ(group.agreements[1].target, "lab:amx");
  EXPECT_EQ(group.agreements[1].showed, 0u);
  EXPECT_EQ(data.groups[1].facts.name, "gone");
  EXPECT_EQ(data.groups[1].after, 1100u) << "500 of the run before and 600 of its own";
  EXPECT_EQ(data.series.size(), 2u);
  const auto json = nlohmann::json::parse(ReportJson(data));
  EXPECT_EQ(json["groups"][0]["programs"], 9);
  EXPECT_EQ(json["groups"][0]["seen_on"][0]["ran"], 1100);
  EXPECT_EQ(json["groups"][0]["still_found"], true);
  EXPECT_EQ(json["runs"].size(), 3u);
}

TEST(Report, SaysWhereThisOracleNoLongerFindsIt) {
  const TemporaryFolder folder;
  triage::Finding finding = FindingOf(kPkru);
  finding.signature.cause.clear();
  finding.signature.where = "another place";
  ASSERT_TRUE(triage::WriteFinding(folder.path(), finding).value().added);
  const ReportData data = Collected(folder.path());
  ASSERT_EQ(data.groups.size(), 1u);
  EXPECT_FALSE(data.groups[0].detail->divergence);
  EXPECT_THAT(ReportHtml(data), HasSubstr("found by another version"));
}

// Every text of a finding, a folder's name and a run is somebody else's.
TEST(Report, HostileTextsAreTextsOnly) {
  const TemporaryFolder folder;
  const std::string attack = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'";
  const std::string in_json = nlohmann::json(attack).dump();
  const fs::path hostile = folder.path() / "<script>alert(3)<";
  fs::create_directories(hostile);
  std::string verdict = "{";
  for (const char* key : {"signature", "name", "target", "plant", "version"}) {
    verdict += fmt::format("\"{}\": {}, ", key, in_json);
  }
  verdict += "\"divergences\": [{";
  for (const char* key : {"law", "op", "component", "relation", "where", "rule", "cause"}) {
    verdict += fmt::format("\"{}\": {}, ", key, in_json);
  }
  verdict += fmt::format("\"words\": {}}}]}}", in_json);
  ASSERT_TRUE(files::WriteFile(hostile / "verdict.json", verdict));
  ASSERT_TRUE(files::WriteFile(hostile / "trace.fpt", attack));
  ASSERT_TRUE(files::WriteFile(hostile / "platform.json",
                               fmt::format("{{\"kernel\": {0}, \"cpu\": {0}}}", in_json)));
  ASSERT_TRUE(files::WriteFile(
      folder.path() / "reach.json",
      fmt::format("{{\"rows\": [], \"trims\": [{{\"step\": {0}, \"reason\": {0}, \"count\": 1}}]}}",
                  in_json)));
  {
    auto store = triage::Store::Open(folder.path());
    ASSERT_TRUE(store) << store.error();
    AddRun(*store, attack, 10, {{attack, 1}});
  }
  const ReportData data = Collected(folder.path());
  EXPECT_EQ(data.groups.size(), 2u);
  EXPECT_FALSE(data.problems.empty()) << "its trace is none";
  const std::string html = ReportHtml(data);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)"));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_TRUE(nlohmann::json::accept(ReportJson(data)));
}

TEST(Report, OfAFolderWithoutFindingsAndRunsSaysSo) {
  const TemporaryFolder folder;
  EXPECT_FALSE(CollectReport({.findings = folder.path(), .version = "", .known = {}}));
  ASSERT_TRUE(triage::Store::Open(folder.path()));
  const std::string html = ReportHtml(Collected(folder.path()));
  EXPECT_THAT(html, HasSubstr("nothing new was seen"));
  EXPECT_THAT(html, HasSubstr("No run is on record"));
  EXPECT_FALSE(CollectReport({.findings = folder.path() / "none", .version = "", .known = {}}));
}

// In headless Chromium: no message, no overflow, contrast, keyboard (ci/check-report). A page that
// breaks these is told.
TEST(Report, IsGoodInABrowser) {
  const TemporaryFolder folder;
  ASSERT_TRUE(triage::WriteFinding(folder.path(), FindingOf(kPkru)).value().added);
  ASSERT_TRUE(triage::WriteFinding(folder.path(), FindingOf(kFpu)).value().added);
  const std::string hostile(300, 'W');  // no blank to break at
  {
    auto store = triage::Store::Open(folder.path());
    ASSERT_TRUE(store) << store.error();
    AddRun(*store, "kvm", 500, {{"<script>alert(1)</script>" + hostile, 4}});
  }
  const fs::path good = folder.path() / "good.html", bad = folder.path() / "bad.html";
  const std::string html = ReportHtml(Collected(folder.path()));
  ASSERT_TRUE(files::WriteFile(good, html));
  const auto check = [](const fs::path& page) {
    const std::string command =
        fmt::format("python3 {}/ci/check-report {}", FPSWAP_SOURCE_DIR, page.string());
    return WEXITSTATUS(std::system(command.c_str()));
  };
  const int result = check(good);
  if (result == 77) GTEST_SKIP() << "no Chromium here";
  EXPECT_EQ(result, 0);
  for (const std::string fault :
       {"<div style='width:3000px'>wide</div>", "<p style='color:#ccc;background:#fff'>faint</p>",
        "<img src='http://127.0.0.1:1/x'>", "<script>1</script>",
        "<table><tr><td>no header</td></tr></table>"}) {
    std::string broken = html;
    broken.insert(broken.find("<main"), fault);
    ASSERT_TRUE(files::WriteFile(bad, broken));
    EXPECT_EQ(check(bad), 1) << fault;
  }
}

}  // namespace
}  // namespace fpswap::report
