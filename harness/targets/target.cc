// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/targets/target.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <sstream>

#include "harness/plan/agent_loop.h"
#include "harness/targets/agent_process.h"
#include "harness/targets/agent_target.h"
#include "harness/targets/lab.h"

namespace fpswap::targets {
namespace {

// One row a target, best first.
struct TargetRow {
  std::string_view name;
  std::string_view agent;  // the program that runs it
  bool plants;             // can plant bugs
  // What to do where the agent was not built, if that is not the build's own fault.
  std::string_view build_needs;
};
constexpr TargetRow kTargets[] = {
    {"kvm", "kvm-runner", true, ""},
    {"native", "native-runner", true, ""},
    {"unicorn", "unicorn-runner", true, "install libunicorn-dev and build again"},
};

constexpr auto Names() {
  std::array<std::string_view, std::size(kTargets)> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kTargets[i].name;
  return names;
}
constexpr auto kNames = Names();

// Beyond the time that two runs of something which hangs take: a long program on a loaded machine,
// where starting a VM can take a tenth of a second.
constexpr std::chrono::milliseconds kGrace{30000};

std::chrono::milliseconds TimeToHang(const Options& options) {
  return std::chrono::milliseconds(options.hang_ms) * (1 + wire::kPatience);
}

std::vector<std::string> AgentOptions(const Options& options) {
  std::vector<std::string> words = {"--hang-ms", std::to_string(options.hang_ms)};
  if (!options.plant.empty()) words.insert(words.end(), {"--plant", options.plant});
  return words;
}

std::expected<std::unique_ptr<Target>, Unavailable> Start(AgentCommand command) {
  auto target = AgentTarget::Open(std::move(command));
  if (!target) return std::unexpected(target.error());
  return std::unique_ptr<Target>(std::move(*target));
}

std::expected<std::unique_ptr<Target>, Unavailable> OpenLab(std::string_view name,
                                                            const Options& options) {
  const auto lab = ReadLab(LabsFolder() / name);
  if (!lab) {
    return std::unexpected(
        Unavailable{lab.error(),
                    "`ci/lab list` tells which labs there are, `ci/lab build NAME` "
                    "makes one; docs/labs.md"});
  }
  std::vector<std::string> agent_options = AgentOptions(options);
  agent_options.insert(agent_options.end(), lab->options.begin(), lab->options.end());
  return Start({.path = lab->connect.front(),
                .arguments = {lab->connect.begin() + 1, lab->connect.end()},
                .options = std::move(agent_options),
                .start = lab->start,
                .silence = TimeToHang(options) + lab->silence,
                .folder = lab->folder.string(),
                .lab = std::string(kLabPrefix) + std::string(name),
                .console_folder = options.console_folder});
}

std::filesystem::path RunnerDir(const Options& options) {
  if (!options.runner_dir.empty()) return options.runner_dir;
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace

std::span<const std::string_view> TargetNames() { return kNames; }

std::expected<std::unique_ptr<Target>, Unavailable> OpenTarget(std::string_view name,
                                                               const Options& options) {
  if (name.starts_with(kLabPrefix)) return OpenLab(name.substr(kLabPrefix.size()), options);
  const auto row = std::ranges::find(kTargets, name, &TargetRow::name);
  if (row == std::end(kTargets)) {
    return std::unexpected(Unavailable{"there is no target \"" + std::string(name) + "\"",
                                       "the targets are kvm, native, unicorn and lab:NAME"});
  }
  if (!options.plant.empty() && !row->plants) {
    return std::unexpected(Unavailable{"bugs can't be planted in the target " + std::string(name),
                                       "use --target kvm or unicorn"});
  }
  AgentCommand command;
  command.path = RunnerDir(options) / row->agent;
  std::error_code status;
  if (!row->build_needs.empty() && !std::filesystem::exists(command.path, status)) {
    return std::unexpected(
        Unavailable{command.path + " was not built", std::string(row->build_needs)});
  }
  command.options = AgentOptions(options);
  command.silence = TimeToHang(options) + kGrace;
  command.spare_host = !options.endanger_host;
  return Start(std::move(command));
}

std::expected<std::vector<Plant>, std::string> Plants(const Options& options) {
  std::vector<Plant> plants;
  for (const TargetRow& row : kTargets) {
    if (!row.plants) continue;
    const auto listed = OutputOf({RunnerDir(options) / row.agent, "--list-plants"});
    if (!listed) return std::unexpected(listed.error());
    std::istringstream lines(*listed);  // "NAME   what it does (law: ...)"
    for (std::string line; std::getline(lines, line);) {
      const size_t end = line.find(' '), words = line.find_first_not_of(' ', end);
      if (words == std::string::npos) continue;
      plants.push_back({line.substr(0, end), line.substr(words)});
    }
  }
  return plants;
}

}  // namespace fpswap::targets
