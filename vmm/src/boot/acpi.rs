//! ACPI tables (ACPI 6.5, hardware-reduced profile): processors, interrupt controllers, one
//! `LNRO0005` for each virtio device, power button and power-off, the generation id.

use acpi_tables::Aml;
use acpi_tables::aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout;
use crate::memory::GuestMemory;

const OEM: [u8; 6] = *b"YUNJU ";
const TABLE: [u8; 8] = *b"YUNJUVM ";
const REVISION: u32 = 1;
/// The sleep type of "soft off", in the `_S5` package and in the sleep control register.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Writes the tables of a machine and returns where the RSDP is.
pub fn write(memory: &GuestMemory, cpus: u8, virtio_devices: u32) -> Result<GuestAddress, GuestMemoryError> {
    let mut space = Space { memory, next: layout::ACPI };
    // The RSDP comes first, on the 16-byte boundary where a guest that searches would find it.
    let rsdp = space.reserve(Rsdp::len());
    let dsdt = space.put(&dsdt(virtio_devices))?;
    let fadt = space.put(&fadt(dsdt))?;
    let madt = space.put(&madt(cpus))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt.0);
    xsdt.add_entry(madt.0);
    let xsdt = space.put(&bytes(&xsdt))?;
    memory.write_slice(&bytes(&Rsdp::new(OEM, xsdt.0)), rsdp)?;
    Ok(rsdp)
}

struct Space<'m> {
    memory: &'m GuestMemory,
    next: u64,
}

impl Space<'_> {
    fn reserve(&mut self, length: usize) -> GuestAddress {
        let address = self.next;
        self.next = (address + length as u64).next_multiple_of(16);
        assert!(self.next <= layout::ACPI_END, "the tables of the largest machine fit, which a test proves");
        GuestAddress(address)
    }

    fn put(&mut self, table: &[u8]) -> Result<GuestAddress, GuestMemoryError> {
        let address = self.reserve(table.len());
        self.memory.write_slice(table, address)?;
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn port(number: u64) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, number)
}

/// Fixed description (§5.2.9): no legacy hardware; sleep and reset by our power ports.
fn fadt(dsdt: GuestAddress) -> Vec<u8> {
    const NO_VGA: u16 = 1 << 2;
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt.0)
        .preferred_pm_profile(PmProfile::Desktop)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.sleep_control_reg = port(layout::POWER_PORT);
    fadt.sleep_status_reg = port(layout::POWER_PORT + 1);
    fadt.reset_reg = port(layout::POWER_PORT + 2);
    fadt.reset_value = 1;
    bytes(&fadt.finalize())
}

/// Processors and interrupt controllers (§5.2.12).
fn madt(cpus: u8) -> Vec<u8> {
    let mut madt = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(layout::LAPIC));
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    bytes(&madt)
}

/// Devices (§5.2.11.1).
fn dsdt(virtio_devices: u32) -> Vec<u8> {
    let mut code = Vec::new();
    let off = aml::Package::new(vec![&SLEEP_TYPE_OFF]);
    aml::Name::new("_S5_".into(), &off).to_aml_bytes(&mut code);
    for slot in 0..virtio_devices {
        virtio(slot, &mut code);
    }
    serial(&mut code);
    clock(&mut code);
    events(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table.as_slice().to_vec()
}

/// A virtio device behind memory-mapped registers, by the id that Linux gave it.
fn virtio(slot: u32, code: &mut Vec<u8>) {
    let base = layout::VIRTIO as u32 + slot * layout::VIRTIO_SLOT_SIZE as u32;
    let registers = aml::Memory32Fixed::new(true, base, layout::VIRTIO_SLOT_SIZE as u32);
    let line = aml::Interrupt::new(true, true, false, false, layout::VIRTIO_GSI + slot);
    let resources = aml::ResourceTemplate::new(vec![&registers, &line]);
    let hid = aml::Name::new("_HID".into(), &"LNRO0005");
    let uid = aml::Name::new("_UID".into(), &slot);
    let coherent = aml::Name::new("_CCA".into(), &aml::ONE);
    let crs = aml::Name::new("_CRS".into(), &resources);
    let name = format!("V{slot:03X}");
    let device = aml::Device::new(name.as_str().into(), vec![&hid, &uid, &coherent, &crs]);
    aml::Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(code);
}

fn serial(code: &mut Vec<u8>) {
    let ports = aml::IO::new(layout::SERIAL_PORT as u16, layout::SERIAL_PORT as u16, 1, 8);
    let line = aml::Interrupt::new(true, true, false, false, layout::SERIAL_GSI);
    let resources = aml::ResourceTemplate::new(vec![&ports, &line]);
    let hid = aml::EISAName::new("PNP0501");
    let hid = aml::Name::new("_HID".into(), &hid);
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let crs = aml::Name::new("_CRS".into(), &resources);
    let device = aml::Device::new("COM1".into(), vec![&hid, &uid, &crs]);
    aml::Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(code);
}

/// The clock, without an interrupt line: a kernel then knows that it has no alarm.
fn clock(code: &mut Vec<u8>) {
    let ports = aml::IO::new(layout::CMOS_PORT as u16, layout::CMOS_PORT as u16, 1, 2);
    let resources = aml::ResourceTemplate::new(vec![&ports]);
    let hid = aml::EISAName::new("PNP0B00");
    let hid = aml::Name::new("_HID".into(), &hid);
    let crs = aml::Name::new("_CRS".into(), &resources);
    let device = aml::Device::new("RTC_".into(), vec![&hid, &crs]);
    aml::Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(code);
}

/// A control-method power button (§4.8.3.1), the generation id ("Virtual Machine Generation ID", Microsoft 2018; Linux
/// binds to `VMGENCTR`), and the event device (§5.6.9) that tells which of them has news.
fn events(code: &mut Vec<u8>) {
    let hid = aml::EISAName::new("PNP0C0C");
    let hid = aml::Name::new("_HID".into(), &hid);
    let button = aml::Device::new("PWRB".into(), vec![&hid]);

    let hid = aml::Name::new("_HID".into(), &"YUNJ0001");
    let ids = aml::Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]);
    let cid = aml::Name::new("_CID".into(), &ids);
    let ddn = aml::Name::new("_DDN".into(), &"VM_Gen_Counter");
    // Lower and upper half.
    let place = layout::GENERATION as u32;
    let address = aml::Package::new(vec![&place, &aml::ZERO]);
    let address = aml::Name::new("ADDR".into(), &address);
    let generation = aml::Device::new("VGEN".into(), vec![&hid, &cid, &ddn, &address]);

    let line = |gsi| aml::Interrupt::new(true, true, false, false, gsi);
    let lines = [line(layout::POWER_BUTTON_GSI), line(layout::GENERATION_GSI)];
    let resources = aml::ResourceTemplate::new(vec![&lines[0], &lines[1]]);
    let hid = aml::Name::new("_HID".into(), &"ACPI0013");
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let crs = aml::Name::new("_CRS".into(), &resources);
    let (button_path, generation_path) = (aml::Path::new("\\_SB_.PWRB"), aml::Path::new("\\_SB_.VGEN"));
    let (pressed, renewed) = (aml::Notify::new(&button_path, &0x80u8), aml::Notify::new(&generation_path, &0x80u8));
    let (which, generation_gsi) = (aml::Arg(0), layout::GENERATION_GSI as u8);
    let is_generation = aml::Equal::new(&which, &generation_gsi);
    let (renewed, pressed) = (aml::If::new(&is_generation, vec![&renewed]), aml::Else::new(vec![&pressed]));
    let event = aml::Method::new("_EVT".into(), 1, true, vec![&renewed, &pressed]);
    let events = aml::Device::new("GED_".into(), vec![&hid, &uid, &crs, &event]);
    aml::Scope::new("\\_SB_".into(), vec![&button, &generation, &events]).to_aml_bytes(code);
}

#[cfg(test)]
mod tests {
    use yunju_protocol::machine::ByteSize;

    use super::*;
    use crate::memory::allocate;

    fn table(memory: &GuestMemory, address: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(address + 4)).unwrap();
        let mut table = vec![0; length as usize];
        memory.read_slice(&mut table, GuestAddress(address)).unwrap();
        assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum at {address:#x}");
        table
    }

    fn word(table: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(table[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn the_tables_of_the_largest_machine_fit_and_are_linked_with_right_checksums() {
        let memory = allocate(ByteSize::mib(64)).unwrap();
        let rsdp = write(&memory, 8, layout::VIRTIO_SLOTS).unwrap();
        let xsdt_address: u64 = memory.read_obj(GuestAddress(rsdp.0 + 24)).unwrap();
        let xsdt = table(&memory, xsdt_address);
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 16));
        let (fadt, madt) = (table(&memory, word(&xsdt, 36)), table(&memory, word(&xsdt, 44)));
        assert_eq!((&fadt[..4], &madt[..4]), (&b"FACP"[..], &b"APIC"[..]));
        assert_eq!(madt.len(), 44 + 8 * 8 + 12);
        let dsdt = table(&memory, word(&fadt, 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        let nodes = dsdt.windows(8).filter(|window| window == b"LNRO0005").count();
        assert_eq!(nodes, layout::VIRTIO_SLOTS as usize);
        assert!(dsdt.windows(8).any(|window| window == b"VMGENCTR"));
    }
}
