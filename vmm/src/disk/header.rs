//! The first 4 KiB of a layer: what it is, how long, and what it lies on. Numbers are little-endian.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `YUNJULYR` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes of a block, 4,096 |
//! | 16 | 8 | bytes of the disk, a multiple of 512 |
//! | 24 | 16 | uuid of the layer |
//! | 40 | 4 | parent: 0 none, 1 a raw file, 2 a layer |
//! | 44 | 4 | 0 |
//! | 48 | 16 | the raw parent's length (8 bytes, then 0) or the parent layer's uuid; 0 without a parent |
//! | 64 | 4 | CRC-32 (IEEE 802.3) of the bytes before |
//! | 68 | | 0 |
//!
//! The bitmap follows at [`BITMAP_START`], the data at [`Header::data_start`].

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of a block, the unit in which a layer has or lacks data.
pub const BLOCK: u64 = 4096;
/// Bytes of a sector, the unit in which a disk is addressed.
pub const SECTOR: u64 = 512;
/// Bytes of the header.
pub const HEADER: usize = 4096;
/// Where the bitmap begins.
pub const BITMAP_START: u64 = HEADER as u64;
/// The longest disk, 8 TiB: with its bitmap it still is a file that every file system takes.
pub const LONGEST: u64 = 8 << 40;

const MAGIC: [u8; 8] = *b"YUNJULYR";
const VERSION: u32 = 1;
const CHECKED: usize = 64;
/// The data area begins at a multiple of this, which suits huge pages and extents.
const DATA_ALIGNMENT: u64 = 2 << 20;

/// The name of a layer, random and never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// A new one (RFC 9562 §5.4, version 4).
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        if getrandom(&mut bytes, GetRandomFlags::empty())? != bytes.len() {
            return Err(io::Error::other("the kernel gave too few random bytes"));
        }
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a layer lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: what the layer lacks reads as zeros.
    None,
    /// A raw file of this many bytes.
    Raw(u64),
    /// Another layer.
    Layer(Uuid),
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Raw(length) => write!(f, "a raw file of {length} bytes"),
            Self::Layer(uuid) => write!(f, "layer {uuid}"),
        }
    }
}

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Another kind of file.
    #[error("it is no layer")]
    Magic,
    /// Made by a later program.
    #[error("it is a layer of version {0}; this program knows version {VERSION}")]
    Version(u32),
    /// A bit fell over, or somebody wrote to it.
    #[error("its header is damaged: the checksum is wrong")]
    Checksum,
    /// A field that no version 1 has.
    #[error("its header makes no sense: {0}")]
    Field(String),
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the disk.
    pub length: u64,
    /// The layer's own name.
    pub uuid: Uuid,
    /// What it lies on.
    pub parent: Parent,
}

impl Header {
    /// Whether a file that begins so claims to be a layer.
    pub fn claims(start: &[u8]) -> bool {
        start.starts_with(&MAGIC)
    }

    /// The bytes of the file.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(BLOCK as u32).to_le_bytes());
        put(16, &self.length.to_le_bytes());
        put(24, &self.uuid.0);
        match &self.parent {
            Parent::None => {}
            Parent::Raw(length) => {
                put(40, &1_u32.to_le_bytes());
                put(48, &length.to_le_bytes());
            }
            Parent::Layer(uuid) => {
                put(40, &2_u32.to_le_bytes());
                put(48, &uuid.0);
            }
        }
        let sum = crc32fast::hash(&bytes[..CHECKED]);
        bytes[CHECKED..CHECKED + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks the bytes of a file.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self, Wrong> {
        let number = |at: usize| u32::from_le_bytes(array(&bytes[at..]));
        let long = |at: usize| u64::from_le_bytes(array(&bytes[at..]));
        let field = |text: &str| Err(Wrong::Field(text.to_owned()));
        if !Self::claims(bytes) {
            return Err(Wrong::Magic);
        }
        if number(CHECKED) != crc32fast::hash(&bytes[..CHECKED]) {
            return Err(Wrong::Checksum);
        }
        if number(8) != VERSION {
            return Err(Wrong::Version(number(8)));
        }
        if u64::from(number(12)) != BLOCK {
            return field(&format!("blocks of {} bytes", number(12)));
        }
        let id: [u8; 16] = array(&bytes[48..]);
        let parent = match number(40) {
            0 if id == [0; 16] => Parent::None,
            1 if long(56) == 0 => Parent::Raw(long(48)),
            2 => Parent::Layer(Uuid(id)),
            _ => return field("the parent"),
        };
        let header = Self { length: long(16), uuid: Uuid(array(&bytes[24..])), parent };
        if !is_length(header.length) {
            return field(&format!("a disk of {} bytes", header.length));
        }
        if number(44) != 0 || bytes[CHECKED + 4..].iter().any(|byte| *byte != 0) {
            return field("something where nothing should be");
        }
        Ok(header)
    }

    /// Blocks of the disk, the last of which may be cut short.
    pub fn blocks(&self) -> u64 {
        self.length.div_ceil(BLOCK)
    }

    /// Bytes of the bitmap: a bit for each block, in whole pages.
    pub fn bitmap_length(&self) -> u64 {
        self.blocks().div_ceil(8).next_multiple_of(BLOCK)
    }

    /// Where block 0 lies in the file.
    pub fn data_start(&self) -> u64 {
        (BITMAP_START + self.bitmap_length()).next_multiple_of(DATA_ALIGNMENT)
    }

    /// Bytes of the file.
    pub fn file_length(&self) -> u64 {
        self.data_start() + self.blocks() * BLOCK
    }
}

/// Whether a disk can have this many bytes.
pub fn is_length(length: u64) -> bool {
    length > 0 && length <= LONGEST && length.is_multiple_of(SECTOR)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { length: 16 << 30, uuid: Uuid([7; 16]), parent: Parent::Raw(4096) }
    }

    #[test]
    fn every_parent_survives_the_way_through_the_file() {
        for parent in [Parent::None, Parent::Raw(512), Parent::Layer(Uuid([9; 16]))] {
            let header = Header { parent, ..header() };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn areas_follow_each_other_and_the_data_is_aligned() {
        let header = header();
        assert_eq!(header.bitmap_length(), 512 << 10);
        assert_eq!(header.data_start(), 2 << 20);
        assert_eq!(header.file_length(), (16 << 30) + (2 << 20));
        let odd = Header { length: 4096 + 512, ..header };
        assert_eq!((odd.blocks(), odd.bitmap_length()), (2, 4096));
    }

    #[test]
    fn every_damaged_bit_is_noticed() {
        let bytes = header().encode();
        for bit in (0..bytes.len() * 8).step_by(7).chain(0..72 * 8) {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn two_names_are_never_the_same_and_look_like_uuids() {
        let (a, b) = (Uuid::random().unwrap(), Uuid::random().unwrap());
        assert_ne!(a, b);
        let text = a.to_string();
        assert_eq!((text.len(), &text[14..15], &text[8..9]), (36, "4", "-"));
    }

    proptest! {
        #[test]
        fn any_bytes_with_a_right_checksum_are_a_header_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), CHECKED - 16),
            small in any::<bool>(),
        ) {
            let mut whole = header().encode();
            whole[16..CHECKED].copy_from_slice(&bytes);
            if small {
                whole[40..48].copy_from_slice(&[bytes[0] % 3, 0, 0, 0, 0, 0, 0, 0]);
                whole[18..24].fill(0);
                whole[16] = 0;
            }
            let sum = crc32fast::hash(&whole[..CHECKED]);
            whole[CHECKED..CHECKED + 4].copy_from_slice(&sum.to_le_bytes());
            if let Ok(header) = Header::decode(&whole) {
                prop_assert_eq!(header.encode(), whole);
                prop_assert!(header.file_length() > header.length);
            }
        }
    }
}
