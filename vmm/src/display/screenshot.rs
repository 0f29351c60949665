//! The picture as a file.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use yunju_protocol::display::Rect;

use super::Buffer;

/// `area` of a buffer as a PNG file (RFC 2083), without an alpha channel.
pub fn png(buffer: &Buffer, area: Rect) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, area.width, area.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut header = encoder.write_header()?;
    let mut writer = header.stream_writer()?;
    let mut row = vec![0; area.width as usize * 4];
    let mut rgb = Vec::with_capacity(area.width as usize * 3);
    for y in area.y..area.bottom() {
        let offset = u64::from(y) * u64::from(buffer.stride) + u64::from(area.x) * 4;
        buffer.pixels.read_exact_at(&mut row, offset)?;
        rgb.clear();
        rgb.extend(row.as_chunks::<4>().0.iter().flat_map(|[blue, green, red, _]| [*red, *green, *blue]));
        writer.write_all(&rgb)?;
    }
    writer.finish()?;
    header.finish()?;
    Ok(file)
}
