// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/plan/agent_main.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <span>

#include "harness/trace/record.h"

namespace fpswap::wire {
namespace {

constexpr int kUsage = 2, kUnavailable = 3;

struct Arguments {
  AgentOptions options;
  bool list_plants = false;
  bool help = false;
  bool greeted = false;
};

// Said by an agent to itself as it starts again.
constexpr std::string_view kGreeted = "--greeted";

int Width(std::string_view text) { return static_cast<int>(text.size()); }

void PrintHelp(const Agent& agent, std::FILE* to) {
  std::fprintf(to, "usage: %.*s [--hang-ms N] [--plant NAME] [--list-plants]", Width(agent.name),
               agent.name.data());
  for (const std::string_view flag : agent.flags) {
    std::fprintf(to, " [%.*s]", Width(flag), flag.data());
  }
  std::fprintf(to, "\nRuns fpswap plans on %.*s. Frames come on stdin and go to stdout.\n",
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
  if (name == "--hang-ms") {
    if (!Number(value, hang_ms) || hang_ms == 0) return 0;
    out.options.hang_ms = static_cast<unsigned>(hang_ms);
    return 2;
  }
  if (name == "--plant") {
    const auto row = std::ranges::find(agent.plants, value, &PlantText::name);
    if (row == agent.plants.end()) return 0;
    out.options.plant = row->name;  // which outlives the words
    return 2;
  }
  if (name == "--list-plants") {
    out.list_plants = true;
  } else if (name == "--help") {
    out.help = true;
  } else if (name == kGreeted) {
    out.greeted = true;
  } else {
    const auto flag = std::ranges::find(agent.flags, name);
    if (flag == agent.flags.end()) return 0;
    out.options.flags |= 1u << (flag - agent.flags.begin());
  }
  return 1;
}

// An error is a sentence with the words that were not understood.
std::expected<void, std::string> Parse(std::span<const std::string_view> words, const Agent& agent,
                                       Arguments& out) {
  for (size_t i = 0; i < words.size();) {
    const std::string_view value = i + 1 < words.size() ? words[i + 1] : "";
    const int taken = Take(words[i], value, agent, out);
    if (taken == 0) {
      return std::unexpected(std::string(agent.name) + ": " + std::string(words[i]) + " " +
                             std::string(value) + ": not understood");
    }
    i += static_cast<size_t>(taken);
  }
  return {};
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

// Follows a hello's words by starting again, where they ask for other options: a machine may be all
// of a process (the guest's memory at fixed addresses, permissions, signals).
std::expected<void, std::string> Follow(std::span<const std::string_view> words, char** argv,
                                        const Agent& agent, const Arguments& started,
                                        Machine& machine) {
  Arguments wanted = started;
  if (auto parsed = Parse(words, agent, wanted); !parsed) return parsed;
  if (wanted.options == started.options) return {};
  std::vector<std::string> all;
  for (char** word = argv; *word != nullptr; ++word) all.emplace_back(*word);
  all.insert(all.end(), words.begin(), words.end());
  all.emplace_back(kGreeted);
  std::vector<char*> pointers;
  for (std::string& word : all) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  machine.BeforeExec();
  execv("/proc/self/exe", pointers.data());
  return std::unexpected(std::string(agent.name) + " can't start again: " + std::strerror(errno));
}

}  // namespace

int AgentMain(int argc, char** argv, const Agent& agent) {
  Arguments arguments;
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (const auto parsed = Parse(words, agent, arguments); !parsed) {
    std::fprintf(stderr, "%s\n", parsed.error().c_str());
    PrintHelp(agent, stderr);
    return kUsage;
  }
  if (arguments.help) {
    PrintHelp(agent, stdout);
    return 0;
  }
  if (arguments.list_plants) {
    ListPlants(agent);
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const auto serve = [&](Machine& machine) {
    const auto follow = [&](std::span<const std::string_view> hello) {
      return Follow(hello, argv, agent, arguments, machine);
    };
    return ServeAgent(STDIN_FILENO, STDOUT_FILENO, machine, follow, arguments.greeted);
  };
  auto machine = agent.open(arguments.options);
  if (machine) return serve(**machine);
  std::fprintf(stderr, "%.*s: %s\n", Width(agent.name), agent.name.data(), machine.error().c_str());
  NoMachine none(machine.error());
  serve(none);
  return kUnavailable;
}

}  // namespace fpswap::wire
