// SPDX-License-Identifier: GPL-2.0-or-later
//
// The report as one HTML page that needs nothing but itself, and as JSON. The page has no script:
// what folds is <details>, what is drawn is SVG. All that comes from findings is escaped, and the
// page's own policy forbids scripts and anything from elsewhere. Pure functions.
#pragma once

#include <string>

#include "harness/report/page/data.h"

namespace fpswap::report {

std::string ReportHtml(const ReportData& data);
std::string ReportJson(const ReportData& data);

// Parts of the page.
std::string GroupHtml(const ReportData& data, const Group& group, size_t number);
// Programs a second and states reached, over the hours of fuzzing. `number` is the page's chart.
std::string SeriesHtml(const Series& series);
// Step x component, step x way of exit, and the first of it for each way of exit.
std::string ReachHtml(const campaign::ReachTable& table);
std::string_view PageStyle();

}  // namespace fpswap::report
