//! What kind of picture a tile holds, so that neighbours of one kind are sent together.

use yunju_protocol::display::Rect;

use super::palette::Palette;
use crate::picture::Picture;

/// What kind of picture a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One colour.
    Solid(u32),
    /// Few colours: text, windows, icons.
    Drawn,
    /// Many colours with hard edges: lossless pays.
    Mixed,
    /// Many colours that flow into each other: JPEG pays.
    Photo,
}

impl Kind {
    /// Most columns and rows of tiles that are sent as one rectangle. Tight allows 2048 columns; bands of colour have
    /// no content whose size matters; for the others, small enough to be decoded while the next is on its way.
    pub fn limit(self) -> (u32, u32) {
        match self {
            Self::Solid(_) => (32, 256),
            Self::Drawn | Self::Mixed | Self::Photo => (4, 4),
        }
    }
}

/// Looks at a tile.
pub fn classify(picture: &Picture, tile: Rect, palette: &mut Palette) -> Kind {
    if palette.count(picture, tile, 256) {
        return match palette.colours() {
            [colour] => Kind::Solid(*colour),
            // In a small rectangle of a photograph few colours are there because few pixels are.
            colours if colours.len() as u64 * 4 > tile.area() => Kind::Mixed,
            _ => Kind::Drawn,
        };
    }
    if flows(picture, tile) { Kind::Photo } else { Kind::Mixed }
}

/// Whether neighbours differ mostly, but little: flat areas and hard edges are what zlib is good at and JPEG bad.
fn flows(picture: &Picture, tile: Rect) -> bool {
    let (mut same, mut near, mut far) = (0u32, 0u32, 0u32);
    for row in picture.rows(tile) {
        for pair in row.windows(2) {
            let (left, right) = (pair[0].to_le_bytes(), pair[1].to_le_bytes());
            let distance = left.iter().zip(right).map(|(l, r)| u32::from(l.abs_diff(r))).max().unwrap_or(0);
            match distance {
                0 => same += 1,
                1..=48 => near += 1,
                _ => far += 1,
            }
        }
    }
    near > same && near > 2 * far
}
