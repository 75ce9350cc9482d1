// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/agent_main.h"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>

#include "harness/trace/record.h"

namespace fpswap::wire {
namespace {

constexpr int kUsage = 2, kUnavailable = 3;

struct Arguments {
  AgentOptions options;
  int fd = -1;  // < 0: stdin and stdout
  bool list_plants = false;
  bool help = false;
};

int Width(std::string_view text) { return static_cast<int>(text.size()); }

void PrintHelp(const Agent& agent, std::FILE* to) {
  std::fprintf(to, "usage: %.*s [--fd N] [--hang-ms N] [--plant NAME] [--list-plants]",
               Width(agent.name), agent.name.data());
  if (!agent.flag.empty()) std::fprintf(to, " [%.*s]", Width(agent.flag), agent.flag.data());
  std::fprintf(to,
               "\nRuns fpswap plans on %.*s. Frames come on stdin and go to stdout, or both on "
               "--fd N.\n",
               Width(agent.runs_on), agent.runs_on.data());
}

void ListPlants(const Agent& agent) {
  for (const PlantText& plant : agent.plants) {
    std::printf("%-28.*s %.*s (law: %.*s)\n", Width(plant.name), plant.name.data(),
                Width(plant.sentence), plant.sentence.data(), Width(plant.law), plant.law.data());
  }
}

bool Number(std::string_view text, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= 0;
}

// Takes the option `name`; `value` is the word after it. How many words it was, 0 if it is not
// understood.
int Take(std::string_view name, std::string_view value, const Agent& agent, Arguments& out) {
  int hang_ms = 0;
  if (name == "--fd") return Number(value, out.fd) ? 2 : 0;
  if (name == "--hang-ms") {
    if (!Number(value, hang_ms) || hang_ms == 0) return 0;
    out.options.hang_ms = static_cast<unsigned>(hang_ms);
    return 2;
  }
  if (name == "--plant") {
    out.options.plant = value;
    return std::ranges::find(agent.plants, value, &PlantText::name) != agent.plants.end() ? 2 : 0;
  }
  if (name == "--list-plants") {
    out.list_plants = true;
  } else if (name == "--help") {
    out.help = true;
  } else if (!agent.flag.empty() && name == agent.flag) {
    out.options.flag = true;
  } else {
    return 0;
  }
  return 1;
}

bool Parse(int argc, char** argv, const Agent& agent, Arguments& out) {
  for (int i = 1; i < argc;) {
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    const int words = Take(argv[i], value, agent, out);
    if (words == 0) {
      std::fprintf(stderr, "%.*s: %s %.*s: not understood\n", Width(agent.name), agent.name.data(),
                   argv[i], Width(value), value.data());
      PrintHelp(agent, stderr);
      return false;
    }
    i += words;
  }
  return true;
}

// Where plans can't be run the agent still speaks, to say why.
class NoMachine : public Machine {
 public:
  explicit NoMachine(std::string reason) : reason_(std::move(reason)) {}
  std::expected<std::string, std::string> Platform() override { return std::unexpected(reason_); }
  void Run(const PlanView&, std::vector<uint8_t>& records) override {
    const trace::EndRecord end{.reason = static_cast<uint8_t>(trace::EndReason::kSetupFailed)};
    trace::AppendRecord(records, trace::RecordKind::kEnd, 0, 0,
                        {reinterpret_cast<const uint8_t*>(&end), sizeof(end)},
                        {reinterpret_cast<const uint8_t*>(reason_.data()), reason_.size()});
  }

 private:
  std::string reason_;
};

}  // namespace

int AgentMain(int argc, char** argv, const Agent& agent) {
  Arguments arguments;
  if (!Parse(argc, argv, agent, arguments)) return kUsage;
  if (arguments.help) {
    PrintHelp(agent, stdout);
    return 0;
  }
  if (arguments.list_plants) {
    ListPlants(agent);
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const int in = arguments.fd < 0 ? 0 : arguments.fd;
  const int out = arguments.fd < 0 ? 1 : arguments.fd;
  auto machine = agent.open(arguments.options);
  if (machine) return ServeAgent(in, out, **machine);
  std::fprintf(stderr, "%.*s: %s\n", Width(agent.name), agent.name.data(), machine.error().c_str());
  NoMachine none(machine.error());
  ServeAgent(in, out, none);
  return kUnavailable;
}

}  // namespace fpswap::wire
