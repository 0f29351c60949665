//! Guests that misbehave. After each attack the device is reset and must work again.

pub mod gpu;
pub mod ports;
mod queue;
mod registers;

use guest::params::BootParams;
use guest::virtio::balloon::Balloon;
use guest::virtio::block::{Disk, SECTOR};
use guest::virtio::gpu::Gpu;
use guest::virtio::input::Input;
use guest::virtio::net::Net;
use guest::virtio::rng::Rng;
use guest::virtio::vsock::{Vsock, operation};
use guest::virtio::{Transport, kind};
use guest::{interrupt, println};

use crate::{During, Outcome, ensure};

/// How long a device may chew on an attack before it is reset.
const CHEW_MS: u32 = 2;

/// Attacks every device there is, through its queues and its registers.
pub fn queues(_: &BootParams) -> Outcome {
    let mut attacks = 0;
    for transport in Transport::all() {
        let kind = transport.kind();
        for (name, attack) in registers::ATTACKS {
            attack(transport);
            recover(transport, kind, name)?;
            attacks += 1;
        }
        for (name, attack) in queue::ATTACKS {
            for number in 0..queue_count(kind) {
                attack(transport, number).during(name)?;
                interrupt::sleep(CHEW_MS);
                recover(transport, kind, name)?;
                attacks += 1;
            }
        }
        println!("device {kind} in slot {} survived", transport.slot());
    }
    ensure!(attacks > 0, "no device to attack");
    println!("{attacks} attacks");
    Ok(())
}

fn queue_count(kind: u32) -> u16 {
    match kind {
        kind::NET | kind::GPU | kind::INPUT => 2,
        kind::VSOCK => 3,
        kind::BALLOON => 5,
        _ => 1,
    }
}

/// Resets the device and uses it as a driver does.
fn recover(transport: Transport, kind: u32, attack: &str) -> Outcome {
    works(transport, kind).during(attack).during(&alloc::format!("device {kind} in slot {}", transport.slot()))
}

fn works(transport: Transport, kind: u32) -> Outcome {
    let nth = Transport::all().filter(|t| t.kind() == kind && t.slot() < transport.slot()).count();
    match kind {
        kind::BLOCK => {
            let mut sector = [0; SECTOR];
            Disk::open(nth)?.read(0, &mut sector)?;
        }
        kind::RNG => {
            let length = Rng::open()?.fill(&mut [0; 16])?;
            ensure!(length == 16, "{length} random bytes");
        }
        kind::BALLOON => Balloon::open()?.inflate(0x10_0000 / 4096, 1)?,
        kind::NET => Net::open()?.send(&[0xff; 60])?,
        kind::GPU => ensure!(Gpu::open()?.preferred_size()?.is_some(), "the screen is off"),
        kind::INPUT => Input::open(nth)?.set_led(0, false)?,
        kind::VSOCK => {
            let mut vsock = Vsock::open()?;
            vsock.send(1, 9, operation::REQUEST, b"")?;
            let answer = vsock.next_packet()?.operation;
            ensure!(answer == operation::RESET, "operation {answer} from a closed port");
        }
        other => ensure!(false, "device {other} is not known"),
    }
    Ok(())
}
