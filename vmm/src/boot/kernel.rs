//! Kernel, initial RAM disk, command line and `boot_params`, by the Linux x86 boot protocol
//! (Documentation/arch/x86/boot.rst), entered in 64-bit mode.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, ReadVolatile};

use crate::layout;
use crate::memory::GuestMemory;

const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS", little-endian.
const HEADER_MAGIC: u32 = 0x5372_6448;
/// A boot loader without a registered number.
const LOADER_OTHER: u8 = 0xff;
/// The 64-bit entry is this far into a bzImage's protected-mode part.
const ENTRY_64: u64 = 0x200;
/// `xloadflags`: there is a 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// The RAM disk ends below this unless a bzImage says otherwise.
const INITRD_MAX: u64 = 0x7fff_ffff;

/// Why the kernel could not be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("reading {what} {}: {source}", path.display())]
    Read {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel is of no known form.
    #[error("kernel {}: neither an x86-64 ELF (vmlinux) nor a bzImage", .0.display())]
    NoKernel(PathBuf),
    /// The kernel is known but cannot be loaded.
    #[error("kernel {}: {reason}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Kernel and RAM disk do not fit.
    #[error("initrd {} of {size} bytes does not fit above the kernel; give the machine more memory", path.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Its length.
        size: u64,
    },
    /// The machine's memory is too small for its own tables.
    #[error("writing boot parameters: {0}; give the machine more memory")]
    Memory(#[from] GuestMemoryError),
}

/// A file that is read again at each restart of the guest.
struct Source {
    path: PathBuf,
    file: File,
}

impl Source {
    fn open(what: &'static str, path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { what, path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// To be read from its beginning, by one reader at a time.
    fn rewound(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }
}

/// What is booted, open for as long as the machine lives.
pub struct Files {
    kernel: Source,
    initrd: Option<Source>,
}

impl Files {
    /// Opens the kernel and the initial RAM disk.
    pub fn open(kernel: &Path, initrd: Option<&Path>) -> Result<Self, Error> {
        let initrd = initrd.map(|path| Source::open("initrd", path)).transpose()?;
        Ok(Self { kernel: Source::open("kernel", kernel)?, initrd })
    }
}

/// Loads everything and returns the address of the first instruction.
pub fn load(memory: &GuestMemory, files: &Files, cmdline: &str, rsdp: GuestAddress) -> Result<GuestAddress, Error> {
    let mut params = boot_params::default();
    let image = load_kernel(memory, &files.kernel, &mut params)?;

    let header = &mut params.hdr;
    header.type_of_loader = LOADER_OTHER;
    header.cmd_line_ptr = layout::COMMAND_LINE as u32;
    header.cmdline_size = layout::COMMAND_LINE_SIZE as u32 - 1;
    if let Some(initrd) = &files.initrd {
        let (start, size) = load_initrd(memory, initrd, image.end, u64::from(header.initrd_addr_max))?;
        // Below 2 GiB, as `load_initrd` promises.
        header.ramdisk_image = start as u32;
        header.ramdisk_size = size as u32;
    }
    params.acpi_rsdp_addr = rsdp.0;
    write_memory_map(memory, &mut params);

    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    memory.write_slice(&text, GuestAddress(layout::COMMAND_LINE))?;
    memory.write_obj(params, GuestAddress(layout::BOOT_PARAMS))?;
    Ok(image.entry)
}

struct Image {
    entry: GuestAddress,
    end: u64,
}

fn load_kernel(memory: &GuestMemory, source: &Source, params: &mut boot_params) -> Result<Image, Error> {
    let path = &source.path;
    let read = |source| Error::Read { what: "kernel", path: path.to_owned(), source };
    let wrong = |reason: String| Error::Kernel { path: path.to_owned(), reason };
    let mut file = source.rewound().map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut magic = [0; 4];
    let mut header = [0; 4];
    // A file too short to have either is of no known form.
    let _ = file.read_exact_at(&mut magic, 0);
    let _ = file.read_exact_at(&mut header, 0x202);
    let start = Some(GuestAddress(layout::HIGH_MEMORY));
    if magic == *b"\x7fELF" {
        let mut machine = [0; 2];
        file.read_exact_at(&mut machine, 18).map_err(read)?;
        if machine != 62u16.to_le_bytes() {
            return Err(wrong("an ELF for another processor; an x86-64 one is needed".into()));
        }
        let loaded = Elf::load(memory, None, &mut file, start).map_err(|error| wrong(error.to_string()))?;
        params.hdr.boot_flag = BOOT_FLAG;
        params.hdr.header = HEADER_MAGIC;
        params.hdr.kernel_alignment = 0x100_0000;
        params.hdr.initrd_addr_max = INITRD_MAX as u32;
        Ok(Image { entry: loaded.kernel_load, end: loaded.kernel_end })
    } else if header == *b"HdrS" {
        let loaded = BzImage::load(memory, start, &mut file, start).map_err(|error| wrong(error.to_string()))?;
        let Some(setup) = loaded.setup_header else {
            return Err(Error::NoKernel(path.to_owned()));
        };
        if setup.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(wrong("a bzImage without a 64-bit entry; a 64-bit kernel is needed".into()));
        }
        params.hdr = setup;
        // The kernel unpacks itself to `pref_address`; what it needs there is `init_size`.
        let unpacked = setup.pref_address.saturating_add(u64::from(setup.init_size));
        let loaded_end = loaded.kernel_load.0.saturating_add(length);
        Ok(Image { entry: GuestAddress(loaded.kernel_load.0 + ENTRY_64), end: unpacked.max(loaded_end) })
    } else {
        Err(Error::NoKernel(path.to_owned()))
    }
}

/// Loads the RAM disk as high as it may lie, so that the kernel has room to grow.
fn load_initrd(memory: &GuestMemory, source: &Source, above: u64, limit: u64) -> Result<(u64, u64), Error> {
    let path = &source.path;
    let read = |source| Error::Read { what: "initrd", path: path.to_owned(), source };
    let mut file = source.rewound().map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let no_room = || Error::NoRoom { path: path.to_owned(), size };
    let low = memory.iter().next().map_or(0, GuestMemoryRegion::len);
    let end = low.min(limit.min(INITRD_MAX) + 1);
    let start = end.checked_sub(size).ok_or_else(no_room)? & !0xfff;
    if start < above {
        return Err(no_room());
    }
    let slice = memory.get_slice(GuestAddress(start), size as usize)?;
    file.read_exact_volatile(&mut slice.subslice(0, size as usize).map_err(GuestMemoryError::from)?)
        .map_err(|error| read(io::Error::other(error)))?;
    Ok((start, size))
}

fn write_memory_map(memory: &GuestMemory, params: &mut boot_params) {
    let mut table = params.e820_table;
    let mut count = 0;
    let mut add = |addr: u64, end: u64, kind: u32| {
        table[count] = boot_e820_entry { addr, size: end - addr, r#type: kind };
        count += 1;
    };
    add(0, layout::LOW_MEMORY_END, E820_RAM);
    add(layout::ACPI, layout::HIGH_MEMORY, E820_RESERVED);
    for region in memory.iter() {
        let start = region.start_addr().0;
        add(start.max(layout::HIGH_MEMORY), start + region.len(), E820_RAM);
    }
    params.e820_table = table;
    params.e820_entries = count as u8;
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use yunju_protocol::machine::ByteSize;

    use super::*;
    use crate::memory::allocate;

    fn try_kernel(bytes: &[u8]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let memory = allocate(ByteSize::mib(64)).unwrap();
        load(&memory, &Files::open(file.path(), None).unwrap(), "", GuestAddress(0)).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_no_kernel_is_named_as_such() {
        for bytes in [&b""[..], b"\x7fE", b"#!/bin/sh\n", &[0; 0x300]] {
            assert!(try_kernel(bytes).contains("neither an x86-64 ELF"), "{bytes:?}");
        }
        let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
        arm.resize(64, 0);
        arm[18] = 183;
        assert!(try_kernel(&arm).contains("another processor"));
        arm[18] = 62;
        assert!(try_kernel(&arm).starts_with("kernel "));
        let mut bz = vec![0xff; 0x400];
        bz[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(try_kernel(&bz).starts_with("kernel "));
    }

    #[test]
    fn the_memory_map_leaves_out_tables_and_the_hole() {
        let memory = allocate(ByteSize(4 << 30)).unwrap();
        let mut params = boot_params::default();
        write_memory_map(&memory, &mut params);
        let entries: Vec<_> = params.e820_table[..params.e820_entries as usize]
            .iter()
            .map(|entry| ({ entry.addr }, entry.addr + entry.size, { entry.r#type }))
            .collect();
        assert_eq!(entries, [(0, 0x9_fc00, 1), (0xe_0000, 0x10_0000, 2), (1 << 20, 3 << 30, 1), (4 << 30, 5 << 30, 1)]);
    }

    #[test]
    fn a_ram_disk_lies_at_the_top_and_is_refused_when_it_would_cover_the_kernel() {
        let memory = allocate(ByteSize::mib(64)).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let source = Source::open("initrd", file.path()).unwrap();
        let (start, size) = load_initrd(&memory, &source, 32 << 20, INITRD_MAX).unwrap();
        assert_eq!((start, size), ((64 << 20) - 8192, 5000));
        assert_eq!(memory.read_obj::<u8>(GuestAddress(start + 4999)).unwrap(), 7);
        let error = load_initrd(&memory, &source, 64 << 20, INITRD_MAX).unwrap_err();
        assert!(error.to_string().contains("more memory"), "{error}");
    }
}
