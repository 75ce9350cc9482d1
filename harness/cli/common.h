// SPDX-License-Identifier: GPL-2.0-or-later
//
// What several subcommands need.
#pragma once

#include <CLI/CLI.hpp>
#include <expected>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "harness/campaign/pending.h"
#include "harness/cli/cli.h"
#include "harness/judge/verdict.h"
#include "harness/plan/plan.h"
#include "harness/program/program.h"
#include "harness/trace/platform.h"
#include "harness/trace/trace.h"

namespace fpswap::cli {

// The folder this command lies in: agents and engine are beside it.
std::filesystem::path OwnFolder();

// Of this fpswap, with its commit where the build knew it: "0.1.0 d72488f0a1b2".
std::string Version();

// Where there is no result: prints "fpswap: ...", with --json the object of errors as well (cli.h),
// and gives back `code`.
int Fail(const Io& io, ExitCode code, std::string_view sentence);
// That object.
std::string ErrorJson(std::string_view sentence, ExitCode code);
int FailUnavailable(const Io& io, std::string_view target, const targets::Unavailable& why);

// The error begins with the file's name.
std::expected<trace::Trace, std::string> ReadTraceFile(const std::filesystem::path& path);

// What of a finding's folder (or a known divergence's) says most: the trace of `fpswap minimize`,
// else its own trace, else its program. Any other path is itself.
std::filesystem::path TraceOrProgram(const std::filesystem::path& path);

// The exit code where `fresh` divergences are new and `bad` files could not be read or written: a
// file that can't be read must not hide a divergence.
ExitCode ExitOf(size_t fresh, size_t bad);

// corpus/known: of the option, or beside the build folder, or in the current folder. Nothing there
// is an empty list, and is said, unless the option named it.
std::expected<std::vector<triage::Known>, std::string> LoadKnown(const Common& common,
                                                                 const Io& io);
std::optional<std::filesystem::path> FindKnown(const Common& common);

// --target of a command that takes more than one: "A,B".
std::vector<std::string> TargetNames(const std::string& target);

// Why a program is not run: it lies in the folder of a known divergence that takes the machine
// down, and the target is not a lab. A sentence; "" where it is run.
std::string WhyRefused(const std::filesystem::path& program, const Common& common);

// Before programs run that `place` is written from (campaign/pending.h); tells of those that were
// saved.
std::expected<campaign::PendingBeside, std::string> BeforeRunning(
    const std::filesystem::path& place, const trace::Platform& platform, const Io& io);

// A verdict in words and in JSON, divergences marked known or new.
struct Told {
  std::string text;  // lines, indented
  nlohmann::json json;
  bool is_new = false;
  std::vector<std::string> known;
};
Told Tell(const judge::Verdict& verdict, const trace::Platform& platform,
          std::span<const triage::Known> known);

// "trimmed: step 3 (xsetbv): reason", one line each, indented; and as JSON.
std::string TellTrims(const program::Program& given, const plan::Plan& plan);
nlohmann::json TrimsJson(const program::Program& given, const plan::Plan& plan);

std::string Dump(const nlohmann::json& json);

// The options that several subcommands have.
void AddJson(CLI::App& app, Common& common);
void AddTarget(CLI::App& app, Common& common);
void AddEndangerHost(CLI::App& app, Common& common);  // beside AddTarget, where programs run
void AddKnown(CLI::App& app, Common& common);

}  // namespace fpswap::cli
