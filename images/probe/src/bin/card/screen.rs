//! The card's picture on the gpu, and the pointer's.

use alloc::vec::Vec;

use guest::virtio::Error;
use guest::virtio::gpu::{B8G8R8A8, B8G8R8X8, Gpu, Rect};
use guest::{memory, println};

use crate::scene::Scene;

/// Smaller than this the card's parts would overlap.
const SMALLEST: (u32, u32) = (640, 480);
const MOST_PIXELS: usize = 7680 * 4320;
const CURSOR_RESOURCE: u32 = 100;
const CURSOR_SIDE: u32 = 64;
/// The pointer points with its corner.
const CURSOR_HOT: (u32, u32) = (0, 0);

pub struct Screen {
    gpu: Gpu,
    /// 1 or 2: a new size gets the other.
    resource: u32,
    width: u32,
    height: u32,
    pixels: Vec<u32>,
    pointer: (u32, u32),
    retired: Option<u32>,
    /// The machine would like another size.
    asked: bool,
}

impl Screen {
    pub fn open() -> Result<Self, Error> {
        let mut gpu = Gpu::open()?;
        let (width, height) = gpu.preferred_size()?.unwrap_or((1280, 800));
        let cursor = Vec::leak(alloc::vec![0; (CURSOR_SIDE * CURSOR_SIDE) as usize]);
        draw_arrow(cursor);
        gpu.create(CURSOR_RESOURCE, B8G8R8A8, CURSOR_SIDE, CURSOR_SIDE)?;
        gpu.attach(CURSOR_RESOURCE, cursor)?;
        gpu.transfer(CURSOR_RESOURCE, Rect { x: 0, y: 0, width: CURSOR_SIDE, height: CURSOR_SIDE }, 0)?;
        gpu.update_cursor(CURSOR_RESOURCE, CURSOR_HOT, (0, 0))?;
        // All memory but some for text: a picture of any size that fits needs no other.
        let most = (memory::free() - (4 << 20)) / 4;
        let pixels = Vec::with_capacity(most.min(MOST_PIXELS));
        let mut screen =
            Self { gpu, resource: 0, width: 0, height: 0, pixels, pointer: (0, 0), retired: None, asked: false };
        screen.set_size(width.max(SMALLEST.0), height.max(SMALLEST.1))?;
        Ok(screen)
    }

    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Makes a new picture; the one before is shown until this one is painted.
    fn set_size(&mut self, width: u32, height: u32) -> Result<(), Error> {
        if self.resource != 0 {
            self.gpu.detach(self.resource)?;
            self.retired = Some(self.resource);
        }
        self.pixels.resize(width as usize * height as usize, 0);
        (self.width, self.height) = (width, height);
        self.resource = if self.resource == 1 { 2 } else { 1 };
        self.gpu.create(self.resource, B8G8R8X8, width, height)?;
        self.gpu.attach(self.resource, &self.pixels)
    }

    /// Whether the machine would like another size.
    pub fn wants_resize(&mut self) -> bool {
        self.asked |= self.gpu.take_display_event();
        self.asked
    }

    /// Follows the size that the machine would like; returns a new one, to be painted whole.
    pub fn resize(&mut self) -> Result<Option<(u32, u32)>, Error> {
        if !core::mem::take(&mut self.asked) {
            return Ok(None);
        }
        let Some((width, height)) = self.gpu.preferred_size()? else { return Ok(None) };
        let (width, height) = (width.max(SMALLEST.0), height.max(SMALLEST.1));
        if (width, height) == self.size() {
            return Ok(None);
        }
        if width as usize * height as usize > self.pixels.capacity() {
            println!("CARD has no memory for {width}x{height}");
            return Ok(None);
        }
        self.set_size(width, height)?;
        Ok(Some((width, height)))
    }

    /// Paints and shows everything.
    pub fn paint_all(&mut self, scene: &Scene<'_>) -> Result<(), Error> {
        let whole = Rect { x: 0, y: 0, width: self.width, height: self.height };
        scene.paint(&mut self.pixels, self.width, whole);
        self.gpu.transfer(self.resource, whole, 0)?;
        self.gpu.scan_out(whole, self.resource)?;
        self.gpu.flush(self.resource, whole)?;
        self.retired.take().map_or(Ok(()), |old| self.gpu.unref(old))
    }

    /// Paints and shows a rectangle, as far as it lies on the screen.
    pub fn paint(&mut self, scene: &Scene<'_>, area: Rect) -> Result<(), Error> {
        let width = area.width.min(self.width.saturating_sub(area.x));
        let height = area.height.min(self.height.saturating_sub(area.y));
        if width == 0 || height == 0 {
            return Ok(());
        }
        let area = Rect { width, height, ..area };
        scene.paint(&mut self.pixels, self.width, area);
        self.gpu.show(self.resource, area, self.width)
    }

    pub fn move_cursor(&mut self, x: u32, y: u32) -> Result<(), Error> {
        if self.pointer != (x, y) {
            self.pointer = (x, y);
            self.gpu.move_cursor((x, y))?;
        }
        Ok(())
    }
}

/// A white arrow with a dark edge, in the top left corner of its picture.
fn draw_arrow(pixels: &mut [u32]) {
    const LENGTH: u32 = 20;
    for (y, row) in (0..LENGTH).zip(pixels.chunks_exact_mut(CURSOR_SIDE as usize)) {
        // Half as wide as it is high: the edge runs down the left side and along the slope.
        let right = (y * 2 / 3).min(LENGTH - y);
        for (x, pixel) in (0..=right).zip(row) {
            *pixel = if x == 0 || x == right { 0xff10_1820 } else { 0xffff_ffff };
        }
    }
}
