//! The state of a virtual machine that is no processor's: interrupt controllers and the clock.

use std::time::Duration;

use kvm_bindings::{
    KVM_CLOCK_HOST_TSC, KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::{Cap, VmFd};
use serde::{Deserialize, Serialize};

use crate::snapshot::state::now;
use crate::vcpu::counter::{self, Moment};

const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// How often the clock is read for the host's counter at the same moment, where KVM does not tell both: one reading without
/// a pause, of less than this many ticks, is enough.
const READINGS: usize = 20;
const WITHOUT_PAUSE: u64 = 10_000;

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
        Ok(Self { controllers, clock: read_clock(vm)? })
    }

    /// When the clock was saved.
    pub fn moment(&self) -> Moment {
        Moment { clock: self.clock.clock, host: self.clock.host_tsc }
    }

    /// Lets the clock of a new virtual machine go on as if it had done so since the state was saved, `taken` after 1970, and says what it
    /// shows at which moment.
    pub fn restore_clock(&self, vm: &VmFd, taken: Duration) -> Result<Moment, Error> {
        // KVM that knows the time of day adds to the clock what has passed to the nanosecond.
        let adjusts = vm.check_extension_int(Cap::AdjustClock) as u32 & self.clock.flags & KVM_CLOCK_REALTIME;
        let passed = if adjusts == 0 { now().saturating_sub(taken).as_nanos() } else { 0 };
        let clock = kvm_clock_data {
            clock: self.clock.clock.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)),
            realtime: self.clock.realtime,
            flags: adjusts,
            ..Default::default()
        };
        vm.set_clock(&clock).map_err(kvm("setting the clock"))?;
        let clock = read_clock(vm)?;
        Ok(Moment { clock: clock.clock, host: clock.host_tsc })
    }

    /// Puts the interrupt controllers' state into a new virtual machine whose processors have theirs already: an interrupt that
    /// waits in a controller goes to its processor now.
    pub fn restore_controllers(&self, vm: &VmFd) -> Result<(), Error> {
        for controller in &self.controllers {
            vm.set_irqchip(controller).map_err(kvm("setting an interrupt controller"))?;
        }
        Ok(())
    }
}

/// The clock, and the host's counter at the same moment.
fn read_clock(vm: &VmFd) -> Result<kvm_clock_data, Error> {
    let mut best = kvm_clock_data::default();
    let mut shortest = u64::MAX;
    for _ in 0..READINGS {
        let before = counter::host();
        let clock = vm.get_clock().map_err(kvm("reading the clock"))?;
        let took = counter::host().wrapping_sub(before);
        if clock.flags & KVM_CLOCK_HOST_TSC != 0 {
            return Ok(clock);
        }
        if took < shortest {
            (shortest, best) = (took, kvm_clock_data { host_tsc: before.wrapping_add(took / 2), ..clock });
        }
        if took < WITHOUT_PAUSE {
            break;
        }
    }
    Ok(best)
}
