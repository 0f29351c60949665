//! A small runtime for freestanding guests, and drivers for the devices of a Yunju machine.
//!
//! A guest starts like a Linux kernel ([`params`]), runs in ring 3 of long mode on its own page
//! tables and may there use all memory and all ports; `boot.s` has the few instructions of ring 0.
//! See README.md.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod font;
pub mod keys;

// The rest needs a bare machine; `cargo test --lib` runs on the host.
#[cfg(not(test))]
pub mod acpi;
#[cfg(not(test))]
mod boot;
#[cfg(not(test))]
pub mod clock;
#[cfg(not(test))]
pub mod cpu;
#[cfg(not(test))]
pub mod interrupt;
#[cfg(not(test))]
pub mod memory;
#[cfg(not(test))]
pub mod params;
#[cfg(not(test))]
pub mod port;
#[cfg(not(test))]
pub mod serial;
#[cfg(not(test))]
pub mod smp;
#[cfg(not(test))]
pub mod virtio;

#[cfg(not(test))]
pub use boot::boot_params;

/// Names the function, `fn() -> !`, in which a guest starts.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() -> ! {
            $main()
        }
    };
}
