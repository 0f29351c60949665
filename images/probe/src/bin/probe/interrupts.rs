//! Used buffers and their interrupts, one for one.

use guest::interrupt;
use guest::params::BootParams;
use guest::println;
use guest::virtio::rng::Rng;
use guest::virtio::{Buffer, PATIENCE_MS};

use crate::{During, Outcome, ensure};

const ROUNDS: u64 = 200;

/// Each request is answered before its interrupt comes, and each has one.
pub fn ping_pong(_: &BootParams) -> Outcome {
    let mut rng = Rng::open().during("rng")?;
    let line = rng.device.transport.line();
    let start = interrupt::line_count(line);
    let mut byte = [0_u8; 1];
    for round in 0..ROUNDS {
        rng.device.give(0, &[Buffer::write(&mut byte)]);
        let came = interrupt::wait_for(PATIENCE_MS, || (interrupt::line_count(line) > start + round).then_some(()));
        ensure!(came.is_some(), "no interrupt in round {round}");
        ensure!(rng.device.take(0).is_some(), "an interrupt without a used buffer in round {round}");
    }
    let count = interrupt::line_count(line) - start;
    ensure!(count == ROUNDS, "{ROUNDS} requests had {count} interrupts");
    println!("{ROUNDS} requests, {count} interrupts");
    Ok(())
}
