// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/trace/kernel_log.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace fpswap::trace {
namespace {

constexpr size_t kMaxSplats = 64, kMaxHeadline = 400;
// Lines behind a headline that can still be of its dump, where no end is marked.
constexpr unsigned kMaxDump = 120;

// A line's beginning, and what it means. In this order: the first that fits counts.
// kernel/panic.c (__warn, vpanic), arch/x86/mm/fault.c (show_fault_oops),
// arch/x86/kernel/dumpstack.c
// (__die_header), arch/x86/kernel/traps.c, arch/x86/mm/extable.c (ex_handler_fprestore,
// ex_handler_msr_mce), lib/bug.c, kernel/watchdog.c, kernel/hung_task.c, kernel/rcu, lib/ubsan.c.
struct Headline {
  std::string_view begin;
  std::string_view kind;
  bool fatal;
};
constexpr Headline kHeadlines[] = {
    {"WARNING: ", "WARNING", false},
    {"BUG: KASAN: ", "KASAN", false},
    {"BUG: KCSAN: ", "KCSAN", false},
    {"BUG: KFENCE: ", "KFENCE", false},
    {"BUG: KMSAN: ", "KMSAN", false},
    {"BUG: ", "BUG", true},
    {"kernel BUG at ", "BUG", true},
    {"watchdog: BUG: soft lockup", "soft lockup", true},
    {"watchdog: Watchdog detected hard LOCKUP", "hard lockup", true},
    {"Watchdog detected hard LOCKUP", "hard lockup", true},
    {"Oops", "Oops", true},
    {"general protection fault", "Oops", true},
    {"invalid opcode: ", "Oops", true},
    {"divide error: ", "Oops", true},
    {"stack segment: ", "Oops", true},
    {"double fault: ", "double fault", true},
    {"traps: PANIC: double fault", "double fault", true},
    {"Kernel panic - not syncing", "Kernel panic", true},
    {"unchecked MSR access error: ", "unchecked MSR access", false},
    {"Bad FPU state detected at ", "bad FPU state", false},
    {"rcu: INFO: rcu_", "RCU stall", false},
    {"INFO: rcu_", "RCU stall", false},
    {"INFO: task ", "hung task", false},
    {"UBSAN: ", "UBSAN", false},
    {"INFO: possible recursive locking", "lockdep", false},
    {"INFO: inconsistent lock state", "lockdep", false},
};

// Parts of the names of functions and files that guests' FPU state goes through.
constexpr std::string_view kOurCode[] = {"kvm",    "fpu",   "xsave", "xstate", "xrstor",
                                         "xfd",    "vmx_",  "svm_",  "vcpu",   "x86/kernel/fpu",
                                         "fxregs", "fpregs"};
constexpr std::string_view kOurProcesses[] = {"kvm-runner", "native-runner", "fpswap"};

// Without "<4>", "[   12.345678] " and "[ T123] " in front.
std::string_view Strip(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const auto drop = [&](char open, char close, size_t most) {
    const size_t end = line.find(close);
    if (line.empty() || line[0] != open || end == std::string_view::npos || end > most) return;
    line.remove_prefix(end + 1);
    while (line.starts_with(' ')) line.remove_prefix(1);
  };
  drop('<', '>', 4);
  drop('[', ']', 24);
  drop('[', ']', 24);
  return line;
}

const Headline* HeadlineOf(std::string_view line) {
  const auto* row = std::ranges::find_if(
      kHeadlines, [&](const Headline& h) { return line.starts_with(h.begin); });
  return row == std::end(kHeadlines) ? nullptr : row;
}

bool IsNameCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.';
}

// The name before "+0x" in `text`, "" if there is none.
std::string_view Function(std::string_view text) {
  const size_t end = text.find("+0x");
  if (end == std::string_view::npos) return "";
  size_t begin = end;
  while (begin > 0 && IsNameCharacter(text[begin - 1])) --begin;
  std::string_view name = text.substr(begin, end - begin);
  // What a compiler adds to the names of the parts it makes of a function.
  for (const std::string_view part : {".cold", ".isra", ".part", ".constprop"}) {
    name = name.substr(0, name.find(part));
  }
  return name;
}

std::string Printable(std::string_view text) {
  std::string out(text);
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

class Finder {
 public:
  void Take(std::string_view line) {
    line = Strip(line);
    if (const Headline* headline = HeadlineOf(line)) return Begin(*headline, line);
    if (!open_) return;
    // The end of a dump that has one; what is no dump's end after a while.
    if (line.starts_with("---[ end ") || ++lines_ > kMaxDump) {
      End();
      return;
    }
    Note(line);
  }

  std::vector<Splat> Finish() {
    End();
    return std::move(splats_);
  }

 private:
  void Begin(const Headline& headline, std::string_view line) {
    // A fault's own lines follow each other ("BUG: unable to handle", "Oops: 0002"), and a panic
    // may end what began as an oops: the first says what it was.
    if (open_ && headline.fatal && splats_.back().fatal) return Note(line);
    End();
    if (splats_.size() >= kMaxSplats) return;
    // A panic behind the end of the oops that it is for.
    if (headline.kind == "Kernel panic" && !splats_.empty() && splats_.back().fatal) return;
    splats_.push_back({.kind = std::string(headline.kind),
                       .headline = Printable(line.substr(0, kMaxHeadline)),
                       .fatal = headline.fatal});
    open_ = true;
    lines_ = 0;
    in_our_code_ = of_our_process_ = false;
    Note(line);
  }

  void Note(std::string_view line) {
    Splat& splat = splats_.back();
    const bool names_place = line.starts_with("RIP: ") || splat.place.empty();
    if (const std::string_view name = Function(line); names_place && !name.empty()) {
      // "RIP:" is where it was; before it only the headline is as good.
      if (splat.place.empty() || line.starts_with("RIP: 0010")) splat.place = name;
    }
    const auto contains = [&](std::string_view part) {
      return line.find(part) != std::string_view::npos;
    };
    of_our_process_ |= std::ranges::any_of(kOurProcesses, contains);
    // Lines that name code: not the list of modules, nor the process's own name.
    if (contains("+0x") || contains("arch/x86/") || contains("virt/kvm/")) {
      in_our_code_ |= std::ranges::any_of(kOurCode, [&](std::string_view part) {
        size_t at = line.find(part);
        while (at != std::string_view::npos && line.substr(at).starts_with("kvm-runner")) {
          at = line.find(part, at + 1);
        }
        return at != std::string_view::npos;
      });
    }
  }

  void End() {
    if (!open_) return;
    open_ = false;
    splats_.back().ours = in_our_code_ && of_our_process_   ? Splat::Ours::kSurely
                          : in_our_code_ || of_our_process_ ? Splat::Ours::kLikely
                                                            : Splat::Ours::kNo;
  }

  std::vector<Splat> splats_;
  bool open_ = false;
  unsigned lines_ = 0;
  bool in_our_code_ = false, of_our_process_ = false;
};

}  // namespace

std::vector<Splat> FindSplats(std::string_view log) {
  Finder finder;
  while (!log.empty()) {
    const size_t end = std::min(log.find('\n'), log.size());
    finder.Take(log.substr(0, end));
    log.remove_prefix(std::min(end + 1, log.size()));
  }
  return finder.Finish();
}

const char* OursText(Splat::Ours ours) {
  switch (ours) {
    case Splat::Ours::kNo:
      return "it does not look like this program's";
    case Splat::Ours::kLikely:
      return "it is likely this program's";
    case Splat::Ours::kSurely:
      return "it is this program's";
  }
  return "";
}

}  // namespace fpswap::trace
