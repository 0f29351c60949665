//! The guest's part of the benchmark of disks: reads, writes and flushes past the guest's own cache, and says how long each
//! took. `block_work DEVICE ROUNDS`; it prints `END name operations nanoseconds` for each work, and `DONE`.

use std::alloc::{Layout, alloc_zeroed};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;
use std::{env, thread};

const O_DIRECT: i32 = 0o40000;
/// How much of the disk is used, all of which the host has in its page cache.
const SPAN: u64 = 64 << 20;

struct Work {
    name: &'static str,
    block: usize,
    operations: u64,
    /// Requests in flight: each thread has one.
    threads: u64,
    random: bool,
    write: bool,
    flush: bool,
}

const WORK: [Work; 5] = [
    Work { name: "rand4k_read", block: 4096, operations: 4800, threads: 8, random: true, write: false, flush: false },
    Work { name: "rand4k_write", block: 4096, operations: 4800, threads: 8, random: true, write: true, flush: false },
    Work { name: "seq1m_read", block: 1 << 20, operations: 128, threads: 1, random: false, write: false, flush: false },
    Work { name: "seq1m_write", block: 1 << 20, operations: 128, threads: 1, random: false, write: true, flush: false },
    Work { name: "flush", block: 4096, operations: 300, threads: 1, random: true, write: true, flush: true },
];

/// One thread's share of the operations.
fn run(work: &Work, disk: &File, thread: u64) {
    let layout = Layout::from_size_align(work.block, 4096).expect("a power of two");
    // SAFETY: the layout has a size; the memory is never freed.
    let buffer = unsafe { std::slice::from_raw_parts_mut(alloc_zeroed(layout), work.block) };
    buffer.fill(thread as u8 + 1);
    let blocks = SPAN / work.block as u64;
    let mut random = thread + 1;
    for operation in 0..work.operations / work.threads {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = if work.random { (random >> 33) % blocks } else { operation % blocks } * work.block as u64;
        match work.write {
            true => disk.write_all_at(buffer, at).expect("a write"),
            false => disk.read_exact_at(buffer, at).expect("a read"),
        }
        if work.flush {
            disk.sync_data().expect("a flush");
        }
    }
}

fn main() {
    let path = env::args().nth(1).expect("a device");
    let rounds: u32 = env::args().nth(2).and_then(|text| text.parse().ok()).expect("a number of rounds");
    let disk = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(path).expect("the disk");
    for _ in 0..rounds {
        for work in &WORK {
            let start = Instant::now();
            thread::scope(|scope| {
                for thread in 0..work.threads {
                    scope.spawn({
                        let disk = &disk;
                        move || run(work, disk, thread)
                    });
                }
            });
            println!("END {} {} {}", work.name, work.operations, start.elapsed().as_nanos());
            disk.sync_data().expect("a flush");
        }
    }
    println!("DONE");
}
