//! A viewer as noVNC is one, which counts what it gets.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::canvas::WIDTH;
use crate::support::client::{Client, Said};
use crate::support::decode::{Decoded, RGBX};

/// What noVNC 1.7.0 lists when its browser knows H.264.
const ENCODINGS: &[i32] = &[
    1, 50, 7, -260, 16, 21, 5, 2, 6, 0, -26, -254, -223, -224, -258, -261, -308, -309, -312, -313, -307, -316,
    0x574d5664, -239,
];

/// JPEG quality 6, which noVNC asks for by itself.
pub const QUALITY: i32 = -26;

/// What a viewer has got so far.
#[derive(Default)]
pub struct Counts {
    pub bytes: AtomicU64,
    pub updates: AtomicU64,
    pub frames: AtomicU64,
    /// When something came last, in milliseconds from the start.
    last: AtomicU64,
    stop: AtomicBool,
}

/// A viewer that takes updates on a thread of its own.
pub struct Viewer {
    pub counts: Arc<Counts>,
    start: Instant,
    thread: Option<JoinHandle<()>>,
}

struct Counting {
    socket: BufReader<UnixStream>,
    counts: Arc<Counts>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(buffer)?;
        self.counts.bytes.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is done with each update: it is given the viewer's pixels.
pub type Look = Box<dyn FnMut(&[u32], &Decoded) + Send>;

impl Viewer {
    /// Connects; with `look` it decodes what it gets, else it only counts.
    pub fn connect(path: &Path, quality: i32, look: Option<Look>) -> Self {
        let counts = Arc::new(Counts::default());
        let socket = UnixStream::connect(path).expect("a server that listens");
        let counting = Counting { socket: BufReader::with_capacity(256 << 10, socket), counts: counts.clone() };
        let mut client = Client::shake_hands(Box::new(counting)).expect("a server that shakes hands");
        client.screen.skims = look.is_none();
        client.set_format(RGBX);
        let list: Vec<i32> = ENCODINGS.iter().map(|of| if *of == QUALITY { quality } else { *of }).collect();
        client.set_encodings(&list);
        client.request(false);
        let start = Instant::now();
        let thread = std::thread::spawn({
            let counts = counts.clone();
            move || watch(client, &counts, look, start)
        });
        Self { counts, start, thread: Some(thread) }
    }

    /// Waits until nothing has come for a time.
    pub fn settle(&self, quiet: Duration) {
        let idle = || self.start.elapsed().saturating_sub(Duration::from_millis(self.counts.last.load(Relaxed)));
        let deadline = Instant::now() + Duration::from_secs(60);
        while idle() < quiet && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Leaves; something must come for it to be noticed, so a last change must follow.
    pub fn leave(&self) {
        self.counts.stop.store(true, Relaxed);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.leave();
        drop(self.thread.take());
    }
}

fn watch(mut client: Client, counts: &Counts, mut look: Option<Look>, start: Instant) {
    while !counts.stop.load(Relaxed) {
        match client.next() {
            Ok(Said::Update(decoded)) => {
                counts.updates.fetch_add(1, Relaxed);
                counts.frames.fetch_add(u64::from(decoded.frames > 0), Relaxed);
                if let Some(look) = &mut look {
                    look(&client.screen.pixels, &decoded);
                }
                debug_assert_eq!(client.screen.width, WIDTH);
            }
            Ok(Said::EndOfContinuousUpdates) => client.continuous(true),
            Ok(Said::Fence { .. } | Said::Cut { .. }) => {}
            Err(_) => return,
        }
        counts.last.store(start.elapsed().as_millis() as u64, Relaxed);
    }
}

/// Which pictures of a video a viewer saw, and how well.
#[derive(Default)]
pub struct Seen {
    pub shown: u64,
    last: Option<u32>,
    pub decibels: Vec<f64>,
}

impl Seen {
    /// Notes the picture of this number; true for those whose quality is to be looked at.
    pub fn note(seen: &Mutex<Self>, number: u32) -> bool {
        let mut seen = seen.lock().expect("nobody panics");
        if seen.last == Some(number) {
            return false;
        }
        seen.last = Some(number);
        seen.shown += 1;
        seen.shown % 8 == 4
    }
}
