// SPDX-License-Identifier: GPL-2.0-or-later
//
// kvm-runner: the agent that runs plans on /dev/kvm. It takes frames (wire.h) on stdin and answers
// on stdout, or both on the descriptor given by --fd.
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "kvm-runner/kvm_machine.h"

namespace {

using namespace fpswap;

constexpr int kUsage = 2, kUnavailable = 3;

struct Arguments {
  kvm::MachineOptions machine;
  int fd = -1;
  bool list_plants = false;
  bool help = false;
};

constexpr const char* kHelp =
    "usage: kvm-runner [--fd N] [--hang-ms N] [--plant NAME] [--no-reuse] [--list-plants]\n"
    "Runs fpswap plans on /dev/kvm. Frames come on stdin and go to stdout, or both on --fd N.\n";

bool Number(std::string_view text, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= 0;
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
    } else if (name == "--plant" && (out.machine.plant = kvm::FindPlant(value)) != nullptr) {
      ++i;
    } else if (name == "--no-reuse") {
      out.machine.reuse = false;
    } else if (name == "--list-plants") {
      out.list_plants = true;
    } else if (name == "--help") {
      out.help = true;
    } else {
      std::fprintf(stderr, "kvm-runner: %s %s: not understood\n%s", argv[i],
                   i + 1 < argc ? argv[i + 1] : "", kHelp);
      return false;
    }
  }
  return true;
}

void ListPlants() {
  for (const kvm::PlantRow& row : kvm::PlantTable()) {
    std::printf("%-28.*s %.*s (law: %.*s)\n", static_cast<int>(row.name.size()), row.name.data(),
                static_cast<int>(row.sentence.size()), row.sentence.data(),
                static_cast<int>(row.law.size()), row.law.data());
  }
}

// Where there is no KVM the agent still speaks, to say why.
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
  auto machine = kvm::KvmMachine::Open(arguments.machine);
  if (machine) return wire::ServeAgent(in, out, **machine);
  std::fprintf(stderr, "kvm-runner: %s\n", machine.error().c_str());
  NoMachine none(machine.error());
  wire::ServeAgent(in, out, none);
  return kUnavailable;
}
