//! Memory given back.

use guest::params::BootParams;
use guest::virtio::balloon::{Balloon, PAGE};
use guest::{interrupt, memory, println};

use crate::{During, Outcome, ensure};

const MIB: u64 = 1 << 20;
const WAIT_MS: u32 = 20_000;
/// The statistic that says how much memory can be had (§5.5.6.4).
const AVAILABLE: u16 = 6;

/// Writes all words of a range, each its address.
fn fill(start: u64, length: u64) {
    for at in (start..start + length).step_by(8) {
        // SAFETY: above everything that this program uses, and within memory, which the caller has looked up.
        unsafe { (at as *mut u64).write_volatile(at) }
    }
}

/// How many words of a range are as [`fill`] left them.
fn kept(start: u64, length: u64) -> u64 {
    // SAFETY: as in `fill`.
    (start..start + length).step_by(8).filter(|at| unsafe { (*at as *const u64).read_volatile() } == *at).count() as u64
}

fn wait_for_target(balloon: &mut Balloon, pages: u32) -> Outcome {
    match interrupt::wait_for(WAIT_MS, || balloon.device.take_config_change().then(|| balloon.target())) {
        Some(target) => ensure!(target == pages, "the target is {target} pages instead of {pages}"),
        None => ensure!(false, "no configuration change"),
    }
    Ok(())
}

/// Fills 16 MiB and prints `READY`; takes 4 MiB into the balloon when asked and prints `BALLOON`; reports 8 MiB and
/// prints `REPORTED`; gives statistics when asked; empties the balloon when asked. What was not given away is kept.
pub fn give_back(params: &BootParams) -> Outcome {
    let mut balloon = Balloon::open().during("balloon")?;
    let start = memory::free_from().next_multiple_of(2 * MIB);
    let held = params.regions().any(|it| it.kind == 1 && it.start <= start && start + 16 * MIB <= it.start + it.size);
    ensure!(held, "no 16 MiB from {start:#x} on");
    let mut statistics = [0; 10];
    statistics[..2].copy_from_slice(&AVAILABLE.to_le_bytes());
    statistics[2..].copy_from_slice(&(7 * MIB).to_le_bytes());
    balloon.give_statistics(&statistics);
    fill(start, 16 * MIB);
    println!("READY");

    let first = (start / PAGE) as u32;
    wait_for_target(&mut balloon, 1024)?;
    balloon.inflate(first, 1024).during("inflate")?;
    balloon.set_actual(1024);
    println!("BALLOON");
    let range = |at: u64, length: u64| (start + at * MIB, (length * MIB) as u32);
    balloon.report(&[range(4, 2), range(6, 4), range(10, 2)]).during("report")?;
    println!("REPORTED");
    ensure!(kept(start + 12 * MIB, 4 * MIB) == 4 * MIB / 8, "memory that was not given away has changed");
    if interrupt::wait_for(WAIT_MS, || balloon.takes_statistics().then_some(())).is_none() {
        ensure!(false, "nobody asks for statistics");
    }
    statistics[2..].copy_from_slice(&(9 * MIB).to_le_bytes());
    balloon.give_statistics(&statistics);

    wait_for_target(&mut balloon, 0)?;
    balloon.deflate(first, 1024).during("deflate")?;
    balloon.set_actual(0);
    ensure!(kept(start, 12 * MIB) == 0, "memory that was given away is still there");
    fill(start, 12 * MIB);
    ensure!(kept(start, 16 * MIB) == 16 * MIB / 8, "memory that came back does not keep what is written");
    println!("FULL");
    wait_for_target(&mut balloon, 1)
}
