//! The Opus encoder (feature `opus`).

#[cfg(feature = "opus")]
pub use with::{AVAILABLE, Encoder};
#[cfg(not(feature = "opus"))]
pub use without::{AVAILABLE, Encoder};

#[cfg(feature = "opus")]
mod with {
    use tracing::warn;
    use yunju_protocol::display::SAMPLE_RATE;

    /// Whether sound can be encoded.
    pub const AVAILABLE: bool = true;

    /// Music that is hard to tell from the original.
    const BITS_PER_SECOND: i32 = 128_000;
    /// Longest packet of one frame (RFC 6716 §3.2.1).
    const LONGEST: usize = 1275;

    /// Turns samples into packets.
    pub struct Encoder(opus::Encoder);

    impl Encoder {
        /// An encoder, if there is memory for one.
        pub fn new() -> Option<Self> {
            let make = || {
                let mut encoder = opus::Encoder::new(SAMPLE_RATE, opus::Channels::Stereo, opus::Application::Audio)?;
                encoder.set_bitrate(opus::Bitrate::Bits(BITS_PER_SECOND))?;
                Ok::<_, opus::Error>(Self(encoder))
            };
            make().inspect_err(|error| warn!("no sound: {error}")).ok()
        }

        /// One packet of 20 ms.
        pub fn encode(&mut self, samples: &[u8]) -> Option<Vec<u8>> {
            let samples: Vec<i16> =
                samples.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect();
            self.0.encode_vec(&samples, LONGEST).inspect_err(|error| warn!("a packet of sound is lost: {error}")).ok()
        }
    }
}

#[cfg(not(feature = "opus"))]
mod without {
    /// Whether sound can be encoded.
    pub const AVAILABLE: bool = false;

    /// There is none.
    pub enum Encoder {}

    impl Encoder {
        /// None.
        pub fn new() -> Option<Self> {
            None
        }

        /// Never called.
        pub fn encode(&mut self, _samples: &[u8]) -> Option<Vec<u8>> {
            match *self {}
        }
    }
}
