// SPDX-License-Identifier: GPL-2.0-or-later
//
// The platform as JSON, and back. Reading is total: a trace or an agent's hello may hold anything,
// so every field is checked for type and range, and the first that is wrong is named in the error.
// Unknown fields are passed over, so that an older reader takes a newer writer's text.
#include <nlohmann/json.hpp>

#include "harness/trace/trace.h"

namespace fpswap::trace {
namespace {

using nlohmann::json;

constexpr size_t kMaxPlatformText = 1 << 20;
constexpr size_t kMaxName = 256;
constexpr size_t kMaxReason = 4096;
constexpr uint64_t kKnownComponents = (uint64_t{1} << xstate::kComponentCount) - 1;

// The flags of cpu::Features by their name in JSON; one table for both directions.
struct FeatureFlag {
  const char* name;
  bool cpu::Features::* flag;
  bool optional = false;  // traces recorded before it was known lack it: false
};
constexpr FeatureFlag kFeatureFlags[] = {
    {"ffxsr", &cpu::Features::osfxsr_ffxsr},
    {"amd", &cpu::Features::amd},
    {"fcs_fds_zero", &cpu::Features::fcs_fds_zero},
    {"fdp_on_exception", &cpu::Features::fdp_on_exception},
    {"xsave_err_ptr", &cpu::Features::xsave_err_ptr},
    {"avx", &cpu::Features::avx},
    {"avx2", &cpu::Features::avx2},
    {"fma", &cpu::Features::fma},
    {"avx512f", &cpu::Features::avx512f},
    {"avx512bw", &cpu::Features::avx512bw},
    {"avx512dq", &cpu::Features::avx512dq},
    {"avx512vl", &cpu::Features::avx512vl},
    {"mpx", &cpu::Features::mpx},
    {"pku", &cpu::Features::pku},
    {"amx_tile", &cpu::Features::amx_tile},
    {"amx_int8", &cpu::Features::amx_int8},
    {"amx_bf16", &cpu::Features::amx_bf16},
    {"cet_ss", &cpu::Features::cet_ss, true},
    {"cet_ibt", &cpu::Features::cet_ibt, true},
    {"la57", &cpu::Features::la57, true},
};

struct XsaveFlag {
  const char* name;
  bool xstate::XsaveCpuid::* flag;
};
constexpr XsaveFlag kXsaveFlags[] = {
    {"xsaveopt", &xstate::XsaveCpuid::xsaveopt}, {"xsavec", &xstate::XsaveCpuid::xsavec},
    {"xgetbv1", &xstate::XsaveCpuid::xgetbv1},   {"xsaves", &xstate::XsaveCpuid::xsaves},
    {"xfd", &xstate::XsaveCpuid::xfd},
};

struct SubFlag {
  const char* name;
  bool xstate::XsaveCpuid::Sub::* flag;
};
constexpr SubFlag kSubFlags[] = {
    {"supervisor", &xstate::XsaveCpuid::Sub::supervisor},
    {"align64", &xstate::XsaveCpuid::Sub::align64},
    {"xfd", &xstate::XsaveCpuid::Sub::xfd},
};

json XsaveToJson(const xstate::XsaveCpuid& x) {
  json out = {{"xcr0", x.xcr0}, {"xss", x.xss}, {"max_size", x.max_size}};
  for (const XsaveFlag& f : kXsaveFlags) out[f.name] = x.*f.flag;
  json subs = json::array();
  for (unsigned i = 2; i < xstate::kComponentCount; ++i) {
    const auto& sub = x.sub[i];
    if (sub == xstate::XsaveCpuid::Sub{}) continue;
    json row = {{"bit", i}, {"size", sub.size}, {"offset", sub.offset}};
    for (const SubFlag& f : kSubFlags) row[f.name] = sub.*f.flag;
    subs.push_back(std::move(row));
  }
  out["components"] = std::move(subs);
  return out;
}

json FeaturesToJson(const cpu::Features& features) {
  json out = {{"xsave", XsaveToJson(features.xsave)}, {"mxcsr_mask", features.mxcsr_mask}};
  for (const FeatureFlag& f : kFeatureFlags) out[f.name] = features.*f.flag;
  return out;
}

// Reads fields of one JSON object; keeps the first error of a whole reading in `error`.
class Reader {
 public:
  Reader(const json& object, std::string path, std::string& error)
      : object_(object), path_(std::move(path)), error_(error) {
    if (!object_.is_object()) Fail("", "an object was expected");
  }

  template <typename T>
  void Number(const char* name, T& out, uint64_t max) {
    const json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_number_unsigned() || value->get<uint64_t>() > max) {
      return Fail(name, "a whole number up to " + std::to_string(max) + " was expected");
    }
    out = static_cast<T>(value->get<uint64_t>());
  }

  template <typename B>
  void Flag(const char* name, B& out, bool optional = false) {
    if (optional && object_.is_object() && !object_.contains(name)) return;
    const json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fail(name, "true or false was expected");
    out = value->get<bool>();
  }

  void Text(const char* name, std::string& out, size_t max) {
    const json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_string() || value->get_ref<const std::string&>().size() > max) {
      return Fail(name, "a text of at most " + std::to_string(max) + " bytes was expected");
    }
    out = value->get<std::string>();
  }

  // An object or an array; null after an error.
  const json* Child(const char* name, bool array, size_t max_size) {
    const json* value = Find(name);
    if (value == nullptr) return nullptr;
    if ((array ? !value->is_array() : !value->is_object()) || value->size() > max_size) {
      Fail(name, array ? "a short list was expected" : "an object was expected");
      return nullptr;
    }
    return value;
  }

  std::string PathOf(const char* name) const { return path_ + "." + name; }

 private:
  const json* Find(const char* name) {
    if (!error_.empty()) return nullptr;
    const auto found = object_.find(name);
    if (found == object_.end()) {
      Fail(name, "it is missing");
      return nullptr;
    }
    return &*found;
  }
  void Fail(const char* name, const std::string& what) {
    if (error_.empty()) error_ = "platform" + path_ + "." + name + ": " + what;
  }

  const json& object_;
  std::string path_;
  std::string& error_;
};

void ReadSub(const json& row, std::string path, std::string& error, xstate::XsaveCpuid& x) {
  Reader in(row, std::move(path), error);
  unsigned bit = 0;
  xstate::XsaveCpuid::Sub sub;
  in.Number("bit", bit, xstate::kComponentCount - 1);
  // Sizes and offsets are bounded so that no area computed from them outgrows a buffer.
  in.Number("size", sub.size, xstate::kMaxAreaSize);
  in.Number("offset", sub.offset, xstate::kMaxAreaSize);
  for (const SubFlag& f : kSubFlags) in.Flag(f.name, sub.*f.flag);
  if (!error.empty()) return;
  const bool misplaced = !sub.supervisor && sub.offset < xstate::kExtendedOffset;
  if (bit < 2 || misplaced || sub.offset + sub.size > xstate::kMaxAreaSize) {
    error = "platform" + in.PathOf("bit") + ": component " + std::to_string(bit) +
            " does not lie within an XSAVE area of " + std::to_string(xstate::kMaxAreaSize) +
            " bytes";
    return;
  }
  x.sub[bit] = sub;
}

void ReadXsave(const json& object, const std::string& path, std::string& error,
               xstate::XsaveCpuid& x) {
  Reader in(object, path, error);
  in.Number("xcr0", x.xcr0, UINT64_MAX);
  in.Number("xss", x.xss, UINT64_MAX);
  in.Number("max_size", x.max_size, xstate::kMaxAreaSize);
  for (const XsaveFlag& f : kXsaveFlags) in.Flag(f.name, x.*f.flag);
  const json* subs = in.Child("components", true, xstate::kComponentCount);
  if (subs == nullptr) return;
  for (const json& row : *subs) ReadSub(row, path + ".components", error, x);
  if (error.empty() &&
      xstate::CompactedSize(x, (x.xcr0 | x.xss) & kKnownComponents) > xstate::kMaxAreaSize) {
    error = "platform" + path + ": the compacted area is larger than " +
            std::to_string(xstate::kMaxAreaSize) + " bytes";
  }
}

void ReadFeatures(Reader& platform, const char* name, std::string& error, cpu::Features& f) {
  const json* object = platform.Child(name, false, 256);
  if (object == nullptr) return;
  const std::string path = platform.PathOf(name);
  Reader in(*object, path, error);
  in.Number("mxcsr_mask", f.mxcsr_mask, UINT32_MAX);
  for (const FeatureFlag& flag : kFeatureFlags) in.Flag(flag.name, f.*flag.flag, flag.optional);
  const json* xsave = in.Child("xsave", false, 256);
  if (xsave != nullptr) ReadXsave(*xsave, path + ".xsave", error, f.xsave);
}

// "can" is the list of op numbers that run; "cannot" has the reason for each other op asked about.
void ReadSteps(Reader& in, std::string& error, Platform& p) {
  const json* can = in.Child("can", true, 256);
  if (can == nullptr) return;
  for (const json& op : *can) {
    if (!op.is_number_unsigned() || op.get<uint64_t>() > 255) {
      error = "platform.can: numbers up to 255 were expected";
      return;
    }
    p.can.set(op.get<uint64_t>());
  }
  const json* cannot = in.Child("cannot", true, 256);
  if (cannot == nullptr) return;
  for (const json& row : *cannot) {
    Reader entry(row, ".cannot", error);
    uint8_t op = 0;
    std::string reason;
    entry.Number("op", op, 255);
    entry.Text("reason", reason, kMaxReason);
    if (!error.empty()) return;
    p.cannot.emplace_back(op, std::move(reason));
  }
}

}  // namespace

std::string PlatformToJson(const Platform& p) {
  json can = json::array(), cannot = json::array();
  for (unsigned op = 0; op < 256; ++op) {
    if (p.can[op]) can.push_back(op);
  }
  for (const auto& [op, reason] : p.cannot) cannot.push_back({{"op", op}, {"reason", reason}});
  json out = {
      {"target", p.target},
      {"cpu", p.cpu},
      {"cpu_family", p.cpu_family},
      {"kernel", p.kernel},
      {"vendor_module", p.vendor_module},
      {"host", FeaturesToJson(p.host)},
      {"guest", FeaturesToJson(p.guest)},
      {"host_xcr0", p.host_xcr0},
      {"guest_supp", p.guest_supp},
      {"guest_perm", p.guest_perm},
      {"xsave_size", p.xsave_size},
      {"guest_fixed", p.guest_fixed},
      {"xcr0_loaded", p.xcr0_loaded},
      {"compacted", p.compacted},
      {"cpus", p.cpus},
      {"vcpus", p.vcpus},
      {"kernel_log", p.kernel_log},
      {"can", std::move(can)},
      {"cannot", std::move(cannot)},
  };
  if (!p.lab.empty()) out["lab"] = p.lab;
  if (p.kernel_coverage) out["kernel_coverage"] = true;
  // A brand string may hold any byte: what is not UTF-8 is replaced, never thrown at.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::expected<Platform, std::string> PlatformFromJson(std::string_view text) {
  if (text.size() > kMaxPlatformText) {
    return std::unexpected("platform: the text is longer than 1 MiB");
  }
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return std::unexpected("platform: the text is not JSON");
  Platform p;
  std::string error;
  Reader in(root, "", error);
  in.Text("target", p.target, kMaxName);
  in.Text("cpu", p.cpu, kMaxName);
  if (root.is_object() && root.contains("cpu_family")) {  // older traces lack it
    in.Number("cpu_family", p.cpu_family, 0xff + 0xf);
  }
  if (root.is_object() && root.contains("lab")) in.Text("lab", p.lab, kMaxName);
  if (root.is_object() && root.contains("kernel_log")) in.Flag("kernel_log", p.kernel_log);
  if (root.is_object() && root.contains("kernel_coverage")) {
    in.Flag("kernel_coverage", p.kernel_coverage);
  }
  in.Text("kernel", p.kernel, kMaxName);
  in.Text("vendor_module", p.vendor_module, kMaxName);
  ReadFeatures(in, "host", error, p.host);
  ReadFeatures(in, "guest", error, p.guest);
  in.Number("host_xcr0", p.host_xcr0, UINT64_MAX);
  in.Number("guest_supp", p.guest_supp, UINT64_MAX);
  in.Number("guest_perm", p.guest_perm, UINT64_MAX);
  in.Number("xsave_size", p.xsave_size, xstate::kMaxAreaSize);
  in.Flag("guest_fixed", p.guest_fixed);
  in.Flag("xcr0_loaded", p.xcr0_loaded);
  in.Flag("compacted", p.compacted);
  in.Number("cpus", p.cpus, 1 << 16);
  in.Number("vcpus", p.vcpus, program::kMaxVcpus);
  ReadSteps(in, error, p);
  if (!error.empty()) return std::unexpected(error);
  return p;
}

}  // namespace fpswap::trace
