// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/triage/finding.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "harness/files/files.h"
#include "harness/program/text.h"
#include "harness/triage/cause.h"

namespace fpswap::triage {
namespace fs = std::filesystem;
namespace {

std::string DescribeRepeats(const Finding& finding) {
  if (finding.reruns == 0) return "It was not run again.";
  if (finding.repeats == finding.reruns) {
    return fmt::format("It repeats: {} of {} runs.", finding.repeats, finding.reruns);
  }
  std::string text =
      finding.repeats == 0
          ? fmt::format("It has not repeated in {} runs of the program alone.", finding.reruns)
          : fmt::format("It repeats at times: {} of {} runs of the program alone.", finding.repeats,
                        finding.reruns);
  if (!finding.before.empty()) {
    text += " before/ has the programs that ran before it, in order.";
  }
  return text;
}

std::string DescribeDivergence(const judge::Divergence& divergence) {
  std::string text = fmt::format("* {}\n", divergence.words);
  if (!divergence.where.empty()) text += fmt::format("  * where: {}\n", divergence.where);
  if (!divergence.possible.empty()) {
    text += fmt::format("  * possible: {}\n", judge::HexOf(divergence.possible));
  }
  if (!divergence.seen.empty())
    text += fmt::format("  * seen: {}\n", judge::HexOf(divergence.seen));
  if (!divergence.origin.empty()) text += fmt::format("  * origin: {}\n", divergence.origin);
  if (!divergence.rule.empty()) text += fmt::format("  * rule: {}\n", divergence.rule);
  return text;
}

std::expected<void, std::string> WriteFiles(const fs::path& folder, const Finding& finding) {
  const std::vector<uint8_t> trace = trace::WriteTrace(finding.trace);
  const std::pair<const char*, std::string> files[] = {
      {"program.fps", program::PrintText(finding.trace.program)},
      {"trace.fpt", std::string(files::AsText(trace))},
      {"verdict.json", FindingVerdictJson(finding)},
      {"platform.json", trace::PlatformToJson(finding.trace.platform) + "\n"},
      {"README.md", FindingReadme(finding)}};
  for (const auto& [name, text] : files) {
    if (auto written = files::WriteFile(folder / name, text); !written) return written;
  }
  if (finding.before.empty()) return {};
  std::error_code status;
  fs::create_directory(folder / "before", status);
  for (size_t i = 0; i < finding.before.size(); ++i) {
    const fs::path path = folder / "before" / fmt::format("{:02}.fps", i);
    auto written = files::WriteFile(path, program::PrintText(finding.before[i]));
    if (!written) return written;
  }
  return {};
}

}  // namespace

std::string FindingReadme(const Finding& finding) {
  const trace::Platform& platform = finding.trace.platform;
  const std::string name = FindingName(finding.signature, finding.number);
  std::string text = fmt::format("# {}\n\n", name);
  if (!finding.plant.empty()) {
    text += fmt::format(
        "A self-test of the harness: the agent was told to break the vCPU (plant "
        "`{}`). This is no bug of KVM.\n\n",
        finding.plant);
  }
  const judge::Divergence* first = nullptr;
  if (finding.divergence < finding.verdict.divergences.size()) {
    first = &finding.verdict.divergences[finding.divergence];
    text += DescribeDivergence(*first);
  }
  text +=
      fmt::format("\n{} The program has {} steps ({} when found).\n\n", DescribeRepeats(finding),
                  finding.trace.program.steps.size(), finding.steps_found);
  text += fmt::format("Signature: `{}`\n\nSeen on target `{}`: {}, kernel {}{}{}.\n",
                      finding.signature.Key(), platform.name(), platform.cpu, platform.kernel,
                      platform.vendor_module.empty() ? "" : ", ", platform.vendor_module);
  text += "\n## The program\n\n```\n" + program::PrintText(finding.trace.program) + "```\n";
  const std::string plant = finding.plant.empty() ? "" : fmt::format(" --plant {}", finding.plant);
  text += fmt::format(
      "\n## How to repeat it\n\nIn the folder above this one:\n\n"
      "    fpswap run {0}/program.fps --target {1}{2}\n"
      "    fpswap judge {0}/trace.fpt    # what was observed here, on any machine\n"
      "    fpswap show {0}               # step by step, with the machine code\n",
      name, platform.name(), plant);
  if (finding.verdict.divergences.size() > 1) {
    text += "\n## What else differs in this run\n\n";
    for (const judge::Divergence& each : finding.verdict.divergences) {
      if (&each != first) text += DescribeDivergence(each);
    }
  }
  return text;
}

std::string FindingVerdictJson(const Finding& finding) {
  using nlohmann::json;
  json object = json::parse(judge::VerdictToJson(finding.verdict), nullptr, false);
  if (!object.is_object()) object = json::object();
  object["signature"] = finding.signature.Key();
  object["name"] = FindingName(finding.signature, finding.number);
  object["divergence"] = finding.divergence;
  object["root"] = finding.root;
  object["target"] = finding.trace.platform.name();
  object["reruns"] = finding.reruns;
  object["repeats"] = finding.repeats;
  object["version"] = finding.version;
  object["found"] = finding.found;
  object["after"] = finding.after;
  if (!finding.plant.empty()) object["plant"] = finding.plant;
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

namespace {

// Reading of JSON that anybody may have written: what is not of the type wanted is not there.
class Lenient {
 public:
  explicit Lenient(nlohmann::json object) : object_(std::move(object)) {}
  std::string Word(const char* key) const {
    const auto* found = Find(key);
    return found != nullptr && found->is_string() ? found->get<std::string>() : std::string();
  }
  std::optional<uint64_t> Number(const char* key) const {
    const auto* found = Find(key);
    if (found == nullptr || !found->is_number_unsigned()) return {};
    // What does not fit SQLite's integers is nobody's count.
    return std::min<uint64_t>(found->get<uint64_t>(), INT64_MAX);
  }
  Lenient Element(const char* key, size_t index) const {
    const auto* found = Find(key);
    const bool there = found != nullptr && found->is_array() && index < found->size();
    return Lenient(there ? (*found)[index] : nlohmann::json());
  }

 private:
  const nlohmann::json* Find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }
  nlohmann::json object_;
};

constexpr size_t kMaxJson = 1 << 20;

// Evidence::effect of a divergence as verdict.json has it.
std::string EffectOf(const Lenient& divergence) {
  const std::string cause = divergence.Word("cause"), relation = divergence.Word("relation");
  if (!cause.empty()) return cause;
  const std::string component = divergence.Word("component");
  for (unsigned i = 0; i <= static_cast<unsigned>(judge::Relation::kComplained); ++i) {
    const auto each = static_cast<judge::Relation>(i);
    if (judge::RelationName(each) != relation) continue;
    // What has no component is told by its place.
    return fmt::format("{} {}",
                       component.empty() ? WhereClass(divergence.Word("where")) : component,
                       RelationFamily(each));
  }
  return "";
}

}  // namespace

std::expected<FindingFacts, std::string> ReadFindingName(const fs::path& folder) {
  const auto text = files::ReadFile(folder / "verdict.json", kMaxJson);
  if (!text) return std::unexpected(text.error());
  const Lenient verdict(nlohmann::json::parse(*text, nullptr, false));
  FindingFacts facts;
  facts.divergence = verdict.Number("divergence");
  const Lenient told = verdict.Element("divergences", facts.divergence.value_or(0));
  const auto root = verdict.Number("root");
  facts.effect = EffectOf(root ? verdict.Element("divergences", *root) : told);
  for (const auto& [into, key] : {std::pair(&facts.law, "law"),
                                  {&facts.op, "op"},
                                  {&facts.component, "component"},
                                  {&facts.relation, "relation"},
                                  {&facts.where, "where"},
                                  {&facts.words, "words"},
                                  {&facts.rule, "rule"}}) {
    *into = told.Word(key);
  }
  for (const auto& [into, key] : {std::pair(&facts.key, "signature"),
                                  {&facts.name, "name"},
                                  {&facts.target, "target"},
                                  {&facts.plant, "plant"},
                                  {&facts.version, "version"}}) {
    *into = verdict.Word(key);
  }
  facts.reruns = verdict.Number("reruns").value_or(0);
  facts.repeats = verdict.Number("repeats").value_or(0);
  facts.after = verdict.Number("after").value_or(0);
  facts.found = static_cast<int64_t>(verdict.Number("found").value_or(0));
  return facts;
}

fs::path SmallestProgram(const fs::path& finding) {
  std::error_code status;
  const fs::path small = finding / "minimized.fps";
  return fs::exists(small, status) ? small : finding / "program.fps";
}

std::expected<FindingFacts, std::string> ReadFinding(const fs::path& folder) {
  auto facts = ReadFindingName(folder);
  if (!facts) return facts;
  if (const auto text = files::ReadFile(folder / "platform.json", kMaxJson)) {
    const Lenient platform(nlohmann::json::parse(*text, nullptr, false));
    facts->kernel = platform.Word("kernel");
    facts->cpu = platform.Word("cpu");
  }
  if (const auto program = files::ReadProgram(SmallestProgram(folder))) {
    facts->steps = program->steps.size();
    facts->triggers = Triggers(*program);
  }
  return facts;
}

std::string FindingName(const Signature& signature, unsigned number) {
  return number <= 1 ? signature.Name() : fmt::format("{}-{}", signature.Name(), number);
}

std::vector<OneOfASignature> FindingsOf(const fs::path& findings, const Signature& signature) {
  std::vector<OneOfASignature> all;
  for (unsigned number = 1; number <= kMaxOfASignature; ++number) {
    std::string name = FindingName(signature, number);
    std::error_code status;
    if (!fs::exists(findings / name, status)) continue;
    const auto program = files::ReadProgram(SmallestProgram(findings / name));
    all.push_back({std::move(name), program ? Triggers(*program) : ""});
  }
  return all;
}

std::expected<Written, std::string> WriteFinding(const fs::path& findings, Finding finding) {
  const std::string triggers = Triggers(finding.trace.program);
  // Each time round another worker was faster, and one more is there.
  for (;;) {
    const auto there = FindingsOf(findings, finding.signature);
    for (const OneOfASignature& one : there) {
      if (MayShareCause(one.triggers, triggers)) return Written{one.name};
    }
    if (there.size() >= kMaxOfASignature) return Written{there.front().name};
    const auto is_there = [&](const std::string& name) {
      return std::ranges::find(there, name, &OneOfASignature::name) != there.end();
    };
    finding.number = 1;
    while (is_there(FindingName(finding.signature, finding.number))) ++finding.number;
    const std::string name = FindingName(finding.signature, finding.number);
    const fs::path folder = findings / name;
    const fs::path temporary = findings / fmt::format(".{}.{}", name, getpid());
    std::error_code status;
    fs::remove_all(temporary, status);
    fs::create_directories(temporary, status);
    if (status) {
      return std::unexpected(fmt::format("{}: {}", folder.string(), status.message()));
    }
    if (auto written = WriteFiles(temporary, finding); !written) {
      fs::remove_all(temporary, status);
      // The message begins with the file's path: told under the name that the user will look for.
      return std::unexpected(folder.string() + written.error().substr(temporary.string().size()));
    }
    if (rename(temporary.c_str(), folder.c_str()) == 0) return Written{name, true};
    const int error = errno;
    fs::remove_all(temporary, status);
    // rename never replaces a folder that holds anything.
    if (error != EEXIST && error != ENOTEMPTY) {
      return std::unexpected(fmt::format("{}: {}", folder.string(), std::strerror(error)));
    }
  }
}

}  // namespace fpswap::triage
