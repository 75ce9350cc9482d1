// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/host_kernel.h"

#include <dirent.h>
#include <unistd.h>

#include <charconv>

namespace fpswap::kvm {

bool KeepsCompacted(std::string_view release, bool xsaves, bool xsavec) {
  unsigned major = 0, minor = 0;
  const char* end = release.data() + release.size();
  const auto [dot, error] = std::from_chars(release.data(), end, major);
  const bool read = error == std::errc() && dot != end && *dot == '.' &&
                    std::from_chars(dot + 1, end, minor).ec == std::errc();
  const bool with_xsavec = !read || major > 5 || (major == 5 && minor >= 19);
  return xsaves || (xsavec && with_xsavec);
}

std::string VendorModule(const std::string& modules, bool vmx, bool svm) {
  std::string loaded, of_this_cpu, other;
  DIR* folder = opendir(modules.c_str());
  if (folder == nullptr) return "";
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (!name.starts_with("kvm_")) continue;
    // One that is loaded has found its CPU, and no other vendor's before it: else its init would
    // have failed, and it would be gone. One that is built in is listed whatever its init said.
    if (access((modules + "/" + name + "/initstate").c_str(), F_OK) == 0) {
      loaded = name;
    } else if (name == "kvm_intel" || name == "kvm_amd") {
      if (name == "kvm_intel" ? vmx : svm) of_this_cpu = name;
    } else {
      other = name;
    }
  }
  closedir(folder);
  if (!loaded.empty()) return loaded;
  return of_this_cpu.empty() ? other : of_this_cpu;
}

}  // namespace fpswap::kvm
