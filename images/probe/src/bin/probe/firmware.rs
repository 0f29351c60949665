//! The clock and the ACPI tables.

use guest::params::BootParams;
use guest::virtio::Transport;
use guest::{acpi, port, println};

use crate::{Outcome, ensure};

fn cmos(register: u8) -> u8 {
    port::write(0x70, register);
    port::read(0x71)
}

/// Prints the date and time of the CMOS clock.
pub fn clock(_: &BootParams) -> Outcome {
    let mut tries = 0;
    while cmos(0x0a) & 0x80 != 0 {
        tries += 1;
        ensure!(tries < 100_000, "the clock says for ever that it is being updated");
    }
    let mode = cmos(0x0b);
    ensure!(mode & 2 != 0, "the clock has 12 hours: register B is {mode:#x}");
    let number = |register| {
        let value = cmos(register);
        if mode & 4 != 0 { value } else { (value >> 4) * 10 + (value & 15) }
    };
    println!(
        "CLOCK 20{:02}-{:02}-{:02} {:02}:{:02}:{:02}",
        number(9),
        number(8),
        number(7),
        number(4),
        number(2),
        number(0)
    );
    ensure!(cmos(0x0d) & 0x80 != 0, "the clock says that its battery is empty");
    Ok(())
}

/// Checks every table, and what they say about this machine (`cpus=N`).
pub fn acpi(params: &BootParams) -> Outcome {
    let root = params.rsdp();
    ensure!(root != 0, "boot_params has no root pointer");
    // SAFETY: the boot loader says that it is there.
    let tables = unsafe { acpi::tables(root) }?;
    for table in &tables {
        let name = core::str::from_utf8(&table.signature).unwrap_or("?");
        println!("table {name} at {:#x}, {} bytes", table.address, table.bytes.len());
    }
    let find = |name: &[u8; 4]| tables.iter().find(|table| &table.signature == name);
    let (Some(fadt), Some(madt), Some(dsdt)) = (find(b"FACP"), find(b"APIC"), find(b"DSDT")) else {
        ensure!(false, "a table is missing");
        return Ok(());
    };
    ensure!(fadt.u32(112) & 1 << 20 != 0, "the FADT does not say reduced hardware: flags {:#x}", fadt.u32(112));
    ensure!(fadt.u32(112) & 1 << 10 != 0, "the FADT has no reset register: flags {:#x}", fadt.u32(112));
    for (at, port) in [(116, port::RESET), (244, port::SLEEP_CONTROL), (256, port::SLEEP_STATUS)] {
        ensure!(fadt.bytes[at] == 1, "the FADT's register at {at} is no port");
        ensure!(fadt.u64(at + 4) == u64::from(port), "the FADT's register at {at} is {:#x}", fadt.u64(at + 4));
    }
    ensure!(fadt.bytes[128] == 1, "the FADT's reset value is {}", fadt.bytes[128]);
    let cpus = params.option("cpus").and_then(|text| text.parse().ok()).unwrap_or(1);
    let (mut processors, mut ioapics, mut at) = (0, 0, 44);
    while at + 2 <= madt.bytes.len() {
        match madt.bytes[at] {
            0 => processors += 1,
            1 => ioapics += 1,
            _ => {}
        }
        ensure!(madt.bytes[at + 1] >= 2, "the MADT has an entry of {} bytes", madt.bytes[at + 1]);
        at += usize::from(madt.bytes[at + 1]);
    }
    ensure!((processors, ioapics) == (cpus, 1), "the MADT has {processors} processors and {ioapics} IOAPICs");
    let described = dsdt.bytes.windows(8).filter(|bytes| bytes == b"LNRO0005").count();
    let present = Transport::all().count();
    ensure!(described == present, "the DSDT describes {described} of {present} virtio devices");
    ensure!(dsdt.bytes.windows(8).any(|bytes| bytes == b"ACPI0013"), "the DSDT has no generic event device");
    println!("{processors} processors, {present} virtio devices");
    Ok(())
}
