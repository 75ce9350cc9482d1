// SPDX-License-Identifier: GPL-2.0-or-later
//
// A target runs plans and gives back records. It knows nothing of judging.
//
// Thread safety: a Target is used by one thread.
#pragma once

#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/plan/plan.h"
#include "harness/trace/platform.h"

namespace fpswap::targets {

struct Options {
  std::string runner_dir;  // folder of the agents (kvm-runner, ...); "" is the command's own
  std::string plant;       // name of a planted bug, "" for none
  // What takes longer is stopped, begun again with wire::kPatience times as long, and reported if
  // it hangs again.
  unsigned hang_ms = 2000;
  // Where a lab's console is kept while the target is open; "" is $TMPDIR. A process that may be
  // killed names a folder that somebody else clears up.
  std::string console_folder;
  // Run also what is known to take the machine down. In a lab that is so anyway.
  bool endanger_host = false;
};

// Why a target can't be had here and what to do about it.
struct Unavailable {
  std::string reason;
  std::string remedy;
};

class Target {
 public:
  virtual ~Target() = default;
  virtual const trace::Platform& platform() const = 0;
  // Runs `plans` in order. `done` is called once for each, in order, with its records, which end in
  // an End record whatever happened (agent death included: it is restarted and the batch goes on).
  // An error means that the target can't go on at all.
  virtual std::expected<void, std::string> Run(
      std::span<const plan::Plan* const> plans,
      const std::function<void(size_t index, std::span<const uint8_t> records)>& done) = 0;
  // Within `done`: the edges of the kernel that the program reached, each below wire::kEdges. Empty
  // where nobody counts them (Platform::kernel_coverage).
  virtual std::span<const uint16_t> kernel_edges() const { return {}; }
};

// Known names, best first: "kvm", "native", "unicorn".
std::expected<std::unique_ptr<Target>, Unavailable> OpenTarget(std::string_view name,
                                                               const Options& options);
std::span<const std::string_view> TargetNames();

// A bug that a target can be told to have (Options::plant), to test the harness.
struct Plant {
  std::string name, sentence;
};
// Those that can be planted, as the agent lists them. The error says why it could not be asked.
std::expected<std::vector<Plant>, std::string> Plants(const Options& options);

}  // namespace fpswap::targets
