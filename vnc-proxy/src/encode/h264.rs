//! H.264 for areas in motion: one slice a picture, no picture waits for a later one, colours by BT.709.

use yunju_protocol::display::Rect;

use crate::picture::Picture;

/// How many bits an area in motion may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// For a very slow link.
    Coarse,
    /// For a slow link.
    Soft,
    /// For most.
    Good,
    /// For those who ask for the best.
    Sharp,
}

impl Grade {
    /// Bits a pixel on average, and the bounds of the quantiser.
    #[cfg_attr(not(feature = "h264"), expect(dead_code, reason = "only the encoder asks"))]
    fn cost(self) -> (f64, u8, u8) {
        match self {
            Self::Coarse => (0.025, 26, 48),
            Self::Soft => (0.07, 24, 42),
            Self::Good => (0.15, 20, 36),
            Self::Sharp => (0.27, 16, 32),
        }
    }
}

/// A coded picture.
#[derive(Debug)]
pub struct Coded {
    /// NAL units with start codes; a key picture's begin with its parameter sets.
    pub bytes: Vec<u8>,
    /// Whether it can be decoded without those before.
    pub key: bool,
}

/// A picture as encoders want it: luma, and chroma of half the width and height (4:2:0, limited range, BT.709).
pub struct Planes {
    #[cfg_attr(not(feature = "h264"), expect(dead_code, reason = "only the encoder asks"))]
    size: (usize, usize),
    luma: Vec<u8>,
    blue: Vec<u8>,
    red: Vec<u8>,
}

impl Planes {
    /// For pictures of this size, both even.
    pub fn new(width: u32, height: u32) -> Self {
        let size = (width as usize, height as usize);
        let pixels = size.0 * size.1;
        Self { size, luma: vec![0; pixels], blue: vec![0; pixels / 4], red: vec![0; pixels / 4] }
    }

    /// Takes over a rectangle of this size.
    pub fn take(&mut self, picture: &Picture, rect: Rect) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has what the function is made for (checked above); it is safe code otherwise.
            return unsafe { self.take_by_eight(picture, rect) };
        }
        self.take_rows(picture, rect);
    }

    /// The same code for processors that multiply eight numbers at a time, of which compilers alone make no use.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn take_by_eight(&mut self, picture: &Picture, rect: Rect) {
        self.take_rows(picture, rect);
    }

    #[inline(always)]
    fn take_rows(&mut self, picture: &Picture, rect: Rect) {
        let width = rect.width as usize;
        let lumas = self.luma.chunks_exact_mut(2 * width);
        let chromas = self.blue.chunks_exact_mut(width / 2).zip(self.red.chunks_exact_mut(width / 2));
        for ((y, luma), (blue, red)) in (rect.y..).step_by(2).zip(lumas).zip(chromas) {
            let (upper, lower) = luma.split_at_mut(width);
            let rows = [picture.span(rect.x, y, rect.width), picture.span(rect.x, y + 1, rect.width)];
            brightness(rows[0], upper);
            brightness(rows[1], lower);
            colour(rows, blue, red);
        }
    }
}

#[inline(always)]
fn brightness(row: &[u32], luma: &mut [u8]) {
    for (pixel, luma) in row.iter().zip(luma) {
        let (red, green, blue) = (pixel >> 16 & 255, pixel >> 8 & 255, pixel & 255);
        *luma = ((16 * 256 + 128 + 47 * red + 157 * green + 16 * blue) >> 8) as u8;
    }
}

#[inline(always)]
fn colour(rows: [&[u32]; 2], blues: &mut [u8], reds: &mut [u8]) {
    let pairs = rows[0].chunks_exact(2).zip(rows[1].chunks_exact(2));
    for ((upper, lower), (blue_out, red_out)) in pairs.zip(blues.iter_mut().zip(reds)) {
        // Two channels are added at a time, the four sums being below 1024 each.
        let four = [upper[0], upper[1], lower[0], lower[1]];
        let outer: u32 = four.iter().map(|pixel| pixel & 0xff_00ff).sum();
        let green = four.iter().map(|pixel| pixel >> 8 & 255).sum::<u32>() as i32;
        let (red, blue) = ((outer >> 16) as i32, (outer & 0xffff) as i32);
        *blue_out = ((128 * 1024 + 512 - 26 * red - 86 * green + 112 * blue) >> 10) as u8;
        *red_out = ((128 * 1024 + 512 + 112 * red - 102 * green - 10 * blue) >> 10) as u8;
    }
}

#[cfg(feature = "h264")]
pub use codec::Codec;
#[cfg(not(feature = "h264"))]
pub use none::Codec;

/// Whether this build has an encoder.
pub const AVAILABLE: bool = cfg!(feature = "h264");

#[cfg(feature = "h264")]
mod codec {
    use openh264::OpenH264API;
    use openh264::encoder::{
        BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, Profile, QpRange, RateControlMode,
        UsageType, VuiConfig,
    };
    use openh264::formats::YUVSlices;
    use openh264_sys2::{ENCODER_OPTION_TRACE_LEVEL, WELS_LOG_QUIET};

    use super::{Coded, Grade, Planes};

    /// Pictures a second that the grades' costs are meant for.
    const RATE: f64 = 30.0;

    /// An encoder of pictures of one size.
    pub struct Codec(Encoder);

    /// Keeps the library from writing to standard error, which it begins with before its own wrapper can tell it.
    fn silence(encoder: &mut Encoder) {
        let mut level = WELS_LOG_QUIET;
        // SAFETY: this option takes an int by pointer, reads it at once, and is allowed before initialization.
        let silenced = unsafe { encoder.raw_api().set_option(ENCODER_OPTION_TRACE_LEVEL, (&raw mut level).cast()) };
        debug_assert_eq!(silenced, 0, "the level of traces can be set");
    }

    impl Codec {
        /// An encoder, if there can be one.
        pub fn new(width: u32, height: u32, grade: Grade) -> Option<Self> {
            let (bits, finest, coarsest) = grade.cost();
            let bits_per_second = (f64::from(width) * f64::from(height) * bits * RATE) as u32;
            let config = EncoderConfig::new()
                .usage_type(UsageType::CameraVideoRealTime)
                .profile(Profile::Baseline)
                .complexity(Complexity::Low)
                .rate_control_mode(RateControlMode::Bitrate)
                .bitrate(BitRate::from_bps(bits_per_second))
                .max_frame_rate(FrameRate::from_hz(RATE as f32))
                .qp(QpRange::new(finest, coarsest))
                .skip_frames(false)
                // Each costs a pass over the picture and gains little on a screen.
                .adaptive_quantization(false)
                .background_detection(false)
                .scene_change_detect(false)
                // More threads would mean more slices.
                .num_threads(1)
                .vui(VuiConfig::bt709());
            let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config).ok()?;
            silence(&mut encoder);
            Some(Self(encoder))
        }

        /// Codes the next picture; `None` if the encoder gives nothing.
        pub fn encode(&mut self, planes: &Planes, key: bool) -> Option<Coded> {
            let (width, height) = planes.size;
            let source = YUVSlices::new(
                (&planes.luma, &planes.blue, &planes.red),
                (width, height),
                (width, width / 2, width / 2),
            );
            if key {
                self.0.force_intra_frame();
            }
            let stream = self.0.encode(&source).ok()?;
            let key = matches!(stream.frame_type(), FrameType::IDR);
            let bytes = stream.to_vec();
            (!bytes.is_empty()).then_some(Coded { bytes, key })
        }
    }
}

#[cfg(not(feature = "h264"))]
mod none {
    use super::{Coded, Grade, Planes};

    /// What this build has not.
    pub enum Codec {}

    impl Codec {
        /// There is none.
        pub fn new(_: u32, _: u32, _: Grade) -> Option<Self> {
            None
        }

        /// Never called.
        pub fn encode(&mut self, _: &Planes, _: bool) -> Option<Coded> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_without_colour_and_primaries_are_where_bt709_has_them() {
        let of = |pixel: u32| {
            let mut picture = Picture::black(4, 2);
            (0..2).for_each(|y| picture.span_mut(0, y, 4).fill(pixel));
            let mut planes = Planes::new(2, 2);
            planes.take(&picture, Rect { x: 2, y: 0, width: 2, height: 2 });
            (planes.luma[3], planes.blue[0], planes.red[0])
        };
        assert_eq!(of(0), (16, 128, 128));
        assert_eq!(of(0xff_ffff), (235, 128, 128));
        assert_eq!(of(0xff_0000), (63, 102, 240));
        assert_eq!(of(0x00_ff00), (172, 42, 26));
        assert_eq!(of(0x00_00ff), (32, 240, 118));
    }

    #[cfg(feature = "h264")]
    #[test]
    fn each_picture_is_one_slice_and_only_the_first_and_those_asked_for_are_keys() {
        let mut codec = Codec::new(160, 96, Grade::Good).expect("an encoder");
        let mut planes = Planes::new(160, 96);
        for nth in 0..40u32 {
            let mut picture = Picture::black(160, 96);
            (0..96)
                .for_each(|y| (0..).zip(picture.span_mut(0, y, 160)).for_each(|(x, p)| *p = ((x + nth) * 0x10203) ^ y));
            planes.take(&picture, picture.bounds());
            let coded = codec.encode(&planes, nth == 20).expect("a picture");
            let kinds: Vec<u8> = nal_kinds(&coded.bytes);
            assert_eq!(coded.key, nth % 20 == 0, "{nth}");
            assert_eq!(kinds, if coded.key { vec![7, 8, 5] } else { vec![1] }, "{nth}");
        }
    }

    #[cfg(feature = "h264")]
    fn nal_kinds(bytes: &[u8]) -> Vec<u8> {
        bytes.windows(4).filter(|four| four[..3] == [0, 0, 1]).map(|four| four[3] & 31).collect()
    }
}
