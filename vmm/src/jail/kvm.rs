//! The requests to KVM (linux/kvm.h) that threads make: a monitor that was taken over reaches no other part of KVM, such as other kinds of
//! virtual machines, devices in the kernel, nested state, debugging, or capabilities switched on.

use kvm_bindings::*;
use libc::{_IO, _IOR, _IOW, _IOWR};
use yunju_jail::filter::{Call, When, call_if};

/// The type byte of all of them, `KVMIO`.
const KVM: u32 = 0xae;

const CREATE_VM: u64 = _IO(KVM, 0x01);
const CHECK_EXTENSION: u64 = _IO(KVM, 0x03);
const GET_VCPU_MMAP_SIZE: u64 = _IO(KVM, 0x04);
const GET_SUPPORTED_CPUID: u64 = _IOWR::<kvm_cpuid2>(KVM, 0x05);
const CREATE_VCPU: u64 = _IO(KVM, 0x41);
const SET_USER_MEMORY_REGION: u64 = _IOW::<kvm_userspace_memory_region>(KVM, 0x46);
const SET_TSS_ADDR: u64 = _IO(KVM, 0x47);
const SET_IDENTITY_MAP_ADDR: u64 = _IOW::<u64>(KVM, 0x48);
const CREATE_IRQCHIP: u64 = _IO(KVM, 0x60);
const GET_IRQCHIP: u64 = _IOWR::<kvm_irqchip>(KVM, 0x62);
/// The header has it the wrong way round.
const SET_IRQCHIP: u64 = _IOR::<kvm_irqchip>(KVM, 0x63);
const IRQFD: u64 = _IOW::<kvm_irqfd>(KVM, 0x76);
const IOEVENTFD: u64 = _IOW::<kvm_ioeventfd>(KVM, 0x79);
const SET_CLOCK: u64 = _IOW::<kvm_clock_data>(KVM, 0x7b);
const GET_CLOCK: u64 = _IOR::<kvm_clock_data>(KVM, 0x7c);
const RUN: u64 = _IO(KVM, 0x80);
const GET_REGS: u64 = _IOR::<kvm_regs>(KVM, 0x81);
const SET_REGS: u64 = _IOW::<kvm_regs>(KVM, 0x82);
const GET_SREGS: u64 = _IOR::<kvm_sregs>(KVM, 0x83);
const SET_SREGS: u64 = _IOW::<kvm_sregs>(KVM, 0x84);
const GET_MSRS: u64 = _IOWR::<kvm_msrs>(KVM, 0x88);
const SET_MSRS: u64 = _IOW::<kvm_msrs>(KVM, 0x89);
const SET_FPU: u64 = _IOW::<kvm_fpu>(KVM, 0x8d);
const GET_LAPIC: u64 = _IOR::<kvm_lapic_state>(KVM, 0x8e);
const SET_LAPIC: u64 = _IOW::<kvm_lapic_state>(KVM, 0x8f);
const SET_CPUID2: u64 = _IOW::<kvm_cpuid2>(KVM, 0x90);
const GET_MP_STATE: u64 = _IOR::<kvm_mp_state>(KVM, 0x98);
const SET_MP_STATE: u64 = _IOW::<kvm_mp_state>(KVM, 0x99);
/// `KVM_X86_SETUP_MCE`.
const SETUP_MCE: u64 = _IOW::<u64>(KVM, 0x9c);
const GET_VCPU_EVENTS: u64 = _IOR::<kvm_vcpu_events>(KVM, 0x9f);
const SET_VCPU_EVENTS: u64 = _IOW::<kvm_vcpu_events>(KVM, 0xa0);
const GET_DEBUGREGS: u64 = _IOR::<kvm_debugregs>(KVM, 0xa1);
const SET_DEBUGREGS: u64 = _IOW::<kvm_debugregs>(KVM, 0xa2);
const SET_TSC_KHZ: u64 = _IO(KVM, 0xa2);
const GET_TSC_KHZ: u64 = _IO(KVM, 0xa3);
const GET_XSAVE: u64 = _IOR::<kvm_xsave>(KVM, 0xa4);
const SET_XSAVE: u64 = _IOW::<kvm_xsave>(KVM, 0xa5);
const GET_XCRS: u64 = _IOR::<kvm_xcrs>(KVM, 0xa6);
const SET_XCRS: u64 = _IOW::<kvm_xcrs>(KVM, 0xa7);
const KVMCLOCK_CTRL: u64 = _IO(KVM, 0xad);
const SET_DEVICE_ATTR: u64 = _IOW::<kvm_device_attr>(KVM, 0xe1);
const GET_DEVICE_ATTR: u64 = _IOW::<kvm_device_attr>(KVM, 0xe2);

const fn requests(these: &'static [u64], why: &'static str) -> Call {
    call_if(libc::SYS_ioctl, When::Is(1, these), why)
}

/// Of the thread that makes the virtual machine, anew at each restart, and saves it.
pub const MAIN: &[Call] = &[
    requests(&[CREATE_VM, GET_VCPU_MMAP_SIZE], "a virtual machine"),
    requests(&[SET_USER_MEMORY_REGION, SET_TSS_ADDR, SET_IDENTITY_MAP_ADDR], "its memory"),
    requests(&[CREATE_IRQCHIP, IRQFD, IOEVENTFD], "interrupts from devices, and what wakes them"),
    requests(&[CREATE_VCPU, GET_SUPPORTED_CPUID, CHECK_EXTENSION, SET_CPUID2], "its processors and what they can do"),
    requests(
        &[GET_SREGS, SET_SREGS, SET_REGS, SET_FPU, SET_XCRS, SET_MSRS, SETUP_MCE, GET_LAPIC, SET_LAPIC],
        "the state that the kernel is entered in, and processors restored",
    ),
    requests(&[GET_IRQCHIP, GET_CLOCK], "a snapshot: interrupt controllers and the clock"),
    requests(&[SET_IRQCHIP, SET_CLOCK], "the same, restored"),
    requests(
        &[GET_REGS, GET_XSAVE, GET_XCRS, GET_DEBUGREGS, GET_MSRS, GET_VCPU_EVENTS, GET_MP_STATE, GET_TSC_KHZ],
        "a snapshot: processors",
    ),
    requests(
        &[SET_XSAVE, SET_DEBUGREGS, SET_VCPU_EVENTS, SET_MP_STATE, SET_TSC_KHZ, KVMCLOCK_CTRL],
        "the same, restored",
    ),
    requests(&[GET_DEVICE_ATTR, SET_DEVICE_ATTR], "how far processors' counters are from the host's"),
];

/// Of a processor's thread.
pub const VCPU: &[Call] = &[requests(&[RUN, GET_REGS], "running the guest, and where it crashed")];
