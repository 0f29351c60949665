//! Guest addresses and interrupt lines, each with its reason.

/// Memory below 4 GiB ends here; what is between it and 4 GiB belongs to devices.
pub const HOLE_START: u64 = 3 << 30;
/// The rest of memory starts here.
pub const HOLE_END: u64 = 4 << 30;

/// Global descriptor table, used until the kernel loads its own.
pub const GDT: u64 = 0x500;
/// The kernel's `boot_params` ("zero page"), 4 KiB.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Page tables for the first 4 GiB: PML4, PDPT, four PDs of 2 MiB pages. 24 KiB.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line, 2 KiB: the length that Linux keeps (`COMMAND_LINE_SIZE`).
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Most bytes of the command line with its terminating zero.
pub const COMMAND_LINE_SIZE: usize = 2048;
/// ACPI tables, in what a PC's BIOS area is: the kernel must not use it as memory.
pub const ACPI: u64 = 0xe_0000;
/// End of the ACPI tables' space; up to 1 MiB all is reserved.
pub const ACPI_END: u64 = 0xf_0000;
/// The page with the generation id (see [`crate::snapshot::generation`]), in the same reserved memory.
pub const GENERATION: u64 = 0xf_0000;
/// Where a PC's firmware starts after a reset, the last 16 bytes below 1 MiB.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Conventional memory ends here; the kernel leaves what is between it and 1 MiB alone.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Kernels are loaded from here on.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Registers of the first virtio device.
pub const VIRTIO: u64 = 0xd000_0000;
/// From one virtio device to the next: a page, so that each can be mapped alone.
pub const VIRTIO_SLOT_SIZE: u64 = 0x1000;
/// Most virtio devices: one interrupt line each of the IOAPIC's 24.
pub const VIRTIO_SLOTS: u32 = 16;

/// In-kernel interrupt controllers, where PCs have them.
pub const IOAPIC: u32 = 0xfec0_0000;
/// See [`IOAPIC`].
pub const LAPIC: u32 = 0xfee0_0000;
/// One page for KVM's identity map and three for its task state segment, needed on Intel processors;
/// just below the local APIC's, outside memory.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// See [`KVM_IDENTITY_MAP`].
pub const KVM_TSS: u64 = 0xfeff_d000;

/// First serial port, where PCs have it.
pub const SERIAL_PORT: u64 = 0x3f8;
/// See [`SERIAL_PORT`].
pub const SERIAL_GSI: u32 = 4;
/// CMOS index and data ports.
pub const CMOS_PORT: u64 = 0x70;
/// Keyboard controller, of which only the reset line exists.
pub const I8042_PORT: u64 = 0x60;
/// Sleep control, sleep status and reset registers (see [`crate::devices::power`]).
pub const POWER_PORT: u64 = 0x600;
/// The power button's line. Not 9, which a PC's kernel expects to be level-triggered.
pub const POWER_BUTTON_GSI: u32 = 5;
/// Line of the first virtio device; the n-th has this plus n.
pub const VIRTIO_GSI: u32 = 6;
/// Tells the guest of a new generation id: the first line behind the virtio devices'.
pub const GENERATION_GSI: u32 = 22;
