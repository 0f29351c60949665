//! Disks made of layers.
//!
//! A disk is a chain: at the bottom a raw file or a layer without a parent, then layers that nothing writes to any
//! more, and at the top the one that is written to, a layer or the raw file itself. A layer has some blocks of
//! 4 KiB; what it lacks is in the one below. Its file is sparse: the header, a bitmap of the blocks that it
//! has, and block n at `data_start + n × 4096`. The file system does the allocating. Nothing that the
//! guest writes is ever parsed: header and bitmap are outside what it can address.
//!
//! What makes it safe to lose power or the process at any moment:
//!
//! - New bits are set in memory when the data is in the file, and written to the file by a flush: data, `fdatasync`, bits,
//!   `fdatasync`. A bit in the file therefore always stands for data that is durable, and bits are never cleared.
//! - A block whose bit is not in the file reads as what lies below, whatever an interrupted write left in its place. So a
//!   layer gets a block only as a whole, a write of a part being merged with what was there before ([`Disk::must_merge`]).

mod bitmap;
pub mod command;
pub mod engine;
pub mod header;
pub mod tools;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::bitmap::Bitmap;
use self::header::{BITMAP_START, HEADER, is_length};

pub use self::header::{BLOCK, Header, LONGEST, Parent, SECTOR, Uuid, Wrong};

/// Why files are no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, written or mapped.
    #[error("disk {name}: {what}: {source}")]
    Io {
        /// The file.
        name: String,
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A raw file's length is no multiple of a sector.
    #[error("disk {name}: its length of {length} bytes is not a multiple of {SECTOR}; `truncate` it to one")]
    Length {
        /// The file.
        name: String,
        /// Bytes.
        length: u64,
    },
    /// A header that is none.
    #[error("disk {name}: {wrong}")]
    Header {
        /// The file.
        name: String,
        /// What is wrong.
        wrong: Wrong,
    },
    /// A layer's file is shorter than its header says.
    #[error("disk {name}: {length} bytes are missing at its end")]
    Short {
        /// The file.
        name: String,
        /// How many bytes.
        length: u64,
    },
    /// A layer does not lie on what it was given.
    #[error("disk {name}: it lies on {parent}, but was given {below}")]
    Parent {
        /// The layer.
        name: String,
        /// What it says it lies on.
        parent: Parent,
        /// What it was given.
        below: String,
    },
    /// A raw file that is not at the bottom.
    #[error("disk {name}: it is no layer, so nothing can lie below it")]
    RawAbove {
        /// The file.
        name: String,
    },
    /// A layer that is shorter than what it lies on.
    #[error("disk {name}: it has {length} bytes, and what it lies on more: {below}")]
    Shrunk {
        /// The layer.
        name: String,
        /// Its bytes.
        length: u64,
        /// Those below.
        below: u64,
    },
    /// A length that no disk has.
    #[error("a disk of {0} bytes: must be a multiple of {SECTOR}, at least that and at most {LONGEST}")]
    Size(u64),
    /// A new layer's file has something in it.
    #[error("disk {name}: a new layer needs an empty file, but it has {length} bytes")]
    NotEmpty {
        /// The file.
        name: String,
        /// Bytes.
        length: u64,
    },
    /// A file that somebody else uses.
    #[error("disk {name}: another machine {what}")]
    Locked {
        /// The file.
        name: String,
        /// What it does with it.
        what: &'static str,
    },
    /// A raw file among those to be merged.
    #[error("only two layers can be merged; flatten a chain with a raw file")]
    NotLayers,
    /// No file was given.
    #[error("a disk needs at least one file")]
    Empty,
}

/// Names what was being done to a file that failed.
fn failed(name: &str, what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { name: name.to_owned(), what, source }
}

/// One file of a chain.
struct Part {
    name: String,
    file: Arc<File>,
    /// Bytes of the disk up to here.
    length: u64,
    /// `None` for a raw file, which has everything up to its length.
    layer: Option<Layer>,
}

struct Layer {
    header: Header,
    bitmap: Bitmap,
}

impl Part {
    fn open(name: &str, file: File, writable: bool) -> Result<Self, Error> {
        let io = |what| failed(name, what);
        let length = file.metadata().map_err(io("asking its length"))?.len();
        let mut start = [0; HEADER];
        let known = usize::try_from(length).unwrap_or(HEADER).min(HEADER);
        file.read_exact_at(&mut start[..known], 0).map_err(io("reading"))?;
        if !Header::claims(&start) {
            if !is_length(length) {
                return Err(Error::Length { name: name.to_owned(), length });
            }
            return Ok(Self { name: name.to_owned(), file: Arc::new(file), length, layer: None });
        }
        let header = Header::decode(&start).map_err(|wrong| Error::Header { name: name.to_owned(), wrong })?;
        if length < header.file_length() {
            return Err(Error::Short { name: name.to_owned(), length: header.file_length() - length });
        }
        let bitmap = Bitmap::map(&file, &header, writable).map_err(io("mapping its bitmap"))?;
        let length = header.length;
        Ok(Self { name: name.to_owned(), file: Arc::new(file), length, layer: Some(Layer { header, bitmap }) })
    }

    /// What a layer that lies on this says of its parent.
    fn as_parent(&self) -> Parent {
        self.layer.as_ref().map_or(Parent::Raw(self.length), |layer| Parent::Layer(layer.header.uuid))
    }

    /// Whether `block` is here, and up to which block, at most `end`, that goes for the following ones.
    fn run(&self, block: u64, end: u64) -> (bool, u64) {
        match &self.layer {
            Some(layer) => layer.bitmap.run(block, end),
            None => {
                let blocks = self.length.div_ceil(BLOCK);
                if block < blocks { (true, end.min(blocks)) } else { (false, end) }
            }
        }
    }

    /// Where byte `offset` of the disk is in the file.
    fn place(&self, offset: u64) -> u64 {
        offset + self.layer.as_ref().map_or(0, |layer| layer.header.data_start())
    }
}

/// Where a piece of a disk is.
pub struct Extent<'d> {
    /// The file and the place in it; `None` for zeros.
    pub place: Option<(&'d Arc<File>, u64)>,
    /// Bytes.
    pub length: u64,
}

/// Bits that a flush has to write.
pub struct Page {
    index: u64,
    /// Where in the top's file they go.
    pub place: u64,
    /// What goes there.
    pub bytes: Vec<u8>,
}

/// A chain of files that is a disk. It only says what is where: reading and writing is done by an [`engine`].
pub struct Disk {
    /// Bottom first, never empty.
    parts: Vec<Part>,
    length: u64,
    writable: bool,
    /// Pages of the top's bitmap with bits that are not in the file yet.
    new_bits: BTreeSet<u64>,
}

impl Disk {
    /// Opens files, each with a name for messages, bottom first. Only the last one is written to, if `writable`.
    pub fn open(files: Vec<(String, File)>, writable: bool) -> Result<Self, Error> {
        let count = files.len();
        let mut parts: Vec<Part> = Vec::with_capacity(count);
        for (index, (name, file)) in files.into_iter().enumerate() {
            let part = Part::open(&name, file, writable && index + 1 == count)?;
            check_link(parts.last(), &part)?;
            parts.push(part);
        }
        let length = parts.last().ok_or(Error::Empty)?.length;
        Ok(Self { parts, length, writable, new_bits: BTreeSet::new() })
    }

    /// Bytes of the disk, a multiple of [`SECTOR`].
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it may be written to.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// How many files it is made of.
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    fn top(&self) -> &Part {
        self.parts.last().expect("a chain is never empty")
    }

    /// The file that is written to.
    pub fn top_file(&self) -> &Arc<File> {
        &self.top().file
    }

    /// Where the top has, or would have, the byte at `offset`. What follows it there follows it on the disk.
    pub fn place(&self, offset: u64) -> u64 {
        self.top().place(offset)
    }

    /// The first piece of `length` bytes from `offset`, all of which are on the disk.
    pub fn extent(&self, offset: u64, length: u64) -> Extent<'_> {
        self.extent_below(self.parts.len(), offset, length)
    }

    /// The same as if the chain had only the lowest `count` files.
    fn extent_below(&self, count: usize, offset: u64, length: u64) -> Extent<'_> {
        let block = offset / BLOCK;
        let mut end = (offset + length).div_ceil(BLOCK);
        let mut place = None;
        let mut limit = u64::MAX;
        for part in self.parts[..count].iter().rev() {
            let (has, next) = part.run(block, end);
            end = next;
            if has {
                // The last block of a part may be cut short, and the disk be longer: the rest of it is zeros.
                if offset < part.length {
                    place = Some((&part.file, part.place(offset)));
                    limit = part.length - offset;
                }
                break;
            }
        }
        Extent { place, length: length.min(end * BLOCK - offset).min(limit) }
    }

    /// The bytes of the block that `offset` is in: the last one may be cut short.
    pub fn block_of(&self, offset: u64) -> Range<u64> {
        let start = offset / BLOCK * BLOCK;
        start..(start + BLOCK).min(self.length)
    }

    /// Whether only a part of the block at `offset` is in `range`, while the block is not in the top yet. Then it has to be
    /// read, changed, and written as a whole, and nothing else may be done to it meanwhile.
    pub fn must_merge(&self, offset: u64, range: &Range<u64>) -> bool {
        let block = self.block_of(offset);
        let whole = range.start <= block.start && block.end <= range.end;
        let layer = self.top().layer.as_ref();
        !whole && layer.is_some_and(|layer| !layer.bitmap.has(offset / BLOCK))
    }

    /// Notes that the top has the data of these bytes now. Of a block that it had not, they are the whole.
    pub fn written(&mut self, range: &Range<u64>) {
        let Some(Part { layer: Some(layer), .. }) = self.parts.last() else {
            return;
        };
        let new = &mut self.new_bits;
        layer.bitmap.set(range.start / BLOCK..range.end.div_ceil(BLOCK), |page| {
            new.insert(page);
        });
    }

    /// Notes that the top has zeros in place of these bytes, which are whole blocks where it had nothing before.
    pub fn cleared(&mut self, range: &Range<u64>) {
        let below = self.parts.len() - 1;
        let mut at = range.start;
        while at < range.end {
            let extent = self.extent_below(below, at, range.end - at);
            let (hides, piece) = (extent.place.is_some(), at..at + extent.length);
            // Where there is nothing to hide, the top need not have the block.
            if hides {
                self.written(&piece);
            }
            at = piece.end;
        }
    }

    /// The new bits, for a flush to write between two `fdatasync`s, the first of which is begun after this.
    pub fn take_new_bits(&mut self) -> Vec<Page> {
        let new = std::mem::take(&mut self.new_bits);
        let layer = self.top().layer.as_ref();
        let pages = layer.map(|layer| {
            let page = |index| Page { index, place: BITMAP_START + index * BLOCK, bytes: layer.bitmap.page(index) };
            new.into_iter().map(page).collect()
        });
        pages.unwrap_or_default()
    }

    /// Whether there are bits that only this process knows.
    pub fn has_new_bits(&self) -> bool {
        !self.new_bits.is_empty()
    }

    /// Bits that could not be written are new again.
    pub fn keep_new_bits(&mut self, pages: &[Page]) {
        self.new_bits.extend(pages.iter().map(|page| page.index));
    }

    /// Puts a new layer on top, made in the empty `file`; what was the top is never written to again. It must have been
    /// flushed, with nothing in flight. When this returns, the layer is durable. After an error nothing has changed.
    pub fn add_layer(&mut self, file: File) -> Result<(), Error> {
        let name = "new layer";
        lock(name, &file, true)?;
        create(&file, name, self.length, self.top().as_parent())?;
        let part = Part::open(name, file, true)?;
        let below = self.parts.len() - 1;
        // The bitmap of what was the top is private to this process: from now on it is the file's, as for everybody.
        let Part { name, file, length, layer } = &self.parts[below];
        let layer = match layer {
            Some(Layer { header, .. }) => {
                let bitmap = Bitmap::map(file, header, false).map_err(failed(name, "mapping its bitmap"))?;
                Some(Layer { header: header.clone(), bitmap })
            }
            None => None,
        };
        // Others may read it now.
        lock(name, file, false)?;
        self.parts[below] = Part { name: name.clone(), file: file.clone(), length: *length, layer };
        self.parts.push(part);
        Ok(())
    }

    /// Reads, waiting for it. For what is rare or not a machine's.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let extent = self.extent(at, (buffer.len() - done) as u64);
            let piece = &mut buffer[done..done + extent.length as usize];
            match extent.place {
                Some((file, place)) => file.read_exact_at(piece, place)?,
                None => piece.fill(0),
            }
            done += extent.length as usize;
        }
        Ok(())
    }
}

/// Makes a layer of `length` bytes in an empty file, durably.
pub fn create(file: &File, name: &str, length: u64, parent: Parent) -> Result<Header, Error> {
    let io = |what| failed(name, what);
    let found = file.metadata().map_err(io("asking its length"))?.len();
    if found != 0 {
        return Err(Error::NotEmpty { name: name.to_owned(), length: found });
    }
    if !is_length(length) {
        return Err(Error::Size(length));
    }
    let header = Header { length, uuid: Uuid::random().map_err(io("naming it"))?, parent };
    create_as(file, name, &header)?;
    Ok(header)
}

/// Makes an empty file the layer that a header describes, durably.
fn create_as(file: &File, name: &str, header: &Header) -> Result<(), Error> {
    let io = |what| failed(name, what);
    file.set_len(header.file_length()).map_err(io("making it as long as the disk"))?;
    file.write_all_at(&header.encode(), 0).map_err(io("writing its header"))?;
    file.sync_all().map_err(io("writing its header"))
}

/// A machine that was killed is gone only a moment after the process that was waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps others from writing to a file, and if it is to be written to, from reading it, for as long as it is open.
pub fn lock(name: &str, file: &File, writable: bool) -> Result<(), Error> {
    let lock = if writable { File::try_lock } else { File::try_lock_shared };
    let deadline = Instant::now() + PATIENCE;
    let locked = loop {
        match lock(file) {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PATIENCE / 100),
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let read = writable && file.try_lock_shared().is_ok();
            let what = if read { "reads it, so nothing may write to it" } else { "writes to it" };
            Err(Error::Locked { name: name.to_owned(), what })
        }
        // Some network file systems have no locks.
        Err(TryLockError::Error(_)) => Ok(()),
    }
}

fn check_link(below: Option<&Part>, part: &Part) -> Result<(), Error> {
    let name = || part.name.clone();
    let Some(layer) = &part.layer else {
        return if below.is_some() { Err(Error::RawAbove { name: name() }) } else { Ok(()) };
    };
    let found = below.map_or(Parent::None, Part::as_parent);
    let parent = layer.header.parent;
    if parent != found {
        let below = below.map_or("nothing".to_owned(), |below| format!("{} ({found})", below.name));
        return Err(Error::Parent { name: name(), parent, below });
    }
    match below {
        Some(below) if below.length > part.length => {
            Err(Error::Shrunk { name: name(), length: part.length, below: below.length })
        }
        _ => Ok(()),
    }
}
