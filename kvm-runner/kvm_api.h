/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * KVM's ioctls, each with its number as C computes it. In C++ the structs of <linux/kvm.h> that end
 * in a flexible array are larger than in C, which gives wrong ioctl numbers (and EINVAL), so every
 * call goes through kvm_api.c. All return what ioctl(2) returns.
 *
 * Thread safety: as the kernel's.
 */
#ifndef FPSWAP_KVM_RUNNER_KVM_API_H_
#define FPSWAP_KVM_RUNNER_KVM_API_H_

#ifdef __cplusplus
extern "C" {
#endif

/* On /dev/kvm. */
int kvm_create_vm(int kvm);
int kvm_check_extension(int fd, int capability); /* on a VM as well */
int kvm_get_supported_cpuid(int kvm, void* cpuid2);
int kvm_get_vcpu_mmap_size(int kvm);
int kvm_get_device_attr(int kvm, void* device_attr);

/* On a VM. */
int kvm_create_vcpu(int vm, int id);
int kvm_set_user_memory_region(int vm, void* region);
int kvm_set_cap(int vm, void* enable_cap); /* KVM_ENABLE_CAP */
int kvm_x86_set_msr_filter(int vm, void* filter);

/* On a vCPU. KVM_RUN as programs do it, with canaries around it, is in canary.cc. */
int kvm_run_vcpu(int vcpu);
int kvm_get_regs(int vcpu, void* regs);
int kvm_set_regs(int vcpu, void* regs);
int kvm_get_sregs(int vcpu, void* sregs);
int kvm_set_sregs(int vcpu, void* sregs);
int kvm_get_cpuid2(int vcpu, void* cpuid2);
int kvm_set_cpuid2(int vcpu, void* cpuid2);
int kvm_get_msrs(int vcpu, void* msrs);
int kvm_set_msrs(int vcpu, void* msrs);
int kvm_get_xsave(int vcpu, void* xsave);
int kvm_get_xsave2(int vcpu, void* xsave);
int kvm_set_xsave(int vcpu, void* xsave);
int kvm_get_xcrs(int vcpu, void* xcrs);
int kvm_set_xcrs(int vcpu, void* xcrs);
int kvm_get_fpu(int vcpu, void* fpu);
int kvm_set_fpu(int vcpu, void* fpu);
int kvm_get_vcpu_events(int vcpu, void* events);
int kvm_set_vcpu_events(int vcpu, void* events);
int kvm_get_mp_state(int vcpu, void* mp_state);
int kvm_set_mp_state(int vcpu, void* mp_state);
int kvm_get_debugregs(int vcpu, void* debugregs);
int kvm_set_debugregs(int vcpu, void* debugregs);
int kvm_set_signal_mask(int vcpu, void* mask); /* null: none */

#ifdef __cplusplus
}
#endif

#endif /* FPSWAP_KVM_RUNNER_KVM_API_H_ */
