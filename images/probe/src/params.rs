//! What the boot loader tells a Linux kernel (Documentation/arch/x86/zero-page.rst).

use core::ffi::CStr;

const RSDP: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const COMMAND_LINE: usize = 0x228;
const E820_TABLE: usize = 0x2d0;

/// `boot_params`, the zero page.
#[derive(Debug, Clone, Copy)]
pub struct BootParams(usize);

/// A stretch of the physical address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// 1 is memory to use.
    pub kind: u32,
}

impl BootParams {
    /// # Safety
    /// A zero page must lie at `address`, for ever.
    pub unsafe fn at(address: usize) -> Self {
        Self(address)
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: `at` was promised a zero page, which is 4 KiB, and offsets here are within it.
        unsafe { ((self.0 + offset) as *const T).read_unaligned() }
    }

    /// Whether the two magic numbers of the protocol are there.
    pub fn is_valid(&self) -> bool {
        self.read::<u16>(BOOT_FLAG) == 0xaa55 && self.read::<[u8; 4]>(HEADER_MAGIC) == *b"HdrS"
    }

    /// The command line; empty if there is none.
    pub fn command_line(&self) -> &'static str {
        let address = self.read::<u32>(COMMAND_LINE) as usize;
        if address == 0 {
            return "";
        }
        // SAFETY: the protocol puts a terminated string there.
        unsafe { CStr::from_ptr(address as *const _) }.to_str().unwrap_or("")
    }

    /// The value of `name=value` on the command line.
    pub fn option(&self, name: &str) -> Option<&'static str> {
        let words = self.command_line().split_ascii_whitespace();
        words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The memory map.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        (0..usize::from(self.read::<u8>(E820_ENTRIES)).min(128)).map(|entry| {
            let at = E820_TABLE + entry * 20;
            Region { start: self.read(at), size: self.read(at + 8), kind: self.read(at + 16) }
        })
    }

    /// Where the ACPI root pointer lies; 0 if not told.
    pub fn rsdp(&self) -> u64 {
        self.read(RSDP)
    }
}
