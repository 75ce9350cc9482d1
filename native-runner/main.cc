// SPDX-License-Identifier: GPL-2.0-or-later
//
// native-runner: the agent that runs plans on the host's own CPU. It takes frames (wire.h) on stdin
// and answers on stdout, or both on the descriptor given by --fd.
#include <charconv>
#include <csignal>
#include <cstdio>
#include <string_view>

#include "harness/trace/record.h"
#include "native-runner/machine.h"

namespace {

using namespace fpswap;

constexpr int kUsage = 2, kUnavailable = 3;

struct Arguments {
  native::MachineOptions machine;
  int fd = -1;
  bool list_plants = false;
  bool help = false;
};

constexpr const char* kHelp =
    "usage: native-runner [--fd N] [--hang-ms N] [--plant NAME] [--list-plants]\n"
    "Runs fpswap plans on this CPU. Frames come on stdin and go to stdout, or both on --fd N.\n";

bool Number(std::string_view text, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= 0;
}

bool Plant(std::string_view name, native::FramePlant& out) {
  for (const native::FramePlantRow* row = native::kFramePlants; row->name != nullptr; ++row) {
    if (row->name != name) continue;
    out = row->plant;
    return true;
  }
  return false;
}

bool Parse(int argc, char** argv, Arguments& out) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    int hang_ms = 0;
    if (name == "--fd" && Number(value, out.fd)) {
      ++i;
    } else if (name == "--hang-ms" && Number(value, hang_ms) && hang_ms > 0) {
      out.machine.hang_ms = static_cast<unsigned>(hang_ms);
      ++i;
    } else if (name == "--plant" && Plant(value, out.machine.plant)) {
      ++i;
    } else if (name == "--list-plants") {
      out.list_plants = true;
    } else if (name == "--help") {
      out.help = true;
    } else {
      std::fprintf(stderr, "native-runner: %s %s: not understood\n%s", argv[i],
                   i + 1 < argc ? argv[i + 1] : "", kHelp);
      return false;
    }
  }
  return true;
}

void ListPlants() {
  for (const native::FramePlantRow* row = native::kFramePlants; row->name != nullptr; ++row) {
    std::printf("%-28s %s (law: model)\n", row->name, row->sentence);
  }
}

// Where plans can't be run the agent still speaks, to say why.
class NoMachine : public wire::Machine {
 public:
  explicit NoMachine(std::string reason) : reason_(std::move(reason)) {}
  std::expected<std::string, std::string> Platform() override { return std::unexpected(reason_); }
  void Run(const wire::PlanView&, std::vector<uint8_t>& records) override {
    const trace::EndRecord end{.reason = static_cast<uint8_t>(trace::EndReason::kSetupFailed)};
    trace::AppendRecord(records, trace::RecordKind::kEnd, 0, 0,
                        {reinterpret_cast<const uint8_t*>(&end), sizeof(end)},
                        {reinterpret_cast<const uint8_t*>(reason_.data()), reason_.size()});
  }

 private:
  std::string reason_;
};

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!Parse(argc, argv, arguments)) return kUsage;
  if (arguments.help) return std::fputs(kHelp, stdout) < 0;
  if (arguments.list_plants) {
    ListPlants();
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const int in = arguments.fd < 0 ? 0 : arguments.fd;
  const int out = arguments.fd < 0 ? 1 : arguments.fd;
  auto machine = native::NativeMachine::Open(arguments.machine);
  if (machine) return wire::ServeAgent(in, out, **machine);
  std::fprintf(stderr, "native-runner: %s\n", machine.error().c_str());
  NoMachine none(machine.error());
  wire::ServeAgent(in, out, none);
  return kUnavailable;
}
