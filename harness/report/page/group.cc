// SPDX-License-Identifier: GPL-2.0-or-later
//
// One group of the report, from the inside.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "harness/program/text.h"
#include "harness/report/html.h"
#include "harness/report/page/page.h"

namespace fpswap::report {
namespace {

std::string Term(std::string_view term, const std::string& html) {
  return html.empty() ? "" : fmt::format("<dt>{}</dt><dd>{}</dd>", term, html);
}

std::string Code(std::string_view text) { return fmt::format("<code>{}</code>", Html(text)); }

std::string FactsHtml(const Group& group) {
  const triage::FindingFacts& f = group.facts;
  std::string html = "<dl>";
  html += Term("Signature", f.key.empty() ? "" : Code(f.key));
  html += Term("Rule", Html(f.rule));
  html += Term("Seen in", group.runs == 0
                              ? std::string("no run that is on record")
                              : fmt::format("{} programs of {} {}", CountHtml(group.programs),
                                            group.runs, group.runs == 1 ? "run" : "runs"));
  html += Term("First seen", group.first == 0
                                 ? std::string("not known")
                                 : fmt::format("{} UTC, after {} programs on its target",
                                               TimeText(group.first), CountHtml(group.after)));
  html += Term("Last seen", group.last == 0 ? "" : TimeText(group.last) + " UTC");
  if (f.reruns > 0) {
    html += Term("Repeats", fmt::format("{} of {} runs of the program alone", f.repeats, f.reruns));
  }
  html += Term("Planted bug", f.plant.empty() ? ""
                                              : Code(f.plant) +
                                                    ": a self-test of the harness, no bug of the "
                                                    "system under test");
  return html + "</dl>";
}

std::string AgreementsHtml(const Group& group) {
  if (group.agreements.empty()) return "";
  std::string html =
      "<h3>Where it was seen and where not</h3>"
      "<div class=\"scroll\" role=\"region\" aria-label=\"Where it was seen\" "
      "tabindex=\"0\"><table>"
      "<thead><tr><th scope=\"col\">target</th><th scope=\"col\">kernel</th><th scope=\"col\">CPU"
      "</th><th scope=\"col\">fpswap</th><th scope=\"col\">programs that showed it</th><th "
      "scope=\"col\">programs run</th></tr></thead><tbody>";
  for (const Agreement& each : group.agreements) {
    const std::string plant =
        each.plant.empty() ? "" : " <span class=\"tag\">plant " + Html(each.plant) + "</span>";
    html += fmt::format(
        "<tr><th scope=\"row\">{}{}</th><td>{}</td><td class=\"wide\">{}</td><td>{}</td>"
        "<td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        Html(each.target), plant, Html(each.kernel), Html(each.cpu), Html(each.version),
        each.recorded      ? std::string("the finding's trace")
        : each.showed == 0 ? std::string("none")
                           : CountHtml(each.showed),
        each.recorded ? std::string("not on record") : CountHtml(each.ran));
  }
  return html +
         "</tbody></table></div><p class=\"note\">None is not the same as agreement: it counts "
         "only "
         "with what ran there (see Reach), and not every target can run every step. The command "
         "below with several targets compares them.</p>";
}

std::string CodeHtml(const ShownStep& step) {
  std::string html;
  for (size_t i = 0; i < step.code.size(); ++i) {
    const Instruction& at = step.code[i];
    const bool under_test = i == step.under_test;
    html += fmt::format("<code class=\"{}\">{} {:x}  {}{}</code><br>", under_test ? "ut" : "aux",
                        under_test ? "&gt;" : " ", at.address, Html(at.text),
                        at.opinion == SecondOpinion::kDisagrees
                            ? Html(fmt::format("  (Capstone reads: {})", at.second))
                            : std::string());
  }
  return html;
}

// Where the value seen comes from, as a sentence.
std::string OriginHtml(const judge::Divergence& divergence) {
  if (divergence.origin.empty()) return "";
  std::string text = divergence.origin;
  text[0] = 'I';
  return fmt::format("<em>{}.</em>", Html(text));
}

std::string ProgramHtml(const Detail& detail) {
  const Shown& shown = detail.shown;
  std::string html = fmt::format(
      "<h3>The program beside its machine code</h3><p>Guest features {}, XCR0 {}, {} {}{}{}.</p>",
      Html(program::PrintMask(shown.program.features)),
      Html(program::PrintMask(shown.program.xcr0)), shown.program.vcpus,
      shown.program.vcpus == 1 ? "vCPU" : "vCPUs",
      shown.program.own_vm ? ", each in a VM of its own" : "",
      shown.program.own_thread ? ", each run by a thread of its own" : "");
  html +=
      "<div class=\"scroll\" role=\"region\" aria-label=\"Program and machine code\" "
      "tabindex=\"0\">"
      "<table class=\"program\"><thead><tr><th scope=\"col\" class=\"n\">#</th><th "
      "scope=\"col\">step</th><th scope=\"col\">machine code (&gt; is the instruction under test)"
      "</th></tr></thead><tbody>";
  for (size_t i = 0; i < shown.steps.size(); ++i) {
    const ShownStep& step = shown.steps[i];
    html += fmt::format(
        "<tr class=\"step{}\"><td class=\"n\">{}</td><th scope=\"row\"><code>{}</code></th>"
        "<td>{}</td></tr>",
        step.divergences.empty() ? "" : " bad", i, Html(program::PrintStep(step.step)),
        CodeHtml(step));
    for (const size_t d : step.divergences) {
      const judge::Divergence& divergence = shown.verdict.divergences[d];
      html += fmt::format(
          "<tr class=\"bad\"><td></td><td colspan=\"2\"><div class=\"say\"><strong>{}:</strong> "
          "{} {}</div></td>"
          "</tr>",
          judge::LawName(divergence.law), Html(divergence.words), OriginHtml(divergence));
    }
  }
  return html + "</tbody></table></div>";
}

std::string DetailHtml(const Detail& detail) {
  if (!detail.error.empty()) {
    return fmt::format("<p class=\"problem\">Its trace can't be read: {}</p>", Html(detail.error));
  }
  std::string html;
  if (!detail.divergence) {
    html +=
        "<p class=\"problem\">The oracle of this fpswap does not find this divergence in the "
        "recorded trace: it was found by another version.</p>";
  }
  html += ProgramHtml(detail);
  if (const std::string map = ImageMapHtml(detail.map); !map.empty()) {
    html += "<h3>What was possible and what was seen</h3>" + map;
  }
  return html;
}

std::string RepeatHtml(const ReportData& data, const Group& group) {
  if (group.folder.empty()) return "<p>Its folder has gone: only the counts are left.</p>";
  const std::filesystem::path folder = std::filesystem::path(data.findings) / group.folder;
  const std::string at = ShellWord(folder.string());
  const std::string program = ShellWord((folder / "program.fps").string());
  const std::string target =
      group.facts.target.empty() ? "" : " --target " + ShellWord(group.facts.target);
  const std::string plant =
      group.facts.plant.empty() ? "" : " --plant " + ShellWord(group.facts.plant);
  std::string lines = fmt::format("fpswap run {}{}{}\n", program, target, plant);
  if (plant.empty()) lines += fmt::format("fpswap run {} --target kvm,native,unicorn\n", program);
  lines += fmt::format("fpswap judge {}\n", ShellWord((folder / "trace.fpt").string()));
  lines += fmt::format("fpswap minimize {}{}{}\n", at, target, plant);
  lines += fmt::format("fpswap export {} -o test.c", at);
  return "<h3>How to repeat it</h3><pre tabindex=\"0\">" + Html(lines) + "</pre>";
}

}  // namespace

std::string GroupHtml(const ReportData& data, const Group& group, size_t number) {
  const triage::FindingFacts& f = group.facts;
  std::string html = fmt::format("<details class=\"finding\" id=\"f{}\"{}><summary>", number,
                                 number == 1 ? " open" : "");
  for (const std::string& tag : {f.law, f.component, f.relation}) {
    if (!tag.empty()) html += fmt::format("<span class=\"tag\">{}</span>", Html(tag));
  }
  if (!f.plant.empty()) html += "<span class=\"tag\">planted</span>";
  const bool at_step = !f.op.empty() && f.op != "none";
  html += fmt::format("<strong>{}{}</strong></summary><div>",
                      at_step ? Html(f.op) + ": " : std::string(),
                      Html(f.where.empty() ? f.name : f.where));
  html += fmt::format("<p>{}</p>", Html(f.words));
  html += FactsHtml(group) + AgreementsHtml(group);
  html += group.detail ? DetailHtml(*group.detail)
                       : std::string(
                             "<p class=\"note\">Not shown from the inside; `fpswap show` "
                             "does, or this report with more --details.</p>");
  return html + RepeatHtml(data, group) + "</div></details>\n";
}

}  // namespace fpswap::report
