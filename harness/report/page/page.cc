// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/page/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "harness/report/html.h"

namespace fpswap::report {
namespace {

constexpr size_t kMaxRuns = 100;  // rows of the table of runs
constexpr size_t kMaxProblems = 20;

uint64_t ProgramsRun(const ReportData& data) {
  uint64_t sum = 0;
  for (const triage::StoredRun& run : data.runs) sum += run.programs;
  return sum;
}

std::string HeadHtml(const ReportData& data) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; img-src data:\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>fpswap: {} findings</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{}</style>"
      "</head>\n<body>\n<a class=\"skip\" href=\"#main\">To the findings</a>\n",
      data.groups.size(), PageStyle());
}

std::string SumsHtml(const ReportData& data) {
  const auto planted =
      std::ranges::count_if(data.groups, [](const Group& g) { return !g.facts.plant.empty(); });
  const auto sum = [](const std::string& count, const char* what) {
    return fmt::format("<li><strong>{}</strong>{}</li>", count, what);
  };
  std::set<std::string_view> causes;
  for (const Group& group : data.groups) causes.insert(group.cause);
  std::string html = "<ul class=\"sums\">";
  html += sum(CountHtml(causes.size()), "probable causes");
  html += sum(CountHtml(data.groups.size() - static_cast<size_t>(planted)), "groups of findings");
  if (planted > 0) html += sum(CountHtml(static_cast<size_t>(planted)), "groups of planted bugs");
  html += sum(CountHtml(data.known.size()), "known divergences");
  html += sum(CountHtml(ProgramsRun(data)), "programs run");
  html += sum(CountHtml(data.runs.size()), "runs");
  return html + "</ul>";
}

std::string BannerHtml(const ReportData& data) {
  std::string html = fmt::format(
      "<header><h1>fpswap report</h1><p class=\"note\">Of <code>{}</code>, {} UTC, by fpswap {}. "
      "Times are UTC.</p>{}<nav aria-label=\"Sections\"><ul>"
      "<li><a href=\"#findings\">Findings</a></li><li><a href=\"#known\">Known divergences</a></li>"
      "<li><a href=\"#time\">Over time</a></li><li><a href=\"#reach\">Reach</a></li>"
      "<li><a href=\"#runs\">Runs</a></li></ul></nav>",
      Html(data.findings), TimeText(data.now), Html(data.version), SumsHtml(data));
  for (size_t i = 0; i < std::min(data.problems.size(), kMaxProblems); ++i) {
    html += fmt::format("<p class=\"problem\">{}</p>", Html(data.problems[i]));
  }
  if (data.problems.size() > kMaxProblems) {
    html += fmt::format("<p class=\"problem\">and {} more that can't be read</p>",
                        data.problems.size() - kMaxProblems);
  }
  return html + "</header>\n<main id=\"main\" tabindex=\"-1\">\n";
}

std::string TargetsOf(const Group& group) {
  std::string text;
  std::vector<std::string> named;
  for (const Agreement& each : group.agreements) {
    if (each.showed == 0 && !each.recorded) continue;
    if (std::ranges::find(named, each.target) != named.end()) continue;
    named.push_back(each.target);
    text += (text.empty() ? "" : ", ") + each.target;
  }
  return text;
}

// What both tables of groups have in their last columns.
constexpr const char* kCounts =
    "<th scope=\"col\">programs</th><th scope=\"col\">runs</th><th scope=\"col\">first seen</th>"
    "<th scope=\"col\">last seen</th><th scope=\"col\">on</th></tr></thead><tbody>";

std::string CountsHtml(const Group& group) {
  return fmt::format(
      "<td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td>"
      "<td>{}</td></tr>\n",
      CountHtml(group.programs), group.runs, TimeText(group.first), TimeText(group.last),
      Html(TargetsOf(group)));
}

// A table and the groups of one cause: data.groups[begin, end).
std::string CauseHtml(const ReportData& data, size_t begin, size_t end) {
  std::string html = fmt::format(
      "<h3>{0}</h3><div class=\"scroll\" role=\"region\" aria-label=\"Groups: {0}\" "
      "tabindex=\"0\"><table><thead><tr><th scope=\"col\">seen at</th><th scope=\"col\">place</th>"
      "<th scope=\"col\">law</th><th scope=\"col\">value seen</th><th "
      "scope=\"col\">steps</th>",
      Html(data.groups[begin].cause));
  html += kCounts;
  for (size_t i = begin; i < end; ++i) {
    const triage::FindingFacts& f = data.groups[i].facts;
    html += fmt::format(
        "<tr><th scope=\"row\"><a href=\"#f{}\">{}</a></th><td class=\"place\">{}</td><td>{}</td>"
        "<td>{}</td><td class=\"n\">{}</td>",
        i + 1, Html(f.op.empty() || f.op == "none" ? f.name : f.op), Html(f.where), Html(f.law),
        Html(f.relation), f.steps);
    html += CountsHtml(data.groups[i]);
  }
  html += "</tbody></table></div>\n";
  for (size_t i = begin; i < end; ++i) html += GroupHtml(data, data.groups[i], i + 1);
  return html;
}

std::string FindingsHtml(const ReportData& data) {
  std::string html = "<section id=\"findings\"><h2>Findings</h2>";
  if (data.groups.empty()) return html + "<p>None: nothing new was seen.</p></section>\n";
  html +=
      "<p>A group is what has one signature: one way in which a bug shows. Groups that probably "
      "have "
      "one cause are together: the same component is lost or foreign first, after the same "
      "disturbance.</p>";
  for (size_t begin = 0, end = 0; begin < data.groups.size(); begin = end) {
    while (end < data.groups.size() && data.groups[end].cause == data.groups[begin].cause) ++end;
    html += CauseHtml(data, begin, end);
  }
  return html + "</section>\n";
}

std::string KnownHtml(const ReportData& data) {
  std::string html = "<section id=\"known\"><h2>Known divergences</h2>";
  if (data.known.empty()) return html + "<p>None was seen.</p></section>\n";
  html +=
      "<p>The system under test is wrong there and somebody has said why; they are counted "
      "apart.</p><div class=\"scroll\" role=\"region\" aria-label=\"Known divergences\" "
      "tabindex=\"0\"><table><thead><tr><th scope=\"col\">divergence</th><th "
      "scope=\"col\">at fault</th>";
  html += kCounts;
  for (const Group& group : data.known) {
    html += fmt::format(
        "<tr><th scope=\"row\" class=\"wide\">{}{}</th><td>{}</td>", Html(group.facts.name),
        group.title.empty() ? std::string()
                            : fmt::format("<br><span class=\"note\">{}</span>", Html(group.title)),
        group.kernel_function.empty() ? std::string()
                                      : "<code>" + Html(group.kernel_function) + "</code>");
    html += CountsHtml(group);
  }
  return html + "</tbody></table></div></section>\n";
}

std::string TimeHtml(const ReportData& data) {
  std::string html = "<section id=\"time\"><h2>Over time</h2>";
  if (data.series.empty()) return html + "<p>No run is on record.</p></section>\n";
  html +=
      "<p>Runs of one target one after another, by time spent fuzzing. A broken line is where a "
      "run "
      "begins; states are those of the oracle that its programs reached.</p>";
  for (const Series& series : data.series) html += SeriesHtml(series);
  return html + "</section>\n";
}

std::string ReachSection(const ReportData& data) {
  return "<section id=\"reach\"><h2>Reach of the last run</h2>" +
         (data.reach ? ReachHtml(*data.reach)
                     : std::string("<p>No run has ended here: reach.json is not there.</p>")) +
         "</section>\n";
}

std::string RunsHtml(const ReportData& data) {
  std::string html = "<section id=\"runs\"><h2>Runs</h2>";
  if (data.runs.empty()) return html + "<p>No run is on record.</p></section>\n";
  html += fmt::format("<p>The last {} of {}.</p>", std::min(kMaxRuns, data.runs.size()),
                      data.runs.size());
  html +=
      "<div class=\"scroll tall\" role=\"region\" aria-label=\"Runs\" tabindex=\"0\"><table><thead>"
      "<tr><th scope=\"col\">began</th><th scope=\"col\">target</th><th scope=\"col\">kernel</th>"
      "<th scope=\"col\">fpswap</th><th scope=\"col\">seconds</th><th scope=\"col\">programs</th>"
      "<th scope=\"col\">states</th><th scope=\"col\">seed</th></tr></thead><tbody>";
  for (size_t i = 0; i < std::min(kMaxRuns, data.runs.size()); ++i) {
    const triage::StoredRun& run = data.runs[data.runs.size() - 1 - i];
    html += fmt::format(
        "<tr><th scope=\"row\" class=\"t\">{}</th><td>{}{}</td><td>{}</td><td>{}</td><td "
        "class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>"
        "</tr>",
        TimeText(run.facts.began), Html(run.facts.target),
        run.facts.plant.empty() ? ""
                                : " <span class=\"tag\">plant " + Html(run.facts.plant) + "</span>",
        Html(run.facts.kernel), Html(run.facts.version),
        CountHtml(static_cast<uint64_t>(std::max<int64_t>(0, run.ended - run.facts.began))),
        CountHtml(run.programs), CountHtml(run.states), run.facts.seed);
  }
  return html + "</tbody></table></div></section>\n";
}

}  // namespace

std::string ReportHtml(const ReportData& data) {
  return HeadHtml(data) + BannerHtml(data) + FindingsHtml(data) + KnownHtml(data) + TimeHtml(data) +
         ReachSection(data) + RunsHtml(data) + "</main></body></html>\n";
}

}  // namespace fpswap::report
