// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the host's kernel is, as far as it has to be told from its name and its modules. Thread
// safety: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace fpswap::kvm {

// Whether the kernel `release` (as uname gives it) keeps fpstates compacted: with XSAVES always,
// with XSAVEC alone since 5.19 (commit 8ad7e8f69695, fpu__init_system_xstate). A release that can't
// be read counts as new.
bool KeepsCompacted(std::string_view release, bool xsaves, bool xsavec);

// The module beside the common `kvm` that serves /dev/kvm, "" if none is found. `modules` is
// /sys/module; `vmx` and `svm` say what the CPU has.
std::string VendorModule(const std::string& modules, bool vmx, bool svm);

}  // namespace fpswap::kvm
