// SPDX-License-Identifier: GPL-2.0-or-later
//
// The parts of exported C files that are the same in all of them, each to be there only where it is
// used. Kernel style: they are read by kernel developers.
//
// Private to harness/report/export.
#pragma once

namespace fpswap::report::texts {

// In more than one format.
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
extern const char kCTypes[];
extern const char kCBase[];
extern const char kCVcpu[];
extern const char kCCpuid[];
extern const char kCIoctl[];
extern const char kCAsmSafe[];
extern const char kCVm[];
extern const char kCRun[];
extern const char kCMsr[];
extern const char kMsrList[];
extern const char kCPermission[];

// A thread under ptrace, beside kCBase and kCCpuid. Lines with "@" are places for what only some
// tests need.
extern const char kThreadIncludes[];
extern const char kThreadTypes[];
extern const char kThreadCpu[];        // cpu_has()
extern const char kThreadGuestCode[];  // GUEST_CODE and guest_exit()
extern const char kThreadStart[];      // start_guest(); @state, @tiles, @handler, @child
extern const char kThreadRun[];        // run_guest(); @fill
extern const char kThreadSync[];       // sync_from_guest()
extern const char kThreadRegset[];     // regset()
extern const char kThreadSignal[];     // send_signal()
extern const char kThreadHandler[];    // handle_signal(), in the child

}  // namespace fpswap::report::texts
