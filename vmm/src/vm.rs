//! The state of a virtual machine that is no processor's: interrupt controllers and the clock.

use std::time::Duration;

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::{Cap, VmFd};
use serde::{Deserialize, Serialize};

const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// KVM refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    what: &'static str,
    source: kvm_ioctls::Error,
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |source| Error { what, source }
}

/// Interrupt controllers and the clock.
#[derive(Default, Serialize, Deserialize)]
pub struct VmState {
    controllers: [kvm_irqchip; 3],
    clock: kvm_clock_data,
}

impl VmState {
    /// The state of a virtual machine whose processors do not run.
    pub fn save(vm: &VmFd) -> Result<Self, Error> {
        let mut controllers = CONTROLLERS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for controller in &mut controllers {
            vm.get_irqchip(controller).map_err(kvm("reading an interrupt controller"))?;
        }
        Ok(Self { controllers, clock: vm.get_clock().map_err(kvm("reading the clock"))? })
    }

    /// Puts the state into a new virtual machine whose processors have theirs already: an interrupt that
    /// waits in a controller goes to its processor now. `elapsed` has passed since the state was saved.
    pub fn restore(&self, vm: &VmFd, elapsed: Duration) -> Result<(), Error> {
        for controller in &self.controllers {
            vm.set_irqchip(controller).map_err(kvm("setting an interrupt controller"))?;
        }
        // KVM that knows the time of day adds to the clock what has passed to the nanosecond.
        let adjusts = vm.check_extension_int(Cap::AdjustClock) as u32 & self.clock.flags & KVM_CLOCK_REALTIME;
        let passed = if adjusts == 0 { u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX) } else { 0 };
        let clock = kvm_clock_data {
            clock: self.clock.clock.saturating_add(passed),
            realtime: self.clock.realtime,
            flags: adjusts,
            ..Default::default()
        };
        vm.set_clock(&clock).map_err(kvm("setting the clock"))
    }
}
