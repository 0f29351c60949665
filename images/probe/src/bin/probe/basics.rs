//! Boot, memory, processors, and the ways to end.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::clock::Clock;
use guest::params::BootParams;
use guest::virtio::block::{Disk, SECTOR};
use guest::{cpu, interrupt, port, println, smp};

use crate::{During, Outcome, ensure};

const POWER_BUTTON: u32 = 5;

/// What the boot loader told, and that KVM is underneath.
pub fn hello(params: &BootParams) -> Outcome {
    println!("command line: {}", params.command_line());
    ensure!(params.is_valid(), "boot_params without its magic numbers");
    for region in params.regions() {
        println!("memory {:#x} + {:#x} type {}", region.start, region.size, region.kind);
    }
    let [most, b, c, d] = cpu::cpuid(0x4000_0000, 0);
    ensure!([b, c, d] == [0x4b4d_564b, 0x564b_4d56, 0x4d], "cpuid does not say KVM: {b:x} {c:x} {d:x}");
    ensure!(most >= 0x4000_0001, "cpuid has no KVM features");
    let features = cpu::cpuid(0x4000_0001, 0)[0];
    ensure!(features & 1 << 3 != 0, "no kvmclock: features {features:#x}");
    let hypervisor = cpu::cpuid(1, 0)[2] >> 31;
    ensure!(hypervisor == 1, "cpuid does not say that this is a virtual machine");
    clock()
}

fn clock() -> Outcome {
    let clock = Clock::start();
    let before = clock.now();
    interrupt::sleep(10);
    let passed = clock.now().wrapping_sub(before);
    println!("kvmclock: 10 ms are {} us", passed / 1000);
    ensure!((9_000_000..2_000_000_000).contains(&passed), "10 ms are {passed} ns by kvmclock");
    Ok(())
}

/// Writes to places all over the memory that the map declares, the last page of each region too, and
/// finds it again: `memory=BYTES` in all.
pub fn memory(params: &BootParams) -> Outcome {
    let usable = || params.regions().filter(|region| region.kind == 1);
    let total: u64 = usable().map(|region| region.start + region.size).max().unwrap_or(0);
    let hole = usable().any(|region| region.start >= 4 << 30);
    let high: u64 = usable().map(|r| r.size).sum();
    println!("usable memory {high:#x} up to {total:#x}{}", if hole { ", around the hole" } else { "" });
    if let Some(expected) = params.option("memory").and_then(|text| text.parse::<u64>().ok()) {
        // Firmware tables and the legacy video range are missing from the map.
        ensure!(high <= expected && high > expected - (2 << 20), "{high:#x} bytes instead of {expected:#x}");
    }
    // A place may cost the host 2 MiB.
    let step = if total > 1 << 30 { 64 << 20 } else { 2 << 20 };
    let safe_from = guest::memory::free_from();
    let places = || {
        usable().flat_map(move |region| {
            let (first, end) = (region.start.max(safe_from).next_multiple_of(step), region.start + region.size);
            let last = (end > safe_from).then_some(end - 4096);
            (first..end).step_by(step as usize).chain(last)
        })
    };
    for place in places() {
        // SAFETY: declared usable and above everything that this program uses.
        unsafe { (place as *mut u64).write_volatile(place ^ 0x5a5a_5a5a) };
    }
    for place in places() {
        // SAFETY: as above.
        let found = unsafe { (place as *const u64).read_volatile() };
        ensure!(found == place ^ 0x5a5a_5a5a, "{place:#x} holds {found:#x}");
    }
    println!("touched {} places", places().count());
    Ok(())
}

/// Prints a growing number for ever: shows whether the machine runs.
pub fn spin(_: &BootParams) -> Outcome {
    for number in 0_u64.. {
        println!("TICK {number}");
        interrupt::sleep(5);
    }
    Ok(())
}

/// Nothing but the end that every test has.
pub fn power_off(_: &BootParams) -> Outcome {
    Ok(())
}

/// Restarts by each of the two ways; counts on the disk, which survives.
pub fn reset(_: &BootParams) -> Outcome {
    let mut disk = Disk::open(0).during("disk")?;
    let mut sector = [0; SECTOR];
    disk.read(0, &mut sector).during("read")?;
    let boots = core::hint::black_box(&mut sector)[0];
    println!("boot {boots}");
    sector[0] = boots + 1;
    disk.write(0, &sector).during("write")?;
    match boots {
        0 => port::write(port::RESET, 1),
        1 => port::write(port::I8042_COMMAND, 0xfe),
        _ => return Ok(()),
    }
    interrupt::sleep(1000);
    ensure!(false, "still running after reset {boots}");
    Ok(())
}

/// Restarts at once, for ever.
pub fn reset_loop(_: &BootParams) -> Outcome {
    port::write(port::RESET, 1);
    interrupt::sleep(1000);
    ensure!(false, "still running after the reset");
    Ok(())
}

/// A fault without anyone to take it.
pub fn triple_fault(_: &BootParams) -> Outcome {
    cpu::triple_fault()
}

/// Ends when the button is pressed.
pub fn power_button(_: &BootParams) -> Outcome {
    interrupt::route_line(POWER_BUTTON, 0);
    println!("READY");
    interrupt::wait(|| (interrupt::line_count(POWER_BUTTON) > 0).then_some(()));
    println!("pressed");
    Ok(())
}

const ROUNDS: u64 = 100_000;
static SUM: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);

fn work(_: usize) {
    for _ in 0..ROUNDS {
        SUM.fetch_add(1, Ordering::Relaxed);
    }
    DONE.fetch_add(1, Ordering::Release);
    interrupt::cross(0);
}

/// `cpus=N` processors add to one number.
pub fn smp(params: &BootParams) -> Outcome {
    let count = params.option("cpus").and_then(|text| text.parse().ok()).unwrap_or(1);
    let running = smp::start(count, work);
    ensure!(running == count, "{running} of {count} processors run");
    work(0);
    interrupt::wait_for(2000, || (DONE.load(Ordering::Acquire) == count).then_some(()));
    let sum = SUM.load(Ordering::Relaxed);
    ensure!(sum == ROUNDS * count as u64, "{count} processors counted to {sum}");
    ensure!(interrupt::processor() == 0, "the first processor is {}", interrupt::processor());
    println!("{count} processors counted to {sum}");
    Ok(())
}
