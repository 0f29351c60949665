//! Commands that make no sense. Each must be refused, and the screen must go on.

use guest::params::BootParams;
use guest::virtio::gpu::{B8G8R8X8, CONTROL, CURSOR, Gpu, Rect, command};
use guest::virtio::{Buffer, PATIENCE_MS};
use guest::{interrupt, memory, println};

use crate::{During, Outcome, ensure};

/// The first answer that is an error.
const ERRORS: u32 = 0x1200;
const MOST: u32 = u32::MAX;
/// A picture of 64×64 with memory.
const GOOD: u32 = 1;
/// A picture of 64×64 without memory.
const BARE: u32 = 2;
const UNKNOWN: u32 = 77;

use command::{
    GET_EDID, RESOURCE_ATTACH_BACKING as ATTACH, RESOURCE_CREATE_2D as CREATE, RESOURCE_DETACH_BACKING as DETACH,
    RESOURCE_FLUSH as FLUSH, RESOURCE_UNREF as UNREF, SET_SCANOUT as SCANOUT, TRANSFER_TO_HOST_2D as TRANSFER,
};

/// What to send, and the words after the header.
const REFUSED: &[(&str, u32, &[u32])] = &[
    ("an unknown command", 0x1ff, &[]),
    ("the command zero", 0, &[]),
    ("an answer as a command", command::OK_NODATA, &[]),
    ("a 3D command", 0x200, &[0; 40]),
    ("the EDID of screen 9", GET_EDID, &[9, 0]),
    ("a picture of no width", CREATE, &[10, B8G8R8X8, 0, 10]),
    ("a picture of no height", CREATE, &[10, B8G8R8X8, 10, 0]),
    ("the largest picture", CREATE, &[10, B8G8R8X8, MOST, MOST]),
    ("a picture whose size overflows to little", CREATE, &[10, B8G8R8X8, 0x4000_0001, 4]),
    ("a picture of 64 Ki columns and rows", CREATE, &[10, B8G8R8X8, 0x1_0000, 0x1_0000]),
    ("an unknown format", CREATE, &[10, 999, 10, 10]),
    ("the picture 0", CREATE, &[0, B8G8R8X8, 10, 10]),
    ("a picture that exists", CREATE, &[GOOD, B8G8R8X8, 10, 10]),
    ("half a command", CREATE, &[10]),
    ("memory for an unknown picture", ATTACH, &[UNKNOWN, 1, 0x10_0000, 0, 4096, 0]),
    ("memory for a picture that has some", ATTACH, &[GOOD, 1, 0x10_0000, 0, 4096, 0]),
    ("more pieces of memory than are told", ATTACH, &[BARE, 100, 0x10_0000, 0, 4096, 0]),
    ("the greatest number of pieces", ATTACH, &[BARE, MOST, 0x10_0000, 0, 4096, 0]),
    ("to take memory from an unknown picture", DETACH, &[UNKNOWN, 0]),
    ("to forget an unknown picture", UNREF, &[UNKNOWN, 0]),
    ("to show an unknown picture", SCANOUT, &[0, 0, 64, 64, 0, UNKNOWN]),
    ("to show on screen 9", SCANOUT, &[0, 0, 64, 64, 9, GOOD]),
    ("to show more than the picture", SCANOUT, &[0, 0, 65, 64, 0, GOOD]),
    ("to show behind the picture", SCANOUT, &[64, 64, 1, 1, 0, GOOD]),
    ("to show where the sum overflows", SCANOUT, &[MOST, 0, 2, 64, 0, GOOD]),
    ("to show the most", SCANOUT, &[MOST, MOST, MOST, MOST, 0, GOOD]),
    ("to show no pixels", SCANOUT, &[0, 0, 0, 0, 0, GOOD]),
    ("to copy into an unknown picture", TRANSFER, &[0, 0, 1, 1, 0, 0, UNKNOWN, 0]),
    ("to copy into a picture without memory", TRANSFER, &[0, 0, 64, 64, 0, 0, BARE, 0]),
    ("to copy more than the picture", TRANSFER, &[1, 0, 64, 64, 0, 0, GOOD, 0]),
    ("to copy where the sum overflows", TRANSFER, &[MOST, MOST, 2, 2, 0, 0, GOOD, 0]),
    ("to copy the most", TRANSFER, &[0, 0, MOST, MOST, 0, 0, GOOD, 0]),
    ("to flush an unknown picture", FLUSH, &[0, 0, 1, 1, UNKNOWN, 0]),
    ("to flush more than the picture", FLUSH, &[0, 1, 64, 64, GOOD, 0]),
    ("to flush where the sum overflows", FLUSH, &[2, 2, MOST, MOST, GOOD, 0]),
];

/// What may be refused or not, but never more than that.
const ODD: &[(&str, u32, &[u32])] = &[
    ("a copy from behind the memory", TRANSFER, &[0, 0, 64, 64, 16, 0, GOOD, 0]),
    ("a copy from the greatest offset", TRANSFER, &[0, 0, 64, 64, MOST, MOST, GOOD, 0]),
    ("memory beyond memory", ATTACH, &[BARE, 1, 0xffff_f000, MOST, 64 * 64 * 4, 0]),
    ("a copy from it", TRANSFER, &[0, 0, 64, 64, 0, 0, BARE, 0]),
    ("to take it away", DETACH, &[BARE, 0]),
    ("memory in the devices' registers", ATTACH, &[BARE, 1, 0xd000_0000, 0, 64 * 64 * 4, 0]),
    ("a copy from there", TRANSFER, &[0, 0, 64, 64, 0, 0, BARE, 0]),
    ("to take it away", DETACH, &[BARE, 0]),
    ("memory too short", ATTACH, &[BARE, 1, 0x10_0000, 0, 100, 0]),
    ("a copy of more than it", TRANSFER, &[0, 0, 64, 64, 0, 0, BARE, 0]),
    ("to take it away", DETACH, &[BARE, 0]),
    ("no memory", ATTACH, &[BARE, 0]),
    ("to copy no pixels", TRANSFER, &[0, 0, 0, 0, 0, 0, GOOD, 0]),
    ("to flush no pixels", FLUSH, &[0, 0, 0, 0, GOOD, 0]),
    ("to forget the picture that is shown", UNREF, &[GOOD, 0]),
];

/// Sends each to a fresh gpu, then does what a desktop does.
pub fn commands(_: &BootParams) -> Outcome {
    let pixels = alloc::vec::Vec::leak(alloc::vec![0x0011_2233_u32; 64 * 64]);
    let whole = Rect { x: 0, y: 0, width: 64, height: 64 };
    let mut gpu = fresh(pixels)?;
    for (name, command, words) in REFUSED {
        let answer = send(&mut gpu, CONTROL, *command, words).during(name)?;
        ensure!(answer >= ERRORS, "{name}: the answer is {answer:#x}");
        gpu.show(GOOD, whole, 64).during("a good command").during(name)?;
    }
    for (name, command, words) in ODD {
        send(&mut gpu, CONTROL, *command, words).during(name)?;
    }
    gpu = fresh(pixels)?;
    for (name, request) in [
        ("half a header", Buffer::read(&[0_u8; 11])),
        ("one byte", Buffer::read(&[0_u8; 1])),
        ("a command of 64 KiB", Buffer::read(memory::zeroed(65536, 64))),
    ] {
        gpu.exchange(CONTROL, request).during(name)?;
    }
    cursors(&mut gpu)?;
    many(&mut gpu)?;
    fresh(pixels)?.show(GOOD, whole, 64).during("at the end")?;
    println!("{} commands", REFUSED.len() + ODD.len());
    Ok(())
}

/// A gpu that shows a good picture, and has one without memory.
fn fresh(pixels: &[u32]) -> Result<Gpu, crate::Failure> {
    let whole = Rect { x: 0, y: 0, width: 64, height: 64 };
    let mut gpu = Gpu::open().during("gpu")?;
    gpu.create(GOOD, B8G8R8X8, 64, 64).during("create")?;
    gpu.attach(GOOD, pixels).during("attach")?;
    gpu.create(BARE, B8G8R8X8, 64, 64).during("create the other")?;
    gpu.scan_out(whole, GOOD).during("scan out")?;
    Ok(gpu)
}

fn send(gpu: &mut Gpu, queue: u16, command: u32, words: &[u32]) -> Result<u32, guest::virtio::Error> {
    let mut bytes = alloc::vec![0_u8; 24];
    bytes[..4].copy_from_slice(&command.to_le_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    Ok(gpu.exchange(queue, Buffer::read(&bytes[..]))?.0)
}

/// Pointers of unknown pictures, of wrong sizes, at places off the screen; and commands on the wrong queue.
fn cursors(gpu: &mut Gpu) -> Outcome {
    let update = command::UPDATE_CURSOR;
    for (name, queue, words) in [
        ("a pointer of an unknown picture", CURSOR, [0, 1, 1, 0, UNKNOWN, 0, 0, 0]),
        ("a pointer on screen 9", CURSOR, [9, 1, 1, 0, GOOD, 0, 0, 0]),
        ("a pointer that points outside itself", CURSOR, [0, 1, 1, 0, GOOD, MOST, MOST, 0]),
        ("a pointer far off the screen", CURSOR, [0, MOST, MOST, 0, GOOD, 0, 0, 0]),
        ("a pointer on the control queue", CONTROL, [0, 1, 1, 0, GOOD, 0, 0, 0]),
    ] {
        send(gpu, queue, update, &words).during(name)?;
    }
    gpu.create(20, B8G8R8X8, 3, 500).during("create a strange pointer")?;
    send(gpu, CURSOR, update, &[0, 1, 1, 0, 20, 0, 0, 0]).during("a pointer of a strange size")?;
    send(gpu, CURSOR, CREATE, &[21, B8G8R8X8, 64, 64]).during("a command on the pointer's queue")?;
    Ok(())
}

/// Pictures until the gpu has no room for more; then it still shows the good one.
fn many(gpu: &mut Gpu) -> Outcome {
    let mut made = 0;
    for resource in 1000..3000 {
        if gpu.create(resource, B8G8R8X8, 4096, 4096).is_err() {
            break;
        }
        made += 1;
    }
    ensure!(made < 2000, "the gpu keeps 2000 pictures of 64 MiB");
    println!("{made} pictures of 64 MiB");
    let patient =
        interrupt::wait_for(PATIENCE_MS, || gpu.show(GOOD, Rect { x: 0, y: 0, width: 64, height: 64 }, 64).ok());
    ensure!(patient.is_some(), "the good picture is not shown any more");
    Ok(())
}
