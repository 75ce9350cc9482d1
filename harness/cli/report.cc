// SPDX-License-Identifier: GPL-2.0-or-later
//
// fpswap report: a folder of findings as one HTML page.
#include <fmt/format.h>

#include "harness/cli/common.h"
#include "harness/files/files.h"
#include "harness/report/page/page.h"

namespace fpswap::cli {

int Report(const ReportOptions& options, const Io& io) {
  const auto known = LoadKnown(options.common, io);
  if (!known) return Fail(io, kBadInput, known.error());
  const auto data = report::CollectReport({.findings = options.findings,
                                           .version = Version(),
                                           .details = options.details,
                                           .known = *known});
  if (!data) return Fail(io, kBadInput, data.error());
  for (const std::string& problem : data->problems) io.err(fmt::format("fpswap: {}\n", problem));
  if (options.common.json) {
    io.out(report::ReportJson(*data) + "\n");
  } else if (options.output == "-") {
    io.out(report::ReportHtml(*data));
  } else {
    const auto written = files::WriteFile(options.output, report::ReportHtml(*data));
    if (!written) return Fail(io, kBadInput, written.error());
    io.err(fmt::format("{}: {} groups of findings, {} known divergences, {} runs\n",
                       options.output.string(), data->groups.size(), data->known.size(),
                       data->runs.size()));
  }
  return data->problems.empty() ? kAgrees : kBadInput;
}

void AddReport(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* command = app.add_subcommand(
      "report", "A folder of findings as one HTML page: groups, images, reach, runs over time");
  command->footer(
      "The page needs nothing but itself: no script, nothing from elsewhere. Findings are judged\n"
      "again by this fpswap; nothing is run. A folder that no run has written to is refused.");
  command->add_option("findings", options->findings, "The folder that `fpswap fuzz` wrote to")
      ->required();
  command->add_option("-o,--output", options->output, "The page; - for standard output")
      ->capture_default_str();
  command
      ->add_option("--details", options->details,
                   "Findings shown from the inside; of the rest the table tells")
      ->capture_default_str();
  AddKnown(*command, options->common);
  AddJson(*command, options->common);
  command->callback(
      [options, &chosen] { chosen = [options](const Io& io) { return Report(*options, io); }; });
}

}  // namespace fpswap::cli
