// SPDX-License-Identifier: GPL-2.0-or-later
#include "kvm-runner/kvm_api.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

// The flexible arrays count for nothing in the numbers: were this file compiled as C++, or against
// a header that sizes them otherwise, it would not compile.
_Static_assert(_IOC_SIZE(KVM_SET_CPUID2) == 8, "struct kvm_cpuid2 is its head");
_Static_assert(_IOC_SIZE(KVM_GET_SUPPORTED_CPUID) == 8, "struct kvm_cpuid2 is its head");
_Static_assert(_IOC_SIZE(KVM_SET_MSRS) == 8, "struct kvm_msrs is its head");
_Static_assert(_IOC_SIZE(KVM_GET_XSAVE2) == 4096, "struct kvm_xsave is its first page");
_Static_assert(_IOC_SIZE(KVM_SET_SIGNAL_MASK) == 4, "struct kvm_signal_mask is its head");

#define WRAP(function, number) \
  int function(int fd, void* argument) { return ioctl(fd, number, argument); }

int kvm_create_vm(int kvm) { return ioctl(kvm, KVM_CREATE_VM, 0); }
int kvm_check_extension(int fd, int capability) {
  return ioctl(fd, KVM_CHECK_EXTENSION, capability);
}
int kvm_get_vcpu_mmap_size(int kvm) { return ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0); }
int kvm_run_vcpu(int vcpu) { return ioctl(vcpu, KVM_RUN, 0); }
int kvm_create_vcpu(int vm, int id) { return ioctl(vm, KVM_CREATE_VCPU, id); }

WRAP(kvm_get_supported_cpuid, KVM_GET_SUPPORTED_CPUID)
WRAP(kvm_get_device_attr, KVM_GET_DEVICE_ATTR)
WRAP(kvm_set_user_memory_region, KVM_SET_USER_MEMORY_REGION)
WRAP(kvm_set_cap, KVM_ENABLE_CAP)
WRAP(kvm_x86_set_msr_filter, KVM_X86_SET_MSR_FILTER)
WRAP(kvm_get_regs, KVM_GET_REGS)
WRAP(kvm_set_regs, KVM_SET_REGS)
WRAP(kvm_get_sregs, KVM_GET_SREGS)
WRAP(kvm_set_sregs, KVM_SET_SREGS)
WRAP(kvm_get_cpuid2, KVM_GET_CPUID2)
WRAP(kvm_set_cpuid2, KVM_SET_CPUID2)
WRAP(kvm_get_msrs, KVM_GET_MSRS)
WRAP(kvm_set_msrs, KVM_SET_MSRS)
WRAP(kvm_get_xsave, KVM_GET_XSAVE)
WRAP(kvm_get_xsave2, KVM_GET_XSAVE2)
WRAP(kvm_set_xsave, KVM_SET_XSAVE)
WRAP(kvm_get_xcrs, KVM_GET_XCRS)
WRAP(kvm_set_xcrs, KVM_SET_XCRS)
WRAP(kvm_get_fpu, KVM_GET_FPU)
WRAP(kvm_set_fpu, KVM_SET_FPU)
WRAP(kvm_get_vcpu_events, KVM_GET_VCPU_EVENTS)
WRAP(kvm_set_vcpu_events, KVM_SET_VCPU_EVENTS)
WRAP(kvm_get_mp_state, KVM_GET_MP_STATE)
WRAP(kvm_set_mp_state, KVM_SET_MP_STATE)
WRAP(kvm_get_debugregs, KVM_GET_DEBUGREGS)
WRAP(kvm_set_debugregs, KVM_SET_DEBUGREGS)
WRAP(kvm_set_signal_mask, KVM_SET_SIGNAL_MASK)
