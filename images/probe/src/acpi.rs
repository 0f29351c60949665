//! Walking the ACPI tables (ACPI 6.5 §5.2), as far as it takes to check them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A table with a header.
#[derive(Debug, Clone)]
pub struct Table {
    /// Four letters.
    pub signature: [u8; 4],
    /// Where it lies.
    pub address: u64,
    /// All of it.
    pub bytes: &'static [u8],
}

impl Table {
    /// Reads a table and checks its length and checksum.
    ///
    /// # Safety
    /// `address` must be memory that does not change.
    pub unsafe fn at(address: u64) -> Result<Self, String> {
        // SAFETY: the caller's promise; a header of 36 bytes is read, then as many as it says.
        let header: &[u8] = unsafe { core::slice::from_raw_parts(address as *const u8, 36) };
        let length = u32_at(header, 4) as usize;
        if !(36..=1 << 20).contains(&length) {
            return Err(format!("the table at {address:#x} has {length} bytes"));
        }
        // SAFETY: as above.
        let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, length) };
        let signature = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if sum(bytes) != 0 {
            return Err(format!("{} has a wrong checksum", String::from_utf8_lossy(&signature)));
        }
        Ok(Self { signature, address, bytes })
    }

    /// A little-endian number in the table.
    pub fn u32(&self, at: usize) -> u32 {
        u32_at(self.bytes, at)
    }

    /// A little-endian number in the table.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// All tables from the root pointer on, DSDT included, each one checked.
///
/// # Safety
/// `rsdp` must be where the boot loader says the root pointer lies.
pub unsafe fn tables(rsdp: u64) -> Result<Vec<Table>, String> {
    // SAFETY: the caller's promise; the structure has 36 bytes.
    let root: &[u8] = unsafe { core::slice::from_raw_parts(rsdp as *const u8, 36) };
    if &root[..8] != b"RSD PTR " {
        return Err(format!("no root pointer at {rsdp:#x}"));
    }
    if sum(&root[..20]) != 0 || sum(root) != 0 {
        return Err("the root pointer has a wrong checksum".into());
    }
    if root[15] < 2 {
        return Err(format!("the root pointer has revision {}", root[15]));
    }
    // SAFETY: the root pointer is intact, so it points to tables.
    unsafe {
        let xsdt = Table::at(u64::from(u32_at(root, 24)) | u64::from(u32_at(root, 28)) << 32)?;
        let mut tables = Vec::new();
        for entry in (36..xsdt.bytes.len()).step_by(8) {
            tables.push(Table::at(xsdt.u64(entry))?);
        }
        if let Some(fadt) = tables.iter().find(|table| &table.signature == b"FACP") {
            // X_DSDT, §5.2.9
            tables.push(Table::at(fadt.u64(140))?);
        }
        tables.push(xsdt);
        Ok(tables)
    }
}
