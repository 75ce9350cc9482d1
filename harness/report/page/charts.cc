// SPDX-License-Identifier: GPL-2.0-or-later
//
// Lines over time and heat maps.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "harness/report/html.h"
#include "harness/report/page/page.h"
#include "harness/triage/signature.h"

namespace fpswap::report {
namespace {

// The plot's place in its picture.
constexpr double kWidth = 360, kHeight = 190, kLeft = 44, kRight = 10, kTop = 10, kBottom = 26;

// The next of 1, 2, 5, 10, 20, ... from `value` on.
double NiceMaximum(double value) {
  double scale = 1;
  while (scale * 10 < value) scale *= 10;
  for (const double step : {1.0, 2.0, 5.0, 10.0}) {
    if (scale * step >= value) return scale * step;
  }
  return scale * 10;
}

std::string DurationText(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

using Value = std::function<double(const Point&)>;

std::string LineSvg(const Series& series, const std::string& title, const Value& value) {
  const double last = std::max(series.points.back().seconds, 1e-9);
  double most = 1;
  for (const Point& point : series.points) most = std::max(most, value(point));
  most = NiceMaximum(most);
  const auto x = [&](double seconds) { return kLeft + seconds / last * (kWidth - kLeft - kRight); };
  const auto y = [&](double v) {
    return kHeight - kBottom - v / most * (kHeight - kTop - kBottom);
  };
  std::string svg =
      fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
                  kWidth, kHeight, Html(title));
  for (const double part : {0.0, 0.5, 1.0}) {
    svg += fmt::format(
        "<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text x=\"{}\" "
        "y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
        kLeft, kWidth - kRight, y(part * most), y(part * most), kLeft - 5, y(part * most) + 4,
        ShortCount(static_cast<uint64_t>(part * most)));
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"{}\">{}</text>", x(part * last),
                       kHeight - 8,
                       part == 0   ? "start"
                       : part == 1 ? "end"
                                   : "middle",
                       DurationText(part * last));
  }
  const auto begins = std::ranges::count_if(series.points, &Point::begins);
  std::string line;
  for (size_t i = 0; i < series.points.size(); ++i) {
    const Point& point = series.points[i];
    if (point.begins && i > 0 && begins <= 40) {
      svg +=
          fmt::format("<line class=\"run\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                      x(series.points[i - 1].seconds), kTop, kHeight - kBottom);
    }
    line += fmt::format("{:.1f},{:.1f} ", x(point.seconds), y(value(point)));
  }
  svg += fmt::format("<polyline points=\"{}\"/>", line);
  if (series.points.size() == 1) {
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>", x(series.points[0].seconds),
                       y(value(series.points[0])));
  }
  return svg + "</svg>";
}

std::string SeriesTable(const Series& series) {
  std::string html =
      "<details><summary>The same as a table</summary><div class=\"scroll\" role=\"region\" "
      "aria-label=\"Over time\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">time of fuzzing"
      "</th><th scope=\"col\">programs/s</th><th scope=\"col\">states</th></tr></thead><tbody>";
  const size_t every = std::max<size_t>(1, series.points.size() / 20);
  for (size_t i = every - 1; i < series.points.size(); i += every) {
    const Point& point = series.points[i];
    html += fmt::format(
        "<tr><th scope=\"row\">{}</th><td class=\"n\">{:.0f}</td><td class=\"n\">{}"
        "</td></tr>",
        DurationText(point.seconds), point.rate, CountHtml(point.states));
  }
  return html + "</tbody></table></div></details>";
}

// --- heat maps

using Cells = std::map<uint8_t, std::map<uint8_t, uint64_t>>;  // [row][column]

std::string ComponentName(uint8_t component) {
  if (component >= xstate::kComponentCount) return "none";
  return std::string(xstate::RowOf(static_cast<xstate::Component>(component)).name);
}
std::string ExitName(uint8_t op) { return op == 0 ? "no exit yet" : triage::OpName(op); }

std::string HeatTable(const Cells& cells, const std::string& caption,
                      std::string (*column_name)(uint8_t)) {
  std::set<uint8_t> columns;
  uint64_t most = 1;
  for (const auto& [row, counts] : cells) {
    for (const auto& [column, count] : counts) {
      columns.insert(column);
      most = std::max(most, count);
    }
  }
  std::string html = fmt::format(
      "<div class=\"scroll tall\" role=\"region\" aria-label=\"{0}\" tabindex=\"0\"><table "
      "class=\"heat\"><caption>{0}</caption><thead><tr><th scope=\"col\">step</th>",
      Html(caption));
  for (const uint8_t column : columns) {
    html += fmt::format("<th scope=\"col\"><span>{}</span></th>", Html(column_name(column)));
  }
  html += "</tr></thead><tbody>";
  for (const auto& [row, counts] : cells) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", Html(triage::OpName(row)));
    for (const uint8_t column : columns) {
      const auto found = counts.find(column);
      if (found == counts.end()) {
        html += "<td class=\"none\">&#183;</td>";
        continue;
      }
      // Eight shades, each the same factor apart.
      const auto level = std::bit_width(found->second) * 8 / (std::bit_width(most) + 1);
      html += fmt::format("<td class=\"n h{}\">{}</td>", std::min<size_t>(level, 7),
                          ShortCount(found->second));
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>";
}

}  // namespace

std::string SeriesHtml(const Series& series) {
  const std::string name =
      series.target + (series.plant.empty() ? "" : " with plant " + series.plant);
  return fmt::format(
      "<h3>{}</h3><div class=\"maps\"><figure class=\"half\"><figcaption>programs/s</figcaption>{}"
      "</figure><figure class=\"half\"><figcaption>states reached</figcaption>{}</figure></div>{}",
      Html(name),
      LineSvg(series, "Programs a second over the time of fuzzing, " + name,
              [](const Point& point) { return point.rate; }),
      LineSvg(series, "States reached over the time of fuzzing, " + name,
              [](const Point& point) { return static_cast<double>(point.states); }),
      SeriesTable(series));
}

std::string ReachHtml(const campaign::ReachTable& table) {
  Cells by_component, by_exit;
  std::map<uint8_t, Cells> components_by_exit;
  for (const auto& [row, count] : table.Rows()) {
    by_component[row.op][row.component] += count;
    by_exit[row.op][row.exit] += count;
    components_by_exit[row.exit][row.op][row.component] += count;
  }
  std::string html = fmt::format(
      "<p>{} programs, {} observations compared. The shade is by the logarithm of the count; a dot "
      "is a pair that never ran.</p>",
      CountHtml(table.programs()), CountHtml(table.checks()));
  html += HeatTable(by_component, "Step x component", ComponentName);
  html += HeatTable(by_exit, "Step x way of the last exit before it", ExitName);
  html += "<h3>Step x component after each way of exit</h3>";
  for (const auto& [exit, cells] : components_by_exit) {
    html +=
        fmt::format("<details><summary>{}</summary>{}</details>", Html(ExitName(exit)),
                    HeatTable(cells, "Step x component after " + ExitName(exit), ComponentName));
  }
  return html;
}

}  // namespace fpswap::report
