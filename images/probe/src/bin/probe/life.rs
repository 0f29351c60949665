//! A life that may be stopped anywhere and go on elsewhere: at each step all that a processor, a device or memory
//! holds is compared with what it must be.

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::clock::Clock;
use guest::params::BootParams;
use guest::serial::Serial;
use guest::virtio::block::{Disk, SECTOR, request};
use guest::virtio::net::Net;
use guest::virtio::rng::Rng;
use guest::virtio::{Buffer, Error, PATIENCE_MS};
use guest::{interrupt, memory, port, println, smp};

use crate::{During, Outcome, ensure};

const GENERATION: usize = 0xf_0000;
const GENERATION_LINE: u32 = 22;
const PAGE: usize = 4096;
const IN_FLIGHT: usize = 8;
/// About 100 µs on a slow day.
const SPINS: u64 = 2_000;

/// Times that a further processor has found its registers to be right, and whether one has not.
static BEATS: AtomicU64 = AtomicU64::new(0);
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Steps until it is told to stop. `hold=KiB` of memory are looked at in each step, `fill=MiB` are only written to,
/// `cpus=N`, `rest=MS` between steps; with `chatter=1` it only prints dots, without a pause. A second disk, if there is one, is written to. On the serial port: `s` prints a status, `d` writes to all that was filled, `r` restarts, `q` ends.
pub fn live(params: &BootParams) -> Outcome {
    let number = |name, default| params.option(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let mut held = Held::new(number("hold", 256) << 10);
    let filled = memory::zeroed(number("fill", 0) << 20, PAGE);
    dirty(filled, 1);
    while number("chatter", 0) == 1 {
        Serial.send(b".");
    }
    let (cpus, rest) = (number("cpus", 1), number("rest", 1) as u32);
    ensure!(smp::start(cpus, beat) == cpus, "not all of {cpus} processors run");
    interrupt::route_line(GENERATION_LINE, 0);
    let clock = Clock::start();
    let mut reads = Disk::open(0).ok().map(Reads::start);
    let mut diary = Disk::open(1).ok();
    let mut net = Net::open().ok();
    let mut rng = Rng::open().during("rng")?;
    let (mut time, mut beats) = (0, 0);
    for step in 1_u64.. {
        println!("STEP {step}");
        ensure!(registers_keep(step) && !BROKEN.load(Ordering::Relaxed), "a register changed");
        held.step(step)?;
        let before = core::mem::replace(&mut time, clock.now());
        ensure!(before <= time, "time went back from {before} to {time}");
        if let Some(reads) = &mut reads {
            reads.step()?;
        }
        if let Some(diary) = &mut diary {
            note(diary, step)?;
        }
        if let Some(net) = &mut net {
            send(net, step)?;
        }
        let mut random = [0; 16];
        ensure!(rng.fill(&mut random).during("rng")? == 16, "entropy came in parts");
        if cpus > 1 {
            let moved = (0..PATIENCE_MS).any(|_| {
                interrupt::sleep(1);
                BEATS.load(Ordering::Relaxed) != beats
            });
            ensure!(moved, "another processor stands still");
            beats = BEATS.load(Ordering::Relaxed);
        }
        interrupt::sleep(rest);
        match Serial.receive() {
            Some(b's') => println!(
                "STATUS step {step} hash {:x} clock {} generation {:x} renewed {}",
                held.hash,
                clock.now(),
                generation(),
                interrupt::line_count(GENERATION_LINE)
            ),
            Some(b'd') => {
                dirty(filled, step as u8 | 1);
                println!("DIRTIED {}", filled.len());
            }
            Some(b'r') => port::write(port::RESET, 1),
            Some(b'q') => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// Writes to every page.
fn dirty(filled: &mut [u8], value: u8) {
    filled.iter_mut().step_by(PAGE).for_each(|byte| *byte = value);
}

fn generation() -> u128 {
    // SAFETY: a reserved page of memory, which this program does not use; aligned.
    unsafe { (GENERATION as *const u128).read_volatile() }
}

/// A further processor's life.
fn beat(_: usize) {
    loop {
        let beats = BEATS.fetch_add(1, Ordering::Relaxed);
        if !registers_keep(beats) {
            BROKEN.store(true, Ordering::Relaxed);
        }
    }
}

/// Fills general and vector registers, lets time pass, and looks whether they are the same.
fn registers_keep(seed: u64) -> bool {
    let mut differs: u64;
    // SAFETY: changes only registers that it declares.
    unsafe {
        asm!(
            ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
            "lea r\\n, [rdi + \\n]",
            "movq xmm\\n, r\\n",
            ".endr",
            ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
            "lea rdx, [rdi + \\n]",
            "movq xmm\\n, rdx",
            "punpcklqdq xmm\\n, xmm\\n",
            ".endr",
            "2: pause",
            "dec rcx",
            "jnz 2b",
            ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
            "lea rdx, [rdi + \\n]",
            "xor r\\n, rdx",
            "or rax, r\\n",
            "movq rsi, xmm\\n",
            "xor rsi, rdx",
            "or rax, rsi",
            ".endr",
            ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
            "lea rdx, [rdi + \\n]",
            "movhlps xmm8, xmm\\n",
            "movq rsi, xmm8",
            "xor rsi, rdx",
            "or rax, rsi",
            "movq rsi, xmm\\n",
            "xor rsi, rdx",
            "or rax, rsi",
            ".endr",
            inout("rax") 0_u64 => differs, inout("rcx") SPINS => _, in("rdi") seed, out("rdx") _, out("rsi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
            out("xmm14") _, out("xmm15") _,
            options(nomem, nostack)
        );
    }
    differs == 0
}

/// Memory that changes at every step, and what all of it comes to.
struct Held {
    words: Vec<u64>,
    hash: u64,
}

fn mix(at: usize, value: u64) -> u64 {
    (value ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
}

impl Held {
    fn new(bytes: usize) -> Self {
        let words: Vec<u64> = (0..bytes as u64 / 8).map(|at| at * at).collect();
        let hash = sum(&words);
        Self { words, hash }
    }

    fn step(&mut self, step: u64) -> Result<(), crate::Failure> {
        for turn in 0..3 {
            let at = mix(turn, step) as usize % self.words.len();
            let new = mix(at, step);
            let old = core::mem::replace(&mut self.words[at], new);
            self.hash = self.hash.wrapping_sub(mix(at, old)).wrapping_add(mix(at, new));
        }
        let found = sum(core::hint::black_box(&self.words));
        ensure!(found == self.hash, "memory comes to {found:x} instead of {:x}", self.hash);
        Ok(())
    }
}

fn sum(words: &[u64]) -> u64 {
    words.iter().enumerate().fold(0, |sum: u64, (at, word)| sum.wrapping_add(mix(at, *word)))
}

#[repr(C)]
struct Read {
    header: [u64; 2],
    data: [u64; SECTOR / 8],
    status: u8,
}

/// Reads that are always on their way. Sector n of the disk holds nothing but the number n.
struct Reads {
    disk: Disk,
    sectors: u64,
    next: u64,
    reads: &'static mut [Read],
    heads: [u16; IN_FLIGHT],
}

impl Reads {
    fn start(disk: Disk) -> Self {
        let memory = memory::zeroed(IN_FLIGHT * size_of::<Read>(), 16);
        // SAFETY: zeroed bytes of that size and alignment are so many reads.
        let reads = unsafe { core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<Read>(), IN_FLIGHT) };
        let sectors = disk.sectors();
        let mut all = Self { disk, sectors, next: 0, reads, heads: [0; IN_FLIGHT] };
        (0..IN_FLIGHT).for_each(|at| all.give(at));
        all
    }

    fn give(&mut self, at: usize) {
        self.next = (self.next + 7) % self.sectors;
        let read = &mut self.reads[at];
        (read.header, read.status) = ([u64::from(request::READ), self.next], 0xff);
        let chain = [Buffer::read(&read.header), Buffer::write(&mut read.data), Buffer::write(&mut read.status)];
        self.heads[at] = self.disk.device.give(0, &chain);
    }

    /// Waits for the next one and starts another.
    fn step(&mut self) -> Result<(), crate::Failure> {
        let Some((head, _)) = interrupt::wait_for(PATIENCE_MS, || self.disk.device.take(0)) else {
            return Err(Error::Silent(0)).during("disk");
        };
        let Some(at) = self.heads.iter().position(|known| *known == head) else {
            return Err(alloc::format!("chain {head} came back, which was not given").into());
        };
        let read = core::hint::black_box(&mut self.reads[at]);
        let sector = read.header[1];
        ensure!(read.status == 0, "reading sector {sector}: status {}", read.status);
        ensure!(read.data.iter().all(|word| *word == sector), "sector {sector} came back as {:x}", read.data[0]);
        self.give(at);
        Ok(())
    }
}

/// Finds what it wrote at the step before, on a disk that must be the one of that time, and writes down this one.
fn note(diary: &mut Disk, step: u64) -> Outcome {
    let sectors = diary.sectors();
    let mut sector = [0; SECTOR / 8];
    let pieces = |sector: &mut [u64; SECTOR / 8]| [Buffer::write(sector)];
    if step > 1 {
        diary.request(request::READ, (step - 1) % sectors, &pieces(&mut sector)).during("reading the diary")?;
        let found = core::hint::black_box(&mut sector)[0];
        ensure!(found == step - 1, "the diary's last step is {found} instead of {}", step - 1);
    }
    sector.fill(step);
    diary.request(request::WRITE, step % sectors, &[Buffer::read(&sector)]).during("writing the diary")?;
    if step.is_multiple_of(4) { diary.flush().during("flushing the diary") } else { Ok(()) }
}

/// Tells everyone which step this is.
fn send(net: &mut Net, step: u64) -> Outcome {
    while net.receive().is_some() {}
    let mut frame = [0_u8; 60];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..22].copy_from_slice(&step.to_le_bytes());
    net.send(&frame).during("net")
}
