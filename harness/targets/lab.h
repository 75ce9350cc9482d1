// SPDX-License-Identifier: GPL-2.0-or-later
//
// A lab: a machine to test in, emulated or real, that a command of its own connects to.
//
// It is a folder with a file lab.json:
//   {"about": "what this machine is", "connect": ["program", "argument", ...],
//    "start_s": 60, "silence_s": 60, "options": ["--no-guest-permission"]}
// "connect" carries an agent's stream on its standard input and output, ends when the machine is
// lost, and takes an emulated machine with it when it is killed or its input ends. It is started in
// the lab's folder; $FPSWAP_CONSOLE names the file that the machine's console is to be added to.
// "start_s" is how long the agent's first answer may take, "silence_s" how much longer than on a
// fast machine any other may, "debug" what its kernel was built with, "options" what its agent is
// told besides what fpswap tells it. Other keys are those of whoever made the lab. docs/labs.md.
//
// Thread safety: pure but for the files they read.
#pragma once

#include <chrono>
#include <expected>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace fpswap::targets {

inline constexpr std::string_view kLabPrefix = "lab:";  // of a target's name

struct Lab {
  std::filesystem::path folder;
  std::string about;
  std::vector<std::string> connect;  // at least one word
  std::vector<std::string> debug;    // "KASAN", "KCOV", ...: what its kernel was built with
  std::vector<std::string> options;  // of the agent
  std::chrono::seconds start{60}, silence{60};
  std::string name() const { return folder.filename().string(); }
};

// $FPSWAP_CACHE/labs, or fpswap/labs in $XDG_CACHE_HOME or ~/.cache.
std::filesystem::path LabsFolder();

// The error is a sentence that names the file and what is wrong with it.
std::expected<Lab, std::string> ReadLab(const std::filesystem::path& folder);

// Those in LabsFolder() that can be read, by name; links, which are other names, left out.
std::vector<Lab> Labs();

// The machine's platform as it was read when the lab was last opened: platform.json in its folder.
std::filesystem::path PlatformFile(const Lab& lab);

}  // namespace fpswap::targets
