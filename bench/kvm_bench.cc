// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kvm target against bare calls, as ratios. The sides of a ratio take turns in short rounds, so
// that what else the machine does meets all of them; a figure is the median over the rounds.
//
//   fpswap_kvm_bench [ROUNDS]     prints one JSON object
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "bench/bare_loop.h"
#include "bench/programs.h"
#include "harness/judge/judge.h"
#include "harness/targets/agent_target.h"
#include "kvm-runner/kvm_machine.h"
#include "kvm-runner/probe.h"
#include "kvm-runner/start.h"

namespace fpswap::bench {
namespace {

using program::Op;

constexpr size_t kPrograms = 96, kBatch = 48;  // a fuzzing job's batch
constexpr unsigned kDefaultRounds = 31;
constexpr unsigned kStarts = 40;         // a round
constexpr double kMostOtherwise = 0.01;  // of the bare loop's calls

[[noreturn]] void Fail(const std::string& why) {
  fmt::print(stderr, "fpswap_kvm_bench: {}\n", why);
  std::exit(1);
}

struct Clocks {
  double wall = 0, cpu = 0;  // s
};

double Seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// `work`'s wall time, and the CPU time, user and system, of this process and of `agent` if there is
// one.
template <typename F>
Clocks Measure(F&& work, pid_t agent = -1) {
  clockid_t others = CLOCK_PROCESS_CPUTIME_ID;
  const bool has_agent = agent > 0 && clock_getcpuclockid(agent, &others) == 0;
  const auto now = [&] {
    return Clocks{Seconds(CLOCK_MONOTONIC),
                  Seconds(CLOCK_PROCESS_CPUTIME_ID) + (has_agent ? Seconds(others) : 0)};
  };
  const Clocks begin = now();
  work();
  const Clocks end = now();
  return {end.wall - begin.wall, end.cpu - begin.cpu};
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// One thing measured, by round.
struct Side {
  std::vector<double> wall, cpu;
  void Add(const Clocks& took) {
    wall.push_back(took.wall);
    cpu.push_back(took.cpu);
  }
};

// Medians of `a` over `b`, round by round.
void AddRatio(nlohmann::json& out, const std::string& name, const Side& a, const Side& b) {
  std::vector<double> wall, cpu;
  for (size_t i = 0; i < a.wall.size(); ++i) {
    wall.push_back(a.wall[i] / b.wall[i]);
    cpu.push_back(a.cpu[i] / b.cpu[i]);
  }
  out[name + ", wall time"] = Median(wall);
  out[name + ", CPU time"] = Median(cpu);
}

// Whether a program waits for more than its calls to KVM: for the scheduler, which measures what
// else the machine does, for other threads, or for a signal to end a HLT in a VM with an APIC. The
// bare loop is one thread without signals.
bool Waits(const wire::PlanView& plan) {
  const auto has = [&](auto&& matches) { return std::ranges::any_of(plan.steps, matches); };
  return plan.own_thread || has([](const program::Step& step) {
           return program::RowOf(step).actor == program::Actor::kHost && step.op != Op::kHostPkru;
         }) ||
         (kvm::NeedsApic(plan) && has([](const program::Step& step) {
            return step.op == Op::kExitHlt || step.op == Op::kRaw;
          }));
}

// Programs with their plans as an agent sees them.
struct Prepared {
  std::vector<plan::Plan> plans;
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<wire::PlanView> views;

  bool Add(const program::Program& program, const trace::Platform& platform) {
    plans.push_back(plan::MakePlan(program, platform));
    plan::AppendPlan(plans.back(), bytes.emplace_back());
    std::span<const uint8_t> rest(bytes.back());
    auto view = wire::ReadPlan(rest);
    if (view) views.push_back(std::move(*view));
    return view.has_value();
  }
};

bool EndedWell(std::span<const uint8_t> records) {
  trace::RecordReader reader(records);
  trace::RecordView record;
  trace::EndRecord end{.reason = 0xff};
  while (reader.Next(record)) {
    if (record.kind == trace::RecordKind::kEnd) trace::ReadHead(record.bytes, end);
  }
  return end.reason == static_cast<uint8_t>(trace::EndReason::kDone);
}

std::string RunnerPath() {
  std::error_code status;
  return std::filesystem::read_symlink("/proc/self/exe", status).parent_path() / "kvm-runner";
}

class Bench {
 public:
  static std::expected<Bench, std::string> Open(unsigned rounds) {
    Bench b;
    b.rounds_ = rounds;
    auto host = kvm::ProbeHost(b.probed_);
    if (!host) return std::unexpected(host.error());
    b.host_ = std::move(*host);
    auto machine = kvm::KvmMachine::Open({});
    if (!machine) return std::unexpected(machine.error());
    b.machine_ = std::move(*machine);
    for (auto* agent : {&b.agent_, &b.fresh_agent_}) {
      std::vector<std::string> arguments;
      if (agent == &b.fresh_agent_) arguments.emplace_back("--no-reuse");
      auto target = targets::AgentTarget::Open({RunnerPath(), arguments});
      if (!target) return std::unexpected(target.error().reason);
      *agent = std::move(*target);
    }
    return b;
  }

  nlohmann::json Run() {
    Whole();
    Starts();
    Disturbances();
    return std::move(out_);
  }

 private:
  const trace::Platform& platform() const { return agent_->platform(); }

  // Runs in this process, without stream and judge.
  void RunHere(const wire::PlanView& view) {
    records_.clear();
    machine_->Run(view, records_);
  }

  void RunInAgent(targets::AgentTarget& agent, const Prepared& prepared, judge::Judge* judge) {
    for (size_t first = 0; first < prepared.plans.size(); first += kBatch) {
      std::vector<const plan::Plan*> batch;
      const size_t end = std::min(first + kBatch, prepared.plans.size());
      for (size_t i = first; i < end; ++i) batch.push_back(&prepared.plans[i]);
      const auto status = agent.Run(batch, [&](size_t i, std::span<const uint8_t> records) {
        if (judge != nullptr) divergent_ += !judge->Check(*batch[i], records).ok();
      });
      if (!status) Fail(status.error());
    }
  }

  // Programs as drawn that end well and for which the VM at hand serves.
  Prepared Choose() {
    Prepared chosen;
    size_t drawn = 0;
    for (program::Program& program : Draw(platform(), 16 * kPrograms, 0)) {
      // Of fewer kinds than VMs are kept: where each guest gets the features that it asks for, the
      // programs as drawn would make VMs all the time.
      program.features = program::kAllFeatures;
      if (chosen.plans.size() == kPrograms) break;
      ++drawn;
      Prepared one;
      if (!one.Add(program, platform()) || Waits(one.views[0])) continue;
      RunHere(one.views[0]);  // makes the VM, if it is the first of its kind
      BareLoop loop(host_.xsave_size, static_cast<size_t>(host_.run_size));
      loop.Start(one.views[0]);
      RunHere(one.views[0]);
      loop.Stop();
      if (loop.made_vm() || !EndedWell(records_)) continue;
      chosen.Add(program, platform());
    }
    out_["programs chosen of those drawn"] =
        static_cast<double>(chosen.plans.size()) / static_cast<double>(drawn);
    return chosen;
  }

  // The whole way against the bare loop, and what each part of the way adds.
  void Whole() {
    const Prepared prepared = Choose();
    const auto here = [&] {
      for (const auto& view : prepared.views) RunHere(view);
    };
    here();
    BareLoop loop(host_.xsave_size, static_cast<size_t>(host_.run_size));
    for (const auto& view : prepared.views) {
      loop.Start(view);
      RunHere(view);
      loop.Stop();
    }
    if (loop.made_vm()) Fail("the programs chosen make VMs while they run: no ratios");
    judge::Judge judge(platform());
    const auto replay = [&] {
      loop.Replay(*machine_);
      if (loop.otherwise() <= kMostOtherwise) return;
      Fail(
          fmt::format("{:.1f}% of the bare loop's calls answered otherwise than those that it was "
                      "recorded from (first: {}), so it does not do what the programs do: no "
                      "ratios",
                      100 * loop.otherwise(), loop.first_otherwise()));
    };
    Side bare, runner, stream, judged;
    const std::function<void()> sides[] = {
        [&] { bare.Add(Measure(replay)); }, [&] { runner.Add(Measure(here)); },
        [&] {
          stream.Add(Measure([&] { RunInAgent(*agent_, prepared, nullptr); }, agent_->agent_pid()));
        },
        [&] {
          judged.Add(Measure([&] { RunInAgent(*agent_, prepared, &judge); }, agent_->agent_pid()));
        }};
    // Each side is the first one in turn: a process that has slept meanwhile is favoured by the
    // scheduler of a busy machine.
    for (unsigned round = 0; round < rounds_; ++round) {
      for (unsigned i = 0; i < 4; ++i) sides[(round + i) % 4]();
    }
    const auto programs = static_cast<double>(prepared.plans.size());
    const auto adds = [&](const char* part, const Side& with, const Side& without) {
      std::vector<double> us;
      for (unsigned i = 0; i < rounds_; ++i) {
        us.push_back((with.cpu[i] - without.cpu[i]) / programs * 1e6);
      }
      out_[fmt::format("CPU us a program: {}", part)] = Median(us);
    };
    adds("the bare calls", bare, Side{{}, std::vector<double>(rounds_)});
    adds("what kvm-runner's code adds", runner, bare);
    adds("what agent and stream add", stream, runner);
    adds("what the judge adds", judged, stream);
    out_["programs with a divergence, known or new"] =
        static_cast<double>(divergent_) / (programs * rounds_);
    out_["KVM_RUNs a program"] = static_cast<double>(loop.runs()) / programs;
    out_["calls to KVM a program"] = static_cast<double>(loop.calls()) / programs;
    out_["calls of the bare loop that answered otherwise"] = loop.otherwise();
    out_["bare loop, programs/s"] = programs / Median(bare.wall);
    out_["agent, stream and judge, programs/s"] = programs / Median(judged.wall);
    AddRatio(out_, "programs/s of agent, stream and judge to the bare loop", bare, judged);
    AddRatio(out_, "programs/s of agent and stream to the bare loop", bare, stream);
    AddRatio(out_, "programs/s of kvm-runner's code in this process to the bare loop", bare,
             runner);
  }

  // Reuse against making a VM and a vCPU: the start alone, and a whole program of one step.
  void Starts() {
    Prepared one;
    program::Program program;
    program.steps = {{.op = Op::kFninit}};
    one.Add(program, platform());
    const wire::PlanView& view = one.views[0];
    const kvm::GuestMemory memory;
    const uint64_t features = host_.guest_components;
    const auto make = [&] {
      auto vm = kvm::CreateVm(host_, memory, {.features = features});
      if (!vm) Fail(vm.error());
      if (auto added = kvm::AddVcpus(host_, *vm, 1); !added) Fail(added.error());
      return std::move(*vm);
    };
    const auto start = [&](kvm::Vm& vm) {
      auto ready = kvm::BringToStart(host_, view, vm.vcpus[0]);
      if (!ready) Fail(ready.error());
    };
    kvm::Vm used = make();
    start(used);
    Prepared batch;
    for (size_t i = 0; i < kBatch; ++i) batch.Add(program, platform());
    Side fresh, reused, reused_all, fresh_program, reused_program;
    for (unsigned round = 0; round < rounds_; ++round) {
      const auto reuse = [&](unsigned stale) {
        for (unsigned i = 0; i < kStarts; ++i) {
          used.vcpus[0].stale = stale;
          if (stale == kvm::kStaleAll) used.vcpus[0].sregs_known = false;
          start(used);
        }
      };
      fresh.Add(Measure([&] {
        for (unsigned i = 0; i < kStarts; ++i) {
          kvm::Vm vm = make();
          start(vm);
        }
      }));
      reused.Add(Measure([&] { reuse(kvm::kStaleFpu); }));
      reused_all.Add(Measure([&] { reuse(kvm::kStaleAll); }));
      fresh_program.Add(
          Measure([&] { RunInAgent(*fresh_agent_, batch, nullptr); }, fresh_agent_->agent_pid()));
      reused_program.Add(
          Measure([&] { RunInAgent(*agent_, batch, nullptr); }, agent_->agent_pid()));
    }
    out_["making a VM and a vCPU and bringing it to the start, us"] =
        Median(fresh.wall) / kStarts * 1e6;
    AddRatio(out_, "bringing a used vCPU to the start, to making one", reused, fresh);
    AddRatio(out_, "the same where everything is stale", reused_all, fresh);
    AddRatio(out_, "a program of one step in a used vCPU, to the same in a new VM", reused_program,
             fresh_program);
  }

  // Two runs of a step each with a disturbance between, against the same with an edit of an image.
  void Disturbances() {
    const auto with = [&](const program::Step& between) {
      Prepared prepared;
      program::Program program;
      for (unsigned i = 0; i < 8; ++i) {
        program.steps.push_back({.op = Op::kFninit});
        program.steps.push_back(between);
        program.steps.back().arg[0] += i % 2;  // host.cpu: there and back
      }
      program.steps.push_back({.op = Op::kFninit});
      prepared.Add(program, platform());
      return prepared;
    };
    const Prepared without = with({.op = Op::kImageInit});
    const struct {
      const char* name;
      Prepared prepared;
    } rows[] = {{"host.cpu", with({.op = Op::kHostCpu})},
                {"host.dirty", with({.op = Op::kHostDirty})},
                {"host.signal", with({.op = Op::kHostSignal})},
                {"host.pkru", with({.op = Op::kHostPkru})}};
    for (const auto& [name, prepared] : rows) {
      if (!prepared.plans[0].trims.empty()) continue;  // not to be had here
      Side plain, disturbed;
      for (unsigned round = 0; round < rounds_; ++round) {
        plain.Add(Measure([&] { RunHere(without.views[0]); }));
        disturbed.Add(Measure([&] { RunHere(prepared.views[0]); }));
      }
      AddRatio(out_, fmt::format("KVM_RUN with {} before it, to one without", name), disturbed,
               plain);
    }
  }

  unsigned rounds_ = 0;
  trace::Platform probed_;
  kvm::Host host_;
  std::unique_ptr<kvm::KvmMachine> machine_;
  std::unique_ptr<targets::AgentTarget> agent_, fresh_agent_;
  std::vector<uint8_t> records_;
  uint64_t divergent_ = 0;
  nlohmann::json out_;
};

int Main(int argc, char** argv) {
  unsigned rounds = kDefaultRounds;
  if (argc > 1) {
    const char* end = argv[1] + std::strlen(argv[1]);
    if (const auto [at, error] = std::from_chars(argv[1], end, rounds);
        error != std::errc() || at != end || rounds == 0) {
      fmt::print(stderr, "usage: fpswap_kvm_bench [ROUNDS]\n");
      return 2;
    }
  }
  auto bench = Bench::Open(rounds);
  if (!bench) {
    fmt::print(stderr, "fpswap_kvm_bench: {}\n", bench.error());
    return 3;
  }
  fmt::print("{}\n", bench->Run().dump(2));
  return 0;
}

}  // namespace
}  // namespace fpswap::bench

int main(int argc, char** argv) { return fpswap::bench::Main(argc, argv); }
