// SPDX-License-Identifier: GPL-2.0-or-later
//
// The parts of exported C files that are the same in all of them, each to be there only where it is
// used. Kernel style: they are read by kernel developers.
//
// Private to harness/report/export.
#pragma once

namespace fpswap::report::texts {

// In both formats.
extern const char kGuestCode[];       // GUEST_CODE and guest_exit()
extern const char kFaultHandler[];    // selftest: exceptions that kvm_asm_safe() waits for
extern const char kGuestCopy[];       // guest_copy()
extern const char kFillPattern[];     // fill_pattern()
extern const char kCheckBytes[];      // check_bytes()
extern const char kCheckValue[];      // check_value()
extern const char kCheckBits[];       // check_bits()
extern const char kXstateOffset[];    // xstate_offset()
extern const char kAreaComponent[];   // area_component()
extern const char kInitImage[];       // init_image()
extern const char kMoveToCpu[];       // move_to_cpu()
extern const char kDirtyRegisters[];  // dirty_registers()
// fill_host_registers(), with the permission that tiles take in the line "@\n".
extern const char kFillHostRegisters[];
extern const char kSendInit[];        // send_init()
extern const char kSetCpuid[];        // selftest: set_cpuid()
extern const char kRunInterrupted[];  // run_interrupted()

// What stands for the selftests' library.
extern const char kCIncludes[];
extern const char kCBase[];
extern const char kCAsmSafe[];
extern const char kCVm[];
extern const char kCRun[];
extern const char kCMsr[];
extern const char kMsrList[];
extern const char kCPermission[];

}  // namespace fpswap::report::texts
