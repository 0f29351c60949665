//! One guest, many tests: `test=NAME` on the command line selects. See README.md for the names.
#![no_std]
#![no_main]

extern crate alloc;

mod balloon;
mod basics;
mod block;
mod exits;
mod firmware;
mod gpu;
mod hostile;
mod input;
mod interrupts;
mod life;
mod net;
mod rng;
mod serial;
mod sound;
mod vsock;

use alloc::string::String;

use guest::params::BootParams;
use guest::{boot_params, entry, port, println, virtio};

entry!(main);

/// What was expected and did not happen.
pub struct Failure(String);

/// The outcome of a test.
pub type Outcome = Result<(), Failure>;

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<virtio::Error> for Failure {
    fn from(error: virtio::Error) -> Self {
        Self(alloc::format!("{error}"))
    }
}

/// Fails the test with a text unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err($crate::Failure::from(::alloc::format!($($text)*)));
        }
    };
}

/// Says which test and which of its steps went wrong.
pub trait During<T> {
    /// Puts `step` before the failure's text.
    fn during(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> During<T> for Result<T, E> {
    fn during(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure(alloc::format!("{step}: {}", error.into().0)))
    }
}

type Test = fn(&BootParams) -> Outcome;

const TESTS: &[(&str, Test)] = &[
    ("hello", basics::hello),
    ("memory", basics::memory),
    ("spin", basics::spin),
    ("exits", exits::alphabet),
    ("poweroff", basics::power_off),
    ("reset", basics::reset),
    ("reset-loop", basics::reset_loop),
    ("triplefault", basics::triple_fault),
    ("power-button", basics::power_button),
    ("smp", basics::smp),
    ("life", life::live),
    ("echo", serial::echo),
    ("rtc", firmware::clock),
    ("acpi", firmware::acpi),
    ("irq", interrupts::ping_pong),
    ("blk", block::read_write),
    ("blk-ro", block::read_only),
    ("blk-flush", block::write_and_flush),
    ("net", net::echo),
    ("rng", rng::differs),
    ("gpu", gpu::pictures),
    ("input", input::events),
    ("vsock", vsock::both_ways),
    ("balloon", balloon::give_back),
    ("sound", sound::both_ways),
    ("hostile", hostile::queues),
    ("hostile-gpu", hostile::gpu::commands),
    ("hostile-ports", hostile::ports::everything),
];

fn main() -> ! {
    let params = boot_params();
    let name = params.option("test").unwrap_or("hello");
    println!("PROBE START {name}");
    let outcome = match TESTS.iter().find(|(known, _)| *known == name) {
        Some((_, test)) => test(&params),
        None => Err(Failure(alloc::format!("there is no test {name}"))),
    };
    match outcome {
        Ok(()) => println!("PROBE OK"),
        Err(Failure(text)) => println!("PROBE FAIL {name}: {text}"),
    }
    port::power_off()
}
