//! A zlib stream that lasts as long as its viewer.

use flate2::{Compress, Compression, FlushCompress};

/// A zlib stream that lasts as long as its viewer, so that later data is compressed in terms of earlier.
#[derive(Debug)]
pub struct Stream {
    compress: Compress,
    /// What longer data is compressed with, and what is set now.
    level: u8,
    set: u8,
}

/// Data so short, as a letter's, is compressed with more effort: it takes little time, and most of it comes again.
const SHORT: usize = 4 << 10;
const EFFORT: u8 = 6;

impl Stream {
    /// A fresh stream of this level, 0 to 9.
    pub fn new(level: u8) -> Self {
        Self { compress: Compress::new(Compression::new(level.into()), true), level, set: level }
    }

    /// Compresses from now on with this level, 0 to 9.
    pub fn set_level(&mut self, level: u8) {
        self.level = level;
    }

    fn exert(&mut self, level: u8) {
        if level != self.set && self.compress.set_level(Compression::new(level.into())).is_ok() {
            self.set = level;
        }
    }

    /// Appends the compressed form of `input`, complete to the last byte.
    pub fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        self.exert(if input.len() <= SHORT { self.level.max(EFFORT) } else { self.level });
        loop {
            out.reserve(input.len() / 4 + 64);
            let before = self.compress.total_in();
            // The only error there is comes of a stream that was finished, and we finish none.
            let written = self.compress.compress_vec(input, out, FlushCompress::Sync);
            debug_assert!(written.is_ok(), "a stream that is not finished takes any bytes");
            input = &input[(self.compress.total_in() - before) as usize..];
            if input.is_empty() && out.len() < out.capacity() {
                return;
            }
        }
    }
}
