//! The screen: pictures, parts of pictures, flips, the pointer, a new size.

use guest::params::BootParams;
use guest::virtio::gpu::{B8G8R8A8, B8G8R8X8, EDID, Gpu, Rect};
use guest::{interrupt, memory, println};

use crate::serial::{listen, wait_for_byte};
use crate::{During, Outcome, ensure};

/// The rectangle that is painted over in picture 1.
const PART: Rect = Rect { x: 100, y: 50, width: 64, height: 32 };
const PART_COLOUR: u32 = 0x00ff_8000;
const CURSOR: u32 = 9;
const CURSOR_SIDE: u32 = 64;
const RESIZE_MS: u32 = 10_000;

/// Says what is shown and waits for the host to have looked: it sends one byte.
fn show(what: &str) {
    println!("SHOWN {what}");
    wait_for_byte();
}

/// A picture of which no two pixels nearby are alike: `tag << 16 | (y & 255) << 8 | x & 255`.
fn paint(pixels: &mut [u32], width: u32, tag: u32) {
    for (y, row) in (0..).zip(pixels.chunks_exact_mut(width as usize)) {
        for (x, pixel) in (0_u32..).zip(row) {
            *pixel = tag << 16 | (y & 255) << 8 | (x & 255);
        }
    }
}

fn picture(gpu: &mut Gpu, resource: u32, width: u32, height: u32) -> Result<&'static mut [u32], crate::Failure> {
    let bytes = memory::zeroed((width * height * 4) as usize, 4096);
    // SAFETY: zeroed, aligned to a page, and as long as that many pixels.
    let pixels =
        unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<u32>(), (width * height) as usize) };
    paint(pixels, width, resource);
    gpu.create(resource, B8G8R8X8, width, height).during("create")?;
    // Two pieces, the first of no whole number of rows.
    let first = 4096 * 3;
    let start = pixels.as_ptr() as u64;
    let length = (width * height * 4) - first;
    gpu.attach_pieces(resource, &[(start, first), (start + u64::from(first), length)]).during("attach")?;
    gpu.transfer(resource, Rect { x: 0, y: 0, width, height }, 0).during("transfer")?;
    Ok(pixels)
}

/// Goes through what a desktop does, and stops at each picture for the host to look.
pub fn pictures(_: &BootParams) -> Outcome {
    listen();
    let mut gpu = Gpu::open().during("gpu")?;
    ensure!(gpu.device.features & EDID != 0, "EDID is not offered");
    let Some((width, height)) = gpu.preferred_size().during("display info")? else {
        return Err(alloc::string::String::from("the screen is off").into());
    };
    edid(&mut gpu, width, height)?;
    println!("SIZE {width}x{height}");
    let whole = Rect { x: 0, y: 0, width, height };

    let first = picture(&mut gpu, 1, width, height)?;
    picture(&mut gpu, 2, width, height)?;
    gpu.scan_out(whole, 1).during("scan out")?;
    gpu.flush(1, whole).during("flush")?;
    show("1");

    for y in PART.y..PART.y + PART.height {
        first[(y * width + PART.x) as usize..][..PART.width as usize].fill(PART_COLOUR);
    }
    gpu.transfer(1, PART, u64::from(PART.y * width + PART.x) * 4).during("transfer a part")?;
    gpu.flush(1, PART).during("flush a part")?;
    show("part");

    gpu.scan_out(whole, 2).during("flip")?;
    gpu.flush(2, whole).during("flush the other")?;
    show("2");
    gpu.scan_out(whole, 1).during("flip back")?;
    gpu.flush(1, whole).during("flush the first")?;
    show("1 again");

    pointer(&mut gpu)?;

    println!("RESIZE");
    let asked = interrupt::wait_for(RESIZE_MS, || gpu.take_display_event().then_some(()));
    ensure!(asked.is_some(), "nobody asked for another size in {RESIZE_MS} ms");
    let Some((width, height)) = gpu.preferred_size().during("display info")? else {
        return Err(alloc::string::String::from("the screen went off").into());
    };
    edid(&mut gpu, width, height)?;
    println!("SIZE {width}x{height}");
    let whole = Rect { x: 0, y: 0, width, height };
    picture(&mut gpu, 3, width, height)?;
    gpu.scan_out(whole, 3).during("scan out the new size")?;
    gpu.flush(3, whole).during("flush the new size")?;
    gpu.unref(1).during("unref")?;
    gpu.unref(2).during("unref")?;
    show("3");

    let corner = Rect { x: 16, y: 8, width: width / 2, height: height / 2 };
    gpu.scan_out(corner, 3).during("scan out a part")?;
    gpu.flush(3, corner).during("flush the part")?;
    show("corner");
    gpu.scan_out(Rect::default(), 0).during("scan out nothing")?;
    show("nothing");
    Ok(())
}

/// The monitor's description has its sum right and prefers the size that the display info has.
fn edid(gpu: &mut Gpu, width: u32, height: u32) -> Outcome {
    let edid = gpu.edid().during("edid")?;
    ensure!(edid.len() >= 128, "the EDID has {} bytes", edid.len());
    ensure!(edid.starts_with(&[0, 255, 255, 255, 255, 255, 255, 0]), "the EDID starts with {:02x?}", &edid[..8]);
    ensure!(edid[..128].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0, "the EDID's sum is wrong");
    let detailed = &edid[54..72];
    let active = |low: usize, high: usize| u32::from(detailed[low]) | u32::from(detailed[high] >> 4) << 8;
    let size = (active(2, 4), active(5, 7));
    ensure!(size == (width, height), "the EDID prefers {size:?}");
    Ok(())
}

/// The pointer's picture: `x * 4 << 16 | y * 4 << 8 | 255`, opaque in the left half, else transparent.
fn pointer(gpu: &mut Gpu) -> Outcome {
    let pixels = alloc::vec::Vec::leak(alloc::vec![0; (CURSOR_SIDE * CURSOR_SIDE) as usize]);
    for (y, row) in (0..).zip(pixels.chunks_exact_mut(CURSOR_SIDE as usize)) {
        for (x, pixel) in (0..CURSOR_SIDE / 2).zip(row) {
            *pixel = 0xff00_00ff | (x * 4) << 16 | (y * 4) << 8;
        }
    }
    gpu.create(CURSOR, B8G8R8A8, CURSOR_SIDE, CURSOR_SIDE).during("create the pointer")?;
    gpu.attach(CURSOR, pixels).during("attach the pointer")?;
    let whole = Rect { x: 0, y: 0, width: CURSOR_SIDE, height: CURSOR_SIDE };
    gpu.transfer(CURSOR, whole, 0).during("transfer the pointer")?;
    gpu.update_cursor(CURSOR, (5, 7), (10, 10)).during("update the pointer")?;
    show("pointer");
    gpu.move_cursor((300, 200)).during("move the pointer")?;
    gpu.update_cursor(0, (0, 0), (0, 0)).during("hide the pointer")?;
    show("no pointer");
    gpu.unref(CURSOR).during("unref the pointer")?;
    Ok(())
}
