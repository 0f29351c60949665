//! The time-stamp counter of a processor, at one moment of the machine's clock: saved and restored so, the two stay together
//! however long this process waits for a busy host between two calls (Linux's Documentation/virt/kvm/devices/vcpu.rst §4.1).

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

/// The counter's model-specific register.
pub const MSR_TSC: u32 = 0x10;

/// What kvm-ioctls lacks for processors (Linux's Documentation/virt/kvm/api.rst §4.80).
mod request {
    #![allow(missing_docs)]
    vmm_sys_util::ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, kvm_bindings::KVMIO, 0xe1, kvm_bindings::kvm_device_attr);
    vmm_sys_util::ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, kvm_bindings::KVMIO, 0xe2, kvm_bindings::kvm_device_attr);
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The machine's clock, nanoseconds.
    pub clock: u64,
    /// The host's counter.
    pub host: u64,
}

/// The host's counter now.
pub fn host() -> u64 {
    // SAFETY: every processor that KVM runs on has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// What the processor's counter showed at `moment`, which is just over.
pub fn read(fd: &VcpuFd, moment: Moment) -> Result<u64, kvm_ioctls::Error> {
    if let Some(offset) = offset(fd) {
        return Ok(moment.host.wrapping_add(offset));
    }
    // The host tells no offset, or its counter has another rate, which makes little difference in so short a time.
    let shown = shown(fd)?;
    Ok(shown.wrapping_sub(host().wrapping_sub(moment.host)))
}

/// Makes the processor's counter, which has the host's rate, go on as if it had shown `value` at `moment`. False if this host's KVM cannot.
pub fn write(fd: &VcpuFd, value: u64, moment: Moment) -> bool {
    let mut wanted = value.wrapping_sub(moment.host);
    let attribute = attribute(&raw mut wanted);
    // SAFETY: KVM reads the eight bytes at the attribute's address, which live until the call is over.
    let set = unsafe { ioctl_with_ref(fd, request::KVM_SET_DEVICE_ATTR(), &attribute) };
    set == 0 && offset(fd) == Some(wanted)
}

/// How far the counter is ahead of the host's, if that is all there is between them.
fn offset(fd: &VcpuFd) -> Option<u64> {
    let mut offset = 0_u64;
    let attribute = attribute(&raw mut offset);
    // SAFETY: KVM writes eight bytes to the attribute's address, which is that of a variable of this size.
    let got = unsafe { ioctl_with_ref(fd, request::KVM_GET_DEVICE_ATTR(), &attribute) };
    if got != 0 {
        return None;
    }
    let (before, shown, after) = (host(), shown(fd).ok()?, host());
    let since = shown.wrapping_sub(offset).wrapping_sub(before);
    (since <= after.wrapping_sub(before)).then_some(offset)
}

fn attribute(at: *mut u64) -> kvm_device_attr {
    kvm_device_attr { flags: 0, group: KVM_VCPU_TSC_CTRL, attr: KVM_VCPU_TSC_OFFSET.into(), addr: at as u64 }
}

fn shown(fd: &VcpuFd) -> Result<u64, kvm_ioctls::Error> {
    let too_long = |_| kvm_ioctls::Error::new(libc::E2BIG);
    let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index: MSR_TSC, ..Default::default() }]).map_err(too_long)?;
    match fd.get_msrs(&mut msrs)? {
        1 => Ok(msrs.as_slice()[0].data),
        _ => Err(kvm_ioctls::Error::new(libc::ENXIO)),
    }
}
