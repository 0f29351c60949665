//! Small pictures of desktops, for lists of them: what the screen shows, or showed when it fell asleep, as JPEG of at most
//! [`MOST_BYTES`]. A machine is asked for its picture at most once in [`FRESH`], however many look.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::http;

/// A thumbnail is not larger.
pub const MOST_BYTES: usize = 30 << 10;

/// Pixels across, unless the screen has fewer or the picture would be too large.
const WIDTH: u32 = 480;

/// A picture of a running desktop may be this old.
const FRESH: Duration = Duration::from_secs(4);

/// A machine's picture may have this many bytes.
const PICTURE_LIMIT: usize = 64 << 20;

/// No screen is longer or wider.
const SIDE_LIMIT: u32 = 16_384;

/// So many desktops' thumbnails are kept: with their usual size some 15 MiB.
const KEPT: usize = 1024;

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has not drawn yet, or nothing was kept.
    #[error("it shows no picture yet")]
    Nothing,
    /// The machine does not answer as it should.
    #[error("the machine answers {0}")]
    Machine(StatusCode),
    /// Nor at all.
    #[error(transparent)]
    Control(#[from] http::Error),
    /// The file that was kept.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// What the machine sent, or wrote, is not a picture of a screen.
    #[error("the picture makes no sense: {0}")]
    Picture(String),
}

/// Where the picture of a desktop is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Its machine runs and can be asked at this socket.
    Machine(PathBuf),
    /// In this file of this snapshot, which stays what it is.
    Snapshot(Uuid, PathBuf),
}

/// A thumbnail.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    /// JPEG.
    pub jpeg: Bytes,
    /// Names these bytes, in quotation marks.
    pub tag: String,
    source: Source,
    made: Instant,
}

impl Thumbnail {
    fn is_current(&self, source: &Source) -> bool {
        self.source == *source && (matches!(source, Source::Snapshot(..)) || self.made.elapsed() < FRESH)
    }
}

/// One at a time for each desktop: who comes second takes what the first one made.
type Place = Arc<tokio::sync::Mutex<Option<Thumbnail>>>;

/// All thumbnails.
#[derive(Debug)]
pub struct Thumbnails {
    places: Mutex<HashMap<Uuid, Place>>,
    making: Arc<Semaphore>,
}

impl Default for Thumbnails {
    fn default() -> Self {
        // to make one takes some 10 ms of a processor
        Self { places: Mutex::default(), making: Arc::new(Semaphore::new(2)) }
    }
}

impl Thumbnails {
    /// The thumbnail of a desktop.
    pub async fn of(&self, desktop: Uuid, source: Source) -> Result<Thumbnail, Error> {
        let place = self.place(desktop);
        let mut kept = place.lock().await;
        if let Some(thumbnail) = kept.as_ref().filter(|thumbnail| thumbnail.is_current(&source)) {
            return Ok(thumbnail.clone());
        }
        let made = Instant::now();
        let picture = fetch(&source).await?;
        let permit = self.making.clone().acquire_owned().await.expect("the semaphore is never closed");
        let jpeg = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shrink(&picture)
        });
        let jpeg = jpeg.await.map_err(|panic| Error::Picture(panic.to_string()))??;
        let hash: String = Sha256::digest(&jpeg)[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let thumbnail = Thumbnail { jpeg: jpeg.into(), tag: format!("\"{hash}\""), source, made };
        Ok(kept.insert(thumbnail).clone())
    }

    fn place(&self, desktop: Uuid) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= KEPT && !places.contains_key(&desktop) {
            // any other but those that are being made
            let idle = places.iter().find(|(_, place)| Arc::strong_count(place) == 1).map(|(id, _)| *id);
            if let Some(idle) = idle {
                places.remove(&idle);
            }
        }
        places.entry(desktop).or_default().clone()
    }
}

async fn fetch(source: &Source) -> Result<Bytes, Error> {
    match source {
        Source::Machine(control) => {
            let timeout = Duration::from_secs(10);
            match http::fetch(control, Method::GET, "/machine/screenshot", PICTURE_LIMIT, timeout).await? {
                (StatusCode::OK, png) => Ok(png),
                (StatusCode::NOT_FOUND, _) => Err(Error::Nothing),
                (status, _) => Err(Error::Machine(status)),
            }
        }
        Source::Snapshot(_, path) => match tokio::fs::read(path).await {
            Ok(png) => Ok(png.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Nothing),
            Err(error) => Err(Error::Read { path: path.clone(), error }),
        },
    }
}

/// A PNG of a screen, made small. It comes from a machine, so it is read with limits and by rows: at no time is all of it in memory.
fn shrink(png: &[u8]) -> Result<Vec<u8>, Error> {
    let mut width = WIDTH;
    loop {
        let small = Small::read(png, width)?;
        for quality in [78, 62, 45, 30] {
            let jpeg = small.jpeg(quality)?;
            if jpeg.len() <= MOST_BYTES {
                return Ok(jpeg);
            }
        }
        width /= 2; // noise; 60 pixels across always fit
    }
}

/// A picture in few pixels, three bytes each.
struct Small {
    width: u16,
    height: u16,
    rgb: Vec<u8>,
}

impl Small {
    /// Each pixel is the mean of those that it stands for.
    fn read(png: &[u8], most: u32) -> Result<Self, Error> {
        let wrong = |error: png::DecodingError| Error::Picture(error.to_string());
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(png), png::Limits { bytes: 1 << 20 });
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(wrong)?;
        let (width, height) = reader.info().size();
        let whole =
            !reader.info().interlaced && (1..=SIDE_LIMIT).contains(&width) && (1..=SIDE_LIMIT).contains(&height);
        if !whole {
            return Err(Error::Picture(format!("{width}×{height} pixels, or interlaced")));
        }
        let (to_width, to_height) = fitted(width, height, most);
        let channels = reader.output_color_type().0.samples();
        let mut rows = Rows::new(width, to_width);
        let mut rgb = Vec::with_capacity((to_width * to_height * 3) as usize);
        let mut at = 0;
        for y in 0..height {
            let to = place(y, height, to_height);
            if to != at {
                rows.end(&mut rgb);
                at = to;
            }
            let row = reader.next_row().map_err(wrong)?;
            let row = row.ok_or_else(|| Error::Picture(format!("it ends after {y} of {height} rows")))?;
            rows.add(row.data(), channels);
        }
        rows.end(&mut rgb);
        let side = |pixels| u16::try_from(pixels).map_err(|_| Error::Picture("too many pixels".to_owned()));
        Ok(Self { width: side(to_width)?, height: side(to_height)?, rgb })
    }

    fn jpeg(&self, quality: u8) -> Result<Vec<u8>, Error> {
        let mut jpeg = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, quality);
        let encoded = encoder.encode(&self.rgb, self.width, self.height, jpeg_encoder::ColorType::Rgb);
        encoded.map_err(|error| Error::Picture(error.to_string()))?;
        Ok(jpeg)
    }
}

/// As large as `width` × `height`, but at most `most` across, and not four times as high as that.
fn fitted(width: u32, height: u32, most: u32) -> (u32, u32) {
    let to = width.min(most);
    let high = (u64::from(height) * u64::from(to) / u64::from(width)).clamp(1, u64::from(most) * 4);
    (to, u32::try_from(high).unwrap_or(most).min(height))
}

/// Which of `to` places the one of `from` belongs to.
fn place(at: u32, from: u32, to: u32) -> u32 {
    u32::try_from(u64::from(at) * u64::from(to) / u64::from(from)).unwrap_or(0)
}

/// Rows that become one.
struct Rows {
    /// The first pixel of the small row that a pixel belongs to, times three.
    places: Vec<usize>,
    sums: Vec<u32>,
    counts: Vec<u32>,
}

impl Rows {
    fn new(from: u32, to: u32) -> Self {
        let places = (0..from).map(|x| place(x, from, to) as usize * 3).collect();
        Self { places, sums: vec![0; to as usize * 3], counts: vec![0; to as usize] }
    }

    /// Adds a row of grey or coloured pixels, with or without transparency, which screens have not.
    fn add(&mut self, row: &[u8], channels: usize) {
        let colours = if channels >= 3 { [0, 1, 2] } else { [0; 3] };
        for (pixel, place) in row.chunks_exact(channels).zip(&self.places) {
            for (sum, colour) in self.sums[*place..*place + 3].iter_mut().zip(colours) {
                *sum += u32::from(pixel[colour]);
            }
            self.counts[*place / 3] += 1;
        }
    }

    fn end(&mut self, rgb: &mut Vec<u8>) {
        let means = self.sums.iter().enumerate().map(|(n, sum)| sum / self.counts[n / 3].max(1));
        rgb.extend(means.map(|mean| u8::try_from(mean).unwrap_or(u8::MAX)));
        self.sums.fill(0);
        self.counts.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        file
    }

    fn noise(x: u32, y: u32) -> [u8; 3] {
        let mixed = (x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
        [(mixed >> 24) as u8, (mixed >> 13) as u8, (mixed >> 5) as u8]
    }

    #[test]
    fn a_screen_becomes_small_and_keeps_its_shape_and_colours() {
        let screen = png(1920, 1080, |x, _| if x < 960 { [200, 40, 40] } else { [20, 60, 220] });
        let small = Small::read(&screen, WIDTH).unwrap();
        assert_eq!((small.width, small.height), (480, 270));
        assert_eq!(small.rgb[..3], [200, 40, 40]);
        assert_eq!(small.rgb[small.rgb.len() - 3..], [20, 60, 220]);
        assert_eq!(small.rgb.len(), 480 * 270 * 3);
        let jpeg = shrink(&screen).unwrap();
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.len() <= MOST_BYTES);
    }

    #[test]
    fn even_noise_fits() {
        assert!(shrink(&png(500, 2000, noise)).unwrap().len() <= MOST_BYTES);
        assert!(shrink(&png(1, 1, noise)).unwrap().len() <= MOST_BYTES);
        assert!(shrink(&png(3, 9000, noise)).unwrap().len() <= MOST_BYTES);
    }

    #[test]
    fn what_is_no_picture_of_a_screen_is_refused() {
        let screen = png(300, 200, noise);
        for cut in [0, 8, 20, 60, screen.len() / 2] {
            assert!(matches!(shrink(&screen[..cut]), Err(Error::Picture(_))), "{cut} bytes");
        }
        let mut wide = Vec::new();
        drop(png::Encoder::new(&mut wide, SIDE_LIMIT + 1, 1).write_header().unwrap());
        assert!(matches!(shrink(&wide), Err(Error::Picture(_))));
    }

    #[tokio::test]
    async fn the_picture_of_a_snapshot_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("screen.png");
        let (thumbnails, desktop) = (Thumbnails::default(), Uuid::from_u128(1));
        let source = Source::Snapshot(Uuid::from_u128(2), path.clone());
        assert!(matches!(thumbnails.of(desktop, source.clone()).await, Err(Error::Nothing)));
        std::fs::write(&path, png(640, 480, noise)).unwrap();
        let first = thumbnails.of(desktop, source.clone()).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(thumbnails.of(desktop, source).await.unwrap().tag, first.tag);
        let other = Source::Snapshot(Uuid::from_u128(3), path);
        assert!(matches!(thumbnails.of(desktop, other).await, Err(Error::Nothing)));
    }
}
